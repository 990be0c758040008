// A markdown-it rule for code fences that holds a fence within a fence as one block. CommonMark closes a fence at the next bare
// run of its marker, so that an answer which shows Markdown breaks at the first inner fence. Here a run with an info string
// inside an open fence opens a nested one, and a bare run closes the innermost: what a writer means, since a closing fence can
// carry no info. Decided line by line from the top, hence the same for every prefix of a text that is still arriving.

import type { StateBlock } from 'markdown-it';

const backtick = 0x60;
const tilde = 0x7e;

interface Run {
  readonly marker: number;
  readonly length: number;
  readonly info: string;
}

/** Replaces markdown-it's own `fence` rule: `md.block.ruler.at('fence', nestedFence, { alt: … })`. */
export function nestedFence(state: StateBlock, startLine: number, endLine: number, silent: boolean): boolean {
  const opening = fenceRun(state, startLine);
  if (opening === null) return false;
  if (silent) return true;

  const open: Run[] = [opening];
  let nextLine = startLine + 1;
  let closed = false;
  for (; nextLine < endLine; nextLine += 1) {
    // Text with less indentation than the list item that holds the fence ends both.
    if (state.sCount[nextLine]! < state.blkIndent && !state.isEmpty(nextLine)) break;
    const run = fenceRun(state, nextLine);
    const innermost = open.at(-1)!;
    // Runs of the other marker, and shorter ones, are text wherever they stand.
    if (run === null || run.marker !== innermost.marker || run.length < innermost.length) continue;
    if (run.info !== '') {
      open.push(run);
      continue;
    }
    open.pop();
    if (open.length === 0) {
      closed = true;
      break;
    }
  }

  state.line = nextLine + (closed ? 1 : 0);
  const token = state.push('fence', 'code', 0);
  token.info = opening.info;
  token.content = state.getLines(startLine + 1, nextLine, state.sCount[startLine]!, true);
  token.markup = String.fromCharCode(opening.marker).repeat(opening.length);
  token.map = [startLine, state.line];
  token.meta = { closed };
  return true;
}

/** The fence marker that a line starts with, or null. Indented by four and more it is indented code, not a fence. */
function fenceRun(state: StateBlock, line: number): Run | null {
  if (state.sCount[line]! - state.blkIndent >= 4) return null;
  const start = state.bMarks[line]! + state.tShift[line]!;
  const end = state.eMarks[line]!;
  const marker = state.src.charCodeAt(start);
  if (marker !== backtick && marker !== tilde) return null;
  let pos = start;
  while (pos < end && state.src.charCodeAt(pos) === marker) pos += 1;
  if (pos - start < 3) return null;
  const info = state.src.slice(pos, end).trim();
  // A backtick in the info string makes the line inline code.
  if (marker === backtick && info.includes('`')) return null;
  return { marker, length: pos - start, info };
}
