// What is known of one root folder from one run to the next: which bytes each file had, and which segments such bytes have. Read at
// open, written now and then and at the end; always rebuildable, so a damaged one is dropped. Whoever reads it trusts no length.

import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import path from 'node:path';
import { EngineError, toEngineError } from './errors';
import { exclusionRules, type ExclusionRule } from './messages';
import { version } from '../../package.json';

const format = 2;
/** Versions of files that nothing has at the moment: a branch switched away from, an undone edit. */
const retiredVersions = 4000;

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

export class Manifest {
  private readonly files = new Map<string, KnownFile>();
  /** By file key; in order of last use, oldest first. */
  private readonly versions = new Map<string, readonly KnownSegment[]>();
  /** Files whose content keeps them out: not to be read again to find that out. */
  private readonly verdicts = new Map<string, Stamp & KnownVerdict>();
  private changed = false;

  private constructor(
    private readonly file: string | undefined,
    private readonly root: string,
    private readonly recipe: string,
  ) {}

  /**
   * `dir`: the store folder, absent: nothing is kept. `recipe`: whatever else the segments depend on; another one begins anew.
   * Never throws for what is in the file.
   */
  static async open(dir: string | undefined, root: string, recipe: string): Promise<Manifest> {
    const name = createHash('sha256').update(root).digest('hex').slice(0, 32);
    const file = dir === undefined ? undefined : path.join(dir, 'manifests', `${name}.json`);
    const manifest = new Manifest(file, root, recipe);
    if (file === undefined) return manifest;
    try {
      manifest.load(JSON.parse(await readFile(file, 'utf8')));
    } catch {
      manifest.clear();
    }
    return manifest;
  }

  private clear(): void {
    this.files.clear();
    this.versions.clear();
    this.verdicts.clear();
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
    this.changed = true;
  }

  segmentsOf(fileKey: string): readonly KnownSegment[] | undefined {
    const segments = this.versions.get(fileKey);
    if (segments) {
      this.versions.delete(fileKey);
      this.versions.set(fileKey, segments);
    }
    return segments;
  }

  set(file: KnownFile, segments: readonly KnownSegment[]): void {
    const known = this.files.get(file.path);
    const isKnown = known?.fileKey === file.fileKey && sameStamp(known, file) && this.versions.has(file.fileKey);
    this.verdicts.delete(file.path);
    this.files.set(file.path, file);
    this.versions.delete(file.fileKey);
    this.versions.set(file.fileKey, segments);
    this.changed ||= !isKnown;
  }

  delete(file: string): void {
    const was = [this.files.delete(file), this.verdicts.delete(file)];
    this.changed ||= was.includes(true);
  }

  get allKeys(): Set<string> {
    const keys = new Set<string>();
    for (const segments of this.versions.values()) for (const { key } of segments) keys.add(key);
    return keys;
  }

  /** Throws `store_full` or `store_unwritable`. */
  async save(): Promise<void> {
    if (this.file === undefined || !this.changed) return;
    this.changed = false;
    const used = new Set([...this.files.values()].map(({ fileKey }) => fileKey));
    let retired = this.versions.size - used.size;
    for (const key of [...this.versions.keys()]) {
      if (retired <= retiredVersions) break;
      if (used.has(key)) continue;
      this.versions.delete(key);
      retired--;
    }
    const text = JSON.stringify({
      format,
      root: this.root,
      recipe: this.recipe,
      saved: new Date().toISOString(),
      // What keeps a file out is the program's to say: another version may say otherwise.
      version,
      verdicts: [...this.verdicts].map(([file, v]) => [file, v.bytes, v.mtimeMs, v.ino, v.rule, v.detail]),
      files: [...this.files.values()].map((f) => [f.path, f.bytes, f.mtimeMs, f.ino, f.fileKey]),
      versions: [...this.versions].map(([key, segments]) => [
        key,
        ...segments.map((s) => [s.key, s.startByte, s.endByte, s.startLine, s.endLine, s.nTokens, s.headerTokens]),
      ]),
    });
    const temporary = `${this.file}.${process.pid}.tmp`;
    try {
      await mkdir(path.dirname(this.file), { recursive: true, mode: 0o700 });
      await writeFile(temporary, text, { mode: 0o600, flush: true });
      await rename(temporary, this.file);
    } catch (error) {
      this.changed = true;
      await rm(temporary, { force: true }).catch(() => {});
      const full = ['ENOSPC', 'EDQUOT'].includes((error as NodeJS.ErrnoException).code ?? '');
      throw new EngineError(full ? 'store_full' : 'store_unwritable', `${this.file}: ${toEngineError(error).message}`, { cause: error });
    }
  }

  async forget(): Promise<void> {
    this.clear();
    this.changed = false;
    if (this.file !== undefined) await rm(this.file, { force: true });
  }

  private load(json: unknown): void {
    const data = json as {
      format: number;
      root: string;
      recipe: string;
      version: string;
      files: unknown[][];
      versions: unknown[][];
      verdicts: unknown[][];
    };
    if (data.format !== format || data.root !== this.root || data.recipe !== this.recipe) return;
    for (const [key, ...segments] of data.versions) {
      this.versions.set(text(key), segments.map(knownSegment));
    }
    for (const [file, bytes, mtimeMs, ino, fileKey] of data.files) {
      this.files.set(text(file), { path: text(file), bytes: number(bytes), mtimeMs: number(mtimeMs), ino: number(ino), fileKey: text(fileKey) });
    }
    if (data.version !== version) return;
    for (const [file, bytes, mtimeMs, ino, rule, detail] of data.verdicts) {
      const stamp = { bytes: number(bytes), mtimeMs: number(mtimeMs), ino: number(ino) };
      const known = exclusionRules.find((one) => one === rule);
      if (known) this.verdicts.set(text(file), { ...stamp, rule: known, detail: text(detail) });
    }
  }
}

/** Same size, time and inode: what tells, without reading it, that a file is the same. */
export function sameStamp(a: Stamp, b: Stamp): boolean {
  return a.bytes === b.bytes && a.mtimeMs === b.mtimeMs && a.ino === b.ino;
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
