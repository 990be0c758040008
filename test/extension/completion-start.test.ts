// How a completion may begin: what is given to the model, and what is not taken from it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { placeOf, type Place } from '../../extension/engine/completion/place';
import { bestStart, knownStart, mayBegin } from '../../extension/engine/completion/start';

function at(marked: string, path = 'a.ts'): Place {
  return placeOf({ path, text: marked.replace('█', ''), offset: marked.indexOf('█') });
}

test('indentation that is known, but for its last character', () => {
  assert.equal(knownStart(at('f() {\n    if (a) {\n        █\n    }\n}')), ' '.repeat(7));
  assert.equal(knownStart(at('f() {\n\tif (a) {\n\t\t█\n\t}\n}')), '\t');
  // The cursor at the start of the line, a depth that was chosen, one that is open, within a line.
  assert.equal(knownStart(at('f() {\n    if (a) {\n█\n    }\n}')), ' '.repeat(7));
  assert.equal(knownStart(at('def f():\n    if a:\n        b\n    █', 'a.py')), ' '.repeat(3));
  assert.equal(knownStart(at('def f():\n    if a:\n        b\n        █', 'a.py')), '');
  assert.equal(knownStart(at('    return █')), '');
});

test('the first token', () => {
  const cases: [string, string, string[], string[]][] = [
    // Place, path, what may begin, what may not.
    ['f() {\n  a();\n  █\n}', 'a.ts', [' b', 'b', '}', ' ', ''], ['  ', '   b', '\t\t', '\n', ' \n']],
    ['def f():\n    if a:\n        b\n        █', 'a.py', ['    ', '        '], []],
    ['return█', 'a.ts', [' a', ';', '\n', '//', ''], ['   ', '\t\t']],
    ['return █', 'a.ts', ['a', '\n', '//'], [' a', '    ', ' ']],
    ['const a = █', 'a.ts', ['b', '/'], ['', ' b', '\n', '//', '/*']],
    ['const kept =█', 'a.ts', [' b', ' /'], ['', '\n', ' //', ' /*', '/**']],
    ['kept =█', 'a.py', [' b', ' //'], ['', '\n', ' #', '#']],
    ['const a = await█', 'a.ts', [' b'], ['', '\n']],
    ['const a = f(b, █', 'a.ts', ['c', '\n'], ['']],
    ['const a = b█', 'a.ts', [' ', ''], []],
    ['f(█)', 'a.ts', ['a', ' a', '#a', '\n'], ['//', ' //', '/*', '    ']],
    ['f(█)', 'a.py', ['a', '//'], ['#', ' # ']],
  ];
  for (const [marked, path, may, mayNot] of cases) {
    for (const text of may) assert.ok(mayBegin(at(marked, path), text), JSON.stringify([marked, text]));
    for (const text of mayNot) assert.ok(!mayBegin(at(marked, path), text), JSON.stringify([marked, text]));
  }
});

test('the best id that may begin', () => {
  const logits = Float32Array.from([1, 4, 3, 2]);
  assert.equal(bestStart(logits, () => true), undefined);
  assert.equal(bestStart(logits, (id) => id !== 1), 2);
  assert.equal(bestStart(logits, (id) => id === 0), 0);
  assert.equal(bestStart(logits, () => false), null);
  assert.equal(bestStart(new Float32Array(1000), (id) => id === 900), null);
  assert.deepEqual([...logits], [1, 4, 3, 2]);
});
