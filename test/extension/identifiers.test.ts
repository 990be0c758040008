// Names in questions and answers: what counts as one, what is marked, linked and corrected, and that code is left alone.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Source } from '../../extension/engine/messages';
import { answerNames, componentsOf, markAnswer, questionIdentifiers, questionPaths, type AnswerFacts } from '../../extension/engine/chat/identifiers';
import { missingSentence } from '../../extension/engine/chat/missing';

test('identifiers of questions', () => {
  const cases: [string, string[]][] = [
    ['Where is retry_limit defined?', ['retry_limit']],
    ['What does parseHeader do, and HTTPServer?', ['parseHeader', 'HTTPServer']],
    ['How does `push` differ from pop()?', ['push', 'pop']],
    ['Is std::vector or Ring::push() used? What of ring.head and p->next?', ['std::vector', 'Ring::push', 'ring.head', 'p->next']],
    ['Where is utf8 handled? And _private, $scope?', ['utf8', '_private', '$scope']],
    ['What is the API of the JSON URLs, e.g. for Node.js, i.e. version 2.5 of 10 in the U.S.?', []],
    ['What is in src/missing.c, line 400?', []],
    ['See https://example.com/a_b/c.d?x=foo_bar for fooBar', ['fooBar']],
    ['`two words` and `a_b + c`', ['a_b']],
    ['```\nfenced_name\n``` outer_name', []],
    ['fenced:\n```\nfenced_name\n```\nouter_name', ['outer_name']],
    ['Größe_max, 設定_x?', ['Größe_max', '設定_x']],
    ['Does retry_limit use retry_limit()?', ['retry_limit']],
    ['', []],
  ];
  for (const [question, expected] of cases) assert.deepEqual(questionIdentifiers(question), expected, question);
});

test('paths of questions', () => {
  const cases: [string, string[]][] = [
    ['What is in src/missing.c, line 400?', ['src/missing.c']],
    ['Which app.c defines third_limit?', ['app.c']],
    ['Compare ./a.ts, `lib\\b.ts` and docs/x.md.', ['a.ts', 'lib/b.ts', 'docs/x.md']],
    ['client/server and/or 2.5 e.g. Node.js, see https://x.example/y.c', []],
    ['first/path/to/app.c:12 (and .github/workflows/ci.yml)', ['first/path/to/app.c', '.github/workflows/ci.yml']],
  ];
  for (const [question, expected] of cases) assert.deepEqual(questionPaths(question), expected, question);
});

test('components', () => {
  assert.deepEqual(componentsOf('Ring::push()'), ['Ring', 'push']);
  assert.deepEqual(componentsOf('a.b->c#d'), ['a', 'b', 'c', 'd']);
});

// ---- answers ------------------------------------------------------------------------------------------------------------------

const files = ['lib/ring.c', 'src/main.ts', 'first/path/to/app.c', 'second/path/to/app.c', 'third/path/to/app.c', 'src/Makefile', 'util.ts'];
const present = new Set('ring push Ring main limit third_limit obj c x my_name parse'.split(' '));

function source(path: string, start_line = 1, end_line = 9, weight = 0.5): Source {
  return { root: '/w', path, start_line, end_line, weight };
}

function facts(sources: Source[], more: Partial<AnswerFacts> = {}): AnswerFacts {
  return {
    occurs: (word) => present.has(word),
    resolve: (mention) => {
      const exact = files.filter((path) => path === mention);
      return (exact.length > 0 ? exact : files.filter((path) => path.endsWith(`/${mention}`))).map((path) => ({ root: '/w', path }));
    },
    lines: () => 50,
    sources,
    ...more,
  };
}

/** Marks as `text=kind`, a link with where it leads. */
function check(answer: string, given: AnswerFacts, text: string, marks: string[]): void {
  const marked = markAnswer(answer, given);
  assert.equal(marked.answer, text);
  const shown = marked.marks.map(({ start, end, kind, source, was }) => {
    const target = source ? ` ${source.path}:${source.start_line}-${source.end_line}` : '';
    return `${marked.answer.slice(start, end)}=${kind}${target}${was === undefined ? '' : ` was ${was}`}`;
  });
  assert.deepEqual(shown, marks, answer);
}

test('a path that abbreviates a source becomes the source’s', () => {
  check('It is in `ring.c`.', facts([source('lib/ring.c', 3, 7)]), 'It is in `lib/ring.c`.', [
    'lib/ring.c=corrected was ring.c',
    'lib/ring.c=link lib/ring.c:3-7',
  ]);
  check('See lib/ring.c:12 for it.', facts([source('lib/ring.c')]), 'See lib/ring.c:12 for it.', ['lib/ring.c=link lib/ring.c:12-12']);
  check('See `lib/ring.c`, line 12.', facts([source('lib/ring.c')]), 'See `lib/ring.c`, line 12.', ['lib/ring.c=link lib/ring.c:12-12']);
});

test('a path that is nowhere becomes the first source’s, unless the question named it', () => {
  const given = facts([source('src/main.ts', 2, 4), source('lib/ring.c')]);
  check('In src/ring_buffer.c 🚀 it is.', given, 'In src/main.ts 🚀 it is.', ['src/main.ts=corrected was src/ring_buffer.c', 'src/main.ts=link src/main.ts:2-4']);
  const asked = facts([source('src/main.ts')], { asked: ['src/missing.c'] });
  check('There is no src/missing.c here.', asked, 'There is no src/missing.c here.', ['src/missing.c=unknown']);
  check('There is no `missing.c` here.', asked, 'There is no `missing.c` here.', ['missing.c=unknown']);
  check('In a/b.c.', facts([]), 'In a/b.c.', ['a/b.c=unknown']);
});

test('several files of one name: the sources decide, or all are offered', () => {
  check('In app.c.', facts([source('third/path/to/app.c', 1, 1)]), 'In third/path/to/app.c.', [
    'third/path/to/app.c=corrected was app.c',
    'third/path/to/app.c=link third/path/to/app.c:1-1',
  ]);
  check('In app.c.', facts([source('third/path/to/app.c'), source('first/path/to/app.c')]), 'In app.c.', [
    'app.c=link first/path/to/app.c:1-9',
    'app.c=link third/path/to/app.c:1-9',
  ]);
  check('In app.c.', facts([]), 'In app.c.', ['first', 'second', 'third'].map((folder) => `app.c=link ${folder}/path/to/app.c:1-1`));
  const lineOf = facts([source('third/path/to/app.c')], { lineOf: ({ path }) => (path.startsWith('third') ? 42 : undefined) });
  check('third/path/to/app.c and second/path/to/app.c', lineOf, 'third/path/to/app.c and second/path/to/app.c', [
    'third/path/to/app.c=link third/path/to/app.c:42-42',
    'second/path/to/app.c=link second/path/to/app.c:1-1',
  ]);
});

test('a line past the end is marked, not linked', () => {
  check('lib/ring.c:400 and lib/ring.c, line 400', facts([source('lib/ring.c')]), 'lib/ring.c:400 and lib/ring.c, line 400', ['lib/ring.c=unknown', 'lib/ring.c=unknown']);
});

test('files without an extension, members that look like files', () => {
  check('src/Makefile and client/server', facts([source('util.ts')]), 'src/Makefile and client/server', ['src/Makefile=link src/Makefile:1-1']);
  check('Set obj.c to obj.x in Node.js.', facts([source('util.ts')]), 'Set obj.c to obj.x in Node.js.', []);
});

test('identifiers that are nowhere are marked; words, keywords and fences are not', () => {
  const none = facts([]);
  check('Call `push` or `pull`, Ring::push() or Ring::pull(), my_name or my_other.', none, 'Call `push` or `pull`, Ring::push() or Ring::pull(), my_name or my_other.', [
    'pull=unknown',
    'Ring::pull()=unknown',
    'my_other=unknown',
  ]);
  check('It returns `true`, an `int`. Plain words stay.', none, 'It returns `true`, an `int`. Plain words stay.', []);
  check('Run `foo_bar --all the words` now', none, 'Run `foo_bar --all the words` now', ['foo_bar=unknown']);
  const fenced = 'Do:\n```ts\nconst new_name = ring.c;\nimport "./nowhere.ts";\n```\n- item:\n  ~~~\n  other_name\n  ~~~\nafter_name\n```\nopen_name';
  check(fenced, facts([source('lib/ring.c')]), fenced, ['after_name=unknown']);
  check('``a `tick` in_code`` https://x.example/some_path/a.c', none, '``a `tick` in_code`` https://x.example/some_path/a.c', ['in_code=unknown']);
});

test('offsets count UTF-16 units, also behind corrections', () => {
  const marked = markAnswer('🚀 ring.c 設定 ring.c no_name', facts([source('lib/ring.c')]));
  assert.equal(marked.answer, '🚀 lib/ring.c 設定 lib/ring.c no_name');
  for (const { start, end, kind } of marked.marks) {
    assert.equal(marked.answer.slice(start, end), kind === 'unknown' ? 'no_name' : 'lib/ring.c');
  }
  assert.equal(marked.marks.length, 5);
});

const fragment = fc.constantFrom('ring.c', '`', '``', '\n```\n', ' ', 'lib/ring.c', 'no_name', ':12', 'a/b.c', '🚀', 'Ring::pull()', '. ', ', line 3', '\n', 'app.c', '~~~', 'x', '/', '-', 'é');
const text = fc.array(fragment, { maxLength: 25 }).map((parts) => parts.join(''));

test('marks lie within the text, in order; what is between them is unchanged; names asked for suffice', () => {
  fc.assert(
    fc.property(text, fc.boolean(), (answer, complete) => {
      const asked = answerNames(answer);
      const given = facts([source('lib/ring.c')], {
        occurs: (word) => {
          assert.ok(asked.words.includes(word), `${word} was not announced`);
          return present.has(word);
        },
      });
      const marked = markAnswer(answer, given, { complete });
      let last = 0;
      let original = '';
      let at = 0;
      for (const { start, end, kind, was } of marked.marks) {
        assert.ok(start >= last && end > start && end <= marked.answer.length, JSON.stringify(marked));
        last = start;
        if (kind !== 'corrected') continue;
        original += marked.answer.slice(at, start) + was;
        at = end;
      }
      assert.equal(original + marked.answer.slice(at), answer);
    }),
    { numRuns: 500 },
  );
});

test('while it streams, a name at the end waits', () => {
  const given = facts([source('lib/ring.c')]);
  assert.deepEqual(markAnswer('In ring.c', given, { complete: false }), { answer: 'In ring.c', marks: [] });
  assert.equal(markAnswer('In ring.c ', given, { complete: false }).answer, 'In lib/ring.c ');
  assert.equal(markAnswer('In ring.c', given).answer, 'In lib/ring.c');
});

// ---- the sentence ---------------------------------------------------------------------------------------------------------------

test('what is said of names that are nowhere', () => {
  assert.equal(missingSentence([]), '');
  assert.equal(
    missingSentence([{ name: 'a_b' }], { complete: false, goesOn: true }),
    '`a_b` was not found so far.',
  );
  assert.equal(missingSentence([{ name: 'ringbuffer', similar: ['ringBuffer'] }]), '`ringbuffer` does not occur in this workspace. Did you mean `ringBuffer`?');
  assert.equal(missingSentence([{ name: 'a_b' }, { name: 'c_d', similar: ['c_e', 'c_f'] }]), '`a_b` and `c_d` do not occur in this workspace. For `c_d`, did you mean `c_e` or `c_f`?');
  assert.equal(missingSentence([], { paths: ['src/missing.c'] }), '`src/missing.c` is not in this workspace.');
  assert.equal(missingSentence([{ name: 'x1' }], { complete: false }), '`x1` was not found in the files that could be searched.');
  assert.equal(missingSentence([{ name: 'a`b' }]), '`` a`b `` does not occur in this workspace.');
});
