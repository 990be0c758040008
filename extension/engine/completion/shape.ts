// Generated text → what is inserted at a place: indented in the file's own unit at a depth that the block allows, with nothing that
// stands behind the cursor already. Pure; offsets are UTF-16.

import { depthOf, leading, opening, type Place } from './place';

export interface Shaped {
  /** In place of text[start … cursor]; empty: nothing to offer. */
  readonly text: string;
  /** The cursor, or the start of its line where white space is replaced. */
  readonly start: number;
}

const pairs: Readonly<Record<string, string>> = { ')': '(', ']': '[', '}': '{' };
/** So many characters of what follows are no coincidence. */
const leastOverlap = 4;

export function shape(place: Place, generated: string): Shaped {
  const nothing = { text: '', start: place.offset };
  const lines = generated.split('\n').map((line) => line.replace(/\s+$/, ''));
  if (place.blank) while (lines.length > 0 && lines[0] === '') lines.shift();
  while (lines.length > 0 && lines.at(-1) === '') lines.pop();
  if (lines.length === 0) return nothing;
  if (place.blank) return shapeBlank(place, lines);

  const first = firstLine(place, lines[0]!);
  const text = withoutWhatFollows(place, [first, ...indented(place, first, lines.slice(1))].join('\n'));
  return text.trim() === '' ? nothing : { text: withNewlines(place, text), start: place.offset };
}

/** Whole lines at the place of a blank one; the white space before the cursor stays where it can. */
function shapeBlank(place: Place, lines: readonly string[]): Shaped {
  const { unit, before, newline } = place;
  const step = stepOf(lines, unit);
  const found = depthOf(leading(lines[0]!), unit, unit === '\t' ? step : unit.length);
  const closes = /^\s*[)\]}]/.test(lines[0]!);
  const least = closes ? Math.max(0, place.least - 1) : place.least;
  const most = closes ? Math.max(least, place.most - 1) : place.most;
  const first = place.chosen ?? Math.max(least, Math.min(found, most));
  const origin = depthOf(leading(lines[0]!), unit, step);
  const text = lines
    .map((line) => {
      if (line === '') return '';
      const depth = Math.max(0, first + depthOf(leading(line), unit, step) - origin);
      return unit.repeat(depth) + line.slice(leading(line).length);
    })
    .join(newline);
  if (text.trim() === '') return { text: '', start: place.offset };
  return text.startsWith(before) ? { text: text.slice(before.length), start: place.offset } : { text, start: place.lineStart };
}

/** One space between what stands there and what is new, never two. */
function firstLine({ before }: Place, line: string): string {
  if (/\s$/.test(before)) return line.trimStart();
  return line.replace(/^[ \t]{2,}/, ' ');
}

/** The lines behind the first one, where the cursor's line goes on: one level deeper if that opens a block, else no deeper than one. */
function indented(place: Place, first: string, lines: readonly string[]): string[] {
  const { unit, before } = place;
  const step = stepOf([before, ...lines], unit);
  const own = depthOf(leading(before), unit);
  const next = lines.find((line) => line !== '');
  if (next === undefined) return [...lines];
  const origin = depthOf(leading(next), unit, step);
  let wanted = Math.min(Math.max(own, origin), own + 1);
  if (/^\s*[)\]}]/.test(next)) wanted = own;
  else if (opening(before + first, place.colonBlocks) !== null) wanted = own + 1;
  return lines.map((line) => {
    if (line === '') return '';
    const depth = Math.max(own, wanted + depthOf(leading(line), unit, step) - origin);
    return unit.repeat(depth) + line.slice(leading(line).length);
  });
}

/** Columns of one level in generated lines: the smallest step between them that is more than a stray space. */
function stepOf(lines: readonly string[], unit: string): number {
  const usual = unit === '\t' ? 4 : unit.length;
  const columns = lines.filter((line) => line.trim() !== '' && !leading(line).includes('\t')).map((line) => leading(line).length);
  const steps = columns.flatMap((a) => columns.map((b) => a - b)).filter((difference) => difference > 1);
  const least = Math.min(...steps, Infinity);
  // Steps of the file's own size, or multiples of it, are the file's.
  return least === Infinity || least % usual === 0 ? usual : least;
}

/** Takes off what closes a bracket or string that is closed behind the cursor already, and what the rest of the line begins with. */
function withoutWhatFollows({ before, after }: Place, text: string): string {
  const behind = after.trim();
  if (behind === '') return text;
  const quote = behind[0]!;
  if (`"'\``.includes(quote) && isInString(before, quote)) {
    const end = unescaped(text, quote);
    return end < 0 ? text : text.slice(0, end);
  }
  const own: string[] = [];
  let inString = '';
  for (let i = 0; i < text.length; i++) {
    const character = text[i]!;
    if (inString !== '') {
      if (character === '\\') i++;
      else if (character === inString) inString = '';
    } else if (`"'\``.includes(character) && unescaped(text.slice(i + 1).split('\n', 1)[0]!, character) >= 0) {
      inString = character;
    } else if ('([{'.includes(character)) {
      own.push(character);
    } else if (character in pairs) {
      if (own.at(-1) === pairs[character]) own.pop();
      else if (behind.startsWith(character)) return text.slice(0, i).replace(/\s+$/, '');
    }
  }
  const trimmed = text.replace(/\s+$/, '');
  for (let length = Math.min(trimmed.length, behind.length); length > 0; length--) {
    if (length < leastOverlap && length < behind.length) break;
    if (trimmed.endsWith(behind.slice(0, length)) && !(behind in pairs)) return trimmed.slice(0, -length).replace(/\s+$/, '');
  }
  return trimmed;
}

function isInString(before: string, quote: string): boolean {
  return before.replaceAll(`\\${quote}`, '').split(quote).length % 2 === 0;
}

function unescaped(text: string, quote: string): number {
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '\\') i++;
    else if (text[i] === quote) return i;
  }
  return -1;
}

function withNewlines({ newline }: Place, text: string): string {
  return newline === '\n' ? text : text.replaceAll('\n', newline);
}
