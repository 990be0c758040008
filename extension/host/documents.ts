// Tells the engine what happens to files, from the editor's own watcher: changes on disk, texts that are not saved yet, which
// files are open, and that somebody is typing. Nothing is decided here.

import * as vscode from 'vscode';
import * as messages from '../engine/messages';
import { locate, roots } from './locate';
import type { Session } from './session';

const changes_ms = 150;
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
      vscode.window.onDidChangeActiveTextEditor((editor) => this.#shown(editor)),
      vscode.window.tabGroups.onDidChangeTabs(() => this.#sendRecentSoon()),
      // Network drives send no events; whoever comes back to the window expects it to be right.
      vscode.window.onDidChangeWindowState(({ focused }) => {
        if (focused && this.#unfocused) session.notify(messages.filesChanged, { paths: [] });
        this.#unfocused = !focused;
      }),
    ];
    for (const document of vscode.workspace.textDocuments) if (document.isDirty) this.#sendDocument(document);
    this.#shown(vscode.window.activeTextEditor);
  }

  dispose(): void {
    for (const timer of [...this.#documentTimers.values(), this.#changedTimer, this.#recentTimer]) clearTimeout(timer);
    for (const disposable of [...this.#watchers, ...this.#subscriptions]) disposable.dispose();
  }

  #watch(): void {
    for (const watcher of this.#watchers) watcher.dispose();
    this.#watchers = roots().map(({ path }) => {
      const watcher = vscode.workspace.createFileSystemWatcher(new vscode.RelativePattern(vscode.Uri.file(path), '**'));
      const changed = (uri: vscode.Uri): void => this.#fileChanged(uri);
      watcher.onDidCreate(changed);
      watcher.onDidChange(changed);
      watcher.onDidDelete(changed);
      return watcher;
    });
  }

  #fileChanged(uri: vscode.Uri): void {
    if (uri.scheme !== 'file') return;
    if (this.#changed.size <= maxChanges) this.#changed.add(uri.fsPath);
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
    if (locate(document.uri) === null) return;
    const file = document.uri.fsPath;
    clearTimeout(this.#documentTimers.get(file));
    this.#documentTimers.set(file, setTimeout(() => {
      this.#documentTimers.delete(file);
      if (document.isDirty && !document.isClosed) this.#sendDocument(document);
    }, document_ms));
  }

  /** What is on disk counts again. */
  #settled(document: vscode.TextDocument): void {
    if (locate(document.uri) === null) return;
    const file = document.uri.fsPath;
    clearTimeout(this.#documentTimers.get(file));
    this.#documentTimers.delete(file);
    this.#session.notify(messages.document, { path: file, text: null });
  }

  #sendDocument(document: vscode.TextDocument): void {
    if (locate(document.uri) !== null) this.#session.notify(messages.document, { path: document.uri.fsPath, text: document.getText() });
  }

  #shown(editor: vscode.TextEditor | undefined): void {
    if (editor === undefined || locate(editor.document.uri) === null) return;
    const file = editor.document.uri.fsPath;
    this.#recent = [file, ...this.#recent.filter((other) => other !== file)].slice(0, maxRecent);
    this.#sendRecentSoon();
  }

  #sendRecentSoon(): void {
    this.#recentTimer ??= setTimeout(() => {
      this.#recentTimer = undefined;
      const open = vscode.window.tabGroups.all
        .flatMap((group) => group.tabs)
        .flatMap(({ input }) => (input instanceof vscode.TabInputText && input.uri.scheme === 'file' ? [input.uri.fsPath] : []));
      this.#session.notify(messages.recentFiles, { paths: [...new Set([...this.#recent, ...open])].slice(0, maxRecent) });
    }, recent_ms);
  }
}
