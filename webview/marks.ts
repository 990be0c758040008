// The engine's marks (unknown name, corrected path, checked link) carried through the Markdown parser. Their ranges are offsets
// in the source, which parsing loses; so each marked piece is wrapped in Unicode noncharacters, which no text interchange may
// contain and which the parser treats like letters, and taken out again when the page is drawn.
//   U+FDD0, three digits U+FDE0 … U+FDEF: mark number n begins         U+FDD1: it ends

import type { AnswerMark } from '../extension/engine/messages';

const begin = '\uFDD0';
const end = '\uFDD1';
const digitBase = 0xfde0;
const maxMarks = 16 ** 3;
const anyMark = /\uFDD0([\uFDE0-\uFDEF]{3})|\uFDD1/g;

/** Marks that share a range are one; of two that overlap otherwise, the first stands. */
export interface MarkedRange {
  readonly start: number;
  readonly end: number;
  readonly marks: readonly AnswerMark[];
}

export function markedRanges(answer: string, marks: readonly AnswerMark[]): readonly MarkedRange[] {
  const sorted = marks
    .filter((m) => m.start >= 0 && m.start < m.end && m.end <= answer.length)
    .sort((a, b) => a.start - b.start || b.end - a.end);
  const ranges: { start: number; end: number; marks: AnswerMark[] }[] = [];
  for (const mark of sorted) {
    const last = ranges.at(-1);
    if (last !== undefined && last.start === mark.start && last.end === mark.end) last.marks.push(mark);
    else if (last === undefined || mark.start >= last.end) ranges.push({ start: mark.start, end: mark.end, marks: [mark] });
  }
  return ranges.slice(0, maxMarks);
}

/** The answer with its ranges wrapped; the number of a mark is its range's index. */
export function withMarks(answer: string, ranges: readonly MarkedRange[]): string {
  let text = '';
  let done = 0;
  for (const [n, range] of ranges.entries()) {
    text += withoutMarks(answer.slice(done, range.start)) + begin + digits(n) + withoutMarks(answer.slice(range.start, range.end)) + end;
    done = range.end;
  }
  return text + withoutMarks(answer.slice(done));
}

export function withoutMarks(text: string): string {
  return text.replace(anyMark, '');
}

/** The number of the first mark that begins in a text, or null. */
export function markIn(text: string): number | null {
  const digitsFound = /\uFDD0([\uFDE0-\uFDEF]{3})/.exec(text)?.[1];
  return digitsFound === undefined ? null : numberOf(digitsFound);
}

/** A text as its pieces, each with the mark it stands in; `open` is the mark that was open before it. */
export function splitMarks(text: string, open: number | null): { pieces: { text: string; mark: number | null }[]; open: number | null } {
  const pieces: { text: string; mark: number | null }[] = [];
  let mark = open;
  let done = 0;
  const add = (piece: string): void => {
    if (piece !== '') pieces.push({ text: piece, mark });
  };
  for (const match of text.matchAll(anyMark)) {
    add(text.slice(done, match.index));
    done = match.index + match[0].length;
    mark = match[1] === undefined ? null : numberOf(match[1]);
  }
  add(text.slice(done));
  return { pieces, open: mark };
}

function digits(n: number): string {
  return String.fromCharCode(digitBase + (n >> 8), digitBase + ((n >> 4) & 15), digitBase + (n & 15));
}

function numberOf(text: string): number {
  return [...text].reduce((n, digit) => n * 16 + (digit.charCodeAt(0) - digitBase), 0);
}
