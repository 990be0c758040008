// Between the editor's documents and the engine's files: a root folder and a path within it. Only files on disk have one; of
// nested roots the innermost is meant. A cell of a notebook is a document of its own to the editor, and a part of the notebook's
// file to the engine.

import path from 'node:path';
import * as vscode from 'vscode';
import type { Root } from '../engine/messages';
import { cellOf } from './notebook-cells';

export interface Location {
  readonly root: string;
  /** Relative to the root, with '/'. */
  readonly path: string;
}

/** The open folders that lie on disk; a remote window's extension runs beside them, so theirs count. */
export function roots(): readonly Root[] {
  return (vscode.workspace.workspaceFolders ?? [])
    .filter((folder) => folder.uri.scheme === 'file')
    .map((folder) => ({ path: folder.uri.fsPath, name: folder.name }));
}

export function locate(uri: vscode.Uri): Location | null {
  if (uri.scheme !== 'file') return null;
  const folder = vscode.workspace.getWorkspaceFolder(uri);
  if (folder === undefined || folder.uri.scheme !== 'file') return null;
  const relative = path.relative(folder.uri.fsPath, uri.fsPath);
  if (relative === '' || relative === '..' || relative.startsWith(`..${path.sep}`) || path.isAbsolute(relative)) return null;
  return { root: folder.uri.fsPath, path: relative.split(path.sep).join('/') };
}

/** The address of the file that a document is, or will be, stored in. */
export function fileUriOf(document: vscode.TextDocument): vscode.Uri {
  return cellOf(document)?.notebook.uri ?? document.uri;
}

/** The file that a location names, or null if its root is not open or the path leads out of it. */
export function fileOf(location: Location): vscode.Uri | null {
  if (!roots().some((root) => root.path === location.root)) return null;
  const file = path.join(location.root, ...location.path.split('/'));
  return locate(vscode.Uri.file(file)) === null ? null : vscode.Uri.file(file);
}
