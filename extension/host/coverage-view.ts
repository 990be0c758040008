// The coverage view: every file of the window's folders and what became of it. Asked of the engine when the view is first seen,
// then kept up to date by its notifications.

import * as vscode from 'vscode';
import * as messages from '../engine/messages';
import { toEngineError } from '../engine/errors';
import type { Log } from '../log';
import { childrenOf, coverageTree, type CoverageNode } from './coverage-tree';
import { explain } from './coverage-words';
import { fileOf, roots } from './locate';
import type { Session } from './session';

export const coverageViewId = 'sala.coverage';
/** Reading changes a file's state several times a second; a tree that redraws as often cannot be used. */
const refresh_ms = 700;

export class CoverageView implements vscode.TreeDataProvider<CoverageNode>, vscode.Disposable {
  readonly #changed = new vscode.EventEmitter<void>();
  readonly onDidChangeTreeData = this.#changed.event;
  readonly #view: vscode.TreeView<CoverageNode>;
  readonly #subscriptions: vscode.Disposable[];
  #files: Map<string, messages.FileCoverage> | undefined;
  #loading: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #engineReady = false;

  constructor(
    private readonly session: Session,
    private readonly log: Log,
  ) {
    this.#view = vscode.window.createTreeView(coverageViewId, { treeDataProvider: this, showCollapseAll: true });
    session.on(messages.coverageChanged, ({ files, gone, everything }) => {
      if (everything) return this.reload();
      for (const { root, path } of gone) this.#files?.delete(`${root}/${path}`);
      for (const file of files) this.#files?.set(`${file.root}/${file.path}`, file);
      this.#refreshSoon();
    });
    this.#subscriptions = [
      this.#view,
      this.#changed,
      this.#view.onDidChangeVisibility(({ visible }) => visible && this.#refreshSoon()),
      vscode.workspace.onDidChangeWorkspaceFolders(() => this.reload()),
      session.onDidChange(() => {
        const ready = session.engine.state === 'ready';
        if (ready !== this.#engineReady) this.reload();
        this.#engineReady = ready;
        this.#describe();
      }),
    ];
    this.#describe();
  }

  getTreeItem(node: CoverageNode): vscode.TreeItem {
    const collapsible = node.kind === 'file' ? vscode.TreeItemCollapsibleState.None : vscode.TreeItemCollapsibleState.Collapsed;
    const item = new vscode.TreeItem(node.label, collapsible);
    item.description = node.description;
    item.tooltip = node.kind === 'file' ? explain(node.file) : `${node.label}: ${node.description}`;
    item.contextValue = node.kind;
    item.accessibilityInformation = { label: `${node.label}, ${node.description}` };
    if (node.kind === 'group') {
      item.id = `${node.level}:${node.files[0]?.root ?? ''}:${node.state ?? ''}:${node.label}`;
      item.iconPath = node.level === 'root' ? vscode.ThemeIcon.Folder : stateIcon(node.state);
    } else if (node.kind === 'folder') {
      item.iconPath = vscode.ThemeIcon.Folder;
    } else {
      item.iconPath = vscode.ThemeIcon.File;
      const file = fileOf(node.file);
      if (file !== null) {
        item.resourceUri = file;
        item.command = { command: 'vscode.open', title: 'Open', arguments: [file] };
      }
    }
    return item;
  }

  async getChildren(node?: CoverageNode): Promise<CoverageNode[]> {
    if (node !== undefined) return childrenOf(node);
    if (this.session.engine.state !== 'ready') return [];
    await this.#load();
    return coverageTree([...(this.#files?.values() ?? [])], new Map(roots().map((root) => [root.path, root.name])));
  }

  reload(): void {
    this.#files = undefined;
    this.#loading = undefined;
    this.#refreshSoon();
  }

  dispose(): void {
    clearTimeout(this.#timer);
    for (const subscription of this.#subscriptions) subscription.dispose();
  }

  #load(): Promise<void> {
    this.#loading ??= this.session.request(messages.coverage, {}).then(
      (files) => {
        this.#files = new Map(files.map((file) => [`${file.root}/${file.path}`, file]));
      },
      (error: unknown) => {
        this.log.warn(`coverage: ${toEngineError(error).message}`);
        this.#loading = undefined;
      },
    );
    return this.#loading;
  }

  #refreshSoon(): void {
    if (!this.#view.visible) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#changed.fire();
    }, refresh_ms);
  }

  #describe(): void {
    const { place, engine } = this.session;
    this.#view.message =
      place === 'untrusted'
        ? 'Nothing is read in Restricted Mode.'
        : place !== 'workspace'
          ? 'No folder on disk is open.'
          : engine.state === 'failed'
            ? 'The engine cannot run; the chat view says why.'
            : engine.state === 'ready'
              ? ''
              : 'The engine is not running yet.';
  }
}

function stateIcon(state: messages.FileState | null): vscode.ThemeIcon {
  switch (state) {
    case 'in':
      return new vscode.ThemeIcon('pass');
    case 'reading':
      return new vscode.ThemeIcon('sync');
    case 'stale':
      return new vscode.ThemeIcon('history');
    case 'waiting':
      return new vscode.ThemeIcon('clock');
    case 'over_budget':
      return new vscode.ThemeIcon('circle-slash');
    case 'unreadable':
      return new vscode.ThemeIcon('warning');
    default:
      return new vscode.ThemeIcon('exclude');
  }
}
