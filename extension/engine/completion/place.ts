// What the text around a cursor says about what may stand there: the file's unit of indentation and line ending, which depths the
// block allows, whether more than one line may come. Pure; offsets are UTF-16.

export interface PlaceInput {
  readonly path: string;
  readonly text: string;
  /** Within a surrogate pair it counts as before the pair. */
  readonly offset: number;
  readonly languageId?: string;
  /** The editor's settings: what holds in a file without any indentation of its own. */
  readonly insertSpaces?: boolean;
  readonly tabSize?: number;
}

export interface Place {
  readonly text: string;
  readonly offset: number;
  readonly lineStart: number;
  /** The cursor's line up to the cursor, and from there on without its ending. */
  readonly before: string;
  readonly after: string;
  readonly newline: '\n' | '\r\n';
  /** One level of this file: a tab or spaces. */
  readonly unit: string;
  /** A line's end in `:` opens a block, and the block ends by its indentation. */
  readonly colonBlocks: boolean;
  /** Nothing but white space is on the cursor's line: its depth is still open. */
  readonly blank: boolean;
  /** Text other than closing brackets stands behind the cursor: nothing may come between but a part of this line. */
  readonly singleLine: boolean;
  /** The nearest lines with text above and below the cursor's. */
  readonly previous: string | null;
  readonly next: string | null;
  /** Depths at which a statement on a blank line may stand. */
  readonly least: number;
  readonly most: number;
  /** The depth that was chosen by hand: another one than the editor's own. */
  readonly chosen: number | null;
}

const colonLanguages = new Set(['python', 'yaml', 'dockercompose', 'makefile', 'nim', 'gdscript']);
const colonFiles = /(?:\.(?:pyi?|pyx|ya?ml|nim|gd|mk)|(?:^|\/)(?:GNUm|M|m)akefile)$/;
/** Languages whose own formatter wants tabs; for files that show no indentation yet. */
const tabFiles = /(?:\.(?:go|mk)|(?:^|\/)(?:GNUm|M|m)akefile)$/;
/** What may stand behind a cursor where a statement still ends: an editor closes brackets and quotes by itself. */
const closersOnly = /^[\s)\]}"'`;,]*$/;
const closing = /^\s*(?:[)\]}]|(?:end|else|elif|elsif|except|finally|catch|fi|done|esac)\b)/;

export function placeOf(input: PlaceInput): Place {
  const { text } = input;
  const offset = roundedOffset(text, input.offset);
  const lineStart = text.lastIndexOf('\n', offset - 1) + 1;
  const lineEnd = text.indexOf('\n', offset) < 0 ? text.length : text.indexOf('\n', offset);
  const before = text.slice(lineStart, offset);
  const after = text.slice(offset, lineEnd).replace(/\r$/, '');
  const above = text.slice(0, lineStart).split('\n').map(withoutReturn);
  const below = text.slice(lineEnd + 1).split('\n').map(withoutReturn);
  const previous = above.findLast((line) => line.trim() !== '') ?? null;
  const next = below.find((line) => line.trim() !== '') ?? null;
  const unit = unitOf(input, [...above, before.trim() === '' ? before : `${before}x`, ...below]);
  const colonBlocks = colonLanguages.has(input.languageId ?? '') || colonFiles.test(input.path);
  const blank = before.trim() === '' && after.trim() === '';
  const range = depthsAllowed(previous, next, unit, colonBlocks);
  const byHand = depthOf(before, unit);
  return {
    text,
    offset,
    lineStart,
    before,
    after,
    newline: text.includes('\r\n') ? '\r\n' : '\n',
    unit,
    colonBlocks,
    blank,
    singleLine: !closersOnly.test(after),
    previous,
    next,
    ...range,
    // The editor indents a new line as the one above, or one level more: that much is no decision.
    chosen: blank && before !== '' && byHand !== range.most && byHand >= range.least && byHand < range.most ? byHand : null,
  };
}

/**
 * The text for the model. White space before the cursor of a blank line is withheld: the model writes a line's indentation as the
 * first token of that line, cannot go on behind a part of it, and may want less of it than the editor put there.
 */
export function promptText(place: Place): { readonly text: string; readonly offset: number } {
  if (!place.blank) return place;
  return { text: place.text.slice(0, place.lineStart) + place.text.slice(place.offset + place.after.length), offset: place.lineStart };
}

function depthsAllowed(previous: string | null, next: string | null, unit: string, colonBlocks: boolean): { least: number; most: number } {
  const opens = previous !== null && opening(previous, colonBlocks) !== null;
  const most = previous === null ? 0 : depthOf(leading(previous), unit) + (opens ? 1 : 0);
  let least = 0;
  if (opens) least = most;
  else if (next !== null) least = depthOf(leading(next), unit) + (closing.test(next) ? 1 : 0);
  return { least: Math.min(least, most), most };
}

/**
 * What makes the lines behind this one stand one level deeper, if anything does: a bracket, which another one closes, or a word or
 * colon, whose block ends by its indentation.
 */
export function opening(line: string, colonBlocks: boolean): 'bracket' | 'word' | null {
  const code = withoutComment(line, colonBlocks).trimEnd();
  if (/[{([]$/.test(code)) return 'bracket';
  if (/(?:^|\s)(?:then|do|else|begin)$/.test(code)) return 'word';
  const colon = colonBlocks ? code.endsWith(':') : /^\s*(?:case\b.*|default\s*):$/.test(code);
  return colon ? 'word' : null;
}

export function withoutComment(line: string, colonBlocks: boolean): string {
  return line.replace(colonBlocks ? /(?:^|\s)#.*$/ : /(?:^|\s)\/\/.*$/, '');
}

/** Whole levels: a tab is one, and so are the unit's spaces; `step` where the text's level is another one than the file's. */
export function depthOf(indentation: string, unit: string, step = unit === '\t' ? 4 : unit.length): number {
  let [tabs, spaces] = [0, 0];
  for (const character of indentation) {
    if (character === '\t') tabs++;
    else spaces++;
  }
  return tabs + Math.round(spaces / step);
}

export function leading(line: string): string {
  return /^[ \t]*/.exec(line)![0];
}

/**
 * A file's own unit: tabs if more of its lines begin with one than with spaces, else the most frequent step from a line to a
 * deeper one behind it. Without any, what the editor is set to.
 */
function unitOf({ path, insertSpaces, tabSize }: PlaceInput, lines: readonly string[]): string {
  let [tabbed, spaced, depth] = [0, 0, 0];
  const steps = new Map<number, number>();
  for (const line of lines) {
    const indentation = leading(line);
    if (indentation.startsWith('\t')) tabbed++;
    else if (indentation !== '') spaced++;
    if (indentation.includes('\t') || indentation.length === line.length) continue;
    // A comment's second line stands one column further in.
    const step = indentation.length - depth;
    if (step > 1 && step <= 8) steps.set(step, (steps.get(step) ?? 0) + 1);
    depth = indentation.length;
  }
  if (tabbed > 0 && tabbed >= spaced) return '\t';
  const [best] = [...steps].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  if (best !== undefined) return ' '.repeat(best[0]);
  if (spaced > 0) {
    const least = Math.min(...lines.map((line) => leading(line).length).filter((length) => length > 1));
    if (least <= 8) return ' '.repeat(least);
  }
  const withTabs = insertSpaces === undefined ? tabFiles.test(path) : !insertSpaces;
  return withTabs ? '\t' : ' '.repeat(Math.max(1, Math.min(tabSize ?? 4, 8)));
}

function withoutReturn(line: string): string {
  return line.endsWith('\r') ? line.slice(0, -1) : line;
}

function roundedOffset(text: string, wanted: number): number {
  const offset = Math.max(0, Math.min(wanted, text.length));
  const inPair = (text.charCodeAt(offset) & 0xfc00) === 0xdc00 && (text.charCodeAt(offset - 1) & 0xfc00) === 0xd800;
  if (inPair) return offset - 1;
  // Nor between the two characters of a line's ending.
  return text[offset] === '\n' && text[offset - 1] === '\r' ? offset - 1 : offset;
}
