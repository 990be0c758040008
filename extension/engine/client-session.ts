// One client's view of the engine: its roots, settings, documents and requests. Everything that is shared is core.ts's.

import path from 'node:path';
import { answer } from './chat/answer';
import { Completer } from './completion/complete';
import type { Core } from './core';
import { CoverageLevelSum } from './coverage-tree';
import { EngineError, toEngineError } from './errors';
import { Indexer } from './indexer';
import * as messages from './messages';
import { exportPack } from './pack-export';
import { importPack } from './pack-import';
import { isAllOf, isBroad, type Changes, type FileRecord, type RootIndex } from './root-index';
import type { ClientSession, SessionClient } from './session';
import { inTurns, sortedInTurns } from './turns';
import { dedupeRoots, type FilterSettings } from './workspace/filter';
import { WorkspaceSearch } from './workspace/search';
import { comparePaths, lstat } from './workspace/walk';
import { watchRoot, type RootWatch } from './workspace/watch';

/** Status is sent at most so often. */
const statusEveryMs = 300;
/** More changes at once are told as one. */
const mostChanges = 2000;
/** Files that are looked at before an answer or a list, for what no watcher saw. */
const lookedAtBeforeAnswer = 20_000;

const defaultSettings: messages.EngineSettings = {
  tokenBudget: 1_000_000,
  maxMemoryBytes: 0,
  maxDiskBytes: 0,
  threads: 0,
  include: [],
  exclude: [],
  focusSegments: null,
};

export class ClientSessionOver implements ClientSession {
  private readonly searched = new WorkspaceSearch();
  /** All files may be others; whoever searches next puts them in. */
  private searchIsOld = true;
  private filled: Promise<void> = Promise.resolve();
  readonly completer: Completer;
  current: messages.EngineSettings = defaultSettings;
  private params: messages.OpenParams | undefined;
  private rootList: RootIndex[] = [];
  /** Counts of the roots when this client opened them: what others had encoded until then is not of its doing. */
  private before = { encoded: 0, reused: 0 };
  private watches: RootWatch[] = [];
  private polling: string | undefined;
  /** Paths whose state is different since the client was told last. */
  private readonly changedPaths = new Map<RootIndex, Set<string>>();
  private everythingChanged = false;
  private statusTimer: NodeJS.Timeout | undefined;
  private readonly looks = new Looks((root, paths) => this.core.indexer.look(() => root.lookAt(paths)));
  /** For what nobody told of: through all folders, and then through those whose rules have changed. */
  private readonly missed = new Looks((root) => this.core.indexer.look(() => root.lookForMissed()));
  /** Under way, or waiting for each other: a file that is saved meanwhile is looked at beside them. */
  private readonly broadLooks = new Set<Promise<void>>();
  private closed = false;
  private readonly onStatus = (): void => this.statusSoon();
  private readonly onLooked = ({ changed, gone }: Changes): void => {
    if (!this.searchIsOld) this.searched.updateFiles(changed, gone);
    // What may enter is told when it is read; what may not, or is gone, now.
    for (const { root, path: file } of [...changed.filter(({ rule }) => rule !== undefined), ...gone]) {
      const index = this.rootList.find(({ dir }) => dir === root);
      if (index) this.pathChanged(index, file);
    }
  };
  private readonly onScanned = (): void => {
    this.searchIsOld = true;
    this.everythingChanged = true;
    this.statusSoon();
  };
  /** Each of its files is told, since of what cannot be read a client may have more to say than that all is different. */
  private readonly onAvailable = (): void => {
    for (const root of this.rootList) {
      if (root.records.size > mostChanges) this.everythingChanged = true;
      else for (const { path: file } of root.records.values()) this.pathChanged(root, file);
    }
    this.statusSoon();
  };
  private readonly onFile = (record: FileRecord): void => {
    if (this.rootList.includes(record.root)) this.pathChanged(record.root, record.path);
    this.statusSoon();
  };

  constructor(
    readonly core: Core,
    private readonly client: SessionClient,
    private readonly onClosed: (session: ClientSessionOver) => void,
  ) {
    this.completer = new Completer(this);
    core.indexer.on('status', this.onStatus);
    core.indexer.on('file', this.onFile);
  }

  get kind(): messages.HelloParams['client'] {
    return this.client.kind;
  }

  /** With all files as they are known now; how they change from then on, it is told. */
  async searching(): Promise<WorkspaceSearch> {
    if (this.searchIsOld) {
      this.searchIsOld = false;
      this.filled = this.filled.then(() => this.searched.setFiles(this.searchFiles()));
    }
    await this.filled;
    return this.searched;
  }

  /** Whether this client's roots are read in the background, when nothing else asks for it. */
  get reads(): boolean {
    return this.params?.ingest === true && this.params.trusted;
  }

  get roots(): readonly RootIndex[] {
    return this.rootList;
  }

  notify<P>(type: import('vscode-jsonrpc/node').NotificationType<P>, params: P): void {
    if (!this.closed) this.client.notify(type, params);
  }

  // ---- roots --------------------------------------------------------------------------------------------------------------

  async open(params: messages.OpenParams): Promise<messages.Coverage> {
    this.params = params;
    this.current = { ...defaultSettings, ...params.settings };
    this.core.applyThreads();
    this.core.applyMemory();
    const before = this.rootList;
    await this.stopWatching();
    this.rootList = [];
    this.before = { encoded: 0, reused: 0 };
    try {
      if (params.trusted) await this.openRoots(params);
    } finally {
      await this.release(before);
    }
    this.searchIsOld = true;
    // Where another client had the root before, nothing of it need be different.
    this.everythingChanged = true;
    this.core.indexer.setReading(this, params.ingest && params.trusted && !this.closed);
    this.statusSoon();
    return Indexer.total(this.rootList);
  }

  private async openRoots(params: messages.OpenParams): Promise<void> {
    const filter: FilterSettings = { include: this.current.include, exclude: this.current.exclude };
    for (const root of await dedupeRoots(params.roots, filter)) {
      const { include = [], exclude = [] } = root;
      const index = await this.core.acquireRoot(root, { include: [...filter.include, ...include], exclude: [...filter.exclude, ...exclude] });
      this.before.encoded += index.nEncoded;
      this.before.reused += index.nReused - index.count().tokens;
      this.rootList.push(index);
      index.on('looked', this.onLooked);
      index.on('scanned', this.onScanned);
      index.on('available', this.onAvailable);
    }
    for (const root of this.rootList) {
      await root.admitInTurns(this.current.tokenBudget);
      await this.core.indexer.scan(root);
      if (params.watch === 'engine') await this.watch(root);
    }
    // The client may have gone meanwhile, and nobody would let go of these any more.
    if (this.closed) await this.letGo();
  }

  private async release(roots: readonly RootIndex[]): Promise<void> {
    for (const root of roots) {
      root.off('looked', this.onLooked);
      root.off('scanned', this.onScanned);
      root.off('available', this.onAvailable);
      await this.core.releaseRoot(root);
    }
  }

  private async letGo(): Promise<void> {
    await this.stopWatching();
    const roots = this.rootList;
    this.rootList = [];
    await this.release(roots);
  }

  private *searchFiles(): Iterable<import('./workspace/search').SearchFile> {
    for (const root of this.rootList) yield* root.searchFiles();
  }

  private async watch(root: RootIndex): Promise<void> {
    const watch = await watchRoot({
      root: root.dir,
      folders: () => root.folders,
      ignores: (file) => root.isOwn(file),
      onChange: (paths) => {
        const { broad, others } = this.looksAt(root, paths);
        // The next change does not wait for it.
        void broad?.then(() => watch.foldersChanged());
        return others;
      },
      // Its files are unavailable; once it is back, all of it is looked at again.
      onRoot: (state) => {
        if (state === 'gone') void this.lookAt(root, []);
      },
      onPolling: (reason) => {
        this.polling = reason;
        this.statusSoon();
      },
    });
    this.watches.push(watch);
  }

  private async stopWatching(): Promise<void> {
    const watches = this.watches;
    this.watches = [];
    for (const watch of watches) await watch.close();
  }

  /** No paths: all of the root. */
  private async lookAt(root: RootIndex, paths: readonly string[]): Promise<void> {
    const { broad, others } = this.looksAt(root, paths);
    await Promise.all([broad, others]);
  }

  private looksAt(root: RootIndex, paths: readonly string[]): { readonly broad: Promise<void> | undefined; readonly others: Promise<void> | undefined } {
    const broad = paths.length === 0 ? [''] : paths.filter(isBroad);
    const others = isAllOf(broad) ? [] : paths.filter((file) => !isBroad(file));
    return {
      broad: broad.length > 0 ? this.lookBroadly(root, broad) : undefined,
      others: others.length > 0 ? this.looks.at(root, others) : undefined,
    };
  }

  /** The root has one such look after the other, whichever client asks for it. */
  private async lookBroadly(root: RootIndex, paths: readonly string[]): Promise<void> {
    const look = this.core.indexer.look(() => root.lookAt(paths));
    this.broadLooks.add(look);
    await look;
    this.broadLooks.delete(look);
  }

  /** All that was told by now is looked at. */
  private async looked(): Promise<void> {
    await Promise.all([this.looks.done, this.missed.done, ...this.broadLooks]);
  }

  /** Sizes and times are looked at before an answer: not every change is seen by a watcher. */
  async refresh(): Promise<void> {
    await this.looked();
    for (const root of this.rootList) {
      const changed = await root.changedSince(lookedAtBeforeAnswer, (file) =>
        lstat(file).then(
          (s) => ({ bytes: s.size, mtimeMs: s.mtimeMs, ino: s.ino }),
          () => undefined,
        ),
      );
      if (changed.length > 0) await this.lookAt(root, changed);
    }
  }

  /**
   * Whoever wants all to be in gets what a fresh read would get: changes that were told are looked at first, and so is what was set
   * aside because it changes all the time.
   */
  async takeAll(): Promise<void> {
    await this.looked();
    for (const root of this.rootList) await this.core.indexer.look(() => root.takeVolatile());
  }

  /** The root and the path within it of an absolute path. */
  locate(file: string): { root: RootIndex; path: string } | undefined {
    for (const root of this.rootList) {
      const relative = path.relative(root.dir, file);
      if (relative !== '' && !relative.startsWith('..') && !path.isAbsolute(relative)) {
        return { root, path: relative.split(path.sep).join('/') };
      }
    }
    return undefined;
  }

  private requireRoots(): void {
    if (!this.params) throw new EngineError('invalid_argument', 'expected `open` before this request, found none');
    if (!this.params.trusted) throw new EngineError('untrusted', 'expected a trusted workspace, found an untrusted one: nothing of it is read');
  }

  // ---- requests -----------------------------------------------------------------------------------------------------------

  async ask(params: messages.AskParams, signal: AbortSignal): Promise<messages.AskResult> {
    this.requireRoots();
    return answer(this, params, signal);
  }

  async complete(params: messages.CompleteParams, signal: AbortSignal): Promise<messages.CompleteResult> {
    this.requireRoots();
    return this.completer.complete(params, signal);
  }

  place(params: messages.CompleteParams): void {
    if (this.params?.trusted) this.completer.place(params);
  }

  async ingest(signal: AbortSignal): Promise<messages.IngestResult> {
    this.requireRoots();
    const begin = performance.now();
    this.core.indexer.setReading(this, true);
    await this.takeAll();
    await this.core.indexer.readAll(Infinity, signal);
    signal.throwIfAborted();
    this.core.indexer.throwIfStopped();
    for (const root of this.rootList) await root.save();
    // With nothing new to say of any file, that has written nothing: segments were encoded again, or for what was known already.
    await this.core.commit();
    this.sendStatus();
    const status = this.status();
    const seconds = (performance.now() - begin) / 1000;
    return {
      files: status.coverage.files,
      tokens: status.coverage.tokens,
      encoded_tokens: status.encoded_tokens,
      reused_tokens: status.reused_tokens,
      tokens_per_s: status.encoded_tokens > 0 ? Math.round(status.encoded_tokens / seconds) : 0,
    };
  }

  async coverage({ path: file }: { path?: string }): Promise<readonly messages.FileCoverage[]> {
    this.requireRoots();
    await this.refresh();
    for (const root of this.rootList) await root.checkReadable(lookedAtBeforeAnswer);
    if (file === undefined) return this.allFiles();
    const at = path.isAbsolute(file) ? this.locate(file) : undefined;
    const wanted = at?.path ?? file.replace(/^\.\//, '');
    const found = (at ? [at.root] : this.rootList).flatMap((root) => root.coverageAt(wanted) ?? []);
    const exact = found.filter((f) => f.path === wanted);
    // In an excluded folder, the folder's rule is the file's.
    return exact.length > 0 ? exact : found.filter((f) => f.state === 'excluded');
  }

  /** As they are at one moment, in the order of their paths. */
  private async allFiles(): Promise<readonly messages.FileCoverage[]> {
    const lists = this.rootList.map((root) => root.list());
    try {
      for (const list of lists) await list.gather();
      const files: (readonly messages.FileCoverage[])[] = lists.map((list) => list.now());
      for (const [i, unsorted] of files.entries()) files[i] = await sortedInTurns(unsorted, byPath);
      return files.flat();
    } finally {
      for (const list of lists) list.close();
    }
  }

  async coverageLevel(place: messages.CoveragePlace): Promise<messages.CoverageLevel> {
    this.requireRoots();
    const sum = new CoverageLevelSum(place, this.rootList.length);
    for (const root of this.rootList) {
      if (place.root !== undefined && place.root !== root.dir) continue;
      await inTurns(root.coveragesWithin(place.folder ?? ''), (file) => sum.add(file));
    }
    return sum.level();
  }

  async coverageOf({ paths }: { paths: readonly string[] }): Promise<readonly (messages.FileCoverage | null)[]> {
    this.requireRoots();
    return paths.map((file) => {
      const at = this.locate(file);
      return at?.root.coverageAt(at.path) ?? null;
    });
  }

  pause({ paused, everyone }: messages.PauseParams): void {
    this.core.indexer.setPausing(this, paused, everyone);
  }

  pauseEnded(): void {
    this.notify(messages.pauseEnded, {});
  }

  settings(params: Partial<messages.EngineSettings>): void {
    const before = this.current;
    this.current = { ...before, ...params };
    this.core.applyThreads();
    if (before.maxMemoryBytes !== this.current.maxMemoryBytes) this.core.applyMemory();
    if (!this.params) return;
    const filterChanged = String(before.include) !== String(this.current.include) || String(before.exclude) !== String(this.current.exclude);
    if (filterChanged) {
      void this.open({ ...this.params, settings: this.current }).catch((error) => this.core.log(`settings: ${toEngineError(error).message}`));
    } else if (before.tokenBudget !== this.current.tokenBudget) {
      for (const root of this.rootList) void root.admitInTurns(this.current.tokenBudget).then(() => this.core.indexer.changed());
    }
  }

  typing(): void {
    this.core.indexer.typing();
  }

  filesChanged({ paths, missed }: { paths: readonly string[]; missed?: boolean }): void {
    if (missed) {
      for (const root of this.rootList) void this.missed.at(root, []);
      return;
    }
    if (paths.length === 0) {
      for (const root of this.rootList) void this.lookAt(root, []);
      return;
    }
    const byRoot = new Map<RootIndex, string[]>();
    for (const file of paths) {
      const at = this.locate(file);
      if (at) byRoot.set(at.root, [...(byRoot.get(at.root) ?? []), at.path]);
    }
    for (const [root, list] of byRoot) void this.lookAt(root, list);
  }

  recentFiles({ paths }: { paths: readonly string[] }): void {
    this.core.indexer.setRecent(paths);
    this.completer.setOpenFiles(paths);
  }

  document({ path: file, text }: { path: string; text: string | null }): void {
    const at = this.locate(file);
    if (!at) return;
    // A document outlives its file, which may come back.
    if (text === null || at.root.records.has(at.path)) this.searched.setText({ root: at.root.dir, path: at.path }, text);
    if (at.root.shadow(at.path, text)) this.core.indexer.changed();
    // Saved, most likely: no need to wait for a watcher to say so.
    if (text === null) void this.lookAt(at.root, [at.path]);
  }

  async forget(): Promise<{ segments: number; bytes: number }> {
    this.requireRoots();
    const total = { segments: 0, bytes: 0 };
    this.core.indexer.setReading(this, false);
    for (const root of this.rootList) {
      const { segments, bytes } = await this.core.forget(root);
      total.segments += segments;
      total.bytes += bytes;
    }
    return total;
  }

  async exportPack({ file }: { file: string }, signal: AbortSignal): Promise<messages.ExportResult> {
    this.requireRoots();
    return exportPack(this, file, signal);
  }

  importPack({ file }: { file: string }, signal: AbortSignal): Promise<messages.ImportResult> {
    return importPack(this.core, file, { signal, onProgress: (progress) => this.notify(messages.packProgress, progress) });
  }

  verify(): Promise<messages.StoreCheck> {
    return this.core.verify();
  }

  // ---- status -------------------------------------------------------------------------------------------------------------

  storeFailed(error: EngineError): void {
    this.core.indexer.refuse(error);
    this.statusSoon();
  }

  private statusSoon(): void {
    if (this.closed || this.statusTimer) return;
    this.statusTimer = setTimeout(() => this.sendStatus(), statusEveryMs);
    this.statusTimer.unref();
  }

  /** The files first: whoever hears that all is in knows then what changed. */
  private sendStatus(): void {
    clearTimeout(this.statusTimer);
    this.statusTimer = undefined;
    if (this.changedPaths.size > 0 || this.everythingChanged) this.notify(messages.coverageChanged, this.takeChanges());
    this.notify(messages.ingestStatus, this.status());
  }

  private pathChanged(root: RootIndex, file: string): void {
    const paths = this.changedPaths.get(root);
    if (paths) paths.add(file);
    else this.changedPaths.set(root, new Set([file]));
  }

  /** As it is now; of a path that lies in an excluded folder, the folder's. */
  private takeChanges(): messages.CoverageChange {
    const files = new Map<string, messages.FileCoverage>();
    const gone: { root: string; path: string }[] = [];
    let nPaths = 0;
    for (const { size } of this.changedPaths.values()) nPaths += size;
    if (nPaths > mostChanges) {
      this.everythingChanged = true;
      this.changedPaths.clear();
    }
    for (const [root, paths] of this.changedPaths) {
      for (const file of paths) {
        const coverage = root.coverageAt(file);
        if (coverage) files.set(`${root.dir}\0${coverage.path}`, coverage);
        if (coverage?.path !== file) gone.push({ root: root.dir, path: file });
      }
    }
    const everything = this.everythingChanged;
    this.changedPaths.clear();
    this.everythingChanged = false;
    return { files: [...files.values()], gone, everything };
  }

  private status(): messages.IngestStatus {
    const status = this.core.indexer.status(this.rootList);
    return {
      ...status,
      encoded_tokens: status.encoded_tokens - this.before.encoded,
      reused_tokens: status.reused_tokens - this.before.reused,
      ...(this.polling !== undefined && { polling: this.polling }),
    };
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    clearTimeout(this.statusTimer);
    this.core.indexer.off('status', this.onStatus);
    this.core.indexer.off('file', this.onFile);
    this.core.indexer.setReading(this, false);
    this.core.indexer.setPausing(this, false);
    this.searched.close();
    this.onClosed(this);
    await this.completer.close();
    await this.letGo();
  }
}

function byPath(a: messages.FileCoverage, b: messages.FileCoverage): number {
  return comparePaths(a.path, b.path);
}

/** One look after the other, so that the newest state of the disk is what is kept; what comes meanwhile is one look more, however much it is. */
class Looks {
  done: Promise<void> = Promise.resolve();
  /** That have not begun. */
  private readonly waiting = new Map<RootIndex, { readonly paths: Set<string>; readonly done: Promise<void> }>();

  /** `look` handles its own errors. */
  constructor(private readonly look: (root: RootIndex, paths: readonly string[]) => Promise<void>) {}

  at(root: RootIndex, paths: readonly string[]): Promise<void> {
    const waiting = this.waiting.get(root);
    if (waiting) {
      for (const file of paths) waiting.paths.add(file);
      return waiting.done;
    }
    const wanted = new Set(paths);
    const done = this.done.then(() => {
      this.waiting.delete(root);
      return this.look(root, [...wanted]);
    });
    this.done = done;
    this.waiting.set(root, { paths: wanted, done });
    return done;
  }
}
