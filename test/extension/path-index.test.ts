import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isWithin } from '../../extension/engine/workspace/filter';
import { PathIndex } from '../../extension/engine/workspace/path-index';

const anyPath = fc.array(fc.constantFrom('a', 'b', 'ab', 'a b'), { minLength: 1, maxLength: 4 }).map((names) => names.join('/'));

test('what lies below a path is found whatever came and went, and nothing is kept of what is gone', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(anyPath, fc.boolean())), anyPath, (steps, asked) => {
      const known = new Set<string>();
      const index = new PathIndex((path) => known.has(path));
      for (const [path, isThere] of steps) {
        if (isThere) {
          known.add(path);
          index.add(path);
        } else {
          known.delete(path);
          index.delete(path);
        }
      }
      for (const folder of [asked, '']) {
        const found = [...index.within(folder)].filter((path) => known.has(path));
        assert.deepEqual(found.sort(), [...known].filter((path) => isWithin(path, folder)).sort());
      }
      for (const path of [...known]) {
        known.delete(path);
        index.delete(path);
      }
      assert.deepEqual([...index.within('')], ['']);
    }),
  );
});
