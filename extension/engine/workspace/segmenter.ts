// One file's bytes → segments: pure, the same for the same bytes, path and model. Borders are content-defined: where they lie is
// decided by the text around them, never by a count from the top of the file, so that an edit moves only borders near it.
//
// The file is cut at its strongest border, the two parts at theirs, and so on until every part fits into a segment. How strong a
// border is depends on its nesting in the syntax and, among equals, on a hash of the lines that follow it. Whether a border cuts
// therefore depends only on the text up to the next stronger borders that cut, on either side; a changed line can change no more
// than that. (A treap's argument: Seidel and Aragon, "Randomized search trees", section 3, with hashes as priorities.)

import type { SalaJson } from '../model-folder';
import { concat, linesOf, type Tokenizer } from '../tokenizer';
import type { Grammar, Nesting } from './grammars';
import { headerTokens } from './header';

/** Raised whenever the same bytes may be cut otherwise. */
export const cutterVersion = 1;

export interface SegmentCut {
  /** [startByte, endByte) of the file as read. The segments of a file, put together, are the file. */
  readonly startByte: number;
  readonly endByte: number;
  /** First and last line that the segment has bytes of, counted from 1. */
  readonly startLine: number;
  readonly endLine: number;
  /** Header, then the text. */
  readonly tokens: Int32Array;
  readonly headerTokens: number;
}

export interface CutterParts {
  readonly tokenizer: Tokenizer;
  readonly segment: SalaJson['segment'];
  /** null: no grammar for this file, cut by indentation, blank lines and headings. */
  readonly grammar: Grammar | null;
}

/**
 * A part of more tokens is cut, though the model may allow more: an edit costs a segment at least. Measured over edits of 1–4
 * lines in 8,905 files of many languages, tokens encoded again, median and p95: 313 and 751 with parts of at most 400 (mean 224),
 * 352 and 736 with 440 (mean 258), 388 and 785 with 480 (mean 281). Fewer and longer segments hold fewer headers.
 */
const targetTokens = 440;
/** No cut is made so near the end of a part, while there is another place. */
const leastTokens = 120;
/** A border's hash is that of so many lines behind it. */
const hashedLines = 2;

/** Cuts a file. `bytes` must be UTF-8. An empty file has no segments. */
export function cutFile(path: string, bytes: Uint8Array, { tokenizer, segment, grammar }: CutterParts): SegmentCut[] {
  const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  const header = headerTokens(tokenizer, segment.header, path, Math.floor(segment.max_tokens / 2));
  const limit = segment.max_tokens - header.length;
  const lines = linesOf(text);
  const nesting = grammar?.nesting(text, lines.length) ?? layoutNesting(lines, /\.(md|mdx|markdown)$/i.test(path));
  const units = unitsOf(lines, nesting, tokenizer, limit);
  return cuts(units, limit).map(([first, end]) => ({
    startByte: units.startByte[first] as number,
    endByte: units.startByte[end] as number,
    startLine: (units.line[first] as number) + 1,
    endLine: (units.line[end - 1] as number) + 1,
    tokens: concat([header, ...units.tokens.slice(first, end)]),
    headerTokens: header.length,
  }));
}

// ---- units ------------------------------------------------------------------------------------------------------------

/** What is never cut: lines, and single tokens of a line that is longer than a segment. Border i lies before unit i. */
interface Units {
  readonly tokens: Int32Array[];
  /** One more than there are units, as are `startToken`: the last is the end. */
  readonly startByte: number[];
  readonly startToken: number[];
  /** The line it belongs to, counted from 0. */
  readonly line: number[];
  /** How gladly not to cut before it: the least is cut first. */
  readonly resistance: number[];
}

function unitsOf(lines: readonly string[], nesting: Nesting, tokenizer: Tokenizer, limit: number): Units {
  const units: Units = { tokens: [], startByte: [0], startToken: [0], line: [], resistance: [] };
  const hashes = Uint32Array.from(lines, hashText);
  let byte = 0;
  let token = 0;
  const add = (tokens: Int32Array, endByte: number, line: number, resistance: number): void => {
    units.tokens.push(tokens);
    units.line.push(line);
    units.resistance.push(resistance);
    units.startByte.push(endByte);
    units.startToken.push((token += tokens.length));
  };
  lines.forEach((text, line) => {
    const begin = byte;
    byte += Buffer.byteLength(text);
    const tokens = tokenizer.encodeLine(text);
    const resistance = borderLevel(lines, nesting, line) * 2 ** 32 + hashOf(hashes, line);
    if (tokens.length <= limit) return add(tokens, byte, line, resistance);
    let end = begin;
    tokens.forEach((id, i) => {
      end = i === tokens.length - 1 ? byte : end + tokenizer.byteLength(id);
      // Continuation bytes of UTF-8 are 10xxxxxx: a cut before one would part a character.
      const insideCharacter = ((tokenizer.bytesOf(id)[0] ?? 0) & 0xc0) === 0x80;
      const own = (insideCharacter ? weakest : weakest - 1) * 2 ** 32 + hashOf(tokens, i);
      add(tokens.subarray(i, i + 1), end, line, i === 0 ? resistance : own);
    });
  });
  return units;
}

/** Above every level of a border between lines; with 32 bits of hash behind it, still an exact number. */
const weakest = 2 ** 20;

/** Nesting first; then whether a construct would be parted from its edge; then whether a blank line shows the border. */
function borderLevel(lines: readonly string[], { depth, attached }: Nesting, line: number): number {
  if (line === 0) return 0;
  const beforeBlank = isBlank(lines[line]);
  const part = beforeBlank || attached[line - 1] === 1 ? 2 : 0;
  return (depth[line - 1] as number) * 4 + part + (isBlank(lines[line - 1]) && !beforeBlank ? 0 : 1);
}

/** Nesting where no grammar fits: by indentation and, in Markdown, headings. */
function layoutNesting(lines: readonly string[], markdown: boolean): Nesting {
  const depth = new Uint16Array(Math.max(0, lines.length - 1));
  const attached = new Uint8Array(depth.length);
  let above = 0;
  let fenced = false;
  lines.forEach((line, i) => {
    if (markdown && /^ {0,3}(```|~~~)/.test(line)) fenced = !fenced;
    if (isBlank(line)) {
      if (i > 0) depth[i - 1] = above;
      return;
    }
    const heading = markdown && !fenced ? (/^(#{1,6})\s/.exec(line)?.[1]?.length ?? 0) : 0;
    const indent = heading > 0 ? heading - 1 : indentOf(line) + (markdown ? 6 + Number(fenced) : 0);
    if (i > 0) {
      depth[i - 1] = indent;
      attached[i - 1] = Number(indent > above || /^\s*([)\]}]|<\/|end\b)/.test(line));
    }
    above = indent;
  });
  return { depth, attached };
}

/** Columns of white space in front, a tab as four, at most 60. */
function indentOf(line: string): number {
  let columns = 0;
  for (const char of line) {
    if (char === ' ') columns++;
    else if (char === '\t') columns += 4;
    else break;
  }
  return Math.min(columns, 60);
}

function isBlank(line: string | undefined): boolean {
  return line === undefined || /^\s*$/.test(line);
}

// ---- cuts -------------------------------------------------------------------------------------------------------------

/** [first, end) of each part, in order. */
function cuts(units: Units, limit: number): [number, number][] {
  const { startToken, resistance } = units;
  const n = units.tokens.length;
  const strongest = new StrongestBorder(resistance);
  const most = Math.min(limit, targetTokens);
  const parts: [number, number][] = [];
  const open: [number, number][] = n > 0 ? [[0, n]] : [];
  for (let part = open.pop(); part !== undefined; part = open.pop()) {
    const [first, end] = part;
    const begins = startToken[first] as number;
    const ends = startToken[end] as number;
    if (ends - begins <= most || (end - first === 1 && ends - begins <= limit)) {
      parts.push(part);
      continue;
    }
    const least = Math.min(leastTokens, most / 4);
    const from = lowerBound(startToken, begins + least, first + 1, end);
    const to = lowerBound(startToken, ends - least + 1, first + 1, end);
    // Where long lines leave no border in the middle, any will do.
    const border = from < to ? strongest.within(from, to) : strongest.within(first + 1, end);
    open.push([border, end], [first, border]);
  }
  return parts;
}

/** The least index in [from, to) with values[index] >= least, else `to`. Values ascend. */
function lowerBound(values: readonly number[], least: number, from: number, to: number): number {
  while (from < to) {
    const middle = (from + to) >> 1;
    if ((values[middle] as number) < least) from = middle + 1;
    else to = middle;
  }
  return from;
}

/** Least resistance within a range, the first of equals: a segment tree, since text that repeats makes parts fall off one by one. */
class StrongestBorder {
  private readonly size: number;
  /** Node k has the children 2k and 2k + 1; leaf i is node size + i. Each holds the index of its strongest border. */
  private readonly best: Int32Array;

  constructor(private readonly resistance: readonly number[]) {
    this.size = 1;
    while (this.size < resistance.length) this.size *= 2;
    this.best = new Int32Array(2 * this.size).fill(-1);
    for (let i = 0; i < resistance.length; i++) this.best[this.size + i] = i;
    for (let node = this.size - 1; node > 0; node--) this.best[node] = this.stronger(this.best[2 * node], this.best[2 * node + 1]);
  }

  /** `from` < `to`. */
  within(from: number, to: number): number {
    let best = -1;
    for (let left = from + this.size, right = to + this.size; left < right; left >>= 1, right >>= 1) {
      if (left & 1) best = this.stronger(best, this.best[left++]);
      if (right & 1) best = this.stronger(best, this.best[--right]);
    }
    return best;
  }

  private stronger(a: number | undefined, b: number | undefined): number {
    if (a === undefined || a < 0) return b ?? -1;
    if (b === undefined || b < 0) return a;
    const difference = (this.resistance[a] as number) - (this.resistance[b] as number);
    return difference < 0 || (difference === 0 && a < b) ? a : b;
  }
}

// ---- hashes -----------------------------------------------------------------------------------------------------------

/** FNV-1a over UTF-16 units; the line's ending is left out, so that it does not matter to the cuts. */
function hashText(line: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < line.length; i++) {
    const unit = line.charCodeAt(i);
    if (unit !== 10 && unit !== 13) hash = Math.imul(hash ^ unit, 0x01000193);
  }
  return hash >>> 0;
}

/** Of `hashedLines` values from `begin` on; the final mixing is MurmurHash3's, since FNV's upper bits are poor. */
function hashOf(values: ArrayLike<number>, begin: number): number {
  let hash = 0x811c9dc5;
  for (let i = begin; i < Math.min(begin + hashedLines, values.length); i++) hash = Math.imul(hash ^ (values[i] as number), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
