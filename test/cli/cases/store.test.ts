// One store under many commands at once, killed, full, unwritable, stale: whoever writes it and however that ends, the next command
// works, and nothing but the store is left.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync, chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { protocolVersion, type IngestResult } from '../../../extension/engine/messages';
import { readModelFolder } from '../../../extension/engine/model-folder';
import { asNobody, delay, eventually, failureOf, isRoot, segmentFiles, storedRecords, tinyModel, withCase, type Answer, type Case } from './support';

const addonFile = path.resolve(process.env['SALA_ADDON'] ?? path.join(process.env['SALA_DIST'] ?? 'dist', 'sala.node'));

/** Bytes of all segments: the same whoever wrote them. */
const contentOf = (c: Case): string[] =>
  [...new Map(storedRecords(c.storeFolder()).map(({ key, bytes }) => [key, digest(bytes)]))].map(([key, sum]) => `${key} ${sum}`).sort();

/** The files of a kind in the store: CURRENT, MANIFEST, wal. */
const filesOf = (c: Case, kind: string): string[] =>
  readdirSync(c.storeFolder()).filter((name) => name === kind || name.startsWith(`${kind}-`)).map((name) => path.join(c.storeFolder(), name));

function flip(file: string, at: number): void {
  const bytes = readFileSync(file);
  bytes[at]! ^= 0x40;
  writeFileSync(file, bytes);
}

interface Doctor {
  readonly checks: readonly { name: string; ok: boolean; detail: string }[];
}

/** What `sala doctor --verify` says of the store. */
async function verified(c: Case): Promise<Doctor['checks'][number]> {
  const { code, stdout, stderr } = await c.start(['doctor', '--json', '--verify']).ended;
  const { checks } = JSON.parse(stdout) as Doctor;
  const found = checks.find(({ name }) => name === 'contents');
  assert.ok(found, stdout + stderr);
  assert.equal(code, checks.every(({ ok }) => ok) ? 0 : 1);
  return found;
}

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
        for (const each of [alone, c]) each.writeMany(1500);
        const running = c.start(['ingest', '--json']);
        const engine = await c.engine();
        await eventually('some of it is kept', () => existsSync(c.store) && countSegments(c) > 20 && hasCommitted(c), 20_000);
        process.kill(engine, 'SIGKILL');
        const { code, signal, stderr } = await running.ended;
        assert.equal(signal, null);
        assert.equal(code, 1, stderr);
        assert.match(stderr, /engine_unreachable/);
        await eventually('it is gone', () => c.processes().length === 0);
        assert.ok(countSegments(c) < 1500, 'it was over before it was killed');
        const again = await c.ingest();
        assert.equal(again.files, 1500);
        assert.ok(again.reused_tokens > 0 && again.encoded_tokens < again.tokens, JSON.stringify(again));
        await c.nothingIsLeft();
        await alone.ingest();
        assert.deepEqual(contentOf(c), contentOf(alone));
      }),
    ));

  test('flags of the dead and of living strangers hold nothing', { timeout: 60_000 }, () =>
    withCase(tinyModel, async (c) => {
      c.write({ 'a.ts': 'export const a = 1;\n' });
      await c.ingest();
      await c.nothingIsLeft();
      const folder = c.storeFolder();
      // A process of another start time, one that is gone, a socket that nobody listens at, and a half-written temporary file.
      const stranger = process.pid;
      for (const name of [`engine-${protocolVersion}-int8.${stranger}.12345-abcdef01.lock`, `engine-${protocolVersion}-int8.999999.1-abcdef01.lock`]) writeFileSync(path.join(folder, name), '');
      writeFileSync(path.join(folder, `engine-${protocolVersion}-int8.sock`), '');
      for (const name of ['CURRENT.tmp', 'MANIFEST-9000', 'wal-9001', 'seg-9002.kv']) writeFileSync(path.join(folder, name), 'half');
      assert.equal((await c.ingest()).files, 1);
      await c.nothingIsLeft();
    }));

  test('whatever is damaged is read again, with a word in the log only', () =>
    withCase(tinyModel, async (c) => {
      c.writeMany(40);
      await c.ingest();
      const before = contentOf(c);
      await c.nothingIsLeft();
      const last = (file: string): number => statSync(file).size - 1;
      const damages: Record<string, () => void> = {
        'a segment within': () => {
          const { file, offset, bytes } = storedRecords(c.storeFolder())[7]!;
          flip(file, offset + (bytes.length >> 1));
        },
        'the header of a segment file': () => flip(segmentFiles(c.storeFolder())[0]!, 3),
        'a segment file cut short': () => {
          const { file, offset } = storedRecords(c.storeFolder())[11]!;
          truncateSync(file, offset + 100);
        },
        'a segment file with more behind it': () => appendFileSync(segmentFiles(c.storeFolder())[0]!, 'more'),
        'a segment file gone': () => rmSync(segmentFiles(c.storeFolder())[0]!),
        'a segment file empty': () => truncateSync(segmentFiles(c.storeFolder())[0]!, 0),
        'the log in the middle': () => filesOf(c, 'wal').forEach((file) => flip(file, last(file) >> 1)),
        'the log cut short': () => filesOf(c, 'wal').forEach((file) => truncateSync(file, last(file))),
        'the log gone': () => filesOf(c, 'wal').forEach((file) => rmSync(file)),
        'the MANIFEST': () => filesOf(c, 'MANIFEST').forEach((file) => flip(file, last(file))),
        'CURRENT': () => filesOf(c, 'CURRENT').forEach((file) => writeFileSync(file, 'null')),
        'CURRENT gone': () => filesOf(c, 'CURRENT').forEach((file) => rmSync(file)),
      };
      // Two at a time, one of segments and one of what tells of them.
      const kinds = Object.keys(damages), half = kinds.length / 2;
      for (const [i, first] of kinds.slice(0, half).entries()) {
        const what = `${first}, ${kinds[half + i]!}`;
        for (const kind of [first, kinds[half + i]!]) damages[kind]!();
        // Keys and values are looked at when they come into view.
        const answer = await c.ask('What is there?', '--focus', 'all', '--wait', 'full');
        assert.deepEqual([answer.coverage.files, answer.stop === 'cancelled'], [40, false], what);
        await c.nothingIsLeft();
        assert.deepEqual(contentOf(c), before, what);
      }
    }));

  test('doctor --verify finds a damaged byte anywhere, drops what has it, and is content then', () =>
    withCase(tinyModel, async (c) => {
      c.writeMany(40);
      await c.ingest();
      await c.nothingIsLeft();
      const sound = await verified(c);
      assert.ok(sound.ok && /40 segments/.test(sound.detail), sound.detail);
      await c.nothingIsLeft();
      const records = storedRecords(c.storeFolder());
      for (const { file, offset, bytes, key } of [records[3]!, records[20]!]) {
        flip(file, offset + bytes.length - 1);
        // Beside it a running engine that has it in memory: it is the one that looks.
        const watch = key === records[20]!.key ? await c.watch() : undefined;
        const found = await verified(c);
        assert.ok(!found.ok && /1 segment damaged and dropped/.test(found.detail) && found.detail.includes(key), found.detail);
        assert.ok((await verified(c)).ok);
        watch?.child.kill('SIGTERM');
        await watch?.ended;
        await c.nothingIsLeft();
        assert.equal((await c.ingest()).files, 40);
        await c.nothingIsLeft();
      }
      assert.equal((await c.ingest()).encoded_tokens, 0);
      await c.nothingIsLeft();
      flip(filesOf(c, 'MANIFEST')[0]!, 40);
      const found = await verified(c);
      assert.ok(!found.ok && /MANIFEST/.test(found.detail), found.detail);
    }));

  test('a store of a later version is left alone, and said; what an earlier one kept is removed', () =>
    withCase(tinyModel, async (c) => {
      c.write({ 'a.ts': 'export const a = 1;\n' });
      mkdirSync(c.store);
      await c.ingest();
      await c.nothingIsLeft();
      const folder = c.storeFolder();
      for (const name of ['segments/ab', 'manifests']) mkdirSync(path.join(folder, name), { recursive: true });
      writeFileSync(path.join(folder, 'segments/ab', `${'ab'.repeat(32)}.seg`), 'old');
      assert.equal((await c.ingest()).encoded_tokens, 0);
      await c.nothingIsLeft();
      assert.ok(!existsSync(path.join(folder, 'segments')) && !existsSync(path.join(folder, 'manifests')));
      assert.equal(c.log().match(/an earlier version kept was removed/g)?.length, 1);
      // The version is the second word of a prefix with a checksum of its own (store_format.h).
      const manifest = filesOf(c, 'MANIFEST')[0]!;
      const bytes = readFileSync(manifest);
      bytes.writeUInt32LE(99, 8);
      bytes.writeUInt32LE(crc32c(bytes.subarray(0, 12)), 12);
      writeFileSync(manifest, bytes);
      const { code, stderr } = await c.start(['ask', 'What is a?']).ended;
      assert.equal(code, 0, stderr);
      assert.match(stderr, /what is read is not kept, because the store cannot be used: .*99/);
      assert.match(c.log(), /store_newer/);
      const found = await verified(c);
      assert.ok(!found.ok && /99/.test(found.detail), found.detail);
      await c.nothingIsLeft();
      assert.deepEqual(readFileSync(manifest), bytes);
    }));

  test('two engines for one store: the second keeps nothing, says so, and answers', () =>
    withCase(tinyModel, async (c) => {
      c.writeMany(20);
      await c.ingest();
      await c.nothingIsLeft();
      // As an engine of another version would hold it, whose socket this one does not know.
      const other = path.join(c.dir, 'holder.cjs');
      const options = {
        modelDir: tinyModel,
        activations: 'int8',
        threads: 1,
        store: { dir: c.storeFolder(), identity: path.basename(c.storeFolder()) },
        reading: (await readModelFolder(tinyModel)).sala.read,
      };
      writeFileSync(
        other,
        `require(${JSON.stringify(addonFile)}).load(${JSON.stringify(options)}).then((engine) => {
          console.log(engine.store ? 'held' : engine.storeFailure.message);
          setInterval(() => engine.store, 1000);
        });`,
      );
      const holder = spawn(process.execPath, [other], { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, SALA_CASE: c.dir } });
      const said = new Promise<string>((resolve) => holder.stdout.on('data', (data) => resolve(String(data).trim())));
      assert.equal(await said, 'held');
      const before = contentOf(c);
      const { code, stderr } = await c.start(['ask', 'Where is `v7` defined?', '--wait', 'full']).ended;
      assert.equal(code, 0, stderr);
      assert.match(stderr, /what is read is not kept/);
      assert.deepEqual(contentOf(c), before);
      holder.kill('SIGKILL');
      await c.nothingIsLeft();
      assert.equal((await c.ingest()).encoded_tokens, 0);
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
      execFileSync('chown', ['0', c.storeFolder()]);
      c.write({ 'b.ts': 'export const B_AFTER = 2;\n' });
      running.child.stdin!.end('Where is `a` defined?\n');
      const { code, stderr } = await running.ended;
      assert.equal(code, 0, stderr);
      assert.equal(running.documents<Answer>().length, 2);
      execFileSync('chmod', ['-R', 'u+w', c.store]);
    }));

  test('a full disk', { skip: isRoot ? false : 'needs root, to mount a small disk' }, async (t) =>
    withCase(tinyModel, async (c) => {
      if (!c.mountStore('1m')) return t.skip('no disk can be mounted here');
      c.write(Object.fromEntries(Array.from({ length: 400 }, (_, i) => [`f${i}.ts`, `export const many_${i} = [${'12, '.repeat(60)}${i}];\n`])));
      const failure = failureOf(await c.start(['ingest', '--json']).ended);
      assert.equal(failure.code, 'store_full');
      const answer = await c.ask('Where is `many_7` defined?', '--wait', '20');
      assert.deepEqual(answer.missing, []);
      assert.ok(answer.sources.length > 0);
      await eventually('no process is left', () => c.processes().length === 0);
      // What was added before it was full is kept: the next engine finds it.
      const { stdout } = await c.start(['ingest', '--json']).ended;
      assert.match(stdout, /store_full/);
      assert.match(c.log(), /store_full/);
      const kept = await c.json<{ files: { state: string }[] }>(['coverage']);
      const nKept = kept.files.filter(({ state }) => state === 'in').length;
      assert.ok(nKept >= 4, `${nKept} files`);
      await eventually('no process is left', () => c.processes().length === 0);
      assert.deepEqual(c.leftovers(), []);
    }));
});

function countSegments(c: Case): number {
  try {
    return storedRecords(c.storeFolder()).length;
  } catch {
    return 0;
  }
}

/** Something is in the log behind its header. */
const hasCommitted = (c: Case): boolean => filesOf(c, 'wal').some((file) => statSync(file).size > 200);

/** By its definition: polynomial 0x1EDC6F41, reflected. */
function crc32c(bytes: Buffer): number {
  let sum = 0xffffffff;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = sum & 1 ? (sum >>> 1) ^ 0x82f63b78 : sum >>> 1;
  }
  return ~sum >>> 0;
}
