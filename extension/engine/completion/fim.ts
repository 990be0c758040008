// Text around the cursor → the tail that fills the gap. Pure. The suffix comes first, because the linear layers remember what is
// near the end: the text just before the cursor. Special tokens come from sala.json's templates only.

import { EngineError } from '../errors';
import type { ModelFolder } from '../model-folder';
import { concat, type Tokenizer } from '../tokenizer';
import { headerTokens } from '../workspace/header';

export interface FimInput {
  /** Relative to its root, with '/'. */
  readonly path: string;
  readonly text: string;
  /** Cursor: UTF-16 offset in `text`; within a surrogate pair it counts as before the pair. */
  readonly offset: number;
  /**
   * Where the text before the cursor begins, as an earlier tail had it: while the user types on, the window stays and the tail
   * only grows at its end. Ignored where more text would be in it than fits.
   */
  readonly windowStart?: number;
  /** At most so many tokens, where the machine wants less than sala.json allows. */
  readonly prefixTokens?: number;
  readonly suffixTokens?: number;
}

export interface FimTail {
  /** Behind P: header, suffix, prefix, and the token that asks for the middle. */
  readonly tokens: Int32Array;
  /** [begin, end): the tail's last tokens, which ask for the view of this place. */
  readonly span: readonly [number, number];
  /** UTF-16 offset in `text` where the text before the cursor begins. */
  readonly windowStart: number;
}

/** More than any text of a tail takes; longer ones are not even looked at. */
const unitsPerToken = 32;

/** Throws `unsupported` if the model cannot fill in the middle. */
export function fimTail(model: Pick<ModelFolder, 'dir' | 'sala'>, tokenizer: Tokenizer, input: FimInput): FimTail {
  const { fim, completion, tail_tokens } = model.sala;
  if (fim === null) throw new EngineError('unsupported', `${model.dir}: expected a model that fills in the middle, sala.json has no fim`);
  const { text } = input;
  const offset = wholeCharacter(text, Math.max(0, Math.min(input.offset, text.length)));
  const most = Math.min(input.prefixTokens ?? Infinity, completion.prefix_tokens);
  const before = beforeCursor(tokenizer, text, offset, most, input.windowStart);
  const after = afterCursor(tokenizer, text.slice(offset), Math.min(input.suffixTokens ?? Infinity, completion.suffix_tokens));
  const tokens = concat([
    headerTokens(tokenizer, fim.header, input.path, Math.floor(tail_tokens / 4)),
    tokenizer.encodeTemplate(fim.suffix),
    after,
    tokenizer.encodeTemplate(fim.prefix),
    before.tokens,
    tokenizer.encodeTemplate(fim.middle),
  ]);
  const span = [Math.max(0, tokens.length - completion.question_tokens), tokens.length] as const;
  return { tokens, span, windowStart: before.start };
}

/**
 * The text before the cursor: from `windowStart` if it fits from there, else whole lines as far as they fit, but no less than
 * half of what fits: where a line is too long, its end.
 */
function beforeCursor(
  tokenizer: Tokenizer,
  text: string,
  offset: number,
  maxTokens: number,
  windowStart: number | undefined,
): { tokens: Int32Array; start: number } {
  const from = (start: number): { tokens: Int32Array; start: number } => ({ tokens: tokenizer.encodeText(text.slice(start, offset)), start });
  const floor = wholeCharacter(text, Math.max(0, offset - maxTokens * unitsPerToken));
  if (windowStart !== undefined && windowStart >= floor && windowStart <= offset) {
    const kept = from(wholeCharacter(text, windowStart));
    if (kept.tokens.length <= maxTokens) return kept;
  }
  // A first guess by lines apart, which have about as many tokens as together; then line by line until it fits.
  let start = offset;
  for (let line = Math.max(floor, lineStart(text, offset)), sum = 0; ; line = Math.max(floor, lineStart(text, start - 1))) {
    sum += tokenizer.encodeLine(text.slice(line, start)).length;
    if (sum > maxTokens) break;
    start = line;
    if (start === floor) break;
  }
  for (; start < offset; start = text.indexOf('\n', start) + 1 || offset) {
    const lines = from(start);
    if (lines.tokens.length > maxTokens) continue;
    if (lines.tokens.length >= maxTokens / 2 || start === 0) return lines;
    break;
  }
  const ids = tokenizer.encodeText(text.slice(floor, offset));
  for (let keep = Math.min(maxTokens, ids.length); keep > 0; keep--) {
    if (startsInsideCharacter(tokenizer, ids[ids.length - keep])) continue;
    const part = from(offset - tokenizer.decode(ids.slice(ids.length - keep)).length);
    if (part.tokens.length <= maxTokens) return part;
  }
  return from(offset);
}

/** The beginning of the text behind the cursor: whole lines as far as there are any, but no less than half of what fits. */
function afterCursor(tokenizer: Tokenizer, text: string, maxTokens: number): Int32Array {
  const ids = tokenizer.encodeText(text.slice(0, wholeCharacter(text, Math.min(text.length, maxTokens * unitsPerToken))));
  if (ids.length <= maxTokens) return ids;
  let end = maxTokens;
  while (end > maxTokens / 2 && tokenizer.bytesOf(ids[end - 1] as number).at(-1) !== 10) end--;
  if (end > maxTokens / 2) return ids.slice(0, end);
  // No line ends in the second half: as much as fits, but no half character at the end.
  for (end = maxTokens; end > 0 && startsInsideCharacter(tokenizer, ids[end]); end--);
  return ids.slice(0, end);
}

/** Continuation bytes of UTF-8 are 10xxxxxx. */
function startsInsideCharacter(tokenizer: Tokenizer, id: number | undefined): boolean {
  return id !== undefined && ((tokenizer.bytesOf(id)[0] ?? 0) & 0xc0) === 0x80;
}

/** Start of the line that the position is in; a position behind a line's ending is in the next one. */
function lineStart(text: string, position: number): number {
  return position === 0 ? 0 : text.lastIndexOf('\n', position - 1) + 1;
}

function wholeCharacter(text: string, offset: number): number {
  const inPair = (text.charCodeAt(offset) & 0xfc00) === 0xdc00 && (text.charCodeAt(offset - 1) & 0xfc00) === 0xd800;
  return inPair ? offset - 1 : offset;
}
