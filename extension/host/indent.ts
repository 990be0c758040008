// Fits a block of code to the place where it is inserted: its own indentation is measured, taken off, and given again in the
// file's unit behind the cursor's indentation. Pure.

export interface Place {
  /** White space between the start of the cursor's line and the cursor. */
  readonly indentation: string;
  /** One level in this file: a tab or spaces. */
  readonly unit: string;
}

/** The block as it has to be inserted at the cursor; its first line stands where the cursor is. */
export function fitBlock(block: string, { indentation, unit }: Place): string {
  const lines = block.replace(/\r\n?/g, '\n').replace(/\n+$/, '').split('\n');
  const filled = lines.filter((line) => line.trim() !== '');
  const depths = filled.map((line) => columns(leading(line)));
  const least = Math.min(...depths, Infinity);
  const step = levelOf(filled.map(leading), depths, least);
  return lines
    .map((line, i) => {
      if (line.trim() === '') return '';
      const depth = columns(leading(line)) - least;
      // What is no whole level (an aligned argument) stays as spaces.
      const own = unit.repeat(Math.floor(depth / step)) + ' '.repeat(depth % step);
      return (i === 0 ? '' : indentation) + own + line.slice(leading(line).length);
    })
    .join('\n');
}

/** Columns that one level has in a block: a tab's, or the smallest step between its lines that is more than a stray space. */
function levelOf(indentations: readonly string[], depths: readonly number[], least: number): number {
  if (indentations.some((indentation) => indentation.includes('\t'))) return tabColumns;
  const steps = depths.map((depth) => depth - least).filter((depth) => depth > 1);
  return steps.length === 0 ? tabColumns : Math.min(...steps);
}

const tabColumns = 4;

function leading(line: string): string {
  return /^[ \t]*/.exec(line)![0];
}

function columns(indentation: string): number {
  let n = 0;
  for (const character of indentation) n += character === '\t' ? tabColumns - (n % tabColumns) : 1;
  return n;
}
