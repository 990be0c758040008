// Opens the lines that a source names. The file may have changed or gone since the answer: then a message says so, and no empty
// editor is opened. The chat keeps the focus, so that what is being typed there stays there.

import * as vscode from 'vscode';
import type { Source } from '../engine/messages';
import { fileOf } from './locate';

export async function reveal(source: Source): Promise<void> {
  const file = fileOf(source);
  if (file === null) {
    void vscode.window.showWarningMessage(`${source.path} is in no folder of this window.`);
    return;
  }
  if (!(await isFile(file))) {
    void vscode.window.showWarningMessage(`${source.path} is not there any more.`);
    return;
  }
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

async function isFile(file: vscode.Uri): Promise<boolean> {
  try {
    return ((await vscode.workspace.fs.stat(file)).type & vscode.FileType.File) !== 0;
  } catch {
    return false;
  }
}
