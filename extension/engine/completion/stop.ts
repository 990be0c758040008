// When a completion is complete. The generated text is looked at as it comes; it ends with one construct: a statement, or the block
// that it opens. Going round in circles, repeating what stands there already, and falling out of the cursor's block end it too. Pure.

import { depthOf, leading, opening, withoutComment, type Place } from './place';

const maxLines = 12;
/** A statement hardly needs more words of explanation in front of it. */
const maxCommentLines = 2;
/** Greedy decoding of a small model loops: so many times the same few tokens are no code. */
const maxPeriod = 8;
const loops = 4;
/** Nor is the same run of so many tokens a second time. */
const repeatedTokens = 16;

type Verdict = 'go on' | 'end' | 'cut';

interface Open {
  readonly bracket: string;
  /** Number of the generated line that opened it; −1: it was open before the cursor. */
  readonly line: number;
}

const pairs: Readonly<Record<string, string>> = { ')': '(', ']': '[', '}': '{' };
const closers: Readonly<Record<string, string>> = { '(': ')', '[': ']', '{': '}' };

export class StopRules {
  private text = '';
  /** Length of the text behind each token: where a loop is cut. */
  private readonly lengths: number[] = [];
  private readonly ids: number[] = [];
  private lines: string[] = [];
  /** Where the line begins that is not complete yet. */
  private from = 0;
  private over = false;
  private open: Open[];
  /** So many of the open brackets are closed by what stands behind the cursor. */
  private readonly closedBehind: number;
  private base: number | undefined;
  /** A block without brackets is open: it ends by its indentation. */
  private indented = false;

  constructor(private readonly place: Place) {
    this.open = brackets(place.before, -1, place.colonBlocks).open;
    let closed = [...place.after].filter((character) => character in pairs).length;
    const below = /^(\s*)([)\]}]+)/.exec(place.next ?? '');
    if (!place.blank && below && depthOf(below[1]!, place.unit) === depthOf(leading(place.before), place.unit)) closed += below[2]!.length;
    this.closedBehind = Math.min(closed, this.open.length);
    if (!place.blank) this.base = depthOf(leading(place.before), place.unit);
  }

  /** Takes a token and the whole characters that came with it. True: it is enough. */
  push(id: number, text: string): boolean {
    if (this.over) return true;
    this.text += text;
    this.ids.push(id);
    this.lengths.push(this.text.length);
    while (!this.over) {
      const end = this.text.indexOf('\n', this.from);
      if (end < 0) break;
      this.completeLine(this.text.slice(this.from, end));
      this.from = end + 1;
    }
    if (!this.over) this.breakLoop();
    return this.over;
  }

  /** What is kept. `ended`: the model said so itself, so that its last line is whole. */
  finish(ended: boolean): string {
    if (!this.over) {
      const rest = this.text.slice(this.from);
      if (ended || this.lines.length === 0) {
        if (rest.trim() !== '') this.completeLine(rest);
      }
      if (!this.over) this.closeOpened();
    }
    return this.withoutOpenComment(this.lines.join('\n'));
  }

  /** A comment that was broken off would take in the rest of the file. */
  private withoutOpenComment(text: string): string {
    if (!this.place.colonBlocks) return text.replace(/(?:^|\s+)\/\*(?![^]*\*\/)[^]*$/, '');
    const parts = text.split('"""');
    return parts.length % 2 === 1 || this.place.before.includes('"""') ? text : parts.slice(0, -1).join('"""');
  }

  // ---- lines --------------------------------------------------------------------------------------------------------------

  private completeLine(raw: string): void {
    const line = raw.replace(/\s+$/, '');
    // A blank line is where the cursor is: more of them in front are no text.
    if (line === '' && this.place.blank && this.lines.length === 0) return;
    const verdict = this.judge(line);
    if (verdict !== 'cut') this.lines.push(line);
    if (verdict === 'go on' && this.lines.length < maxLines) return;
    while (this.lines.length > 0 && this.lines.at(-1)!.trim() === '' && (this.place.blank || this.lines.length > 1)) this.lines.pop();
    if (verdict !== 'end') this.closeOpened();
    this.over = true;
  }

  private judge(line: string): Verdict {
    const { place } = this;
    const first = this.lines.length === 0;
    const onCursorLine = first && !place.blank;
    if (place.singleLine) return 'end';
    const { colonBlocks } = place;
    const whole = onCursorLine ? place.before + line : line;
    const words = line.trim();
    if (words === '') return this.judgeBlank(onCursorLine, whole);

    const depth = depthOf(leading(whole), place.unit);
    this.base ??= depth;
    const found = brackets(line, this.lines.length, colonBlocks, this.open);
    if (!onCursorLine && this.repeats(words, found.unmatched)) return 'cut';
    if (!onCursorLine && this.indented && depth <= this.base) {
      if (/^(?:end|fi|done|esac)\b/.test(words)) return 'end';
      if (!/^(?:else|elif|elsif|except|finally|catch|rescue|case|when)\b/.test(words) || depth < this.base) return 'cut';
    } else if (!first && depth < this.base) {
      return 'cut';
    }
    this.open = found.open;
    // It closes what was open before the cursor; where that is closed behind it already, shape.ts takes the bracket off again.
    if (found.unmatched) return 'end';

    const code = withoutComment(whole, colonBlocks).trim();
    const inBlock = this.indented || this.open.length > this.closedBehind;
    if (!inBlock && (code === '' || /^(?:\/\*|\*|--|"""|'''|@)/.test(code))) {
      const comments = this.lines.length + 1;
      return code.startsWith('@') || comments <= maxCommentLines ? 'go on' : 'end';
    }
    const opens = opening(whole, colonBlocks);
    if (opens === 'word') this.indented = true;
    if (opens !== null) return 'go on';
    if (inBlock) return 'go on';
    // The statement goes on in the next line.
    return /(?:[,+*/=&|?.\\]|[^-]-|=>|->)$/.test(code) ? 'go on' : 'end';
  }

  private judgeBlank(onCursorLine: boolean, whole: string): Verdict {
    if (onCursorLine) {
      const opens = opening(whole, this.place.colonBlocks);
      if (opens === 'word') this.indented = true;
      return opens !== null || whole.trim() === '' || this.open.length > this.closedBehind ? 'go on' : 'end';
    }
    // One blank line may divide a block in brackets; behind the body of another one it is the end.
    const body = this.lines.length > (this.place.blank ? 1 : 0) + (this.indented ? 0 : 1);
    return (this.indented && body) || this.lines.at(-1)?.trim() === '' ? 'cut' : 'go on';
  }

  /** Whether a line says what stands there already. */
  private repeats(words: string, unmatched: boolean): boolean {
    const { previous, next } = this.place;
    if (/^[)\]};,\s]*$/.test(words)) return unmatched && next !== null && next.trim()[0] === words[0];
    if (words === next?.trim()) return true;
    const last = this.lines.findLast((line) => line.trim() !== '')?.trim();
    return words === (last ?? (this.place.blank ? previous?.trim() : undefined)) && words.length > 3;
  }

  /** Closes blocks in braces that were broken off: a block that never ends is worse than a short one. */
  private closeOpened(): void {
    const { place } = this;
    const opened = (): Open[] => {
      let { open } = brackets(place.before, -1, place.colonBlocks);
      this.lines.forEach((line, i) => ({ open } = brackets(line, i, place.colonBlocks, open)));
      return open.slice(this.closedBehind);
    };
    // Broken off within a list or a call: back to where a statement ends.
    while (this.lines.length > 1 && (opened().at(-1)?.bracket ?? '{') !== '{') this.lines.pop();
    // A clause that was broken off before it said anything: what stands in front of it is whole.
    const clause = /^(\s*\})[^{}]*\{$/.exec(this.lines.at(-1) ?? '');
    if (clause && this.lines.length > 1) this.lines[this.lines.length - 1] = clause[1]!;
    const open = opened();
    if (open.at(-1)?.bracket !== '{') return;
    // A literal within the line that was broken off is no block: closing it makes nothing whole.
    if (open.at(-1)!.line === this.lines.length - 1 && !withoutComment(this.lines.at(-1)!, place.colonBlocks).trimEnd().endsWith('{')) return;
    while (open.length > 0) {
      const { line } = open.at(-1)!;
      let closing = '';
      while (open.at(-1)?.line === line) closing += closers[open.pop()!.bracket]!;
      const opener = line < 0 || (line === 0 && !place.blank) ? place.before : this.lines[line]!;
      this.lines.push(leading(opener) + closing);
    }
  }

  // ---- loops --------------------------------------------------------------------------------------------------------------

  private breakLoop(): void {
    const n = this.ids.length;
    const again = n - repeatedTokens;
    const isSaidAgain = (start: number): boolean => this.ids.slice(again).every((id, i) => id === this.ids[start + i]);
    let first = -1;
    for (let start = 0; start < again && first < 0; start++) if (isSaidAgain(start)) first = again;
    for (let period = 1; period <= maxPeriod && first < 0; period++) {
      const loop = n - period * (period === 1 ? 2 * loops : loops);
      if (loop >= 0 && this.ids.slice(loop + period).every((id, i) => id === this.ids[loop + i])) first = loop + period;
    }
    // Deep indentation is no loop.
    if (first < 0 || this.text.slice(this.lengths[first - 1] ?? 0).trim() === '') return;
    this.over = true;
    if (this.lines.length > 0) return this.closeOpened();
    const kept = this.text.slice(this.from, this.lengths[first - 1] ?? 0).split('\n', 1)[0]!;
    this.lines = [kept.replace(/[\s.,+\-*/=&|(<:[{]+$/, '')];
  }
}

/**
 * Brackets that are open behind a line, given those before it. `unmatched`: it closes one that nothing generated has opened.
 * Strings that end on their line are skipped, and comments.
 */
function brackets(line: string, number: number, colonBlocks: boolean, before: readonly Open[] = []): { open: Open[]; unmatched: boolean } {
  const open = [...before];
  let unmatched = false;
  const code = withoutComment(line, colonBlocks).replace(/(["'`])(?:\\.|(?!\1)[^\\])*\1/g, '');
  for (const bracket of code) {
    if (bracket in closers) open.push({ bracket, line: number });
    else if (bracket in pairs) {
      if (open.at(-1)?.bracket === pairs[bracket]) open.pop();
      else if (number >= 0 && open.length === 0) unmatched = true;
    }
  }
  return { open, unmatched };
}
