// What large workspaces cost beside the model: changes that touch thousands of files, an edit among a million tokens, a workspace at
// rest, starting again, and what a client is told. The model is the tiny one, so that little but the bookkeeping is left. Every figure
// is of this machine at this moment.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type { ClientSessionOver } from '../../extension/engine/client-session';
import { encodeInTurns } from '../../extension/engine/connection';
import type { Core } from '../../extension/engine/core';
import type { AskResult, OpenParams } from '../../extension/engine/messages';
import type { RootIndex } from '../../extension/engine/root-index';
import type { ClientSession } from '../../extension/engine/session';
import { walk } from '../../extension/engine/workspace/walk';
import { countCuts, loadTinyCore, never, replaceEncode, rootOf } from '../../test/reliability/tiny-core';
import { chooser, mib, say, spread } from '../words';
import { Stretches, Where } from './stretches';
import { fileName, git, writeBranches, writeData, writeFiles, writeFlat } from './workspaces';

const usage = `node bench/scale.mjs [switch] [storm] [edit] [reopen] [idle] [walk] [flat] [--switched N] [--tokens N] [--files N] [--seconds N] [--where]

  switch   a branch switch by git that touches --switched files known before (default: 500), among as many others; watched
  storm    20,000 files come and go in an ignored folder; a formatter over --switched files; a folder of them renamed and back
  edit     one function is saved, with --tokens in memory (default: 1000000), then with --files beyond the budget, then while all of
           these are looked at anew
  reopen   the engine starts again on both of these
  idle     --seconds (default: 30) of nothing with --files watched (default: 50000), by the engine and by an editor
  walk     looking through --files; memory of the engine; what a client that shows coverage is sent
  flat     --files in one folder: opened, looked at again, half of them left out by a rule and back, listed, opened by another window,
           a file of them saved meanwhile, one more of them

  Without a name: all of them. --where says what ran in the longest stretches of the thread (and costs some of its own).
`;
const names = ['switch', 'storm', 'edit', 'reopen', 'idle', 'walk', 'flat'];
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { switched: { type: 'string', default: '500' }, tokens: { type: 'string', default: '1000000' }, files: { type: 'string', default: '50000' }, seconds: { type: 'string', default: '30' }, where: { type: 'boolean' }, help: { type: 'boolean' } },
});
const switched = Number(values.switched);
const wantedTokens = Number(values.tokens);
const many = Number(values.files);

const temporary = mkdtempSync(path.join(os.tmpdir(), 'sala-scale-'));

interface Opened {
  readonly core: Core;
  readonly session: ClientSession;
  readonly root: RootIndex;
  readonly dir: string;
  /** Bytes of each message that the client was sent. */
  readonly sent: number[];
  /** How many files were cut since. */
  readonly cuts: () => number;
}

async function open(dir: string, store: string, more: Partial<OpenParams> = {}): Promise<Opened> {
  const core = await loadTinyCore(path.join(temporary, store, 'tiny'), [], { maxMemoryBytes: 8 * 2 ** 30, log: (line) => console.error(line) });
  const cuts = countCuts(core);
  const sent: number[] = [];
  const session = core.createSession({ kind: 'cli', notify: (_, params) => void sent.push(JSON.stringify(params).length) });
  await session.open({ roots: [{ path: dir, name: 'workspace' }], trusted: true, settings: { tokenBudget: 1e9 }, watch: 'client', ingest: true, ...more });
  return { core, session, root: rootOf(session), dir, sent, cuts };
}

interface Cost {
  readonly wall_ms: number;
  readonly cpu_ms: number;
  /** The longest that nothing else had its turn, by the clock and by the thread's processor time. */
  readonly blocked_ms: number;
  readonly blockedCpu_ms: number;
  readonly where: readonly string[];
}

/** Time on the clock, processor time of the process, and the longest that nothing else had its turn, of some work. */
async function measured(work: () => Promise<unknown>): Promise<Cost> {
  const where = values.where ? new Where() : undefined;
  where?.start();
  const stretches = new Stretches();
  stretches.start();
  const before = process.cpuUsage();
  const began = performance.now();
  await work();
  const wall_ms = performance.now() - began;
  const { user, system } = process.cpuUsage(before);
  stretches.stop();
  const { longest } = stretches;
  return {
    wall_ms,
    cpu_ms: (user + system) / 1000,
    blocked_ms: Math.max(...longest.map(({ clock_ms }) => clock_ms)),
    blockedCpu_ms: longest[0]?.cpu_ms ?? NaN,
    where: where?.stop(longest) ?? [],
  };
}

const told = ({ wall_ms, cpu_ms, blocked_ms, blockedCpu_ms, where }: Cost): string =>
  [
    `${wall_ms.toFixed(0)} ms, ${cpu_ms.toFixed(0)} ms of processor time, nothing else ran for ${blocked_ms.toFixed(0)} ms at most (${blockedCpu_ms.toFixed(0)} of processor time)`,
    ...where,
  ].join('\n    ');

/** Until so many changed files were noticed and all is in again. */
async function caughtUp(opened: Opened, changes: number, work: () => Promise<unknown>): Promise<void> {
  let seen = 0;
  const looked = ({ changed, gone }: { changed: readonly unknown[]; gone: readonly unknown[] }): void => void (seen += changed.length + gone.length);
  opened.root.on('looked', looked);
  await work();
  while (seen < changes || !opened.core.indexer.idle) await sleep(2);
  opened.root.off('looked', looked);
}

async function run(command: string, args: readonly string[], cwd: string): Promise<void> {
  const child = spawn(command, args, { cwd, stdio: 'ignore' });
  await new Promise((resolve, reject) => child.on('error', reject).on('close', resolve));
}

// ---- many files at once -------------------------------------------------------------------------------------------------------

async function branchSwitch(): Promise<void> {
  const dir = path.join(temporary, 'branches');
  // As much to be read, however many files there are.
  const functions = Math.max(1, Math.round(10_000 / switched));
  writeBranches(dir, { files: switched, functions }, { files: switched, functions });
  const opened = await open(dir, 'switch', { watch: 'engine' });
  await opened.session.ingest(never);
  await caughtUp(opened, switched, async () => git(dir, 'checkout', '-q', 'b'));
  const lines: string[] = [];
  for (const branch of ['a', 'b', 'a']) {
    const cut = opened.cuts();
    const { nEncoded } = opened.root;
    let git_ms = 0;
    const cost = await measured(() =>
      caughtUp(opened, switched, async () => {
        const began = performance.now();
        await run('git', ['checkout', '-q', branch], dir);
        git_ms = performance.now() - began;
      }),
    );
    lines.push(`to ${branch}: ${told(cost)}; ${git_ms.toFixed(0)} ms of it git's; ${opened.root.nEncoded - nEncoded} tokens encoded, ${opened.cuts() - cut} files cut`);
  }
  await opened.core.close();
  say(`branch switch by git, ${switched} files known before, of ${2 * switched} (wanted for 500: 2 s, 0 tokens, 0 files)`, lines);
}

async function storm(): Promise<void> {
  const dir = path.join(temporary, 'storm');
  writeFiles(dir, { files: switched, functions: 20 }, 'first');
  writeFileSync(path.join(dir, '.gitignore'), 'node_modules/\n');
  const lines: string[] = [];
  for (const watch of ['engine', 'client'] as const) {
    const opened = await open(dir, 'storm', { watch });
    await opened.session.ingest(never);
    await sleep(1500);
    const paths = Array.from({ length: 20_000 }, (_, i) => path.join(dir, 'node_modules', `p${i >> 5}`, `f${i}.js`));
    const cost = await measured(async () => {
      if (watch === 'engine') {
        const script = `const fs=require('fs');for(let i=0;i<20000;i++){const d='node_modules/p'+(i>>5);fs.mkdirSync(d,{recursive:true});fs.writeFileSync(d+'/f'+i+'.js','x')}fs.rmSync('node_modules',{recursive:true})`;
        await run(process.execPath, ['-e', script], dir);
        await sleep(1500);
      } else {
        // As an editor tells of them: some hundred at a time.
        opened.session.filesChanged({ paths: [path.join(dir, 'node_modules')] });
        for (let i = 0; i < paths.length; i += 500) {
          opened.session.filesChanged({ paths: paths.slice(i, i + 500) });
          await sleep(2);
        }
      }
      await opened.session.coverageOf({ paths: [path.join(dir, fileName(0))] });
    });
    lines.push(`20,000 files in an ignored folder, ${watch === 'engine' ? 'watched by the engine' : 'told by an editor'}: ${told(cost)}`);
    if (watch === 'engine') {
      const formatted = await measured(() => caughtUp(opened, switched, async () => writeFiles(dir, { files: switched, functions: 20 }, 'formatted')));
      lines.push(`a formatter over ${switched} files: ${told(formatted)}`);
      for (const [from, to] of [['src', 'moved'], ['moved', 'src']] as const) {
        const { nEncoded } = opened.root;
        const cut = opened.cuts();
        const moved = await measured(() => caughtUp(opened, 2 * switched, () => run('mv', [from, to], dir)));
        lines.push(`${from} renamed to ${to}: ${told(moved)}; ${opened.root.nEncoded - nEncoded} tokens encoded, ${opened.cuts() - cut} files cut`);
      }
    }
    await opened.core.close();
  }
  say(`storms in a workspace of ${switched} files`, lines);
}

// ---- one edit, and starting again -------------------------------------------------------------------------------------------------

const functionsOfLarge = 60;
const tokensOfFunction = 45;

async function editAndReopen(): Promise<void> {
  const dir = path.join(temporary, 'large');
  const files = Math.ceil(wantedTokens / (functionsOfLarge * tokensOfFunction));
  writeFiles(dir, { files, functions: functionsOfLarge }, 'first');
  let opened = await open(dir, 'large');
  const began = performance.now();
  const { tokens } = await opened.session.ingest(never);
  const { heapUsed, rss } = process.memoryUsage();
  say(`${tokens} tokens in ${files} files, read in ${((performance.now() - began) / 1000).toFixed(0)} s`, [
    `${mib(rss)} MiB resident, ${mib(heapUsed)} of it for JavaScript`,
  ]);
  await edits(opened, 'nothing else');
  await opened.core.close();
  opened = await reopen(dir, `${files} files`);
  const settings = { tokenBudget: opened.root.count().tokens + 10_000 };
  await opened.core.close();
  writeData(dir, many);
  opened = await reopen(dir, `with ${many} files more, over the budget`, { settings });
  await opened.session.ingest(never);
  await edits(opened, `${many} files over the budget beside them`);
  await edits(opened, `${many} files over the budget beside them, while all is looked at anew`, async () => {
    opened.session.filesChanged({ paths: [] });
    await sleep(50);
  });
  await opened.core.close();
  opened = await reopen(dir, 'the same once more', { settings });
  await opened.core.close();
}

/** `meanwhile` begins what goes on beside each save. */
async function edits(opened: Opened, beside: string, meanwhile?: () => Promise<void>): Promise<void> {
  const { native } = opened.core;
  let encode_ms = 0;
  const encode = native.encodeSegments.bind(native);
  replaceEncode(native, (...args) => {
    const began = performance.now();
    const job = encode(...args);
    void job.done.then(() => (encode_ms += performance.now() - began), () => {});
    return job;
  });
  const over: number[] = [], cpu: number[] = [], blocked: number[] = [], encoded: number[] = [], where: string[] = [];
  for (let i = 0; i < 20; i++) {
    const file = path.join(opened.dir, fileName(i * 3));
    const lines = readFileSync(file, 'utf8').split('\n');
    lines.splice(Math.floor(lines.length / 2), 0, `// Changed in round ${i}.`);
    writeFileSync(file, lines.join('\n'));
    encode_ms = 0;
    const before = opened.root.nEncoded;
    await meanwhile?.();
    const cost = await measured(() =>
      caughtUp(opened, 1, async () => {
        opened.session.filesChanged({ paths: [file] });
      }),
    );
    over.push(cost.wall_ms - encode_ms);
    cpu.push(cost.cpu_ms);
    blocked.push(cost.blocked_ms);
    where.push(...cost.where.slice(0, 1));
    encoded.push(opened.root.nEncoded - before);
    // What was told by now is looked at before it is answered.
    await opened.session.coverage({ path: fileName(0) });
    await sleep(300);
  }
  replaceEncode(native, encode);
  say(`one line is saved, ${opened.root.count().tokens} tokens in memory, ${beside} (wanted beside encoding: 50 ms)`, [
    `${spread(over)} ms from the news to memory that has it, encoding taken off`,
    `${spread(cpu)} ms of processor time, encoding included; ${spread(encoded)} tokens encoded`,
    `nothing else ran for ${spread(blocked)} ms`,
    ...where,
  ]);
}

async function reopen(dir: string, title: string, more: Partial<OpenParams> = {}): Promise<Opened> {
  let opened!: Opened;
  const cost = await measured(async () => {
    opened = await open(dir, 'large', { ingest: false, ...more });
  });
  const { tokens } = opened.root.count();
  const cut = opened.cuts();
  const first = await measured(() => opened.session.ask({ id: 1, question: 'what does f3_7 return?', maxTokens: 1 }, never));
  say(`started again: ${title}`, [
    `the model and the workspace: ${told(cost)}; ${tokens} tokens in, ${cut} files cut`,
    `then a question's first token: ${told(first)}`,
  ]);
  opened.core.indexer.setReading(opened, true);
  return opened;
}

// ---- at rest ------------------------------------------------------------------------------------------------------------------

async function idle(): Promise<void> {
  const dir = path.join(temporary, 'many');
  writeFiles(dir, { files: many, functions: 1 }, 'first');
  for (const watch of ['engine', 'client'] as const) {
    const opened = await open(dir, 'idle', { watch, settings: { tokenBudget: 20_000 } });
    await opened.session.ingest(never);
    await sleep(3000);
    const seconds = Number(values.seconds);
    // Without the monitor of delays, which wakes the process a thousand times a second.
    const before = process.cpuUsage();
    await sleep(1000 * seconds);
    const { user, system } = process.cpuUsage(before);
    const threads = readFileSync('/proc/self/status', 'utf8').match(/^Threads:\s*(\d+)/m)?.[1];
    say(`${many} files at rest, watched by ${watch === 'engine' ? 'the engine' : 'an editor'}, for ${seconds} s (wanted: under 1 %)`, [
      `${((user + system) / 10_000 / seconds).toFixed(2)} % of a core, ${opened.root.folders.size} folders watched, ${threads} threads, ${mib(process.memoryUsage.rss())} MiB resident`,
    ]);
    await opened.core.close();
  }
}

// ---- looking through ----------------------------------------------------------------------------------------------------------------

async function lookThrough(): Promise<void> {
  const dir = path.join(temporary, 'walked');
  writeFiles(dir, { files: many, functions: 1 }, 'first');
  const lines: string[] = [];
  for (const what of ['first', 'again']) {
    let files = 0;
    const cost = await measured(async () => (files = (await walk({ root: dir })).files.length));
    lines.push(`${what}: ${files} files, ${told(cost)}`);
  }
  global.gc?.();
  const before = process.memoryUsage();
  let opened!: Opened;
  const opening = await measured(async () => {
    opened = await open(dir, 'walk', { ingest: false, settings: { tokenBudget: 20_000 } });
  });
  lines.push(`opened, with the model: ${told(opening)}`);
  global.gc?.();
  const after = process.memoryUsage();
  lines.push(`memory of an engine that knows them: ${mib(after.heapUsed - before.heapUsed)} MiB for JavaScript, ${mib(after.rss - before.rss)} MiB resident, the model among it`);
  // What a client that shows coverage asks for and is told, down to a folder.
  const states = await opened.session.coverageLevel({});
  for (const node of [...states.nodes, undefined]) {
    const place = node === undefined ? { state: 'over_budget' as const, folder: 'src/d0/e0' } : node.kind === 'group' ? node.place : {};
    let bytes = 0;
    const level = await measured(async () => (bytes = JSON.stringify(await opened.session.coverageLevel(place)).length));
    lines.push(`coverage, ${JSON.stringify(place)}: ${bytes} bytes, ${told(level)}`);
  }
  for (const missed of [true, false]) {
    opened.session.filesChanged({ paths: [], missed });
    const again = await measured(() => opened.session.coverage({ path: fileName(0) }));
    lines.push(`${missed ? 'the editor has the focus again' : 'everything looked at again'}: ${told(again)}`);
  }
  const ask = async (id: number, question: string): Promise<void> => {
    let result!: AskResult;
    const cost = await measured(async () => (result = await opened.session.ask({ id, question, maxTokens: 1, wait: 0 }, never)));
    lines.push(`${question} ${told(cost)}; ${result.unsearched ?? 0} files not searched, ${result.missing.length} names nowhere`);
  };
  // Of what it has, of what lies behind all that a first question has the time for, and of what is nowhere.
  await ask(1, 'what does f3_0 return?');
  await ask(2, `what does f${many - 2}_0 return?`);
  const search = await (opened.session as ClientSessionOver).searching();
  const readOn = await measured(() => search.readOn());
  lines.push(`what they left is read on: ${told(readOn)}`);
  await ask(3, `what does f${many - 2}_0 return?`);
  await ask(4, 'what does never_there_1 return?');
  lines.push(`the largest message that the client was sent unasked: ${Math.max(...opened.sent)} bytes`);
  await opened.core.close();
  say(`a workspace of ${many} files`, lines);
}

async function oneFolder(): Promise<void> {
  const dir = path.join(temporary, 'flat');
  writeFlat(dir, many);
  const lines: string[] = [];
  let opened!: Opened;
  const opening = await measured(async () => {
    opened = await open(dir, 'flat', { ingest: false, settings: { tokenBudget: 20_000 } });
  });
  lines.push(`opened, with the model: ${told(opening)}`);
  const looked = async (what: string, paths: readonly string[], missed = false): Promise<void> => {
    const cost = await measured(async () => {
      opened.session.filesChanged({ paths, missed });
      // What was told by now is looked at before it is answered.
      await opened.session.coverage({ path: 'many/n2.csv' });
    });
    lines.push(`${what}: ${told(cost)}`);
  };
  await looked('everything looked at again', []);
  writeFileSync(path.join(dir, '.gitignore'), 'many/n1*.csv\n');
  await looked('a rule leaves many of them out', []);
  rmSync(path.join(dir, '.gitignore'));
  await looked('and back', []);
  const own = path.join(dir, 'many', '.gitignore');
  writeFileSync(own, 'n1*.csv\n');
  await looked('a rule of the folder itself leaves them out', [own]);
  rmSync(own);
  await looked('and back', [own]);
  const listed = await measured(async () => void (await encodeInTurns({ id: 1, result: await opened.session.coverage({}) })));
  lines.push(`a list of all of them, as JSON: ${told(listed)}`);
  const another = async (): Promise<void> => {
    const second = opened.core.createSession({ kind: 'cli', notify: () => {} });
    await second.open({ roots: [{ path: dir, name: 'workspace' }], trusted: true, settings: { tokenBudget: 20_000 }, watch: 'client', ingest: false });
    await second.close();
  };
  lines.push(`another window opens it: ${told(await measured(another))}`);
  const saved = path.join(dir, 'many', 'n2.csv');
  const savedWhile = async (what: string, begin: () => Promise<unknown>): Promise<void> => {
    const done = begin();
    await sleep(100);
    writeFileSync(saved, readFileSync(saved, 'utf8') + 'c,d\n');
    const { size } = statSync(saved);
    const began = performance.now();
    opened.session.filesChanged({ paths: [saved] });
    while (opened.root.records.get('many/n2.csv')?.info.bytes !== size) await sleep(2);
    lines.push(`a file is saved while ${what}: it is noticed after ${(performance.now() - began).toFixed(0)} ms`);
    await done;
  };
  await savedWhile('another window opens it', another);
  await savedWhile('the folder is looked at by its new rules', async () => {
    writeFileSync(own, 'n1*.csv\n');
    opened.session.filesChanged({ paths: [own] });
    await opened.session.coverage({ path: 'many/n2.csv' });
  });
  rmSync(own);
  opened.session.filesChanged({ paths: [own] });
  await opened.session.coverage({ path: 'many/n2.csv' });
  const more = path.join(dir, 'many', 'more.csv');
  writeFileSync(more, 'a,b\n');
  await looked('one comes', [more]);
  rmSync(more);
  await looked('one is gone, which nobody told of', [], true);
  await opened.core.close();
  say(`${many} files in one folder`, lines);
}

// ---- words ----------------------------------------------------------------------------------------------------------------------------

async function main(): Promise<void> {
  const chosen = chooser(usage, names, positionals, values.help);
  if (!chosen) return;
  try {
    if (chosen('switch')) await branchSwitch();
    if (chosen('storm')) await storm();
    if (chosen('edit') || chosen('reopen')) await editAndReopen();
    if (chosen('idle')) await idle();
    if (chosen('walk')) await lookThrough();
    if (chosen('flat')) await oneFolder();
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

void main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
