// What a place allows, and the shape that generated text takes there: tables of documents with a cursor `█`, `⇥` for a tab.

import fc from 'fast-check';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { placeOf, promptText, type Place, type PlaceInput } from '../../extension/engine/completion/place';
import { shape } from '../../extension/engine/completion/shape';

type Options = Partial<Omit<PlaceInput, 'text' | 'offset'>>;

function at(marked: string, options: Options = {}): Place {
  const written = marked.replaceAll('⇥', '\t');
  return placeOf({ path: 'a.ts', ...options, text: written.replace('█', ''), offset: written.indexOf('█') });
}

/** The document with the completion in it. */
function completed(place: Place, generated: string): string {
  const { text, start } = shape(place, generated.replaceAll('⇥', '\t'));
  return (place.text.slice(0, start) + text + place.text.slice(place.offset)).replaceAll('\t', '⇥');
}

test('unit of indentation: the file’s own, else the editor’s', () => {
  const units: [string, Options, string][] = [
    ['f {\n  a\n  b {\n    c█\n', {}, '  '],
    ['f {\n⇥a\n⇥⇥b█\n', { insertSpaces: true, tabSize: 8 }, '\t'],
    ['def f():\n    a\n\n    if b:\n        c█\n', { tabSize: 2 }, '    '],
    ['/**\n * comment\n */\nf {\n    a█\n', {}, '    '],
    ['all:\n⇥█', { path: 'Makefile' }, '\t'],
    ['█', { insertSpaces: false, tabSize: 8 }, '\t'],
    ['message A {\n█\n}', { path: 'x.proto', insertSpaces: true, tabSize: 2 }, '  '],
    ['█', {}, '    '],
    ['package main\n█', { path: 'm.go' }, '\t'],
    ['all:\n█', { path: 'src/Makefile' }, '\t'],
    // One line is enough, the cursor's own too.
    ['f {\n  █\n}', { tabSize: 4 }, '  '],
  ];
  for (const [marked, options, unit] of units) assert.equal(at(marked, options).unit, unit, JSON.stringify(marked));
});

test('positions: pairs and line endings are not divided, offsets out of range are moved in', () => {
  const text = 'a🚀b\r\nc';
  const rounded = Array.from({ length: 9 }, (_, i) => placeOf({ path: 'a.ts', text, offset: i - 1 }).offset);
  assert.deepEqual(rounded, [0, 0, 1, 1, 3, 4, 4, 6, 7]);
});

test('depths that a blank line allows', () => {
  const cases: [string, Options, number, number][] = [
    ['func main() {\n⇥for {\n⇥⇥█\n⇥}\n}\n', {}, 2, 2],
    ['int f() {\n    a();\n    █\n    b();\n}\n', {}, 1, 1],
    ['int f() {\n    a();\n    █\n}\n', {}, 1, 1],
    ['def f(n):\n    if n:\n        a()\n        █', { path: 'a.py' }, 0, 2],
    ['def f(n):\n    █\n', { path: 'a.py' }, 1, 1],
    ['def f(n):\n    █\n\ndef g():\n    pass\n', { path: 'a.py' }, 1, 1],
    ['if n:\n    a()\n    █\nelse:\n    b()\n', { path: 'a.py' }, 1, 1],
    ['switch (a) {\n  case 1:\n    █\n}\n', {}, 2, 2],
    ['█', {}, 0, 0],
  ];
  for (const [marked, options, least, most] of cases) {
    const place = at(marked, options);
    assert.deepEqual([place.least, place.most], [least, most], JSON.stringify(marked));
  }
});

test('what the model is shown: no white space of a blank line, all else as it is', () => {
  const shown = (marked: string): string => {
    const { text, offset } = promptText(at(marked));
    return `${text.slice(0, offset)}█${text.slice(offset)}`.replaceAll('\t', '⇥');
  };
  assert.equal(shown('a {\n⇥⇥█⇥ \n}\n'), 'a {\n█\n}\n');
  assert.equal(shown('a {\n█⇥\n}\n'), 'a {\n█\n}\n');
  assert.equal(shown('a {\r\n  █\r\n}'), 'a {\r\n█\r\n}');
  assert.equal(shown('return █\n'), 'return █\n');
  assert.equal(shown('  █)\n'), '  █)\n');
});

test('blank lines: the file’s unit, at the depth of the block', () => {
  const go = 'func main() {\n⇥for _, n := range names {\n⇥⇥█\n⇥}\n}\n';
  const c = 'int f() {\n    a();\n    █\n    b();\n}\n';
  const even = 'def evens(numbers):\n    found = []\n    for n in numbers:\n        if n % 2 == 0:\n            found.append(n)\n            █';
  const cases: [string, string, string, Options?][] = [
    [go, '⇥⇥fmt.Println(n)', go.replace('█', 'fmt.Println(n)')],
    // Other units, stray spaces, too much and too little depth.
    [go, '        fmt.Println(n)', go.replace('█', 'fmt.Println(n)')],
    [go, ' fmt.Println(n)', go.replace('█', 'fmt.Println(n)')],
    [go, '⇥⇥⇥fmt.Println(n)', go.replace('█', 'fmt.Println(n)')],
    [go, '\n\nfmt.Println(n)  \n', go.replace('█', 'fmt.Println(n)')],
    [go, '⇥⇥if n != "" {\n⇥⇥⇥use(n)\n⇥⇥}', go.replace('█', 'if n != "" {\n⇥⇥⇥use(n)\n⇥⇥}')],
    [go, '    if n != "" {\n        use(n)\n    }', go.replace('█', 'if n != "" {\n⇥⇥⇥use(n)\n⇥⇥}')],
    [go, '  if n != "" {\n    use(n)\n  }', go.replace('█', 'if n != "" {\n⇥⇥⇥use(n)\n⇥⇥}')],
    // The same with the cursor at the start of the line.
    [go.replace('⇥⇥█', '█'), '⇥⇥fmt.Println(n)', go.replace('█', 'fmt.Println(n)')],
    [c, '        use(in);', c.replace('█', 'use(in);')],
    [c, '     use(in);', c.replace('█', 'use(in);')],
    [c, '    if (a) {\n      use(in);\n    }', c.replace('█', 'if (a) {\n        use(in);\n    }')],
    // Less depth than the editor gave: the white space is replaced.
    [even, '    return found', even.replace('            █', '    return found'), { path: 'even.py' }],
    [even, '            found.sort()', even.replace('█', 'found.sort()'), { path: 'even.py' }],
    [even, '                found.sort()', even.replace('█', 'found.sort()'), { path: 'even.py' }],
    // Depth that was chosen by hand holds.
    [even.replace('            █', '    █'), '            return found', even.replace('            █', '    return found'), { path: 'even.py' }],
    // The end of a block that nothing closes yet.
    ['function f() {\n  g();\n  █', '}', 'function f() {\n  g();\n}'],
    [go, '', go.replace('█', '')],
    [go, ' \n⇥⇥\n', go.replace('█', '')],
    ['def f():\r\n    █\r\n', '    if a:\n        return 1', 'def f():\r\n    if a:\r\n        return 1\r\n', { path: 'a.py' }],
  ];
  for (const [marked, generated, wanted, options] of cases) {
    assert.equal(completed(at(marked, options), generated), wanted, JSON.stringify([marked, generated]));
  }
});

test('within a line: one space, own depth behind it, nothing twice', () => {
  const cases: [string, string, string][] = [
    ['return █', ' a + b;', 'return a + b;'],
    ['return█', '  a + b;', 'return a + b;'],
    ['const s = "x"; console.log(█)', 's);', 'const s = "x"; console.log(s)'],
    ['f(█);', 'g(a), [b]);\n', 'f(g(a), [b]);'],
    ['f(█)', 'a)', 'f(a)'],
    ['f("█")', 'a", b)', 'f("a")'],
    ['f("█")', 'it\\"s"', 'f("it\\"s")'],
    ["f(█)", "')', a)", "f(')', a)"],
    ['f(a => {█})', '\n  g(a);\n})', 'f(a => {\n    g(a);})'],
    ['const a = █ + c;', 'b + c;', 'const a = b + c;'],
    ['const a = █;', 'b;', 'const a = b;'],
    ['  if (a) {█', '\n      g();\n  }', '  if (a) {\n    g();\n  }'],
    ['  if (a) {█', '\n   g();\n  }', '  if (a) {\n    g();\n  }'],
    ['⇥if (a) {█', '\n        g();\n    }', '⇥if (a) {\n⇥⇥g();\n⇥}'],
    ['  f(a,█', '\n        b);', '  f(a,\n    b);'],
    ['const █', '   \n ', 'const '],
  ];
  for (const [marked, generated, wanted] of cases) {
    assert.equal(completed(at(marked), generated), wanted, JSON.stringify([marked, generated]));
  }
});

test('whatever is generated: whole units of the file, no white space alone, no more lost than white space before the cursor', () => {
  const line = fc.tuple(fc.nat(9), fc.constantFrom('', 'a();', 'if (b) {', '}', ')', 'return c', '🚀', '"'), fc.constantFrom('', ' ', '\t'));
  const documents = ['f {\n⇥a {\n⇥⇥█\n⇥}\n}', 'f {\n  a\n  █\n}', 'def f():\n    if a:\n        b\n        █', 'f(█)', '⇥return █', 'x = {█'];
  const own = fc.constantFrom(...documents);
  fc.assert(
    fc.property(own, fc.array(line, { maxLength: 6 }), fc.boolean(), (marked, lines, tabs) => {
      const place = at(marked, { path: marked.startsWith('def') ? 'a.py' : 'a.ts' });
      const generated = lines.map(([n, code, end]) => (tabs ? '\t' : ' ').repeat(n) + code + end).join('\n');
      const { text, start } = shape(place, generated);
      assert.ok(text === '' || (text.trim() !== '' && text === text.trimEnd()));
      assert.ok(start === place.offset || (start === place.lineStart && place.before.trim() === ''));
      const whole = place.text.slice(place.lineStart, start) + text;
      const checked = text === '' ? [] : whole.split('\n').slice(place.blank ? 0 : 1);
      for (const one of checked) {
        const indentation = /^\s*/.exec(one)![0];
        assert.equal(indentation.replaceAll(place.unit, ''), '', JSON.stringify([marked, generated, text]));
      }
      if (place.blank && text !== '') {
        const depth = /^\s*/.exec(whole)![0].length / place.unit.length;
        const closes = /^\s*[)}]/.test(whole) ? 1 : 0;
        assert.ok(depth >= place.least - closes && depth <= place.most, JSON.stringify([marked, generated, text]));
      }
    }),
    { numRuns: 2000 },
  );
});
