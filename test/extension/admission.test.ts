// Membership depends on files and budget alone; the reading order on everything else, and changes no membership.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { admissionOrder, admit, readingOrder, type Candidate } from '../../extension/engine/workspace/admission';

const file = (path: string, fileClass: Candidate['class'], tokens: number, root = '/w'): Candidate & { root: string } => ({ root, path, class: fileClass, tokens });
const paths = (files: readonly Candidate[]): string[] => files.map(({ path }) => path);

test('code, documents, data, each by path, until the budget is full', () => {
  const files = [file('z.csv', 'data', 1), file('b.ts', 'code', 40), file('a.md', 'doc', 30), file('a.ts', 'code', 20), file('0.json', 'doc', 5)];
  assert.deepEqual(paths(admit(files, 1000).admitted), ['a.ts', 'b.ts', '0.json', 'a.md', 'z.csv']);
  const tight = admit(files, 90);
  assert.deepEqual([paths(tight.admitted), paths(tight.over), tight.tokens], [['a.ts', 'b.ts', '0.json'], ['a.md', 'z.csv'], 65]);
  assert.deepEqual(paths(admit(files, 95).admitted), ['a.ts', 'b.ts', '0.json', 'a.md'], 'exactly full');
  assert.deepEqual(paths(admit(files, 19).admitted), []);
});

const candidate = fc.record({
  root: fc.constantFrom('/a', '/b'),
  path: fc.stringMatching(/^[a-c]{1,2}(\/[a-c])?\.x$/),
  class: fc.constantFrom<Candidate['class']>('code', 'doc', 'data'),
  tokens: fc.nat(50),
});
const candidates = fc.uniqueArray(candidate, { selector: ({ root, path }) => root + path, maxLength: 25 });

test('order of discovery does not matter, a larger budget only adds, every file is on one side', () => {
  fc.assert(
    fc.property(candidates, fc.nat(600), fc.nat(200), fc.integer(), (files, budget, more, seed) => {
      const shuffled = [...files].sort((a, b) => Math.sin(seed + a.path.length * 7 + a.tokens) - Math.sin(seed + b.path.length * 7 + b.tokens));
      const admission = admit(files, budget);
      assert.deepEqual(admit(shuffled, budget), admission);
      assert.ok(admission.tokens <= budget);
      assert.deepEqual([...admission.admitted, ...admission.over], [...files].sort(admissionOrder));
      const larger = admit(files, budget + more).admitted;
      assert.deepEqual(larger.slice(0, admission.admitted.length), admission.admitted);
    }),
  );
});

test('changed files first, then recent ones, then the rest, nothing twice and nothing lost', () => {
  assert.deepEqual(readingOrder(['a', 'b', 'c', 'd'], ['d', 'b'], ['b', 'gone', 'c']), ['d', 'b', 'c', 'a']);
  assert.deepEqual(readingOrder(['a', 'b'], [], ['b', 'a']), ['b', 'a']);
  const names = fc.array(fc.constantFrom(...'abcdefgh'));
  fc.assert(
    fc.property(fc.uniqueArray(fc.constantFrom(...'abcdefgh')), names, names, (admitted, changed, recent) => {
      assert.deepEqual(readingOrder(admitted, changed, recent).sort(), [...admitted].sort());
    }),
  );
});
