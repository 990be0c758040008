// `sala export` and `sala import` as a CI machine and a developer use them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { ExportResult, ImportResult } from '../../../extension/engine/messages';
import { eventually, failureOf, tinyModel, withCase } from './support';

test('what one machine has read the other need not read, and gives the same file again', () =>
  withCase(tinyModel, (ci) =>
    withCase(tinyModel, async (c) => {
      for (const each of [ci, c]) each.writeMany(120);
      const pack = path.join(ci.dir, 'w.pack');
      const written = await ci.json<ExportResult>(['export', pack]);
      assert.equal(written.bytes, readFileSync(pack).length);
      assert.deepEqual([written.files, written.segments, written.left_out], [120, 120, []]);
      // From any folder, without a workspace.
      const taken = await c.json<ImportResult>(['import', 'w.pack'], { cwd: ci.dir });
      assert.deepEqual([taken.files, taken.segments, taken.tokens, taken.bytes], [120, 120, written.tokens, written.bytes]);
      await c.nothingIsLeft();
      const read = await c.ingest();
      assert.deepEqual([read.files, read.encoded_tokens], [120, 0]);
      const plain = await c.run('export', 'again.pack');
      assert.match(plain.stdout, /^again\.pack: 120 files, 120 segments, [\d.]+K tokens, \d+ (KB|MB)\n$/);
      assert.ok(readFileSync(pack).equals(readFileSync(c.path('again.pack'))));

      const damaged = readFileSync(pack);
      damaged[Math.floor(damaged.length / 2)]! ^= 1;
      writeFileSync(pack, damaged);
      const again = await c.run('import', pack);
      assert.equal(again.code, 1, again.stderr);
      assert.match(again.stdout, /1 segment left out/);
      assert.match(again.stderr, /^sala: segment [0-9a-f]{64} of d\d\/f\d+\.ts: /m);
      await c.nothingIsLeft();
    }),
  ));

test('a pack that cannot be written or read: exit code 1, the code, and nothing left', () =>
  withCase(tinyModel, async (c) => {
    c.write({ 'a.ts': 'export const a = 1;\n' });
    assert.equal((failureOf(await c.start(['export', '--json', 'none/w.pack']).ended)).code, 'store_unwritable');
    assert.equal((failureOf(await c.start(['import', '--json', 'none.pack']).ended)).code, 'invalid_argument');
    writeFileSync(path.join(c.dir, 'text.pack'), 'a text\n'.repeat(100));
    assert.equal((failureOf(await c.start(['import', '--json', path.join(c.dir, 'text.pack')]).ended)).code, 'store_invalid');
    assert.deepEqual(readdirSync(c.workspace), ['a.ts']);
    await c.nothingIsLeft();
  }));

test('an export is interrupted while it reads: exit code 130, no file', () =>
  withCase(tinyModel, async (c) => {
    c.writeMany(1500);
    const running = c.start(['export', 'w.pack']);
    await eventually('it reads', () => running.stderr().includes('reading'), 30_000);
    running.child.kill('SIGINT');
    assert.equal((await running.ended).code, 130);
    assert.ok(!existsSync(c.path('w.pack')));
    assert.ok(!readdirSync(c.workspace).some((name) => name.startsWith('.sala-export')));
    await c.nothingIsLeft();
  }));
