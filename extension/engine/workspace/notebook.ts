// A notebook (.ipynb, nbformat 3 and 4) as the text of its cells: code as it is, Markdown as comments, each cell under a `# %%`
// line as the percent format of Jupytext has it. Outputs, counters and metadata are left out, so that running cells changes
// nothing. Lines and ranges of a notebook everywhere in the engine are those of this text; `cellAt` leads back to the cell.

export interface NotebookCell {
  /** Counts from 0, as the editor's cell index does. */
  readonly index: number;
  readonly kind: 'code' | 'markdown' | 'raw';
  /** Lines of the cell in the notebook's text, its `# %%` line first; both count from 1, the end is included. */
  readonly start_line: number;
  readonly end_line: number;
}

export interface CellSource {
  readonly kind: NotebookCell['kind'];
  readonly source: string;
}

export interface NotebookText {
  readonly text: string;
  /** Lower case, as the kernel names it; 'python' where it names none. */
  readonly language: string;
  readonly cells: readonly NotebookCell[];
}

/** Undefined where the text is not a notebook: then it is what any other JSON file is. */
export function notebookText(json: string): NotebookText | undefined {
  let notebook: unknown;
  try {
    notebook = JSON.parse(json.replace(/^\ufeff/, ''));
  } catch {
    return undefined;
  }
  const cells = cellsOf(notebook);
  return cells && textOfCells(cells.map((cell) => ({ kind: kindOf(cell), source: sourceOf(cell) })), languageOf(notebook));
}

/** The same of cells that are at hand, as an editor has them. */
export function textOfCells(cells: readonly CellSource[], language: string): NotebookText {
  const comment = commentOf(language);
  const lines: string[] = [];
  const placed: NotebookCell[] = [];
  for (const [index, { kind, source }] of cells.entries()) {
    const start_line = lines.length + 1;
    lines.push(markOf(kind, comment));
    for (const line of source === '' ? [] : source.replace(/\r?\n$/, '').split(/\r?\n/)) {
      lines.push(kind === 'code' ? line : line === '' ? comment : `${comment} ${line}`);
    }
    placed.push({ index, kind, start_line, end_line: lines.length });
  }
  return { text: lines.length === 0 ? '' : `${lines.join('\n')}\n`, language, cells: placed };
}

/** A notebook's text for a cursor in one of its cells: that cell stands in it as it is, to the last character. */
export interface CellInText {
  readonly text: string;
  /** UTF-16 offset in `text` where the cell's own text begins. */
  readonly start: number;
  /** How the line begins that the next cell stands under. */
  readonly mark: string;
}

export function textAroundCell(cells: readonly CellSource[], index: number, language: string): CellInText {
  const comment = commentOf(language);
  const { kind, source } = cells[index]!;
  const before = `${textOfCells(cells.slice(0, index), language).text}${markOf(kind, comment)}\n`;
  const after = textOfCells(cells.slice(index + 1), language).text;
  // The next cell begins on a line of its own, however this one ends.
  return { text: `${before}${source}${after === '' ? '' : '\n'}${after}`, start: before.length, mark: markOf('code', comment) };
}

/** What was generated for a cell, up to where it goes on in the next one. */
export function withinCell(generated: string, mark: string): string {
  const lines = generated.split('\n');
  const next = lines.findIndex((line, i) => i > 0 && line.startsWith(mark));
  return next === -1 ? generated : lines.slice(0, next).join('\n').trimEnd();
}

/** The cell that holds a line of the notebook's text, and the line within the cell (from 1; 0 is its `# %%` line). */
export function cellAt(notebook: NotebookText, line: number): { readonly cell: NotebookCell; readonly line: number } | undefined {
  const cell = notebook.cells.find(({ start_line, end_line }) => line >= start_line && line <= end_line);
  return cell && { cell, line: line - cell.start_line };
}

/** The line of the notebook's text at which a line of a cell (from 1) stands. */
export function lineOfCell(notebook: NotebookText, index: number, line: number): number | undefined {
  const cell = notebook.cells[index];
  if (!cell) return undefined;
  return Math.min(cell.start_line + line, cell.end_line);
}

// ---- the format ---------------------------------------------------------------------------------------------------------------

type Json = Record<string, unknown>;

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** nbformat 4 has `cells`; 3 has them in `worksheets`. */
function cellsOf(notebook: unknown): Json[] | undefined {
  if (!isObject(notebook)) return undefined;
  if (Array.isArray(notebook['cells'])) return notebook['cells'].filter(isObject);
  if (!Array.isArray(notebook['worksheets'])) return undefined;
  return notebook['worksheets'].filter(isObject).flatMap((sheet) => (Array.isArray(sheet['cells']) ? sheet['cells'].filter(isObject) : []));
}

function kindOf(cell: Json): NotebookCell['kind'] {
  const kind = cell['cell_type'];
  if (kind === 'code') return 'code';
  return kind === 'markdown' || kind === 'heading' ? 'markdown' : 'raw';
}

/** A list of lines with their ends, or one string; `input` in nbformat 3. */
function sourceOf(cell: Json): string {
  const source = cell['source'] ?? cell['input'];
  if (typeof source === 'string') return source;
  return Array.isArray(source) ? source.filter((line) => typeof line === 'string').join('') : '';
}

function languageOf(notebook: unknown): string {
  const metadata = isObject(notebook) && isObject(notebook['metadata']) ? notebook['metadata'] : {};
  const info = isObject(metadata['language_info']) ? metadata['language_info'] : {};
  const kernel = isObject(metadata['kernelspec']) ? metadata['kernelspec'] : {};
  const name = info['name'] ?? kernel['language'];
  return typeof name === 'string' && name !== '' ? name.toLowerCase() : 'python';
}

const slashComments = new Set(
  'javascript typescript java scala kotlin c c++ cpp csharp c# .net-csharp fsharp f# .net-fsharp go rust swift groovy dart php deno'.split(' '),
);
const dashComments = new Set('sql lua haskell ada vhdl'.split(' '));

function markOf(kind: NotebookCell['kind'], comment: string): string {
  return kind === 'code' ? `${comment} %%` : `${comment} %% [${kind}]`;
}

function commentOf(language: string): string {
  if (slashComments.has(language)) return '//';
  if (dashComments.has(language)) return '--';
  if (language === 'matlab' || language === 'prolog') return '%';
  return language === 'clojure' || language === 'scheme' ? ';' : '#';
}
