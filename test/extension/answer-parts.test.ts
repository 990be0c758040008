// The pure parts of an answer: going round in circles is noticed, and questions about uses are told from questions about purposes.

import assert from 'node:assert/strict';
import test from 'node:test';
import { withoutSegments, type RankedSegment } from '../../extension/engine/chat/focus';
import { quotations, quoting } from '../../extension/engine/chat/quotation';
import { RepetitionGuard } from '../../extension/engine/chat/repetition';
import { usageAnswer, usageQuestion } from '../../extension/engine/chat/usage';

test('repetition: the same sixteen tokens twice end an answer, fifteen do not', () => {
  const says = (ids: readonly number[]): boolean => {
    const guard = new RepetitionGuard();
    return ids.map((id) => guard.push(id)).includes(true);
  };
  const sixteen = Array.from({ length: 16 }, (_, i) => i);
  assert.equal(says([...sixteen, 99, ...sixteen]), true);
  assert.equal(says([...sixteen.slice(1), 99, ...sixteen.slice(1), 98]), false);
  assert.equal(says(Array.from({ length: 40 }, () => 7)), true);
  assert.equal(says(Array.from({ length: 400 }, (_, i) => i)), false);
});

test('usage: what asks for places', () => {
  for (const [question, asked] of [
    ['Where is `ring_push` used?', true],
    ['Who calls ring_push()?', true],
    ['List all usages of ring_push', true],
    ['Find the callers of ring_push.', true],
    ['What is ring_push used for?', false],
    ['How is ring_push used?', false],
    ['Where is ring_push defined?', false],
    ['Explain ring_push', false],
  ] as const) {
    assert.equal(usageQuestion(question, ['ring_push']), asked ? 'ring_push' : undefined, question);
  }
  assert.equal(usageQuestion('Where are a_b and c_d used?', ['a_b', 'c_d']), undefined);
});

test('usage: all places are listed, those of the best sources first', () => {
  const place = (path: string, line: number): { root: string; path: string; line: number } => ({ root: '/r', path, line });
  const places = [place('a.c', 3), place('a.c', 9), place('b.c', 1), { ...place('log.min.js', 4), rule: 'minified' as const }];
  const text = usageAnswer('f', places, [{ root: '/r', path: 'b.c', start_line: 1, end_line: 5, weight: 0.6 }]);
  assert.equal(
    text,
    '`f` occurs in 4 places in 3 files:\n\n- `b.c`: line 1\n- `a.c`: lines 3, 9\n- `log.min.js`: line 4 (not read: minified)',
  );
  assert.match(usageAnswer('f', Array.from({ length: 100 }, (_, i) => place('x.c', i + 1)), []), /and 40 more places$/);
  assert.equal(usageAnswer('f', [], []), '`f` is used nowhere in this workspace.');
  assert.equal(usageAnswer('f', [], [], false), '`f` was not found so far.');
  assert.match(usageAnswer('f', places, [], false), /^`f` occurs in \d+ places? in \d+ files? so far:/);
});

const asked = 'Where does the old ferry land today?';

test('quotation: the question within a longer line is one, the line itself is none', () => {
  const lines = (text: string): string => quotations(asked, text).map(({ start_line, end_line }) => `${start_line}-${end_line}`).join();
  for (const [text, found] of [
    ['a\n./tool ask "Where does the old ferry land today?"\n', '2-2'],
    ["const questions = [\n  'where does the  old ferry land today',\n];\n", '2-2'],
    ['Try: where does the\nold ferry land today? It says so.\n', '1-2'],
    ['`Where does the old ferry land today?`\n', '1-1'],
    ['Where does the old ferry land today? And then?', '1-1'],
    ['## Where does the old ferry land today?\nAt the pier.\n', ''],
    ['1. **Where does the old ferry land today?**\r\n', ''],
    ['Q: Where does the old ferry land today?\n', ''],
    ['<h2>Where does the old ferry land today</h2>\n', ''],
    ['// Where does the old ferry land today?\n', ''],
    ['"Where does the old ferry land today?"\n# Where does the old ferry land today?\n', '1-1'],
    ['"Where does the old ferry land todays?" "Where does the new ferry land today?"', ''],
  ] as const) assert.equal(lines(text), found, JSON.stringify(text));
  assert.deepEqual(quotations('Where is it (now)?', 'say "where is it (now)"'), [], 'four words are an ordinary phrase');
  assert.equal(quotations('Where is [a*b] | (c)\\d at all?', 'say "where is [a*b] | (c)\\d at all"').length, 1);
});

test('quotation: segments with one are no evidence, unless there are no others; shares are those among the rest', async () => {
  const text = 'one\nsay "Where does the old ferry land today?"\nthree\nfour\n';
  const place = ([path, start_line, end_line]: readonly [string, number, number]) => ({ file: { root: '/w', path }, lines: { start_line, end_line } });
  const places = [['a', 1, 2], ['a', 3, 4], ['b', 1, 4], ['a', 2, 3]] as const;
  const reads: string[] = [];
  const found = await quoting(asked, places, place, async ({ path }) => {
    reads.push(path);
    return path === 'a' ? text : undefined;
  });
  assert.deepEqual([...found], [places[0], places[3]]);
  assert.deepEqual(reads, ['a', 'b'], 'each file once');
  const ranked = [0.5, 0.3, 0.2].map((share, handle) => ({ share, handle })) as unknown as RankedSegment[];
  assert.deepEqual(withoutSegments(ranked, new Set([ranked[0]!])).map(({ share }) => share), [0.6, 0.4]);
  assert.equal(withoutSegments(ranked, new Set(ranked)), ranked);
  assert.equal(withoutSegments(ranked, new Set()), ranked);
});
