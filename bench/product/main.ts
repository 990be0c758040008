// What a user waits for, with the embedded model, on the engine's core without a process border: a cold read of repositories against
// what the kernels alone take, from a save to memory that has it, a question's first token, completions. Every figure is of this
// machine at this moment; the share of processor time that others took stands beside.

import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Core } from '../../extension/engine/core';
import type { EngineSettings } from '../../extension/engine/messages';
import type { RootIndex } from '../../extension/engine/root-index';
import type { ClientSession, SessionClient } from '../../extension/engine/session';
import { replaceEncode, rootOf } from '../../test/reliability/tiny-core';
import { fetchDebianSource } from './debian';
import { chooser, say, spread } from '../words';

const usage = `node bench/product.mjs [ingest] [save] [ask] [complete] [--debian PACKAGE] [--tokens N] [--budget N] [--rounds N] [--threads N]

  ingest     cold: this repository, and a package of Debian's sources (default: libuv1); --budget: only so many tokens of each
  save       from a save to memory that has it, in a workspace of 100,000 tokens (--tokens)
  ask        a question over as many: first token
  complete   ghost text: cold at a new place, while typing on
`;
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { debian: { type: 'string', default: 'libuv1' }, tokens: { type: 'string', default: '100000' }, budget: { type: 'string' }, rounds: { type: 'string', default: '20' }, threads: { type: 'string' }, help: { type: 'boolean' } },
});
const never = new AbortController().signal;
const rounds = Number(values.rounds);
const workspaceTokens = Number(values.tokens);
/** Bytes of source text a token stands for, about. */
const bytesPerToken = 3.4;

const temporary = mkdtempSync(path.join(os.tmpdir(), 'sala-bench-'));

interface Opened {
  readonly core: Core;
  readonly session: ClientSession;
  readonly root: RootIndex;
  /** Called for everything that the engine tells. */
  listen(heard: (method: string) => void): void;
}

/** All rows but a cold read share a store, so that the workspace is encoded once. */
async function open(
  workspace: string,
  watch: 'none' | 'engine',
  { store = path.join(temporary, 'store', 'model'), settings = {} }: { store?: string; settings?: Partial<EngineSettings> } = {},
): Promise<Opened> {
  mkdirSync(store, { recursive: true });
  const core = await Core.load({
    store,
    activations: 'int8',
    ...(values.threads !== undefined && { threads: Number(values.threads) }),
    onProgress: () => {},
    log: (line) => console.error(line),
  });
  let heard: (method: string) => void = () => {};
  const client: SessionClient = { kind: 'cli', notify: (type) => heard(type.method) };
  const session = core.createSession(client);
  await session.open({ roots: [{ path: workspace, name: 'workspace' }], trusted: true, settings, watch, ingest: watch === 'engine' });
  return { core, session, root: rootOf(session), listen: (listener) => (heard = listener) };
}

// ---- cold ingest --------------------------------------------------------------------------------------------------------------

async function ingest(title: string, workspace: string): Promise<void> {
  const { core, session } = await open(workspace, 'none', {
    store: path.join(mkdtempSync(path.join(temporary, 'store-')), 'model'),
    settings: values.budget === undefined ? {} : { tokenBudget: Number(values.budget) },
  });
  // What the engine's thread computes for segments; all else should hide behind it.
  const { native } = core;
  const encode = native.encodeSegments.bind(native);
  let kernel_s = 0;
  replaceEncode(native, (...args) => {
    const job = encode(...args);
    void job.done.then(({ seconds }) => (kernel_s += seconds), () => {});
    return job;
  });
  const before = process.cpuUsage();
  const began = performance.now();
  const { files, tokens, encoded_tokens } = await session.ingest(never);
  const wall_s = (performance.now() - began) / 1000;
  const cpu = process.cpuUsage(before);
  await core.close();
  say(`cold read of ${title}: ${files} files, ${tokens} tokens (${encoded_tokens} encoded)`, [
    `${(encoded_tokens / wall_s).toFixed(0)} tokens/s on the clock`,
    `${((100 * kernel_s) / wall_s).toFixed(1)} % of it in the kernels`,
    `${((cpu.user + cpu.system) / 1000 / encoded_tokens).toFixed(2)} ms of processor time a token`,
  ]);
}

/** The files that git has of this repository, as they are now. */
function thisRepository(): string {
  const to = path.join(temporary, 'repository');
  for (const file of execFileSync('git', ['ls-files', '-z'], { encoding: 'utf8', maxBuffer: 1 << 26 }).split('\0')) {
    if (file === '' || file.startsWith('models/') || !existsSync(file)) continue;
    mkdirSync(path.dirname(path.join(to, file)), { recursive: true });
    cpSync(file, path.join(to, file));
  }
  return to;
}

// ---- the workspace of the other rows --------------------------------------------------------------------------------------------

/** Source files of this repository, about so many tokens of them. */
function workspace(): string {
  const dir = path.join(mkdtempSync(path.join(temporary, 'workspace-')), 'w');
  let bytes = workspaceTokens * bytesPerToken;
  for (const file of ['extension/engine', 'native', 'kernels'].flatMap(sources)) {
    const { size } = statSync(file);
    if (size > bytes) continue;
    bytes -= size;
    mkdirSync(path.dirname(path.join(dir, file)), { recursive: true });
    cpSync(file, path.join(dir, file));
  }
  return dir;
}

function sources(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => /\.(ts|cpp|h)$/.test(file))
    .map((file) => path.join(folder, file))
    .sort();
}

async function read({ session }: Opened): Promise<{ tokens: number; tokens_per_s: number }> {
  const { tokens, tokens_per_s } = await session.ingest(never);
  return { tokens, tokens_per_s };
}

// ---- from a save to memory that has it --------------------------------------------------------------------------------------------

async function save(): Promise<void> {
  const dir = workspace();
  const opened = await open(dir, 'engine');
  const { tokens, tokens_per_s } = await read(opened);
  const files = sources(dir).filter((file) => /\.ts$/.test(file));
  const times: number[] = [], encoded: number[] = [], over: number[] = [];
  for (let i = 0; i < rounds; i++) {
    const file = files[(i * 7) % files.length]!;
    const relative = path.relative(dir, file);
    const lines = readFileSync(file, 'utf8').split('\n');
    // One line within a function: some two thirds down.
    lines.splice(Math.floor(lines.length * 0.66), 0, `  // Changed in round ${i}.`);
    const before = opened.root.nEncoded;
    const key = opened.root.records.get(relative)?.current?.fileKey;
    const began = performance.now();
    writeFileSync(file, lines.join('\n'));
    await new Promise<void>((resolve) => {
      const timer = setInterval(() => {
        const record = opened.root.records.get(relative);
        if (record?.current === undefined || record.current.fileKey === key || record.changed || record.next) return;
        clearInterval(timer);
        resolve();
      }, 2);
    });
    times.push(performance.now() - began);
    encoded.push(opened.root.nEncoded - before);
    over.push(times.at(-1)! - (1000 * encoded.at(-1)!) / tokens_per_s);
    // Nobody saves twice within a second; where somebody does, the watcher gathers for longer.
    await new Promise((resolve) => setTimeout(resolve, 1500));
  }
  await opened.core.close();
  say(`save → ready, ${tokens} tokens in memory, read at ${tokens_per_s} tokens/s, ${rounds} edits of one line`, [
    `${spread(times)} ms`,
    `${spread(encoded)} tokens encoded`,
    `beyond encoding them at that rate: ${spread(over)} ms (wanted: p95 ≤ 150)`,
  ]);
}

// ---- a question's first token -------------------------------------------------------------------------------------------------------

/** Forty tokens or about. */
const questions = [
  'Where does the engine decide which files enter the memory of the workspace first, and what happens once the budget of tokens is used up by them?',
  'How are the blocks of keys and values of one segment read again from the store after the editor was closed and its window opened another time?',
  'Which function chooses the blocks that a token attends to when there are more of them in the view than its attention can be dense over?',
  'What does the client do when the process of the engine dies in the middle of an answer, and how often does it start another one for the user?',
];

async function ask(): Promise<void> {
  const opened = await open(workspace(), 'none');
  const { tokens } = await read(opened);
  const times: number[] = [], inside: number[] = [];
  for (let i = 0; i < rounds; i++) {
    const question = questions[i % questions.length]!;
    const began = performance.now();
    let first: number | undefined;
    opened.listen((method) => {
      if (method === 'askText') first ??= performance.now() - began;
    });
    const { timings } = await opened.session.ask({ id: i + 1, question, maxTokens: 4 }, never);
    times.push(first ?? performance.now() - began);
    inside.push(1000 * timings.first_token_s);
  }
  await opened.core.close();
  say(`question of ${opened.core.tokenizer.encodeText(questions[0]!).length} tokens over ${tokens} tokens: first text (wanted: p95 ≤ 800 ms)`, [
    `${spread(times)} ms`,
    `${spread(inside)} ms to the first token`,
  ]);
}

// ---- ghost text -----------------------------------------------------------------------------------------------------------------------

async function complete(): Promise<void> {
  const dir = workspace();
  const opened = await open(dir, 'none');
  const { tokens } = await read(opened);
  const files = sources(dir).filter((file) => /\.ts$/.test(file));
  const cold: number[] = [], typing: number[] = [];
  for (let i = 0; i < rounds; i++) {
    const file = files[(i * 5) % files.length]!;
    const text = readFileSync(file, 'utf8');
    const place = statements(text)[i % 3];
    if (place === undefined) continue;
    const at = async (offset: number): Promise<number> => {
      const began = performance.now();
      const line = text.indexOf('\n', offset);
      const shown = text.slice(0, offset) + text.slice(line);
      await opened.session.complete({ root: dir, path: path.relative(dir, file), text: shown, offset, trigger: 'automatic' }, never);
      return performance.now() - began;
    };
    cold.push(await at(place.offset + 4));
    // Reading the view of the place goes on behind it; a user types on.
    await new Promise((resolve) => setTimeout(resolve, 1000));
    for (let n = 5; n < place.length && n < 12; n++) typing.push(await at(place.offset + n));
  }
  await opened.core.close();
  say(`ghost text, ${tokens} tokens in memory`, [
    `cold at a new place: ${spread(cold)} ms (wanted: p50 ≤ 1000)`,
    `while typing on, a character at a time: ${spread(typing)} ms (wanted: p50 ≤ 350, p95 ≤ 900)`,
  ]);
}

/** Where lines begin that a user might type: indented statements. */
function statements(text: string): { offset: number; length: number }[] {
  return [...text.matchAll(/^ {4}(?:const|return|if|await|for|this)\b.*$/gm)].map((m) => ({ offset: m.index + 4, length: m[0].length - 4 }));
}

async function main(): Promise<void> {
  const chosen = chooser(usage, ['ingest', 'save', 'ask', 'complete'], positionals, values.help);
  if (!chosen) return;
  try {
    if (chosen('save')) await save();
    if (chosen('ask')) await ask();
    if (chosen('complete')) await complete();
    if (chosen('ingest')) {
      await ingest('this repository', thisRepository());
      await ingest(`Debian's ${values.debian}`, fetchDebianSource(values.debian, temporary));
    }
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

void main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
