// Looks at a root folder and says of every file whether it may enter memory, by name and place: contents are read later, one by
// one, and judged by classify.ts. Links are listed and never followed, so circles cannot occur and a file has one path. An
// excluded folder is one entry. The result is in path order whatever order the disk answered in, because admission depends on
// it. Everything is asynchronous with a bounded number of calls under way: 200,000 files take about two seconds.

import { close, constants, lstat as lstatBy, open, read, type Dirent, type Stats } from 'node:fs';
import { readlink, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExclusionRule } from '../messages';
import { sortedInTurns, Turns } from '../turns';
import { classifyName, classOf, maxBytesOf, tooLarge, type FileClass, type Verdict } from './classify';
import { Folder, isWithin, reachOf, WorkspaceFilter, type FilterOptions } from './filter';

export interface WalkedFile {
  /** Within the root, with '/', as the file system gives it. */
  readonly path: string;
  readonly bytes: number;
  readonly mtimeMs: number;
  readonly ino: number;
  readonly class: FileClass;
  /** The .salaignore rule or include glob that brought an ignored file in. */
  readonly detail?: string;
}

export interface ExcludedPath {
  readonly path: string;
  /** One entry for all below it. */
  readonly folder: boolean;
  readonly rule: ExclusionRule;
  readonly detail: string;
  /** 0 where it was not worth a look (folders, ignored files). */
  readonly bytes: number;
  readonly mtimeMs: number;
}

export interface UnreadablePath {
  readonly path: string;
  readonly folder: boolean;
  readonly error: string;
}

export interface Walk {
  /** Absolute path of the root, links resolved. */
  readonly root: string;
  readonly files: readonly WalkedFile[];
  readonly excluded: readonly ExcludedPath[];
  readonly unreadable: readonly UnreadablePath[];
  /** Folders that were walked, '' first: those to watch. */
  readonly folders: readonly string[];
  /** As they were before their entries were listed. */
  readonly folderStamps: ReadonlyMap<string, FolderStamp>;
}

/** Another one, where something in the folder came, went or was replaced since; what was written in place changes none. */
export interface FolderStamp {
  readonly bytes: number;
  readonly mtimeMs: number;
  readonly ino: number;
}

export interface WalkOptions extends FilterOptions {
  readonly signal?: AbortSignal;
  /** Rests so many times as long as it works: nobody waits for it. Default 0. */
  readonly rest?: number;
  /** Called now and then with what has been found so far. */
  readonly onProgress?: (found: { files: number; bytes: number; folders: number }) => void;
}

/** Everything below the root. Throws `not_a_workspace`, and the signal's reason when aborted. */
export async function walk(options: WalkOptions): Promise<Walk> {
  const filter = await WorkspaceFilter.open(options);
  // Where it has gone, opening it says so.
  const tree = new Tree('', await folderStamp(filter.root).catch(() => undefined));
  await new Walker(filter, options).run([{ folder: await filter.openRoot(), tree }]);
  return collect(filter.root, tree);
}

/** What a look at some paths found; `gone` are those that are not there (any more), files or folders. */
export interface Look extends Walk {
  readonly looked: readonly string[];
  readonly gone: readonly string[];
}

/**
 * Looks again at changed paths, given within the root: what `walk` would say of them and all below them. A path in an excluded
 * folder gives that folder's entry. Paths within others are looked at once, and where rules changed, all that they hold for.
 */
export async function look(options: WalkOptions, paths: readonly string[]): Promise<Look> {
  const filter = await WorkspaceFilter.open(options);
  const looked = outermost(paths.map(reachOf));
  if (looked.includes('')) return { ...(await walk(options)), looked, gone: [] };
  const walker = new Walker(filter, options);
  // Never walked itself: it holds what was found of each path.
  const tree = new Tree('');
  const gone: string[] = [];
  const work: Work[] = [];
  const barred = new Set<string>();
  for (const path of looked) {
    options.signal?.throwIfAborted();
    const slash = path.lastIndexOf('/');
    try {
      const parent = await filter.descend(path.slice(0, Math.max(slash, 0)));
      if (!(parent instanceof Folder)) {
        if (!barred.has(parent.path)) tree.excluded.push(excludedEntry(parent.path, true, parent.verdict));
        barred.add(parent.path);
        continue;
      }
      const entry = parent.entryOf(path.slice(slash + 1));
      if (!entry) gone.push(path);
      else work.push(...(await walker.entry(parent, entry, tree)));
    } catch (error) {
      if (isGone(error)) gone.push(path);
      else tree.unreadable.push({ path, folder: false, error: describeError(error) });
    }
  }
  await walker.run(work);
  return { ...(await collect(filter.root, tree)), looked, gone };
}

/**
 * What became of a file that was listed before, where the rules are the same; undefined: it is no file any more, or may not enter by its
 * size, or cannot be looked at, and `look` says what that means.
 */
export async function lookAgain(root: string, known: WalkedFile): Promise<WalkedFile | undefined> {
  try {
    const stats = await lstat(join(root, known.path));
    if (!stats.isFile() || stats.size > maxBytesOf(known.path)) return undefined;
    return { ...known, bytes: stats.size, mtimeMs: stats.mtimeMs, ino: stats.ino };
  } catch {
    return undefined;
  }
}

/** Paths without those that lie within another of them, in order. */
export function outermost(paths: readonly string[]): string[] {
  const kept: string[] = [];
  for (const path of [...new Set(paths)].sort((a, b) => comparePaths(`${a}/`, `${b}/`))) {
    const last = kept[kept.length - 1];
    if (last === undefined || !isWithin(path, last)) kept.push(path);
  }
  return kept;
}

/** By UTF-16 unit: the one order of paths everywhere, the same on every machine and in every locale. */
export function comparePaths(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

// ---- the walk ---------------------------------------------------------------------------------------------------------------

/** What was found in one folder, in any order, and the trees of its folders. */
class Tree {
  readonly files: WalkedFile[] = [];
  readonly excluded: ExcludedPath[] = [];
  readonly unreadable: UnreadablePath[] = [];
  readonly trees: Tree[] = [];
  walked = false;
  constructor(
    readonly path: string,
    readonly stamp?: FolderStamp,
  ) {}
}

interface Work {
  readonly folder: Folder;
  readonly tree: Tree;
}

/** Folders read at once, and entries asked for at once within each: together about what the thread pool can queue usefully. */
const concurrency = 8;
const entriesAtOnce = 32;

class Walker {
  private files = 0;
  private bytes = 0;
  private folders = 0;
  private readonly turns: Turns;

  constructor(
    private readonly filter: WorkspaceFilter,
    private readonly options: WalkOptions,
  ) {
    this.turns = new Turns(options.rest);
  }

  /** Works through folders, newest first (so that few are held at a time), until none is left or the signal aborts. */
  async run(stack: Work[]): Promise<void> {
    let idle: (() => void)[] = [];
    let active = 0;
    const wake = (): void => {
      for (const resolve of idle) resolve();
      idle = [];
    };
    const worker = async (): Promise<void> => {
      for (;;) {
        const work = stack.pop();
        if (work) {
          active++;
          try {
            await this.folder(work, (found) => {
              stack.push(found);
              wake();
            });
          } catch (error) {
            // Those who wait for more folders would do so for ever.
            stack.length = 0;
            wake();
            throw error;
          } finally {
            active--;
          }
        } else if (active === 0) {
          wake();
          return;
        } else {
          await new Promise<void>((resolve) => idle.push(resolve));
        }
      }
    };
    const results = await Promise.allSettled(Array.from({ length: concurrency }, worker));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
    this.report();
  }

  private async folder({ folder, tree }: Work, found: (work: Work) => void): Promise<void> {
    tree.walked = true;
    this.folders++;
    const { entries } = folder;
    for (let i = 0; i < entries.length; i += entriesAtOnce) {
      this.options.signal?.throwIfAborted();
      const batch = entries.slice(i, i + entriesAtOnce);
      for (const works of await Promise.all(batch.map((entry) => this.entry(folder, entry, tree)))) works.forEach(found);
      await this.breathe();
    }
  }

  /** Files one entry of a folder into the tree; a folder that is to be walked comes back as work. */
  async entry(folder: Folder, entry: Dirent, tree: Tree): Promise<readonly Work[]> {
    const path = folder.pathOf(entry.name);
    const isFolder = entry.isDirectory();
    const decision = folder.decide(entry.name, isFolder);
    if (decision.verdict) {
      tree.excluded.push(excludedEntry(path, isFolder, decision.verdict));
      return [];
    }
    try {
      if (isFolder) {
        const stamp = await folderStamp(this.filter.absolute(path));
        const entered = await this.filter.enter(folder, entry.name, decision);
        if (!(entered instanceof Folder)) {
          tree.excluded.push(excludedEntry(path, true, entered));
          return [];
        }
        const child = new Tree(path, stamp);
        tree.trees.push(child);
        return [{ folder: entered, tree: child }];
      }
      if (entry.isSymbolicLink()) tree.excluded.push(await this.link(path));
      else this.file(path, await lstat(this.filter.absolute(path)), decision.broughtIn, tree);
    } catch (error) {
      // Deleted between the listing and the look.
      if (isGone(error) && !entry.name.includes('\ufffd')) return [];
      tree.unreadable.push({ path, folder: isFolder, error: describeError(error, entry.name) });
    }
    return [];
  }

  private file(path: string, stats: Stats, broughtIn: string | undefined, tree: Tree): void {
    const limit = maxBytesOf(path);
    const verdict = specialVerdict(stats) ?? classifyName(path) ?? (stats.size > limit ? tooLarge(stats.size, limit) : undefined);
    if (verdict) {
      tree.excluded.push(excludedEntry(path, false, verdict, stats));
      return;
    }
    this.files++;
    this.bytes += stats.size;
    const file = { path, bytes: stats.size, mtimeMs: stats.mtimeMs, ino: stats.ino, class: classOf(path) };
    tree.files.push(broughtIn === undefined ? file : { ...file, detail: broughtIn });
  }

  /** A link is listed once, under its own path: what it leads to counts under its real path, or lies outside. */
  private async link(path: string): Promise<ExcludedPath> {
    const absolute = this.filter.absolute(path);
    const text = await readlink(absolute);
    let target: string | undefined;
    try {
      target = await realpath(absolute);
    } catch (error) {
      const why = (error as NodeJS.ErrnoException).code === 'ELOOP' ? 'a link in a circle' : 'a link to nothing';
      return excludedEntry(path, false, { rule: 'special', detail: `${why}: ${text}` });
    }
    const inside = this.filter.relative(target);
    if (inside === undefined) return excludedEntry(path, false, { rule: 'outside', detail: `a link to ${target}` });
    const shown = inside === '' ? 'the root itself' : inside;
    return excludedEntry(path, false, { rule: 'special', detail: `a link to ${shown}, which counts under that path` });
  }

  /** A warm disk answers faster than timers get their turn. */
  private async breathe(): Promise<void> {
    const due = this.turns.due();
    if (!due) return;
    this.report();
    await due;
  }

  private report(): void {
    this.options.onProgress?.({ files: this.files, bytes: this.bytes, folders: this.folders });
  }
}

/** By callbacks, as `readBytes`: half of what `fs/promises` takes of this thread, and a workspace is looked at file by file. */
export function lstat(absolute: string): Promise<Stats> {
  return new Promise((resolve, reject) => lstatBy(absolute, (error, stats) => (error ? reject(error) : resolve(stats))));
}

/** Of a folder, without following a link. */
export async function folderStamp(absolute: string): Promise<FolderStamp> {
  const { size, mtimeMs, ino } = await lstat(absolute);
  return { bytes: size, mtimeMs, ino };
}

// ---- entries ------------------------------------------------------------------------------------------------------------------

function excludedEntry(path: string, folder: boolean, { rule, detail }: Verdict, stats?: Stats): ExcludedPath {
  return { path, folder, rule, detail, bytes: stats?.size ?? 0, mtimeMs: stats?.mtimeMs ?? 0 };
}

function specialVerdict(stats: Stats): Verdict | undefined {
  if (stats.isFile()) return undefined;
  const kind = stats.isFIFO() ? 'a pipe' : stats.isSocket() ? 'a socket' : stats.isBlockDevice() || stats.isCharacterDevice() ? 'a device' : 'no file';
  return { rule: 'special', detail: kind };
}

function isGone(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code;
  return code === 'ENOENT' || code === 'ENOTDIR';
}

/** For the coverage list: the code and what it means. */
export function describeError(error: unknown, name = ''): string {
  const { code, message } = error as NodeJS.ErrnoException;
  // Node gives a name that is not UTF-8 with replacement characters, under which nothing can be opened.
  if (code === 'ENOENT' && name.includes('\ufffd')) return 'its name is not UTF-8';
  if (code === 'EACCES' || code === 'EPERM') return `${code}: no permission to read it`;
  return code === undefined ? message : `${code}: ${message.replace(/^\w+: /, '').replace(/, \w+ '.*$/s, '')}`;
}

/** Names that are not UTF-8 may read alike: one entry then, which says of how many. */
function withoutTwins(entries: readonly UnreadablePath[]): readonly UnreadablePath[] {
  const alike = new Map<string, number>();
  for (const { path } of entries) alike.set(path, (alike.get(path) ?? 0) + 1);
  if (alike.size === entries.length) return entries;
  const first = new Map([...entries].reverse().map((entry) => [entry.path, entry]));
  return [...first.values()].map((entry) => {
    const n = alike.get(entry.path) ?? 1;
    return n === 1 ? entry : { ...entry, error: `${entry.error}; ${n} names here read alike` };
  });
}

// ---- bytes ------------------------------------------------------------------------------------------------------------------

/** Never waits for a pipe's other end and never follows a link that a file was replaced by since the walk saw it. */
const readFlags = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOFOLLOW ?? 0);

/**
 * The bytes of a file that the walk listed, at most `limit + 1` of them should it have grown. `expected` is its size then.
 * By callbacks, because a folder of many small files is read six times as fast as through `fs/promises`
 * (4,000 files of 30 bytes, warm: 20 against 128 µs a file).
 */
export function readBytes(absolute: string, expected: number, limit = Infinity): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    open(absolute, readFlags, (failed, fd) => {
      if (failed) return reject(failed);
      const finish = (error: Error | null, bytes?: Buffer): void =>
        close(fd, () => {
          if (error) reject(error);
          else resolve(bytes ?? Buffer.alloc(0));
        });
      const fill = (buffer: Buffer, filled: number): void => {
        read(fd, buffer, filled, buffer.length - filled, filled, (error, n) => {
          if (error) return finish(error);
          if (n === 0 || filled + n > limit) return finish(null, buffer.subarray(0, Math.min(filled + n, limit + 1)));
          // One byte more than expected was asked for: its absence is the end of the file.
          if (filled + n < buffer.length) return filled + n === expected ? finish(null, buffer.subarray(0, expected)) : fill(buffer, filled + n);
          fill(Buffer.concat([buffer, Buffer.allocUnsafeSlow(buffer.length)]), filled + n);
        });
      };
      fill(Buffer.allocUnsafeSlow(Math.min(expected, limit) + 1), 0);
    });
  });
}

// ---- order ------------------------------------------------------------------------------------------------------------------------

/** Flattens a tree in path order: a folder sorts as its name with '/', so sorting each folder by itself is enough. */
async function collect(root: string, tree: Tree): Promise<Walk> {
  const files: WalkedFile[] = [];
  const excluded: ExcludedPath[] = [];
  const unreadable: UnreadablePath[] = [];
  const folders: string[] = [];
  const folderStamps = new Map<string, FolderStamp>();
  const turns = new Turns();
  const visit = async (tree: Tree): Promise<void> => {
    if (tree.walked) folders.push(tree.path);
    if (tree.walked && tree.stamp) folderStamps.set(tree.path, tree.stamp);
    const lists = [
      inOrder(await sortedInTurns(tree.files, byPath), files),
      inOrder(await sortedInTurns(tree.excluded, byPath), excluded),
      inOrder(await sortedInTurns(withoutTwins(tree.unreadable), byPath), unreadable),
    ];
    for (const child of tree.trees.sort((a, b) => comparePaths(`${a.path}/`, `${b.path}/`))) {
      for (const put of lists) put(`${child.path}/`);
      await visit(child);
    }
    for (const put of lists) put();
    await turns.due();
  };
  await visit(tree);
  return { root, files, excluded, unreadable, folders, folderStamps };
}

function byPath(a: { readonly path: string }, b: { readonly path: string }): number {
  return comparePaths(a.path, b.path);
}

/** Puts what comes before a border, each time from where it was. */
function inOrder<T extends { readonly path: string }>(from: readonly T[], into: T[]): (border?: string) => void {
  let at = 0;
  return (border) => {
    for (let item = from[at]; item && (border === undefined || comparePaths(item.path, border) < 0); item = from[++at]) into.push(item);
  };
}
