// Tells the engine what happens to files, from the editor's own watcher: changes on disk, texts that are not saved yet, which
// files are open, and that somebody is typing. Nothing is decided here.

import * as vscode from 'vscode';
import * as messages from '../engine/messages';
import { diskFolders, fileUriOf, locate, pathOf } from './locate';
import { fileTextOf } from './notebook-cells';
import type { Session } from './session';

/** The editor's watcher has gathered already. */
const changes_ms = 50;
/** More at once is a branch switch: the engine looks at everything. */
const maxChanges = 2000;
const document_ms = 400;
const typing_ms = 1500;
const recent_ms = 500;
const maxRecent = 50;

export class Documents implements vscode.Disposable {
  readonly #session: Session;
  #watchers: vscode.Disposable[] = [];
  readonly #subscriptions: vscode.Disposable[];
  readonly #changed = new Set<string>();
  #changedTimer: NodeJS.Timeout | undefined;
  readonly #documentTimers = new Map<string, NodeJS.Timeout>();
  #recentTimer: NodeJS.Timeout | undefined;
  /** Newest first. */
  #recent: string[] = [];
  #lastTyping = -Infinity;
  #unfocused = false;

  constructor(session: Session) {
    this.#session = session;
    this.#watch();
    this.#subscriptions = [
      vscode.workspace.onDidChangeWorkspaceFolders(() => this.#watch()),
      vscode.workspace.onDidChangeTextDocument((event) => this.#edited(event)),
      vscode.workspace.onDidSaveTextDocument((document) => this.#settled(document)),
      vscode.workspace.onDidCloseTextDocument((document) => this.#settled(document)),
      // Typing in a cell, moving one, running one: what counts of it is seen in the text of all.
      vscode.workspace.onDidChangeNotebookDocument(({ notebook }) => this.#changedSoon(notebook.uri, () => notebook.isDirty && !notebook.isClosed, () => fileTextOf(notebook))),
      vscode.workspace.onDidSaveNotebookDocument((notebook) => this.#settled(notebook)),
      vscode.workspace.onDidCloseNotebookDocument((notebook) => this.#settled(notebook)),
      vscode.window.onDidChangeActiveTextEditor((editor) => this.#shown(editor)),
      vscode.window.tabGroups.onDidChangeTabs(() => this.#sendRecentSoon()),
      // Network drives send no events; whoever comes back to the window expects it to be right.
      vscode.window.onDidChangeWindowState(({ focused }) => {
        if (focused && this.#unfocused) session.notify(messages.filesChanged, { paths: [], missed: true });
        this.#unfocused = !focused;
      }),
    ];
    for (const document of vscode.workspace.textDocuments) if (document.isDirty) this.#send(document.uri, document.getText());
    for (const notebook of vscode.workspace.notebookDocuments) if (notebook.isDirty) this.#send(notebook.uri, fileTextOf(notebook));
    this.#shown(vscode.window.activeTextEditor);
  }

  dispose(): void {
    for (const timer of [...this.#documentTimers.values(), this.#changedTimer, this.#recentTimer]) clearTimeout(timer);
    for (const disposable of [...this.#watchers, ...this.#subscriptions]) disposable.dispose();
  }

  #watch(): void {
    for (const watcher of this.#watchers) watcher.dispose();
    this.#watchers = diskFolders().map((folder) => {
      const watcher = vscode.workspace.createFileSystemWatcher(new vscode.RelativePattern(folder, '**'));
      const changed = (uri: vscode.Uri): void => this.#fileChanged(uri);
      watcher.onDidCreate(changed);
      watcher.onDidChange(changed);
      watcher.onDidDelete(changed);
      return watcher;
    });
  }

  #fileChanged(uri: vscode.Uri): void {
    const location = locate(uri);
    if (location === null) return;
    if (this.#changed.size <= maxChanges) this.#changed.add(pathOf(location));
    this.#changedTimer ??= setTimeout(() => {
      const paths = this.#changed.size > maxChanges ? [] : [...this.#changed];
      this.#changed.clear();
      this.#changedTimer = undefined;
      this.#session.notify(messages.filesChanged, { paths });
    }, changes_ms);
  }

  #edited({ document, contentChanges }: vscode.TextDocumentChangeEvent): void {
    if (contentChanges.length === 0) return;
    const now = performance.now();
    if (now - this.#lastTyping > typing_ms && vscode.window.activeTextEditor?.document === document) {
      this.#lastTyping = now;
      this.#session.notify0(messages.typing);
    }
    this.#changedSoon(document.uri, () => document.isDirty && !document.isClosed, () => document.getText());
  }

  /** The unsaved text of a file, once nothing was typed for a moment; a cell's own text is that of no file. */
  #changedSoon(uri: vscode.Uri, isUnsaved: () => boolean, text: () => string): void {
    const location = locate(uri);
    if (location === null) return;
    const file = pathOf(location);
    clearTimeout(this.#documentTimers.get(file));
    this.#documentTimers.set(file, setTimeout(() => {
      this.#documentTimers.delete(file);
      if (isUnsaved()) this.#send(uri, text());
    }, document_ms));
  }

  /** What is on disk counts again, and is looked at: the watcher's word of a save comes later. */
  #settled({ uri }: { readonly uri: vscode.Uri }): void {
    const location = locate(uri);
    if (location === null) return;
    const file = pathOf(location);
    clearTimeout(this.#documentTimers.get(file));
    this.#documentTimers.delete(file);
    this.#session.notify(messages.document, { path: file, text: null });
  }

  #send(uri: vscode.Uri, text: string): void {
    const location = locate(uri);
    if (location !== null) this.#session.notify(messages.document, { path: pathOf(location), text });
  }

  #shown(editor: vscode.TextEditor | undefined): void {
    if (editor === undefined) return;
    const location = locate(fileUriOf(editor.document));
    if (location === null) return;
    const file = pathOf(location);
    this.#recent = [file, ...this.#recent.filter((other) => other !== file)].slice(0, maxRecent);
    this.#sendRecentSoon();
  }

  #sendRecentSoon(): void {
    this.#recentTimer ??= setTimeout(() => {
      this.#recentTimer = undefined;
      const open = vscode.window.tabGroups.all
        .flatMap((group) => group.tabs)
        .flatMap(({ input }) => (input instanceof vscode.TabInputText || input instanceof vscode.TabInputNotebook ? [input.uri] : []))
        .flatMap((uri) => locate(uri) ?? [])
        .map(pathOf);
      this.#session.notify(messages.recentFiles, { paths: [...new Set([...this.#recent, ...open])].slice(0, maxRecent) });
    }, recent_ms);
  }
}
