// Notices changes below a root for clients that have no watcher of their own (the command line): one change set per burst.
// On Linux one inotify watch per walked folder – none per file, none for what is excluded – elsewhere one recursive watch. Node's
// own fs.watch instead of a library, because chokidar reads a whole folder again at each event (2,000 files, ten writes a second:
// 18 % of a core, against 0.4 %). Folders that cannot be watched are polled, and tried again. It says where to look and never
// what is there: the caller looks (walk.ts) and knows the folders then. No change may be lost: what could have been missed –
// while watches were set up, asleep, in an overflow – is reported as "look at everything".

import { constants, watch, type FSWatcher } from 'node:fs';
import { access, lstat, readdir, stat, statfs } from 'node:fs/promises';
import { basename, join, sep } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { isWithin } from './filter';

export interface WatchOptions {
  /** Absolute path, links resolved (`Walk.root`). */
  readonly root: string;
  /**
   * The folders to watch (`Walk.folders`); asked for at the start and after each change that was looked at. The same set means that
   * none came or went.
   */
  readonly folders: () => ReadonlySet<string>;
  /**
   * Paths within the root, with '/': files or folders that were added, changed or removed. None: look at everything again.
   * The next call waits until this one has settled; it handles its own errors.
   */
  readonly onChange: (paths: readonly string[]) => Promise<void> | void;
  /** Called when polling begins, with a sentence that says why and what to do, and with undefined when it ends. */
  readonly onPolling?: (reason: string | undefined) => void;
  /** The root went away (its files are unavailable, nothing is to be dropped), or is back and a look at everything follows. */
  readonly onRoot?: (state: 'gone' | 'back') => void;
  /** Paths whose events are not reported, such as our own store. */
  readonly ignores?: (path: string) => boolean;
  /** How long nothing may happen before changes are told, and how long where nothing was told for `maxDelayMs`: a save. */
  readonly debounceMs?: number;
  readonly firstDebounceMs?: number;
  readonly maxDelayMs?: number;
  readonly pollMs?: number;
  readonly heartbeatMs?: number;
}

export interface RootWatch {
  /** Why some folders are polled, or undefined. */
  readonly polling: string | undefined;
  /** Watches of the operating system in use. */
  readonly watchCount: number;
  /** `folders` may give others now: for whoever looks at changes beyond `onChange`. */
  foldersChanged(): Promise<void>;
  close(): void;
}

/**
 * Watches a root until it is closed. Once the watches stand, a look at everything is asked for: it closes the gap since the
 * caller's last look. A folder that is new later is reported once for the same reason. Throws nothing: what cannot be watched
 * is polled.
 */
export async function watchRoot(options: WatchOptions): Promise<RootWatch> {
  const watcher = new RootWatcher(options);
  await watcher.start();
  return watcher;
}

/** More paths than this in one burst are a storm (a checkout, an install): it is waited out longer. */
const stormPaths = 300;
const stormFactor = 4;
/** The kernel queues 16,384 events by default and drops the rest without a word that Node passes on. */
const overflowEvents = 8000;
/** A timer this late means that the process or the machine was stopped. */
const stoppedMs = 10_000;
const maxPollMs = 30_000;

/** Magic numbers of file systems that send no events for what others change (statfs(2)). */
const networkFileSystems = new Map<number, string>([
  [0x6969, 'NFS'],
  [0x517b, 'SMB'],
  [0xff534d42, 'CIFS'],
  [0xfe534d42, 'SMB2'],
  [0x01021997, '9P'],
  [0x5346414f, 'AFS'],
  [0x786f4256, 'a VirtualBox share'],
  [0x65735546, 'FUSE'],
]);

class RootWatcher implements RootWatch {
  private readonly recursive = process.platform !== 'linux';
  private readonly debounceMs: number;
  private readonly firstDebounceMs: number;
  private readonly maxDelayMs: number;
  private readonly pollMs: number;
  private readonly heartbeatMs: number;

  private folders: ReadonlySet<string> = new Set();
  private readonly watchers = new Map<string, FSWatcher>();
  /** Some folders have no watch and are not polled either: they were gone, or cannot be read. They are tried again at each change. */
  private incomplete = false;
  /** Folders without a watch, with what was last seen in them. */
  private readonly polled = new Map<string, Snapshot | undefined>();
  private pollReason: string | undefined;
  private network: string | undefined;

  private pending = new Set<string>();
  private pendingAll = false;
  private events = 0;
  private firstEvent = 0;
  private lastFlush = -Infinity;
  private flushTimer: NodeJS.Timeout | undefined;
  /** Watched folders whose name now stands for another folder, or none. */
  private readonly replaced = new Set<string>();

  private pollTimer: NodeJS.Timeout | undefined;
  private heartbeat: NodeJS.Timeout | undefined;
  private lastDrift = Date.now() - performance.now();
  private rootState: 'there' | 'gone' = 'there';
  private rootIdentity: string | undefined;
  private rootReadable = true;
  private closed = false;
  /** Work on watches and calls of the client, one after the other: each starts from what the last one left. */
  private turn: Promise<void> = Promise.resolve();

  constructor(private readonly options: WatchOptions) {
    this.debounceMs = options.debounceMs ?? 150;
    this.firstDebounceMs = Math.min(options.firstDebounceMs ?? 40, this.debounceMs);
    this.maxDelayMs = options.maxDelayMs ?? 1000;
    this.pollMs = options.pollMs ?? 10_000;
    this.heartbeatMs = options.heartbeatMs ?? 2000;
  }

  get polling(): string | undefined {
    return this.pollReason;
  }

  get watchCount(): number {
    return this.watchers.size;
  }

  async start(): Promise<void> {
    this.network = await networkKind(this.options.root);
    this.rootIdentity = await identityOf(this.options.root);
    await this.applyFolders(this.options.folders());
    this.report('');
    this.beat();
  }

  foldersChanged(): Promise<void> {
    return this.inTurn(() => this.applyFolders(this.options.folders()));
  }

  close(): void {
    this.closed = true;
    this.dropWatches(() => true);
    clearTimeout(this.flushTimer);
    clearTimeout(this.pollTimer);
    clearTimeout(this.heartbeat);
  }

  // ---- watches ---------------------------------------------------------------------------------------------------------------

  private async applyFolders(folders: ReadonlySet<string>): Promise<void> {
    if (this.closed || (folders === this.folders && !this.incomplete)) return;
    const before = this.folders;
    this.folders = folders;
    this.dropWatches((folder) => !this.folders.has(folder) && !(this.recursive && folder === ''));
    await this.addWatches(folders);
    // The first folders are covered by the look at everything that `start` asks for.
    if (before.size > 0) for (const folder of folders) if (!before.has(folder)) this.report(folder);
  }

  private dropWatches(drops: (folder: string) => boolean): void {
    for (const [folder, watcher] of this.watchers) {
      if (!drops(folder)) continue;
      watcher.close();
      this.watchers.delete(folder);
    }
    for (const folder of this.polled.keys()) if (drops(folder)) this.polled.delete(folder);
  }

  /** Watches what has no watch yet, and leaves what cannot be watched to polling. */
  private async addWatches(folders: Iterable<string>): Promise<void> {
    const list = this.recursive ? [''] : folders;
    let reason = this.network === undefined ? undefined : `it is on ${this.network}, which sends no events`;
    let lastTurn = performance.now();
    this.incomplete = false;
    for (const folder of list) {
      if (this.closed) return;
      if (this.watchers.has(folder) || !this.folders.has(folder)) continue;
      reason ??= this.addWatch(folder);
      // One refusal speaks for all that would follow.
      if (reason !== undefined && !this.watchers.has(folder)) this.putPolled(folder);
      if (reason === undefined && !this.watchers.has(folder)) this.incomplete = true;
      if (performance.now() - lastTurn > 8) {
        await turn();
        lastTurn = performance.now();
      }
    }
    this.setPolling(this.polled.size === 0 ? undefined : (reason ?? this.pollReason ?? 'it cannot be watched'));
  }

  /** Undefined where it is watched, or gone; else why not. */
  private addWatch(folder: string): string | undefined {
    try {
      const absolute = join(this.options.root, folder);
      const watcher = watch(absolute, { persistent: false, recursive: this.recursive });
      const own = basename(absolute);
      watcher.on('change', (kind, name) => this.event(folder, own, kind, String(name ?? '')));
      watcher.on('error', () => {
        watcher.close();
        this.watchers.delete(folder);
        this.incomplete = true;
        this.report(folder);
      });
      this.watchers.set(folder, watcher);
      this.polled.delete(folder);
      return undefined;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'EACCES') return undefined;
      return refusal(code ?? String(error));
    }
  }

  private event(folder: string, own: string, kind: string, name: string): void {
    if (this.closed) return;
    if (this.recursive) {
      const path = name.replaceAll(sep, '/');
      if (this.isWalked(path)) this.report(path);
      return;
    }
    const path = folder === '' ? name : `${folder}/${name}`;
    // An event of the folder itself bears the folder's name too.
    if (name === '' || name === own) this.report(folder);
    if (name === '') return;
    if (kind === 'rename' && this.folders.has(path)) this.replaced.add(path);
    this.report(path);
  }

  private isWalked(path: string): boolean {
    const slash = path.lastIndexOf('/');
    return this.folders.has(path) || this.folders.has(slash < 0 ? '' : path.slice(0, slash));
  }

  // ---- change sets ---------------------------------------------------------------------------------------------------------------

  /** '' is everything. */
  private report(path: string): void {
    if (this.closed || (path !== '' && this.options.ignores?.(path))) return;
    const now = performance.now();
    if (this.pending.size === 0 && !this.pendingAll) this.firstEvent = now;
    this.events++;
    if (path === '' || this.events > overflowEvents) {
      this.pendingAll = true;
      this.pending.clear();
    } else if (!this.pendingAll) this.pending.add(path);
    const isStorm = this.events > stormPaths;
    const isFirst = !isStorm && now - this.lastFlush > this.maxDelayMs;
    const quiet = isFirst ? this.firstDebounceMs : this.debounceMs * (isStorm ? stormFactor : 1);
    const left = this.firstEvent + this.maxDelayMs * (isStorm ? 2 * stormFactor : 1) - now;
    clearTimeout(this.flushTimer);
    this.flushTimer = setTimeout(() => this.inTurn(() => this.flush()), Math.max(0, Math.min(quiet, left)));
    this.flushTimer.unref();
  }

  private inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.turn.then(() => (this.closed ? undefined : work()));
    // A client that throws is told so where it called; the next in turn goes on.
    this.turn = done.catch(() => undefined);
    return done;
  }

  private async flush(): Promise<void> {
    if (this.pending.size === 0 && !this.pendingAll) return;
    // Where the root itself has gone its files are unavailable, not removed: all of it is looked at when it is back.
    await this.lookAtRoot(false);
    if (this.closed || this.rootState === 'gone') return;
    const paths = this.pendingAll ? [] : [...this.pending];
    this.pending = new Set();
    this.pendingAll = false;
    this.events = 0;
    this.lastFlush = performance.now();
    if (this.replaced.size > 0) await this.renewReplaced();
    if (this.closed) return;
    await this.options.onChange(paths);
    await this.applyFolders(this.options.folders());
  }

  /** A folder that was removed and made again has a new inode: its watches, and those below, still see the old one. */
  private async renewReplaced(): Promise<void> {
    const tops = [...this.replaced];
    this.replaced.clear();
    const affected = [...this.folders].filter((folder) => tops.some((top) => isWithin(folder, top)));
    const drops = new Set(affected);
    this.dropWatches((folder) => drops.has(folder));
    await this.addWatches(affected);
  }

  // ---- polling ------------------------------------------------------------------------------------------------------------------

  private putPolled(folder: string): void {
    for (const each of this.recursive ? this.folders : [folder]) if (!this.polled.has(each)) this.polled.set(each, undefined);
  }

  private setPolling(reason: string | undefined): void {
    const before = this.pollReason;
    this.pollReason =
      reason === undefined ? undefined : `changes below ${this.options.root} are polled for every ${this.pollMs / 1000} s: ${reason}`;
    if (before === undefined && this.pollReason !== undefined) {
      this.options.onPolling?.(this.pollReason);
      this.schedulePoll(0);
    } else if (before !== undefined && this.pollReason === undefined) {
      clearTimeout(this.pollTimer);
      this.options.onPolling?.(undefined);
    }
  }

  private schedulePoll(tookMs: number): void {
    clearTimeout(this.pollTimer);
    // A slow share is not to be busy all the time: at most a fifth of it.
    this.pollTimer = setTimeout(() => void this.inTurn(() => this.poll()), Math.min(maxPollMs, Math.max(this.pollMs, 4 * tookMs)));
    this.pollTimer.unref();
  }

  private async poll(): Promise<void> {
    const start = performance.now();
    for (const [folder, before] of [...this.polled]) {
      if (this.closed) return;
      const after = await snapshot(join(this.options.root, folder));
      if (!this.polled.has(folder)) continue;
      this.polled.set(folder, after);
      // The first look only remembers. It is a poll interval later than the look at everything: nothing may hide in between.
      if (!before) this.report(folder);
      for (const name of before ? difference(before, after) : []) this.report(folder === '' ? name : `${folder}/${name}`);
    }
    // Watches may have become free. What changed between the look above and the watch is looked at once more.
    const tried = [...this.polled.keys()];
    if (this.network === undefined && tried.length > 0) {
      await this.addWatches(tried);
      for (const folder of tried) if (this.watchers.has(folder) && !this.recursive) this.report(folder);
    }
    if (!this.closed && this.polled.size > 0) this.schedulePoll(performance.now() - start);
  }

  // ---- the root and the clock ----------------------------------------------------------------------------------------------------

  private beat(): void {
    if (this.closed) return;
    const due = performance.now() + this.heartbeatMs;
    this.heartbeat = setTimeout(() => {
      // A stopped process sees the monotonic clock jump; a sleeping machine stops that clock, and the wall clock runs ahead.
      const now = performance.now();
      const drift = Date.now() - now;
      const wasStopped = now - due > stoppedMs || Math.abs(drift - this.lastDrift) > stoppedMs;
      this.lastDrift = drift;
      void this.inTurn(() => this.lookAtRoot(wasStopped)).finally(() => this.beat());
    }, this.heartbeatMs);
    this.heartbeat.unref();
  }

  private async lookAtRoot(wasStopped: boolean): Promise<void> {
    const identity = await identityOf(this.options.root);
    const readable = identity !== undefined && (await isReadable(this.options.root));
    if (this.closed) return;
    if (identity === undefined) {
      if (this.rootState === 'gone') return;
      this.rootState = 'gone';
      // Watches follow a folder that was renamed, and would report its changes under the old name.
      this.dropWatches(() => true);
      this.options.onRoot?.('gone');
      return;
    }
    const isBack = this.rootState === 'gone' || identity !== this.rootIdentity;
    if (isBack) {
      this.rootState = 'there';
      this.rootIdentity = identity;
      this.dropWatches(() => true);
      await this.addWatches(this.folders);
      this.options.onRoot?.('back');
    }
    if (isBack || wasStopped || readable !== this.rootReadable) this.report('');
    this.rootReadable = readable;
  }
}

function refusal(code: string): string {
  if (code === 'ENOSPC') {
    return 'the limit of inotify watches is reached; to raise it: sudo sysctl fs.inotify.max_user_watches=524288';
  }
  if (code === 'EMFILE') {
    return 'the limit of inotify instances or open files is reached; to raise it: sudo sysctl fs.inotify.max_user_instances=1024, or ulimit -n 4096';
  }
  return `watching failed (${code})`;
}

async function networkKind(root: string): Promise<string | undefined> {
  if (process.platform !== 'linux') return undefined;
  try {
    return networkFileSystems.get((await statfs(root)).type >>> 0);
  } catch {
    return undefined;
  }
}

async function identityOf(root: string): Promise<string | undefined> {
  try {
    const { dev, ino } = await stat(root);
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}

async function isReadable(root: string): Promise<boolean> {
  return access(root, constants.R_OK).then(
    () => true,
    () => false,
  );
}

// ---- snapshots of polled folders ----------------------------------------------------------------------------------------------

/** Name → what changes with the content; a folder's own entries are polled as a folder, so only its being there counts. */
type Snapshot = ReadonlyMap<string, string>;

const looksAtOnce = 16;

async function snapshot(absolute: string): Promise<Snapshot> {
  const found = new Map<string, string>();
  let entries;
  try {
    entries = await readdir(absolute, { withFileTypes: true });
  } catch {
    return found;
  }
  for (let i = 0; i < entries.length; i += looksAtOnce) {
    await Promise.all(
      entries.slice(i, i + looksAtOnce).map(async (entry) => {
        try {
          const stats = entry.isDirectory() ? undefined : await lstat(join(absolute, entry.name));
          found.set(entry.name, stats ? `${stats.mtimeMs} ${stats.size} ${stats.ino}` : 'folder');
        } catch {
          // Removed in between: the next look tells.
        }
      }),
    );
  }
  return found;
}

function difference(before: Snapshot, after: Snapshot): string[] {
  const names: string[] = [];
  for (const [name, seen] of after) if (before.get(name) !== seen) names.push(name);
  for (const name of before.keys()) if (!after.has(name)) names.push(name);
  return names;
}

// ---- files that change all the time ------------------------------------------------------------------------------------------------

/**
 * Tells files that change in window after window (logs, databases), which are set aside by the rule `volatile`, and when they
 * have come to rest. Times are the caller's, monotonic. What it costs is a matter of what changed, not of how many there are.
 */
export class VolatileFiles {
  /** When they changed lately, and when those that are set aside changed last; in both, who changed longest ago comes first. */
  private readonly changes = new Map<string, readonly number[]>();
  private readonly setAside = new Map<string, number>();

  constructor(
    /** So many changes … */
    private readonly limit = 20,
    /** … within this time are too many; … */
    private readonly spanMs = 60_000,
    /** … and this long without any is rest. */
    private readonly restMs = 60_000,
  ) {}

  /** All that is set aside. */
  get paths(): string[] {
    return [...this.setAside.keys()];
  }

  /** When the first of them has come to rest, if it does not change again; undefined where nothing is set aside. */
  get restsAtMs(): number | undefined {
    for (const at of this.setAside.values()) return at + this.restMs;
    return undefined;
  }

  /** Notes a change, once per change set; true where the file is, or now becomes, volatile. */
  note(path: string, nowMs: number): boolean {
    for (const [old, times] of this.changes) {
      if (nowMs - (times.at(-1) ?? 0) < this.spanMs) break;
      this.changes.delete(old);
    }
    const recent = [...(this.changes.get(path) ?? []).filter((at) => nowMs - at < this.spanMs), nowMs];
    this.changes.delete(path);
    if (!this.setAside.delete(path) && recent.length < this.limit) {
      this.changes.set(path, recent);
      return false;
    }
    this.setAside.set(path, nowMs);
    return true;
  }

  /** Those that have come to rest: to be read again, and released then. */
  rested(nowMs: number): string[] {
    const rested: string[] = [];
    for (const [path, at] of this.setAside) {
      if (nowMs - at < this.restMs) break;
      rested.push(path);
    }
    return rested;
  }

  /** Volatile no longer: only as many changes again make it so. */
  release(path: string): void {
    this.setAside.delete(path);
  }

  clear(): void {
    this.changes.clear();
    this.setAside.clear();
  }
}
