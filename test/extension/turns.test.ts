// Long work that leaves the thread to others: what comes out is the same, and nobody waits for all of it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { sortedInTurns } from '../../extension/engine/turns';
import { turnsOfOthers } from './others';

const byKey = (a: { key: number }, b: { key: number }): number => a.key - b.key;

test('sorted in turns is sorted, equals in the order in which they came', async () => {
  const lengths = fc.oneof(fc.integer({ min: 0, max: 50 }), fc.constantFrom(4095, 4096, 4097, 8193, 20_000));
  await fc.assert(
    fc.asyncProperty(lengths, fc.integer({ min: 1, max: 1000 }), fc.integer(), async (length, keys, seed) => {
      let state = seed >>> 0;
      const next = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0);
      const items = Array.from({ length }, (_, i) => ({ key: (next() >>> 8) % keys, i }));
      const before = [...items];
      assert.deepEqual(await sortedInTurns(items, byKey), items.toSorted(byKey));
      assert.deepEqual(items, before);
    }),
    { numRuns: 60 },
  );
});

test('others have their turn while much is sorted', async () => {
  const turns = await turnsOfOthers(() => sortedInTurns(Array.from({ length: 100_000 }, (_, i) => ({ key: -i })), byKey));
  assert.ok(turns > 100, `${turns} turns`);
});
