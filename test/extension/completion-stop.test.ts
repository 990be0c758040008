// Where a completion ends: tables of documents, what the model would say, and what of it is kept; `⇥` for a tab.

import fc from 'fast-check';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { placeOf } from '../../extension/engine/completion/place';
import { StopRules } from '../../extension/engine/completion/stop';

interface Kept {
  readonly text: string;
  /** Characters that came before the rules had enough; undefined: they never had. */
  readonly read: number | undefined;
}

/** Feeds pieces of `size` characters; with `loops`, a piece that comes again is the same token. */
function kept(marked: string, generated: string, { path = 'a.ts', size = 3, ended = true, loops = false } = {}): Kept {
  const written = marked.replaceAll('⇥', '\t');
  const rules = new StopRules(placeOf({ path, text: written.replace('█', ''), offset: written.indexOf('█') }));
  const said = generated.replaceAll('⇥', '\t');
  const ids = new Map<string, number>();
  for (let from = 0; from < said.length; from += size) {
    const piece = said.slice(from, from + size);
    const id = loops ? (ids.get(piece) ?? ids.size) : from;
    ids.set(piece, id);
    if (rules.push(id, piece)) return { text: rules.finish(false).replaceAll('\t', '⇥'), read: from + piece.length };
  }
  return { text: rules.finish(ended).replaceAll('\t', '⇥'), read: undefined };
}

function check(cases: readonly (readonly [string, string, string])[], path?: string): void {
  for (const [marked, generated, wanted] of cases) {
    for (const size of [1, 5, 1000]) {
      const options = { ...(path !== undefined && { path }), size };
      assert.equal(kept(marked, generated, options).text, wanted, JSON.stringify([marked, generated, size]));
    }
  }
}

test('text behind the cursor: nothing but this line', () => {
  check([
    ['const a = █ + c;', 'b\n+ 1', 'b'],
    ['f(█, b)', 'a', 'a'],
    ['const a = █ + c;', '\nx', ''],
    // What an editor closes by itself is no such text.
    ['f(() => {█});', '\n  g();\n  h();\n});', '\n  g();'],
  ]);
});

test('a statement is enough, a block until it is closed', () => {
  const blank = 'function f() {\n  █\n}\n';
  check([
    [blank, '  const a = 1;\n  const b = 2;\n', '  const a = 1;'],
    [blank, '\n\n  const a = 1;\n  const b = 2;\n', '  const a = 1;'],
    [blank, '  if (a) {\n    b();\n    c();\n  }\n  d();\n', '  if (a) {\n    b();\n    c();\n  }'],
    [blank, '  if (a) {\n    b();\n  } else {\n    c();\n  }\n  d();\n', '  if (a) {\n    b();\n  } else {\n    c();\n  }'],
    [blank, '  f(a,\n    b);\n  d();\n', '  f(a,\n    b);'],
    [blank, '  const a = b +\n    c;\n  d();\n', '  const a = b +\n    c;'],
    [blank, '  // why\n  a();\n  b();\n', '  // why\n  a();'],
    [blank, '  // 1\n  // 2\n  // 3\n  // 4\n', '  // 1\n  // 2\n  // 3'],
    [blank, '  if (a) {\n    b("}");\n    // }\n  }\n  c();\n', '  if (a) {\n    b("}");\n    // }\n  }'],
    ['const a = f█', '(b);\nconst c = 1;\n', '(b);'],
    ['if (a) {█', '\n  b();\n}\nc();\n', '\n  b();\n}'],
    ['if (a) {█\n}', '\n  b();\n  c();\n}\n', '\n  b();'],
    ['f({█', '\n  a: 1,\n  b: 2,\n});\ng();\n', '\n  a: 1,\n  b: 2,\n});'],
    ['const a = █', 'f(() => {\n  b();\n});\nc();\n', 'f(() => {\n  b();\n});'],
    // The model's own end.
    [blank, '  const a = 1;', '  const a = 1;'],
  ]);
});

test('blocks by indentation', () => {
  const fib = 'def fib(n):\n    █\n';
  check(
    [
      [fib, '    if n < 2:\n        return n\n    return fib(n - 1)\n', '    if n < 2:\n        return n'],
      [fib, '    if n < 2:\n        return n\n    else:\n        return 1\n    x = 1\n', '    if n < 2:\n        return n\n    else:\n        return 1'],
      [fib, '    return n\nprint(1)\n', '    return n'],
      [fib, '    for i in n:\n        a()\n\n    b()\n', '    for i in n:\n        a()'],
      ['def f(n):█', '\n    return n\n\ndef g():\n', '\n    return n'],
      ['def f(n):█', '\n    a = n\n    return a\n\ndef g():\n', '\n    a = n\n    return a'],
    ],
    'a.py',
  );
  check([['if a█', ' then\n  b()\nend\nc()\n', ' then\n  b()\nend']], 'a.lua');
});

test('what stands there already is not said again', () => {
  const blank = 'function f() {\n  a();\n  █\n  b();\n}\n';
  check([
    [blank, '  b();\n', ''],
    [blank, '  a();\n', ''],
    [blank, '  // then\n  b();\n', '  // then'],
    [blank, '}\n', '}'],
    ['function f() {\n  a();\n  █\n}\n', '}\n', ''],
    ['f(() => {█\n});', '\n  a(\n    b\n  );\n});\n', '\n  a(\n    b\n  );'],
    // A line that falls out of the cursor's block.
    ['class A {\n  f() {\n    █\n  }\n}', '    // a\n  g() {\n', '    // a'],
    ['function f() {\n  █\n}\n', '  if (a) {\n    b();\n    b();\n    b();\n', '  if (a) {\n    b();\n  }'],
  ]);
});

test('loops are cut, and what they were in is closed', () => {
  const blank = 'function f() {\n  █\n}\n';
  const self = kept(blank, `  return a${'._self'.repeat(40)};`, { size: 1, loops: true });
  assert.ok(self.read !== undefined && self.read < 60, 'soon noticed');
  assert.match(self.text, /^ {2}return a(\._self)*[._]*[self]*$/);
  assert.ok(self.text.length < 24);
  assert.equal(kept(blank, `  x = ${'0'.repeat(60)}`, { size: 1, loops: true }).text, '  x = 0');
  assert.equal(kept(blank, `  if (a) {\n    b();\n    c(${'x*'.repeat(60)}`, { size: 2, loops: true }).text, '  if (a) {\n    b();\n  }');
  // Indentation is no loop.
  assert.equal(kept(blank, `${' '.repeat(40)}a();\n`, { size: 1, loops: true }).text, `${' '.repeat(40)}a();`);
});

test('broken off by the limit: back to a whole line, blocks closed', () => {
  const blank = 'function f() {\n  █\n}\n';
  const short = (generated: string): string => kept(blank, generated, { ended: false }).text;
  assert.equal(short('  const a = some.thing(with'), '  const a = some.thing(with');
  assert.equal(short('  if (a) {\n    b();\n    c('), '  if (a) {\n    b();\n  }');
  assert.equal(short('  f(a, () => {\n    b();\n    c('), '  f(a, () => {\n    b();\n  })');
  // A clause that says nothing, and a literal within a line, are no blocks to close.
  assert.equal(short('  if (a) {\n    b();\n  } else if (c) {\n    d();\n  } else {\n    e('), '  if (a) {\n    b();\n  } else if (c) {\n    d();\n  }');
  assert.equal(short('  f({ a: 1, b: 2 +'), '  f({ a: 1, b: 2 +');
  // A comment that never ends would take in the rest of the file.
  assert.equal(short('  /* read the header of the'), '');
  assert.equal(short('  a(); /* read the'), '  a();');
  assert.equal(short("  a('src/*.ts',"), "  a('src/*.ts',");
  assert.equal(kept('def f():\n    █\n', '    """Reads the', { path: 'a.py', ended: false }).text, '    ');
  const many = Array.from({ length: 30 }, (_, i) => `    b(${i});`);
  const long = kept(blank, ['  if (a) {', ...many].join('\n'));
  assert.deepEqual(long.text.split('\n'), ['  if (a) {', ...many.slice(0, 11), '  }']);
  assert.ok(long.read !== undefined);
});

test('the same for all pieces, never more than was said but closing brackets', () => {
  const line = fc.constantFrom('  a();', '  if (b) {', '    c(', '  }', '', '});', '  // d', '  e,', '"f', 'x = [', '    ');
  const documents = ['function f() {\n  █\n}\n', 'f(() => {█});', 'const a = █', 'def f():\n    █', 'g(█, 1)', '█'];
  fc.assert(
    fc.property(fc.constantFrom(...documents), fc.array(line, { maxLength: 16 }), fc.integer({ min: 2, max: 9 }), (marked, lines, size) => {
      const generated = lines.join('\n');
      const one = kept(marked, generated, { size: 1000, path: 'a.py' }).text;
      assert.equal(kept(marked, generated, { size, path: 'a.py' }).text, one);
      const said = new Set(lines.map((said) => said.trimEnd()));
      if (one === '') return;
      for (const part of one.split('\n')) {
        const isCut = lines.some((said) => said.startsWith(part));
        assert.ok(said.has(part) || isCut || /^\s*[)\]}]+$/.test(part), JSON.stringify([marked, generated, part]));
      }
    }),
  );
});
