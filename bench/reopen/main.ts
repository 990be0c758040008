// What starting again costs with a large memory of the embedded model: from a cold engine process, its files in the page cache, to
// the first text of an answer; what of it is resident then and after more questions; how large the store is; packs. The memory is
// synthetic (synthetic.ts), so nothing is said about answers. Every figure is of this machine at this moment; processor time stands
// beside the clock, and an engine that has nothing to open beside one that has.

import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { EngineClient } from '../../extension/engine/client';
import * as messages from '../../extension/engine/messages';
import { findModel } from '../../extension/engine/model-folder';
import { formatEngineArgs } from '../../extension/engine/options';
import { openStoreFolder } from '../../extension/engine/store-folder';
import { assetPath } from '../../extension/engine/assets';
import { chooser, mib, say } from '../words';
import { processesWith, processorTimeOf, residentOf, type Resident } from './process';
import { fillStore, writeWorkspace, type Filled, type Workspace } from './synthetic';

const usage = `node bench/reopen.mjs [start] [resident] [pack] [--tokens N,…] [--per-file N] [--rounds N] [--questions N] [--threads N] [--in DIR]
                              [--dist DIR,…]

  start      a cold engine process to the first text of an answer, by the command line too
  resident   what of the engine is resident after opening, after one question, after --questions (default: 20)
  pack       export and import of the whole memory: time, and the most that is resident

  --tokens   of the memories (default: 100000,1000000); --per-file: tokens a file, at most (default: 2000)
  --dist     bundles of several versions, started in turn (default: this clone's)
  --in       where workspaces and stores are written, for a while (default: the system's temporary folder)
`;
const names = ['start', 'resident', 'pack'];
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    tokens: { type: 'string', default: '100000,1000000' },
    'per-file': { type: 'string', default: '2000' },
    rounds: { type: 'string', default: '5' },
    questions: { type: 'string', default: '20' },
    threads: { type: 'string' },
    dist: { type: 'string', default: assetPath() },
    in: { type: 'string', default: os.tmpdir() },
    help: { type: 'boolean' },
  },
});
const rounds = Number(values.rounds);
const tokenBudget = 1e9;
/** So that an engine with little memory of the machine's is not what is measured. */
const engineLimits = { maxMemoryBytes: 16 * 2 ** 30, maxDiskBytes: 2 ** 40 };
/** What a process does behind an answer is done by then. */
const settledMs = 2000;
const dists = values.dist.split(',').map((dist) => path.resolve(dist));

/** In words of no file: nothing has to be looked up. */
const plainQuestion = 'Where is it decided in which order the files of a workspace are read into memory?';

// ---- an engine process ----------------------------------------------------------------------------------------------------------

interface Started {
  readonly client: EngineClient;
  readonly pid: number;
  readonly began: number;
  readonly ready_ms: number;
  end(): Promise<void>;
}

async function start(dist: string, store: string, modelDir: string): Promise<Started> {
  const args = formatEngineArgs({ model: modelDir, store, activations: 'int8', graceMs: 0, ...engineLimits, ...(values.threads !== undefined && { threads: Number(values.threads) }) });
  const began = performance.now();
  const client = new EngineClient({ dist, args, client: 'cli', log: (line) => console.error(line) });
  const { pid, remark } = await client.start();
  if (remark !== undefined) throw new Error(remark);
  const end = async (): Promise<void> => {
    client.dispose();
    await gone(store);
  };
  return { client, pid, began, ready_ms: performance.now() - began, end };
}

async function gone(store: string): Promise<void> {
  for (let waited = 0; processesWith('engine.cjs', store).length > 0; waited++) {
    if (waited > 1000) throw new Error(`expected the engine of ${store} to end, found it running`);
    await sleep(10);
  }
}

function open({ client }: Started, { dir }: Workspace): Promise<messages.Coverage> {
  return client.request(messages.open, { roots: [{ path: dir, name: 'workspace' }], trusted: true, settings: { tokenBudget }, watch: 'none', ingest: false });
}

/** Milliseconds until the first text, on the clock and of the engine's processor time since it began. */
async function ask({ client, pid, began }: Started, question: string): Promise<{ first_ms: number; cpu_ms: number; phases: string; timings: messages.AskResult['timings'] }> {
  let first: { first_ms: number; cpu_ms: number } | undefined;
  const phases: string[] = [];
  const stamp = (what: string): number => phases.push(`${what} ${(performance.now() - began).toFixed(0)}`);
  const heard = [
    client.on(messages.askPhase, ({ phase }) => stamp(phase)),
    client.on(messages.askText, () => (first ??= { first_ms: performance.now() - began, cpu_ms: processorTimeOf(pid) })),
  ];
  const { timings } = await client.request(messages.ask, { id: 1, question, maxTokens: 8 });
  for (const each of heard) each.dispose();
  if (!first) throw new Error(`expected text of an answer, found none: ${question}`);
  return { ...first, phases: phases.join(', '), timings };
}

// ---- rows -----------------------------------------------------------------------------------------------------------------------

interface Memory {
  readonly workspace: Workspace;
  /** The folder that store folders lie in, and that of the model within. */
  readonly store: string;
  readonly folder: string;
  readonly filled: Filled;
}

/** A name that some file of the workspace introduces. */
function namedIn({ dir, files }: Workspace, nth: number): string {
  for (let i = nth; ; i++) {
    const text = readFileSync(path.join(dir, files[(i * 7919) % files.length]!), 'utf8');
    const name = /^(?:export )?(?:async )?(?:function|class|struct|interface) ([A-Za-z]\w*[a-z][A-Z_]\w*)/m.exec(text)?.[1];
    if (name !== undefined) return name;
  }
}

/** Milliseconds of each round. */
class Times {
  private readonly wall: number[] = [];
  private readonly cpu: number[] = [];
  constructor(readonly title: string) {}

  add(wall_ms: number, cpu_ms = NaN): void {
    this.wall.push(wall_ms);
    this.cpu.push(cpu_ms);
  }

  get line(): string {
    const middle = (times: readonly number[]): string => {
      const sorted = [...times].sort((a, b) => a - b);
      return `${sorted[Math.floor(sorted.length / 2)]?.toFixed(0)} ms (${sorted[0]?.toFixed(0)})`;
    };
    return `${this.title}: ${middle(this.wall)}${this.cpu.some(Number.isNaN) ? '' : `; ${middle(this.cpu)} of processor time`}`;
  }
}

async function startAgain(memory: Memory, empty: string, modelDir: string): Promise<void> {
  const rows = dists.map(() => ({
    bare: new Times('ready, nothing stored'),
    ready: new Times('ready'),
    opened: new Times('workspace open'),
    plain: new Times('first text of a question in plain words'),
    named: new Times('first text of a question that names a thing'),
    byHand: new Times('first text of `sala ask` in plain words'),
    phases: '',
  }));
  for (let round = 0; round < rounds; round++) {
    for (const [i, dist] of dists.entries()) {
      const row = rows[i]!;
      const nothing = await start(dist, empty, modelDir);
      row.bare.add(nothing.ready_ms, processorTimeOf(nothing.pid));
      await nothing.end();
      for (const kind of ['plain', 'named'] as const) {
        const started = await start(dist, memory.store, modelDir);
        row.ready.add(started.ready_ms, processorTimeOf(started.pid));
        const { tokens } = await open(started, memory.workspace);
        row.opened.add(performance.now() - started.began, processorTimeOf(started.pid));
        if (tokens < memory.filled.tokens) throw new Error(`expected ${memory.filled.tokens} tokens in memory, found ${tokens}`);
        const first = await ask(started, kind === 'plain' ? plainQuestion : `What does \`${namedIn(memory.workspace, round)}\` do?`);
        row[kind].add(first.first_ms, first.cpu_ms);
        row.phases = first.phases;
        await started.end();
      }
      row.byHand.add(await askByCommand(dist, memory, modelDir));
    }
  }
  for (const [i, { bare, ready, opened, plain, named, byHand, phases }] of rows.entries()) {
    const of = dists.length === 1 ? '' : ` of ${dists[i]}`;
    say(`a cold engine${of} over ${memory.filled.tokens} tokens in ${memory.workspace.files.length} files, ${rounds} rounds, medians (and the least)`, [
      ...[bare, ready, opened, plain, named, byHand].map(({ line }) => line),
      `the last one: ${phases}`,
    ]);
  }
}

/** Text is streamed to terminals only: script(1) is one. NaN where that is not there. */
async function askByCommand(dist: string, { workspace, store }: Memory, modelDir: string): Promise<number> {
  const quoted = (words: readonly string[]): string => words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ');
  const command = quoted([process.execPath, path.join(dist, 'cli.cjs'), 'ask', plainQuestion, '--workspace', workspace.dir, '--store', store, '--model', modelDir, '--max-tokens', String(tokenBudget), '--max-memory', '16G', '--max-disk', '1T']);
  const began = performance.now();
  const child = spawn('script', ['-qec', `${command} 2>/dev/null`, '/dev/null'], { stdio: ['ignore', 'pipe', 'ignore'], env: { ...process.env, SALA_DIST: dist } });
  let first = NaN;
  child.stdout.on('data', (bytes: Buffer) => {
    if (Number.isNaN(first) && /[a-z]/i.test(bytes.toString())) first = performance.now() - began;
  });
  await new Promise<void>((resolve) => child.on('error', () => resolve()).on('close', () => resolve()));
  await gone(store);
  return first;
}

/** In turn: an engine that has nothing open, one over a few files, this one. What each holds beyond the one before is its own doing. */
async function resident(memory: Memory, few: Memory, empty: string, modelDir: string): Promise<void> {
  const nothing = await start(dists[0]!, empty, modelDir);
  // The thread that cuts files comes up behind the first client.
  await sleep(settledMs);
  const lines = [`nothing open: ${residentText(residentOf(nothing.pid))}`];
  await nothing.end();
  const before = await residentOver(few, modelDir);
  const now = await residentOver(memory, modelDir);
  for (const [i, { when, resident }] of now.entries()) {
    const base = before[i]!.resident;
    const more = resident.anonymous + resident.files - base.anonymous - base.files;
    lines.push(`${when}: ${residentText(resident)}; ${(more / 1e6).toFixed(0)} MB more than over ${few.filled.tokens} tokens`);
  }
  const bytes = bytesIn(memory.folder);
  lines.push(`store ÷ its blocks: ${(bytes / 1e6).toFixed(1)} MB ÷ ${(memory.filled.image_bytes / 1e6).toFixed(1)} MB = ${(bytes / memory.filled.image_bytes).toFixed(3)} (wanted: 1.1)`);
  say(`resident, ${memory.filled.tokens} tokens in ${memory.filled.segments} segments (wanted for a million of them: 200 MB)`, lines);
}

async function residentOver(memory: Memory, modelDir: string): Promise<{ when: string; resident: Resident }[]> {
  const started = await start(dists[0]!, memory.store, modelDir);
  await open(started, memory.workspace);
  const looks: { when: string; resident: Resident }[] = [];
  const look = async (when: string): Promise<void> => {
    await sleep(settledMs);
    looks.push({ when, resident: residentOf(started.pid) });
  };
  await look('workspace open');
  await ask(started, plainQuestion);
  await look('after one question');
  const n = Number(values.questions);
  for (let i = 1; i < n; i++) await ask(started, `What does \`${namedIn(memory.workspace, i)}\` do?`);
  await look(`after ${n} questions`);
  await started.end();
  return looks;
}

function residentText({ anonymous, files, segments }: Resident): string {
  return `${mib(anonymous)} MiB anonymous, ${mib(files)} MiB of files, ${mib(segments)} MiB of these segments`;
}

// ---- packs ----------------------------------------------------------------------------------------------------------------------

async function packs(memory: Memory, modelDir: string, temporary: string): Promise<void> {
  const file = path.join(temporary, 'memory.salapack');
  const lines: string[] = [];
  const exporting = await start(dists[0]!, memory.store, modelDir);
  await open(exporting, memory.workspace);
  const exported = await watched(exporting, () => exporting.client.request(messages.exportPack, { file }));
  lines.push(`export of ${(statSync(file).size / 1e6).toFixed(0)} MB: ${exported.text}`);
  await exporting.end();
  const into = path.join(temporary, 'imported');
  await knownModel(into, modelDir);
  const importing = await start(dists[0]!, into, modelDir);
  await open(importing, { dir: mkdtempSync(path.join(temporary, 'nothing-')), files: [] });
  const imported = await watched(importing, () => importing.client.request(messages.importPack, { file }));
  lines.push(`import into an empty store: ${imported.text}; ${imported.result.damaged} damaged, ${imported.result.files} files`);
  const opened = await watched(importing, async () => {
    await open(importing, memory.workspace);
    return importing.client.request(messages.ingest);
  });
  lines.push(`the workspace read then: ${opened.text}; ${opened.result.tokens} tokens in, ${opened.result.encoded_tokens} of them encoded`);
  await importing.end();
  rmSync(file);
  rmSync(into, { recursive: true });
  say(`a pack of ${memory.filled.tokens} tokens`, lines);
}

async function watched<T>({ pid }: Started, work: () => Promise<T>): Promise<{ result: T; text: string }> {
  const before = residentOf(pid);
  const cpu = processorTimeOf(pid);
  let mostAnonymous = before.anonymous, mostFiles = before.files;
  const timer = setInterval(() => {
    const now = residentOf(pid);
    mostAnonymous = Math.max(mostAnonymous, now.anonymous);
    mostFiles = Math.max(mostFiles, now.files);
  }, 50);
  const began = performance.now();
  try {
    const result = await work();
    const text = `${((performance.now() - began) / 1000).toFixed(1)} s, ${((processorTimeOf(pid) - cpu) / 1000).toFixed(1)} s of processor time; resident at most ${mib(mostAnonymous - before.anonymous)} MiB anonymous and ${mib(mostFiles - before.files)} MiB of files more than before`;
    return { result, text };
  } finally {
    clearInterval(timer);
  }
}

// ---- frame ----------------------------------------------------------------------------------------------------------------------

/** A place for a store that knows the model: hashing it is a matter of the first start ever. */
async function knownModel(base: string, modelDir: string): Promise<string> {
  mkdirSync(base, { recursive: true });
  return (await openStoreFolder(modelDir, base)).dir;
}

async function makeMemory(temporary: string, name: string, tokens: number, modelDir: string, fill: string): Promise<Memory> {
  const workspace = writeWorkspace(path.join(temporary, `workspace-${name}`), tokens, Number(values['per-file']));
  const store = path.join(temporary, `store-${name}`);
  const folder = await knownModel(store, modelDir);
  return { workspace, store, folder, filled: await fillStore(workspace, folder, modelDir, fill) };
}

function bytesIn(folder: string): number {
  let bytes = 0;
  for (const name of readdirSync(folder)) if (/^(?:seg|MANIFEST|wal)-|^CURRENT$/.test(name)) bytes += statSync(path.join(folder, name)).size;
  return bytes;
}

async function main(): Promise<void> {
  const chosen = chooser(usage, names, positionals, values.help);
  if (!chosen) return;
  const fill = process.env['BENCH_FILL_STORE'] as string;
  const modelDir = await findModel();
  const temporary = mkdtempSync(path.join(values.in, 'sala-reopen-'));
  try {
    const empty = path.join(temporary, 'empty');
    await knownModel(empty, modelDir);
    const few = await makeMemory(temporary, 'few', 4000, modelDir, fill);
    for (const tokens of values.tokens.split(',').map(Number)) {
      const memory = await makeMemory(temporary, String(tokens), tokens, modelDir, fill);
      console.log(`memory of ${memory.filled.tokens} tokens, synthetic: the rows of a few segments of this repository under ${memory.filled.segments} addresses`);
      if (chosen('start')) await startAgain(memory, empty, modelDir);
      if (chosen('resident')) await resident(memory, few, empty, modelDir);
      if (chosen('pack')) await packs(memory, modelDir, temporary);
      rmSync(memory.store, { recursive: true });
    }
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

void main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
