// Following changes: idle when nothing happens, files that change all the time, our own store in the workspace, the system's limits
// on watches, changes without an event, folders that go away and come back.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { appendFileSync, chmodSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { IngestResult } from '../../../extension/engine/messages';
import { asNobody, cpuSeconds, delay, eventually, isRoot, statesOf, tinyModel, withCase, type Running } from './support';

type Update = IngestResult & { readonly changed?: readonly string[] };

const updates = (watch: Running): Update[] => watch.documents<Update>();
const last = (watch: Running): Update => updates(watch).at(-1)!;
const encodedSince = (watch: Running, first = 1): number => updates(watch).slice(first).reduce((sum, update) => sum + update.encoded_tokens, 0);

const userNamespaces = spawnSync('unshare', ['-Ur', 'true']).status === 0;

describe('a watch', { concurrency: 6 }, () => {
  test('rests when nothing happens: under one per cent of a core, all processes together', () =>
    withCase(tinyModel, async (c) => {
      c.writeMany(300);
      await c.watch();
      await delay(4000);
      const pids = c.processes();
      assert.ok(pids.length >= 2);
      const before = pids.map(cpuSeconds);
      await delay(20_000);
      const used = pids.reduce((sum, pid, i) => sum + cpuSeconds(pid) - before[i]!, 0);
      assert.ok(used < 0.2, `${used.toFixed(2)} s in 20 s`);
    }));

  test('a log that is written ten times a second: read once a window at most, then set aside', () =>
    withCase(tinyModel, async (c) => {
      const line = (i: number): string => `${new Date(i * 1000).toISOString()} something happened, for the ${i}th time\n`;
      c.write({ 'app.txt': Array.from({ length: 2000 }, (_, i) => line(i)).join(''), 'a.ts': 'export const a = 1;\n' });
      const watch = await c.watch();
      const whole = last(watch).tokens;
      const began = performance.now();
      let n = 0;
      while (performance.now() - began < 30_000 && statesOf(await c.coverage())['app.txt'] !== 'volatile') {
        for (let i = 0; i < 20; i++) {
          appendFileSync(c.path('app.txt'), line(++n));
          await delay(100);
        }
      }
      assert.equal(statesOf(await c.coverage())['app.txt'], 'volatile', `${n} changes`);
      assert.equal(statesOf(await c.coverage())['a.ts'], 'in');
      // A window is a second here, and an edit at the end costs the end.
      const seconds = (performance.now() - began) / 1000;
      assert.ok(updates(watch).length <= seconds + 2, `${updates(watch).length} updates in ${seconds} s`);
      assert.ok(encodedSince(watch) < 1000 * seconds && encodedSince(watch) < whole, `${encodedSince(watch)} tokens; the file has ${whole}`);
    }));

  test('our own store in the workspace, and as the workspace, is not fed to itself', () =>
    withCase(tinyModel, async (c) => {
      c.writeMany(20);
      for (const store of ['./.sala-store', '.']) {
        const watch = c.start(['ingest', '--watch', '--json', '--store', store]);
        await eventually('everything is in', () => watch.documents().length > 0, 20_000);
        await delay(2500);
        assert.equal(updates(watch).length, 1, JSON.stringify(updates(watch)));
        assert.equal(last(watch).files, 20);
        watch.child.kill('SIGINT');
        await watch.ended;
        await eventually('no process is left', () => c.processes().length === 0, 5000);
        const { files } = await c.coverage('--store', store);
        assert.deepEqual([...new Set(files.filter(({ state }) => state === 'excluded').map(({ rule }) => rule))], ['ignored']);
        assert.equal((await c.ingest('--store', store)).encoded_tokens, 0);
        await eventually('no process is left', () => c.processes().length === 0, 5000);
      }
    }));

  test('one line for each update', () =>
    withCase(tinyModel, async (c) => {
      c.writeMany(10);
      const watch = await c.watch();
      for (let i = 0; i < 3; i++) {
        c.write({ [`new${i}.ts`]: `export const n${i} = ${i};\n` });
        await eventually('it is in', () => last(watch).files === 11 + i);
      }
      assert.equal(updates(watch).length, 4, JSON.stringify(updates(watch)));
      assert.deepEqual(updates(watch).slice(1).map(({ changed }) => changed), [['new0.ts'], ['new1.ts'], ['new2.ts']]);
      // A touch is no change of the content: nothing is encoded.
      execFileSync('touch', [c.path('new0.ts')]);
      rmSync(c.path('new1.ts'));
      await eventually('it is out', () => last(watch).files === 12);
      assert.equal(encodedSince(watch, 4), 0);
    }));

  for (const [name, limit] of [
    ['50 watches', ['unshare', '-Ur', 'sh', '-c', 'echo 50 > /proc/sys/user/max_inotify_watches; exec "$@"', 'sh']],
    ['no instance', ['unshare', '-Ur', 'sh', '-c', 'echo 0 > /proc/sys/user/max_inotify_instances; exec "$@"', 'sh']],
    ['64 open files', ['sh', '-c', 'ulimit -n 64; exec "$@"', 'sh']],
  ] as const) {
    const skip = limit[0] === 'unshare' && !userNamespaces ? 'no user namespaces here' : false;
    test(`above the system's limit (${name}): polls, says so once and how to raise it`, { skip }, () =>
      withCase(tinyModel, async (c) => {
        for (let i = 1; i <= 200; i++) c.write({ [`d${i}/a.ts`]: `export const w${i} = ${i};\n` });
        const watch = await c.watch({ through: limit });
        const began = performance.now();
        c.write({ 'd3/a.ts': 'export const w3 = 33;\n', 'd150/a.ts': 'export const w150 = 151;\n', 'd199/b.ts': 'export const B_PROBE = 1;\n' });
        rmSync(c.path('d180'), { recursive: true });
        if (name === '50 watches') {
          // Before the poll, a question sees the files as they are.
          const { missing } = await c.json<{ missing: string[] }>(['ask', 'Where is `w150` set to `B_PROBE`?', '--wait', '5']);
          assert.deepEqual(missing, []);
        }
        const seen = (): Set<string> => new Set(updates(watch).flatMap(({ changed }) => changed ?? []));
        const wanted = ['d3/a.ts', 'd150/a.ts', 'd199/b.ts'];
        await eventually('all changes are seen', () => wanted.every((file) => seen().has(file)) && last(watch).files === 200, 30_000);
        assert.ok(performance.now() - began < 30_000);
        if (name !== '64 open files') {
          const said = watch.stderr().match(/polled for.*/g) ?? [];
          assert.equal(said.length, 1, watch.stderr());
          assert.match(said[0]!, /limit.*sysctl/);
        }
      }));
  }

  test('a change without an event is seen by the next question and the next list', () =>
    withCase(tinyModel, async (c) => {
      c.write({ 'a.ts': 'export const NET_PROBE = 100;\n' });
      await c.watch();
      const mapped = spawn('python3', ['-c', "import mmap,time\nf=open('a.ts','r+b'); m=mmap.mmap(f.fileno(),0); m[25:28]=b'200'; m.flush(); print('done',flush=True); time.sleep(120)"], { cwd: c.workspace });
      c.afterwardsDo(() => void mapped.kill('SIGKILL'));
      await new Promise((resolve) => mapped.stdout.once('data', resolve));
      const { coverage } = await c.ask('What is the value of `NET_PROBE`?', '--wait', 'full');
      assert.equal(coverage.files, 1);
      assert.ok(['in', 'stale'].includes(statesOf(await c.coverage())['a.ts']!));
      const { missing } = await c.ask('Is `NET_PROBE` 200 in `a.ts`?');
      assert.deepEqual(missing, []);
      // Nothing is left to read: the new content is in.
      assert.equal((await c.ingest()).encoded_tokens, 0);
      assert.equal(statesOf(await c.coverage())['a.ts'], 'in');
    }));

  test('the workspace is renamed and comes back: nothing is dropped, nothing encoded again', () =>
    withCase(tinyModel, async (c) => {
      c.writeMany(30);
      const watch = await c.watch();
      const before = last(watch);
      const away = path.join(c.dir, 'away');
      renameSync(c.workspace, away);
      await eventually('it is told', () => /cannot be read/.test(watch.stderr()), 8000);
      await delay(3000);
      assert.equal(last(watch).files, 30, JSON.stringify(updates(watch)));
      renameSync(away, c.workspace);
      await delay(4000);
      c.write({ 'after.ts': 'export const after = 1;\n' });
      await eventually('changes are seen again', () => last(watch).files === 31, 10_000);
      assert.ok(encodedSince(watch) < before.tokens / 2, JSON.stringify(updates(watch)));
      assert.equal(watch.stderr().match(/cannot be read/g)?.length, 1);
    }));

  test('the workspace is unreadable for a while', { skip: isRoot ? false : 'needs root, to become another user' }, () =>
    withCase(tinyModel, async (c) => {
      c.writeMany(30);
      const through = asNobody(c);
      const watch = await c.watch({ through });
      chmodSync(c.workspace, 0);
      await eventually('it is told', () => /cannot be read.*EACCES/.test(watch.stderr()), 8000);
      assert.equal(last(watch).files, 30);
      chmodSync(c.workspace, 0o755);
      await delay(4000);
      writeFileSync(c.path('after.ts'), 'export const after = 1;\n');
      await eventually('changes are seen again', () => last(watch).files === 31, 10_000);
      assert.equal(encodedSince(watch), last(watch).encoded_tokens);
    }));

  test('stopped for twelve seconds, files and folders changed meanwhile', () =>
    withCase(tinyModel, async (c) => {
      c.writeMany(30);
      const watch = await c.watch();
      const engine = await c.engine();
      process.kill(engine, 'SIGSTOP');
      watch.child.kill('SIGSTOP');
      rmSync(c.path('d0/f3.ts'));
      mkdirSync(c.path('fresh/deep'), { recursive: true });
      c.write({ 'fresh/deep/a.ts': 'export const a = 1;\n', 'd0/f4.ts': 'export const v4 = 44;\n', 'd0/f5.ts': 'export const v5 = 55;\n' });
      await delay(12_000);
      process.kill(engine, 'SIGCONT');
      watch.child.kill('SIGCONT');
      await eventually('all is seen', () => last(watch).changed !== undefined && last(watch).files === 30, 10_000);
      assert.deepEqual(c.processes('engines'), [engine]);
      assert.ok(Object.values(statesOf(await c.coverage())).every((state) => state === 'in'));
    }));
});
