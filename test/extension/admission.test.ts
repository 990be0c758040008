// Membership depends on files and budget alone; the reading order on everything else, and changes no membership.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { admissionOrder, AdmissionList, admit, readingOrder, type Candidate } from '../../extension/engine/workspace/admission';

interface Sized extends Candidate {
  readonly tokens: number;
}

const file = (path: string, fileClass: Candidate['class'], tokens: number): Sized => ({ path, class: fileClass, tokens });
const sorted = (files: readonly Sized[]): Sized[] => [...files].sort(admissionOrder);
const admitted = (files: readonly Sized[], budget: number): Sized[] => sorted(files).slice(0, admit(sorted(files), ({ tokens }) => tokens, budget));
const paths = (files: readonly Candidate[]): string[] => files.map(({ path }) => path);

test('code, documents, data, each by path, until the budget is full', () => {
  const files = [file('z.csv', 'data', 1), file('b.ts', 'code', 40), file('a.md', 'doc', 30), file('a.ts', 'code', 20), file('0.json', 'doc', 5)];
  assert.deepEqual(paths(admitted(files, 1000)), ['a.ts', 'b.ts', '0.json', 'a.md', 'z.csv']);
  assert.deepEqual(paths(admitted(files, 90)), ['a.ts', 'b.ts', '0.json']);
  assert.deepEqual(paths(admitted(files, 95)), ['a.ts', 'b.ts', '0.json', 'a.md'], 'exactly full');
  assert.deepEqual(paths(admitted(files, 19)), []);
});

const candidate = fc.record({
  path: fc.stringMatching(/^[a-c]{1,2}(\/[a-c])?\.x$/),
  class: fc.constantFrom<Candidate['class']>('code', 'doc', 'data'),
  tokens: fc.nat(50),
});
const candidates = fc.uniqueArray(candidate, { selector: ({ path }) => path, maxLength: 25 });

test('what fits is a beginning of the order, and a larger budget only adds', () => {
  fc.assert(
    fc.property(candidates, fc.nat(600), fc.nat(200), (files, budget, more) => {
      const some = admitted(files, budget);
      assert.ok(some.reduce((sum, { tokens }) => sum + tokens, 0) <= budget);
      assert.deepEqual(some, sorted(files).slice(0, some.length));
      assert.deepEqual(admitted(files, budget + more).slice(0, some.length), some);
    }),
  );
});

test('the order of admission does not depend on which files came and went', () => {
  fc.assert(
    fc.property(candidates, fc.array(fc.tuple(fc.nat(24), fc.boolean())), (files, steps) => {
      const list = new AdmissionList<Sized>();
      const there = new Set<Sized>();
      for (const [i, isAsked] of steps) {
        const file = files[i];
        if (!file) continue;
        if (there.delete(file)) list.delete(file);
        else {
          there.add(file);
          list.add(file);
        }
        if (isAsked) assert.deepEqual(list.files, sorted([...there]));
      }
      assert.deepEqual(list.files, sorted([...there]));
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
