// The pure parts of an answer: going round in circles is noticed, and questions about uses are told from questions about purposes.

import assert from 'node:assert/strict';
import test from 'node:test';
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
});
