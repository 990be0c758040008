// What large workspaces and many changes at once cost, counted and never timed (bench/scale.mjs times it): nothing that was known is
// cut or encoded again, an edit goes through no list of all files, and what nobody wants any more is not gone on with.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, promises, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Core } from '../../extension/engine/core';
import type { CoverageChange, OpenParams } from '../../extension/engine/messages';
import type { FileRecord, RootIndex } from '../../extension/engine/root-index';
import type { ClientSession } from '../../extension/engine/session';
import { eventually } from './fake-dist';
import { turnsOfOthers } from './others';
import { countCuts, filesOf, loadTinyCore, never, numbersAreTrue, replaceEncode, rootOf } from '../reliability/tiny-core';

class Bench {
  readonly dir = mkdtempSync(path.join(os.tmpdir(), 'sala-scale-'));
  readonly workspace = path.join(this.dir, 'workspace');
  readonly log: string[] = [];
  readonly changes: CoverageChange[] = [];
  private readonly cores: Core[] = [];

  constructor() {
    mkdirSync(this.workspace);
  }

  at(...names: readonly string[]): string {
    return path.join(this.workspace, ...names);
  }

  write(file: string, text: string): string {
    mkdirSync(path.dirname(this.at(file)), { recursive: true });
    writeFileSync(this.at(file), text);
    return this.at(file);
  }

  writeMany(n: number, what: string, folder = 'src'): string[] {
    return Array.from({ length: n }, (_, i) => this.write(`${folder}/d${i % 7}/f${i}.ts`, `export const v${i} = '${what}';\n`.repeat(1 + (i % 5))));
  }

  git(...args: string[]): void {
    execFileSync('git', ['-c', 'user.name=t', '-c', 'user.email=t@localhost', '-c', 'gc.auto=0', ...args], { cwd: this.workspace, stdio: ['ignore', 'ignore', 'pipe'] });
  }

  async core(store = 'store'): Promise<Core> {
    const core = await loadTinyCore(path.join(this.dir, store, 'tiny'), this.log);
    this.cores.push(core);
    return core;
  }

  async open(core: Core, more: Partial<OpenParams> = {}): Promise<ClientSession> {
    const session = core.createSession({
      kind: 'cli',
      notify: (type, params) => {
        if (type.method === 'coverageChanged') this.changes.push(params as CoverageChange);
      },
    });
    await session.open({ roots: [{ path: this.workspace, name: 'workspace' }], trusted: true, settings: {}, watch: 'client', ingest: false, ...more });
    return session;
  }

  async dispose(): Promise<void> {
    for (const core of this.cores) await core.close();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

function check(title: string, body: (bench: Bench) => Promise<void>): void {
  test(`scale: ${title}`, { timeout: 120_000 }, async () => {
    const bench = new Bench();
    try {
      await body(bench);
      assert.deepEqual(bench.log, []);
    } finally {
      await bench.dispose();
    }
  });
}

/** After these changes were told, all is read again. */
async function follow(session: ClientSession, paths: readonly string[]): Promise<void> {
  session.filesChanged({ paths });
  await session.coverage({});
  await session.ingest(never);
}

check('a branch switch and back: nothing that was known is cut or encoded', async (bench) => {
  bench.git('init', '-q', '-b', 'a');
  const files = bench.writeMany(80, 'first');
  bench.git('add', '-A');
  bench.git('commit', '-q', '-m', 'a');
  bench.git('checkout', '-q', '-b', 'b');
  bench.writeMany(80, 'second');
  rmSync(bench.at('src/d3'), { recursive: true });
  bench.write('src/new.ts', 'export const added = 1;\n');
  bench.git('add', '-A');
  bench.git('commit', '-q', '-m', 'b');
  const core = await bench.core();
  const session = await bench.open(core);
  const told = [...files, bench.at('src/new.ts'), bench.at('src/d3')];
  const switchTo = async (branch: string): Promise<void> => {
    bench.git('checkout', '-q', branch);
    await follow(session, told);
    numbersAreTrue(session);
  };
  await session.ingest(never);
  await switchTo('a');
  const cuts = countCuts(core);
  const { nEncoded } = rootOf(session);
  for (const branch of ['b', 'a', 'b']) await switchTo(branch);
  assert.deepEqual([cuts(), rootOf(session).nEncoded - nEncoded], [0, 0]);
  assert.equal(rootOf(session).count().files, 80 - 11 + 1);
});

check('folders renamed and back, a storm of renames: nothing is encoded again', async (bench) => {
  bench.writeMany(60, 'text');
  const core = await bench.core();
  const session = await bench.open(core);
  await session.ingest(never);
  const rename = async (from: string, to: string): Promise<void> => {
    renameSync(bench.at(from), bench.at(to));
    await follow(session, [bench.at(from), bench.at(to)]);
    numbersAreTrue(session);
  };
  await rename('src', 'moved');
  await rename('moved', 'src');
  const cuts = countCuts(core);
  const { nEncoded } = rootOf(session);
  for (let i = 0; i < 3; i++) {
    await rename('src', 'moved');
    await rename('moved', 'src');
  }
  assert.deepEqual([cuts(), rootOf(session).nEncoded - nEncoded], [0, 0]);
});

check('started again, unchanged: no file is read, cut or encoded', async (bench) => {
  bench.writeMany(60, 'text');
  const first = await bench.core();
  const before = await bench.open(first);
  // What was written just now has to be looked at by its bytes once more.
  await sleep(2100);
  await before.ingest(never);
  const { tokens } = rootOf(before).count();
  await first.close();
  const core = await bench.core();
  const cuts = countCuts(core);
  const session = await bench.open(core);
  assert.deepEqual([rootOf(session).count().tokens, cuts(), rootOf(session).nEncoded], [tokens, 0, 0]);
  assert.ok(core.indexer.idle);
});

check('what went while no engine ran is known no more; what stayed is not read again, nor what comes back', async (bench) => {
  const files = bench.writeMany(60, 'text');
  bench.write('src/binary.ts', 'x\0y');
  const first = await bench.core();
  const before = await bench.open(first);
  // What was written just now has to be looked at by its bytes once more.
  await sleep(2100);
  await before.ingest(never);
  await first.close();
  rmSync(bench.at('src/d3'), { recursive: true });
  rmSync(bench.at('src/binary.ts'));
  const core = await bench.core();
  const cuts = countCuts(core);
  const { store } = core.requireKeeper();
  const known = async (): Promise<string[]> => (await store.records('files', '')).map(([key]) => key.slice(key.indexOf('/') + 1)).sort();
  assert.equal((await known()).length, 61);
  const session = await bench.open(core);
  await session.ingest(never);
  assert.deepEqual(await known(), files.map((file) => path.relative(bench.workspace, file)).filter((file) => !file.startsWith('src/d3/')).sort());
  for (const file of bench.writeMany(60, 'text')) session.filesChanged({ paths: [file] });
  await session.coverage({});
  assert.equal((await session.ingest(never)).files, 60);
  assert.deepEqual([cuts(), rootOf(session).nEncoded], [0, 0]);
});

check('an edit goes through no list of all files, and lists no folder', async (bench) => {
  const files = bench.writeMany(120, 'text');
  const core = await bench.core();
  const session = await bench.open(core);
  await session.ingest(never);
  await follow(session, []);
  const { records } = rootOf(session);
  let walks = 0;
  const counted = <T>(list: () => T) => (): T => {
    walks++;
    return list.call(records);
  };
  const { values, keys, entries } = records;
  Object.assign(records, { values: counted(values), keys: counted(keys), entries: counted(entries), [Symbol.iterator]: counted(entries) });
  let read = 0;
  const admitted = rootOf(session).admitted;
  Object.assign(rootOf(session), { admitted: () => (read++, admitted.call(rootOf(session))) });
  const { readdir } = promises;
  let listed = 0;
  promises.readdir = ((...args: Parameters<typeof readdir>) => (listed++, readdir(...args))) as typeof readdir;
  writeFileSync(files[3]!, 'export const edited = 1;\n');
  session.filesChanged({ paths: [files[3]!] });
  // Looked at, and perhaps cut already: either way under its new stamp.
  const bytes = statSync(files[3]!).size;
  await eventually('looked at', () => rootOf(session).records.get('src/d3/f3.ts')!.info.bytes === bytes);
  await session.ingest(never);
  promises.readdir = readdir;
  assert.deepEqual([walks, read, process.platform === 'linux' ? listed : 0], [0, 0, 0]);
  assert.equal(rootOf(session).count().files, 120);
  // What is new needs the rules around it.
  await follow(session, [bench.write('src/d0/new.ts', 'export const fresh = 1;\n')]);
  assert.equal(rootOf(session).count().files, 121);
  // A file that became something else, in its place.
  rmSync(files[3]!);
  mkdirSync(files[3]!);
  bench.write('src/d3/f3.ts/inner.ts', 'export const inner = 1;\n');
  await follow(session, [files[3]!]);
  assert.deepEqual([rootOf(session).records.has('src/d3/f3.ts'), rootOf(session).records.has('src/d3/f3.ts/inner.ts')], [false, true]);
});

check('two roots with equal files are both read, whichever comes first', async (bench) => {
  for (const root of ['a', 'b']) bench.writeMany(40, 'the same', `${root}/src`);
  const session = await bench.open(await bench.core(), { roots: ['a', 'b'].map((name) => ({ path: bench.at(name), name })) });
  assert.equal((await session.ingest(never)).files, 80);
});

check('which file is the last that fits does not depend on what was read before', async (bench) => {
  // Of more tokens than a file of this size usually has, and of fewer.
  bench.write('a.ts', 'export const a = 1;\n'.repeat(20));
  bench.write('b.ts', `${'$ % '.repeat(200)}\n`);
  bench.write('c.ts', `${'e'.repeat(700)}\n`);
  bench.write('d.ts', 'export const d = 1;\n');
  const states = async (session: ClientSession): Promise<string[]> => {
    await session.ingest(never);
    return (await session.coverage({})).map(({ path: file, state }) => `${file} ${state}`);
  };
  const core = await bench.core();
  const all = await bench.open(core);
  await all.ingest(never);
  const sizes = (await all.coverage({})).map(({ tokens }) => tokens);
  await all.close();
  for (const budget of [sizes[0]!, sizes[0]! + sizes[1]! - 1, sizes[0]! + sizes[1]!, sizes[0]! + sizes[1]! + sizes[2]! - 1, sizes[0]! + sizes[1]! + sizes[2]!]) {
    const settings = { tokenBudget: budget };
    const history = await bench.open(core, { settings: { tokenBudget: 1e6 } });
    await history.ingest(never);
    history.settings(settings);
    const after = await states(history);
    numbersAreTrue(history);
    await history.close();
    const fresh = await bench.open(await bench.core(`fresh-${budget}`), { settings });
    assert.deepEqual(after, await states(fresh), `budget ${budget} of ${sizes.join(' + ')}`);
    numbersAreTrue(fresh);
    let [left, n] = [budget, 0];
    while (n < sizes.length && sizes[n]! <= left) left -= sizes[n++]!;
    assert.equal(after.filter((line) => line.endsWith(' in')).length, n, `budget ${budget} of ${sizes.join(' + ')}`);
  }
});

check('what comes behind the first file that does not fit stays out, and enters once that one fits', async (bench) => {
  bench.write('a.ts', 'export const a = 1;\n'.repeat(20));
  bench.write('b.ts', 'export const b = 1;\n'.repeat(200));
  // So many that a change is few of them.
  for (let i = 0; i < 60; i++) bench.write(`data/d${i}.csv`, 'a,b\n');
  const core = await bench.core();
  const session = await bench.open(core, { settings: { tokenBudget: 1000 } });
  const states = async (...paths: string[]): Promise<Record<string, string>> => {
    if (paths.length > 0) await follow(session, paths.map((file) => bench.at(file)));
    numbersAreTrue(session);
    return Object.fromEntries(filesOf(rootOf(session)).filter(({ path: file }) => file.endsWith('.ts')).map(({ path: file, state }) => [file, state]));
  };
  await session.ingest(never);
  assert.deepEqual(await states(), { 'a.ts': 'in', 'b.ts': 'over_budget' });
  // Small enough for what is left, and behind.
  bench.write('c.ts', 'export const c = 1;\n');
  assert.deepEqual(await states('c.ts'), { 'a.ts': 'in', 'b.ts': 'over_budget', 'c.ts': 'over_budget' });
  bench.write('a1.ts', 'export const a1 = 1;\n');
  assert.deepEqual(await states('a1.ts'), { 'a.ts': 'in', 'a1.ts': 'in', 'b.ts': 'over_budget', 'c.ts': 'over_budget' });
  // The one at the end goes out by a rule of its own, and another one takes its place.
  bench.write('b.ts', 'x\0y');
  assert.deepEqual(await states('b.ts'), { 'a.ts': 'in', 'a1.ts': 'in', 'b.ts': 'excluded', 'c.ts': 'in' });
  bench.write('b.ts', 'export const b = 1;\n'.repeat(200));
  assert.deepEqual(await states('b.ts'), { 'a.ts': 'in', 'a1.ts': 'in', 'b.ts': 'over_budget', 'c.ts': 'over_budget' });
  rmSync(bench.at('b.ts'));
  assert.deepEqual(await states('b.ts'), { 'a.ts': 'in', 'a1.ts': 'in', 'c.ts': 'in' });
});

check('what nobody told of is found by the stamps of folders, the rest by a look at everything that comes by and by', async (bench) => {
  bench.writeMany(40, 'first');
  bench.write('.gitignore', '/ignored/\n');
  bench.write('ignored/i.ts', 'export const i = 1;\n');
  const session = await bench.open(await bench.core());
  await session.ingest(never);
  const root = rootOf(session);
  // A look at everything is not due for long.
  const looksAroundAt = (at: number): void => {
    clearTimeout((root as unknown as { lookAroundTimer?: NodeJS.Timeout }).lookAroundTimer);
    Object.assign(root, { lookAroundTimer: undefined, looksAroundAt: at });
  };
  looksAroundAt(performance.now() + 1e6);
  // A folder that changed just now may change again and look the same.
  await sleep(2100);
  const missed = async (): Promise<Record<string, string>> => {
    session.filesChanged({ paths: [], missed: true });
    await session.ingest(never);
    return Object.fromEntries(filesOf(root).map(({ path: file, state }) => [file, state]));
  };
  const before = await missed();
  assert.equal(before['ignored'], 'excluded');
  let looks: readonly string[][] = [];
  const lookAt = root.lookAt.bind(root);
  root.lookAt = (paths) => {
    looks = [...looks, [...paths].sort()];
    return lookAt(paths);
  };
  bench.write('src/d0/new.ts', 'export const fresh = 1;\n');
  bench.write('src/d9/deep/new.ts', 'export const deep = 1;\n');
  rmSync(bench.at('src/d1/f1.ts'));
  renameSync(bench.at('src/d2/f2.ts'), bench.at('src/d2/renamed.ts'));
  bench.write('swap', 'export const swapped = 1;\n');
  renameSync(bench.at('swap'), bench.at('src/d3/f3.ts'));
  bench.write('ignored/j.ts', 'export const j = 1;\n');
  const after = await missed();
  assert.deepEqual(looks.flat().filter((file) => file !== '.gitignore'), ['src/d0/new.ts', 'src/d1/f1.ts', 'src/d2/f2.ts', 'src/d2/renamed.ts', 'src/d3/f3.ts', 'src/d9']);
  assert.deepEqual(
    ['src/d0/new.ts', 'src/d9/deep/new.ts', 'src/d1/f1.ts', 'src/d2/f2.ts', 'src/d2/renamed.ts', 'src/d3/f3.ts', 'ignored/j.ts'].map((file) => after[file]),
    ['in', 'in', undefined, undefined, 'in', 'in', undefined],
  );
  numbersAreTrue(session);
  // Written in place: no folder tells.
  looks = [];
  const bytes = statSync(bench.at('src/d4/f4.ts')).size;
  writeFileSync(bench.at('src/d4/f4.ts'), 'export const longer = 123456;\n'.repeat(10));
  await root.lookForMissed();
  assert.equal(root.records.get('src/d4/f4.ts')?.info.bytes, bytes);
  looksAroundAt(0);
  await root.lookForMissed();
  await eventually('a look at everything', () => root.records.get('src/d4/f4.ts')?.info.bytes !== bytes);
  assert.ok(!looks.flat().includes(''), 'and nothing else was looked at by it');
  await session.ingest(never);
  numbersAreTrue(session);
});

for (const watch of ['client', 'engine'] as const) {
  check(`while all is looked at anew, a file that is saved is read, and one that came (watched by the ${watch})`, async (bench) => {
    const files = bench.writeMany(60, 'first');
    const core = await bench.core();
    const session = await bench.open(core, { watch, ingest: true });
    await session.ingest(never);
    const root = rootOf(session);
    // The one that closes the gap while watches were set up.
    await sleep(500);
    await session.coverage({});
    const held = holdDifferences(root);
    if (watch === 'client') session.filesChanged({ paths: [] });
    else (session as unknown as { watches: { report(path: string): void }[] }).watches[0]!.report('');
    await eventually('it is under way', () => held.looks() === 1);
    const isIn = (file: string): boolean => {
      const record = root.records.get(file);
      return record?.current !== undefined && !record.changed && record.info.bytes === statSync(bench.at(file)).size;
    };
    const changed = (file: string, text: string): void => {
      const written = bench.write(file, text);
      if (watch === 'client') session.filesChanged({ paths: [written] });
    };
    changed('src/d3/f3.ts', 'export const edited = 1;\n');
    await eventually('what was saved is read', () => isIn('src/d3/f3.ts'));
    changed('src/d3/fresh.ts', 'export const fresh = 1;\n');
    await eventually('what came is read', () => isIn('src/d3/fresh.ts'));
    session.document({ path: files[4]!, text: 'export const unsaved = 1;\n' });
    await eventually('unsaved text is read', () => root.records.get('src/d4/f4.ts')?.current?.segments.at(-1)?.endByte === 26);
    bench.write('src/d4/f4.ts', 'export const saved = 12345;\n');
    session.document({ path: files[4]!, text: null });
    await eventually('and its saved text', () => isIn('src/d4/f4.ts'));
    // Told by nobody: what all is looked at for.
    bench.write('src/d5/f5.ts', 'export const untold = 1;\n');
    assert.equal(held.looks(), 1);
    held.letGo();
    await session.ingest(never);
    assert.ok(isIn('src/d5/f5.ts'));
    numbersAreTrue(session);
  });
}

check('what was seen of all is not taken note of where others have looked since', async (bench) => {
  const files = bench.writeMany(40, 'first');
  const session = await bench.open(await bench.core());
  await session.ingest(never);
  const root = rootOf(session);
  // Seen, and told by nobody.
  writeFileSync(files[1]!, 'export const once = 1;\n');
  writeFileSync(files[2]!, 'export const once = 1;\n');
  rmSync(files[8]!);
  const coming = bench.write('src/d1/coming.ts', 'export const coming = 1;\n');
  bench.write('lib/a.ts', 'export const a = 1;\n');
  bench.write('lib/b.ts', 'export const b = 1;\n');
  bench.write('.gitignore', 'src/d3/f3.ts\nsrc/d4/\n');
  const held = holdDifferences(root, 'after');
  session.filesChanged({ paths: [] });
  await eventually('all was seen', () => held.looks() === 1);
  // Told since, as the editor's watcher does.
  writeFileSync(files[1]!, 'export const twice = 12345;\n');
  writeFileSync(files[8]!, 'export const back = 1;\n');
  rmSync(coming);
  rmSync(bench.at('lib'), { recursive: true });
  bench.write('lib/c.ts', 'export const c = 1;\n');
  // Which a look at them alone knows no rules of.
  writeFileSync(files[3]!, 'export const ignored = 1;\n');
  writeFileSync(files[4]!, 'export const ignored = 1;\n');
  session.filesChanged({ paths: [files[1]!, files[3]!, files[4]!, files[8]!, coming, bench.at('lib')] });
  await eventually('they were looked at', () => root.records.has('lib/c.ts') && root.records.get('src/d1/f1.ts')?.info.bytes === 28);
  held.letGo();
  await session.ingest(never);
  const there = ['src/d1/f1.ts', 'src/d2/f2.ts', 'src/d1/f8.ts', 'lib/c.ts'];
  for (const file of there) assert.equal(root.records.get(file)?.info.bytes, statSync(bench.at(file)).size, file);
  const nDeep = files.filter((file) => file.includes('/d4/')).length;
  for (const file of ['src/d1/coming.ts', 'lib/a.ts', 'lib/b.ts', 'src/d3/f3.ts', 'src/d4/f4.ts']) assert.equal(root.records.has(file), false, file);
  assert.equal(root.count().files, 42 - 1 - nDeep);
  numbersAreTrue(session);
});

check('a folder is excluded and walked again, whatever was looked at first', async (bench) => {
  bench.write('.gitignore', '');
  for (const name of ['a', 'b', 'c']) bench.write(`src/net/${name}.ts`, `export const ${name} = 1;\n`);
  bench.write('other.ts', 'export const other = 1;\n');
  const session = await bench.open(await bench.core());
  await session.ingest(never);
  const root = rootOf(session);
  const states = async (): Promise<string[]> => {
    await session.coverage({});
    await session.ingest(never);
    numbersAreTrue(session);
    return filesOf(root).map(({ path: file, state }) => `${file} ${state}`);
  };
  const before = await states();
  for (const isFirst of [true, false]) {
    // Below it something is looked at by the new rules, before or after the rules are.
    bench.write('.gitignore', 'src/net/\n');
    if (isFirst) await root.lookAt(['src/net/new.ts']);
    session.filesChanged({ paths: [bench.at('.gitignore'), bench.at('src/net/new.ts')] });
    assert.deepEqual(await states(), ['.gitignore in', 'other.ts in', 'src/net excluded']);
    assert.deepEqual([...root.folders].sort(), ['', 'src']);
    bench.write('.gitignore', '');
    session.filesChanged({ paths: [bench.at('.gitignore')] });
    assert.deepEqual(await states(), before);
  }
});

check('a look at everything finds thousands of changes, and what rules outside of the root say now', async (bench) => {
  bench.write('.gitignore', '/ignored/\n');
  execFileSync('git', ['init', '-q', bench.dir]);
  const files = bench.writeMany(1500, 'first', 'root/src');
  bench.write('root/odd.ts', 'export const odd = 1;\n');
  bench.write('root/log/a.ts', 'export const a = 1;\n');
  bench.write('root/log/b.ts', 'export const b = 1;\n');
  const session = await bench.open(await bench.core(), { roots: [{ path: bench.at('root'), name: 'root' }], settings: { tokenBudget: 1000 } });
  await session.ingest(never);
  const root = rootOf(session);
  const states = (): Record<string, string> => Object.fromEntries(filesOf(root).map(({ path: file, state }) => [file, state]));
  const look = async (): Promise<Record<string, string>> => {
    session.filesChanged({ paths: [] });
    await session.ingest(never);
    numbersAreTrue(session);
    return states();
  };
  assert.equal(root.records.size, 1503);
  bench.write('.gitignore', 'odd.ts\nlog/\n');
  for (const file of files.slice(0, 1200)) writeFileSync(file, 'export const changed = 1;\n');
  for (const file of files.slice(1200, 1300)) rmSync(file);
  bench.writeMany(40, 'new', 'root/new');
  const after = await look();
  assert.deepEqual([after['odd.ts'], after['log'], after['log/a.ts']], ['excluded', 'excluded', undefined]);
  assert.equal(root.records.size, 1500 - 100 + 40);
  for (const record of root.records.values()) assert.equal(record.info.bytes, statSync(path.join(root.dir, record.path)).size, record.path);
  bench.write('.gitignore', '');
  const again = await look();
  assert.ok(again['odd.ts'] !== 'excluded' && again['log/a.ts'] !== undefined && again['log'] === undefined);
  bench.write('.gitignore', 'odd.ts\n');
  await root.lookAround();
  assert.equal(states()['odd.ts'], 'excluded');
});

check('a look at everything that nobody asked for holds up no other, and comes seldom', async (bench) => {
  const files = bench.writeMany(60, 'first');
  const core = await bench.core();
  const session = await bench.open(core);
  await session.ingest(never);
  const root = rootOf(session);
  Object.assign(root, { looksAroundAt: 0 });
  const held = holdDifferences(root);
  for (let i = 0; i < 5; i++) session.filesChanged({ paths: [], missed: true });
  await eventually('it is under way', () => held.looks() === 1);
  writeFileSync(files[3]!, 'export const edited = 1;\n');
  await follow(session, [files[3]!]);
  assert.equal(root.records.get('src/d3/f3.ts')?.info.bytes, statSync(files[3]!).size);
  session.filesChanged({ paths: [], missed: true });
  held.letGo();
  await eventually('another one waits until it may be', () => (root as unknown as { lookAroundTimer?: unknown }).lookAroundTimer !== undefined);
  assert.equal(held.looks(), 1);
});

check('while a folder is looked at by its new rules, a file that is saved is read; what was seen by rules that changed again is not taken note of', async (bench) => {
  const files = bench.writeMany(60, 'first', 'lib/src');
  const session = await bench.open(await bench.core(), { ingest: true });
  await session.ingest(never);
  const root = rootOf(session);
  const gone = new Set<string>();
  root.on('looked', (changes) => changes.gone.forEach(({ path: file }) => gone.add(file.split('/')[2] ?? file)));
  const ruled = (text: string): void => session.filesChanged({ paths: [bench.write('lib/.gitignore', text)] });
  const excluded = async (): Promise<string[]> => (await session.coverage({})).filter(({ state }) => state === 'excluded').map(({ path: file }) => file);
  const once = holdDifferences(root, 'after');
  ruled('src/d1/\n');
  await eventually('the folder is looked at', () => once.looks() === 1);
  await saved(session, files[3]!, 'lib/src/d3/f3.ts');
  ruled('src/d2/\n');
  once.letGo();
  await eventually('it is looked at anew', () => once.looks() === 2);
  assert.deepEqual(await excluded(), ['lib/src/d2']);
  assert.deepEqual([...gone], ['d2']);
  // However often they change, it comes to an end.
  const often = holdDifferences(root, 'after');
  ruled('src/d4/\n');
  await eventually('it is looked at again', () => often.looks() === 1);
  for (const name of ['d5', 'd6', 'd0']) ruled(`src/${name}/\n`);
  // So do those that come after it has begun anew.
  session.filesChanged({ paths: [bench.write('lib/src/d3/.gitignore', 'f10.ts\n')] });
  const { broadLooks } = session as unknown as { broadLooks: ReadonlySet<unknown> };
  often.letGo();
  await eventually('it ends', () => broadLooks.size === 0);
  assert.equal(often.looks(), 3);
  assert.deepEqual(await excluded(), ['lib/src/d0', 'lib/src/d3/f10.ts']);
  await session.ingest(never);
  numbersAreTrue(session);
});

check('while what nobody told of is looked for, a file that is saved is read', async (bench) => {
  const files = bench.writeMany(60, 'first', 'lib/src');
  const session = await bench.open(await bench.core(), { ingest: true });
  await session.ingest(never);
  const root = rootOf(session);
  // A look at everything is not due for long.
  Object.assign(root, { looksAroundAt: performance.now() + 1e6 });
  const held = holdDifferences(root);
  bench.write('lib/.gitignore', 'src/d1/\n');
  session.filesChanged({ paths: [], missed: true });
  await eventually('the folder is looked at by its rules', () => held.looks() === 1);
  await saved(session, files[3]!, 'lib/src/d3/f3.ts');
  held.letGo();
  const excluded = (await session.coverage({})).filter(({ state }) => state === 'excluded').map(({ path: file }) => file);
  assert.deepEqual(excluded, ['lib/src/d1']);
  numbersAreTrue(session);
});

check('while another window opens a workspace that is known, a file that is saved in the first one is read', async (bench) => {
  const files = bench.writeMany(60, 'first');
  const core = await bench.core();
  const session = await bench.open(core, { ingest: true });
  await session.ingest(never);
  const root = rootOf(session);
  const held = holdDifferences(root);
  // Nobody told of this one.
  bench.write('src/d5/untold.ts', 'export const untold = 1;\n');
  const opened = bench.open(core);
  await eventually('it is looked at', () => held.looks() === 1);
  await saved(session, files[3]!, 'src/d3/f3.ts');
  held.letGo();
  const second = await opened;
  assert.ok(root.records.has('src/d5/untold.ts'));
  assert.equal((await second.ingest(never)).files, 61);
  assert.deepEqual(await second.coverage({}), await session.coverage({}));
  numbersAreTrue(second);
});

check('a list of all files is that of one moment, whatever changes while it is made, and others have their turn', async (bench) => {
  const files = bench.writeMany(900, 'text');
  const session = await bench.open(await bench.core(), { settings: { tokenBudget: 5000 } });
  await session.ingest(never);
  const root = rootOf(session);
  const isTrue = (list: ReturnType<RootIndex['list']>, what: string): void =>
    assert.deepEqual(list.now().sort((a, b) => (a.path < b.path ? -1 : 1)), filesOf(root), what);
  const list = root.list();
  const turns = await turnsOfOthers(() => list.gather());
  assert.ok(turns > 3, `${turns} turns`);
  isTrue(list, 'nothing changed');
  for (const file of files.slice(0, 3)) writeFileSync(file, 'export const edited = 1;\n');
  rmSync(bench.at('src/d1'), { recursive: true });
  bench.write('src/fresh.ts', 'export const fresh = 1;\n');
  bench.write('src/d2/binary.ts', 'x\0y');
  await follow(session, [...files.slice(0, 3), bench.at('src/d1'), bench.at('src/fresh.ts'), bench.at('src/d2/binary.ts')]);
  isTrue(list, 'files came and went');
  await follow(session, [bench.write('src/d3/.gitignore', 'f3.ts\n'), bench.write('src/d4/.gitignore', '*\n')]);
  isTrue(list, 'and rules');
  root.admit(1000);
  isTrue(list, 'and the budget');
  renameSync(bench.workspace, `${bench.workspace}-away`);
  await root.lookAt(['']);
  isTrue(list, 'it cannot be read');
  assert.ok(list.now().every(({ state }) => state === 'unreadable' || state === 'excluded'));
  renameSync(`${bench.workspace}-away`, bench.workspace);
  await root.lookAt(['']);
  isTrue(list, 'and can be');
  list.close();
  const paths = (await session.coverage({})).map(({ path: file }) => file);
  assert.deepEqual(paths, [...paths].sort());
});

check('below an excluded folder only what makes it excluded counts', async (bench) => {
  bench.write('a.ts', 'export const a = 1;\n');
  bench.write('env/pyvenv.cfg', 'home = /usr\n');
  bench.write('env/lib/own.py', 'x = 1\n');
  bench.write('node_modules/p/index.js', 'module.exports = 1;\n');
  const session = await bench.open(await bench.core());
  await session.ingest(never);
  const root = rootOf(session);
  let looks = 0;
  root.on('looked', () => looks++);
  for (let i = 0; i < 40; i++) bench.write(`node_modules/p${i}/.gitignore`, '*\n');
  assert.equal(await root.lookAt(Array.from({ length: 40 }, (_, i) => `node_modules/p${i}/.gitignore`)), false);
  assert.equal(looks, 0);
  const names = async (): Promise<string[]> => (await session.coverage({})).map(({ path: file, rule }) => `${file} ${rule ?? ''}`.trim());
  assert.deepEqual(await names(), ['a.ts', 'env ignored', 'node_modules ignored']);
  rmSync(bench.at('env/pyvenv.cfg'));
  await follow(session, [bench.at('env/pyvenv.cfg')]);
  assert.deepEqual(await names(), ['a.ts', 'env/lib/own.py', 'node_modules ignored']);
  bench.write('env/pyvenv.cfg', 'home = /usr\n');
  await follow(session, [bench.at('env/pyvenv.cfg')]);
  assert.deepEqual(await names(), ['a.ts', 'env ignored', 'node_modules ignored']);
});

check('what changed in thousands of files is told in one word', async (bench) => {
  const files = bench.writeMany(2500, 'text', 'data');
  const session = await bench.open(await bench.core(), { settings: { exclude: ['nothing'] } });
  await sleep(700);
  bench.changes.length = 0;
  rmSync(bench.at('data'), { recursive: true });
  session.filesChanged({ paths: [...files, bench.at('data')] });
  await session.coverage({});
  for (let i = 0; i < 1000 && bench.changes.length === 0; i++) await sleep(10);
  assert.deepEqual(bench.changes, [{ files: [], gone: [], everything: true }]);
});

check('changes that come while one is looked at are one look more', async (bench) => {
  const files = bench.writeMany(30, 'first');
  const session = await bench.open(await bench.core());
  await session.ingest(never);
  let looks = 0;
  const root = rootOf(session);
  const parts = root as unknown as Record<'differences' | 'lookAtSome', (...args: unknown[]) => unknown>;
  for (const part of ['differences', 'lookAtSome'] as const) {
    const look = parts[part].bind(root);
    parts[part] = (...args) => (looks++, look(...args));
  }
  bench.writeMany(30, 'second');
  for (let i = 0; i < 20; i++) session.filesChanged({ paths: i % 2 === 0 ? [] : files });
  await session.coverage({});
  // One of each kind, once more what was written so lately that it may have been again, and what was looked at meanwhile.
  assert.ok(looks <= 5, `${looks} looks`);
  await session.ingest(never);
  numbersAreTrue(session);
});

/** Saves a file with other text, tells of it, and waits until that is read; `at`: its path within the root. */
async function saved(session: ClientSession, file: string, at: string): Promise<void> {
  const text = 'export const edited = 1;\n';
  writeFileSync(file, text);
  session.filesChanged({ paths: [file] });
  await eventually('what was saved is read', () => {
    const record = rootOf(session).records.get(at)!;
    return record.current !== undefined && !record.changed && record.info.bytes === text.length;
  });
}

/** Holds looks at everything before they look, or with what they have seen, until they are let go. */
function holdDifferences(root: RootIndex, when: 'before' | 'after' = 'before'): { readonly looks: () => number; letGo(): void } {
  let looks = 0;
  let letGo = (): void => {};
  const isLetGo = new Promise<void>((resolve) => (letGo = resolve));
  type Differences = { differences(...args: unknown[]): Promise<unknown> };
  const differences = (root as unknown as Differences).differences.bind(root);
  const held: Differences = {
    differences: async (...args) => {
      if (when === 'after') {
        const found = await differences(...args);
        looks++;
        await isLetGo;
        return found;
      }
      looks++;
      await isLetGo;
      return differences(...args);
    },
  };
  Object.assign(root, held);
  return { looks: () => looks, letGo: () => letGo() };
}

/** Holds what is encoded until it is let go, or cancelled. */
function held(core: Core): { readonly began: () => number; readonly cancelled: () => number; letGo(): void } {
  const { native } = core;
  const encode = native.encodeSegments.bind(native);
  const waiting = new Set<() => void>();
  let [isHeld, began, cancelled] = [true, 0, 0];
  replaceEncode(native, (...args) => {
    began++;
    if (!isHeld) return encode(...args);
    let cancel = (): void => {};
    const done = new Promise<Awaited<ReturnType<typeof encode>['done']>>((resolve, reject) => {
      const go = (): void => void encode(...args).done.then(resolve, reject);
      waiting.add(go);
      cancel = () => {
        cancelled++;
        waiting.delete(go);
        reject(Object.assign(new Error('cancelled'), { code: 'cancelled' }));
      };
    });
    return { done, cancel };
  });
  const letGo = (): void => {
    isHeld = false;
    for (const go of waiting) go();
    waiting.clear();
  };
  return { began: () => began, cancelled: () => cancelled, letGo };
}

async function until(what: string, condition: () => boolean): Promise<void> {
  for (let i = 0; i < 3000 && !condition(); i++) await sleep(10);
  assert.ok(condition(), what);
}

check('while the store is slow to say what it has, the engine attends to all else', async (bench) => {
  const files = bench.writeMany(20, 'first');
  const core = await bench.core();
  const session = await bench.open(core, { ingest: true });
  await session.ingest(never);
  bench.writeMany(20, 'second');
  await follow(session, files);
  const { native } = core;
  const look = native.openSegments.bind(native);
  Object.defineProperty(native, 'openSegments', { value: async (keys: readonly string[]) => (await sleep(1000), look(keys)), configurable: true });
  bench.writeMany(20, 'first');
  session.pause({ paused: true });
  session.filesChanged({ paths: files });
  await session.coverage({});
  // A question has them looked at, which are known from before; the background goes on beside it.
  const asked = [...rootOf(session).records.values()].map((record) => core.indexer.prepare(record));
  await until('they are looked up', () => rootOf(session).beingRead().length === 20);
  session.pause({ paused: false });
  await Promise.all(asked);
  assert.equal((await session.ingest(never)).files, 20);
  assert.deepEqual((await session.coverage({})).map(({ state }) => state), files.map(() => 'in'));
});

check('what was overtaken by another change is not gone on with, what others wait for is', async (bench) => {
  const file = bench.write('a.ts', 'export const first = 1;\n');
  const core = await bench.core();
  const hold = held(core);
  const session = await bench.open(core, { ingest: true });
  await until('the first version is encoded', () => hold.began() === 1);
  writeFileSync(file, 'export const second = 2;\n');
  session.filesChanged({ paths: [file] });
  await until('it is broken off, and the second one begun', () => hold.cancelled() === 1 && hold.began() === 2);
  bench.write('b.ts', 'export const other = 3;\n');
  session.filesChanged({ paths: [bench.at('b.ts')] });
  await session.coverageOf({ paths: [] });
  await sleep(50);
  assert.equal(hold.cancelled(), 1);
  hold.letGo();
  assert.equal((await session.ingest(never)).files, 2);
});

check('a pause holds at once, and reading goes on where it was', async (bench) => {
  bench.writeMany(30, 'text');
  const core = await bench.core();
  const hold = held(core);
  const session = await bench.open(core, { ingest: true });
  await until('something is encoded', () => hold.began() === 1);
  session.pause({ paused: true });
  await until('it is broken off', () => hold.cancelled() === 1);
  hold.letGo();
  await sleep(100);
  assert.equal(hold.began(), 1, 'nothing is begun while it is paused');
  session.pause({ paused: false });
  assert.equal((await session.ingest(never)).files, 30);
});

check('a slow disk under the store holds up nothing that is read', async (bench) => {
  const files = bench.writeMany(10, 'first');
  const core = await bench.core();
  const { keeper } = core as unknown as { keeper: { write(changes: unknown): Promise<void> } };
  const write = keeper.write.bind(keeper);
  let answer = (): void => {};
  const slow = new Promise<void>((resolve) => (answer = resolve));
  keeper.write = async (changes) => {
    await slow;
    await write(changes);
  };
  const session = await bench.open(core, { ingest: true });
  const root = rootOf(session);
  const isIn = ({ current, changed, next }: FileRecord): boolean => current !== undefined && !changed && !next;
  await until('all is in', () => [...root.records.values()].every(isIn));
  for (let round = 0; round < 3; round++) {
    bench.writeMany(10, `round ${round}`);
    const before = [...root.records.values()].map(({ current }) => current);
    session.filesChanged({ paths: files });
    await until('the edits are in', () => [...root.records.values()].every((record, i) => isIn(record) && record.current !== before[i]));
  }
  answer();
  await session.close();
});

check('forgotten while it is being saved: nothing of it stays', async (bench) => {
  bench.writeMany(10, 'text');
  const core = await bench.core();
  type Store = { records(table: string, prefix: string): Promise<unknown[]> };
  const { keeper } = core as unknown as { keeper: { store: Store; write(changes: unknown): Promise<void> } };
  const write = keeper.write.bind(keeper);
  let answer = (): void => {};
  let isWriting = false;
  let written = Promise.resolve();
  const slow = new Promise<void>((resolve) => (answer = resolve));
  keeper.write = async (changes) => {
    isWriting = true;
    await slow;
    written = write(changes);
    await written;
  };
  const session = await bench.open(core, { ingest: true });
  await until('it is being saved', () => isWriting && rootOf(session).isRead);
  const forgotten = session.forget();
  // Whoever would not wait for it has erased everything by then.
  await sleep(300);
  answer();
  await forgotten;
  await written;
  for (const table of ['files', 'versions', 'roots']) assert.deepEqual(await keeper.store.records(table, ''), [], table);
});

check('the clock goes back and far ahead: what is in memory is what is on the disk', async (bench) => {
  const { now } = Date;
  const files = bench.writeMany(10, 'first');
  try {
    const core = await bench.core();
    const session = await bench.open(core);
    await session.ingest(never);
    for (const [i, hours] of [-1, -24 * 400, 24 * 400, 0].entries()) {
      Date.now = () => now() + hours * 3600_000;
      bench.writeMany(10, `round ${i}`);
      await follow(session, files);
      const again = await bench.open(core, { roots: [{ path: bench.workspace, name: 'again' }] });
      assert.equal(rootOf(again).count().files, 10);
      await again.close();
      numbersAreTrue(session);
    }
    await core.close();
    const reopened = await bench.core();
    const cuts = countCuts(reopened);
    const session2 = await bench.open(reopened);
    await session2.ingest(never);
    assert.deepEqual([cuts(), rootOf(session2).nEncoded, rootOf(session2).count().files], [0, 0, 10]);
  } finally {
    Date.now = now;
  }
});
