// `sala import`: a pack's segments into the store, and which of them the bytes of its files have. A pack is somebody else's: the native
// side checks every byte against its checksums (native/store/pack.h), here all that can be computed again is: that a segment's address
// is that of its tokens, that the tokens are what this engine makes of the file, that the file's address is that of its bytes. What
// cannot, short of running the model, are keys and values: those are believed.

import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import type { NativePackReader, PackAbout, PackedSegment } from './addon';
import type { Core } from './core';
import { EngineError, toEngineError } from './errors';
import type { KnownSegment } from './manifest';
import type { ImportResult, PackProgress } from './messages';
import { familyOf, isUsable } from './pack-table';
import type { StoreKeeper } from './store-keeper';
import { maxFileBytes } from './workspace/classify';
import { safePath } from './workspace/header';
import { cutterVersion, type SegmentCut } from './workspace/segmenter';

/** More are counted, not listed. */
const mostFindings = 100;
/** Room that was made may be taken by somebody else's segments. */
const mostTries = 8;

export interface ImportOptions {
  readonly signal: AbortSignal;
  onProgress(progress: PackProgress): void;
}

/**
 * `file`: absolute. Throws `invalid_argument` where none is there, `store_invalid` and `store_newer` for what is no pack of ours, `unsupported`
 * for another model's, `store_full` where the store has no room for all of it: what was taken until then is used.
 */
export async function importPack(core: Core, file: string, options: ImportOptions): Promise<ImportResult> {
  const keeper = core.requireKeeper();
  if (keeper.store.readOnly !== undefined) throw new EngineError('store_unwritable', keeper.store.readOnly);
  const there = await stat(file).catch((error: unknown) => {
    throw new EngineError('invalid_argument', `expected a pack in ${file}, found: ${(error as Error).message}`, { cause: error });
  });
  if (!there.isFile()) throw new EngineError('invalid_argument', `expected a pack in ${file}, found something else`);
  const pack = await keeper.store.openPack(file);
  try {
    return await new PackImport(core, keeper, file, pack, options).run();
  } finally {
    await pack.close();
  }
}

class PackImport {
  private readonly numerics: string;
  /** By their index in the head; what is here is in the store. */
  private readonly tokens = new Map<number, Int32Array>();
  private readonly damage = new Map<number, string>();
  private readonly findings: string[] = [];
  private nFindings = 0;

  constructor(
    private readonly core: Core,
    private readonly keeper: StoreKeeper,
    private readonly file: string,
    private readonly pack: NativePackReader,
    private readonly options: ImportOptions,
  ) {
    this.numerics = pack.head.about.numerics;
  }

  async run(): Promise<ImportResult> {
    this.requireUsable(this.pack.head.about);
    const failure = await this.takeSegments();
    if (failure === undefined) {
      const rest = await this.pack.damageOfTheRest();
      if (rest !== undefined) this.find(rest);
    }
    const versions = await this.checkedFiles();
    await this.core.packs.add(this.numerics, this.packId(), versions);
    if (this.numerics === this.core.native.info.numerics) await this.core.indexer.preferOwn(versions);
    this.core.indexer.changed();
    const nTokens = [...this.tokens.values()].reduce((sum, tokens) => sum + tokens.length, 0);
    if (failure !== undefined) {
      const { length } = this.pack.head.segments;
      throw new EngineError(failure.code, `${failure.message}; ${this.tokens.size} of ${length} segments of ${this.file} were taken, and are used; a larger store (--max-disk) takes all`);
    }
    return {
      segments: this.tokens.size,
      tokens: nTokens,
      bytes: this.pack.bytes,
      files: versions.size,
      numerics: this.numerics,
      foreign: this.numerics !== this.core.native.info.numerics,
      damaged: this.damage.size,
      findings: this.nFindings > this.findings.length ? [...this.findings, `and ${this.nFindings - this.findings.length} more`] : this.findings,
    };
  }

  private requireUsable(about: PackAbout): void {
    const own = this.core.native.info.numerics;
    const refuse = (what: string, expected: string, found: string): never => {
      throw new EngineError('unsupported', `${this.file}: expected a pack of ${what} ${expected}, found one of ${found}`);
    };
    if (about.identity !== this.core.identity) refuse('model', this.core.identity, about.identity);
    if (Buffer.compare(bytesOf(about.prefix), bytesOf(this.core.prefix)) !== 0) refuse('the prefix', [...this.core.prefix].join(' '), [...about.prefix].join(' '));
    if (!isUsable(about.numerics, own)) refuse('numerics', own.replace(familyOf(own), '*'), about.numerics);
    if (about.cutterVersion !== cutterVersion) refuse('cutter', String(cutterVersion), String(about.cutterVersion));
  }

  // ---- segments -----------------------------------------------------------------------------------------------------------

  /** Why the store has not taken all of them. */
  private async takeSegments(): Promise<EngineError | undefined> {
    const { head, bytes } = this.pack;
    for (let done = 0; ; ) {
      this.options.signal.throwIfAborted();
      const segments = await this.pack.read();
      if (segments.length === 0) return undefined;
      const sound: number[] = [];
      for (const segment of segments) {
        const why = segment.damage ?? this.mismatch(segment);
        if (why === undefined) {
          this.tokens.set(segment.index, segment.tokens);
          sound.push(segment.index);
        } else {
          this.damage.set(segment.index, why);
        }
      }
      const failure = await this.add(Int32Array.from(sound));
      if (failure) {
        const missing = new Set(await this.keeper.store.missing(sound.map((index) => head.segments[index]!.key)));
        for (const index of sound) if (missing.has(head.segments[index]!.key)) this.tokens.delete(index);
        return failure;
      }
      done += segments.length;
      this.options.onProgress({ phase: 'segments', done: Math.round((bytes * done) / head.segments.length), total: bytes });
    }
  }

  private mismatch({ index, tokens }: PackedSegment): string | undefined {
    const { key, headerTokens } = this.pack.head.segments[index]!;
    const address = this.core.segmentKey(tokens, headerTokens, this.numerics);
    return address === key ? undefined : `its tokens are those of segment ${address}`;
  }

  private async add(indices: Int32Array): Promise<EngineError | undefined> {
    for (let tries = 0; ; tries++) {
      const { failure, neededBytes } = await this.pack.add(indices);
      this.keeper.added();
      if (failure === undefined) return undefined;
      const error = toEngineError(failure);
      if (error.code !== 'store_full' || tries === mostTries || !(await this.keeper.makeRoom(neededBytes))) return error;
    }
  }

  // ---- files --------------------------------------------------------------------------------------------------------------

  /** Segments of the files that have all of theirs, and that this engine would cut so; by address. */
  private async checkedFiles(): Promise<Map<string, readonly KnownSegment[]>> {
    const { files } = this.pack.head;
    const versions = new Map<string, readonly KnownSegment[]>();
    const damaged = new Map<number, string[]>();
    for (const [i, { path, fileKey, segments }] of files.entries()) {
      this.options.signal.throwIfAborted();
      for (const index of new Set(segments)) if (this.damage.has(index)) damaged.set(index, [...(damaged.get(index) ?? []), safePath(path)]);
      // What could not be taken was said as a whole.
      if (!segments.every((index) => this.tokens.has(index))) continue;
      const known = await this.check(path, fileKey, segments);
      if (known) versions.set(fileKey, known);
      else this.find(`${safePath(path)}: its segments are not what this engine makes of it; it is read again`);
      if (i % 64 === 0) this.options.onProgress({ phase: 'files', done: i, total: files.length });
    }
    for (const [index, why] of this.damage) {
      this.find(`segment ${this.pack.head.segments[index]!.key} of ${(damaged.get(index) ?? []).join(', ')}: ${why}; it is read again`);
    }
    return versions;
  }

  /** The file is what its segments say, one after the other: cut again, they are the same. */
  private async check(path: string, fileKey: string, indices: Int32Array): Promise<readonly KnownSegment[] | undefined> {
    const { head } = this.pack;
    const { tokenizer, hash } = this.core;
    const parts: Uint8Array[] = [];
    let nBytes = 0;
    for (const index of indices) {
      const part = tokenizer.decodeBytes((this.tokens.get(index) as Int32Array).subarray(head.segments[index]!.headerTokens));
      nBytes += part.length;
      if (nBytes > maxFileBytes) return undefined;
      parts.push(part);
    }
    const bytes = Buffer.concat(parts);
    if (hash.fileKey(bytes, path, cutterVersion) !== fileKey) return undefined;
    let cuts: readonly SegmentCut[];
    try {
      cuts = await this.core.cut(path, bytes);
    } catch (error) {
      if (toEngineError(error).code === 'cancelled') throw error;
      return undefined;  // not even text
    }
    if (cuts.length !== indices.length) return undefined;
    const known: KnownSegment[] = [];
    for (const [i, cut] of cuts.entries()) {
      const index = indices[i] as number;
      const { key, headerTokens } = head.segments[index]!;
      if (headerTokens !== cut.headerTokens || Buffer.compare(bytesOf(this.tokens.get(index) as Int32Array), bytesOf(cut.tokens)) !== 0) return undefined;
      const { startByte, endByte, startLine, endLine, tokens } = cut;
      known.push({ key, startByte, endByte, startLine, endLine, nTokens: tokens.length, headerTokens });
    }
    return known;
  }

  /** By what it is of: importing it once more is no other pack. */
  private packId(): string {
    const hash = createHash('sha256').update(this.numerics);
    for (const { fileKey } of this.pack.head.files) hash.update(fileKey);
    return hash.digest('hex').slice(0, 16);
  }

  private find(line: string): void {
    this.nFindings++;
    if (this.findings.length < mostFindings) this.findings.push(line);
  }
}

function bytesOf(ids: Int32Array): Uint8Array {
  return new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength);
}
