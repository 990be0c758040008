// A notebook that is open in the editor, in the words of engine/workspace/notebook.ts: its cells as one text. What memory holds of
// a notebook is that text, so positions in a cell are positions in it, and back.

import * as vscode from 'vscode';
import { textAroundCell, textOfCells, type CellInText, type CellSource, type NotebookText } from '../engine/workspace/notebook';

const cellScheme = 'vscode-notebook-cell';

/** The cell whose text a document is; null for every other document. */
export function cellOf(document: vscode.TextDocument): vscode.NotebookCell | null {
  if (document.uri.scheme !== cellScheme) return null;
  for (const notebook of vscode.workspace.notebookDocuments) {
    const cell = notebook.getCells().find((candidate) => candidate.document === document);
    if (cell !== undefined) return cell;
  }
  return null;
}

/** The notebook's text around a cell, for a cursor in it. */
export function textAround({ notebook, index }: vscode.NotebookCell): CellInText {
  return textAroundCell(sourcesOf(notebook), index, languageOf(notebook));
}

export function textOfNotebook(notebook: vscode.NotebookDocument): NotebookText {
  return textOfCells(sourcesOf(notebook), languageOf(notebook));
}

/** What the engine reads of a file with these cells: as the file would be after saving, without outputs. */
export function fileTextOf(notebook: vscode.NotebookDocument): string {
  const cells = sourcesOf(notebook).map(({ kind, source }) => ({ cell_type: kind, source }));
  return JSON.stringify({ cells, metadata: { language_info: { name: languageOf(notebook) } }, nbformat: 4, nbformat_minor: 5 });
}

function sourcesOf(notebook: vscode.NotebookDocument): CellSource[] {
  return notebook.getCells().map((cell) => ({ kind: kindOf(cell), source: cell.document.getText() }));
}

function kindOf({ kind, document }: vscode.NotebookCell): CellSource['kind'] {
  if (kind === vscode.NotebookCellKind.Markup) return 'markdown';
  // The editor has no third kind.
  return document.languageId === 'raw' ? 'raw' : 'code';
}

/** That of its first code cell: the kernel's, in all but a few notebooks. */
function languageOf(notebook: vscode.NotebookDocument): string {
  return notebook.getCells().find((cell) => kindOf(cell) === 'code')?.document.languageId ?? 'python';
}
