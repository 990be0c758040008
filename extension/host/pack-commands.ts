// "Export the memory" and "Import a memory": what `sala export` and `sala import` do, with the editor's dialogs and a notification that
// shows how far it is and stops it.

import path from 'node:path';
import * as vscode from 'vscode';
import { EngineError, toEngineError } from '../engine/errors';
import * as messages from '../engine/messages';
import { count, files, ingestSentence } from '../texts';
import type { Session } from './session';

const filters = { 'SALA memory': ['pack'] };

/** What went wrong with a pack: the same codes mean something else where they are about the workspace's own memory. */
export class PackFailure extends EngineError {}

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
    const folder = besideWorkspace();
    const place = await vscode.window.showSaveDialog({
      title: 'Export what was read of this workspace',
      saveLabel: 'Export',
      filters,
      ...(folder && { defaultUri: vscode.Uri.joinPath(folder.uri, `${folder.name}.pack`) }),
    });
    if (place === undefined || !isOnDisk(place)) return;
    const result = await this.#run('Exporting', 'writing', messages.exportPack, place);
    if (result === undefined) return;
    const sentence = `Exported: ${files(result.files)}, ${count(result.tokens)} tokens, ${megabytes(result.bytes)}.`;
    if (result.left_out.length === 0) void vscode.window.showInformationMessage(sentence);
    else offer(vscode.window.showInformationMessage, `${sentence} ${leftOutSentence(result.left_out)}`, 'Show coverage', 'sala.showCoverage');
  }

  async import(): Promise<void> {
    await this.session.open();
    const folder = besideWorkspace();
    const options = { title: 'Import what was read elsewhere', openLabel: 'Import', filters, ...(folder && { defaultUri: folder.uri }) };
    const [place] = (await vscode.window.showOpenDialog(options)) ?? [];
    if (place === undefined || !isOnDisk(place)) return;
    const result = await this.#run('Importing', 'taking in', messages.importPack, place);
    if (result === undefined) return;
    for (const line of result.findings) this.log.warn(`import: ${line}`);
    const foreign = result.foreign ? ' It was made on another kind of processor: it is used as it is, and files that change are read here.' : '';
    const sentence = `Imported: ${files(result.files)}, ${count(result.tokens)} tokens, ${megabytes(result.bytes)}.${foreign}`;
    if (result.findings.length === 0) void vscode.window.showInformationMessage(sentence);
    else offer(vscode.window.showWarningMessage, `${sentence} Some of it was damaged and is read again; the log names it.`, 'Show log', 'sala.showLog');
  }

  /** Undefined: it was stopped. */
  async #run<R>(
    title: string,
    verb: string,
    type: import('vscode-jsonrpc/node').RequestType<{ file: string }, R, messages.EngineFailure>,
    place: vscode.Uri,
  ): Promise<R | undefined> {
    const options = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
    return vscode.window.withProgress(options, async (notification, token) => {
      const controller = new AbortController();
      token.onCancellationRequested(() => controller.abort());
      let shown = 0;
      // Before an export everything is read, which may take much longer than to write it.
      const reading = this.session.onDidChange(() => {
        const { ingest } = this.session;
        if (shown === 0 && ingest?.state === 'reading') notification.report({ message: ingestSentence(ingest, this.session.readsSlowly) });
      });
      this.#report = ({ phase, done, total }) => {
        const percent = total === 0 ? 100 : (100 * done) / total;
        notification.report({ message: phase === 'segments' ? `${verb} ${megabytes(total)}` : 'checking files', increment: Math.max(0, percent - shown) });
        shown = Math.max(shown, percent);
      };
      try {
        return await this.session.request(type, { file: place.fsPath }, controller.signal);
      } catch (error) {
        if (controller.signal.aborted) return undefined;
        const { code, message } = toEngineError(error);
        throw new PackFailure(code, message, { cause: error });
      } finally {
        this.#report = undefined;
        reading.dispose();
      }
    });
  }
}

const omissions: Record<messages.PackOmission, string> = {
  over_budget: 'over the budget',
  unreadable: 'unreadable',
  stale: 'not read',
  waiting: 'not read',
  reading: 'not read',
  unsaved: 'not saved',
  foreign: 'imported from another kind of processor, which is not handed on',
};

/** Each reason that there is, once. */
function leftOutSentence(leftOut: messages.ExportResult['left_out']): string {
  const there = new Set(leftOut.map(({ reason }) => reason));
  const reasons = [...new Set(messages.packOmissions.filter((reason) => there.has(reason)).map((reason) => omissions[reason]))];
  return `${files(leftOut.length)} left out: ${reasons.join('; ')}.`;
}

/** A message with a button is shown in full; without one, its first line. */
function offer(show: (sentence: string, ...buttons: string[]) => Thenable<string | undefined>, sentence: string, button: string, command: string): void {
  void show(sentence, button).then((picked) => {
    if (picked === button) void vscode.commands.executeCommand(command);
  });
}

/** Where packs are looked for first: beside the first folder on disk, so that they are no part of it. */
function besideWorkspace(): { readonly uri: vscode.Uri; readonly name: string } | undefined {
  const folder = vscode.workspace.workspaceFolders?.find(({ uri }) => uri.scheme === 'file')?.uri;
  return folder && { uri: vscode.Uri.joinPath(folder, '..'), name: path.basename(folder.fsPath) };
}

/** The engine opens it by its path. */
function isOnDisk({ scheme }: vscode.Uri): boolean {
  if (scheme !== 'file') void vscode.window.showWarningMessage('Choose a place on the disk of the machine that reads.');
  return scheme === 'file';
}

function megabytes(bytes: number): string {
  return `${Math.max(1, Math.round(bytes / 2 ** 20))} MB`;
}
