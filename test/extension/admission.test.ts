// The order of admission depends on files alone; the reading order on everything else, and changes no membership. Where the budget ends
// is scale.test.ts's.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { admissionOrder, AdmissionList, placeOf, readingOrder, type Candidate } from '../../extension/engine/workspace/admission';

const file = (path: string, fileClass: Candidate['class']): Candidate => ({ path, class: fileClass });
const sorted = (files: readonly Candidate[]): Candidate[] => [...files].sort(admissionOrder);

test('code, documents, data, each by path', () => {
  const files = [file('z.csv', 'data'), file('b.ts', 'code'), file('a.md', 'doc'), file('a.ts', 'code'), file('0.json', 'doc')];
  assert.deepEqual(sorted(files).map(({ path }) => path), ['a.ts', 'b.ts', '0.json', 'a.md', 'z.csv']);
});

const candidate = fc.record({
  path: fc.stringMatching(/^[a-c]{1,2}(\/[a-c])?\.x$/),
  class: fc.constantFrom<Candidate['class']>('code', 'doc', 'data'),
});
const candidates = fc.uniqueArray(candidate, { selector: ({ path }) => path, maxLength: 25 });

test('the order of admission does not depend on which files came and went', () => {
  fc.assert(
    fc.property(candidates, fc.array(fc.tuple(fc.nat(24), fc.boolean())), (files, steps) => {
      const list = new AdmissionList<Candidate>();
      const there = new Set<Candidate>();
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
      for (const each of files) assert.equal(placeOf(list.files, each), list.files.filter((other) => admissionOrder(other, each) < 0).length);
      assert.deepEqual(list.files, sorted([...there]));
    }),
  );
});

test('many files come among many', () => {
  const list = new AdmissionList<Candidate>();
  const files = Array.from({ length: 900 }, (_, i) => file(`${(i * 577) % 900}.x`, i % 5 === 0 ? 'doc' : 'code'));
  let n = 0;
  for (const more of [300, 1, 64, 65, 200, 270]) {
    for (const each of files.slice(n, n + more)) list.add(each);
    n += more;
    assert.deepEqual(list.files, sorted(files.slice(0, n)));
  }
});

test('changed files first, then recent ones, then the rest, nothing twice and nothing lost', () => {
  assert.deepEqual(readingOrder(['a', 'b', 'c', 'd'], ['d', 'b'], ['b', 'gone', 'c']), ['b', 'd', 'c', 'a']);
  assert.deepEqual(readingOrder(['a', 'b'], [], ['b', 'a']), ['b', 'a']);
  const names = fc.array(fc.constantFrom(...'abcdefgh'));
  fc.assert(
    fc.property(fc.uniqueArray(fc.constantFrom(...'abcdefgh')), names, names, (admitted, changed, recent) => {
      assert.deepEqual(readingOrder(admitted, changed, recent).sort(), [...admitted].sort());
    }),
  );
});
