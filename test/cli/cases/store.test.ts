// One store under many commands at once, killed, full, unwritable, stale: whoever writes it and however that ends, the next command
// works, and nothing but the store is left.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync, chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { protocolVersion, type IngestResult } from '../../../extension/engine/messages';
import { asNobody, delay, eventually, failureOf, isRoot, statesOf, tinyModel, withCase, type Answer, type Case } from './support';

const storeFolder = (c: Case): string => path.join(c.store, readdirSync(c.store).find((name) => /^[0-9a-f]{64}$/.test(name))!);

function segmentFiles(c: Case): string[] {
  const folder = path.join(storeFolder(c), 'segments');
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.seg')).map((name) => path.join(folder, name)).sort();
}

/** Bytes of all segments: the same whoever wrote them. */
const contentOf = (c: Case): string[] => segmentFiles(c).map((file) => `${path.basename(file)} ${digest(readFileSync(file))}`);

const digest = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex').slice(0, 16);

describe('one store', { concurrency: 5 }, () => {
  test('two ingests at once, then five', () =>
    withCase(tinyModel, (alone) =>
      withCase(tinyModel, async (c) => {
        for (const each of [alone, c]) each.writeMany(300);
        await alone.ingest();
        for (const n of [2, 5]) {
          const results = await Promise.all(Array.from({ length: n }, () => c.ingest()));
          for (const { files } of results) assert.equal(files, 300);
          await c.nothingIsLeft();
          if (n === 2) c.write(Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`new/${i}.ts`, `export const n${i} = ${i};\n`])));
          if (n === 2) break;
        }
        assert.deepEqual(contentOf(c), contentOf(alone));
        rmSync(c.path('new'), { recursive: true });
        const five = await Promise.all(Array.from({ length: 5 }, () => c.start(['ingest', '--json']).ended));
        for (const { code, stderr, stdout } of five) {
          assert.equal(code, 0, stderr);
          assert.equal((JSON.parse(stdout) as IngestResult).encoded_tokens, 0);
        }
        await c.nothingIsLeft();
      }),
    ));

  test('an ask while a watch runs; both see what changes', () =>
    withCase(tinyModel, async (c) => {
      c.writeMany(60);
      const watch = await c.watch();
      const one = await c.ask('Where is `v7` defined?', '--wait', 'full');
      assert.equal(one.coverage.files, 60);
      c.write({ 'added.ts': 'export const ADDED_LATER = 1;\n' });
      const two = await c.ask('Where is `ADDED_LATER` defined?', '--wait', 'full');
      assert.deepEqual(two.missing, []);
      assert.equal(two.coverage.files, 61);
      await eventually('the watch sees it', () => watch.documents<IngestResult>().at(-1)!.files === 61);
      assert.equal(c.processes('engines').length, 1);
      watch.child.kill('SIGTERM');
      assert.equal((await watch.ended).code, 143);
      await c.nothingIsLeft();
    }));

  test('the writer is killed in the middle: the next one goes on from what was kept', () =>
    withCase(tinyModel, (alone) =>
      withCase(tinyModel, async (c) => {
        for (const each of [alone, c]) each.writeMany(400);
        const running = c.start(['ingest', '--json']);
        const engine = await c.engine();
        await eventually('some of it is kept', () => existsSync(c.store) && countSegments(c) > 20, 20_000);
        process.kill(engine, 'SIGKILL');
        const { code, signal, stderr } = await running.ended;
        assert.equal(signal, null);
        assert.equal(code, 1, stderr);
        assert.match(stderr, /engine_unreachable/);
        await eventually('it is gone', () => c.processes().length === 0);
        const kept = countSegments(c);
        assert.ok(kept < 400, 'it was over before it was killed');
        const again = await c.ingest();
        assert.equal(again.files, 400);
        assert.ok(again.reused_tokens > 0 && again.encoded_tokens < again.tokens, JSON.stringify(again));
        await c.nothingIsLeft();
        await alone.ingest();
        assert.deepEqual(contentOf(c), contentOf(alone));
      }),
    ));

  test('flags of the dead and of living strangers hold nothing', () =>
    withCase(tinyModel, async (c) => {
      c.write({ 'a.ts': 'export const a = 1;\n' });
      await c.ingest();
      await c.nothingIsLeft();
      const folder = storeFolder(c);
      // A process of another start time, one that is gone, a socket that nobody listens at, and a half-written temporary file.
      const stranger = process.pid;
      for (const name of [`engine-${protocolVersion}-int8.${stranger}.12345-abcdef01.lock`, `engine-${protocolVersion}-int8.999999.1-abcdef01.lock`]) writeFileSync(path.join(folder, name), '');
      writeFileSync(path.join(folder, `engine-${protocolVersion}-int8.sock`), '');
      mkdirSync(path.join(folder, 'segments', 'ab'), { recursive: true });
      writeFileSync(path.join(folder, 'segments', 'ab', 'half.tmp'), 'half');
      const began = performance.now();
      assert.equal((await c.ingest()).files, 1);
      assert.ok(performance.now() - began < 5000);
      await c.nothingIsLeft();
    }));

  test('damaged segments and manifests are encoded again, with a word in the log only', () =>
    withCase(tinyModel, async (c) => {
      c.writeMany(40);
      await c.ingest();
      const before = contentOf(c);
      await c.nothingIsLeft();
      const [first, second, third] = segmentFiles(c) as [string, string, string];
      truncateSync(first, 100);
      const bytes = readFileSync(second);
      bytes[bytes.length >> 1]! ^= 0x40;
      writeFileSync(second, bytes);
      appendFileSync(third, 'more');
      const manifests = path.join(storeFolder(c), 'manifests');
      for (const round of ['as it is', '{"format":2', 'null', '[]']) {
        if (round !== 'as it is') for (const name of readdirSync(manifests)) writeFileSync(path.join(manifests, name), round);
        assert.equal((await c.ingest()).files, 40);
        // Keys and values are looked at when they come into view.
        assert.equal((await c.ask('What is there?', '--focus', 'all', '--wait', 'full')).stop === 'cancelled', false);
        assert.ok(Object.values(statesOf(await c.coverage())).every((state) => state === 'in'));
        assert.deepEqual(contentOf(c), before);
        await eventually('no process is left', () => c.processes().length === 0);
      }
    }));

  test('stopped for five seconds while it writes: nothing is lost, nobody is restarted', () =>
    withCase(tinyModel, async (c) => {
      c.writeMany(300);
      const running = c.start(['ingest', '--json']);
      const engine = await c.engine();
      await eventually('it writes', () => existsSync(c.store) && countSegments(c) > 5, 20_000);
      process.kill(engine, 'SIGSTOP');
      await delay(5000);
      process.kill(engine, 'SIGCONT');
      const { code, stdout, stderr } = await running.ended;
      assert.equal(code, 0, stderr);
      assert.equal((JSON.parse(stdout) as IngestResult).files, 300);
      await c.nothingIsLeft();
    }));

  test('a place that cannot be written', { skip: isRoot ? false : 'needs root, to become another user' }, () =>
    withCase(tinyModel, async (c) => {
      c.write({ 'a.ts': 'export const a = 1;\n' });
      const through = asNobody(c);
      const closed = path.join(c.dir, 'closed');
      mkdirSync(closed, { mode: 0o755 });
      const failure = failureOf(await c.start(['ask', '--json', '--store', path.join(closed, 's'), 'hi'], { through }).ended);
      assert.equal(failure.code, 'store_unwritable');
      assert.ok(failure.message.includes(closed), failure.message);
      // It becomes so while the engine runs: what is in memory still answers.
      c.store === path.join(c.dir, 'store') && mkdirSync(c.store, { mode: 0o777 });
      chmodSync(c.store, 0o777);
      await c.json(['ingest'], { through });
      const running = c.start(['ask', '--json', '-'], { through });
      running.child.stdin!.write('What is a?\n');
      await eventually('an answer', () => running.documents().length === 1, 20_000);
      execFileSync('chmod', ['-R', 'a-w', c.store]);
      execFileSync('chown', ['-R', '0', path.join(storeFolder(c), 'segments'), path.join(storeFolder(c), 'manifests')]);
      c.write({ 'b.ts': 'export const B_AFTER = 2;\n' });
      running.child.stdin!.end('Where is `a` defined?\n');
      const { code, stderr } = await running.ended;
      assert.equal(code, 0, stderr);
      assert.equal(running.documents<Answer>().length, 2);
      execFileSync('chmod', ['-R', 'u+w', c.store]);
    }));

  test('a full disk', { skip: isRoot ? false : 'needs root, to mount a small disk' }, async (t) =>
    withCase(tinyModel, async (c) => {
      mkdirSync(c.store);
      try {
        execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', c.store], { stdio: 'ignore' });
      } catch {
        t.skip('no disk can be mounted here');
        return;
      }
      c.afterwardsDo(() => void execFileSync('umount', ['-l', c.store]));
      c.write(Object.fromEntries(Array.from({ length: 400 }, (_, i) => [`f${i}.ts`, `export const many_${i} = [${'12, '.repeat(60)}${i}];\n`])));
      const failure = failureOf(await c.start(['ingest', '--json']).ended);
      assert.equal(failure.code, 'store_full');
      const answer = await c.ask('Where is `many_7` defined?', '--wait', '20');
      assert.deepEqual(answer.missing, []);
      assert.ok(answer.sources.length > 0);
      await eventually('no process is left', () => c.processes().length === 0);
      assert.ok(segmentFiles(c).length > 0);
      const sizes = segmentFiles(c).map((file) => statSync(file).size);
      assert.ok(sizes.every((size) => size > 0));
      assert.deepEqual(c.leftovers(), []);
    }));
});

function countSegments(c: Case): number {
  try {
    return segmentFiles(c).length;
  } catch {
    return 0;
  }
}
