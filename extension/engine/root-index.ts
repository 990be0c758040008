// The files of one root folder and what is in memory of each: which version is in, which one is being read, and why others are out.
// Knows what is there and what is missing; when and in which order things are read is indexer.ts.

import { EventEmitter } from 'node:events';
import { access, constants, lstat, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { CoverageList } from './coverage-list';
import { toEngineError } from './errors';
import { familyOf } from './pack-table';
import { sameStamp, type KnownSegment, type KnownVerdict, type KnownVersion, type Manifest, type Stamp } from './manifest';
import type { Coverage, ExclusionRule, FileCoverage, FileState, PackOmission } from './messages';
import type { SegmentMemory } from './segment-memory';
import { inTurns, mapInTurns, setInTurns, Turns } from './turns';
import { admissionOrder, AdmissionList, placeOf } from './workspace/admission';
import { classifyContent, isNotebook, isVerdict, maxBytesOf, maxFileBytes, tooLarge, type FileClass } from './workspace/classify';
import { isWithin, reachOf, type FilterSettings } from './workspace/filter';
import { entriesOf } from './workspace/folder-entries';
import type { Hash } from './workspace/hash';
import { notebookText } from './workspace/notebook';
import { PathIndex } from './workspace/path-index';
import type { FileName, SearchFile } from './workspace/search';
import { cutterVersion, type SegmentCut } from './workspace/segmenter';
import { VolatileFiles } from './workspace/watch';
import {
  folderStamp,
  look,
  lookAgain,
  outermost,
  readBytes,
  walk,
  describeError,
  type FolderStamp,
  type ExcludedPath,
  type Look,
  type UnreadablePath,
  type Walk,
  type WalkedFile,
} from './workspace/walk';

/** Bytes of source text a token stands for, until a file is tokenized: measured on this repository and /usr/include. */
const bytesPerToken = 3.4;
/** File systems stamp with a coarse clock: some step by a few milliseconds, old ones by two seconds. */
const clockStepMs = 2000;
/**
 * A look at everything that nobody asked for rests three times as long as it works, and comes again after 50 times as long as it took at
 * the earliest. The disk's part of it is about as much again: at most 1 % of a core, however many files there are.
 */
const rest = 3;
const restAfter = 50;
/** Calls of the system under way at once. */
const callsAtOnce = 128;
const caseCounts = process.platform === 'linux';
/** Changes that are told at once. */
const toldAtOnce = 1000;
/** Of many paths that were found different so many are taken note of at a time: what comes meanwhile waits for no more than these. */
const notedAtOnce = 2000;
/** Addresses that are looked up in the store at once. */
const lookUpAtOnce = 512;
/** Files that come to rest within this time are looked at together. */
const restStepMs = 1000;

export interface Segment extends KnownSegment {
  /** Header and text; there only while it may have to be encoded. */
  tokens?: Int32Array;
}

/** What some bytes of a file became. */
export interface FileVersion {
  readonly fileKey: string;
  readonly stamp: Stamp;
  readonly segments: readonly Segment[];
  /** Numerics of what made them, where that is another family than ours. */
  readonly from?: string;
}

export interface FileRecord {
  readonly root: RootIndex;
  readonly path: string;
  readonly class: FileClass;
  info: WalkedFile;
  /** Wholly in memory: what requests may read. */
  current?: FileVersion;
  /** Cut, and at least in part not in memory. */
  next?: FileVersion;
  /** It changed since `current` was read, and was not cut again. */
  changed: boolean;
  /** Being read and cut: another object, or none, once it changed meanwhile. */
  preparing?: object;
  /** Read so soon after it was written that another write may have left the same stamp. */
  young?: boolean;
  overBudget: boolean;
  /** Of these bytes, once they were cut; estimated before that. */
  tokens?: number;
  /** What it adds to the root's numbers, as far as they have taken note of it. */
  share?: Share;
  verdict?: { readonly rule: ExclusionRule; readonly detail: string };
  error?: string;
}

/** What one file adds to the numbers of its root. */
interface Share {
  readonly state: FileState;
  /** In memory, in all; 0 where it does not count. */
  readonly tokens: number;
  readonly totalTokens: number;
  /** What it takes of the budget; 0 where it is beyond it. */
  readonly admittedTokens: number;
}

/** What of a root may be given to another machine, and of what else that is not excluded why it is not. */
export interface Packable {
  readonly versions: readonly { readonly path: string; readonly version: FileVersion }[];
  readonly leftOut: readonly { readonly root: string; readonly path: string; readonly reason: PackOmission; readonly detail?: string }[];
}

/** What a walk found at a path; nothing: it is there no more. */
interface Found {
  file?: WalkedFile;
  excluded?: ExcludedPath;
  unreadable?: UnreadablePath;
  isFolder?: true;
}

/** A look at folders that may hold very many files. */
interface BroadLook {
  /** What was told: '', or the rules file of a folder. */
  readonly paths: Set<string>;
  /** Of the pass that is under way. */
  walking: AbortController;
  /** Rules changed meanwhile: what was seen by the old ones is no news, and it began once more. */
  isAnew: boolean;
  done: Promise<boolean>;
}

/** What a walk found to be different from what is known. */
interface Differences {
  readonly paths: ReadonlyMap<string, Found>;
  readonly folderStamps: ReadonlyMap<string, FolderStamp>;
}

/** Where others have looked since a look at everything began: they know better. Those that looked at a file alone do not know its rules. */
interface Since {
  readonly byRules: Set<string>;
  readonly alone: Set<string>;
}

/** What a look found, in the words of the search. */
export interface Changes {
  readonly changed: readonly SearchFile[];
  readonly gone: readonly FileName[];
}

export interface RootParts {
  readonly memory: SegmentMemory;
  readonly hash: Hash;
  readonly cut: (path: string, bytes: Uint8Array) => Promise<readonly SegmentCut[]>;
  /** Address of a segment's tokens. */
  readonly keyOf: (tokens: Int32Array, headerTokens: number) => string;
  readonly ownPaths: readonly string[];
}

/**
 * `looked`: after a change that somebody noticed, for everybody who searches these files; `scanned`: all of it is new; `available`: its
 * folder has gone away, or is back; `rested`: files that changed all the time do so no longer, which the next look takes note of;
 * `astray`: it is time to look for changes that nobody told of.
 */
export class RootIndex extends EventEmitter<{ looked: [Changes]; scanned: []; available: []; rested: []; astray: [] }> {
  readonly records = new Map<string, FileRecord>();
  private excluded = new Map<string, ExcludedPath>();
  private unreadable = new Map<string, UnreadablePath>();
  /** All of these, and the folders. */
  private readonly paths = new PathIndex((file) => this.isKnown(file));
  private readonly order = new AdmissionList<FileRecord>();
  /** Files whose numbers may be different from what was counted, which is taken anew when somebody asks. */
  private readonly touched = new Set<FileRecord>();
  private readonly counted = { files: 0, tokens: 0, totalFiles: 0, totalTokens: 0, admittedTokens: 0, waiting: 0 };
  private readonly needing = new Set<FileRecord>();
  private readonly busy = new Set<FileRecord>();
  private readonly over = new Set<FileRecord>();
  /** Of all files, that are being made. */
  private readonly lists = new Set<CoverageList>();
  /**
   * The first file that does not fit: of those that may be in, all before it are admitted, and none from it on. Whether it would fit is
   * known once it was cut: until then membership rests on an estimate.
   */
  private boundary: FileRecord | undefined;
  /** Where it was in the order when it was set. */
  private boundaryAt = 0;
  /** Passes under way that move it. */
  private admitting = 0;
  /** Text of unsaved documents: shadows the file. */
  private readonly shadows = new Map<string, string>();
  private tokenBudget = Infinity;
  /** Files turned out larger or smaller than estimated: what is admitted may be different. */
  private sizesChanged = false;
  private readonly volatile = new VolatileFiles();
  private restTimer: NodeJS.Timeout | undefined;
  private looking: Promise<unknown> = Promise.resolve();
  /** Broad looks, one after the other: that which is under way, and what is to be looked at after it. */
  private lookingBroadly: Promise<unknown> = Promise.resolve();
  private broadLook: BroadLook | undefined;
  private nextBroadLook: BroadLook | undefined;
  /** For each look that others go on beside. */
  private readonly lookedMeanwhile = new Set<Since>();
  private folderStamps = new Map<string, FolderStamp>();
  /** When a look at everything that nobody asked for may come again; whether one is wanted, and under way. */
  private looksAroundAt = 0;
  private lookAroundTimer: NodeJS.Timeout | undefined;
  private wantsLookAround = false;
  private lookingAround: AbortController | undefined;
  settings: FilterSettings;
  /** Folders that were walked; another set whenever they are others. */
  folders: ReadonlySet<string> = new Set();
  scanned = false;
  /** Why the folder cannot be read at the moment. What is in memory of it stays, and counts, until it is there again. */
  unavailable: string | undefined;
  nEncoded = 0;
  nReused = 0;

  constructor(
    readonly dir: string,
    readonly name: string,
    private readonly parts: RootParts,
    private readonly manifest: Manifest,
    settings: FilterSettings,
  ) {
    super();
    this.setMaxListeners(0);
    this.settings = settings;
  }

  /** Our own store, wherever it lies. */
  isOwn(file: string): boolean {
    return this.parts.ownPaths.includes(path.join(this.dir, file));
  }

  /** The file of an absolute path. */
  recordAt(file: string): FileRecord | undefined {
    const within = path.relative(this.dir, file);
    return this.records.get(within.split(path.sep).join('/'));
  }

  // ---- the disk -----------------------------------------------------------------------------------------------------------

  /** Looks at everything: the first time before all else, later (for another window) beside other looks. Throws `not_a_workspace`. */
  async scan(signal?: AbortSignal): Promise<void> {
    const wasScanned = await this.inTurn(async () => {
      if (this.isThere) return true;
      await this.scanAll(signal);
      return false;
    });
    if (wasScanned) await this.lookBroadly(['']);
  }

  private get isThere(): boolean {
    return this.scanned && this.unavailable === undefined;
  }

  /** Looks again at paths within the root, '' for all of it, and at what has come to rest. True where something is different now. */
  async lookAt(paths: readonly string[]): Promise<boolean> {
    const broad = this.isThere ? paths.filter(isBroad) : [];
    const others = broad.length === 0 ? paths : isAllOf(broad) ? [] : paths.filter((file) => !isBroad(file));
    const looks: Promise<boolean>[] = [];
    if (broad.length > 0) looks.push(this.lookBroadly(broad));
    if (others.length > 0 || broad.length === 0) looks.push(this.inTurn(() => this.lookAtSome(others, this.volatile.rested(performance.now()))));
    return (await Promise.all(looks)).includes(true);
  }

  /** Takes back all that was set aside because it changes all the time, for whoever wants the whole as it is now. As `lookAt`. */
  takeVolatile(): Promise<boolean> {
    return this.inTurn(() => this.lookAtSome([], this.volatile.paths));
  }

  /**
   * For changes that nobody told of, at a place where they are told as a rule. What came, went, or was replaced by another file of its
   * name is found now: each changes the stamp of the folder around it. What was written in place changes no folder: where it is in
   * memory, it is found before the next answer (`changedSince`); all of it, and rules outside of the root, by a look at everything that
   * the event `astray` asks for, now or as soon as that may be again. As `lookAt`.
   */
  async lookForMissed(): Promise<boolean> {
    if (!this.scanned || this.unavailable !== undefined) return this.lookAt(['']);
    this.wantsLookAround = true;
    this.awaitLookAround();
    const different = await this.differentFolders();
    return different.length > 0 && this.lookAt(different);
  }

  /**
   * Looks at everything, or at folders whose rules have changed. Other looks go on beside it, since a file that was saved just now is not to
   * wait for all the others: what it finds different is taken note of between them, some of it at a time. Rules that change while it looks
   * have it begin anew, but once only, so that it comes to an end however often they do.
   */
  private lookBroadly(paths: readonly string[]): Promise<boolean> {
    const { broadLook: underWay, nextBroadLook: next } = this;
    const isOfRules = paths.every((file) => file !== '' && !this.isBarred(file));
    if (underWay && !underWay.isAnew && isOfRules && isAllWithin(paths.map(reachOf), foldersOf(underWay.paths))) {
      underWay.isAnew = true;
      underWay.walking.abort();
      underWay.walking = new AbortController();
      return underWay.done;
    }
    if (next) {
      for (const file of paths) next.paths.add(file);
      return next.done;
    }
    const look: BroadLook = { paths: new Set(paths), walking: new AbortController(), isAnew: false, done: Promise.resolve(false) };
    look.done = this.lookingBroadly.then(() => this.doBroadLook(look));
    this.nextBroadLook = look;
    this.lookingBroadly = look.done.catch(() => {});
    return look.done;
  }

  private async doBroadLook(look: BroadLook): Promise<boolean> {
    this.nextBroadLook = undefined;
    this.broadLook = look;
    try {
      for (const file of look.paths) if (this.isBarred(file)) look.paths.delete(file);
      const folders = [...foldersOf(look.paths)];
      if (folders.length === 0) return false;
      const isDifferent = await this.lookBeside(look.walking.signal, folders);
      return (look.isAnew && (await this.lookBeside(look.walking.signal, folders))) || isDifferent;
    } finally {
      this.broadLook = undefined;
    }
  }

  /** The same at leisure. As `lookAt`. */
  async lookAround(): Promise<boolean> {
    if (this.lookingAround) return false;
    const began = performance.now();
    const { signal } = (this.lookingAround = new AbortController());
    this.wantsLookAround = false;
    try {
      return await this.lookBeside(signal, [''], rest);
    } finally {
      this.lookingAround = undefined;
      this.lookedAround(began);
      this.awaitLookAround();
    }
  }

  private lookedAround(began: number): void {
    const now = performance.now();
    this.looksAroundAt = now + restAfter * (now - began);
  }

  private awaitLookAround(): void {
    if (!this.wantsLookAround || this.lookingAround || this.lookAroundTimer) return;
    const isTime = (): void => {
      this.lookAroundTimer = undefined;
      this.emit('astray');
    };
    this.lookAroundTimer = setTimeout(isTime, Math.max(0, this.looksAroundAt - performance.now()));
    this.lookAroundTimer.unref();
  }

  private async lookBeside(signal: AbortSignal, folders: readonly string[], rest = 0): Promise<boolean> {
    // One at leisure that began before knows worse, and takes note of nothing there any more.
    if (rest === 0) for (const { byRules } of this.lookedMeanwhile) for (const folder of folders) byRules.add(folder);
    const since: Since = { byRules: new Set(), alone: new Set() };
    this.lookedMeanwhile.add(since);
    try {
      const found = await this.differences(signal, folders, rest);
      if (signal.aborted) return false;
      // A look says what it means that there is nothing to be walked.
      if (!found) return await this.inTurn(() => this.lookAtSome([''], []));
      // Rules that nobody told of may have changed after they were read: another look tells.
      this.wantsLookAround ||= rest > 0 && [...found.paths.keys()].some((file) => reachOf(file) !== file);
      return await this.noteInTurns(found, since, signal);
    } finally {
      this.lookedMeanwhile.delete(since);
    }
  }

  private async noteInTurns({ paths, folderStamps }: Differences, { byRules, alone }: Since, signal: AbortSignal): Promise<boolean> {
    const isOver = (): boolean => signal.aborted || this.unavailable !== undefined;
    const names = [...paths.keys()];
    let isDifferent = false;
    const turns = new Turns();
    for (let i = 0; i < names.length && !isOver(); i += notedAtOnce) {
      const note = async (): Promise<void> => {
        const unknown = names.slice(i, i + notedAtOnce).filter((file) => !isWithinOne(file, byRules));
        const before = unknown.filter((file) => !alone.has(file));
        const here = before.map((file) => paths.get(file) ?? {});
        const changes = await this.note(
          {
            files: here.flatMap(({ file }) => file ?? []),
            excluded: here.flatMap(({ excluded }) => excluded ?? []),
            unreadable: here.flatMap(({ unreadable }) => unreadable ?? []),
            folders: before.filter((_, at) => here[at]?.isFolder),
            folderStamps: new Map(),
          },
          before,
        );
        isDifferent ||= !isNothing(changes);
        await this.tell(changes);
        const isOld = unknown.filter((file) => alone.has(file));
        if (isOld.length > 0) isDifferent = (await this.lookAtSome(isOld, [], true)) || isDifferent;
      };
      await this.inTurn(note);
      await turns.due();
    }
    // Once for all of it, since it goes through the list of all files.
    if (isDifferent) await this.inTurn(() => this.admitInTurns(this.tokenBudget));
    await inTurns(folderStamps, ([folder, stamp]) => {
      if (!isOver() && this.folders.has(folder) && !isWithinOne(folder, byRules)) this.folderStamps.set(folder, trusted(stamp));
    });
    return isDifferent;
  }

  /** Undefined: the root cannot be walked. */
  private async differences(signal: AbortSignal, folders: readonly string[], rest: number): Promise<Differences | undefined> {
    let walked: Look;
    try {
      walked = await look({ root: this.dir, settings: this.settings, ownPaths: this.parts.ownPaths, rest, signal }, folders);
      // Of a folder that went away meanwhile nothing is left to be found.
      await folderStamp(this.dir);
    } catch {
      return undefined;
    }
    const there = new Map<string, Found>();
    const paths = new Map<string, Found>();
    const see = (file: string, isAsKnown: boolean, found: Found): void => {
      there.set(file, found);
      if (!isAsKnown) paths.set(file, found);
    };
    await inTurns(walked.folders, (folder) => see(folder, this.folders.has(folder), { isFolder: true }));
    await inTurns(walked.files, (file) => {
      const { info, young, error } = this.records.get(file.path) ?? {};
      see(file.path, info !== undefined && sameStamp(info, file) && info.detail === file.detail && !young && error === undefined, { file });
    });
    await inTurns(walked.excluded, (excluded) => see(excluded.path, sameExclusion(this.excluded.get(excluded.path), excluded), { excluded }));
    await inTurns(walked.unreadable, (unreadable) => see(unreadable.path, this.unreadable.has(unreadable.path), { unreadable }));
    // What was known as something else as well: a look below a folder that has become excluded says so of the folder alone.
    for (const folder of walked.looked) {
      await inTurns(this.paths.within(folder), (file) => {
        const found = there.get(file);
        if (this.isOtherThan(file, found)) paths.set(file, found ?? {});
      });
    }
    return { paths, folderStamps: walked.folderStamps };
  }

  /** It is known as something that it was not found to be. */
  private isOtherThan(file: string, found: Found | undefined): boolean {
    return (
      (this.records.has(file) && !found?.file) ||
      (this.excluded.has(file) && !found?.excluded) ||
      (this.unreadable.has(file) && !found?.unreadable) ||
      (this.folders.has(file) && !found?.isFolder)
    );
  }

  /** Paths in folders that have other stamps than when they were listed. */
  private async differentFolders(): Promise<string[]> {
    const different: string[] = [];
    await someAtOnce([...this.folders], async (folder) => {
      try {
        const stamp = await folderStamp(path.join(this.dir, folder));
        const known = this.folderStamps.get(folder);
        if (known && sameStamp(known, stamp)) return;
        for (const file of await this.differencesIn(folder)) different.push(file);
        this.folderStamps.set(folder, trusted(stamp));
      } catch {
        different.push(folder);
      }
    });
    return different;
  }

  /** Of what lies directly in a folder; not of what its folders hold. */
  private async differencesIn(folder: string): Promise<string[]> {
    const entries = await entriesOf(path.join(this.dir, folder));
    const different: string[] = [];
    const there = new Set<string>();
    await someAtOnce(entries, async (entry) => {
      const file = folder === '' ? entry.name : `${folder}/${entry.name}`;
      there.add(file);
      if (!(await this.isAsKnown(file, entry.isDirectory()))) different.push(file);
    });
    await inTurns(this.paths.childrenOf(folder), (file) => {
      if (!there.has(file)) different.push(file);
    });
    return different;
  }

  private async isAsKnown(file: string, isFolder: boolean): Promise<boolean> {
    const excluded = this.excluded.get(file);
    if (this.unreadable.has(file) || (isFolder && this.folders.has(file))) return true;
    if (isFolder || excluded?.folder) return isFolder && excluded?.folder === true;
    const known = this.records.get(file)?.info ?? excluded;
    if (!known) return false;
    // Of what is left out by its name no more is known than that it is there; where a link leads, its own stamp does not tell.
    if (excluded?.mtimeMs === 0) return excluded.rule === 'ignored' || excluded.rule === 'user';
    const { size, mtimeMs, ino } = await lstat(path.join(this.dir, file));
    return known.bytes === size && known.mtimeMs === mtimeMs && (!('ino' in known) || known.ino === ino);
  }

  /** One look after the other, whoever asks for it: what an earlier one found is not to replace what a later one did. */
  private inTurn<T>(look: () => Promise<T>): Promise<T> {
    const done = this.looking.then(look).finally(() => this.awaitRest());
    this.looking = done.catch(() => {});
    return done;
  }

  /** Nobody tells of a file that it changes no more. One timer is enough: of all that is set aside, none rests before its time. */
  private awaitRest(): void {
    const at = this.volatile.restsAtMs;
    // Whoever finds the folder again looks at it, and that begins anew.
    if (this.restTimer || at === undefined || this.unavailable !== undefined) return;
    const rested = (): void => {
      this.restTimer = undefined;
      this.emit('rested');
    };
    this.restTimer = setTimeout(rested, Math.max(restStepMs, at - performance.now()));
    this.restTimer.unref();
  }

  private async scanAll(signal?: AbortSignal): Promise<void> {
    const began = performance.now();
    for (const { byRules } of this.lookedMeanwhile) byRules.add('');
    const found = await walk({ root: this.dir, settings: this.settings, ownPaths: this.parts.ownPaths, ...(signal && { signal }) });
    const there = await setInTurns(found.files, (file) => file.path);
    await inTurns(this.records.values(), (record) => {
      if (!there.has(record.path)) this.remove(record);
      this.settle();
    });
    await inTurns(found.files, (file) => {
      this.see(file);
      this.settle();
    });
    await this.manifest.deleteOthers((file) => this.records.has(file));
    await this.outdateRewritten(found.files);
    this.excluded = await mapInTurns(found.excluded, (entry) => entry.path);
    this.unreadable = await mapInTurns(found.unreadable, (entry) => entry.path);
    this.folders = new Set(found.folders);
    this.folderStamps = await stampsOf(found);
    this.paths.clear();
    for (const known of [this.records, this.excluded, this.unreadable, this.folders]) await inTurns(known.keys(), (file) => this.paths.add(file));
    this.scanned = true;
    this.unavailable = undefined;
    for (const list of this.lists) list.changeAll();
    await this.admitInTurns(this.tokenBudget);
    this.lookedAround(began);
    this.emit('scanned');
  }

  /** `calm`: volatile so far, and no longer. `byRules`: they may say something else of a known file than before. */
  private async lookAtSome(paths: readonly string[], calm: readonly string[], byRules = false): Promise<boolean> {
    const meanwhile = [...this.lookedMeanwhile];
    const wanted = [...paths.filter((file) => byRules || !this.isBarred(file)), ...calm];
    if (wanted.length === 0) return false;
    let found: Look & { readonly alone: ReadonlySet<string> };
    try {
      found = await this.found(wanted, byRules);
    } catch (thrown) {
      const error = toEngineError(thrown);
      if (error.code !== 'not_a_workspace') throw error;
      return this.setUnavailable(error.message);
    }
    // All of it is looked at once it is back.
    const isBack = this.setUnavailable(undefined);
    for (const since of meanwhile) for (const file of found.looked) (found.alone.has(file) ? since.alone : since.byRules).add(file);
    // That it has not changed since is why it is read now: its stamp says nothing new.
    for (const file of calm) this.volatile.release(file);
    const takenBack = new Set(calm.filter((file) => this.isSetAside(file)));
    const before: string[] = [];
    for (const file of found.looked) await inTurns(this.paths.within(file), (one) => void before.push(one));
    const changes = await this.note(found, before, takenBack);
    if (isNothing(changes)) return isBack;
    await this.admitInTurns(this.tokenBudget);
    await this.tell(changes);
    return true;
  }

  /** Takes note of what was found where the paths `before` were. */
  private async note(found: Omit<Walk, 'root'>, before: readonly string[], takenBack: ReadonlySet<string> = nothing): Promise<Changes> {
    const now = performance.now();
    const changed: SearchFile[] = [];
    const gone: FileName[] = [];
    const there = await setInTurns(found.files, (file) => file.path);
    const excluded = await setInTurns(found.excluded, (entry) => entry.path);
    const isGone = (file: string): void => void gone.push({ root: this.dir, path: file });
    await inTurns(before, (file) => {
      const record = this.records.get(file);
      if (record && !there.has(file)) {
        this.remove(record);
        isGone(file);
      }
      if (!excluded.has(file) && this.excluded.delete(file)) isGone(file);
      if (this.unreadable.delete(file)) isGone(file);
      this.listedAnew(file);
      this.settle();
    });
    await inTurns(found.excluded, (entry) => {
      const known = this.excluded.get(entry.path);
      this.excluded.set(entry.path, entry);
      this.listedAnew(entry.path);
      if (!entry.folder && !sameExclusion(known, entry)) changed.push(this.excludedFile(entry));
    });
    for (const entry of found.unreadable) {
      this.unreadable.set(entry.path, entry);
      this.listedAnew(entry.path);
    }
    await inTurns(found.files, (file) => {
      const known = this.records.get(file.path)?.info;
      if (!this.see(file) && !takenBack.has(file.path)) return;
      const record = this.records.get(file.path) as FileRecord;
      if (takenBack.has(file.path)) this.outdate(record);
      if (known && !sameStamp(known, file) && this.volatile.note(file.path, now)) this.setAside(record);
      this.settle();
      changed.push(this.searchFile(record));
    });
    for (const record of await this.outdateRewritten(found.files)) changed.push(this.searchFile(record));
    const goneFolders = this.setFolders(before, found.folders);
    for (const folder of goneFolders) this.folderStamps.delete(folder);
    for (const [folder, stamp] of found.folderStamps) this.folderStamps.set(folder, trusted(stamp));
    await inTurns<{ readonly path: string }>([...found.excluded, ...found.unreadable], ({ path: file }) => this.paths.add(file));
    await inTurns(gone, (name) => this.paths.delete(name.path));
    await inTurns(goneFolders, (file) => this.paths.delete(file));
    return { changed, gone };
  }

  /**
   * A file that is known is looked at alone: what rules say of it is the same, since whoever changes a rules file, or a folder on the
   * way, changes another path, which is looked at for all that it holds for. Not where a file may answer to another case of its name:
   * there only its folder tells what it is called now.
   */
  private async found(wanted: readonly string[], byRules: boolean): Promise<Look & { readonly alone: ReadonlySet<string> }> {
    const again: WalkedFile[] = [];
    const others: string[] = [];
    await someAtOnce(outermost(wanted.map(reachOf)), async (file) => {
      const known = caseCounts && !byRules ? this.records.get(file)?.info : undefined;
      const now = known && (await lookAgain(this.dir, known));
      if (now) again.push(now);
      else others.push(file);
    });
    const found = others.length > 0 ? await look({ root: this.dir, settings: this.settings, ownPaths: this.parts.ownPaths }, others) : nothingFound;
    const alone = again.map((file) => file.path);
    return { ...found, root: this.dir, files: [...found.files, ...again], looked: [...found.looked, ...alone], alone: new Set(alone) };
  }

  /** So many changes at a time that whoever hears of them is soon done. */
  private async tell({ changed, gone }: Changes): Promise<void> {
    const again = await setInTurns(changed, ({ path: file }) => file);
    const turns = new Turns();
    for (let i = 0; i < Math.max(changed.length, gone.length); i += toldAtOnce) {
      const end = i + toldAtOnce;
      this.emit('looked', { changed: changed.slice(i, end), gone: gone.slice(i, end).filter(({ path: file }) => !again.has(file)) });
      await turns.due();
    }
  }

  /** Below a folder that stays out as a whole: nothing there says anything of what is in, but a mark of what the folder is. */
  private isBarred(file: string): boolean {
    for (let at = path.posix.dirname(file); at !== '.'; at = path.posix.dirname(at)) {
      if (this.excluded.get(at)?.folder) return !isWithin(at, reachOf(file)) || reachOf(file) === file;
    }
    return false;
  }

  private isKnown(file: string): boolean {
    return this.records.has(file) || this.excluded.has(file) || this.unreadable.has(file) || this.folders.has(file);
  }

  /** Those that are gone. */
  private setFolders(lookedAt: readonly string[], found: readonly string[]): ReadonlySet<string> {
    const gone = new Set(lookedAt.filter((file) => this.folders.has(file)));
    for (const folder of found) gone.delete(folder);
    const fresh = found.filter((folder) => !this.folders.has(folder));
    if (gone.size === 0 && fresh.length === 0) return gone;
    this.folders = new Set([...this.folders].filter((folder) => !gone.has(folder)).concat(fresh));
    for (const folder of fresh) this.paths.add(folder);
    return gone;
  }

  private setUnavailable(reason: string | undefined): boolean {
    const isDifferent = (this.unavailable === undefined) !== (reason === undefined);
    this.unavailable = reason;
    if (isDifferent) for (const list of this.lists) list.changeAll();
    if (isDifferent) this.emit('available');
    return isDifferent;
  }

  private isSetAside(file: string): boolean {
    return this.records.get(file)?.verdict?.rule === 'volatile';
  }

  private setAside(record: FileRecord): void {
    this.clear(record);
    record.changed = false;
    record.verdict = { rule: 'volatile', detail: 'changes all the time' };
    this.leaveOut(record);
  }

  /** It takes nothing of the budget any more: whoever stands behind it may fit. */
  private leaveOut(record: FileRecord): void {
    this.touched.add(record);
    this.over.delete(record);
    record.overBudget = false;
    this.sizesChanged ||= this.tokenBudget !== Infinity;
  }

  /** Files to be looked at: size or time differ from what was read (at most `limit` are compared), or it is time for another look. */
  async changedSince(limit: number, stat: (file: string) => Promise<Stamp | undefined>): Promise<string[]> {
    const records: FileRecord[] = [];
    const turns = new Turns();
    for (const record of this.records.values()) {
      const due = turns.dueSmall();
      if (due) await due;
      if (records.length === limit) break;
      if (record.current || record.verdict) records.push(record);
    }
    const changed: string[] = [];
    await someAtOnce(records, async ({ path: file, info }) => {
      const now = await stat(path.join(this.dir, file));
      if (!now || !sameStamp(now, info)) changed.push(file);
    });
    // What stamps do not tell, a look at the file does.
    const again = new Set(changed);
    const young = records.filter((record) => record.young && !again.has(record.path)).map((record) => record.path);
    return [...changed, ...young, ...this.volatile.rested(performance.now())];
  }

  /** Of files that look the same, those that were read while another write could look the same, and have other bytes now. */
  private async outdateRewritten(files: readonly WalkedFile[]): Promise<FileRecord[]> {
    const rewritten: FileRecord[] = [];
    const turns = new Turns();
    // One after the other: a folder that was unpacked just now has thousands.
    for (const { path: file } of files) {
      const due = turns.dueSmall();
      if (due) await due;
      const record = this.records.get(file);
      if (!record?.young || !(record.current || record.verdict) || (await this.isAsRead(record))) continue;
      this.outdate(record);
      rewritten.push(record);
    }
    return rewritten;
  }

  /** By its bytes; false only where they have to be cut again. */
  private async isAsRead(record: FileRecord): Promise<boolean> {
    const { current, info } = record;
    const bytes = await this.read(record, this.shadows.get(record.path), () => record.current === current && record.info === info);
    // Of what is being read only another version is a reason to begin again.
    return !bytes || this.parts.hash.fileKey(bytes, record.path, cutterVersion) === (record.next ?? current)?.fileKey;
  }

  /** Finds out which of the files that wait cannot be read; at most `limit` are looked at. */
  async checkReadable(limit: number): Promise<void> {
    this.settle();
    const records: FileRecord[] = [];
    for (const record of this.needing) {
      if (records.length === limit) break;
      if (this.stateOf(record) === 'waiting') records.push(record);
    }
    await someAtOnce(records, async (record) => {
      try {
        await access(path.join(this.dir, record.path), constants.R_OK);
      } catch (error) {
        await this.failed(record, error);
      }
    });
  }

  private see(file: WalkedFile): boolean {
    const record = this.records.get(file.path);
    if (!record) {
      this.add(file);
      return true;
    }
    // Whether a file can be read now, neither size nor time tells.
    const same = sameStamp(record.info, file) && record.error === undefined;
    if (record.info.detail !== file.detail) this.touched.add(record);
    record.info = file;
    if (same) return false;
    this.outdate(record);
    return true;
  }

  private add(file: WalkedFile): void {
    const record: FileRecord = { root: this, path: file.path, class: file.class, info: file, changed: false, overBudget: false };
    // Of what was read before it is known whether it may be in, and how many tokens it has: what is admitted rests on no estimate then.
    const fileKey = this.manifest.keyOf(file.path, file);
    const segments = fileKey === undefined ? undefined : this.manifest.versionOf(fileKey)?.segments;
    if (segments) record.tokens = tokensIn(segments);
    const verdict = this.shadows.has(file.path) ? undefined : this.manifest.verdictOf(file.path, file);
    if (verdict) record.verdict = verdict;
    this.records.set(file.path, record);
    this.paths.add(file.path);
    this.order.add(record);
    this.touched.add(record);
    this.place(record);
  }

  private outdate(record: FileRecord): void {
    this.touched.add(record);
    record.changed = true;
    delete record.preparing;
    delete record.young;
    delete record.tokens;
    delete record.verdict;
    delete record.error;
    this.place(record);
    this.dropNext(record);
  }

  private remove(record: FileRecord): void {
    this.clear(record);
    this.records.delete(record.path);
    this.paths.delete(record.path);
    this.order.delete(record);
    this.over.delete(record);
    this.manifest.delete(record.path);
  }

  /** Text of an unsaved document, or null where it is the file's again; kept while there is no such file. */
  shadow(file: string, text: string | null): boolean {
    const record = this.records.get(file);
    if (text === null ? !this.shadows.delete(file) : this.shadows.get(file) === text) return false;
    if (text !== null) this.shadows.set(file, text);
    if (!record) return false;
    this.outdate(record);
    return true;
  }

  // ---- admission --------------------------------------------------------------------------------------------------------------

  /**
   * Files enter by class and path until the budget is full. Nothing behind the first file that does not fit enters, however small:
   * otherwise an edit of one file could swap others far away, and "the budget ends here" would explain nothing.
   */
  admit(tokenBudget: number): void {
    for (const _ of this.admission(tokenBudget));
  }

  /** The same; others look, and change files, in between. */
  async admitInTurns(tokenBudget: number): Promise<void> {
    await inTurns(this.admission(tokenBudget), () => {});
  }

  /**
   * Moves the boundary, a file a step, until all before it fit and it does not: what that costs is how many files change sides. What
   * is said of the boundary holds after each step, whatever changed since the last one.
   */
  private *admission(tokenBudget: number): Generator<void> {
    this.tokenBudget = tokenBudget;
    this.sizesChanged = false;
    this.admitting++;
    try {
      while (this.moveBoundary()) yield;
    } finally {
      this.admitting--;
    }
  }

  /** One candidate further, where it fits, or back, where what is before does not. False: neither. */
  private moveBoundary(): boolean {
    this.settle();
    const { boundary, tokenBudget } = this;
    const { files } = this.order;
    const { admittedTokens } = this.counted;
    let at = files.length;
    if (boundary) at = files[this.boundaryAt] === boundary ? this.boundaryAt : placeOf(files, boundary);
    while (at < files.length && !isCandidate(files[at] as FileRecord)) at++;
    const next = files[at];
    if (next && admittedTokens + this.tokensOf(next) <= tokenBudget) {
      this.setBoundary(files, at + 1);
      this.place(next);
      return true;
    }
    if (admittedTokens <= tokenBudget) {
      this.setBoundary(files, at);
      return false;
    }
    while (at > 0 && !isCandidate(files[at - 1] as FileRecord)) at--;
    const last = files[at - 1];
    // Without a candidate before it nothing is admitted.
    if (!last) return false;
    this.setBoundary(files, at - 1);
    this.place(last);
    return true;
  }

  private setBoundary(files: readonly FileRecord[], at: number): void {
    const before = this.boundary;
    this.boundary = files[at];
    this.boundaryAt = at;
    if (before === this.boundary) return;
    for (const record of [before, this.boundary]) if (record) this.touched.add(record);
  }

  /** On its side of the boundary. */
  private place(record: FileRecord): void {
    this.setOver(record, isCandidate(record) && this.boundary !== undefined && admissionOrder(record, this.boundary) >= 0);
  }

  private setOver(record: FileRecord, over: boolean): void {
    if (record.overBudget === over) return;
    record.overBudget = over;
    if (over) {
      this.over.add(record);
      this.clear(record);
    } else {
      this.over.delete(record);
      this.touched.add(record);
    }
  }

  /** Some files are not admitted, for lack of budget alone. */
  get hasOverBudget(): boolean {
    return this.over.size > 0;
  }

  /** Whether what is admitted still rests on estimates that have turned out wrong. */
  get needsAdmission(): boolean {
    return this.sizesChanged && this.records.size > 0;
  }


  readmit(): void {
    if (this.sizesChanged) this.admit(this.tokenBudget);
  }

  /** Admitted files, in the order of their admission. */
  admitted(): FileRecord[] {
    return this.order.files.filter((record) => isCandidate(record) && !record.overBudget);
  }

  /** Files to be cut, in the order of admission. */
  waiting(): FileRecord[] {
    this.settle();
    if (this.unavailable !== undefined) return [];
    // Few of many are sorted by themselves.
    if (16 * this.needing.size > this.records.size) return this.order.files.filter((record) => this.needing.has(record));
    return [...this.needing].sort(admissionOrder);
  }

  /** Files that were cut and are not wholly in memory. */
  beingRead(): FileRecord[] {
    this.settle();
    return [...this.busy].filter((record) => record.next !== undefined);
  }

  /** Nothing is left to be read, as far as is known. */
  get isRead(): boolean {
    this.settle();
    return this.scanned && !this.needsAdmission && this.admitting === 0 && this.busy.size === 0 && (this.needing.size === 0 || this.unavailable !== undefined);
  }

  /** Takes what earlier runs kept of files that have not changed since. Nothing is cut or run for it, and few are read. */
  async restore(): Promise<void> {
    let batch: { record: FileRecord; version: FileVersion }[] = [];
    let nKeys = 0;
    const take = async (): Promise<void> => {
      const keys = batch.flatMap(({ version }) => version.segments.map(({ key }) => key));
      this.parts.memory.retain(keys);
      try {
        await this.parts.memory.open(keys);
        for (const { record, version } of batch) {
          // Read by somebody else meanwhile.
          if (this.needsCut(record) && sameStamp(record.info, version.stamp)) await this.take(record, version, record.info);
          // What the store lacks has to be cut again.
          this.dropNext(record);
        }
      } finally {
        this.parts.memory.release(keys);
      }
      batch = [];
      nKeys = 0;
      this.settle();
    };
    const turns = new Turns();
    for (const record of this.admitted()) {
      const due = turns.dueSmall();
      if (due) await due;
      if (record.current || this.shadows.has(record.path) || !this.needsCut(record)) continue;
      if (this.manifest.isYoung(record.path, record.info)) await this.prepare(record);
      const fileKey = this.manifest.keyOf(record.path, record.info);
      const known = fileKey === undefined ? undefined : this.manifest.versionOf(fileKey);
      if (fileKey === undefined || !known || !this.needsCut(record)) continue;
      batch.push({ record, version: versionOf(fileKey, record.info, known) });
      nKeys += known.segments.length;
      if (nKeys >= lookUpAtOnce) await take();
    }
    await take();
  }

  // ---- versions ---------------------------------------------------------------------------------------------------------------

  needsCut(record: FileRecord): boolean {
    return this.unavailable === undefined && this.isToBeCut(record);
  }

  private isToBeCut(record: FileRecord): boolean {
    if (!isCandidate(record) || record.next || record.preparing) return false;
    if (record.overBudget) return record === this.boundary && record.tokens === undefined;
    return !record.current || record.changed;
  }

  /** Segments of `next` that are not in memory. */
  missing(record: FileRecord): readonly Segment[] {
    const missing = record.next?.segments.filter(({ key }) => this.parts.memory.handleOf(key) === undefined) ?? [];
    return missing;
  }

  /**
   * Reads and cuts a file that changed or was never read; what the store has of it is in memory then. Nothing happens to a file
   * that changed meanwhile or that is none of ours: its record says why.
   */
  async prepare(record: FileRecord): Promise<void> {
    if (!this.needsCut(record)) return;
    const attempt = {};
    record.preparing = attempt;
    this.touched.add(record);
    try {
      await this.readAndCut(record, () => record.preparing === attempt);
    } finally {
      if (record.preparing === attempt) delete record.preparing;
      this.touched.add(record);
    }
  }

  /** Whoever saw the file change, or go, has it cut again: what is known of it here is old then (`isStill` says so). */
  private async readAndCut(record: FileRecord, isStill: () => boolean): Promise<void> {
    const { info } = record;
    const shadow = this.shadows.get(record.path);
    const knownKey = shadow === undefined ? this.manifest.keyOf(record.path, info) : undefined;
    const known = knownKey === undefined ? undefined : this.manifest.versionOf(knownKey);
    if (knownKey !== undefined && known && (await this.takeKnown(record, versionOf(knownKey, info, known)))) return;
    const bytes = await this.read(record, shadow, isStill);
    if (!bytes) return;
    const fileKey = this.parts.hash.fileKey(bytes, record.path, cutterVersion);
    if (record.current?.fileKey === fileKey) {
      record.changed = false;
      this.measured(record, record.current.segments);
      this.remember(record, info, record.current);
      return;
    }
    const same = this.manifest.versionOf(fileKey);
    if (same && shadow === undefined && (await this.takeKnown(record, versionOf(fileKey, info, same)))) return;
    if (!isStill()) return;
    const segments = await this.cutText(record, bytes);
    if (isStill()) await this.take(record, { fileKey, stamp: info, segments }, info);
  }

  /** True unless the store lacks some of it, whose tokens are needed then after all. */
  private async takeKnown(record: FileRecord, version: FileVersion): Promise<boolean> {
    await this.take(record, version, record.info);
    if (record.next !== version) return true;
    this.dropNext(record);
    record.changed = true;
    return false;
  }

  /** The store has segments of this engine's own for these bytes: they are taken in place of another family's. */
  async preferOwn(versions: ReadonlyMap<string, readonly KnownSegment[]>): Promise<readonly FileRecord[]> {
    const taken: FileRecord[] = [];
    for (const record of [...this.records.values()]) {
      const { path: file, current, next, changed } = record;
      if (current?.from === undefined || next || changed || this.shadows.has(file)) continue;
      const segments = versions.get(current.fileKey);
      if (segments && (await this.takeKnown(record, versionOf(current.fileKey, current.stamp, { segments })))) taken.push(record);
    }
    return taken;
  }

  /**
   * Segments of a file for the answer to one question: retained until they are given back, whatever becomes of the file. Those of
   * a file over the budget are no members of the memory for it. Undefined where nothing may be read: its record says why.
   */
  async borrow(record: FileRecord): Promise<readonly Segment[] | undefined> {
    const known = (record.next ?? record.current)?.segments;
    if (known) {
      this.parts.memory.retain(known.map(({ key }) => key));
      return known;
    }
    if (!record.overBudget) return undefined;
    const bytes = await this.read(record, this.shadows.get(record.path), () => this.records.get(record.path) === record);
    if (!bytes) return undefined;
    const segments = await this.cutText(record, bytes);
    const keys = segments.map(({ key }) => key);
    this.parts.memory.retain(keys);
    try {
      await this.parts.memory.open(keys);
    } catch (error) {
      this.parts.memory.release(keys);
      throw error;
    }
    return segments;
  }

  giveBack(segments: readonly Segment[]): void {
    this.parts.memory.release(segments.map(({ key }) => key));
  }

  /** What may be read of a file, as text; undefined where nothing may (its record says why), or where it is none of ours any more. */
  private async read(record: FileRecord, shadow: string | undefined, isStill: () => boolean): Promise<Uint8Array | undefined> {
    const { info } = record;
    let bytes: Uint8Array;
    try {
      bytes = shadow === undefined ? await readBytes(path.join(this.dir, record.path), info.bytes, maxBytesOf(record.path)) : Buffer.from(shadow);
    } catch (error) {
      if (isStill()) await this.failed(record, error);
      return undefined;
    }
    if (!isStill()) return undefined;
    record.young = shadow === undefined && isYoung(info);
    const classified = classifyContent(record.path, bytes);
    if (isVerdict(classified)) {
      this.exclude(record, info, classified);
      return undefined;
    }
    if (isNotebook(record.path)) bytes = Buffer.from(notebookText(classified.text)?.text ?? classified.text);
    // The text of a notebook's cells is known only now.
    if (bytes.length > maxFileBytes) {
      this.exclude(record, info, tooLarge(bytes.length, maxFileBytes));
      return undefined;
    }
    return bytes;
  }

  private async cutText(record: FileRecord, bytes: Uint8Array): Promise<Segment[]> {
    return (await this.parts.cut(record.path, bytes)).map((cut) => ({
      key: this.parts.keyOf(cut.tokens, cut.headerTokens),
      startByte: cut.startByte,
      endByte: cut.endByte,
      startLine: cut.startLine,
      endLine: cut.endLine,
      nTokens: cut.tokens.length,
      headerTokens: cut.headerTokens,
      tokens: cut.tokens,
    }));
  }

  private async failed(record: FileRecord, error: unknown): Promise<void> {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
      record.error = describeError(error);
      this.leaveOut(record);
      return;
    }
    // Was it the file, or all of the root?
    const isThere = await stat(this.dir).then(
      () => true,
      () => false,
    );
    if (isThere) this.remove(record);
    else {
      this.touched.add(record);
      record.changed = true;
      this.setUnavailable(`${this.dir}: expected a folder that can be read, found: it does not exist`);
    }
  }

  private async take(record: FileRecord, version: FileVersion, info: WalkedFile): Promise<void> {
    this.measured(record, version.segments);
    // Over the budget, it was cut for its size alone.
    if (record.overBudget) return this.remember(record, info, version);
    this.dropNext(record);
    record.next = version;
    record.changed = false;
    const keys = version.segments.map(({ key }) => key);
    this.parts.memory.retain(keys);
    try {
      await this.parts.memory.open(keys);
    } catch (error) {
      // There is no room for it: it waits, as if it had not been looked at.
      if (record.next === version) {
        this.dropNext(record);
        record.changed = true;
      }
      throw error;
    }
    if (record.next !== version) return;
    for (const { key, nTokens } of version.segments) if (this.parts.memory.handleOf(key) !== undefined) this.nReused += nTokens;
    this.remember(record, info, version);
    this.promote(record);
  }

  private measured(record: FileRecord, segments: readonly KnownSegment[]): void {
    const tokens = tokensIn(segments);
    this.sizesChanged ||= record.tokens !== tokens && this.tokenBudget !== Infinity;
    record.tokens = tokens;
    this.touched.add(record);
  }

  private exclude(record: FileRecord, info: WalkedFile, verdict: KnownVerdict): void {
    this.clear(record);
    record.verdict = verdict;
    this.leaveOut(record);
    if (!this.shadows.has(record.path)) this.manifest.setVerdict(record.path, trusted(info), verdict);
  }

  /** Unsaved text is not what the disk has: it is never written down as the file's. */
  private remember(record: FileRecord, info: WalkedFile, { fileKey, segments, from }: FileVersion): void {
    if (this.shadows.has(record.path)) return;
    const plain = segments.map(({ tokens: _tokens, ...known }) => known);
    this.manifest.set({ path: record.path, ...trusted(info), fileKey }, { segments: plain, ...(from !== undefined && { from }) });
  }

  /** The version that was being read is what requests see, once all of it is in. */
  promote(record: FileRecord): boolean {
    this.touched.add(record);
    if (!record.next || this.missing(record).length > 0) return false;
    for (const segment of record.next.segments) delete segment.tokens;
    const before = record.current;
    record.current = record.next;
    delete record.next;
    if (before) this.parts.memory.release(before.segments.map(({ key }) => key));
    return true;
  }

  private dropNext(record: FileRecord): void {
    this.touched.add(record);
    if (!record.next) return;
    this.parts.memory.release(record.next.segments.map(({ key }) => key));
    delete record.next;
  }

  private clear(record: FileRecord): void {
    this.dropNext(record);
    delete record.preparing;
    if (record.current) this.parts.memory.release(record.current.segments.map(({ key }) => key));
    delete record.current;
  }

  /** Segments of a file that a request may read now: of the version that is in, else what is in of the first one. */
  readable(record: FileRecord): readonly Segment[] {
    const segments = record.current?.segments ?? record.next?.segments ?? [];
    return segments.filter(({ key }) => this.parts.memory.handleOf(key) !== undefined);
  }

  /** One of its segments in the store was damaged and dropped: what is still sound is opened again, the rest encoded. */
  reread(record: FileRecord): void {
    for (const { key } of record.current?.segments ?? []) this.parts.memory.drop(key);
    this.clear(record);
    record.changed = true;
  }

  /** Versions that are wholly in, what the disk has, and made by this engine. */
  packable(): Packable {
    const versions: { path: string; version: FileVersion }[] = [];
    const leftOut: { root: string; path: string; reason: PackOmission; detail?: string }[] = [];
    for (const record of this.records.values()) {
      const { path: file, current, error } = record;
      const state = this.stateOf(record);
      if (state === 'excluded') continue;
      const reason = state !== 'in' ? state : this.shadows.has(file) ? 'unsaved' : current?.from !== undefined ? 'foreign' : undefined;
      if (reason === undefined && current) versions.push({ path: file, version: current });
      else if (reason !== undefined) leftOut.push({ root: this.dir, path: file, reason, ...(error !== undefined && { detail: error }) });
    }
    for (const { path: file, error } of this.unreadable.values()) leftOut.push({ root: this.dir, path: file, reason: 'unreadable', detail: error });
    return { versions, leftOut };
  }

  /** Tokens of a file's segments, cut anew: for exact mode, which runs them all. */
  async tokens(record: FileRecord): Promise<Int32Array[]> {
    const bytes = await readFile(path.join(this.dir, record.path));
    const classified = classifyContent(record.path, bytes);
    return isVerdict(classified) ? [] : (await this.parts.cut(record.path, bytes)).map(({ tokens }) => tokens);
  }

  // ---- coverage ---------------------------------------------------------------------------------------------------------------

  private tokensOf(record: FileRecord): number {
    return record.tokens ?? Math.ceil(record.info.bytes / bytesPerToken);
  }

  private stateOf(record: FileRecord): FileState {
    if (record.error !== undefined) return 'unreadable';
    if (record.verdict) return 'excluded';
    if (record.overBudget) return 'over_budget';
    if (record.current) return record.changed || record.next ? 'stale' : 'in';
    return record.next ? 'reading' : 'waiting';
  }

  coverageOf(record: FileRecord): FileCoverage {
    const state = this.unavailable === undefined ? this.stateOf(record) : 'unreadable';
    const inMemory = tokensIn(this.readable(record));
    const from = record.current?.from;
    const pack = from === undefined ? undefined : `from a pack of family ${familyOf(from)}, until it changes`;
    const detail = this.unavailable ?? record.error ?? record.verdict?.detail ?? pack ?? record.info.detail;
    return {
      root: this.dir,
      path: record.path,
      state,
      tokens: state === 'waiting' || state === 'over_budget' ? this.tokensOf(record) : inMemory,
      bytes: record.info.bytes,
      ...(record.verdict && { rule: record.verdict.rule }),
      ...(detail !== undefined && { detail }),
    };
  }

  /** The state of a path, or of the excluded folder that it lies in; undefined where nothing is known of it. */
  coverageAt(file: string): FileCoverage | undefined {
    const record = this.records.get(file);
    if (record) return this.coverageOf(record);
    for (let at = file; at !== '.' && at !== '/'; at = path.posix.dirname(at)) {
      const excluded = this.excluded.get(at);
      if (excluded) return this.excludedCoverage(excluded);
      const unreadable = this.unreadable.get(at);
      if (unreadable) return this.unreadableCoverage(unreadable);
    }
    return undefined;
  }

  private excludedCoverage({ path: file, rule, detail, bytes }: ExcludedPath): FileCoverage {
    return { root: this.dir, path: file, state: 'excluded', rule, detail, tokens: 0, bytes };
  }

  private unreadableCoverage({ path: file, error }: UnreadablePath): FileCoverage {
    return { root: this.dir, path: file, state: 'unreadable', detail: error, tokens: 0, bytes: 0 };
  }

  /** Why a file is left out, or undefined: it is in, could be, or is not known yet. A folder's rule is that of all below it. */
  ruleOf(file: string): ExclusionRule | undefined {
    const verdict = this.records.get(file)?.verdict;
    if (verdict) return verdict.rule;
    for (let at = file; at !== '.' && at !== '/'; at = path.posix.dirname(at)) {
      const entry = this.excluded.get(at);
      if (entry) return entry.rule;
    }
    return undefined;
  }

  /** All files as they are at one moment; to be gathered, and closed. */
  list(): CoverageList {
    const paths = { all: () => this.paths.within(''), at: (file: string) => this.coverageOfPath(file), settle: () => this.settle() };
    const list = new CoverageList(paths, () => void this.lists.delete(list));
    this.lists.add(list);
    return list;
  }

  private listedAnew(file: string): void {
    for (const list of this.lists) list.change(file);
  }

  /** Of all files in a folder, in no order, as they are when their turn comes. */
  *coveragesWithin(folder: string): Iterable<FileCoverage> {
    for (const file of this.paths.within(folder)) {
      const coverage = this.coverageOfPath(file);
      if (coverage) yield coverage;
    }
  }

  /** Of the path itself, not of a folder that it lies in. */
  private coverageOfPath(file: string): FileCoverage | undefined {
    const record = this.records.get(file);
    if (record) return this.coverageOf(record);
    const excluded = this.excluded.get(file);
    if (excluded) return this.excludedCoverage(excluded);
    const unreadable = this.unreadable.get(file);
    return unreadable && this.unreadableCoverage(unreadable);
  }

  /** Of all files that count. */
  count(): Coverage {
    this.settle();
    const { files, tokens, totalFiles, totalTokens, waiting } = this.counted;
    return { files, tokens, total_files: totalFiles, total_tokens: totalTokens, estimated: !this.scanned || waiting > 0 };
  }

  /** Takes the numbers of files that were touched anew: what they cost is a matter of what changed, not of how much there is. */
  private settle(): void {
    for (const record of this.touched) this.takeShare(record);
  }

  private takeShare(record: FileRecord): void {
    this.touched.delete(record);
    this.listedAnew(record.path);
    this.addShare(record.share, -1);
    const isOurs = this.records.get(record.path) === record;
    if (isOurs) record.share = this.shareOf(record);
    else delete record.share;
    this.addShare(record.share, 1);
    putIf(this.needing, record, isOurs && this.isToBeCut(record));
    putIf(this.busy, record, isOurs && (record.next !== undefined || record.preparing !== undefined));
  }

  private shareOf(record: FileRecord): Share {
    const state = this.stateOf(record);
    const totalTokens = this.tokensOf(record);
    const counts = doesCount(state);
    return {
      state,
      tokens: counts && state !== 'waiting' ? tokensIn(this.readable(record)) : 0,
      totalTokens: counts ? totalTokens : 0,
      admittedTokens: state !== 'over_budget' && isCandidate(record) ? totalTokens : 0,
    };
  }

  private addShare(share: Share | undefined, times: 1 | -1): void {
    if (!share) return;
    const { counted } = this;
    const { state, tokens, totalTokens, admittedTokens } = share;
    if (doesCount(state)) counted.totalFiles += times;
    if (state === 'in' || state === 'stale') counted.files += times;
    if (state === 'waiting') counted.waiting += times;
    counted.tokens += times * tokens;
    counted.totalTokens += times * totalTokens;
    counted.admittedTokens += times * admittedTokens;
  }

  /** What an exact search looks at: all that is not ignored, read or not; in the order of admission, since it may not come to the end. */
  *searchFiles(): Iterable<SearchFile> {
    for (const record of this.order.files) if (this.records.get(record.path) === record) yield this.searchFile(record);
    for (const entry of this.excluded.values()) if (!entry.folder) yield this.excludedFile(entry);
  }

  private searchFile({ path: file, info, verdict }: FileRecord): SearchFile {
    return { root: this.dir, path: file, bytes: info.bytes, mtimeMs: info.mtimeMs, ...(verdict && { rule: verdict.rule }) };
  }

  private excludedFile({ path: file, bytes, mtimeMs, rule }: ExcludedPath): SearchFile {
    return { root: this.dir, path: file, bytes, mtimeMs, rule };
  }

  async save(): Promise<void> {
    await this.manifest.save();
  }

  /** Lets go of all that is in memory; with `forget`, what is remembered of the root too. */
  async close(forget = false): Promise<{ segments: number; keys: Set<string>; fileKeys: Set<string> }> {
    const keys = this.manifest.allKeys;
    const { fileKeys } = this.manifest;
    clearTimeout(this.restTimer);
    clearTimeout(this.lookAroundTimer);
    this.wantsLookAround = false;
    this.lookingAround?.abort();
    this.broadLook?.walking.abort();
    this.nextBroadLook?.walking.abort();
    this.restTimer = undefined;
    this.lookAroundTimer = undefined;
    this.volatile.clear();
    if (forget) await this.manifest.forget();
    else await this.manifest.save();
    for (const record of this.records.values()) this.clear(record);
    this.records.clear();
    this.order.clear();
    this.over.clear();
    this.boundary = undefined;
    this.paths.clear();
    return { segments: keys.size, keys, fileKeys };
  }
}

/** Whether a look at these paths is one at all of the root. */
export function isAllOf(paths: readonly string[]): boolean {
  return paths.some((file) => reachOf(file) === '');
}

/** Whether a look at this path is one at a folder by its new rules, or at everything: it may hold very many files. */
export function isBroad(file: string): boolean {
  return file === '' || reachOf(file) !== file;
}

function foldersOf(broad: Iterable<string>): ReadonlySet<string> {
  return new Set(outermost([...broad].map(reachOf)));
}

const nothing: ReadonlySet<string> = new Set();
const nothingFound: Look = { root: '', files: [], excluded: [], unreadable: [], folders: [], folderStamps: new Map(), looked: [], gone: [] };

function isNothing({ changed, gone }: Changes): boolean {
  return changed.length === 0 && gone.length === 0;
}

function isWithinOne(file: string, paths: ReadonlySet<string>): boolean {
  if (paths.size === 0) return false;
  for (let at = file; at !== '.'; at = path.posix.dirname(at)) if (paths.has(at)) return true;
  return paths.has('');
}

function isAllWithin(files: readonly string[], paths: ReadonlySet<string>): boolean {
  return files.every((file) => isWithinOne(file, paths));
}

/** Each starts some calls of the system: thousands at once would keep others from their turn. */
async function someAtOnce<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  for (let i = 0; i < items.length; i += callsAtOnce) await Promise.all(items.slice(i, i + callsAtOnce).map(work));
}

/** Whether it may be in, but for the budget. */
function isCandidate({ verdict, error }: FileRecord): boolean {
  return !verdict && error === undefined;
}

function doesCount(state: FileState): boolean {
  return state !== 'excluded' && state !== 'unreadable' && state !== 'over_budget';
}

function tokensIn(segments: readonly KnownSegment[]): number {
  let tokens = 0;
  for (const { nTokens } of segments) tokens += nTokens;
  return tokens;
}

async function stampsOf({ folderStamps }: Walk): Promise<Map<string, FolderStamp>> {
  const stamps = new Map<string, FolderStamp>();
  await inTurns(folderStamps, ([folder, stamp]) => void stamps.set(folder, trusted(stamp)));
  return stamps;
}

function putIf<T>(set: Set<T>, item: T, isIn: boolean): void {
  if (isIn) set.add(item);
  else set.delete(item);
}

function sameExclusion(a: ExcludedPath | undefined, b: ExcludedPath): boolean {
  return a !== undefined && a.rule === b.rule && a.detail === b.detail && a.bytes === b.bytes && a.mtimeMs === b.mtimeMs;
}

function versionOf(fileKey: string, stamp: Stamp, { segments, from }: KnownVersion): FileVersion {
  return { fileKey, stamp, segments, ...(from !== undefined && { from }) };
}

/** A file written just now may be written again within the clock's step and look the same. */
function isYoung({ mtimeMs }: Stamp): boolean {
  return Math.abs(Date.now() - mtimeMs) < clockStepMs;
}

/** What is noted of what changed just now does not fit the next time, so that it is looked at again. */
function trusted(stamp: Stamp): Stamp {
  return { bytes: stamp.bytes, mtimeMs: isYoung(stamp) ? 0 : stamp.mtimeMs, ino: stamp.ino };
}
