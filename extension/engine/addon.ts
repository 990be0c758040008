// The type of everything the native addon exports, and its loader. Token ids in, token ids out: texts, files, prompts and
// hashes are TypeScript's business. All model state belongs to the engine's own thread; nothing here blocks on it.

import { createRequire } from 'node:module';
import { EngineError, toEngineError } from './errors';
import { assetPath } from './assets';

export type Activations = 'fp32' | 'int8';
export type TailStart = 'prefix' | 'empty';

/** Highest first, as design section 4 orders them. */
export const priorities = ['completion', 'decode', 'prefill', 'edit', 'ingest'] as const;
export type Priority = (typeof priorities)[number];

export interface LoadOptions {
  readonly modelDir: string;
  readonly activations: Activations;
  /** Threads of the engine, its own included; at least 1. */
  readonly threads: number;
  /** Private memory of this process at most; absent: no limit. `out_of_memory` where the weights do not fit. */
  readonly maxMemoryBytes?: number;
  /** Where segments are kept, and under what name of the model: a store of another one is begun anew. Absent: they stay in memory. */
  readonly store?: { readonly dir: string; readonly identity: string; readonly maxBytes?: number };
  /** Keys that stay resident for reading (sala.json's `read`). */
  readonly reading?: { readonly layer: number; readonly heads: readonly number[] };
}

export interface ModelInfo {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly nLayers: number;
  readonly sparseLayers: readonly number[];
  readonly nKvHeads: number;
  readonly headDim: number;
  readonly eosTokenIds: readonly number[];
  /** Name of the operator table in use: 'reference', 'portable', 'avx2', 'neon', … */
  readonly backend: string;
  /** Revision, family and stored form: enters every segment's address. Example: 'cpu.1.kv8'. */
  readonly numerics: string;
  readonly weightBytes: number;
  /** Width of a token's list of selected blocks in exact mode; 0: the model never selects. */
  readonly exactBlocks: number;
}

/** A unit of work on the engine thread. Cancelling rejects `done` with code 'cancelled' within one step. */
export interface Job<T> {
  readonly done: Promise<T>;
  cancel(): void;
}

export interface SegmentInput {
  /** 64 hex digits: the segment's address. */
  readonly key: string;
  /** Header and text; the prefix is not repeated. */
  readonly tokens: Int32Array;
  /** How many leading tokens are the header. */
  readonly headerTokens: number;
}

export interface EncodeResult {
  /** Handle of each segment, in the order given. */
  readonly handles: Int32Array;
  /** Tokens that were run through the model (0 for those already in memory). */
  readonly encodedTokens: number;
  readonly seconds: number;
  /** The first failure to add a segment to the store (`store_full`, `store_unwritable`); all of them are in memory all the same. */
  readonly storeFailure?: NativeError;
}

export type NativeError = Error & { readonly code: string };

export interface KeepResult {
  /** Room that the store needs for what it refuses still. */
  readonly neededBytes: number;
  /** Why it refuses it; absent: it has all. */
  readonly failure?: NativeError;
}

export interface Removed {
  readonly segments: number;
  readonly bytes: number;
}

/** Records of the store: what is known of files, of versions of files, of roots. Keys and values are any text. */
export type StoreTable = 'files' | 'versions' | 'roots';

export interface StoreChange {
  readonly table: StoreTable;
  readonly key: string;
  /** null: the record goes. */
  readonly value: string | null;
}

export interface StoreStatistics {
  /** Of all files, and of the segments in them. */
  readonly bytes: number;
  readonly liveBytes: number;
  readonly nSegments: number;
  readonly nFiles: number;
  readonly nRecords: number;
}

export interface Verification {
  readonly nSegments: number;
  readonly nFiles: number;
  readonly bytes: number;
  /** Segments that were damaged, and are dropped now. */
  readonly nDamaged: number;
  /** A line each: what was damaged, and where. */
  readonly findings: readonly string[];
}

/** What bytes of segments depend on beside their tokens, and cuts of files beside their bytes. */
export interface PackAbout {
  /** Of the model. */
  readonly identity: string;
  /** `<family>.<revision>.<stored form>` */
  readonly numerics: string;
  /** Tokens of the prefix. */
  readonly prefix: Int32Array;
  readonly cutterVersion: number;
}

/** A file of a workspace and the addresses of its segments, as they follow each other. */
export interface PackInput {
  /** Within its root, with '/'. */
  readonly path: string;
  readonly fileKey: string;
  readonly segments: readonly string[];
}

/** A pack that is being written beside the file that it is to be. Whoever writes has the segments in memory. */
export interface NativePackWriter {
  /** Of the whole pack. */
  readonly bytes: number;
  readonly nSegments: number;
  readonly nTokens: number;
  readonly nFiles: number;
  /** Some megabytes more. Rejects with `store_invalid` where a segment was damaged: the store has dropped it. */
  write(): Promise<{ readonly done: boolean; readonly written: number }>;
  /** When all is written: durable, and under its name. */
  finish(): Promise<void>;
  /** Nothing stays of one that is not finished. */
  close(): Promise<void>;
}

export interface PackHead {
  readonly about: PackAbout;
  readonly segments: readonly { readonly key: string; readonly headerTokens: number }[];
  readonly files: readonly { readonly path: string; readonly fileKey: string; readonly segments: Int32Array }[];
}

export interface PackedSegment {
  /** In the head's list. */
  readonly index: number;
  readonly tokens: Int32Array;
  /** What is wrong with it; absent: every part of it fits its checksum. */
  readonly damage?: string;
}

/** A pack on its way into the store. Its head is sound; what it says is still to be believed or not. */
export interface NativePackReader {
  readonly bytes: number;
  readonly head: PackHead;
  /** The next segments, some megabytes; none: that was all. Rejects with `store_invalid` where they are not of this model's shape. */
  read(): Promise<PackedSegment[]>;
  /** Adds sound ones of those read last. They are not evicted until the pack is closed. What fails can be tried again. */
  add(indices: Int32Array): Promise<KeepResult>;
  /** When all was read: why the file is not the pack that was written, though no segment is damaged. */
  damageOfTheRest(): Promise<string | undefined>;
  close(): Promise<void>;
}

/**
 * The store of an engine (native/store/store.h). What is added or written is seen at once and durable after the next commit. All
 * that waits for the disk runs on a thread of the pool. Rejects with `store_full` or `store_unwritable`: nothing is lost by it, what
 * waits is taken up by the next commit.
 */
export interface NativeStore {
  /** Why it is only read; undefined: it is written. */
  readonly readOnly: string | undefined;
  /** Those whose key begins so, in the order of their keys' bytes. */
  records(table: StoreTable, keyPrefix: string): Promise<[key: string, value: string][]>;
  /** Changes records, and commits. */
  write(changes: readonly StoreChange[]): Promise<void>;
  commit(): Promise<void>;
  /** Copies what lives out of files that are mostly dead, some of it at a time; true while there is more to do. */
  compact(): Promise<boolean>;
  /** After it nothing of what was removed is on the disk. */
  purge(): Promise<void>;
  /** Evicts what nobody has in memory until that much fits under the cap; false: it does not. */
  makeRoom(bytes: number): Promise<boolean>;
  /** Reads everything; what is damaged is dropped. */
  verify(): Promise<Verification>;
  /** Those that it has not. */
  missing(keys: readonly string[]): Promise<string[]>;
  /** Rejects with `store_invalid` where it lacks a segment. */
  createPack(params: { readonly path: string; readonly temporary: string; readonly about: PackAbout; readonly files: readonly PackInput[] }): Promise<NativePackWriter>;
  /** Rejects with `store_invalid`, `store_newer`. */
  openPack(path: string): Promise<NativePackReader>;
  statistics(): StoreStatistics;
  /** Lines for the log: what was found damaged, dropped or begun anew since the last call. */
  takeFindings(): string[];
  /** Lets go of it; it is free for others when the engine is closed too. */
  close(): void;
}

export interface ReadInput {
  /** The turn, without the prefix. */
  readonly tail: Int32Array;
  /** [begin, end) of the question's own tokens within `tail`. */
  readonly span: readonly [number, number];
  readonly segments: Int32Array;
  readonly layer: number;
  readonly heads: readonly number[];
  readonly startsFrom: TailStart;
  readonly priority?: Priority;
}

export interface TailInput {
  /** Handles of the segments in view, best first. */
  readonly view: Int32Array;
  /** Leading tokens of each of those that the tail does not see. */
  readonly hidden?: Int32Array;
  readonly startsFrom: TailStart;
  /** Above this many tokens in view, blocks are selected; absent: never. */
  readonly denseScopeTokens?: number;
  /** Longest tail, the prefix included: reserved at once. `context_full` beyond it. */
  readonly maxTokens: number;
}

export interface PrefillOptions {
  readonly priority: Priority;
  /** Logits of the last n tokens are returned; default 0. The last token's are always kept for decoding. */
  readonly logits?: number;
  /** Also return the selected blocks of each sparse layer that selected. */
  readonly blocks?: boolean;
}

export interface SelectedBlocks {
  readonly layer: number;
  /** [n_tokens, n_kv_heads, width], −1 padded. */
  readonly data: Int32Array;
  readonly width: number;
}

export interface PrefillResult {
  /** [n, vocabSize], n as asked. */
  readonly logits: Float32Array;
  readonly blocks: readonly SelectedBlocks[];
  readonly seconds: number;
}

export interface DecodeOptions {
  readonly priority: Priority;
  readonly maxTokens: number;
  /** Decoding ends with one of these; it is the last of `ids`. */
  readonly stopIds: Int32Array;
  /** Also return the logits that chose each token. */
  readonly logits?: boolean;
  /** Verify what earlier tokens of the tail or `drafts` suggest, several tokens in a step: the ids stay the same. Default: true. */
  readonly speculate?: boolean;
  /** Texts that may be quoted: segments in view, the file being edited. Some thousand tokens in all: they are searched each step. */
  readonly drafts?: readonly Int32Array[];
  readonly onToken?: (id: number) => void;
}

export interface DecodeResult {
  readonly ids: Int32Array;
  readonly logits: Float32Array;
  readonly stop: 'stop_id' | 'max_tokens' | 'context_full';
  /** By speculation: tokens that were run on trial, and those of them that were right. */
  readonly proposed: number;
  readonly accepted: number;
  readonly seconds: number;
}

export interface MemoryUse {
  readonly weightBytes: number;
  readonly readingKeyBytes: number;
  readonly segmentBytes: number;
  readonly tailBytes: number;
  readonly nSegments: number;
  readonly nTails: number;
}

export interface NativeEngine {
  readonly info: ModelInfo;
  /** Absent: nothing is kept on disk. */
  readonly store?: NativeStore;
  /** Why there is none though one was asked for: `store_newer`, `store_unwritable`, `store_full`. */
  readonly storeFailure?: NativeError;
  /** Encodes P and keeps its end state. Must come first; another prefix is refused while there are segments. */
  setPrefix(tokens: Int32Array): Promise<void>;
  /** Handles of segments in memory or in the store, −1 for those that are in neither; nothing is run. */
  openSegments(keys: readonly string[]): Promise<Int32Array>;
  /** Segments that are already in memory cost nothing. Each is kept (store, then handle) before `onSegment(index)` is called. */
  encodeSegments(segments: readonly SegmentInput[], priority: Priority, onSegment?: (index: number) => void): Job<EncodeResult>;
  releaseSegments(handles: Int32Array): void;
  /** Removes segments from the store but for those that are in memory, after what was released before. */
  removeSegments(keys: readonly string[]): Promise<Removed>;
  /** Tries again to add to the store what it refused. */
  keepSegments(): Promise<KeepResult>;
  /** Share of each segment in the question's attention, in the order of `segments` (design section 6, golden u-focus). */
  read(input: ReadInput): Job<Float32Array>;
  createTail(input: TailInput): number;
  /** One sequence with reference semantics to the letter (exact mode): no prefix, no view. */
  createExactTail(finalTokens: number, maxTokens: number): number;
  /** A copy that goes its own way: a snapshot. The tail must be idle. Numbers of tails are valid at once; what was wrong with
   *  their making (an unknown segment, a damaged one: `store_invalid`) is said by the first prefill. */
  forkTail(tail: number): number;
  releaseTail(tail: number): void;
  prefill(tail: number, tokens: Int32Array, options: PrefillOptions): Job<PrefillResult>;
  /** Greedy. The tail must have been prefilled. What was decoded becomes part of the tail. */
  decode(tail: number, options: DecodeOptions): Job<DecodeResult>;
  /** At most this many threads from the next step on. */
  limitThreads(n: number): void;
  /** Private memory of this process at most, asked before memory is taken (`out_of_memory`); what is in stays. 0: no limit. */
  limitMemory(bytes: number): void;
  /** Whether jobs of priority 'ingest' leave the processor to other programs, from the next step on. */
  lowerIngest(on: boolean): void;
  memory(): MemoryUse;
  /** Cancels everything and frees the model. */
  close(): Promise<void>;
}

export interface Addon {
  load(options: LoadOptions): Promise<NativeEngine>;
  /** Operator tables that this machine can run, best last. */
  backends(): readonly string[];
  errorCodes(): readonly string[];
  /** Cores that this process may use: affinity and container limits count, hyper-threads do not. */
  physicalCores(): number;
}

let loaded: Addon | undefined;

/** Loads the addon that was built for this machine. Throws `unsupported`, naming the file and the reason. */
export function loadAddon(): Addon {
  if (loaded) return loaded;
  const file = process.env['SALA_ADDON'] ?? assetPath('sala.node');
  try {
    loaded = createRequire(file)(file) as Addon;
  } catch (error) {
    throw new EngineError(
      'unsupported',
      `expected the native engine for ${process.platform}-${process.arch} in ${file}, found: ${toEngineError(error).message}`,
      { cause: error },
    );
  }
  return loaded;
}
