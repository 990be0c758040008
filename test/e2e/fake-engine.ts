// An engine process without a model, for tests of the editor's surface: the real process, socket and life (lifecycle.ts) around a
// core that answers from scripts. It writes every request to `requests.jsonl` in $SALA_FAKE_DIR and obeys `control.json` there, so
// that a test can slow it down, make it fail, and see what the editor asked for.

import { appendFileSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { CoverageLevelSum } from '../../extension/engine/coverage-tree';
import { EngineError, isErrorCode } from '../../extension/engine/errors';
import { runEngine } from '../../extension/engine/lifecycle';
import { dedupeRoots } from '../../extension/engine/workspace/filter';
import * as messages from '../../extension/engine/messages';
import { notebookText } from '../../extension/engine/workspace/notebook';
import type { ClientSession, EngineCore, SessionClient } from '../../extension/engine/session';

interface Control {
  /** Before a completion is answered. */
  readonly completeDelay_ms: number;
  readonly tokenDelay_ms: number;
  /** Files read by background reading, each second. */
  readonly filesPerSecond: number;
  /** Between two parts of a pack that is written or taken in. */
  readonly packDelay_ms: number;
  /** `load`: the model cannot be loaded. */
  readonly fail: null | 'load';
  /** The model is not loaded before this is taken back. */
  readonly hold: boolean;
  /** A pause ends as if another window had asked for it. */
  readonly endPauses: boolean;
}

/** So much of a document around the cursor is written down. */
const shownText = 400;

const packText = 'a pack of the scripted engine\n';

const dir = process.env['SALA_FAKE_DIR'] ?? '';
const defaults: Control = { completeDelay_ms: 20, tokenDelay_ms: 15, filesPerSecond: 1000, packDelay_ms: 5, fail: null, hold: false, endPauses: false };

function control(): Control {
  try {
    return { ...defaults, ...(JSON.parse(readFileSync(path.join(dir, 'control.json'), 'utf8')) as Partial<Control>) };
  } catch {
    return defaults;
  }
}

function note(type: string, params: unknown): void {
  if (dir !== '') appendFileSync(path.join(dir, 'requests.jsonl'), `${JSON.stringify({ at: Date.now(), pid: process.pid, type, params })}\n`);
}

void runEngine(process.argv.slice(2), async () => {
  note('load', null);
  while (control().hold) await delay(50);
  if (control().fail === 'load') {
    throw new EngineError('model_invalid', 'models/tiny/model.safetensors: expected 1234 bytes, found 1000');
  }
  return fakeCore;
});

const fakeCore: EngineCore = {
  hello: () => ({
    version: '0.0.0', pid: process.pid, model: { name: 'fake', dir: '/models/fake', identity: '0'.repeat(64) },
    store: '/store', backend: 'reference', activations: 'int8', threads: 2,
  }),
  createSession: (client) => new FakeSession(client),
  close: async () => {},
};

class FakeSession implements ClientSession {
  private roots: readonly messages.Root[] = [];
  private files = new Map<string, messages.FileCoverage>();
  private reading = false;
  private paused = false;
  /** Files that may be read by now. */
  private due = 0;
  private timer: NodeJS.Timeout | undefined;

  constructor(private readonly client: SessionClient) {}

  async open(params: messages.OpenParams): Promise<messages.Coverage> {
    note('open', params);
    this.roots = await dedupeRoots(params.roots);
    this.reading = params.ingest;
    const old = this.files;
    this.files = new Map();
    for (const root of this.roots) {
      for (const file of walk(root)) {
        const key = `${root.path}/${file.path}`;
        const before = old.get(key);
        const isSame = before !== undefined && (before.state === 'excluded') === (file.state === 'excluded');
        this.files.set(key, isSame ? before : { ...file, root: root.path });
      }
    }
    this.client.notify(messages.coverageChanged, { files: [], gone: [], everything: true });
    clearInterval(this.timer);
    this.timer = setInterval(() => this.readSome(), 100);
    this.tell();
    return this.total();
  }

  async ask(params: messages.AskParams, signal: AbortSignal): Promise<messages.AskResult> {
    note('ask', params);
    const { id, question } = params;
    const failure = /^fail (\w+)/.exec(question)?.[1];
    if (isErrorCode(failure)) throw new EngineError(failure, `expected something else, found "${question}"`);
    if (question === 'crash') process.kill(process.pid, 'SIGKILL');

    this.client.notify(messages.askPhase, { id, phase: 'searching', coverage: this.total() });
    await pause(150, signal);
    const sources = this.find(question);
    this.client.notify(messages.askPhase, { id, phase: 'reading', coverage: this.total() });
    await pause(question.startsWith('slow') ? 3000 : 150, signal);
    const names = [...question.matchAll(/`([^`]+)`/g)].map((m) => m[1]!);
    const missing = names.filter((name) => this.find(name).length === 0);
    const uncertain = sources.length === 0;
    this.client.notify(messages.askSources, { id, sources, uncertain, missing });
    this.client.notify(messages.askPhase, { id, phase: 'answering', coverage: this.total() });
    const text = answerTo(params, sources);
    let answer = '';
    for (const token of text.match(/[^]{1,6}/gu) ?? []) {
      if (signal.aborted) break;
      await pause(control().tokenDelay_ms, signal);
      answer += token;
      this.client.notify(messages.askText, { id, text: token });
    }
    return {
      answer,
      sources,
      marks: this.marks(answer, sources),
      uncertain,
      missing,
      ...(question.startsWith('vast') && params.search !== 'all' && { unsearched: 1234 }),
      stop: signal.aborted ? 'cancelled' : 'end',
      coverage: this.total(),
      timings: { ingest_s: 0, read_s: 0.1, first_token_s: 0.3, tokens_per_s: 60, tokens: 100 },
    };
  }

  async complete(params: messages.CompleteParams, signal: AbortSignal): Promise<messages.CompleteResult> {
    const [before, after] = [params.text.slice(0, params.offset), params.text.slice(params.offset)];
    note('complete', { ...params, text: undefined, line: before.split('\n').at(-1), before: before.slice(-shownText), after: after.slice(0, shownText) });
    await pause(control().completeDelay_ms, signal);
    if (signal.aborted) throw new EngineError('cancelled', 'complete was cancelled');
    const { completion, start } = completionAt(params);
    return { completion, start, end: params.offset, timings: { first_token_s: 0.1, total_s: 0.1, tokens: 3 } };
  }

  place(params: messages.CompleteParams): void {
    note('place', { path: params.path, offset: params.offset });
  }

  async ingest(): Promise<messages.IngestResult> {
    for (const [key, file] of this.files) this.files.set(key, { ...file, state: file.state === 'waiting' ? 'in' : file.state });
    return { files: this.files.size, tokens: this.total().tokens, encoded_tokens: 0, reused_tokens: 0, tokens_per_s: 200 };
  }

  async coverage({ path: one }: { path?: string }): Promise<readonly messages.FileCoverage[]> {
    return [...this.files.values()].filter((f) => one === undefined || f.path === one);
  }

  async coverageLevel(place: messages.CoveragePlace): Promise<messages.CoverageLevel> {
    const files = [...this.files.values()];
    const sum = new CoverageLevelSum(place, new Set(files.map(({ root }) => root)).size);
    for (const file of files) sum.add(file);
    return sum.level();
  }

  async coverageOf({ paths }: { paths: readonly string[] }): Promise<readonly (messages.FileCoverage | null)[]> {
    note('coverageOf', { paths });
    return paths.map((file) => {
      for (let at = file; at !== path.dirname(at); at = path.dirname(at)) {
        const found = this.files.get(at);
        if (found !== undefined) return found;
      }
      return null;
    });
  }

  pause({ paused }: { paused: boolean }): void {
    note('pause', { paused });
    this.paused = paused;
    this.tell();
  }

  settings(params: Partial<messages.EngineSettings>): void {
    note('settings', params);
  }

  typing(): void {
    note('typing', null);
  }

  filesChanged(params: { paths: readonly string[] }): void {
    note('filesChanged', params);
  }

  recentFiles(params: { paths: readonly string[] }): void {
    note('recentFiles', params);
  }

  document(params: { path: string; text: string | null }): void {
    note('document', params);
  }

  async exportPack({ file }: { file: string }, signal: AbortSignal): Promise<messages.ExportResult> {
    note('exportPack', { file });
    await this.passPack(signal);
    writeFileSync(file, packText);
    const { files, tokens } = this.total();
    const left_out = [...this.files.values()].filter(({ state }) => state === 'waiting').map(({ root, path: name }) => ({ root, path: name, reason: 'waiting' as const }));
    return { segments: files, tokens, bytes: 5 << 20, files, left_out };
  }

  /** A pack is one line; what stands behind it is damage. */
  async importPack({ file }: { file: string }, signal: AbortSignal): Promise<messages.ImportResult> {
    note('importPack', { file });
    const text = readFileSync(file, 'utf8');
    if (!text.startsWith(packText)) throw new EngineError('store_invalid', `${file}: expected a pack, found ${text.length} bytes`);
    await this.passPack(signal);
    const findings = text === packText ? [] : ['segment 00ff of src/ring.c: checksum of the record differs'];
    return { segments: 7, tokens: 1234, bytes: 5 << 20, files: 6, numerics: 'fake.1.kv8', foreign: false, damaged: findings.length, findings };
  }

  private async passPack(signal: AbortSignal): Promise<void> {
    const total = 5 << 20;
    for (let part = 1; part <= 10; part += 1) {
      await pause(control().packDelay_ms, signal);
      if (signal.aborted) {
        note('packCancelled', null);
        throw new EngineError('cancelled', 'the pack was cancelled');
      }
      this.client.notify(messages.packProgress, { phase: 'segments', done: (total * part) / 10, total });
    }
  }

  async verify(): Promise<messages.StoreCheck> {
    return { segments: 0, files: 0, bytes: 0, damaged: 0, findings: [] };
  }

  async forget(): Promise<{ segments: number; bytes: number }> {
    note('forget', null);
    return { segments: 42, bytes: 3 << 20 };
  }

  async close(): Promise<void> {
    note('close', null);
    clearInterval(this.timer);
  }

  private readSome(): void {
    if (this.paused && control().endPauses) {
      this.paused = false;
      this.client.notify(messages.pauseEnded, {});
      this.tell();
    }
    if (!this.reading || this.paused) return;
    this.due = Math.min(this.due + control().filesPerSecond / 10, control().filesPerSecond);
    let n = Math.floor(this.due);
    this.due -= n;
    const changed: messages.FileCoverage[] = [];
    for (const [key, file] of this.files) {
      if (n === 0) break;
      if (file.state !== 'waiting') continue;
      const read: messages.FileCoverage = { ...file, state: 'in' };
      this.files.set(key, read);
      changed.push(read);
      n -= 1;
    }
    if (changed.length === 0) return;
    this.client.notify(messages.coverageChanged, { files: changed, gone: [], everything: false });
    this.tell();
  }

  private tell(): void {
    const coverage = this.total();
    const done = coverage.files === coverage.total_files;
    this.client.notify(messages.ingestStatus, {
      state: this.paused ? 'paused' : done || !this.reading ? 'idle' : 'reading',
      ...(this.paused && { reason: 'user' }),
      coverage,
      encoded_tokens: coverage.tokens,
      reused_tokens: 0,
      tokens_per_s: 200,
      ...(done ? {} : { seconds_left: Math.ceil((coverage.total_tokens - coverage.tokens) / 200) }),
    });
  }

  private total(): messages.Coverage {
    const counted = [...this.files.values()].filter((f) => f.state !== 'excluded');
    const read = counted.filter((f) => f.state === 'in');
    const tokens = (list: readonly messages.FileCoverage[]): number => list.reduce((sum, f) => sum + f.tokens, 0);
    return { files: read.length, tokens: tokens(read), total_files: counted.length, total_tokens: tokens(counted), estimated: read.length < counted.length };
  }

  /** Files that hold the question's longest name, best first. */
  private find(question: string): messages.Source[] {
    const names = (question.match(/[A-Za-z_][A-Za-z0-9_]{3,}/g) ?? []).filter((name) => /[_A-Z]/.test(name.slice(1)) || question.length === name.length);
    const found: messages.Source[] = [];
    for (const file of this.files.values()) {
      if (file.state === 'excluded') continue;
      const lines = linesOf(file);
      for (const name of names) {
        const line = lines.findLastIndex((text) => text.includes(name) && !/^\s*(import|#include|\/\*|\*|\/\/|-)/.test(text));
        if (line === -1) continue;
        const definition = new RegExp(`(def|function|const|enum|uint16_t|void) \\**${name}`).test(lines[line]!);
        found.push({ root: file.root, path: file.path, start_line: line + 1, end_line: Math.min(line + 8, lines.length), weight: definition ? 0.71 : 0.12 });
        break;
      }
    }
    return found.sort((a, b) => b.weight - a.weight).slice(0, 3);
  }

  private marks(answer: string, sources: readonly messages.Source[]): messages.AnswerMark[] {
    const marks: messages.AnswerMark[] = [];
    for (const match of answer.matchAll(/[\w/-]+\.(?:c|ts|py|go|md|ipynb)\b/g)) {
      const meant = sources.filter((s) => `/${s.path}`.endsWith(`/${match[0]}`));
      const range = { start: match.index, end: match.index + match[0].length };
      for (const source of meant) marks.push({ ...range, kind: 'link', source });
      if (meant.length === 0) marks.push({ ...range, kind: 'unknown' });
    }
    return marks;
  }
}

function answerTo({ question, attachment, history }: messages.AskParams, sources: readonly messages.Source[]): string {
  if (question.startsWith('long')) {
    return Array.from({ length: 30 }, (_, i) => `Paragraph ${i + 1}: ${'the ring keeps every reading until it is overwritten. '.repeat(4)}`).join('\n\n');
  }
  if (question.startsWith('fence')) {
    return 'Here is the file:\n\n```markdown\n# Demo\n```sh\nnpm start\n```\n## After\n- item\n```\n\nDone.';
  }
  if (attachment !== undefined) {
    return `About \`${attachment.path}\`, lines ${attachment.start_line} to ${attachment.end_line}:\n\n\`\`\`ts\nif (ready) {\n    start();\n}\n\`\`\`\n`;
  }
  if (history !== undefined && history.length > 0 && question.startsWith('and')) return `After ${history.length} earlier turns: the same file.`;
  const [first] = sources;
  if (first === undefined) return 'I do not know; nothing in this workspace looks like it.';
  if (/bare name/.test(question)) return `It is in \`${path.posix.basename(first.path)}\`.`;
  const lines = linesOf(first).slice(first.start_line - 1, first.start_line + 5);
  const language = { '.c': 'c', '.h': 'c', '.ts': 'ts', '.py': 'python', '.go': 'go' }[path.extname(first.path)] ?? '';
  return [
    `It is defined in \`${first.path}\`, at line ${first.start_line}:`,
    `\`\`\`${language}\n${lines.join('\n')}\n\`\`\``,
    '- **What it does:** see the lines above.\n- *Where it is used:* in `src/nowhere.c`, among others.',
    '| part | file |\n|---|---|\n| reader | `web/ring-reader.ts` |',
  ].join('\n\n');
}

/** By the text before the cursor: each test types its own beginning. */
function completionAt({ text, offset, selected }: messages.CompleteParams): { completion: string; start: number } {
  const before = text.slice(0, offset);
  const line = before.slice(before.lastIndexOf('\n') + 1);
  if (selected !== undefined) return { completion: `${selected.text}(x => x * 2)`.slice(offset - selected.offset), start: offset };
  const scripts: [RegExp, string][] = [
    [/const answer =$/, ' 42;'],
    [/const answer = $/, '42;'],
    [/function greet$/, '(name) {\n  return `hello ${name}`;\n}'],
    [/call\($/, 'alpha(beta, gamma)'],
    [/ret$/, 'urn total'],
    [/const total = li$/, 'st.length;'],
    [/print\(rate_$/, 'zt42'],
    [/return rate_$/, 'qa17 * n\n\n# %%\nprint("of the next cell")'],
    [/^a =$/, ' first_of_line_one'],
    [/^a = $/, 'first_of_line_one'],
    [/^b = $/, 'second_of_line_two'],
    [/^\s*FILE \*in = .*;$/, ''],
  ];
  const found = scripts.find(([pattern]) => pattern.test(line));
  if (found !== undefined) return { completion: found[1], start: offset };
  if (/found\.append\(n\)\n {12}$/.test(before)) return { completion: '    return found', start: offset - 12 };
  if (/^\s+$/.test(line)) return { completion: 'char buffer[64];', start: offset };
  return { completion: '', start: offset };
}

/** A notebook's are those of its cells, as the engine counts them. */
function linesOf({ root, path: file }: { readonly root: string; readonly path: string }): string[] {
  const text = readFileSync(path.join(root, file), 'utf8');
  return (file.endsWith('.ipynb') ? (notebookText(text)?.text ?? text) : text).split('\n');
}

/** Globs are understood as plain paths, as one click on a file writes them. */
function walk({ path: root, include = [], exclude = [] }: messages.Root): Omit<messages.FileCoverage, 'root'>[] {
  const never = /^(node_modules|\.git|\.vscode)(\/|$)/;
  const ignored = ignoredByUser(root);
  const within = (name: string, paths: readonly string[]): string | undefined => paths.find((p) => name === p || name.startsWith(`${p}/`));
  const globs = (list: readonly string[]): string[] => list.map((glob) => glob.replace(/^\//, ''));
  const found = new Map<string, Omit<messages.FileCoverage, 'root'>>();
  const names = (readdirSync(root, { recursive: true }) as string[]).map((name) => name.split(path.sep).join('/'));
  for (const name of names.sort()) {
    if (never.test(name) || !statSync(path.join(root, name)).isFile()) continue;
    const bytes = statSync(path.join(root, name)).size;
    const out = { path: name, bytes, tokens: 0, state: 'excluded' as const };
    const common = { path: name, bytes, tokens: Math.ceil(bytes / 3.5) };
    const user = within(name, globs(exclude));
    const rule = within(name, globs(include)) === undefined ? within(name, ignored) : undefined;
    if (user !== undefined) found.set(user, { ...out, path: user, rule: 'user', detail: `exclude: /${user}` });
    else if (rule !== undefined) found.set(rule, { ...out, path: rule, rule: 'ignored', detail: `.salaignore:${ignored.indexOf(rule) + 1}: ${rule}` });
    else if (name.endsWith('.lock')) found.set(name, { ...out, rule: 'lock_file' });
    else if (name.startsWith('.env')) found.set(name, { ...out, rule: 'secret' });
    else if (name.includes('over_budget')) found.set(name, { ...common, state: 'over_budget' });
    else if (name.includes('stale')) found.set(name, { ...common, state: 'stale' });
    else found.set(name, { ...common, state: 'waiting' });
  }
  return [...found.values()];
}

function ignoredByUser(root: string): string[] {
  try {
    return readFileSync(path.join(root, '.salaignore'), 'utf8').split('\n').filter((line) => line !== '');
  } catch {
    return [];
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => {});
}
