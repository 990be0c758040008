// The chat page's reducer, its marks and its sentences.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { ToWebview, TurnRecord } from '../../extension/protocol';
import type { AnswerMark, Coverage } from '../../extension/engine/messages';
import { coverageSentence, duration, missingSentence, moreIsIn, shortCount } from '../../extension/texts';
import { markedRanges, markIn, splitMarks, withMarks, withoutMarks } from '../../webview/marks';
import { initialState, newerDraft, reduce, runningTurn, type State } from '../../webview/state';

function record(turn: number, more: Partial<TurnRecord> = {}): TurnRecord {
  return {
    turn, question: `q${turn}`, attachment: null, status: 'running', phase: null, answer: '', sources: [], marks: [], uncertain: false,
    missing: [], stop: null, coverage: null, failure: null, ...more,
  };
}

function after(...messages: ToWebview[]): State {
  return messages.reduce(reduce, { ...initialState, ready: true });
}

const answered: ToWebview = { type: 'answered', record: record(1, { status: 'answered', answer: 'ab', stop: 'end' }) };
const asked: ToWebview = { type: 'asked', record: record(1), replaces: null };
const token = (text: string, turn = 1): ToWebview => ({ type: 'token', turn, text });

test('tokens gather in their turn, which is running until it is answered', () => {
  const running = after(asked, token('a'), token('b'));
  assert.equal(running.turns[0]?.answer, 'ab');
  assert.equal(runningTurn(running)?.turn, 1);
  const ended = reduce(running, answered);
  assert.equal(runningTurn(ended), undefined);
  assert.equal(ended.turns[0]?.stop, 'end');
});

test('a token behind the end, or of a turn that is gone, changes nothing', () => {
  const state = after(asked, answered);
  assert.equal(reduce(state, token('c')), state);
  assert.equal(reduce(state, token('c', 9)), state);
});

test('asking again replaces the turn, and leaves the others as they are', () => {
  const first = record(1, { status: 'answered' });
  const state = after({ type: 'asked', record: first, replaces: null }, { type: 'asked', record: record(2), replaces: null }, { type: 'asked', record: record(3), replaces: 2 });
  assert.deepEqual(state.turns.map((t) => t.turn), [1, 3]);
  assert.equal(state.turns[0], first);
});

test('a failed turn keeps what had come', () => {
  const failure = { kind: 'error', code: 'internal', sentence: 's', actions: [] } as const;
  const state = after(asked, token('half'), { type: 'failed', turn: 1, failure });
  assert.deepEqual([state.turns[0]?.status, state.turns[0]?.answer, state.turns[0]?.failure], ['failed', 'half', failure]);
});

test('of two drafts the one with the higher revision is taken', () => {
  const draft = (revision: number) => ({ revision, text: '', selectionStart: 0, selectionEnd: 0, anchor: null });
  assert.equal(newerDraft(draft(1), draft(2))?.revision, 2);
  assert.equal(newerDraft(draft(3), draft(2))?.revision, 3);
  assert.equal(newerDraft(null, draft(2))?.revision, 2);
  assert.equal(newerDraft(null, null), null);
});

// ---- marks ------------------------------------------------------------------------------------------------------------

const mark = (start: number, end: number): AnswerMark => ({ start, end, kind: 'unknown' });

test('marks on one range are one, overlapping and impossible ones are left out', () => {
  const ranges = markedRanges('0123456789', [mark(4, 6), mark(1, 3), mark(1, 3), mark(2, 5), mark(8, 99), mark(7, 7), mark(-1, 2)]);
  assert.deepEqual(ranges.map((r) => [r.start, r.end, r.marks.length]), [[1, 3, 2], [4, 6, 1]]);
});

test('what is wrapped comes out again, piece by piece, and nothing else', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 40 }), fc.array(fc.tuple(fc.nat(40), fc.nat(8)), { maxLength: 8 }), (text, spans) => {
      const answer = withoutMarks(text);
      const ranges = markedRanges(answer, spans.map(([start, length]) => mark(start, start + length)));
      const { pieces, open } = splitMarks(withMarks(answer, ranges), null);
      assert.equal(open, null);
      assert.equal(pieces.map((p) => p.text).join(''), answer);
      const marked = pieces.filter((p) => p.mark !== null);
      assert.deepEqual(marked.map((p) => p.text), ranges.map((r) => answer.slice(r.start, r.end)));
      assert.deepEqual(marked.map((p) => p.mark), ranges.map((_, i) => i));
    }),
    { numRuns: 2000 },
  );
});

test('a mark is found in an address', () => {
  assert.equal(markIn(withMarks('lib/a.c', markedRanges('lib/a.c', [mark(0, 7)]))), 0);
  assert.equal(markIn('lib/a.c'), null);
});

// ---- sentences --------------------------------------------------------------------------------------------------------

const part: Coverage = { files: 120, tokens: 60_000, total_files: 900, total_tokens: 500_000, estimated: true };
const whole: Coverage = { files: 900, tokens: 500_000, total_files: 900, total_tokens: 500_000, estimated: false };

test('coverage is named unless it was everything', () => {
  assert.equal(coverageSentence(part), 'Answered after reading 120 of about 900 files.');
  assert.equal(coverageSentence({ ...part, estimated: false }), 'Answered after reading 120 of 900 files.');
  assert.equal(coverageSentence(whole), null);
});

test('asking again is offered when more is in', () => {
  assert.equal(moreIsIn(part, { ...part, tokens: 70_000 }), true);
  assert.equal(moreIsIn(part, part), false);
  assert.equal(moreIsIn(part, undefined), false);
  assert.equal(moreIsIn(whole, { ...whole, tokens: 600_000 }), false);
});

test('numbers in words', () => {
  assert.deepEqual([999, 1000, 3849, 9949, 9950, 56_789, 999_499, 999_500, 1_234_567].map(shortCount), ['999', '1.0 K', '3.8 K', '9.9 K', '10 K', '57 K', '999 K', '1.0 M', '1.2 M']);
  assert.deepEqual([5, 60, 130, 3599, 3600, 9000].map(duration), ['less than a minute', 'about a minute', 'about 2 minutes', 'about an hour', 'about an hour', 'about 2.5 hours']);
  assert.equal(missingSentence(['a_b']), 'a_b is nowhere in this workspace (exact search).');
  assert.equal(missingSentence(['a', 'b', 'c']), 'a, b and c are nowhere in this workspace (exact search).');
});
