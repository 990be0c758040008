// The thread: the same segments as without it, failures with their code, and another thread in place of one that died. Runs the
// bundle in dist/, as the engine does.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { assetPath } from '../../extension/engine/assets';
import { createCutter } from '../../extension/engine/tokenizer-worker';
import { grammarFor } from '../../extension/engine/workspace/grammars';
import { cutFile } from '../../extension/engine/workspace/segmenter';
import { embeddedModel } from './model';

const script = assetPath('tokenizer-worker.cjs');
const skip = existsSync(script) ? false : `${script} is not there: build first`;

test('segments are those of the segmenter, the bytes stay with the caller', { skip }, async () => {
  const { folder, tokenizer } = await embeddedModel();
  const cutter = await createCutter(folder.dir);
  const files = ['a.ts', 'b.py', 'c.md', 'd.txt', 'a.ts'].map((file, i) => ({
    file,
    bytes: Buffer.from(`def f${i}():\n    return ${i} # 設定\n\n\n`.repeat(100)),
  }));
  const all = await Promise.all(files.map(({ file, bytes }) => cutter.cut(file, bytes)));
  for (const [i, { file, bytes }] of files.entries()) {
    const expected = cutFile(file, bytes, { tokenizer, segment: folder.sala.segment, grammar: await grammarFor(file) });
    assert.ok(expected.length > 1);
    assert.deepEqual(all[i], expected);
  }
  await assert.rejects(cutter.cut('a.ts', Uint8Array.of(0xff)), { code: 'internal' });
  assert.deepEqual(await cutter.cut('a.ts', new Uint8Array()), [], 'a failure does not end the thread');
  const pending = assert.rejects(cutter.cut('a.ts', files[0]!.bytes), { code: 'cancelled' });
  await cutter.close();
  await pending;
  await assert.rejects(cutter.cut('a.ts', files[0]!.bytes), { code: 'cancelled' });
});

test('text that its parser cannot get through is cut by its layout, and what follows is parsed as ever', { skip }, async () => {
  const { folder, tokenizer } = await embeddedModel();
  const cutter = await createCutter(folder.dir);
  const nonsense = Buffer.from('/*\n'.repeat(20_000));
  const source = Buffer.from(Array.from({ length: 60 }, (_, i) => `def f${i}():\n    a = ${i}\n\n    return a\n`).join(''));
  const [first, second, third] = await Promise.all([cutter.cut('a.py', nonsense), cutter.cut('b.py', source), cutter.cut('a.py', nonsense)]);
  assert.deepEqual(first, cutFile('a.py', nonsense, { tokenizer, segment: folder.sala.segment, grammar: null }));
  assert.deepEqual(second, cutFile('b.py', source, { tokenizer, segment: folder.sala.segment, grammar: await grammarFor('b.py') }));
  assert.deepEqual(third, first);
  await cutter.close();
});

test('a model that cannot be used is named when the thread starts', { skip }, async () => {
  await assert.rejects(createCutter('/nowhere'), { code: 'model_not_found' });
});

test('a thread that died is replaced at the next request', async () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'sala-worker-'));
  try {
    const dying = path.join(dir, 'dying.cjs');
    writeFileSync(
      dying,
      `const { parentPort: port } = require('node:worker_threads');
       port.postMessage({ type: 'ready' });
       port.on('message', ({ id, path }) => {
         if (path === 'die') process.exit(3);
         if (path === 'throw') throw new Error('boom');
         port.postMessage({ type: 'segments', id, segments: [] });
       });`,
    );
    const cutter = await createCutter(dir, dying);
    const bytes = new Uint8Array(1);
    await assert.rejects(cutter.cut('die', bytes), { code: 'internal', message: /ended with code 3/ });
    assert.deepEqual(await cutter.cut('fine', bytes), []);
    // Only what the thread was at is lost.
    const results = await Promise.allSettled(['fine', 'throw', 'fine', 'die', 'fine'].map((path) => cutter.cut(path, bytes)));
    assert.deepEqual(results.map(({ status }) => status), ['fulfilled', 'rejected', 'fulfilled', 'rejected', 'fulfilled']);
    assert.match(String((results[1] as PromiseRejectedResult).reason), /boom/);
    await cutter.close();
  } finally {
    rmSync(dir, { recursive: true });
  }
});
