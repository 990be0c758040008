// Exact search over the texts of a workspace: where a word stands, whether it stands anywhere, and which files and segments
// share a question's words, so that they are read first. It decides an order and answers "where is X"; it never decides what an
// answer may see. Each file that was read once leaves a signature (a Bloom filter of its words, about 1 % of its size), so
// that later questions open only files that probably hold a word; texts themselves are kept in a bounded cache.
// Invariant: a signature has no false negatives, so "nowhere" is exact for the files that could be read.
// Of many files that nobody ever read, one request reads what a budget allows, the likeliest first; the rest is read on in the
// background (`readOn`). What holds whatever the time: a place that is told is there; all is said to be complete only where every
// file was searched; what is in memory always was; and the next request knows no less than the last one. How far beyond memory a
// request comes is a matter of the budget, on a slow machine of its time, and said (`ReadingBudget.passedOver`).

import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExclusionRule } from '../messages';
import { inTurns, Turns } from '../turns';
import { classifyContent, isNotebook, isVerdict, maxBytesOf } from './classify';
import { notebookText } from './notebook';
import { readBytes } from './walk';

export interface SearchFile {
  readonly root: string;
  readonly path: string;
  readonly bytes: number;
  readonly mtimeMs: number;
  /** Set for a file that is excluded: searched for words all the same where it is text, never ranked. */
  readonly rule?: ExclusionRule;
}

export interface FileName {
  readonly root: string;
  readonly path: string;
}

export interface Place extends FileName {
  /** From 1. */
  readonly line: number;
  /** The file is excluded by this rule. */
  readonly rule?: ExclusionRule;
}

export interface Found {
  readonly places: readonly Place[];
  /** False where the limit cut the list or a file was not read. */
  readonly complete: boolean;
}

export interface RankedFile extends FileName {
  readonly score: number;
}

export interface SegmentedFile extends FileName {
  /** Lines of each segment, from 1, the end included, in the file's order. */
  readonly segments: readonly { readonly start_line: number; readonly end_line: number }[];
}

export interface RankedSegment extends FileName {
  readonly segmentIndex: number;
  readonly score: number;
}

export interface SearchOptions {
  readonly signal?: AbortSignal;
  readonly limit?: number;
  /** Of what was never read no more than this is read, and the rest passed over. One serves all searches of a request. Default: all. */
  readonly reading?: ReadingBudget;
  /** Of words alike: how long to look for them. */
  readonly budgetMs?: number;
  /** Only these files; default: all. */
  readonly accepts?: (file: FileName) => boolean;
}

/** How much a request may read of files that were never read, and in which order where that is not all. */
export class ReadingBudget {
  /** Files that the last search had to pass over. */
  passedOver = 0;
  private readonly near: ReadonlySet<string>;
  private endsAt = Infinity;

  constructor(
    private readonly left: { files: number; bytes: number },
    /** From the first file on: for slow disks and busy machines. */
    private readonly ms: number,
    /** What is read whatever it takes: what is in memory. */
    readonly members: () => Iterable<FileName>,
    /** Files in whose folders what is asked for may well lie. */
    near: readonly FileName[] = [],
  ) {
    this.near = new Set(near.map(folderOf));
  }

  isNear(file: FileName): boolean {
    return this.near.size > 0 && this.near.has(folderOf(file));
  }

  /** Nothing but members is read any more. */
  get isUsedUp(): boolean {
    return this.left.files <= 0 || performance.now() > this.endsAt;
  }

  /** False: it is used up, or not enough for this one. */
  take(bytes: number): boolean {
    if (this.endsAt === Infinity) this.endsAt = performance.now() + this.ms;
    if (this.isUsedUp || this.left.bytes < bytes) return false;
    this.left.files--;
    this.left.bytes -= bytes;
    return true;
  }
}

/** Neither text that a person works with, nor the user's wish to see: not searched at all. */
const unsearched = new Set<ExclusionRule>(['ignored', 'binary', 'special', 'outside', 'worktree', 'user']);

/** All have the same shape, so that 200,000 of them stay small. */
interface Entry {
  readonly root: string;
  readonly path: string;
  bytes: number;
  mtimeMs: number;
  rule: ExclusionRule | undefined;
  /** What is known of its words; undefined until it is read. */
  signature: Signature | undefined;
  /** The rule that its content earned when it was read. */
  found: ExclusionRule | undefined;
  /** An unsaved document's text. */
  shadow: string | undefined;
}

type Entries = Map<string, Map<string, Entry>>;

const readsAtOnce = 16;
const streamedBytes = 1 << 20;
/** What is read on in the background takes a fifth of the thread at most: after each few files, four times as long nothing. */
const readOnRest = 4;

export class WorkspaceSearch {
  /** By root, then path. */
  private roots: Entries = new Map();
  /** While the list of all files is replaced: those of the one before whose turn has not come. */
  private before: Entries = new Map();
  private readonly texts: TextCache;
  private readonly turns = new Turns();
  private readingOn: Promise<void> | undefined;
  /** What was searched last, while it is the same. */
  private listed: { readonly accepts: SearchOptions['accepts']; readonly files: readonly Entry[] } | undefined;
  private nChanges = 0;
  private closed = false;

  constructor(options: { readonly cacheBytes?: number } = {}) {
    this.texts = new TextCache(options.cacheBytes ?? 32 << 20);
  }

  /** Ends what is read in the background. */
  close(): void {
    this.closed = true;
  }

  // ---- what is searched ------------------------------------------------------------------------------------------------------

  /**
   * Replaces the list of all files; in their order they are searched. What is known of a file whose size and time are the same is
   * kept. Others may change files meanwhile, but not the list.
   */
  async setFiles(files: Iterable<SearchFile>): Promise<void> {
    this.before = this.roots;
    this.roots = new Map();
    this.changed();
    await inTurns(files, (file) => {
      const known = this.entry(file);
      this.before.get(file.root)?.delete(file.path);
      this.put(file, known);
    });
    for (const left of this.before.values()) await inTurns(left.values(), (entry) => this.texts.delete(entry));
    this.before = new Map();
  }

  private changed(): void {
    this.nChanges++;
    this.listed = undefined;
  }

  /** Adds or replaces some files, and takes others out. */
  updateFiles(changed: Iterable<SearchFile>, gone: Iterable<FileName> = []): void {
    this.changed();
    for (const name of gone) {
      const entry = this.entry(name);
      if (!entry) continue;
      this.before.get(name.root)?.delete(name.path);
      this.roots.get(name.root)?.delete(name.path);
      this.texts.delete(entry);
    }
    for (const file of changed) this.put(file, this.entry(file));
  }

  /** The text of an unsaved document, searched in the file's place until it is null. */
  setText(name: FileName, text: string | null): void {
    if (text === null && !this.entry(name)) return;
    const entry = this.entry(name) ?? this.put({ ...name, bytes: 0, mtimeMs: 0 }, undefined);
    this.texts.delete(entry);
    entry.shadow = text === null ? undefined : searchedText(name.path, text);
    entry.signature = entry.shadow === undefined ? undefined : signatureOf(entry.shadow);
  }

  /** Bytes held: cached texts and signatures. */
  get heldBytes(): number {
    let bytes = this.texts.bytes;
    for (const { signature } of this.all()) bytes += signature ? heldBy(signature) : 0;
    return bytes;
  }

  private put(file: SearchFile, known: Entry | undefined): Entry {
    const { root, path, bytes, mtimeMs, rule } = file;
    const entry = known ?? { root, path, bytes, mtimeMs, rule, signature: undefined, found: undefined, shadow: undefined };
    if (entry.bytes !== bytes || entry.mtimeMs !== mtimeMs) {
      this.texts.delete(entry);
      entry.bytes = bytes;
      entry.mtimeMs = mtimeMs;
      entry.found = undefined;
      // An unsaved document goes on shadowing a file that changed under it.
      if (entry.shadow === undefined) entry.signature = undefined;
    }
    if (entry.rule !== rule) this.changed();
    entry.rule = rule;
    let paths = this.roots.get(root);
    if (!paths) this.roots.set(root, (paths = new Map()));
    if (paths.get(path) === entry) return entry;
    this.changed();
    paths.set(path, entry);
    return entry;
  }

  private entry({ root, path }: FileName): Entry | undefined {
    return this.roots.get(root)?.get(path) ?? this.before.get(root)?.get(path);
  }

  private *all(): Generator<Entry> {
    for (const paths of this.roots.values()) yield* paths.values();
  }

  // ---- words ---------------------------------------------------------------------------------------------------------------

  /** Every place of a word, whole and case-sensitive, in file order; in files that are text and not ignored, read or not. */
  async findWord(word: string, options: SearchOptions = {}): Promise<Found> {
    const limit = options.limit ?? 1000;
    const hash = hashOf(word, 0, word.length);
    const files = await this.searched(options);
    const { unread, allRead } = await this.sign(files, () => parseQuestion(word), options);
    let complete = allRead;
    const places: Place[] = [];
    for (const entry of files) {
      const due = this.turns.dueSmall();
      if (due) await due;
      if (!isSearched(entry)) continue;
      if (entry.signature ? !has(entry.signature, hash) : unread > 0) continue;
      options.signal?.throwIfAborted();
      let line = 1;
      let counted = 0;
      let last = 0;
      const isRead = await this.eachText(entry, (text) => {
        for (const at of wordsIn(text, word)) {
          line += newlines(text, counted, at);
          counted = at;
          if (line !== last) places.push(placeOf(entry, line));
          last = line;
          if (places.length > limit) return false;
        }
        line += newlines(text, counted, text.length);
        counted = 0;
        return true;
      });
      complete &&= isRead;
      if (places.length > limit) return { places: places.slice(0, limit), complete: false };
    }
    return { places, complete };
  }

  /**
   * Which of these words stand anywhere. `first` are looked into before all others: the words of an answer come from its
   * sources. `complete` is false where a file was not read: then an absent word is only probably absent.
   */
  async occurring(words: Iterable<string>, options: SearchOptions & { readonly first?: readonly FileName[] } = {}): Promise<{ found: ReadonlySet<string>; complete: boolean }> {
    const wanted = new Map([...words].map((word) => [word, hashOf(word, 0, word.length)]));
    const found = new Set<string>();
    const mayHold = ({ signature }: Entry): boolean => {
      if (!signature) return true;
      for (const hash of wanted.values()) if (has(signature, hash)) return true;
      return false;
    };
    const look = async (entry: Entry): Promise<boolean> => {
      const candidates = [...wanted].filter(([, hash]) => !entry.signature || has(entry.signature, hash)).map(([word]) => word);
      options.signal?.throwIfAborted();
      return this.eachText(entry, (text) => {
        for (const word of candidates) {
          if (!wanted.has(word) || wordsIn(text, word).next().done) continue;
          found.add(word);
          wanted.delete(word);
        }
        return wanted.size > 0;
      });
    };
    for (const name of options.first ?? []) {
      const entry = this.entry(name);
      if (entry && wanted.size > 0 && isSearched(entry) && mayHold(entry)) await look(entry);
    }
    if (wanted.size === 0) return { found, complete: true };
    const files = await this.searched(options);
    const { unread, allRead } = await this.sign(files, () => parseQuestion([...wanted.keys()].join(' ')), options);
    let complete = allRead;
    for (const entry of files) {
      if (wanted.size === 0) return { found, complete: true };
      const due = this.turns.dueSmall();
      if (due) await due;
      if (!isSearched(entry) || !mayHold(entry) || (!entry.signature && unread > 0)) continue;
      complete = (await look(entry)) && complete;
    }
    return { found, complete: complete || wanted.size === 0 };
  }

  /** Words of the workspace that a misspelled one may stand for, nearest first. Gives up after `budgetMs` (default 1,000). */
  async similarWords(word: string, options: SearchOptions = {}): Promise<string[]> {
    const end = performance.now() + (options.budgetMs ?? 1000);
    const distances = new Map<string, number>();
    const seen = new Set<number>();
    for (const entry of await this.searched(options)) {
      if (performance.now() > end) break;
      if (ruleOf(entry) !== undefined) continue;
      options.signal?.throwIfAborted();
      await this.eachText(entry, (text) => {
        eachWord(text, (start, stop, hash) => {
          if (Math.abs(stop - start - word.length) > 2 || seen.has(hash)) return;
          seen.add(hash);
          const distance = nearness(word, text.slice(start, stop));
          if (distance !== undefined) distances.set(text.slice(start, stop), distance);
        });
        return performance.now() < end;
      });
      await this.turns.due();
    }
    return [...distances].sort((a, b) => a[1] - b[1] || (a[0] < b[0] ? -1 : 1)).slice(0, options.limit ?? 3).map(([near]) => near);
  }

  // ---- paths -----------------------------------------------------------------------------------------------------------------

  /** Files that each mention may mean: that very path, or else all whose path ends in it (`ring.c` → `lib/ring.c`). */
  async resolvePaths(mentions: Iterable<string>): Promise<ReadonlyMap<string, readonly FileName[]>> {
    const named = new Map<string, Entry[]>();
    const paths = new Map<string, string>();
    for (const mention of mentions) {
      const path = mention.replaceAll('\\', '/').replace(/^(?:\.\/)+/, '').replace(/^\/+/, '');
      paths.set(mention, path);
      if (path !== '') named.set(lastPart(path), []);
    }
    if (named.size > 0) await inTurns(this.all(), (entry) => void named.get(lastPart(entry.path))?.push(entry));
    const resolved = new Map<string, readonly FileName[]>();
    for (const [mention, path] of paths) resolved.set(mention, meantBy(mention, path, named.get(lastPart(path)) ?? []).map(nameOf));
    return resolved;
  }

  // ---- ranking ---------------------------------------------------------------------------------------------------------------

  /**
   * Files by what they share with a question: rare words count more than common ones, whole identifiers more than parts of
   * them, definitions and paths more than uses. BM25 with these weights, over at most `candidates` texts.
   */
  async rankFiles(question: string, options: SearchOptions = {}): Promise<RankedFile[]> {
    const query = parseQuestion(question);
    if (query.terms.length === 0) return [];
    const files = (await this.searched(options)).filter((entry) => entry.rule === undefined);
    // Whoever is named like the question is read first, should the time not suffice for all.
    await this.sign(files, () => query, options);
    const weights = await this.weigh(query, files);
    const candidates = new Best<{ readonly entry: Entry; readonly onPath: number; readonly score: number }>(maxCandidates, (a, b) => b.score - a.score);
    let bytes = 0;
    await inTurns(files, (entry) => {
      bytes += entry.bytes;
      if (ruleOf(entry) !== undefined) return;
      const onPath = pathScore(pathHits(entry.path, query), weights);
      let score = onPath;
      if (entry.signature) for (let i = 0; i < query.terms.length; i++) if (has(entry.signature, query.terms[i]!.hash)) score += weights[i] ?? 0;
      if (score > 0) candidates.add({ entry, onPath, score });
    });
    const ranked: RankedFile[] = [];
    const average = bytes / Math.max(1, files.length);
    for (const { entry, onPath } of candidates.list) {
      options.signal?.throwIfAborted();
      const text = entry.signature ? await this.textOf(entry) : undefined;
      const counts = text === undefined ? undefined : count(text, query, [Infinity])[0];
      const score = onPath + (counts ? bm25(counts, weights, entry.bytes / Math.max(1, average)) : 0);
      // 0: the signature promised a word that is not there.
      if (score > 0) ranked.push({ ...nameOf(entry), score });
      await this.turns.due();
    }
    return ranked.sort((a, b) => b.score - a.score || comparedNames(a, b)).slice(0, options.limit ?? 100);
  }

  /** Segments of the given files by the same measure, each file's path counting for all of its segments. */
  async rankSegments(question: string, files: readonly SegmentedFile[], options: SearchOptions = {}): Promise<RankedSegment[]> {
    const query = parseQuestion(question);
    const ranked: RankedSegment[] = [];
    const weights = await this.weigh(query, this.all());
    for (const file of files) {
      options.signal?.throwIfAborted();
      const entry = this.entry(file);
      const text = entry && (await this.textOf(entry));
      if (text === undefined) continue;
      const onPath = pathScore(pathHits(file.path, query), weights);
      const counts = count(text, query, offsetsOfLines(text, file.segments.map(({ end_line }) => end_line)));
      for (const [segmentIndex, counted] of counts.entries()) {
        const score = bm25(counted, weights, 1);
        if (score > 0) ranked.push({ root: file.root, path: file.path, segmentIndex, score: score + onPath });
      }
      await this.turns.due();
    }
    ranked.sort((a, b) => b.score - a.score || comparedNames(a, b) || a.segmentIndex - b.segmentIndex);
    return ranked.slice(0, options.limit ?? 100);
  }

  /** Each term's weight times its rarity among files that may enter memory: ln(1 + (N − n + ½) / (n + ½)). */
  private async weigh(query: Query, files: Iterable<Entry>): Promise<number[]> {
    const holding = query.terms.map(() => 0);
    let signed = 0;
    await inTurns(files, (entry) => {
      const { signature } = entry;
      if (!signature || ruleOf(entry) !== undefined) return;
      signed++;
      for (let i = 0; i < query.terms.length; i++) if (has(signature, query.terms[i]!.hash)) holding[i]!++;
    });
    return query.terms.map(({ weight }, i) => weight * Math.log(1 + (signed - holding[i]! + 0.5) / (holding[i]! + 0.5)));
  }

  // ---- texts ------------------------------------------------------------------------------------------------------------------

  /** The same list for all searches of a request, while no file comes or goes. */
  private async searched({ accepts }: SearchOptions): Promise<readonly Entry[]> {
    if (this.listed && this.listed.accepts === accepts) return this.listed.files;
    const files: Entry[] = [];
    const listed = { accepts, files };
    this.listed = undefined;
    const { nChanges } = this;
    await inTurns(this.all(), (entry) => {
      const isSearched = entry.rule === undefined || !unsearched.has(entry.rule);
      if (isSearched && (!accepts || accepts(entry))) files.push(entry);
    });
    if (this.nChanges === nChanges) this.listed = listed;
    return files;
  }

  /**
   * Gives files their signatures, reading those that have none as far as the budget goes. `unread`: how many it did not reach;
   * `allRead`: none, and all of them could be read.
   */
  private async sign(files: readonly Entry[], query: () => Query, { reading, signal }: SearchOptions): Promise<{ unread: number; allRead: boolean }> {
    let unsigned: readonly Entry[] = files.filter((entry) => !entry.signature && isSearched(entry));
    let nMembers = 0;
    if (reading && unsigned.length > 0) {
      const members = new Set<Entry>();
      await inTurns(reading.members(), (name) => {
        const entry = this.entry(name);
        if (entry) members.add(entry);
      });
      ({ files: unsigned, nMembers } = await likeliestFirst(unsigned, members, query(), reading));
    }
    let next = 0;
    let unread = 0;
    let allRead = true;
    const reader = async (): Promise<void> => {
      while (next < unsigned.length) {
        signal?.throwIfAborted();
        const due = this.turns.due();
        if (due) await due;
        const i = next++;
        const entry = unsigned[i];
        // Another reader came to the end meanwhile, or somebody else has read it.
        if (!entry || entry.signature || !isSearched(entry)) continue;
        if (!reading || i < nMembers || reading.take(entry.bytes)) {
          if (!(await this.signOne(entry))) allRead = false;
          continue;
        }
        unread++;
        if (!reading.isUsedUp) continue;
        // Nothing behind it is read either.
        unread += unsigned.length - next;
        next = unsigned.length;
      }
    };
    await Promise.all(Array.from({ length: Math.min(readsAtOnce, unsigned.length) }, reader));
    if (reading) reading.passedOver = unread;
    return { unread, allRead: allRead && unread === 0 };
  }

  /** Reads what no request has had the time for, so that later ones know it; at rest most of the time. Never rejects. */
  readOn(): Promise<void> {
    return (this.readingOn ??= this.readRest().finally(() => (this.readingOn = undefined)));
  }

  private async readRest(): Promise<void> {
    const unsigned: Entry[] = [];
    await inTurns(this.all(), (entry) => {
      if (!entry.signature && isSearched(entry)) unsigned.push(entry);
    });
    for (let i = 0; i < unsigned.length && !this.closed; i += readsAtOnce) {
      const began = performance.now();
      // Gone, changed or read since: what is gone reads as nothing.
      const some = unsigned.slice(i, i + readsAtOnce).filter((entry) => !entry.signature && isSearched(entry));
      await Promise.all(some.map((entry) => this.signOne(entry, false)));
      await sleep(readOnRest * (performance.now() - began));
    }
  }

  /** `keepsText`: somebody may want it soon. */
  private async signOne(entry: Entry, keepsText = true): Promise<boolean> {
    const hashes = new Set<number>();
    let seen = 0;
    const isSame = unchanged(entry);
    const sign = (text: string): boolean => {
      gather(text, hashes);
      seen += text.length;
      return hashes.size < maxSigned;
    };
    const read = await this.eachText(entry, sign, keepsText);
    if (read && isSame() && entry.found !== 'binary') entry.signature = hashes.size < maxSigned ? signatureWith(hashes) : fullSignature;
    return read || seen > 0;
  }

  /** As it is searched; undefined where it is none of ours or cannot be read. */
  async text(name: FileName): Promise<string | undefined> {
    const entry = this.entry(name);
    return entry && this.textOf(entry);
  }

  /** The whole text of a file that may enter memory. */
  private async textOf(entry: Entry): Promise<string | undefined> {
    if (entry.bytes > maxBytesOf(entry.path)) return undefined;
    let whole: string | undefined;
    await this.eachText(entry, (text) => {
      whole = text;
      return true;
    });
    return whole;
  }

  /**
   * Calls `visit` with a file's text – in pieces that cut no word where it is too large to be held – until it returns
   * false. Returns false where the file cannot be read; a binary has no text and counts as read.
   */
  private async eachText(entry: Entry, visit: (text: string) => boolean, keepsText = true): Promise<boolean> {
    if (entry.shadow !== undefined) {
      visit(entry.shadow);
      return true;
    }
    const cached = this.texts.get(entry);
    if (cached !== undefined) {
      visit(cached);
      return true;
    }
    try {
      if (entry.bytes > maxBytesOf(entry.path)) return await this.stream(entry, visit);
      const isSame = unchanged(entry);
      const text = this.judge(entry, await readBytes(join(entry.root, entry.path), entry.bytes, maxBytesOf(entry.path)));
      if (text === undefined) return true;
      if (keepsText && isSame()) this.texts.set(entry, text);
      visit(text);
      return true;
    } catch (error) {
      // A file that is gone has no words; the watcher will say so. Others are reported as not searched.
      return (error as NodeJS.ErrnoException).code === 'ENOENT';
    }
  }

  /** The text of a file's bytes; notes the rule that its content earns. Other encodings than UTF-8 still show ASCII names. */
  private judge(entry: Entry, bytes: Buffer): string | undefined {
    const classified = classifyContent(entry.path, bytes);
    if (!isVerdict(classified)) {
      entry.found = undefined;
      return searchedText(entry.path, classified.text);
    }
    entry.found = classified.rule;
    if (classified.rule === 'binary') return undefined;
    return bytes.toString(classified.rule === 'not_utf8' ? 'latin1' : 'utf8');
  }

  private async stream(entry: Entry, visit: (text: string) => boolean): Promise<boolean> {
    const file = await open(join(entry.root, entry.path));
    try {
      const buffer = Buffer.alloc(2 * streamedBytes);
      for (let position = 0, kept = 0; ; ) {
        const { bytesRead } = await file.read(buffer, kept, streamedBytes, position);
        position += bytesRead;
        const filled = kept + bytesRead;
        const bytes = buffer.subarray(0, filled);
        if (bytes.includes(0, kept)) {
          entry.found = 'binary';
          return true;
        }
        // Cut behind a byte that ends a word, so that neither words nor characters are. What has none in a megabyte is no name.
        let cut = filled;
        if (bytesRead > 0) while (cut > 0 && (bytes[cut - 1]! >= 128 || isWordUnit(bytes[cut - 1]!))) cut--;
        if (!visit(bytes.toString('utf8', 0, cut)) || bytesRead === 0) return true;
        kept = filled - cut < streamedBytes ? filled - cut : 0;
        if (kept > 0) buffer.copyWithin(0, cut, filled);
        await this.turns.due();
      }
    } finally {
      await file.close();
    }
  }
}

/** Tells, after a wait, whether an entry still stands for the same text: what was read before is not kept for another. */
function unchanged(entry: Entry): () => boolean {
  const { bytes, mtimeMs, shadow } = entry;
  return () => entry.bytes === bytes && entry.mtimeMs === mtimeMs && entry.shadow === shadow;
}

/** A notebook is searched by the text of its cells. */
function searchedText(path: string, text: string): string {
  return isNotebook(path) ? (notebookText(text)?.text ?? text) : text;
}

/** Of files with the last part of its path. */
function meantBy(mention: string, path: string, named: readonly Entry[]): readonly Entry[] {
  const absolute = named.filter((entry) => mention.startsWith('/') && join(entry.root, entry.path) === mention);
  if (absolute.length > 0) return absolute;
  const exact = named.filter((entry) => entry.path === path);
  return exact.length > 0 ? exact : named.filter((entry) => entry.path.endsWith(`/${path}`));
}

/**
 * What is in memory, files that are named like what is looked for, those in the folders that matter, those whose folders are named so,
 * and the rest; each as they come.
 */
async function likeliestFirst(
  files: readonly Entry[],
  isMember: ReadonlySet<Entry>,
  query: Query,
  reading: ReadingBudget,
): Promise<{ files: Entry[]; nMembers: number }> {
  const [members, ...groups]: [Entry[], ...Entry[][]] = [[], [], [], [], []];
  const { isUsedUp } = reading;
  await inTurns(files, (entry) => {
    if (isMember.has(entry)) return void members.push(entry);
    // In which order nothing of them is read does not matter.
    const hits = isUsedUp ? [] : pathHits(entry.path, query);
    const group = hits.some(({ named }) => named) ? 0 : reading.isNear(entry) ? 1 : hits.length > 0 ? 2 : 3;
    groups[group]?.push(entry);
  });
  return { files: [members, ...groups].flat(), nMembers: members.length };
}

/** The first so many of all that are added, in the order of the comparison, then of their coming. */
class Best<T> {
  private readonly kept: T[] = [];

  constructor(
    private readonly most: number,
    private readonly compare: (a: T, b: T) => number,
  ) {}

  add(item: T): void {
    if (this.kept.push(item) >= 8 * this.most) this.sort();
  }

  get list(): readonly T[] {
    this.sort();
    return this.kept;
  }

  private sort(): void {
    this.kept.sort(this.compare);
    this.kept.length = Math.min(this.kept.length, this.most);
  }
}

function folderOf({ root, path }: FileName): string {
  return `${root}\0${path.slice(0, Math.max(0, path.lastIndexOf('/')))}`;
}

function lastPart(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** Whether words are looked for in it, as far as is known. */
function isSearched(entry: Entry): boolean {
  return !unsearched.has(ruleOf(entry) ?? 'generated');
}

function nameOf({ root, path }: FileName): FileName {
  return { root, path };
}

function comparedNames(a: FileName, b: FileName): number {
  return a.path < b.path ? -1 : a.path > b.path ? 1 : a.root < b.root ? -1 : a.root > b.root ? 1 : 0;
}

function ruleOf(entry: Entry): ExclusionRule | undefined {
  return entry.rule ?? entry.found;
}

function placeOf(entry: Entry, line: number): Place {
  const rule = ruleOf(entry);
  return rule === undefined ? { ...nameOf(entry), line } : { ...nameOf(entry), line, rule };
}

/** Least recently used texts go first; counts bytes of UTF-8 text, which is what V8 holds for ASCII. */
class TextCache {
  bytes = 0;
  private readonly texts = new Map<Entry, string>();
  constructor(private readonly maxBytes: number) {}

  get(key: Entry): string | undefined {
    const text = this.texts.get(key);
    if (text !== undefined) {
      this.texts.delete(key);
      this.texts.set(key, text);
    }
    return text;
  }

  set(key: Entry, text: string): void {
    this.delete(key);
    if (text.length > this.maxBytes / 4) return;
    this.texts.set(key, text);
    this.bytes += text.length;
    for (const oldest of this.texts.keys()) {
      if (this.bytes <= this.maxBytes) break;
      this.delete(oldest);
    }
  }

  delete(key: Entry): void {
    this.bytes -= this.texts.get(key)?.length ?? 0;
    this.texts.delete(key);
  }
}

// ---- words of a text -----------------------------------------------------------------------------------------------------------

/** Letters, digits, `_`, `$`, and all beyond Latin-1 punctuation but the blocks of punctuation and wide spaces. */
function isWordUnit(unit: number): boolean {
  if (unit < 128) return (unit >= 97 && unit <= 122) || (unit >= 65 && unit <= 90) || (unit >= 48 && unit <= 57) || unit === 95 || unit === 36;
  if (unit < 0xc0) return unit === 0xaa || unit === 0xb5 || unit === 0xba;
  return unit !== 0xd7 && unit !== 0xf7 && (unit < 0x2000 || unit > 0x206f) && (unit < 0x3000 || unit > 0x303f) && (unit < 0xff00 || unit > 0xff0f) && unit !== 0xfeff;
}

/** FNV-1a over UTF-16 units. */
function hashOf(text: string, start: number, end: number): number {
  let hash = 0x811c9dc5;
  for (let i = start; i < end; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash;
}

function eachWord(text: string, visit: (start: number, end: number, hash: number) => void): void {
  const { length } = text;
  for (let i = 0; i < length; ) {
    let unit = text.charCodeAt(i);
    if (!isWordUnit(unit)) {
      i++;
      continue;
    }
    const start = i;
    let hash = 0x811c9dc5;
    do {
      hash = Math.imul(hash ^ unit, 0x01000193);
      unit = text.charCodeAt(++i);
    } while (i < length && isWordUnit(unit));
    visit(start, i, hash);
  }
}

/** Offsets of a whole word. The ends of a text are ends of words. */
function* wordsIn(text: string, word: string): Generator<number> {
  if (word === '') return;
  for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + 1)) {
    const end = at + word.length;
    const opens = at === 0 || !isWordUnit(text.charCodeAt(at - 1)) || !isWordUnit(word.charCodeAt(0));
    const closes = end === text.length || !isWordUnit(text.charCodeAt(end)) || !isWordUnit(word.charCodeAt(word.length - 1));
    if (opens && closes) yield at;
  }
}

function newlines(text: string, start: number, end: number): number {
  let n = 0;
  for (let at = text.indexOf('\n', start); at >= 0 && at < end; at = text.indexOf('\n', at + 1)) n++;
  return n;
}

/** Parts of an identifier: `HTTPServer_max2` → HTTP, Server, max2. */
function eachPart(text: string, start: number, end: number, visit: (start: number, end: number) => void): void {
  let from = start;
  const flush = (to: number): void => {
    if (to - from >= 2) visit(from, to);
    from = to;
  };
  for (let i = start; i < end; i++) {
    const unit = text.charCodeAt(i);
    if (unit === 95 || unit === 36) {
      flush(i);
      from = i + 1;
    } else if (i > from && isUpper(unit)) {
      const before = text.charCodeAt(i - 1);
      const after = i + 1 < end ? text.charCodeAt(i + 1) : 0;
      if (!isUpper(before) || (after >= 97 && after <= 122)) flush(i);
    }
  }
  flush(end);
}

function isUpper(unit: number): boolean {
  return unit >= 65 && unit <= 90;
}

/**
 * Hash of a part without case and common endings, so that `parse`, `parsed` and `PARSING` are one. Crude on purpose: both
 * sides go through it, and a false friend costs a place in an order only.
 */
function stemHash(text: string, start: number, end: number): number {
  const stop = stemEnd(text, start, end);
  let hash = 0x2f0b4a27;
  for (let i = start; i < stop; i++) {
    const unit = text.charCodeAt(i);
    hash = Math.imul(hash ^ (isUpper(unit) ? unit | 32 : unit), 0x01000193);
  }
  return hash;
}

function stemEnd(text: string, start: number, end: number): number {
  const low = (i: number): number => text.charCodeAt(i) | 32;
  let stop = end;
  if (stop - start > 3 && low(stop - 1) === 115 && low(stop - 2) !== 115) stop--; // -s, not -ss
  if (stop - start > 5 && low(stop - 1) === 103 && low(stop - 2) === 110 && low(stop - 3) === 105) stop -= 3; // -ing
  else if (stop - start > 4 && low(stop - 1) === 100 && low(stop - 2) === 101) stop -= 2; // -ed
  if (stop - start > 3 && low(stop - 1) === 101) stop--; // -e
  return stop;
}

// ---- signatures ------------------------------------------------------------------------------------------------------------------

const probes = 5;
const bitsPerWord = 10;
/** A file with more different words (a dump of numbers, say) gets no signature worth its memory: it is always opened. */
const maxSigned = 200_000;

/**
 * Bloom filter of a file's words (as written) and of their parts' stems; about 1 % of false positives. Thirty bits a slot, which
 * is what a plain array holds without boxes: for the many small files it takes a third of a typed array's room.
 */
type Signature = readonly number[] | Uint32Array;

const slotBits = 30;
const smallSlots = 64;
/** Of a file that is always opened. */
const fullSignature: Signature = [];

function signatureWith(hashes: ReadonlySet<number>): Signature {
  const slots = Math.max(1, Math.ceil((hashes.size * bitsPerWord) / slotBits));
  const bits = slots <= smallSlots ? new Array<number>(slots).fill(0) : new Uint32Array(slots);
  for (const hash of hashes) {
    for (let probe = 0, at = hash; probe < probes; probe++, at = step(at, hash)) {
      const bit = (at >>> 0) % (slots * slotBits);
      bits[Math.floor(bit / slotBits)]! |= 1 << (bit % slotBits);
    }
  }
  return bits;
}

function heldBy(signature: Signature): number {
  return signature instanceof Uint32Array ? signature.byteLength + 200 : 8 * signature.length + 48;
}

function step(at: number, hash: number): number {
  return (Math.imul(at, 0x9e3779b1) + (hash >>> 7)) | 0;
}

function has(signature: Signature, hash: number): boolean {
  if (signature === fullSignature) return true;
  const nBits = signature.length * slotBits;
  for (let probe = 0, at = hash; probe < probes; probe++, at = step(at, hash)) {
    const bit = (at >>> 0) % nBits;
    if (((signature[Math.floor(bit / slotBits)]! >>> (bit % slotBits)) & 1) === 0) return false;
  }
  return true;
}

function gather(text: string, hashes: Set<number>): void {
  eachWord(text, (start, end, hash) => {
    if (hashes.has(hash)) return;
    hashes.add(hash);
    eachPart(text, start, end, (from, to) => hashes.add(stemHash(text, from, to)));
  });
}

function signatureOf(text: string): Signature {
  const hashes = new Set<number>();
  gather(text, hashes);
  return signatureWith(hashes);
}

// ---- questions -------------------------------------------------------------------------------------------------------------------

interface Term {
  readonly hash: number;
  readonly weight: number;
  readonly whole: boolean;
}

interface Query {
  readonly terms: readonly Term[];
  /** Index of a term by its hash; whole words and stems are hashed differently. */
  readonly index: ReadonlyMap<number, number>;
  /** Takes every text with one of the terms in it, and some without: most paths are not taken apart. */
  readonly around: RegExp;
}

const stopWords = new Set(
  (
    'a an the and or not no of in on at to for from by with without into over under as is are was were be been being am do does did ' +
    'done has have had can could should would will shall may might must i me my we us our you your he she it its they them their this ' +
    'that these those there here what which who whom whose where when why how if then else than so such any all some each every both ' +
    'only also just please tell show explain describe find give list use used uses using defined define declared ' +
    'implemented happens happen mean means work works file files line code repo repository project workspace about'
  ).split(' '),
);

/** Whole words that look like identifiers count thrice; their parts and plain words once. */
function parseQuestion(question: string): Query {
  const terms: Term[] = [];
  const index = new Map<number, number>();
  const texts: string[] = [];
  const add = (text: string, hash: number, weight: number, whole: boolean): void => {
    if (index.has(hash)) return;
    index.set(hash, terms.length);
    terms.push({ hash, weight, whole });
    texts.push(text.replace(/[$]/g, '\\$&'));
  };
  eachWord(question, (start, end, hash) => {
    const word = question.slice(start, end);
    if (word.length < 2) return;
    const marked = question[start - 1] === '`' || /[_$\d]/.test(word) || /[^A-Z][A-Z]|[A-Z]{2}/.test(word) || question.startsWith('(', end);
    const isStop = stopWords.has(word.toLowerCase());
    if (marked || !isStop) add(word, hash, marked ? 3 : 1, true);
    eachPart(question, start, end, (from, to) => {
      if (!stopWords.has(question.slice(from, to).toLowerCase())) add(question.slice(from, stemEnd(question, from, to)), stemHash(question, from, to), 1, false);
    });
  });
  return { terms, index, around: new RegExp(texts.join('|'), 'i') };
}

// ---- scores ----------------------------------------------------------------------------------------------------------------------

/** Texts that are opened for one ranking; those with the most of the question's rare words by their signatures. */
const maxCandidates = 300;

interface Counts {
  readonly uses: number[];
  readonly definitions: number[];
}

/** Occurrences of the terms in each part of a text that ends at one of `ends` (ascending offsets). */
function count(text: string, query: Query, ends: readonly number[]): Counts[] {
  const counts = ends.map((): Counts => ({ uses: query.terms.map(() => 0), definitions: query.terms.map(() => 0) }));
  let part = 0;
  eachWord(text, (start, end, hash) => {
    while (part < ends.length && start >= ends[part]!) part++;
    const counted = counts[part];
    if (!counted) return;
    const whole = query.index.get(hash);
    let defines: boolean | undefined;
    const hit = (term: number): void => {
      counted.uses[term]!++;
      // A dozen looks per part are enough to find a definition, and bound the cost of common words.
      if (counted.uses[term]! > 12) return;
      defines ??= isDefinition(text, start, end);
      if (defines) counted.definitions[term]!++;
    };
    if (whole !== undefined) hit(whole);
    eachPart(text, start, end, (from, to) => {
      const stem = query.index.get(stemHash(text, from, to));
      if (stem !== undefined) hit(stem);
    });
  });
  return counts;
}

/** BM25 (k1 = 1.2, b = 0.5); a definition counts as much again as any number of uses. */
function bm25({ uses, definitions }: Counts, weights: readonly number[], relativeLength: number): number {
  let score = 0;
  weights.forEach((weight, term) => {
    const n = uses[term] ?? 0;
    if (n > 0) score += weight * ((n * 2.2) / (n + 1.2 * (0.5 + 0.5 * relativeLength)) + ((definitions[term] ?? 0) > 0 ? 2.2 : 0));
  });
  return score;
}

/** A term in a path; those of the file's own name are told from those of its folders. */
interface PathHit {
  readonly term: number;
  readonly named: boolean;
}

function pathHits(path: string, query: Query): readonly PathHit[] {
  if (!query.around.test(path)) return noHits;
  let hits: Map<number, boolean> | undefined;
  const slash = path.lastIndexOf('/');
  const note = (term: number | undefined, start: number): void => {
    if (term !== undefined) (hits ??= new Map()).set(term, hits.get(term) === true || start > slash);
  };
  eachWord(path, (start, end, hash) => {
    note(query.index.get(hash), start);
    eachPart(path, start, end, (from, to) => note(query.index.get(stemHash(path, from, to)), start));
  });
  return hits === undefined ? noHits : [...hits].map(([term, named]) => ({ term, named }));
}

/** Of most files. */
const noHits: readonly PathHit[] = [];

function pathScore(hits: readonly PathHit[], weights: readonly number[]): number {
  return hits.reduce((sum, { term, named }) => sum + (named ? 1.5 : 0.5) * (weights[term] ?? 0), 0);
}

const definingWord =
  /(?:^|[^\w$.])(?:function\*?|class|def|defp|fn|func|fun|struct|enum|union|interface|type|typedef|trait|impl|mod|module|namespace|package|object|record|protocol|macro_rules!|macro|const|constexpr|let|var|val|static|sub|proc|procedure|message|service|rpc|table|view|#\s*define)\s+(?:\([^()\n]*\)\s*)?(?:[\w$<>,*&:[\]]+\s+)*[*&]*$/i;
const lineStart = /^\s*(?:export\s+|self\.|this\.|[-*]\s+|["'])?$/;
const typedStart = /^(?!\s*(?:return|else|case|goto|throw|new|await|yield|delete|in|of|and|or|not|if|while|assert|raise|print|echo)\b)\s{0,8}(?:[\w$<>,*&:[\]~]+\s+)+[*&]*(?:[\w$<>]+::)*$/;

/** Whether a name is introduced here rather than used, by the shapes that most languages share. */
function isDefinition(text: string, start: number, end: number): boolean {
  const from = Math.max(text.lastIndexOf('\n', start - 1) + 1, start - 120);
  const before = text.slice(from, start);
  if (definingWord.test(before)) return true;
  const newline = text.indexOf('\n', end);
  const after = text.slice(end, Math.min(newline < 0 ? text.length : newline, end + 160));
  if (/^["']?\s*(?::[^=\n]{0,60})?(?:=(?![=>~])|:=)/.test(after) && (lineStart.test(before) || typedStart.test(before))) return true;
  if (/^["']?\s*:(?!:)/.test(after) && lineStart.test(before)) return true;
  // A C function: its type in front, and what follows is no call's end.
  return /^\s*\(/.test(after) && typedStart.test(before) && !/;\s*$/.test(after);
}

/** Offsets after the ends of lines (from 1, ascending). */
function offsetsOfLines(text: string, lines: readonly number[]): number[] {
  const offsets: number[] = [];
  let line = 0;
  let at = 0;
  for (const wanted of lines) {
    while (line < wanted && at < text.length) {
      const newline = text.indexOf('\n', at);
      at = newline < 0 ? text.length : newline + 1;
      line++;
    }
    offsets.push(at);
  }
  return offsets;
}

/** 0: only the case differs; 1 or 2: that many letters inserted, left out, changed or swapped; undefined: not similar. */
function nearness(word: string, other: string): number | undefined {
  if (word === other) return undefined;
  const a = word.toLowerCase();
  const b = other.toLowerCase();
  if (a === b) return 0;
  const allowed = word.length < 4 ? 0 : word.length < 8 ? 1 : 2;
  if (Math.abs(a.length - b.length) > allowed) return undefined;
  // Optimal string alignment, three rows.
  let previous: number[] = [];
  let current = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = current[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      row[j] = Math.min(row[j - 1]! + 1, current[j]! + 1, change);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) row[j] = Math.min(row[j]!, previous[j - 2]! + 1);
    }
    previous = current;
    current = row;
  }
  const distance = current[b.length]!;
  return distance <= allowed ? distance : undefined;
}
