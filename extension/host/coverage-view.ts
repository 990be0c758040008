// The coverage view: every file of the window's folders and what became of it. Asked of the engine a level at a time, as the tree is
// opened, and again when it says that something is different: nothing is kept here, since a workspace may have 200,000 files.

import * as vscode from 'vscode';
import * as messages from '../engine/messages';
import { toEngineError } from '../engine/errors';
import type { Log } from '../log';
import { nodesOf, type CoverageNode } from './coverage-tree';
import { explain } from './coverage-words';
import { fileOf, roots } from './locate';
import type { Session } from './session';

export const coverageViewId = 'sala.coverage';
/** Reading changes a file's state several times a second; a tree that redraws as often cannot be used. */
const refresh_ms = 700;
/** Nor is the engine to be busy with it: a level of a large workspace takes a while. */
const restOverWork = 10;

export class CoverageView implements vscode.TreeDataProvider<CoverageNode>, vscode.Disposable {
  readonly #changed = new vscode.EventEmitter<void>();
  readonly onDidChangeTreeData = this.#changed.event;
  readonly #view: vscode.TreeView<CoverageNode>;
  readonly #subscriptions: vscode.Disposable[];
  /** How long the slowest level took since the last redraw. */
  #level_ms = 0;
  #timer: NodeJS.Timeout | undefined;
  #engineReady = false;

  constructor(
    private readonly session: Session,
    private readonly log: Log,
  ) {
    this.#view = vscode.window.createTreeView(coverageViewId, { treeDataProvider: this, showCollapseAll: true });
    session.on(messages.coverageChanged, () => this.#refreshSoon());
    this.#subscriptions = [
      this.#view,
      this.#changed,
      this.#view.onDidChangeVisibility(({ visible }) => visible && this.#refreshSoon()),
      vscode.workspace.onDidChangeWorkspaceFolders(() => this.#refreshSoon()),
      session.onDidChange(() => {
        const ready = session.engine.state === 'ready';
        if (ready !== this.#engineReady) this.#refreshSoon();
        this.#engineReady = ready;
        this.#describe();
      }),
    ];
    this.#describe();
  }

  getTreeItem(node: CoverageNode): vscode.TreeItem {
    const collapsible = node.kind === 'file' || node.kind === 'more' ? vscode.TreeItemCollapsibleState.None : vscode.TreeItemCollapsibleState.Collapsed;
    const item = new vscode.TreeItem(node.label, collapsible);
    item.description = node.description;
    item.tooltip = node.kind === 'file' ? explain(node.file) : `${node.label}: ${node.description}`;
    item.contextValue = node.kind;
    item.accessibilityInformation = { label: `${node.label}, ${node.description}` };
    if (node.kind === 'group') {
      item.id = `${node.level}:${node.place.root ?? ''}:${node.place.state ?? ''}:${node.label}`;
      item.iconPath = node.level === 'root' ? vscode.ThemeIcon.Folder : stateIcon(node.place.state);
    } else if (node.kind === 'folder') {
      item.iconPath = vscode.ThemeIcon.Folder;
    } else if (node.kind === 'file') {
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
    if (this.session.engine.state !== 'ready' || node?.kind === 'file' || node?.kind === 'more') return [];
    const place = node?.place ?? {};
    const began = performance.now();
    try {
      const level = await this.session.request(messages.coverageLevel, place);
      this.#level_ms = Math.max(this.#level_ms, performance.now() - began);
      return nodesOf(level, place, new Map(roots().map((root) => [root.path, root.name])));
    } catch (error) {
      this.log.warn(`coverage: ${toEngineError(error).message}`);
      return [];
    }
  }

  refresh(): void {
    this.#changed.fire();
  }

  dispose(): void {
    clearTimeout(this.#timer);
    for (const subscription of this.#subscriptions) subscription.dispose();
  }

  #refreshSoon(): void {
    if (!this.#view.visible) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#level_ms = 0;
      this.#changed.fire();
    }, Math.max(refresh_ms, restOverWork * this.#level_ms));
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

function stateIcon(state: messages.FileState | undefined): vscode.ThemeIcon {
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
