// What is known of one root folder from one run to the next: which bytes each file had, and which segments such bytes have. Its records
// lie in the store's tables, under a name made of the root: read at open, written now and then and at the end. Always rebuildable,
// so what cannot be read is dropped. Whoever reads it trusts no length.

import { createHash } from 'node:crypto';
import type { NativeStore, StoreChange, StoreTable } from './addon';
import { exclusionRules, type ExclusionRule } from './messages';
import { inTurns } from './turns';
import { version } from '../../package.json';

/**
 * Versions of files that nothing has at the moment (a branch switched away from, an undone edit): so many for each file that there was
 * at once, but in all no more than `retiredVersions`, or one for each. What is no longer known is cut again, which a small workspace
 * does not notice; thousands of versions of some files it would.
 */
const retiredPerFile = 8;
const retiredVersions = 4000;
/** Records that are given to the store at once, on this thread. */
const savedAtOnce = 2000;
/** A root that was not written for so long, and is not there, is not coming back. */
const outOfUseMs = 30 * 24 * 3600 * 1000;

export interface Stamp {
  readonly bytes: number;
  readonly mtimeMs: number;
  readonly ino: number;
}

export interface KnownSegment {
  readonly key: string;
  readonly startByte: number;
  readonly endByte: number;
  readonly startLine: number;
  readonly endLine: number;
  readonly nTokens: number;
  readonly headerTokens: number;
}

/** Why a file's content keeps it out. */
export interface KnownVerdict {
  readonly rule: ExclusionRule;
  readonly detail: string;
}

export interface KnownFile extends Stamp {
  readonly path: string;
  readonly fileKey: string;
}

/** What the bytes of a file consist of. */
export interface KnownVersion {
  readonly segments: readonly KnownSegment[];
  /** Numerics of what made them, where that is another family than ours. */
  readonly from?: string;
}

interface Version extends KnownVersion {
  /** When a file had these bytes last, as far as was noted. */
  readonly sinceMs: number;
}

export interface VersionSource {
  find(fileKey: string): KnownVersion | undefined;
}

/** Where a manifest's records lie. */
export interface ManifestStore {
  readonly store: NativeStore;
  /** Rejects with `store_full` or `store_unwritable`; the changes wait in the store then. */
  write(changes: readonly StoreChange[]): Promise<void>;
}

export class Manifest {
  private readonly files = new Map<string, KnownFile>();
  /** By file key; in order of last use, oldest first. */
  private readonly versions = new Map<string, Version>();
  /** Files whose content keeps them out: not to be read again to find that out. */
  private readonly verdicts = new Map<string, Stamp & KnownVerdict>();
  /** Paths and file keys whose records are different from what the store has. */
  private readonly changedFiles = new Set<string>();
  private readonly changedVersions = new Set<string>();
  /** The most files that there ever were at once: a branch of few files is switched away from again. */
  private mostFiles = 0;
  /** With fewer versions there is nothing to retire: finding out which have no file is a look at all of them. */
  private retireFrom = 0;
  private saving: Promise<void> = Promise.resolve();
  /** How often. */
  private forgotten = 0;
  private readonly prefix: string;

  private constructor(
    private readonly at: ManifestStore | undefined,
    private readonly root: string,
    private readonly recipe: string,
    private readonly packs: VersionSource,
  ) {
    this.prefix = rootPrefix(root);
  }

  /**
   * `at`: absent: nothing is kept. `recipe`: whatever else the segments depend on; another one begins anew. `packs`: what is known of
   * bytes that this root never had.
   */
  static async open(at: ManifestStore | undefined, root: string, recipe: string, packs: VersionSource): Promise<Manifest> {
    const manifest = new Manifest(at, root, recipe, packs);
    if (at) await manifest.load(at.store);
    return manifest;
  }

  /** The file key of a file that has not changed since it was last read. */
  keyOf(file: string, stamp: Stamp): string | undefined {
    const known = this.files.get(file);
    return known && sameStamp(known, stamp) ? known.fileKey : undefined;
  }

  /** It was known with a time too new to be trusted: only its bytes can tell whether it is the same. */
  isYoung(file: string, stamp: Stamp): boolean {
    const known = this.files.get(file) ?? this.verdicts.get(file);
    return known !== undefined && known.mtimeMs === 0 && sameStamp(known, { ...stamp, mtimeMs: 0 });
  }

  verdictOf(file: string, stamp: Stamp): KnownVerdict | undefined {
    const known = this.verdicts.get(file);
    return known && sameStamp(known, stamp) ? { rule: known.rule, detail: known.detail } : undefined;
  }

  setVerdict(file: string, { bytes, mtimeMs, ino }: Stamp, { rule, detail }: KnownVerdict): void {
    this.files.delete(file);
    this.verdicts.set(file, { bytes, mtimeMs, ino, rule, detail });
    this.changedFiles.add(file);
  }

  /** What this engine made goes before what it has from others. */
  versionOf(fileKey: string): KnownVersion | undefined {
    const known = this.versions.get(fileKey);
    if (known === undefined || known.from !== undefined) {
      const packed = this.packs.find(fileKey);
      if (packed && (known === undefined || packed.from === undefined)) return packed;
    }
    if (known) {
      this.versions.delete(fileKey);
      this.versions.set(fileKey, known);
    }
    return known;
  }

  set(file: KnownFile, { segments, from }: KnownVersion): void {
    const known = this.files.get(file.path);
    const before = this.versions.get(file.fileKey);
    const isNew = known?.fileKey !== file.fileKey || before === undefined || before.from !== from;
    if (isNew) this.changedVersions.add(file.fileKey);
    if (isNew || !sameStamp(known, file)) this.changedFiles.add(file.path);
    this.verdicts.delete(file.path);
    this.files.set(file.path, file);
    this.mostFiles = Math.max(this.mostFiles, this.files.size);
    const sinceMs = isNew ? Date.now() : before.sinceMs;
    this.versions.delete(file.fileKey);
    this.versions.set(file.fileKey, { segments, sinceMs, ...(from !== undefined && { from }) });
  }

  delete(file: string): void {
    const was = [this.files.delete(file), this.verdicts.delete(file)];
    if (was.includes(true)) this.changedFiles.add(file);
  }

  /** All that is known of others goes: they went while nobody looked. What their bytes consist of is forgotten as after any other change. */
  async deleteOthers(isThere: (file: string) => boolean): Promise<void> {
    for (const known of [this.files, this.verdicts]) {
      await inTurns(known.keys(), (file) => {
        if (!isThere(file)) this.delete(file);
      });
    }
  }

  get allKeys(): Set<string> {
    const keys = new Set<string>();
    for (const { segments } of this.versions.values()) for (const { key } of segments) keys.add(key);
    return keys;
  }

  get fileKeys(): Set<string> {
    return new Set(this.versions.keys());
  }

  /** Durable when it resolves. Throws `store_full` or `store_unwritable`. */
  save(): Promise<void> {
    // One after the other: what an earlier one has of a record is not to be written over what a later one has.
    const saved = this.saving.then(() => this.saveChanges());
    this.saving = saved.catch(() => {});
    return saved;
  }

  private async saveChanges(): Promise<void> {
    if (!this.at || this.at.store.readOnly !== undefined) return;
    this.retire();
    const changed = [
      // A file's record after the version that it names.
      ...[...this.changedVersions].map((key) => ['versions', key] as const),
      ...[...this.changedFiles].map((key) => ['files', key] as const),
    ];
    if (changed.length === 0) return;
    this.changedVersions.clear();
    this.changedFiles.clear();
    const { forgotten } = this;
    for (let i = 0; i < changed.length; i += savedAtOnce) {
      const changes: StoreChange[] = [{ table: 'roots', key: this.root, value: this.aboutText() }];
      await inTurns(changed.slice(i, i + savedAtOnce), ([table, key]) => {
        changes.push(this.change(table, key, table === 'versions' ? versionText(this.versions.get(key)) : this.fileText(key)));
      });
      if (this.forgotten !== forgotten) return;
      try {
        await this.at.write(changes);
      } catch (error) {
        // The store has these changes; of the others it knows nothing.
        for (const [table, key] of changed.slice(i + savedAtOnce)) (table === 'versions' ? this.changedVersions : this.changedFiles).add(key);
        throw error;
      }
    }
  }

  async forget(): Promise<void> {
    this.files.clear();
    this.versions.clear();
    this.verdicts.clear();
    this.changedFiles.clear();
    this.changedVersions.clear();
    this.mostFiles = 0;
    this.forgotten++;
    // What is being written of it is to be erased too.
    await this.saving;
    if (this.at && this.at.store.readOnly === undefined) await eraseRoot(this.at.store, this.root);
  }

  private retire(): void {
    if (this.versions.size < this.retireFrom) return;
    const used = new Set([...this.files.values()].map(({ fileKey }) => fileKey));
    const most = Math.max(Math.min(retiredVersions, retiredPerFile * this.mostFiles), this.mostFiles);
    let retired = this.versions.size - used.size;
    for (const key of [...this.versions.keys()]) {
      if (retired <= most) break;
      if (used.has(key)) continue;
      this.versions.delete(key);
      this.changedVersions.add(key);
      retired--;
    }
    this.retireFrom = this.versions.size + most / 8;
  }

  private aboutText(): string {
    const { recipe, mostFiles } = this;
    return JSON.stringify({ recipe, version, savedMs: Date.now(), mostFiles });
  }

  private change(table: StoreTable, key: string, value: string | undefined): StoreChange {
    return { table, key: this.prefix + key, value: value ?? null };
  }

  private fileText(file: string): string | undefined {
    const known = this.files.get(file);
    if (known) return JSON.stringify([known.bytes, known.mtimeMs, known.ino, known.fileKey]);
    const verdict = this.verdicts.get(file);
    return verdict && JSON.stringify([verdict.bytes, verdict.mtimeMs, verdict.ino, verdict.rule, verdict.detail]);
  }

  private async load(store: NativeStore): Promise<void> {
    const [about] = (await store.records('roots', this.root)).filter(([key]) => key === this.root);
    const { recipe, version: writtenBy, mostFiles } = parseAbout(about?.[1]);
    if (recipe !== this.recipe) {
      if (store.readOnly === undefined) await eraseRoot(store, this.root);
      return;
    }
    const found: [string, Version][] = [];
    await inTurns(await store.records('versions', this.prefix), ([key, value]) => {
      const fileKey = key.slice(this.prefix.length);
      const known = tryParse(value, parseVersion);
      if (known) found.push([fileKey, known]);
      else this.changedVersions.add(fileKey);
    });
    found.sort(([, a], [, b]) => a.sinceMs - b.sinceMs);
    for (const [fileKey, known] of found) this.versions.set(fileKey, known);
    await inTurns(await store.records('files', this.prefix), ([key, value]) => {
      const file = key.slice(this.prefix.length);
      const known = tryParse(value, parseFile);
      if (known && 'fileKey' in known) this.files.set(file, { path: file, ...known });
      // What keeps a file out is the program's to say: another version may say otherwise.
      else if (known && writtenBy === version) this.verdicts.set(file, known);
      else this.changedFiles.add(file);
    });
    this.mostFiles = Math.max(mostFiles, this.files.size);
  }
}

/** Removes the records of a root, whoever wrote them; durable when it resolves. */
export async function eraseRoot(store: NativeStore, root: string): Promise<void> {
  const changes: StoreChange[] = [{ table: 'roots', key: root, value: null }];
  for (const table of ['files', 'versions'] as const) {
    for (const [key] of await store.records(table, rootPrefix(root))) changes.push({ table, key, value: null });
  }
  await store.write(changes);
}

/** Whether a record of the roots is so old that its records may go with its folder. */
export function isOutOfUse(value: string): boolean {
  return Date.now() - parseAbout(value).savedMs > outOfUseMs;
}

/** Same size, time and inode: what tells, without reading it, that a file is the same. */
export function sameStamp(a: Stamp, b: Stamp): boolean {
  return a.bytes === b.bytes && a.mtimeMs === b.mtimeMs && a.ino === b.ino;
}

function rootPrefix(root: string): string {
  return `${createHash('sha256').update(root).digest('hex').slice(0, 32)}/`;
}

function parseAbout(value: string | undefined): { recipe?: unknown; version?: unknown; savedMs: number; mostFiles: number } {
  const about = value === undefined ? undefined : tryParse(value, (json) => json as { readonly [name: string]: unknown } | null);
  const count = (what: unknown): number => (typeof what === 'number' ? what : 0);
  return { recipe: about?.['recipe'], version: about?.['version'], savedMs: count(about?.['savedMs']), mostFiles: count(about?.['mostFiles']) };
}

/** Undefined: whoever wrote it, it is none of ours. */
function tryParse<T>(value: string, parse: (json: unknown) => T): T | undefined {
  try {
    return parse(JSON.parse(value));
  } catch {
    return undefined;
  }
}

function versionText(known: Version | undefined): string | undefined {
  return known && segmentsText([known.sinceMs, ...(known.from === undefined ? [] : [known.from])], known.segments);
}

function parseVersion(json: unknown): Version {
  const [sinceMs, ...rest] = json as unknown[];
  const from = typeof rest[0] === 'string' ? text(rest.shift()) : undefined;
  return { sinceMs: number(sinceMs), segments: rest.map(knownSegment), ...(from !== undefined && { from }) };
}

/** A record of segments, with something about them in front. */
export function segmentsText(about: readonly (string | number)[], segments: readonly KnownSegment[]): string {
  return JSON.stringify([...about, ...segments.map((s) => [s.key, s.startByte, s.endByte, s.startLine, s.endLine, s.nTokens, s.headerTokens])]);
}

/** Undefined: whoever wrote it, it is none of ours. */
export function parseSegments(value: string, nAbout: number): { readonly about: readonly unknown[]; readonly segments: readonly KnownSegment[] } | undefined {
  return tryParse(value, (json) => {
    const list = json as unknown[];
    return { about: list.slice(0, nAbout), segments: list.slice(nAbout).map(knownSegment) };
  });
}

function parseFile(json: unknown): (Stamp & { fileKey: string }) | (Stamp & KnownVerdict) {
  const [bytes, mtimeMs, ino, what, detail] = json as unknown[];
  const stamp = { bytes: number(bytes), mtimeMs: number(mtimeMs), ino: number(ino) };
  if (detail === undefined) return { ...stamp, fileKey: text(what) };
  const rule = exclusionRules.find((one) => one === what);
  if (!rule) throw new TypeError('not a rule');
  return { ...stamp, rule, detail: text(detail) };
}

function knownSegment(row: unknown): KnownSegment {
  const [key, startByte, endByte, startLine, endLine, nTokens, headerTokens] = row as unknown[];
  if (!/^[0-9a-f]{64}$/.test(text(key))) throw new TypeError('not an address');
  return {
    key: text(key),
    startByte: number(startByte),
    endByte: number(endByte),
    startLine: number(startLine),
    endLine: number(endLine),
    nTokens: number(nTokens),
    headerTokens: number(headerTokens),
  };
}

function text(value: unknown): string {
  if (typeof value !== 'string') throw new TypeError('not a string');
  return value;
}

function number(value: unknown): number {
  if (typeof value !== 'number' || !Number.isFinite(value) || value < 0) throw new TypeError('not a number');
  return value;
}
