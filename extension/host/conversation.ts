// The conversation of one workspace: its turns, kept in a file of the editor's own storage for this workspace. A question is on
// disk before it is asked, so that a killed host loses nothing that was typed; a turn that was running when the file was last
// written is `broken_off` when it is read. Knows nothing of the engine or the view.

import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Attachment, Turn } from '../engine/messages';
import type { TurnRecord } from '../protocol';
import type { Log } from '../log';

const fileName = 'conversation.json';
/** While an answer streams, what has come of it is written this often. */
const writeInterval_ms = 1000;

export class Conversation {
  #turns: readonly TurnRecord[] = [];
  #timer: NodeJS.Timeout | undefined;

  /** `folder` undefined: no folder is open, nothing is kept. */
  constructor(
    private readonly folder: string | undefined,
    private readonly log: Pick<Log, 'warn'>,
  ) {
    this.#turns = this.#read();
  }

  get turns(): readonly TurnRecord[] {
    return this.#turns;
  }

  /** A new turn at the end; with `replaces`, that turn is dropped. */
  begin(question: string, attachment: Attachment | null, replaces: number | null): TurnRecord {
    const turn = Math.max(0, ...this.#turns.map((t) => t.turn)) + 1;
    const record: TurnRecord = {
      turn,
      question,
      attachment,
      status: 'running',
      phase: null,
      answer: '',
      sources: [],
      marks: [],
      uncertain: false,
      missing: [],
      stop: null,
      coverage: null,
      failure: null,
    };
    this.#turns = [...this.#turns.filter((t) => t.turn !== replaces), record];
    this.write();
    return record;
  }

  /** Changes a turn; what ends one is written at once. Null if the turn is gone, as after "New conversation". */
  update(turn: number, change: Partial<TurnRecord>): TurnRecord | null {
    const index = this.#turns.findIndex((t) => t.turn === turn);
    const old = this.#turns[index];
    if (old === undefined) return null;
    const next = { ...old, ...change };
    this.#turns = this.#turns.with(index, next);
    if (next.status !== 'running') this.write();
    else this.#timer ??= setTimeout(() => this.write(), writeInterval_ms);
    return next;
  }

  clear(): void {
    this.#turns = [];
    this.write();
  }

  /** Earlier turns as the engine wants them. */
  historyBefore(turn: number): readonly Turn[] {
    return this.#turns
      .filter((t) => t.turn < turn && t.answer !== '' && t.status !== 'failed')
      .map(({ question, answer }) => ({ question, answer }));
  }

  /** The conversation as a Markdown document. */
  toMarkdown(): string {
    const turns = this.#turns.map((t) => {
      const place = t.attachment === null ? '' : `\n\nAbout \`${t.attachment.path}\`, lines ${t.attachment.start_line}–${t.attachment.end_line}:\n\n${fenced(t.attachment.text)}`;
      const sources = t.sources.map((s) => `- \`${s.path}\`, lines ${s.start_line}–${s.end_line}`);
      return [`## ${t.question.replace(/\s+/g, ' ')}${place}`, t.answer || '(no answer)', ...(sources.length > 0 ? [`Sources:\n\n${sources.join('\n')}`] : [])].join('\n\n');
    });
    return `${['# Conversation', ...turns].join('\n\n')}\n`;
  }

  /** Writes what there is now: to a second name first, so that the file is always whole. */
  write(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.folder === undefined) return;
    const file = path.join(this.folder, fileName);
    try {
      mkdirSync(this.folder, { recursive: true });
      writeFileSync(`${file}.new`, JSON.stringify(this.#turns));
      renameSync(`${file}.new`, file);
    } catch (error) {
      this.log.warn(`the conversation could not be kept: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  #read(): readonly TurnRecord[] {
    if (this.folder === undefined) return [];
    try {
      const turns: unknown = JSON.parse(readFileSync(path.join(this.folder, fileName), 'utf8'));
      if (!Array.isArray(turns)) throw new Error(`expected a list of turns, found ${typeof turns}`);
      return (turns as TurnRecord[]).map((t) => (t.status === 'running' ? { ...t, status: 'broken_off', phase: null } : t));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
        this.log.warn(`the last conversation could not be read: ${error instanceof Error ? error.message : String(error)}`);
      }
      return [];
    }
  }
}

/** A fence longer than any in the code. */
function fenced(code: string): string {
  const longest = Math.max(2, ...[...code.matchAll(/`+/g)].map((m) => m[0].length));
  const fence = '`'.repeat(longest + 1);
  return `${fence}\n${code}\n${fence}`;
}
