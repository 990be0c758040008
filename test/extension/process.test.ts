// The engine process from outside, and the parts of its shell: what it leaves behind however it or its clients end, who is elected,
// what comes through the socket. The model is fake (fake-engine.ts).

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import fc from 'fast-check';
import { EngineClient } from '../../extension/engine/client';
import { FrameGuard } from '../../extension/engine/connection';
import { holder, tryElection } from '../../extension/engine/election';
import { EngineError } from '../../extension/engine/errors';
import { LogFile, lastLines } from '../../extension/engine/log-file';
import * as messages from '../../extension/engine/messages';
import { formatEngineArgs, parseEngineArgs, parseSize } from '../../extension/engine/options';
import { bundle, eventually, makeFakeDist, type FakeDist } from './fake-dist';

let fake: FakeDist;
let holderProgram: string;
let temporary: string;

before(() => {
  fake = makeFakeDist();
  holderProgram = path.join(fake.dir, 'holder.cjs');
  bundle('test/extension/fake-holder.ts', holderProgram);
});
after(() => fake.dispose());
beforeEach(() => {
  temporary = mkdtempSync(path.join(os.tmpdir(), 'sala-test-'));
  fake.script({});
});
afterEach(() => rmSync(temporary, { recursive: true, force: true }));

const nothingLeft = async (): Promise<void> => {
  // An engine whose client died before it had connected waits five seconds for another one.
  await eventually('no engine is left', () => fake.engines().length === 0, 10_000);
  await eventually('no file is left', () => fake.leftovers().length === 0, 1000);
};

test('folder and socket are the owner\'s alone; the log holds no text of the workspace', async () => {
  const client = new EngineClient({ dist: fake.dist, args: fake.args, log: () => {} });
  const { store } = await client.start();
  await client.request(messages.ask, { id: 1, question: 'a private question' });
  client.notify(messages.document, { path: '/w/a.ts', text: 'private text' });
  await assert.rejects(client.request(messages.complete, { root: null, path: 'a', text: 'private', offset: 99, trigger: 'explicit' }));
  assert.equal(statSync(store).mode & 0o777, 0o700);
  assert.equal(statSync(path.join(store, `engine-${messages.protocolVersion}-int8.sock`)).mode & 0o777, 0o600);
  client.dispose();
  await nothingLeft();
  const log = readFileSync(path.join(store, 'engine.log'), 'utf8');
  assert.match(log, /started: .*\n.*loaded in \d+ ms\n[^]*ending: the last client is gone\n/);
  assert.doesNotMatch(log, /private/);
});

test('kill -9 of the engine: its client takes away what it left', async () => {
  const client = new EngineClient({ dist: fake.dist, args: fake.args, log: () => {} });
  const { pid } = await client.start();
  assert.equal(fake.leftovers().length, 2, 'socket and lock, while it runs');
  process.kill(pid, 'SIGKILL');
  await nothingLeft();
  client.dispose();
});

test('kill -9 of the client while the engine loads', async () => {
  fake.script({ loadMs: 60_000 });
  const client = spawn(process.execPath, [holderProgram, fake.dist, ...fake.args], { stdio: 'ignore' });
  await eventually('loading', () => fake.engines().length === 1 && fake.leftovers().length === 2);
  client.kill('SIGKILL');
  await nothingLeft();
});

test('a stopped client is not taken for a dead one', async () => {
  const client = spawn(process.execPath, [holderProgram, fake.dist, ...fake.args], { stdio: ['ignore', 'pipe', 'ignore'] });
  await new Promise((resolve) => client.stdout.once('data', resolve));
  client.kill('SIGSTOP');
  await delay(1500);
  assert.equal(fake.engines().length, 1);
  client.kill('SIGKILL');
  await nothingLeft();
});

test('SIGTERM ends it in order', async () => {
  const client = new EngineClient({ dist: fake.dist, args: fake.args, log: () => {} });
  const { pid } = await client.start();
  const question = client.request(messages.ask, { id: 1, question: 'long' });
  process.kill(pid, 'SIGTERM');
  await assert.rejects(question, (error) => error instanceof EngineError && error.code === 'engine_unreachable');
  await nothingLeft();
  client.dispose();
});

test('an engine that nobody connects to ends', async () => {
  spawn(process.execPath, [path.join(fake.dist, 'engine.cjs'), ...fake.args], { stdio: 'ignore', detached: true }).unref();
  await eventually('started', () => fake.engines().length === 1 && fake.leftovers().length === 2);
  await eventually('ended', () => fake.engines().length === 0, 8000);
  assert.deepEqual(fake.leftovers(), []);
});

test('election: one flag at a time, and only a living one counts', () => {
  const first = tryElection(temporary, 'e');
  assert.ok('flag' in first);
  assert.equal(holder(temporary, 'e'), process.pid);
  // Init lives, but the time is not its own; the other has no process.
  writeFileSync(path.join(temporary, 'e.1.0-00000000.lock'), '');
  writeFileSync(path.join(temporary, 'e.999999999.0-00000000.lock'), '');
  writeFileSync(path.join(temporary, 'e.other.lock'), 'not a flag');
  first.flag.lower();
  first.flag.lower();
  assert.equal(holder(temporary, 'e'), undefined);
  const second = tryElection(temporary, 'e');
  assert.ok('flag' in second);
  second.flag.lower();
  assert.deepEqual(readdirSync(temporary), ['e.other.lock']);
});

test('the log keeps to its size, and its last lines are those of one process', () => {
  const log = new LogFile(temporary);
  for (let i = 0; i < 2000; i++) log.write(`${i} ${'x'.repeat(1500)}\nsecond line`);
  const sizes = readdirSync(temporary).map((name) => statSync(path.join(temporary, name)).size);
  assert.equal(sizes.length, 2);
  for (const size of sizes) assert.ok(size <= 1 << 20, String(size));
  log.write('the end');
  assert.deepEqual(lastLines(temporary, process.pid, 1), ['the end']);
  assert.deepEqual(lastLines(temporary, process.pid + 1, 1), []);
});

test('frames pass unchanged however they are cut, up to the limit', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ minLength: 1, maxLength: 40 }), { minLength: 1 }), fc.infiniteStream(fc.integer({ min: 1, max: 50 })), async (bodies, cuts) => {
      const all = Buffer.concat(bodies.flatMap((body) => [Buffer.from(`Content-Length: ${body.length}\r\n\r\n`), body]));
      const guard = new FrameGuard(40);
      const parts: Buffer[] = [];
      guard.on('data', (part: Buffer) => parts.push(part));
      const ended = new Promise((resolve, reject) => guard.on('end', resolve).on('error', reject));
      for (let at = 0; at < all.length; ) {
        const n = cuts.next().value;
        guard.write(all.subarray(at, at + n));
        at += n;
      }
      guard.end();
      await ended;
      assert.deepEqual(Buffer.concat(parts), all);
    }),
    { numRuns: 50 },
  );
  for (const wrong of ['Content-Length: 41\r\n\r\n', 'Content-Length: 0\r\n\r\n', 'Content-Length: -1\r\n\r\n', '\r\n\r\n', 'x'.repeat(1024)]) {
    const guard = new FrameGuard(40);
    const failed = new Promise<Error>((resolve) => guard.on('error', resolve));
    guard.write(wrong);
    assert.match((await failed).message, /^expected a message/);
  }
});

test('arguments of the process are read back as they were written', () => {
  const options = { model: '/m', store: '/s --x', activations: 'fp32', threads: 3, maxMemoryBytes: 5, maxDiskBytes: 2 ** 40, graceMs: 1, reportFd: 3 } as const;
  assert.deepEqual(parseEngineArgs(formatEngineArgs(options)), options);
  assert.deepEqual(parseEngineArgs([]), { activations: 'int8', graceMs: 3000 });
  for (const args of [['--threads', 'x'], ['--activations', 'int4'], ['--max-disk', 'big'], ['--unknown'], ['word']]) {
    assert.throws(() => parseEngineArgs(args), (error) => error instanceof EngineError && error.code === 'invalid_argument');
  }
});

test('sizes', () => {
  assert.deepEqual(
    ['200MB', '1.5 GiB', '4096', '2g', '1k', '0', '', '-1', 'MB', '1e3', '9999999T'].map(parseSize),
    [200 * 2 ** 20, 1.5 * 2 ** 30, 4096, 2 ** 31, 1024, 0, undefined, undefined, undefined, undefined, undefined],
  );
});
