// The extension's one output channel. Lines say what happened and where, never text of the workspace.

import * as vscode from 'vscode';

export type Log = vscode.LogOutputChannel;

export function createLog(): Log {
  return vscode.window.createOutputChannel('SALA', { log: true });
}
