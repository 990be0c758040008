// Disks and files as they are not supposed to be: several places of a store damaged at once, a quota, a disk that becomes read-only,
// a file of two gigabytes, names of every byte.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { execFileSync } from 'node:child_process';
import { appendFileSync, closeSync, ftruncateSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { eventually, failureOf, isRoot, statesOf, storedRecords, tinyModel, withCase, type Answer, type Case, type StoredRecord } from './support';

function damage({ file, offset, bytes }: StoredRecord): void {
  const all = readFileSync(file);
  all[offset + (bytes.length >> 1)]! ^= 0x40;
  writeFileSync(file, all);
}

const manyLines = (c: Case, n: number): void =>
  c.write(Object.fromEntries(Array.from({ length: n }, (_, i) => [`f${i}.ts`, `export const many_${i} = [${'12, '.repeat(60)}${i}];\n`])));

describe('disks and files', { concurrency: 3 }, () => {
  for (const [title, engines] of [['one engine', 1], ['an engine each time', 2]] as const) {
    test(`several damaged segments in one view are read again by themselves: ${title}`, () =>
      withCase(tinyModel, async (c) => {
        c.writeMany(40);
        await c.ingest();
        // One engine holds them open meanwhile, or the next one opens them damaged.
        const watch = engines === 1 ? await c.watch() : undefined;
        if (engines === 2) await c.nothingIsLeft();
        const whole = await c.ask('What is there?', '--focus', 'all', '--wait', 'full', '--store', path.join(c.dir, 'sound'));
        for (const i of [2, 9, 10, 31]) damage(storedRecords(c.storeFolder())[i]!);
        const answer = await c.ask('What is there?', '--focus', 'all', '--wait', 'full');
        assert.deepEqual([answer.answer, answer.stop, answer.coverage.files], [whole.answer, whole.stop, 40]);
        assert.equal(c.log().match(/read again/g)?.length, 4);
        watch?.child.kill('SIGTERM');
        await c.nothingIsLeft();
        assert.equal((await c.ingest()).encoded_tokens, 0);
      }));
  }

  test('a quota: what does not fit is said, the rest is kept and answers', () =>
    withCase(tinyModel, async (c) => {
      manyLines(c, 400);
      // No file may be larger than this: what a file system with a quota, or an old one, says of any write beyond it.
      const through = ['sh', '-c', 'ulimit -f 2048; exec "$@"', 'sh'];
      const failure = failureOf(await c.start(['ingest', '--json'], { through }).ended);
      assert.equal(failure.code, 'store_full');
      const answer = await c.json<Answer>(['ask', 'Where is `many_7` defined?', '--wait', '20'], { through });
      assert.ok(answer.sources.length > 0);
      await eventually('no process is left', () => c.processes().length === 0);
      assert.ok(storedRecords(c.storeFolder()).length > 4);
      // Without it all of them find their place.
      assert.equal((await c.ingest()).files, 400);
      await c.nothingIsLeft();
      assert.equal((await c.ingest()).encoded_tokens, 0);
    }));

  test('a disk that becomes read-only while the engine runs', { skip: isRoot ? false : 'needs root, to mount a disk' }, (t) =>
    withCase(tinyModel, async (c) => {
      if (!c.mountStore('64m')) return t.skip('no disk can be mounted here');
      c.write({ 'a.ts': 'export const a = 1;\n' });
      await c.ingest();
      const running = c.start(['ask', '--json', '-']);
      running.child.stdin!.write('What is a?\n');
      await eventually('an answer', () => running.documents().length === 1, 20_000);
      const folder = c.storeFolder();
      // Files that are open for writing keep a disk from it: they are made read-only one by one, as a failing disk does at once.
      execFileSync('mount', ['--bind', folder, folder]);
      c.afterwardsDo(() => void execFileSync('umount', ['-l', folder]));
      execFileSync('mount', ['-o', 'remount,bind,ro', folder]);
      c.write({ 'a.ts': 'export const AFTER = 2;\n' });
      running.child.stdin!.end('Where is `AFTER` defined?\n');
      const { code, stderr } = await running.ended;
      assert.equal(code, 0, stderr);
      const [, second] = running.documents<Answer>();
      assert.deepEqual([second!.missing, second!.sources[0]?.path], [[], 'a.ts']);
      await eventually('no process is left', () => c.processes().length === 0);
      // The next engine finds it so from the start.
      const failure = failureOf(await c.start(['ask', '--json', 'hi']).ended);
      assert.equal(failure.code, 'store_unwritable');
      assert.match(failure.message, /EROFS/);
    }));

  test('a file of two gigabytes is too large, whatever it holds; one that grows to it too', () =>
    withCase(tinyModel, async (c) => {
      c.write({ 'a.ts': 'export const a = 1;\n', 'grows.ts': 'export const b = 2;\n' });
      const grow = (name: string): void => {
        const file = openSync(c.path(name), 'a');
        ftruncateSync(file, 2 ** 31 + 1);
        closeSync(file);
      };
      grow('huge.ts');
      assert.equal((await c.ingest()).files, 2);
      grow('grows.ts');
      const coverage = await c.coverage();
      assert.deepEqual(statesOf(coverage), { 'a.ts': 'in', 'grows.ts': 'too_large', 'huge.ts': 'too_large' });
      assert.deepEqual(coverage.files.map(({ bytes }) => bytes), [20, 2 ** 31 + 1, 2 ** 31 + 1]);
    }));

  test('names of every byte', () =>
    withCase(tinyModel, async (c) => {
      const bytes = Array.from({ length: 255 }, (_, i) => i + 1).filter((byte) => byte !== 0x2f);
      for (const byte of bytes) {
        const name = Buffer.concat([Buffer.from(`${c.workspace}/n`), Buffer.from([byte]), Buffer.from(`${byte}.ts`)]);
        writeFileSync(name, `export const name_${byte} = ${byte};\n`);
      }
      await c.ingest();
      const { files } = await c.coverage();
      const inMemory = files.filter(({ state }) => state === 'in');
      const refused = files.filter(({ state }) => state === 'unreadable');
      assert.deepEqual([inMemory.length, refused.length], [126, 128]);
      for (const { path: file, detail } of refused) assert.ok(file.includes('\ufffd') && detail === 'its name is not UTF-8', file);
      appendFileSync(c.path('n\n10.ts'), 'export const after = 1;\n');
      assert.ok((await c.ingest()).encoded_tokens > 0);
      assert.equal((await c.ingest()).encoded_tokens, 0);
    }));
});
