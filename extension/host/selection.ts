// What the editor shows, as the chat attaches it: the selection as whole lines, and the file that is open. The last active text
// editor counts, since the focus is in the chat when a question is asked.

import * as vscode from 'vscode';
import type { Attachment } from '../engine/messages';
import { fileUriOf, locate, type Location } from './locate';
import { cellOf, textOfNotebook } from './notebook-cells';

/** More is cut by the engine in any case: at most 400 tokens are used. */
const maxCharacters = 8000;

/** The selection; null without one, or where it lies in no file of the workspace. */
export function selectionOf(editor: vscode.TextEditor | undefined): Attachment | null {
  if (editor === undefined || editor.selection.isEmpty) return null;
  const { document, selection } = editor;
  const location = locate(fileUriOf(document));
  if (location === null) return null;
  // A selection that ends at the start of a line does not mean that line.
  const last = selection.end.character === 0 && selection.end.line > selection.start.line ? selection.end.line - 1 : selection.end.line;
  const range = new vscode.Range(selection.start.line, 0, last, document.lineAt(last).text.length);
  const cell = cellOf(document);
  const first = cell === null ? 1 : 1 + textOfNotebook(cell.notebook).cells[cell.index]!.start_line;
  return { ...location, start_line: first + selection.start.line, end_line: first + last, text: document.getText(range).slice(0, maxCharacters) };
}

export function activeFile(): Location | null {
  const editor = vscode.window.activeTextEditor ?? vscode.window.visibleTextEditors[0];
  return editor === undefined ? null : locate(fileUriOf(editor.document));
}
