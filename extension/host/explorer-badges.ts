// What became of files, in the explorer: a tooltip for all, a badge where there is something to say. Colours are left to source
// control. The editor asks for the rows that it shows; those are asked of the engine in one request for all, and remembered until
// it says that they are different. Nothing is registered, asked or kept while it is switched off, and no engine is started for it.

import * as vscode from 'vscode';
import * as messages from '../engine/messages';
import { toEngineError } from '../engine/errors';
import type { Log } from '../log';
import { badgeOf, type BadgesShown } from './coverage-words';
import { locate, pathOf, pathWithin } from './locate';
import type { Session } from './session';

/** Rows of an explorer that scrolls come one by one. */
const gather_ms = 30;
const redraw_ms = 700;
/** Beyond it the editor is told that all rows may be different. */
const maxRedrawn = 500;
const maxKnown = 20_000;

export class ExplorerBadges implements vscode.FileDecorationProvider, vscode.Disposable {
  readonly #changed = new vscode.EventEmitter<vscode.Uri[] | undefined>();
  readonly onDidChangeFileDecorations = this.#changed.event;
  readonly #subscriptions: vscode.Disposable[];
  #registration: vscode.Disposable | undefined;
  /** By absolute path, as the engine has it. */
  readonly #known = new Map<string, messages.FileCoverage | null>();
  readonly #uris = new Map<string, vscode.Uri>();
  #asked: { readonly paths: Set<string>; readonly answer: Promise<void> } | undefined;
  readonly #different = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #shown: BadgesShown = 'off';

  constructor(
    private readonly session: Session,
    private readonly log: Log,
  ) {
    session.on(messages.coverageChanged, (change) => this.#update(change));
    this.#subscriptions = [this.#changed, session.onDidChange(() => this.#register())];
    this.#register();
  }

  async provideFileDecoration(uri: vscode.Uri): Promise<vscode.FileDecoration | undefined> {
    const location = locate(uri);
    if (location === null) return undefined;
    const file = pathOf(location);
    this.#uris.set(file, uri);
    if (!this.#known.has(file)) await this.#ask(file);
    const coverage = this.#known.get(file);
    if (coverage === undefined || coverage === null) return undefined;
    const { badge, tooltip } = badgeOf(pathWithin(coverage.root, location), coverage, this.#shown);
    return new vscode.FileDecoration(badge === '' ? undefined : badge, tooltip);
  }

  dispose(): void {
    clearTimeout(this.#timer);
    this.#registration?.dispose();
    for (const subscription of this.#subscriptions) subscription.dispose();
  }

  #register(): void {
    const { config, place, engine } = this.session;
    const shown = place === 'workspace' && engine.state === 'ready' ? config.explorer.badges : 'off';
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#registration?.dispose();
    this.#registration = undefined;
    this.#forget();
    if (shown !== 'off') this.#registration = vscode.window.registerFileDecorationProvider(this);
  }

  #ask(file: string): Promise<void> {
    if (this.#asked === undefined) {
      const paths = new Set<string>();
      this.#asked = { paths, answer: new Promise((resolve) => setTimeout(resolve, gather_ms)).then(() => this.#learn(paths)) };
    }
    this.#asked.paths.add(file);
    return this.#asked.answer;
  }

  async #learn(paths: ReadonlySet<string>): Promise<void> {
    this.#asked = undefined;
    if (this.#registration === undefined) return;
    try {
      const list = [...paths];
      const found = await this.session.request(messages.coverageOf, { paths: list });
      if (this.#known.size > maxKnown) {
        this.#forget();
        this.#changed.fire(undefined);
      }
      list.forEach((file, i) => this.#known.set(file, found[i] ?? null));
    } catch (error) {
      this.log.debug(`badges: ${toEngineError(error).message}`);
    }
  }

  #update({ files, gone, everything }: messages.CoverageChange): void {
    if (this.#registration === undefined) return;
    if (everything) {
      this.#forget();
      this.#changed.fire(undefined);
      return;
    }
    for (const { root, path } of gone) this.#note(`${root}/${path}`, null);
    for (const file of files) this.#note(`${file.root}/${file.path}`, file);
  }

  #note(path: string, coverage: messages.FileCoverage | null): void {
    // What nobody has asked for is not shown; what has gone may lie in an excluded folder by now, and is asked for again.
    if (!this.#known.has(path)) return;
    if (coverage === null) this.#known.delete(path);
    else this.#known.set(path, coverage);
    this.#different.add(path);
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      const uris = [...this.#different].flatMap((file) => this.#uris.get(file) ?? []);
      this.#different.clear();
      this.#changed.fire(uris.length > maxRedrawn ? undefined : uris);
    }, redraw_ms);
  }

  #forget(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#known.clear();
    this.#uris.clear();
    this.#different.clear();
  }
}
