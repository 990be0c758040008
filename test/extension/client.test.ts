// A client and its engine process: found or started, shared, cancelled, killed, left. Real processes and sockets; the model is
// fake (fake-engine.ts).

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { spawn } from 'node:child_process';
import { readdirSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { EngineClient, type EngineState } from '../../extension/engine/client';
import { processStart } from '../../extension/engine/election';
import { endpointPath } from '../../extension/engine/endpoint';
import { EngineError } from '../../extension/engine/errors';
import * as messages from '../../extension/engine/messages';
import { bundle, eventually, makeFakeDist, type FakeDist } from './fake-dist';

let fake: FakeDist;
let clients: EngineClient[];
let log: string[];

before(() => {
  fake = makeFakeDist();
});
beforeEach(() => {
  clients = [];
  log = [];
  fake.script({});
});
afterEach(async () => {
  for (const client of clients) client.dispose();
  await eventually('no engine is left', () => fake.engines().length === 0);
  assert.deepEqual(fake.leftovers(), []);
});
after(() => fake.dispose());

function connect(options: { args?: readonly string[]; states?: EngineState[] } = {}): EngineClient {
  const client = new EngineClient({
    dist: fake.dist,
    args: options.args ?? fake.args,
    log: (line) => log.push(line),
    onState: (state) => options.states?.push(state),
  });
  clients.push(client);
  return client;
}

const openParams: messages.OpenParams = {
  roots: [{ path: '/w', name: 'w' }],
  trusted: true,
  settings: { threads: 2 },
  watch: 'none',
  ingest: false,
};
const told = async (client: EngineClient): Promise<string[]> =>
  (await client.request(messages.coverage, { path: 'told' })).map(({ path }) => path);

function failsWith(code: string, message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof EngineError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  };
}

test('starts an engine, asks it, streams its text', async () => {
  const states: EngineState[] = [];
  const client = connect({ states });
  let text = '';
  client.on(messages.askText, (part) => (text += part.text));
  const result = await client.request(messages.ask, { id: 1, question: 'q' });
  assert.equal(result.answer, 'an answer');
  assert.equal(text, 'an answer');
  assert.deepEqual([...new Set(states.map(({ state }) => state))], ['starting', 'ready']);
  assert.ok(states.some((state) => state.state === 'starting' && state.fraction === 0.5), 'loading was shown');
});

test('two clients share one engine, and it stays until the second goes', async () => {
  const [first, second] = [connect(), connect()];
  const pid = (await first.start()).pid;
  assert.equal((await second.start()).pid, pid);
  first.dispose();
  await delay(600);
  assert.deepEqual(fake.engines(), [pid]);
  assert.equal((await second.request(messages.ask, { id: 1, question: 'q' })).answer, 'an answer');
});

test('five clients that start at once end with one engine', async () => {
  fake.script({ loadMs: 200 });
  const pids = await Promise.all(Array.from({ length: 5 }, async () => (await connect().start()).pid));
  assert.equal(new Set(pids).size, 1);
  await eventually('one engine', () => fake.engines().length === 1);
});

test('another kind of activations is another engine', async () => {
  const pids = await Promise.all([connect().start(), connect({ args: [...fake.args, '--activations', 'fp32'] }).start()]);
  assert.notEqual(pids[0]!.pid, pids[1]!.pid);
});

test('errors keep their code; an error without one is internal', async () => {
  const client = connect();
  await assert.rejects(client.request(messages.ask, { id: 1, question: 'refuse' }), failsWith('context_full', /at most 1 token/));
  await assert.rejects(client.request(messages.ask, { id: 2, question: 'bug' }), failsWith('internal', /no code/));
  await assert.rejects(
    client.request(messages.open, { ...openParams, roots: [{ path: 'relative', name: 'r' }] }),
    failsWith('invalid_argument', /open.roots.path: expected an absolute path/),
  );
});

test('cancelling ends a question with what had come', async () => {
  const client = connect();
  await client.start();
  const stop = new AbortController();
  const result = client.request(messages.ask, { id: 1, question: 'long' }, stop.signal);
  setTimeout(() => stop.abort(), 100);
  assert.equal((await result).stop, 'cancelled');
});

test('cancelling while the engine starts', async () => {
  fake.script({ loadMs: 1000 });
  await assert.rejects(connect().request(messages.coverage, {}, AbortSignal.timeout(100)), failsWith('cancelled', /starting/));
});

test('an engine killed with a question in flight: it fails, the next is answered, what was told is told again', async () => {
  const client = connect();
  const { pid } = await client.start();
  await client.request(messages.open, openParams);
  client.notify(messages.settings, { threads: 1 });
  client.notify(messages.document, { path: '/w/a.ts', text: 'x' });
  client.notify(messages.document, { path: '/w/b.ts', text: 'y' });
  client.notify(messages.document, { path: '/w/b.ts', text: null });
  const question = client.request(messages.ask, { id: 1, question: 'long' });
  await delay(50);
  process.kill(pid, 'SIGKILL');
  await assert.rejects(question, failsWith('engine_unreachable', /SIGKILL/));
  assert.equal((await client.request(messages.ask, { id: 2, question: 'q' })).answer, 'an answer');
  assert.deepEqual(await told(client), ['settings {"threads":1}', 'open w {"threads":2}', 'document /w/a.ts x']);
});

test('a pause is told to the next engine, unless somebody else ended it', async () => {
  const states: EngineState[] = [];
  const client = connect({ states });
  let ended = 0;
  client.on(messages.pauseEnded, () => ended++);
  let { pid } = await client.start();
  await client.request(messages.open, openParams);
  const isAnother = (state: EngineState | undefined): boolean => state?.state === 'ready' && state.hello.pid !== pid;
  const afterKill = async (): Promise<string[]> => {
    process.kill(pid, 'SIGKILL');
    await eventually('it reconnects', () => isAnother(states.at(-1)));
    ({ pid } = await client.start());
    return told(client);
  };
  await client.request(messages.pause, { paused: true });
  assert.deepEqual(await afterKill(), ['pause true', 'open w {"threads":2}']);
  // As if another window had asked for it.
  await client.request(messages.pause, { paused: true, everyone: true });
  await eventually('it is told', () => ended === 1);
  assert.deepEqual(await afterKill(), ['open w {"threads":2}']);
});

test('a client that has opened reconnects by itself; another client finds the same engine', async () => {
  const [first, second] = [connect(), connect()];
  const { pid } = await first.start();
  await second.start();
  await first.request(messages.open, openParams);
  process.kill(pid, 'SIGKILL');
  await eventually('reconnected', () => first.state.state === 'ready' && first.state.hello.pid !== pid);
  assert.equal((await second.start()).pid, (await first.start()).pid);
});

test('an idempotent request is sent again, though the next engine dies of it as well', async () => {
  const client = connect();
  const { pid } = await client.start();
  assert.deepEqual(await client.request(messages.coverage, { path: 'crash twice' }), []);
  assert.notEqual((await client.start()).pid, pid);
  assert.equal(log.filter((line) => line.includes('SIGKILL')).length, 2, log.join('\n'));
});

test('an idempotent request that an uncaught error has ended is sent to the next engine', async () => {
  const client = connect();
  const { pid } = await client.start();
  assert.deepEqual(await client.request(messages.coverage, { path: 'fail once' }), []);
  assert.notEqual((await client.start()).pid, pid);
  // What is not safe to repeat fails as before.
  await assert.rejects(client.request(messages.ask, { id: 1, question: 'crash' }), failsWith('internal', /asked to crash/));
});

test('what is to be sent again is not, once it was cancelled or its client is closed', async () => {
  for (const how of ['cancelled', 'closed'] as const) {
    const client = connect();
    await client.start();
    const stop = new AbortController();
    const request = client.request(messages.coverage, { path: 'crash' }, stop.signal);
    const isLost = eventually('it is lost', () => client.state.state === 'stopped');
    const refused = assert.rejects(request, how === 'cancelled' ? failsWith('cancelled', /coverage/) : failsWith('engine_unreachable', /closed/));
    await isLost;
    if (how === 'cancelled') stop.abort();
    else client.dispose();
    await refused;
    assert.deepEqual(fake.engines(), []);
  }
});

test('an idempotent request is sent three times; an engine that dies of it each time is given up after three starts', async () => {
  const client = connect();
  await client.request(messages.open, openParams);
  await assert.rejects(client.request(messages.coverage, { path: 'crash' }), failsWith('engine_unreachable', /3 times in a row.*SIGKILL/));
  await eventually('failed', () => client.state.state === 'failed');
  await assert.rejects(client.request(messages.ask, { id: 1, question: 'q' }), failsWith('engine_unreachable', /3 times in a row/));
  await client.restart();
  assert.equal((await client.request(messages.ask, { id: 1, question: 'q' })).answer, 'an answer');
});

test('an uncaught error answers what is in flight and is logged', async () => {
  const client = connect();
  await assert.rejects(client.request(messages.ask, { id: 1, question: 'crash' }), failsWith('internal', /asked to crash/));
});

test('a model that cannot be loaded: one start, its reason, and the way out', async () => {
  fake.script({ failure: { code: 'model_invalid', message: 'layers.3: expected 4, found 5' } });
  const client = connect();
  await assert.rejects(client.start(), failsWith('model_invalid', /layers.3: expected 4, found 5/));
  assert.equal(client.state.state, 'failed');
  await assert.rejects(client.start(), failsWith('model_invalid', /layers.3/));
  fake.script({});
  await client.restart();
  assert.equal(client.state.state, 'ready');
});

test('an instruction that the processor lacks is named, without another attempt', async () => {
  fake.script({ signal: 'SIGILL' });
  await assert.rejects(connect().start(), failsWith('unsupported', /engine\.cjs.*SIGILL.*instruction/));
});

test('an engine that dies while loading is started three times, with pauses', async () => {
  fake.script({ signal: 'SIGSEGV' });
  const began = performance.now();
  await assert.rejects(connect().start(), failsWith('engine_unreachable', /SIGSEGV/));
  const elapsedMs = performance.now() - began;
  assert.ok(elapsedMs > 2000, `${elapsedMs} ms`);
});

test('a missing model and a missing engine say what was expected', async () => {
  await assert.rejects(connect({ args: ['--model', '/nowhere'] }).start(), failsWith('model_not_found', /\/nowhere/));
  const client = new EngineClient({ dist: '/nowhere', args: fake.args, log: () => {} });
  await assert.rejects(client.start(), failsWith('engine_unreachable', /\/nowhere\/engine\.cjs.*exit code 1/));
});

test('a malformed or oversized message costs its sender only', async () => {
  const client = connect();
  const { store } = await client.start();
  for (const bytes of ['Content-Length: 99999999999\r\n\r\n', 'Content-Length: 3\r\n\r\n{{{', 'x'.repeat(2000), 'Length: 2\r\n\r\n{}']) {
    const socket = net.connect(endpointPath(store, `engine-${messages.protocolVersion}-int8`));
    socket.on('error', () => {}).resume();
    const closed = new Promise((resolve) => socket.on('close', resolve));
    socket.write(bytes);
    await Promise.race([closed, delay(2000).then(() => assert.fail(`still open after ${bytes.slice(0, 30)}`))]);
  }
  assert.equal((await client.request(messages.ask, { id: 1, question: 'q' })).answer, 'an answer');
});

test('the locks of the dead, and of a living process with a reused id, hold nothing', async () => {
  const { store } = await connect().start();
  for (const client of clients) client.dispose();
  await eventually('ended', () => fake.engines().length === 0);
  // This test's own process lives, but started at another time than the lock says.
  writeFileSync(path.join(store, `engine-${messages.protocolVersion}-int8.${process.pid}.1-00000000.lock`), '');
  writeFileSync(path.join(store, `engine-${messages.protocolVersion}-int8.999999.5-00000000.lock`), '');
  writeFileSync(path.join(store, `engine-${messages.protocolVersion}-int8.sock`), '');
  assert.notEqual(processStart(process.pid), '1-00000000');
  await connect().start();
});

test('after kill -9 of its only client the engine ends', async () => {
  const program = path.join(fake.dir, 'holder.cjs');
  bundle('test/extension/fake-holder.ts', program);
  const holder = spawn(process.execPath, [program, fake.dist, ...fake.args], { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise((resolve) => holder.stdout.once('data', resolve));
  assert.equal(fake.engines().length, 1);
  holder.kill('SIGKILL');
  await eventually('the engine ends', () => fake.engines().length === 0, 5000);
});

test('a socket path that is too long is replaced by a short one', async () => {
  const store = path.join(fake.dir, 'x'.repeat(100));
  const args = ['--model', fake.model, '--store', store, '--grace-ms', '300'];
  const [first, second] = [connect({ args }), connect({ args })];
  assert.equal((await first.start()).pid, (await second.start()).pid);
  const where = readdirSync(path.dirname((await first.start()).store), { recursive: true, encoding: 'utf8' });
  assert.ok(where.some((name) => name.endsWith('.where')), where.join());
  for (const client of clients) client.dispose();
  await eventually('ended', () => fake.engines().length === 0);
  const left = readdirSync(store, { recursive: true, encoding: 'utf8' });
  assert.deepEqual(left.filter((name) => /\.(where|sock|lock)$/.test(name)), []);
});
