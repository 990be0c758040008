// "Export the memory" and "Import a memory": what `sala export` and `sala import` do, with the editor's dialogs and a notification that
// shows how far it is and stops it.

import path from 'node:path';
import * as vscode from 'vscode';
import * as messages from '../engine/messages';
import { count, files } from '../texts';
import type { Session } from './session';

const filters = { 'SALA memory': ['pack'] };

export class PackCommands {
  /** Of the notification that is shown. */
  #report: ((progress: messages.PackProgress) => void) | undefined;

  constructor(
    private readonly session: Session,
    private readonly log: { warn(line: string): void },
  ) {
    session.on(messages.packProgress, (progress) => this.#report?.(progress));
  }

  async export(): Promise<void> {
    // Where nothing is read it fails with the reason, and nothing is asked.
    await this.session.open();
    const folder = vscode.workspace.workspaceFolders?.find(({ uri }) => uri.scheme === 'file')?.uri;
    const place = await vscode.window.showSaveDialog({
      title: 'Export what was read of this workspace',
      saveLabel: 'Export',
      filters,
      ...(folder && { defaultUri: vscode.Uri.joinPath(folder, '..', `${path.basename(folder.fsPath)}.pack`) }),
    });
    if (place === undefined) return;
    const result = await this.#run('Reading everything', messages.exportPack, place);
    if (result === undefined) return;
    const left = result.left_out.length === 0 ? '' : ` ${files(result.left_out.length)} left out: not read, over the budget, or not saved.`;
    void vscode.window.showInformationMessage(`Exported: ${files(result.files)}, ${count(result.tokens)} tokens, ${megabytes(result.bytes)}.${left}`);
  }

  async import(): Promise<void> {
    await this.session.open();
    const [place] = (await vscode.window.showOpenDialog({ title: 'Import what was read elsewhere', openLabel: 'Import', filters })) ?? [];
    if (place === undefined) return;
    const result = await this.#run('Importing', messages.importPack, place);
    if (result === undefined) return;
    for (const line of result.findings) this.log.warn(`import: ${line}`);
    const sentence = `Imported: ${files(result.files)}, ${count(result.tokens)} tokens, ${megabytes(result.bytes)}.`;
    if (result.findings.length === 0) void vscode.window.showInformationMessage(sentence);
    else void vscode.window.showWarningMessage(`${sentence} Some of it was damaged and is read again; the log names it.`);
  }

  /** Undefined: it was stopped. */
  async #run<R>(title: string, type: import('vscode-jsonrpc/node').RequestType<{ file: string }, R, messages.EngineFailure>, place: vscode.Uri): Promise<R | undefined> {
    const options = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
    return vscode.window.withProgress(options, async (notification, token) => {
      const controller = new AbortController();
      token.onCancellationRequested(() => controller.abort());
      let shown = 0;
      this.#report = ({ phase, done, total }) => {
        const percent = total === 0 ? 100 : (100 * done) / total;
        notification.report({ message: phase === 'segments' ? megabytes(total) : 'checking files', increment: Math.max(0, percent - shown) });
        shown = Math.max(shown, percent);
      };
      try {
        return await this.session.request(type, { file: place.fsPath }, controller.signal);
      } catch (error) {
        if (controller.signal.aborted) return undefined;
        throw error;
      } finally {
        this.#report = undefined;
      }
    });
  }
}

function megabytes(bytes: number): string {
  return `${Math.max(1, Math.round(bytes / 2 ** 20))} MB`;
}
