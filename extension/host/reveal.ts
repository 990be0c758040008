// Opens the lines that a source names; in a notebook, the cell that holds them. The file may have changed or gone since the answer: then a message says so, and no empty
// editor is opened. The chat keeps the focus, so that what is being typed there stays there.

import path from 'node:path';
import * as vscode from 'vscode';
import type { Source } from '../engine/messages';
import { cellAt } from '../engine/workspace/notebook';
import { sourceLines } from '../texts';
import { fileOf, roots } from './locate';
import { textOfNotebook } from './notebook-cells';

export async function reveal(sources: readonly Source[]): Promise<void> {
  const source = sources.length === 1 ? sources[0] : await choose(sources);
  if (source !== undefined) await open(source);
}

/** A bare file name that several files have: which one is meant, the user knows. */
async function choose(sources: readonly Source[]): Promise<Source | undefined> {
  const names = new Map(roots().map((root) => [root.path, root.name]));
  const items = sources.map((source) => ({
    label: source.path,
    description: [...(names.size > 1 ? [names.get(source.root) ?? source.root] : []), sourceLines(source)].join(', '),
    source,
  }));
  const picked = await vscode.window.showQuickPick(items, {
    title: `${sources.length} files are called ${path.posix.basename(sources[0]!.path)}`,
    placeHolder: 'Which one?',
    matchOnDescription: true,
  });
  return picked?.source;
}

async function open(source: Source): Promise<void> {
  const file = fileOf(source);
  if (file === null) {
    void vscode.window.showWarningMessage(`${source.path} is in no folder of this window.`);
    return;
  }
  if (!(await isFile(file))) {
    void vscode.window.showWarningMessage(`${source.path} is not there any more.`);
    return;
  }
  if (source.path.endsWith('.ipynb') && (await revealCell(file, source))) return;
  const document = await vscode.workspace.openTextDocument(file);
  const start = document.validatePosition(new vscode.Position(source.start_line - 1, 0));
  const end = document.validatePosition(new vscode.Position(source.end_line - 1, Number.MAX_SAFE_INTEGER));
  const selection = new vscode.Range(start, end);
  const editor = await vscode.window.showTextDocument(document, { selection: new vscode.Range(start, start), preserveFocus: true, preview: true });
  editor.revealRange(selection, vscode.TextEditorRevealType.InCenterIfOutsideViewport);
  editor.selection = new vscode.Selection(start, end);
  if (document.lineCount < source.start_line) {
    void vscode.window.showWarningMessage(`${source.path} has only ${document.lineCount} lines by now; the answer named line ${source.start_line}.`);
  }
}

/** False where the editor has no notebook of that kind: then it is a file like any other. */
async function revealCell(file: vscode.Uri, { start_line, end_line }: Source): Promise<boolean> {
  let notebook: vscode.NotebookDocument;
  try {
    notebook = await vscode.workspace.openNotebookDocument(file);
  } catch {
    return false;
  }
  const text = textOfNotebook(notebook);
  const at = cellAt(text, start_line);
  if (at === undefined) return false;
  const range = new vscode.NotebookRange(at.cell.index, at.cell.index + 1);
  const editor = await vscode.window.showNotebookDocument(notebook, { selections: [range], preserveFocus: true, preview: true });
  editor.revealRange(range, vscode.NotebookEditorRevealType.InCenterIfOutsideViewport);
  const { document } = notebook.cellAt(at.cell.index);
  const inCell = vscode.window.visibleTextEditors.find((candidate) => candidate.document === document);
  if (inCell === undefined) return true;
  const start = document.validatePosition(new vscode.Position(Math.max(0, at.line - 1), 0));
  const end = document.validatePosition(new vscode.Position(Math.min(end_line, at.cell.end_line) - at.cell.start_line - 1, Number.MAX_SAFE_INTEGER));
  inCell.selection = new vscode.Selection(start, end);
  return true;
}

async function isFile(file: vscode.Uri): Promise<boolean> {
  try {
    return ((await vscode.workspace.fs.stat(file)).type & vscode.FileType.File) !== 0;
  } catch {
    return false;
  }
}
