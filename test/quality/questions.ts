// The question set: asked through the command line over a repository that is read in full, and what of the answers is right.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { assetPath } from '../../extension/engine/assets';
import type { AskResult } from '../../extension/engine/messages';
import { makeWorkspace } from './workspace';

interface Question {
  readonly kind: 'where' | 'signature' | 'implementation' | 'constant' | 'meaning' | 'absent';
  readonly question: string;
  readonly path?: string;
  /** Must stand in the answer, white space folded. */
  readonly expect?: string;
}

const criteria = ['first', 'first three', 'path', 'text', 'absent', 'real paths'] as const;

/** How many questions are right by each criterion, of those that it is for. */
export type Scores = Record<(typeof criteria)[number], { hits: number; of: number }>;

const questions = JSON.parse(readFileSync('test/quality/questions.json', 'utf8')) as Question[];

/** Answers to all questions, in an engine of their own; `more`: further arguments. To be run in the clone's top folder. */
export function askAll(more: readonly string[] = []): AskResult[] {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'sala-quality-'));
  try {
    const workspace = path.join(folder, 'workspace');
    makeWorkspace(process.cwd(), workspace);
    const args = ['ask', '-', '--wait', 'full', '--json', '--workspace', workspace, '--store', path.join(folder, 'store'), ...more];
    const { status, stdout, stderr } = spawnSync(process.execPath, [assetPath('cli.cjs'), ...args], {
      input: questions.map(({ question }) => question).join('\n'),
      encoding: 'utf8',
      maxBuffer: 64 << 20,
    });
    assert.equal(status, 0, `${stderr}\n${stdout.slice(-2000)}`);
    const answers = stdout.trim().split('\n').map((line) => JSON.parse(line) as AskResult);
    assert.equal(answers.length, questions.length);
    return answers;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** `say` is told each miss, and the sums. */
export function score(answers: readonly AskResult[], say: (line: string) => void): Scores {
  const isThere = ({ kind }: Question): boolean => kind !== 'absent';
  const hasText = ({ kind }: Question): boolean => ['where', 'signature', 'implementation', 'constant'].includes(kind);
  const rank = (question: Question, answer: AskResult): number => {
    const files = [...new Set(answer.sources.map(({ path: file }) => file))];
    return files.indexOf(question.path as string);
  };
  const count = (title: string, among: (question: Question) => boolean, right: (question: Question, answer: AskResult) => boolean): { hits: number; of: number } => {
    let n = 0;
    let hits = 0;
    questions.forEach((question, i) => {
      if (!among(question)) return;
      n++;
      const answer = answers[i]!;
      if (right(question, answer)) hits++;
      else {
        const sources = answer.sources.slice(0, 3).map(({ path: file, weight }) => `${file} ${Math.round(weight * 100)} %`);
        say(`${title}: missed: ${question.question} (${question.path ?? 'nowhere'})\n  ${sources.join(', ')}\n  ${answer.answer.replaceAll('\n', '\n  ')}`);
      }
    });
    say(`${title}: ${hits} of ${n}`);
    return { hits, of: n };
  };
  return {
    first: count('first', isThere, (question, answer) => rank(question, answer) === 0),
    'first three': count('first three', isThere, (question, answer) => [0, 1, 2].includes(rank(question, answer))),
    path: count('path', hasText, (question, { answer }) => answer.includes(question.path as string)),
    text: count(
      'text',
      (question) => hasText(question) && question.expect !== undefined,
      (question, { answer }) => folded(answer).includes(folded(question.expect as string)),
    ),
    // An invented path or file name would stand there as code.
    absent: count(
      'absent',
      ({ kind }) => kind === 'absent',
      (_, answer) => /does not occur in this workspace|do not occur/.test(answer.answer) && answer.sources.length === 0 && !/\w\/\w|\.\w{1,4}`/.test(answer.answer.replaceAll('::', '')),
    ),
    'real paths': count('real paths', isThere, (_, answer) =>
      answer.marks.every(({ kind, start, end }) => kind !== 'unknown' || !answer.answer.slice(start, end).includes('/')),
    ),
  };
}

function folded(text: string): string {
  return text.replace(/\s+/g, ' ').trim();
}
