// Ranked segments become sources: merged where they touch, best first, the first file first.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { toSources, type RankedRange } from '../../extension/engine/chat/sources';

const range = (path: string, start_line: number, end_line: number, share: number): RankedRange => ({ root: '/w', path, start_line, end_line, share });
const shown = (ranked: RankedRange[], options = {}): string[] =>
  toSources(ranked, options).map(({ path, start_line, end_line, weight }) => `${path}:${start_line}-${end_line} ${weight.toFixed(2)}`);

test('order by share, neighbours merged at the better one’s place', () => {
  assert.deepEqual(shown([range('b', 1, 5, 0.1), range('a', 1, 10, 0.5), range('a', 11, 20, 0.2), range('c', 1, 2, 0.15)]), [
    'a:1-20 0.70',
    'c:1-2 0.15',
    'b:1-5 0.10',
  ]);
  assert.deepEqual(shown([range('b', 1, 5, 0.4), range('a', 1, 10, 0.3), range('a', 11, 20, 0.29)]), ['b:1-5 0.40', 'a:1-20 0.59']);
  assert.deepEqual(shown([range('a', 1, 3, 0.3), range('a', 7, 9, 0.2), range('b', 1, 1, 0.15), range('a', 4, 6, 0.1)]), ['a:1-9 0.60', 'b:1-1 0.15']);
  assert.deepEqual(shown([range('a', 1, 3, 0.3), range('a', 5, 9, 0.2)]), ['a:1-3 0.30', 'a:5-9 0.20'], 'a line between them');
  assert.deepEqual(shown([]), []);
});

test('roots are apart; limit and smallest share', () => {
  assert.equal(toSources([range('a', 1, 3, 0.3), { ...range('a', 4, 5, 0.2), root: '/v' }]).length, 2);
  const many = Array.from({ length: 20 }, (_, i) => range(`f${i}`, 1, 2, 1 / (i + 2)));
  assert.equal(toSources(many, { limit: 3 }).length, 3);
  assert.equal(toSources(many, { limit: 20, minShare: 0.25 }).length, 3);
});

test('every line of the best segments is in exactly one source, shares are kept, the first file stays first', () => {
  const ranked = fc.array(
    fc.record({ path: fc.constantFrom('a', 'b', 'c'), start: fc.nat(30), length: fc.nat(6), share: fc.integer({ min: 1, max: 100 }) }),
    { maxLength: 12 },
  );
  fc.assert(
    fc.property(ranked, (list) => {
      const ranges = list.map(({ path, start, length, share }) => range(path, start + 1, start + 1 + length, share / 2000));
      const sources = toSources(ranges, { limit: 100 });
      for (const { path, start_line, end_line } of ranges) {
        for (let line = start_line; line <= end_line; line++) {
          assert.equal(sources.filter((s) => s.path === path && s.start_line <= line && line <= s.end_line).length, 1);
        }
      }
      const total = (weights: number[]): number => weights.reduce((sum, weight) => sum + weight, 0);
      assert.ok(Math.abs(total(sources.map(({ weight }) => weight)) - total(ranges.map(({ share }) => share))) < 1e-9);
      const best = Math.max(...ranges.map(({ share }) => share));
      if (sources[0]) assert.equal(sources[0].path, ranges.find(({ share }) => share === best)?.path);
    }),
  );
});
