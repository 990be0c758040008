// Between the editor's documents and the engine's files: a root folder and a path within it. Only files on disk have one; of
// nested roots the innermost is meant. The engine knows a root by its real path, the editor by the one that it was opened with. A
// cell of a notebook is a document of its own to the editor, and a part of the notebook's file to the engine.

import { realpathSync } from 'node:fs';
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
export function diskFolders(): readonly vscode.WorkspaceFolder[] {
  return (vscode.workspace.workspaceFolders ?? []).filter((folder) => folder.uri.scheme === 'file');
}

export function roots(): readonly Root[] {
  return diskFolders().map((folder) => ({ path: rootOf(folder), name: folder.name }));
}

const realPaths = new Map<string, string>();

/** The path under which the engine knows a folder of the window. */
export function rootOf({ uri }: vscode.WorkspaceFolder): string {
  const known = realPaths.get(uri.fsPath);
  if (known !== undefined) return known;
  try {
    const real = realpathSync.native(uri.fsPath);
    realPaths.set(uri.fsPath, real);
    return real;
  } catch {
    // Not there at the moment: the engine says so.
    return uri.fsPath;
  }
}

export function locate(uri: vscode.Uri): Location | null {
  if (uri.scheme !== 'file') return null;
  const folder = vscode.workspace.getWorkspaceFolder(uri);
  if (folder === undefined || folder.uri.scheme !== 'file') return null;
  const relative = path.relative(folder.uri.fsPath, uri.fsPath);
  if (relative === '' || relative === '..' || relative.startsWith(`..${path.sep}`) || path.isAbsolute(relative)) return null;
  return { root: rootOf(folder), path: relative.split(path.sep).join('/') };
}

/** The absolute path of a location, as the engine has it. */
export function pathOf({ root, path: relative }: Location): string {
  return path.join(root, ...relative.split('/'));
}

/** The path of a location within another root that it lies in: of a root within another one the engine knows the outer. */
export function pathWithin(root: string, location: Location): string {
  return root === location.root ? location.path : path.relative(root, pathOf(location)).split(path.sep).join('/');
}

/** All roots of the window that a location lies in, with its path in each. */
export function locationsOf(location: Location): readonly Location[] {
  return roots()
    .map((root) => ({ root: root.path, path: pathWithin(root.path, location) }))
    .filter(({ path: within }) => within !== '..' && !within.startsWith('../') && !path.isAbsolute(within));
}

/** The address of the file that a document is, or will be, stored in. */
export function fileUriOf(document: vscode.TextDocument): vscode.Uri {
  return cellOf(document)?.notebook.uri ?? document.uri;
}

/** The file that a location names, or null if its root is not open or the path leads out of it. */
export function fileOf(location: Location): vscode.Uri | null {
  const folder = diskFolders().find((candidate) => rootOf(candidate) === location.root);
  if (folder === undefined) return null;
  const file = vscode.Uri.file(path.join(folder.uri.fsPath, ...location.path.split('/')));
  return locate(file) === null ? null : file;
}
