// The native addon at its door, on the tiny model: what it refuses, and that requests, callbacks and engines may end in any order,
// also with their thread or process, without a crash, a hang or a promise that is never settled.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { loadAddon, type NativeEngine, type TailInput } from '../../extension/engine/addon';

const addonFile = path.resolve(process.env['SALA_ADDON'] ?? 'dist/sala.node');
const skip = existsSync(addonFile) ? false : `no native addon in ${addonFile}`;
process.env['SALA_ADDON'] = addonFile;

const modelDir = path.resolve('test/fixtures/tiny');
const prefix = Int32Array.from({ length: 17 }, (_, i) => i + 1);
const none = new Int32Array(0);
const longTail: TailInput = { view: none, startsFrom: 'empty', maxTokens: 20_000 };

const open: NativeEngine[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((engine) => engine.close()));
});

async function load(): Promise<NativeEngine> {
  const engine = await loadAddon().load({ modelDir, activations: 'int8', threads: 2 });
  open.push(engine);
  await engine.setPrefix(prefix);
  return engine;
}

/** Calls the addon as JavaScript may, whatever the types say. */
const untyped = (engine: NativeEngine): any => engine; // eslint-disable-line

const segments = (n: number) =>
  Array.from({ length: n }, (_, i) => ({
    key: i.toString(16).padStart(64, '0'),
    tokens: Int32Array.from({ length: 300 }, (_, t) => (t * 7 + i) % 256),
    headerTokens: 3,
  }));

/** Lines that a program of its own has at hand: an engine with a prefix and a long tail. */
const preamble = `
  const addon = require(${JSON.stringify(addonFile)});
  const load = async () => {
    const engine = await addon.load({ modelDir: ${JSON.stringify(modelDir)}, activations: 'int8', threads: 2 });
    await engine.setPrefix(Int32Array.of(1, 2, 3));
    return engine;
  };
  const longTail = (engine) => engine.createTail({ view: new Int32Array(0), startsFrom: 'empty', maxTokens: 20000 });
`;

function runProgram(body: string, ...flags: string[]) {
  const program = `${preamble} (async () => { ${body} })().catch((error) => { console.error(error); process.exit(9); });`;
  return spawnSync(process.execPath, [...flags, '-e', program], { encoding: 'utf8', timeout: 60_000 });
}

test('wrong arguments are refused, and the engine goes on', { skip }, async () => {
  const engine = await load();
  const e = untyped(engine);
  const tail = engine.createTail(longTail);
  const job = { priority: 'decode', maxTokens: 1, stopIds: none };
  const [segment] = segments(1);
  const wrong: [string, () => unknown][] = [
    ['no prefix', () => e.setPrefix()],
    ['a prefix of another type', () => e.setPrefix([1, 2])],
    ['a prefix of floats', () => e.setPrefix(new Float32Array(2))],
    ['keys that are none', () => e.openSegments('abc')],
    ['a key that is no string', () => e.openSegments([1])],
    ['segments that are none', () => e.encodeSegments({}, 'ingest')],
    ['a segment that is none', () => e.encodeSegments([null], 'ingest')],
    ['a segment without tokens', () => e.encodeSegments([{ ...segment, tokens: [1] }], 'ingest')],
    ['half a header', () => e.encodeSegments([{ ...segment, headerTokens: 0.5 }], 'ingest')],
    ['an unknown priority', () => e.encodeSegments([segment], 'control')],
    ['a callback that is none', () => e.encodeSegments([segment], 'ingest', 7)],
    ['handles of another type', () => e.releaseSegments([1])],
    ['nothing to read', () => e.read()],
    ['a span of one number', () => e.read({ tail: none, span: [0], segments: none, layer: 2, heads: [0], startsFrom: 'prefix' })],
    ['heads that are none', () => e.read({ tail: none, span: [0, 1], segments: none, layer: 2, heads: 1, startsFrom: 'prefix' })],
    ['an unknown start', () => e.createTail({ ...longTail, startsFrom: 'end' })],
    ['a length of 33 bits', () => e.createTail({ ...longTail, maxTokens: 2 ** 32 })],
    ['no length', () => e.createExactTail(1)],
    ['not a number', () => e.forkTail(NaN)],
    ['a tail that is none', () => e.releaseTail('1')],
    ['no options', () => e.prefill(tail, none)],
    ['tokens of another type', () => e.prefill(tail, 'x', { priority: 'prefill' })],
    ['stop ids that are none', () => e.decode(tail, { ...job, stopIds: undefined })],
    ['a callback that is an object', () => e.decode(tail, { ...job, onToken: {} })],
    ['no number of threads', () => e.limitThreads()],
    ['another constructor', () => new e.constructor()],
    ['another this', () => e.memory.call({})],
  ];
  for (const [what, call] of wrong) assert.throws(call, TypeError, what);
  assert.throws(() => engine.openSegments(['abc']), { code: 'invalid_argument' });
  assert.throws(() => loadAddon().load({} as never), TypeError);
  // An exception of the caller's own stays what it is.
  const own = new Error('own');
  const throwing = {
    get priority(): never {
      throw own;
    },
  };
  assert.throws(() => engine.prefill(tail, Int32Array.of(1), throwing), own);
  await engine.prefill(tail, Int32Array.of(1), { priority: 'prefill' }).done;
});

test('failures have the codes of the list', { skip }, async () => {
  const engine = await load();
  const tail = engine.createTail({ ...longTail, maxTokens: 20 });
  const prefill = (n: number, which = tail) => engine.prefill(which, new Int32Array(n).fill(5), { priority: 'prefill' }).done;
  await assert.rejects(prefill(1, 4711), { code: 'invalid_argument' });
  await assert.rejects(prefill(0), { code: 'invalid_argument' });
  await assert.rejects(prefill(30), { code: 'context_full' });
  await assert.rejects(engine.prefill(tail, Int32Array.of(-1), { priority: 'prefill' }).done, { code: 'invalid_argument' });
  await assert.rejects(prefill(1, engine.createTail({ ...longTail, maxTokens: 2 ** 31 - 1 })), { code: 'out_of_memory' });
  await assert.rejects(prefill(1, engine.createExactTail(-5, -5)), { code: 'invalid_argument' });
  await assert.rejects(engine.setPrefix(none), { code: 'invalid_argument' });
  await prefill(1);
  const { addon, ...options } = { addon: loadAddon(), modelDir, activations: 'int8', threads: 1 } as const;
  await assert.rejects(addon.load({ ...options, modelDir: '/nowhere' }), { code: 'model_not_found' });
  await assert.rejects(addon.load({ ...options, threads: 0 }), { code: 'invalid_argument' });
  await assert.rejects(addon.load({ ...options, threads: 1_000_000 }), { code: 'invalid_argument' });
  await assert.rejects(addon.load({ ...options, reading: { layer: 99, heads: [0] } }), { code: 'model_invalid' });
});

test('requests are cancelled before they start and while they run; the next one works', { skip }, async () => {
  const engine = await load();
  const encoding = engine.encodeSegments(segments(40), 'ingest');
  const waiting = engine.encodeSegments(segments(1), 'ingest');
  waiting.cancel();
  await assert.rejects(waiting.done, { code: 'cancelled' });
  encoding.cancel();
  encoding.cancel();
  await assert.rejects(encoding.done, { code: 'cancelled' });
  assert.equal(engine.memory().nSegments, 0);

  const tail = engine.createTail(longTail);
  await engine.prefill(tail, Int32Array.of(1, 2, 3), { priority: 'prefill' }).done;
  const seen: number[] = [];
  const decoding = engine.decode(tail, {
    priority: 'decode',
    maxTokens: 10_000,
    stopIds: none,
    onToken: (id) => {
      seen.push(id);
      if (seen.length === 3) decoding.cancel();
    },
  });
  await assert.rejects(decoding.done, { code: 'cancelled' });
  // Cancelling a decoding leaves its tail whole: it goes on where it was.
  const more = await engine.decode(tail, { priority: 'decode', maxTokens: 4, stopIds: none }).done;
  const again = engine.createTail(longTail);
  await engine.prefill(again, Int32Array.of(1, 2, 3), { priority: 'prefill' }).done;
  const whole = await engine.decode(again, { priority: 'decode', maxTokens: seen.length + 4, stopIds: none }).done;
  assert.deepEqual([...seen, ...more.ids], [...whole.ids]);
  decoding.cancel(); // long done
});

test('a callback that throws harms nobody else', { skip }, () => {
  const { status, stdout, stderr } = runProgram(`
    process.on('uncaughtException', () => {});
    const engine = await load();
    const tail = longTail(engine);
    await engine.prefill(tail, Int32Array.of(1, 2), { priority: 'prefill' }).done;
    let n = 0;
    const { ids } = await engine.decode(tail, { priority: 'decode', maxTokens: 5, stopIds: new Int32Array(0), onToken() {
      n++;
      throw new Error('from the callback');
    } }).done;
    console.log(n, ids.length);
    await engine.close();
  `);
  assert.equal(stdout, '5 5\n', stderr);
  assert.equal(status, 0, stderr);
});

test('close() settles every promise, and what comes after it is refused', { skip }, async () => {
  const engine = await load();
  const tail = engine.createTail(longTail);
  await engine.prefill(tail, Int32Array.of(1, 2, 3), { priority: 'prefill' }).done;
  const decoding = engine.decode(tail, { priority: 'decode', maxTokens: 10_000, stopIds: none, onToken: () => undefined });
  const jobs = [decoding.done, engine.encodeSegments(segments(20), 'ingest', () => undefined).done, engine.openSegments(['0'.repeat(64)])];
  const settled = Promise.allSettled(jobs);
  await Promise.all([engine.close(), engine.close()]);
  for (const result of (await settled).slice(0, 2)) {
    assert.equal(result.status, 'rejected');
    assert.equal((result.reason as { code?: string }).code, 'cancelled');
  }
  decoding.cancel();
  const refused = { code: 'engine_unreachable' };
  assert.throws(() => engine.info, refused);
  assert.throws(() => engine.memory(), refused);
  assert.throws(() => engine.setPrefix(prefix), refused);
  assert.throws(() => engine.prefill(tail, none, { priority: 'prefill' }), refused);
  assert.throws(() => engine.releaseTail(tail), refused);
  await engine.close();
});

test('an argument whose getter closes the engine finds it closed', { skip }, async () => {
  const engine = await load();
  const input: TailInput = {
    ...longTail,
    get maxTokens() {
      void engine.close();
      return 20;
    },
  };
  assert.throws(() => engine.createTail(input), { code: 'engine_unreachable' });
});

test('a process ends by itself after refused calls, and with the engine open', { skip }, () => {
  const refused = runProgram(`
    const engine = await load();
    try { engine.setPrefix('x'); } catch {}
    await engine.close();
    try { engine.setPrefix(Int32Array.of(1)); } catch {}
    try { engine.openSegments(['0'.repeat(64)]); } catch {}
    try { engine.decode(0, { priority: 'decode', maxTokens: 1, stopIds: new Int32Array(0) }); } catch {}
    const open = await load();
    try { open.setPrefix('x'); } catch {}
  `);
  assert.equal(refused.error, undefined);
  assert.equal(refused.status, 0, refused.stderr);
});

test('a process may exit while the engine works', { skip }, () => {
  for (const after of ['setImmediate(() => process.exit(3))', 'setTimeout(() => process.exit(3), 20)', 'process.exit(3)']) {
    const { status, stderr } = runProgram(`
      const engine = await load();
      const tail = longTail(engine);
      engine.prefill(tail, new Int32Array(2000).fill(7), { priority: 'prefill' }).done.catch(() => {});
      engine.decode(tail, { priority: 'decode', maxTokens: 10000, stopIds: new Int32Array(0), onToken() {} }).done.catch(() => {});
      ${after};
    `);
    assert.equal(status, 3, stderr);
  }
});

test('an engine is not collected while a promise of it is open, and is when none is', { skip }, () => {
  const { status, stdout, stderr } = runProgram(
    `
    const collected = new Promise((resolve) => (globalThis.registry = new FinalizationRegistry(resolve)));
    const start = async () => {
      const engine = await load();
      globalThis.registry.register(engine, 'collected');
      const tail = longTail(engine);
      engine.prefill(tail, new Int32Array(1500).fill(7), { priority: 'prefill' }).done.catch(() => {});
      return engine.prefill(tail, Int32Array.of(1), { priority: 'ingest' }).done;
    };
    const done = start();
    const timer = setInterval(() => gc(), 2);
    await done;
    console.log('done');
    console.log(await collected);
    clearInterval(timer);
    `,
    '--expose-gc',
  );
  assert.equal(stdout, 'done\ncollected\n', stderr);
  assert.equal(status, 0, stderr);
});

test('callbacks of requests that nobody holds are freed where they may be', { skip }, () => {
  const { status, stdout, stderr } = runProgram(
    `
    const engine = await load();
    const segments = Array.from({ length: 60 }, (_, i) => ({
      key: i.toString(16).padStart(64, '0'), tokens: new Int32Array(40).fill(i), headerTokens: 1 }));
    const timer = setInterval(() => gc(), 1);
    let n = 0;
    for (const segment of segments) await engine.encodeSegments([segment], 'ingest', () => void n++).done;
    clearInterval(timer);
    console.log(n);
    await engine.close();
    `,
    '--expose-gc',
  );
  assert.equal(stdout, '60\n', stderr);
  assert.equal(status, 0, stderr);
});

// Nothing of ours is shared between environments, so worker threads are as good as the main one, also when they are ended by force.
test('worker threads: engines side by side, ended at any moment', { skip, timeout: 120_000 }, async () => {
  const program = `${preamble}
    const { parentPort } = require('node:worker_threads');
    (async () => {
      parentPort.postMessage('loading');
      const engine = await load();
      const tail = longTail(engine);
      await engine.prefill(tail, Int32Array.of(1, 2, 3), { priority: 'prefill' }).done;
      engine.encodeSegments(Array.from({ length: 30 }, (_, i) => ({
        key: i.toString(16).padStart(64, '0'), tokens: new Int32Array(300).fill(i), headerTokens: 1 })), 'ingest', () => {}).done.catch(() => {});
      engine.decode(tail, { priority: 'decode', maxTokens: 10000, stopIds: new Int32Array(0), onToken(id) { parentPort.postMessage(id); } })
        .done.catch(() => {});
    })();
  `;
  const endings: ((worker: Worker, message: unknown, n: number) => boolean)[] = [
    (_, message) => message === 'loading',
    (_, __, n) => n > 1,
    (_, __, n) => n > 20,
  ];
  for (let round = 0; round < 4; round++) {
    await Promise.all(
      endings.map(async (isTime) => {
        const worker = new Worker(program, { eval: true });
        let n = 0;
        await new Promise<void>((resolve, reject) => {
          worker.on('error', reject);
          worker.on('message', (message) => {
            if (isTime(worker, message, n++)) resolve();
          });
        });
        await worker.terminate();
      }),
    );
  }
  // The main thread's addon is as it was.
  const engine = await load();
  await engine.prefill(engine.createTail(longTail), Int32Array.of(1), { priority: 'prefill' }).done;
});

test('the store: kept, told, and free for the next one when both have let go', { skip }, async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'sala-test-'));
  try {
    const loadStored = async (): Promise<NativeEngine> => {
      const engine = await loadAddon().load({ modelDir, activations: 'int8', threads: 1, store: { dir, identity: 'tiny', maxBytes: 1 << 24 } });
      open.push(engine);
      await engine.setPrefix(prefix);
      return engine;
    };
    const first = await loadStored();
    const store = first.store!;
    await store.commit();
    const { handles, encodedTokens } = await first.encodeSegments(segments(3), 'ingest').done;
    assert.equal(encodedTokens, 900);
    const keys = segments(3).map(({ key }) => key);
    await store.write([
      { table: 'files', key: 'a/é', value: '1' },
      { table: 'files', key: 'a/x', value: '' },
      { table: 'files', key: 'b', value: '2' },
      { table: 'roots', key: '/', value: 'root' },
    ]);
    await store.write([{ table: 'files', key: 'a/x', value: null }]);
    assert.deepEqual(await store.records('files', 'a/'), [['a/é', '1']]);
    assert.deepEqual(await store.records('versions', ''), []);
    const { nSegments, nRecords, bytes, liveBytes } = store.statistics();
    assert.deepEqual([nSegments, nRecords, store.readOnly], [3, 3, undefined]);
    assert.ok(liveBytes > 0 && bytes > liveBytes);
    const second = await loadStored();
    assert.equal(second.store, undefined);
    assert.equal(second.storeFailure?.code, 'store_unwritable');
    // In memory: not removed. Released before: removed.
    assert.deepEqual(await first.removeSegments(keys), { segments: 0, bytes: 0 });
    first.releaseSegments(handles.subarray(0, 1));
    assert.equal((await first.removeSegments(keys)).segments, 1);
    await store.purge();
    assert.equal(await store.compact(), false);
    assert.equal(await store.makeRoom(1 << 20), true);
    assert.equal(await store.makeRoom(1 << 30), false);
    assert.deepEqual(await first.keepSegments(), { neededBytes: 0 });
    for (const [what, call] of [
      ['no table', () => (store as any).records('nothing', '')], // eslint-disable-line
      ['no changes', () => (store as any).write({})], // eslint-disable-line
      ['a value that is none', () => (store as any).write([{ table: 'files', key: 'a', value: 1 }])], // eslint-disable-line
      ['no number', () => (store as any).makeRoom('1')], // eslint-disable-line
      ['another constructor', () => new (store as any).constructor()], // eslint-disable-line
    ] as const) assert.throws(call, TypeError, what);
    await first.close();
    const pending = store.verify();
    store.close();
    assert.equal((await pending).nSegments, 2);
    assert.throws(() => store.statistics(), { code: 'engine_unreachable' });

    // A damaged one is dropped, and told by its address.
    const [name] = readdirSync(dir).filter((file) => file.endsWith('.kv'));
    const file = readFileSync(path.join(dir, name!));
    file[file.indexOf(Buffer.from(keys[1]!, 'hex')) + 200]! ^= 1;
    writeFileSync(path.join(dir, name!), file);
    const third = await loadStored();
    const found = await third.store!.verify();
    assert.deepEqual([found.nSegments, found.nDamaged], [2, 1]);
    assert.match(found.findings.join(), /checksum/);
    assert.match(third.store!.takeFindings().join(), new RegExp(`segment ${keys[1]} dropped`));
    assert.deepEqual(third.store!.takeFindings(), []);
    assert.deepEqual([...(await third.openSegments(keys))].map((handle) => handle >= 0), [false, false, true]);
    assert.deepEqual(await third.store!.records('roots', ''), [['/', 'root']]);
    third.store!.close();
  } finally {
    rmSync(dir, { recursive: true });
  }
});
