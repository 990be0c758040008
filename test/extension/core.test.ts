// The engine's core on the tiny model: reading, edits, restarts, unsaved documents, and the property that matters most: whatever
// happened before, memory equals that of a fresh read.

import assert from 'node:assert/strict';
import { appendFileSync, cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test from 'node:test';
import { Core } from '../../extension/engine/core';
import { EngineError } from '../../extension/engine/errors';
import type { AskResult, CoverageChange, OpenParams } from '../../extension/engine/messages';
import type { ClientSession, SessionClient } from '../../extension/engine/session';
import type { WorkspaceSearch } from '../../extension/engine/workspace/search';
import { VolatileFiles } from '../../extension/engine/workspace/watch';
import { rootOf, setVolatile } from '../reliability/tiny-core';
import { eventually } from './fake-dist';

const root = process.cwd();
const tiny = path.join(root, 'test/fixtures/tiny');
const never = new AbortController().signal;

class Bench {
  readonly dir = mkdtempSync(path.join(os.tmpdir(), 'sala-core-'));
  readonly workspace = path.join(this.dir, 'workspace');
  readonly sent: { method: string; params: unknown }[] = [];
  private readonly cores: Core[] = [];

  constructor(from?: string) {
    if (from !== undefined) cpSync(path.join(root, from), this.workspace, { recursive: true });
    else mkdirSync(this.workspace);
  }

  write(file: string, text: string): void {
    mkdirSync(path.dirname(path.join(this.workspace, file)), { recursive: true });
    writeFileSync(path.join(this.workspace, file), text);
  }

  async core(store?: string, maxDiskBytes?: number, maxMemoryBytes?: number): Promise<Core> {
    if (store !== undefined) mkdirSync(path.join(this.dir, store, 'tiny'), { recursive: true });
    const core = await Core.load({
      modelDir: tiny,
      ...(store !== undefined && { store: path.join(this.dir, store, 'tiny') }),
      activations: 'int8',
      ...(maxDiskBytes !== undefined && { maxDiskBytes }),
      ...(maxMemoryBytes !== undefined && { maxMemoryBytes }),
      threads: 2,
      onProgress: () => {},
      log: (line) => this.sent.push({ method: 'log', params: line }),
    });
    this.cores.push(core);
    return core;
  }

  async session(core: Core, params: Partial<OpenParams> = {}): Promise<ClientSession> {
    const client: SessionClient = { kind: 'cli', notify: (type, sent) => void this.sent.push({ method: type.method, params: sent }) };
    const session = core.createSession(client);
    await session.open({
      roots: [{ path: this.workspace, name: 'workspace' }],
      trusted: true,
      settings: {},
      watch: 'none',
      ingest: false,
      ...params,
    });
    return session;
  }

  async dispose(): Promise<void> {
    for (const core of this.cores) await core.close();
    const logged = this.sent.filter(({ method }) => method === 'log').map(({ params }) => params);
    rmSync(this.dir, { recursive: true, force: true });
    assert.deepEqual(logged, []);
  }
}

function check(title: string, body: (bench: Bench) => Promise<void>, from?: string): void {
  test(`core: ${title}`, async () => {
    const bench = new Bench(from);
    try {
      await body(bench);
    } catch (error) {
      // What was logged says more of it; that there is something is no failure of its own.
      for (const { method, params } of bench.sent.splice(0)) if (method === 'log') console.log(params);
      await bench.dispose();
      throw error;
    }
    await bench.dispose();
  });
}

/** Addresses of what is in memory, by file, and the states of all files. */
function memoryOf(core: Core, session: ClientSession): Record<string, string[]> {
  const roots = (session as unknown as { roots: readonly import('../../extension/engine/root-index').RootIndex[] }).roots;
  const memory: Record<string, string[]> = {};
  for (const index of roots) {
    for (const record of [...index.records.values()].sort((a, b) => (a.path < b.path ? -1 : 1))) {
      const segments = index.readable(record);
      memory[record.path] = [index.coverageOf(record).state, ...segments.map(({ key, startByte, endByte }) => `${key} ${startByte} ${endByte}`)];
      for (const { key } of segments) assert.notEqual(core.memory.handleOf(key), undefined);
    }
  }
  return memory;
}

/** Tails are released by the engine's thread, soon after. */
async function noTails(core: Core): Promise<void> {
  for (let i = 0; i < 200 && core.native.memory().nTails > 0; i++) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.equal(core.native.memory().nTails, 0);
}

const ask = (session: ClientSession, question: string, more: object = {}): Promise<AskResult> =>
  session.ask({ id: 1, question, maxTokens: 8, ...more }, never);

check('what an ingest has read is on the disk when it ends, though nothing new is known of any file', async (bench) => {
  for (let i = 0; i < 20; i++) bench.write(`f${i}.ts`, `export const n${i} = ${i};\n`);
  const ingest = async (core: Core): Promise<number> => (await (await bench.session(core)).ingest(never)).encoded_tokens;
  const core = await bench.core('store');
  const encoded = await ingest(core);
  await core.close();
  const store = path.join(bench.dir, 'store');
  for (const name of readdirSync(store, { recursive: true, encoding: 'utf8' })) if (name.endsWith('.kv')) rmSync(path.join(store, name));
  assert.equal(await ingest(await bench.core('store')), encoded);
  // As it would be found if the engine were killed now.
  cpSync(store, path.join(bench.dir, 'copy'), { recursive: true });
  assert.equal(await ingest(await bench.core('copy')), 0);
  assert.ok(bench.sent.splice(0).some(({ params }) => /seg-/.test(String(params))));
});

check('reads a workspace, answers with sources, and encodes nothing twice', async (bench) => {
  const first = await bench.core('store');
  const session = await bench.session(first);
  const read = await session.ingest(never);
  assert.ok(read.files >= 15 && read.encoded_tokens > 1000);
  assert.equal(read.encoded_tokens, read.tokens);
  const files = await session.coverage({});
  assert.ok(files.filter(({ state }) => state === 'in').length === read.files);
  assert.ok(files.every(({ state, rule }) => state !== 'excluded' || rule !== undefined));

  const answer = await ask(session, 'Where is ring_append defined?');
  assert.ok(answer.sources.length > 0);
  for (const { path: file, start_line, end_line } of answer.sources) {
    const lines = readFileSync(path.join(bench.workspace, file), 'utf8').split('\n').length;
    assert.ok(start_line >= 1 && end_line >= start_line && end_line <= lines, `${file}:${start_line}-${end_line}`);
  }
  assert.deepEqual(answer.missing, []);
  assert.equal(answer.coverage.estimated, false);
  assert.equal(answer.coverage.files, answer.coverage.total_files);
  const again = await ask(session, 'Where is ring_append defined?');
  assert.equal(again.answer, answer.answer);
  await noTails(first);
  await first.close();

  const second = await bench.core('store');
  const reopened = await bench.session(second);
  const reread = await reopened.ingest(never);
  assert.deepEqual([reread.encoded_tokens, reread.reused_tokens, reread.tokens], [0, read.tokens, read.tokens]);
  assert.deepEqual(memoryOf(second, reopened), memoryOf(second, await bench.session(second)));
  assert.equal((await ask(reopened, 'Where is ring_append defined?')).answer, answer.answer);
}, 'test/fixtures/workspace');

check('a name that is nowhere is said to be nowhere, and nothing is invented', async (bench) => {
  bench.write('src/a.ts', 'export function presentName() { return 1; }\n');
  const session = await bench.session(await bench.core());
  const answer = await ask(session, 'Where is `absentName` defined?');
  assert.match(answer.answer, /^`absentName` does not occur in this workspace\./);
  assert.deepEqual([answer.missing, answer.sources, answer.timings.tokens], [['absentName'], [], 0]);
  const file = await ask(session, 'What is in src/missing.c?');
  assert.match(file.answer, /`src\/missing\.c` is not in this workspace/);
  const used = await ask(session, 'Where is presentName used?');
  assert.match(used.answer, /`src\/a\.ts`: line 1/);
});

check('until the workspace is in, the question decides what is read', async (bench) => {
  for (let i = 0; i < 120; i++) bench.write(`lib/f${i}.ts`, `export function filler${i}(a: number): number {\n  return a + ${i};\n}\n`.repeat(3));
  bench.write('zz/target.ts', 'export const HAYSTACK_PROBE = 4711;\n');
  const session = await bench.session(await bench.core());
  const answer = await ask(session, 'Where is HAYSTACK_PROBE defined?', { wait: 0.5 });
  assert.ok((await session.coverage({ path: 'zz/target.ts' }))[0]?.state === 'in');
  assert.ok(answer.coverage.files >= 1 && answer.coverage.total_files === 121);
});

check('an edit costs the edit; a revert and a rename back cost nothing', async (bench) => {
  const core = await bench.core('store');
  const session = await bench.session(core);
  await session.ingest(never);
  const file = path.join(bench.workspace, 'src/store/ring.c');
  const original = readFileSync(file, 'utf8');
  const encoded = async (): Promise<number> => {
    session.filesChanged({ paths: [] });
    await session.coverage({});
    return (await session.ingest(never)).encoded_tokens;
  };
  const before = await encoded();
  writeFileSync(file, original.replace('void ring_close', '// closes it\nvoid ring_close'));
  const edited = (await encoded()) - before;
  assert.ok(edited > 0 && edited <= 1000, String(edited));
  writeFileSync(file, original);
  assert.equal((await encoded()) - before, edited);
  const moved = path.join(bench.workspace, 'src/store/moved.c');
  renameSync(file, moved);
  const renamed = await encoded();
  renameSync(moved, file);
  assert.equal(await encoded(), renamed);
}, 'test/fixtures/workspace');

/** A file that has changed `limit` times and was set aside for it; what it has now, a fresh read would find. */
async function setAsideAppLog(bench: Bench, core: Core, restMs: number): Promise<{ session: ClientSession; state: () => string | undefined }> {
  bench.write('app.txt', 'begins\n');
  bench.write('a.ts', 'export const a = 1;\n');
  const session = await bench.session(core);
  await session.ingest(never);
  const limit = 3;
  const index = rootOf(session);
  setVolatile(session, new VolatileFiles(limit, 1e9, restMs));
  const rules: unknown[] = [];
  index.on('looked', ({ changed }) => rules.push(...changed.map(({ rule }) => rule)));
  for (let i = 0; i < limit; i++) {
    appendFileSync(path.join(bench.workspace, 'app.txt'), `something happened, for the ${i}th time\n`);
    await index.lookAt(['app.txt']);
  }
  assert.deepEqual(rules, [undefined, undefined, 'volatile']);
  return { session, state: () => index.coverageAt('app.txt')?.state };
}

async function isAsReadNow(bench: Bench, core: Core, session: ClientSession): Promise<void> {
  const fresh = await bench.core();
  const cold = await bench.session(fresh);
  await cold.ingest(never);
  assert.deepEqual(memoryOf(core, session), memoryOf(fresh, cold));
}

check('what changed all the time is read again by itself once it rests', async (bench) => {
  const core = await bench.core();
  const { session, state } = await setAsideAppLog(bench, core, 1);
  await eventually('it is in', () => state() === 'in', 60_000);
  await isAsReadNow(bench, core, session);
});

check('an answer looks at what has come to rest, though no timer has', async (bench) => {
  const core = await bench.core();
  const { session, state } = await setAsideAppLog(bench, core, 1e9);
  await ask(session, 'What happened?');
  assert.equal(state(), 'excluded', 'it may go on changing');
  Object.assign((rootOf(session) as unknown as { volatile: object }).volatile, { restMs: 0 });
  await ask(session, 'What happened?');
  assert.notEqual(state(), 'excluded');
});

for (const [who, wantAll] of Object.entries({
  ingest: (session: ClientSession) => session.ingest(never),
  'a question that waits for all': (session: ClientSession) => ask(session, 'What happened?', { wait: 'full' }),
})) {
  check(`${who} reads what changes all the time as it is now`, async (bench) => {
    const core = await bench.core();
    const { session, state } = await setAsideAppLog(bench, core, 1e9);
    await session.coverage({});
    assert.equal(state(), 'excluded');
    await wantAll(session);
    assert.equal(state(), 'in');
    await isAsReadNow(bench, core, session);
  });
}

check('an unsaved document shadows its file, and the file comes back', async (bench) => {
  bench.write('a.py', 'def old_name():\n    return 1\n');
  const core = await bench.core();
  const session = await bench.session(core);
  await session.ingest(never);
  const saved = memoryOf(core, session);
  session.document({ path: path.join(bench.workspace, 'a.py'), text: 'def new_name():\n    return 2\n' });
  await session.ingest(never);
  assert.notDeepEqual(memoryOf(core, session), saved);
  assert.deepEqual((await ask(session, 'Where is new_name defined?')).missing, []);
  session.document({ path: path.join(bench.workspace, 'a.py'), text: null });
  await session.ingest(never);
  assert.deepEqual(memoryOf(core, session), saved);
});

check('a document that is settled is looked at, whatever a watcher says of its file', async (bench) => {
  bench.write('a.py', 'def old_name():\n    return 1\n');
  const core = await bench.core();
  const session = await bench.session(core);
  await session.ingest(never);
  const text = 'def new_name():\n    return 2\n';
  session.document({ path: path.join(bench.workspace, 'a.py'), text });
  await session.ingest(never);
  const typed = memoryOf(core, session);
  bench.write('a.py', text);
  session.document({ path: path.join(bench.workspace, 'a.py'), text: null });
  await session.ingest(never);
  assert.deepEqual(memoryOf(core, session), typed);
});

check('an unsaved document outlives its file, and shadows it no longer than it is unsaved', async (bench) => {
  bench.write('a.py', 'def old_name():\n    return 1\n');
  bench.write('b.py', 'b = 1\n');
  const core = await bench.core();
  const session = await bench.session(core);
  await session.ingest(never);
  const file = path.join(bench.workspace, 'a.py');
  const look = async (): Promise<Record<string, string[]>> => {
    session.filesChanged({ paths: [file] });
    await session.coverage({});
    await session.ingest(never);
    return memoryOf(core, session);
  };
  const saved = memoryOf(core, session);
  session.document({ path: file, text: 'def new_name():\n    return 2\n' });
  const shadowed = await look();
  rmSync(file);
  assert.deepEqual(Object.keys(await look()), ['b.py']);
  bench.write('a.py', 'def old_name():\n    return 1\n');
  assert.deepEqual(await look(), shadowed);
  rmSync(file);
  await look();
  session.document({ path: file, text: null });
  bench.write('a.py', 'def old_name():\n    return 1\n');
  assert.deepEqual(await look(), saved);
});

check('a file that is written twice within a step of the clock is what was written last', async (bench) => {
  const file = path.join(bench.workspace, 'a.ts');
  const core = await bench.core();
  const session = await bench.session(core);
  const write = (text: string): void => {
    writeFileSync(file, text);
    // As a file system stamps whose clock steps by seconds.
    utimesSync(file, second, second);
  };
  const second = Math.floor(Date.now() / 1000);
  write('const a = 1;\n');
  session.filesChanged({ paths: [file] });
  await session.coverage({});
  await session.ingest(never);
  const first = memoryOf(core, session);
  write('const a = 2;\n');
  // Nobody needs to tell: it is looked at before an answer.
  await session.coverage({});
  await session.ingest(never);
  assert.notDeepEqual(memoryOf(core, session), first);
});

check('a look at a file that is being read does not have it read from the beginning again', async (bench) => {
  bench.write('a.ts', 'export const a = 1;\n');
  const core = await bench.core();
  const session = await bench.session(core);
  await session.ingest(never);
  const index = rootOf(session);
  const file = path.join(bench.workspace, 'a.ts');
  const record = index.recordAt(file)!;
  session.pause({ paused: true });
  writeFileSync(file, 'export const another = 2;\n');
  await index.lookAt(['a.ts']);
  await core.indexer.prepare(record);
  const { next } = record;
  assert.ok(next);
  // On a slow machine it is read too late for that.
  record.young = true;
  await session.coverage({});
  assert.equal(record.next, next);
  session.pause({ paused: false });
  await session.ingest(never);
  assert.equal(record.current, next);
});

check('a search before an answer has a budget, but for whoever waits for all, or wants all searched', async (bench) => {
  bench.write('a.ts', 'export const known = 1;\n');
  const session = await bench.session(await bench.core());
  const search = await (session as unknown as { searching(): Promise<WorkspaceSearch> }).searching();
  let budgets = new Set<boolean>();
  const occurring = search.occurring.bind(search);
  search.occurring = (names, options) => {
    budgets.add(options?.reading !== undefined);
    return occurring(names, options);
  };
  for (const [more, hasBudget] of [[{}, true], [{ wait: 'full' }, false], [{ search: 'all' }, false]] as const) {
    budgets = new Set();
    await session.ask({ id: 1, question: 'where is known_name?', maxTokens: 1, ...more }, never);
    assert.deepEqual([...budgets], [hasBudget], JSON.stringify(more));
  }
});

check('a pause is for all windows, ends with the window that wanted it, and anybody may end it', async (bench) => {
  const core = await bench.core();
  const [first, second] = [await bench.session(core), await bench.session(core)];
  const reason = (): string | undefined => core.indexer.status([]).reason;
  first.pause({ paused: true });
  // As each window says while it opens.
  second.pause({ paused: false });
  assert.equal(reason(), 'user');
  // Who wanted it is told, since it may keep that somewhere; nobody else is.
  const nTold = (): number => bench.sent.filter(({ method }) => method === 'pauseEnded').length;
  assert.equal(nTold(), 0);
  second.pause({ paused: false, everyone: true });
  assert.deepEqual([reason(), nTold()], [undefined, 1]);
  second.pause({ paused: true });
  second.pause({ paused: false, everyone: true });
  assert.deepEqual([reason(), nTold()], [undefined, 1]);
  for (const session of [first, second]) session.pause({ paused: true });
  first.pause({ paused: false });
  assert.equal(reason(), 'user');
  await second.close();
  assert.equal(reason(), undefined);
});

check('what becomes excluded leaves memory; the reason is told', async (bench) => {
  bench.write('keep.ts', 'export const kept = 1;\n');
  bench.write('drop/secret.ts', 'export const dropped = 2;\n');
  const core = await bench.core();
  const session = await bench.session(core);
  await session.ingest(never);
  const before = core.native.memory().nSegments;
  bench.write('.gitignore', 'drop/\n');
  session.filesChanged({ paths: [] });
  const [why] = await session.coverage({ path: 'drop/secret.ts' });
  assert.deepEqual([why?.state, why?.rule], ['excluded', 'ignored']);
  await session.ingest(never);
  assert.ok(core.native.memory().nSegments <= before);
  assert.match((await ask(session, 'Where is `dropped` defined?')).answer, /does not occur/);
});

check('whoever shows states of files hears of every change, and can ask for some paths alone', async (bench) => {
  const files = { 'keep.ts': 'export const kept = 1;\n', 'drop/a.ts': 'export const a = 2;\n', 'late.ts': 'export const late = 3;\n', 'yarn.lock': 'x\n' };
  for (const [file, text] of Object.entries(files)) bench.write(file, text);
  const session = await bench.session(await bench.core());
  await session.ingest(never);
  const at = (file: string): string => path.join(bench.workspace, file);
  const states = async (...paths: string[]): Promise<unknown[]> => (await session.coverageOf({ paths: paths.map(at) })).map((file) => file && [file.path, file.state, file.rule]);
  assert.deepEqual(await states('keep.ts', 'yarn.lock', 'none.ts', '../out.ts'), [['keep.ts', 'in', undefined], ['yarn.lock', 'excluded', 'lock_file'], null, null]);

  // What a client would show: told once, then kept up to date by what it hears.
  const shown = new Map<string, string>();
  const follow = async (): Promise<void> => {
    // Looks at the disk first.
    await session.coverage({});
    await session.ingest(never);
    for (const { method, params } of bench.sent.splice(0)) {
      if (method !== 'coverageChanged') continue;
      const { files: changed, gone, everything } = params as CoverageChange;
      if (everything) shown.clear();
      for (const file of everything ? await session.coverage({}) : changed) shown.set(file.path, file.state);
      for (const file of gone) shown.delete(file.path);
    }
    assert.deepEqual(Object.fromEntries(shown), Object.fromEntries((await session.coverage({})).map((file) => [file.path, file.state])));
  };
  await follow();
  const steps: (() => void)[] = [
    () => bench.write('keep.ts', 'export const kept = 4;\n'),
    () => rmSync(at('late.ts')),
    () => bench.write('.gitignore', 'drop/\n'),
    () => bench.write('drop/b.ts', 'export const b = 5;\n'),
    () => rmSync(at('yarn.lock')),
    () => bench.write('.gitignore', 'keep.ts\n'),
    () => bench.write('.env', 'KEY=1\n'),
    () => rmSync(at('.gitignore')),
  ];
  for (const step of steps) {
    step();
    session.filesChanged({ paths: [] });
    await follow();
  }
  bench.write('.gitignore', 'drop/\n');
  session.filesChanged({ paths: [] });
  await follow();
  assert.deepEqual(await states('drop/a.ts', 'drop'), [['drop', 'excluded', 'ignored'], ['drop', 'excluded', 'ignored']]);
});

check('a root has globs of its own beside those of the settings', async (bench) => {
  for (const root of ['a', 'b']) for (const file of ['gen/x.ts', 'out.ts', 'own.ts']) bench.write(`${root}/${file}`, `export const ${root} = 1;\n`);
  bench.write('b/.gitignore', 'out.ts\n');
  const session = await bench.session(await bench.core(), {
    roots: [
      { path: path.join(bench.workspace, 'a'), name: 'a', exclude: ['/own.ts'] },
      { path: path.join(bench.workspace, 'b'), name: 'b', include: ['/out.ts'] },
    ],
    settings: { exclude: ['gen'], include: [] },
  });
  const out = (await session.coverage({})).filter(({ state }) => state === 'excluded').map(({ root, path: file, rule }) => [path.basename(root), file, rule]);
  assert.deepEqual(out, [['a', 'gen', 'user'], ['a', 'own.ts', 'user'], ['b', 'gen', 'user']]);
});

check('two roots share equal segments, and a scope reads only its part', async (bench) => {
  const text = 'export const SHARED_ONE = 1;\n';
  bench.write('a/src/util.ts', text);
  bench.write('b/src/util.ts', text);
  bench.write('b/src/own.ts', 'export const B_ONLY = 2;\n');
  const core = await bench.core();
  const session = await bench.session(core, {
    roots: ['a', 'b'].map((name) => ({ path: path.join(bench.workspace, name), name })),
  });
  const read = await session.ingest(never);
  assert.equal(read.files, 3);
  assert.equal(core.native.memory().nSegments, 2);
  const scoped = await ask(session, 'Where is SHARED_ONE defined?', { roots: [path.join(bench.workspace, 'b')], scope: ['src/**'] });
  assert.ok(scoped.sources.every((source) => source.root === path.join(bench.workspace, 'b')));
  assert.match((await ask(session, 'Where is B_ONLY defined?', { scope: ['lib/**'] })).answer, /does not occur/);
});

check('an untrusted workspace is not read; a missing one is refused', async (bench) => {
  bench.write('a.ts', 'export const a = 1;\n');
  const core = await bench.core();
  const session = await bench.session(core, { trusted: false });
  const code = async (call: Promise<unknown>): Promise<string> => call.then(() => 'none', (error: unknown) => (error as EngineError).code);
  assert.equal(await code(ask(session, 'hi')), 'untrusted');
  assert.equal(core.native.memory().nSegments, 0);
  assert.equal(await code(bench.session(core, { roots: [{ path: path.join(bench.dir, 'nowhere'), name: 'x' }] })), 'not_a_workspace');
});

/** Bytes of all files of the store. */
const stored = (bench: Bench): number =>
  readdirSync(path.join(bench.dir, 'store/tiny')).reduce((sum, name) => sum + statSync(path.join(bench.dir, 'store/tiny', name)).size, 0);

check('the store keeps to its cap: what is not in memory goes, and reading stops before what is', async (bench) => {
  const fill = (name: string): void => {
    for (let i = 0; i < 40; i++) bench.write(`${name}/f${i}.ts`, `export const ${name}${i} = [${'1, '.repeat(300)}];\n`);
  };
  fill('a');
  const first = await bench.core('store');
  await (await bench.session(first)).ingest(never);
  await first.close();
  const full = stored(bench);
  assert.ok(full > 400_000, `${full} bytes`);
  rmSync(path.join(bench.workspace, 'a'), { recursive: true });
  fill('b');
  // Room for one of the two.
  const second = await bench.core('store', full * 1.5);
  assert.equal((await (await bench.session(second)).ingest(never)).files, 40);
  assert.ok(stored(bench) <= full * 1.5, `${stored(bench)} of ${full}`);
  await second.close();
  assert.ok(stored(bench) <= full * 1.5, `${stored(bench)} of ${full}`);
  const third = await bench.core('store', full * 1.5);
  assert.equal((await (await bench.session(third)).ingest(never)).encoded_tokens, 0);
  await third.close();
  // Room for less than one: all that is in memory is in use.
  fill('c');
  const fourth = await bench.core('store', full * 1.3);
  const session = await bench.session(fourth);
  await assert.rejects(session.ingest(never), { code: 'store_full' });
  assert.ok(stored(bench) <= full * 1.5, `${stored(bench)} of ${full}`);
  // What the store had no room for is in memory all the same, and kept once there is room.
  assert.ok(fourth.native.memory().segmentBytes > 0);
  rmSync(path.join(bench.workspace, 'b'), { recursive: true });
  session.filesChanged({ paths: [] });
  await session.coverage({});
  fourth.indexer.pause('disk_full', false);
  assert.equal((await session.ingest(never)).files, 40);
  assert.equal(fourth.native.memory().segmentBytes, 0);
  bench.sent.splice(0);
});

check('forgotten: nothing of a workspace is left in the store, and another one has all of its own', async (bench) => {
  bench.write('a/one.ts', 'export const one = 1;\n');
  bench.write('a/both.ts', 'export const both = 2;\n');
  bench.write('b/both.ts', 'export const both = 2;\n');
  bench.write('b/two.ts', 'export const two = 3;\n');
  const roots = (name: string) => ({ roots: [{ path: path.join(bench.workspace, name), name }] });
  const core = await bench.core('store');
  const [a, b] = [await bench.session(core, roots('a')), await bench.session(core, roots('b'))];
  for (const session of [a, b]) await session.ingest(never);
  assert.equal(core.native.store!.statistics().nSegments, 3);
  const { segments, bytes } = await a.forget();
  assert.equal(segments, 1);
  assert.ok(bytes > 1000);
  assert.equal(core.native.store!.statistics().nSegments, 2);
  const disk = (): Buffer => Buffer.concat(readdirSync(path.join(bench.dir, 'store/tiny')).map((name) => readFileSync(path.join(bench.dir, 'store/tiny', name))));
  assert.ok(!disk().includes('one.ts') && !disk().includes(path.join(bench.workspace, 'a')) && disk().includes('two.ts'));
  await core.close();
  assert.ok(!disk().includes('one.ts') && disk().includes('two.ts'));
  const again = await bench.core('store');
  assert.equal((await (await bench.session(again, roots('b'))).ingest(never)).encoded_tokens, 0);
  assert.ok((await (await bench.session(again, roots('a'))).ingest(never)).encoded_tokens > 0);
});

check('what is read is durable about a second later, without anybody asking', async (bench) => {
  for (let i = 0; i < 3; i++) bench.write(`f${i}.ts`, `export const value${i} = ${i};\n`);
  const core = await bench.core('store');
  const session = await bench.session(core);
  const wal = (): number => readdirSync(path.join(bench.dir, 'store/tiny')).filter((name) => name.startsWith('wal-')).reduce((sum, name) => sum + statSync(path.join(bench.dir, 'store/tiny', name)).size, 0);
  // Not all of it is read, so that nothing is saved on the way.
  const [record] = [...(session as unknown as { roots: readonly import('../../extension/engine/root-index').RootIndex[] }).roots[0]!.records.values()];
  await core.indexer.prepare(record!);
  const before = wal();
  await core.indexer.readFirst(record!.next!.segments.map((segment) => ({ record: record!, segment })), Infinity, never);
  for (let i = 0; i < 1000 && wal() === before; i++) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.ok(wal() > before);
});

check('a root that has not been there for a month is dropped from the store, one that is there stays', async (bench) => {
  bench.write('kept/a.ts', 'export const a = 1;\n');
  bench.write('gone/b.ts', 'export const b = 2;\n');
  const first = await bench.core('store');
  for (const name of ['kept', 'gone']) await (await bench.session(first, { roots: [{ path: path.join(bench.workspace, name), name }] })).ingest(never);
  const { store } = first.native;
  for (const [root, value] of await store!.records('roots', '')) {
    const about = JSON.parse(value) as { savedMs: number };
    assert.ok(Math.abs(about.savedMs - Date.now()) < 60_000);
    await store!.write([{ table: 'roots', key: root, value: JSON.stringify({ ...about, savedMs: about.savedMs - 31 * 24 * 3600 * 1000 }) }]);
  }
  await first.close();
  rmSync(path.join(bench.workspace, 'gone'), { recursive: true });
  const second = await bench.core('store');
  assert.deepEqual((await second.native.store!.records('roots', '')).map(([root]) => path.basename(root)), ['kept']);
  assert.equal((await second.native.store!.records('files', '')).length, 1);
  assert.equal((await second.native.store!.records('versions', '')).length, 1);
});

check('records that are none, or of another recipe, are read over', async (bench) => {
  for (let i = 0; i < 4; i++) bench.write(`f${i}.ts`, `export const value${i} = ${i};\n`);
  bench.write('yarn.lock', 'x\n');
  bench.write('a.bin.ts', 'text\n\0');
  const garbage = ['', 'null', '{}', '[1,2,3]', '[-1,2,3,"x"]', '[1,2,3,"no rule","x"]', '[1,[null]]', '[1,["zz",1,2,3,4,5,6]]'];
  for (const [i, value] of [...garbage, undefined].entries()) {
    const core = await bench.core('store');
    const session = await bench.session(core);
    const { files, encoded_tokens } = await session.ingest(never);
    assert.deepEqual([files, encoded_tokens > 0], [4, i === 0], value);
    assert.equal((await session.coverage({ path: 'a.bin.ts' }))[0]?.rule, 'binary');
    const store = core.native.store!;
    const [records, versions] = [await store.records('files', ''), await store.records('versions', '')];
    assert.deepEqual(records.map(([, text]) => (JSON.parse(text) as unknown[]).length).sort(), [4, 4, 4, 4, 5], value);
    assert.ok(versions.length === 4 && versions.every(([, text]) => (JSON.parse(text) as unknown[]).length === 2), value);
    if (value !== undefined) {
      await store.write([0, 2, 4].map((n) => ({ table: 'files', key: records[n]![0], value })));
      await store.write([{ table: 'versions', key: versions[i % 4]![0], value }]);
      if (i % 3 === 2) await store.write([{ table: 'roots', key: (await store.records('roots', ''))[0]![0], value }]);
    }
    await core.close();
  }
});

check('the memory limit: refused at load with the numbers; later reading pauses, says why, and goes on when there is room', async (bench) => {
  for (let i = 0; i < 6; i++) bench.write(`ring${i}.ts`, `export const ring${i} = [${'1, '.repeat(200)}];\n`);
  await assert.rejects(bench.core(undefined, undefined, 1 << 20), (error: EngineError) => {
    assert.equal(error.code, 'out_of_memory');
    assert.match(error.message, /weights: expected at most 1048576 bytes of memory.*found \d+ in use and \d+ more needed/);
    return true;
  });
  const core = await bench.core('store');
  const session = await bench.session(core);
  await session.ingest(never);
  const all = core.native.memory().nSegments;
  // Less than the process has: nothing more is taken, what is in stays.
  session.settings({ maxMemoryBytes: 1 << 20 });
  bench.write('more.ts', 'export const more = 1;\n');
  session.filesChanged({ paths: [] });
  await session.coverage({});
  await assert.rejects(session.ingest(never), { code: 'out_of_memory' });
  const roots = (session as unknown as { roots: readonly import('../../extension/engine/root-index').RootIndex[] }).roots;
  const { state, reason } = core.indexer.status(roots);
  assert.deepEqual([state, reason], ['paused', 'memory_full']);
  assert.equal((await session.coverage({ path: 'more.ts' }))[0]?.state, 'waiting');
  assert.equal(core.native.memory().nSegments, all);
  session.settings({ maxMemoryBytes: 0 });
  assert.equal((await session.ingest(never)).files, 7);
  assert.equal(core.native.memory().nSegments, all + 1);
  await core.close();

  // What the store has is not opened beyond the limit either, and the workspace is there all the same.
  const again = await bench.core('store');
  const limited = await bench.session(again, { settings: { maxMemoryBytes: 1 << 20 } });
  assert.equal(again.native.memory().nSegments, 0);
  limited.settings({ maxMemoryBytes: 0 });
  const restored = await limited.ingest(never);
  assert.deepEqual([restored.files, restored.encoded_tokens], [7, 0]);
  assert.ok(bench.sent.splice(0).some(({ method, params }) => method === 'log' && /out_of_memory/.test(String(params))));
});

check('while a question is read for, its places are counted, and the rate is that of reading for it', async (bench) => {
  for (let i = 0; i < 5; i++) bench.write(`ring${i}.ts`, `// the width of ring number ${i}\nexport const ring = [${'1, '.repeat(200)}];\n`);
  const core = await bench.core();
  const session = await bench.session(core);
  await ask(session, 'What is the width of a ring?', { wait: 30 });
  const phases = bench.sent.filter(({ method }) => method === 'askPhase').map(({ params }) => params as { places?: { read: number; total: number } });
  const places = phases.flatMap((phase) => (phase.places ? [phase.places] : []));
  assert.ok(places.length >= 3, `${places.length} lines`);
  const total = places[0]!.total;
  assert.deepEqual([places[0], places.at(-1)], [{ read: 0, total }, { read: total, total }]);
  assert.deepEqual(places.map(({ read }) => read), places.map(({ read }) => read).sort((a, b) => a - b));
  const roots = (session as unknown as { roots: readonly import('../../extension/engine/root-index').RootIndex[] }).roots;
  assert.ok(core.indexer.status(roots).tokens_per_s > 0);
});

check('a segment that quotes the question is no source, unless there is nothing else', async (bench) => {
  const question = 'Where is the width of a ring decided?';
  bench.write('README.md', `Try it: \`tool ask "${question}"\`\n`);
  const core = await bench.core();
  const session = await bench.session(core);
  await session.ingest(never);
  const paths = async (): Promise<string[]> => (await ask(session, question)).sources.map((source) => source.path);
  assert.deepEqual(await paths(), ['README.md']);
  bench.write('ring.ts', 'export const width = 3;\n');
  session.filesChanged({ paths: [] });
  await session.coverage({});
  await session.ingest(never);
  assert.deepEqual(await paths(), ['ring.ts']);
});

check('stopping an answer keeps what had come and frees what it held', async (bench) => {
  const core = await bench.core();
  const session = await bench.session(core);
  await session.ingest(never);
  const stop = new AbortController();
  const pending = session.ask({ id: 7, question: 'Explain everything at length', maxTokens: 500 }, stop.signal);
  const began = Date.now();
  while (!bench.sent.some(({ method }) => method === 'askText')) {
    assert.ok(Date.now() - began < 20_000, 'no text came');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  stop.abort();
  const answer = await pending;
  assert.ok(['cancelled', 'repetition', 'end'].includes(answer.stop));
  await noTails(core);
}, 'test/fixtures/workspace');

check('after any history memory equals that of a fresh read', async (bench) => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 1e9);
  console.log(`seed ${seed}`);
  let state = seed;
  const random = (n: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
  const line = (): string => `export const name${random(500)} = ${random(1000)};\n`;
  for (let i = 0; i < 12; i++) bench.write(`d${i % 3}/f${i}.ts`, Array.from({ length: 5 + random(60) }, line).join(''));
  const core = await bench.core('store');
  const session = await bench.session(core);
  for (let round = 0; round < 12; round++) {
    for (let edit = 0; edit < 6; edit++) {
      const folders = readdirSync(bench.workspace).filter((name) => statSync(path.join(bench.workspace, name)).isDirectory());
      const files = folders.flatMap((name) => readdirSync(path.join(bench.workspace, name)).map((file) => path.join(bench.workspace, name, file)));
      const file = files[random(files.length)] as string;
      const lines = readFileSync(file, 'utf8').split(/(?<=\n)/);
      const kind = random(7);
      if (kind === 0) writeFileSync(file, lines.toSpliced(random(lines.length + 1), 0, line(), line()).join(''));
      else if (kind === 1) writeFileSync(file, lines.toSpliced(random(lines.length), 3).join(''));
      else if (kind === 2 && files.length > 6) rmSync(file);
      else if (kind === 3) renameSync(file, path.join(path.dirname(file), `r${random(1000)}.ts`));
      else if (kind === 4) writeFileSync(file, '');
      else if (kind === 5) writeFileSync(file, Buffer.from([0, 1, 2, 255]));
      else appendFileSync(file, line());
    }
    // Sometimes reading is under way while the next edits come.
    session.filesChanged({ paths: [] });
    if (random(3) > 0) continue;
    await session.coverage({});
    await session.ingest(never);
    const fresh = await bench.core(`fresh${round}`);
    const cold = await bench.session(fresh);
    await cold.ingest(never);
    assert.deepEqual(memoryOf(core, session), memoryOf(fresh, cold));
    await fresh.close();
  }
});
