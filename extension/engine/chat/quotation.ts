// A question that is quoted: documentation of a tool, a list of test questions. The quotation draws the question's own attention as
// nothing else does, and answers nothing, so a segment that holds one is no evidence. A heading that is the question itself is.

import type { FileName } from '../workspace/search';

/** A shorter question is an ordinary phrase. */
const leastWords = 5;
/** What makes a line a heading, an entry of a list or a comment: with nothing else before it, the question is the line. */
const mark = /^[\s#>*\-+=_•/;%]*(?:\d+[.)]\s*)?(?:q(?:uestion)?\s*\d*\s*[:.)]\s*)?[\s*_]*$/i;
const endMark = /^[\s?!.:#*_=/]*$/;

export interface LineRange {
  /** From 1. */
  readonly start_line: number;
  readonly end_line: number;
}

/** Where a text has the question word for word, white space and case aside, within a longer line. */
export function quotations(question: string, text: string): LineRange[] {
  const words = question.trim().replace(/[?!.\s]+$/, '').split(/\s+/);
  if (words.length < leastWords) return [];
  const pattern = words.map((word) => word.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')).join('\\s+');
  const found: LineRange[] = [];
  for (const { index, 0: match } of text.matchAll(new RegExp(`(?<![\\p{L}\\p{N}_])${pattern}(?![\\p{L}\\p{N}_])`, 'giu'))) {
    const end = index + match.length;
    const lineEnd = text.indexOf('\n', end);
    const before = text.slice(text.lastIndexOf('\n', index - 1) + 1, index).replace(/<[^<>]*>/g, '');
    const after = text.slice(end, lineEnd < 0 ? undefined : lineEnd).replace(/<[^<>]*>/g, '');
    if (mark.test(before) && endMark.test(after)) continue;
    const start_line = countLines(text, index);
    found.push({ start_line, end_line: start_line + countLines(match, match.length) - 1 });
  }
  return found;
}

/** The number of the line that offset `end` is on. */
function countLines(text: string, end: number): number {
  let lines = 1;
  for (let at = text.indexOf('\n'); at >= 0 && at < end; at = text.indexOf('\n', at + 1)) lines++;
  return lines;
}

interface Located {
  readonly file: FileName;
  readonly lines: LineRange;
}

/** Those that hold a quotation of the question; `textOf` gives the text of a file, or undefined where it cannot be read. */
export async function quoting<T>(
  question: string,
  segments: readonly T[],
  locate: (segment: T) => Located,
  textOf: (file: FileName) => Promise<string | undefined>,
): Promise<Set<T>> {
  const byFile = new Map<string, LineRange[]>();
  const found = new Set<T>();
  for (const segment of segments) {
    const { file, lines } = locate(segment);
    const name = `${file.root}\0${file.path}`;
    let quoted = byFile.get(name);
    if (!quoted) {
      const text = await textOf(file);
      byFile.set(name, (quoted = text === undefined ? [] : quotations(question, text)));
    }
    if (quoted.some(({ start_line, end_line }) => start_line <= lines.end_line && lines.start_line <= end_line)) found.add(segment);
  }
  return found;
}
