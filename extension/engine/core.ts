// What all clients of an engine process share: the loaded model, the store, the segments in memory, the roots and the loop that
// reads them. A client's own view of it is client-session.ts.

import path from 'node:path';
import { realpath, rm, stat } from 'node:fs/promises';
import { loadAddon, type NativeEngine } from './addon';
import { EngineError, toEngineError } from './errors';
import { ClientSessionOver } from './client-session';
import { Indexer } from './indexer';
import { Manifest } from './manifest';
import type { HelloResult, Root, StoreCheck } from './messages';
import { defaultMaxMemoryBytes } from './memory-limit';
import { findModel, readModelFolder, type ModelFolder } from './model-folder';
import { PackTable } from './pack-table';
import { RootIndex } from './root-index';
import { SegmentMemory } from './segment-memory';
import type { ClientSession, CoreOptions, EngineCore, SessionClient } from './session';
import { StoreKeeper } from './store-keeper';
import { Tokenizer } from './tokenizer';
import { startCutter, type Cutter } from './tokenizer-worker';
import { version } from '../../package.json';
import type { FilterSettings } from './workspace/filter';
import { Hash } from './workspace/hash';
import { cutterVersion, type SegmentCut } from './workspace/segmenter';

const defaultMaxDiskBytes = 10 * 2 ** 30;
/** What earlier versions kept: a file a segment, a file a root. */
const oldFolders = ['segments', 'manifests'];

export class Core implements EngineCore {
  readonly indexer: Indexer;
  readonly memory: SegmentMemory;
  /** By real path. A promise, so that clients who come at the same time share one index. */
  private readonly roots = new Map<string, { readonly index: Promise<RootIndex>; clients: number }>();
  private readonly sessions = new Set<ClientSessionOver>();
  /** Absent: nothing is kept on disk. */
  private readonly keeper: StoreKeeper | undefined;
  private packTable!: PackTable;
  /** Kept for speed alone: each lets go of what it has and says how much that was. */
  readonly caches = new Set<() => number>();

  private constructor(
    readonly native: NativeEngine,
    readonly model: ModelFolder,
    readonly tokenizer: Tokenizer,
    readonly prefix: Int32Array,
    private readonly cutter: Cutter,
    readonly hash: Hash,
    readonly identity: string,
    readonly threads: number,
    private readonly options: CoreOptions,
  ) {
    if (native.store) {
      this.keeper = new StoreKeeper(native, native.store, {
        log: (line) => options.log(line),
        failed: (error) => {
          for (const session of this.sessions) session.storeFailed(error);
        },
      });
    }
    this.memory = new SegmentMemory(native, {
      opened: () => this.keeper?.sayFindings(),
      added: () => this.keeper?.added(),
      refused: async (error) => this.keeper?.refused(error),
    });
    this.indexer = new Indexer(this.memory, { most: threads, limit: (n) => native.limitThreads(n) }, (line) => options.log(line), () => this.giveWay());
  }

  static async load(options: CoreOptions): Promise<Core> {
    const dir = options.modelDir ?? (await findModel());
    const model = await readModelFolder(dir);
    const addon = loadAddon();
    const threads = options.threads ?? addon.physicalCores();
    options.onProgress(`loading ${model.sala.name}`);
    const identity = options.store === undefined ? dir : path.basename(options.store);
    if (options.store !== undefined) await dropOldFolders(options.store, options.log);
    // The weights are read on threads of the addon; this one makes the tokenizer meanwhile.
    const loading = addon.load({
      modelDir: dir,
      activations: options.activations,
      threads,
      reading: model.sala.read,
      maxMemoryBytes: options.maxMemoryBytes ?? defaultMaxMemoryBytes(),
      ...(options.store !== undefined && { store: { dir: options.store, identity, maxBytes: options.maxDiskBytes ?? defaultMaxDiskBytes } }),
    });
    const tokenizer = makeTokenizer(model, loading);
    const native = await loading;
    if (native.storeFailure) options.log(`store: ${native.storeFailure.code}: ${native.storeFailure.message}; nothing is kept this time`);
    const prefix = tokenizer.encodeTemplate(model.sala.prefix);
    await native.setPrefix(prefix);
    const core = new Core(native, model, tokenizer, prefix, startCutter(dir), await Hash.create(), identity, threads, options);
    await core.keeper?.open();
    core.packTable = await PackTable.open(core.keeper, native.info.numerics);
    return core;
  }

  hello(): HelloResult {
    const { storeFailure } = this.native;
    return {
      version,
      pid: process.pid,
      model: { name: this.model.sala.name, dir: this.model.dir, identity: this.identity },
      store: this.options.store ?? '',
      backend: this.native.info.backend,
      activations: this.options.activations,
      threads: this.threads,
      ...(storeFailure && { remark: `what is read is not kept, because the store cannot be used: ${storeFailure.message}` }),
    };
  }

  createSession(client: SessionClient): ClientSession {
    const session = new ClientSessionOver(this, client, (closed) => {
      this.sessions.delete(closed);
      this.applyNiceness();
    });
    this.sessions.add(session);
    this.applyNiceness();
    return session;
  }

  /** Behind an editor the editor comes first; somebody at a terminal waits for us alone. */
  private applyNiceness(): void {
    this.native.lowerIngest([...this.sessions].some(({ kind }) => kind === 'editor'));
  }

  /** Clients share the engine: the fewest threads that one of them allows. */
  applyThreads(): void {
    const wanted = [...this.sessions].map(({ current }) => current.threads).filter((n) => n > 0);
    this.indexer.setThreads(Math.min(this.threads, ...wanted));
  }

  /** As with threads, the strictest of all clients; what the process was started with where none of them says anything. */
  applyMemory(): void {
    const wanted = [...this.sessions].map(({ current }) => current.maxMemoryBytes).filter((n) => n > 0);
    this.native.limitMemory(wanted.length > 0 ? Math.min(...wanted) : (this.options.maxMemoryBytes ?? defaultMaxMemoryBytes()));
    this.indexer.pause('memory_full', false);
  }

  /** Memory is short: caches go first. True where that freed anything. */
  giveWay(): boolean {
    let freed = 0;
    for (const clear of this.caches) freed += clear();
    return freed > 0;
  }

  log(line: string): void {
    this.options.log(line);
  }

  /** What packs have brought. */
  get packs(): PackTable {
    return this.packTable;
  }

  /** What is in memory of segments is on the disk when this resolves, as far as the store has taken it. Throws `store_unwritable`. */
  async commit(): Promise<void> {
    await this.keeper?.commitNow();
  }

  /** Throws why there is none. */
  requireKeeper(): StoreKeeper {
    if (this.keeper) return this.keeper;
    throw this.native.storeFailure ?? new EngineError('unsupported', 'expected an engine that keeps what it reads, found one that keeps nothing (activations fp32)');
  }

  /** Address of a segment made with these numerics; ours where none are given. */
  segmentKey(tokens: Int32Array, headerTokens: number, numerics = this.native.info.numerics): string {
    return this.hash.segmentKey({ identity: this.identity, numerics, prefixTokens: this.prefix, headerTokens, tokens });
  }

  cut(file: string, bytes: Uint8Array): Promise<readonly SegmentCut[]> {
    return this.cutter.cut(file, bytes);
  }

  // ---- roots ----------------------------------------------------------------------------------------------------------------

  /** A root that a client opens: shared with whoever else has it. Not scanned yet the first time. */
  async acquireRoot(root: Root, settings: FilterSettings): Promise<RootIndex> {
    let dir: string;
    try {
      dir = await realpath(root.path);
    } catch (error) {
      throw new EngineError('not_a_workspace', `${root.path}: expected a folder that can be read, found: ${toEngineError(error).message}`);
    }
    const known = this.roots.get(dir);
    if (known) {
      known.clients++;
      const index = await known.index;
      index.settings = settings;
      return index;
    }
    const opened = this.openRoot(dir, root.name, settings);
    this.roots.set(dir, { index: opened, clients: 1 });
    return opened;
  }

  private async openRoot(dir: string, name: string, settings: FilterSettings): Promise<RootIndex> {
    const recipe = [this.identity, this.native.info.numerics, cutterVersion, Array.from(this.prefix).join(' ')].join(' ');
    const index = new RootIndex(
      dir,
      name,
      {
        memory: this.memory,
        hash: this.hash,
        cut: (file, bytes) => this.cut(file, bytes),
        keyOf: (tokens, headerTokens) => this.segmentKey(tokens, headerTokens),
        ownPaths: this.ownPaths(),
      },
      await Manifest.open(this.keeper, dir, recipe, this.packs),
      settings,
    );
    this.indexer.add(index);
    return index;
  }

  /** What a root never reads of us: the folder of all stores, and if that is the root itself, what we put into it. */
  private ownPaths(): string[] {
    const { store } = this.options;
    if (store === undefined) return [];
    const base = path.dirname(store);
    return [base, store, path.join(base, 'models.json')];
  }

  async releaseRoot(index: RootIndex): Promise<void> {
    const entry = this.roots.get(index.dir);
    if (!entry || --entry.clients > 0) return;
    this.roots.delete(index.dir);
    this.indexer.remove(index);
    try {
      await index.close();
    } catch (error) {
      this.log(`manifest of a root: ${toEngineError(error).message}`);
    }
  }

  /** Drops what is stored of a root, and the packs that it has used, but for segments that other roots in memory have. */
  async forget(index: RootIndex): Promise<{ segments: number; bytes: number }> {
    const { keys, fileKeys } = await index.close(true);
    const packed = await this.packs.forget(fileKeys);
    const removed = (await this.keeper?.forget(new Set([...keys, ...packed]))) ?? { segments: 0, bytes: 0 };
    this.indexer.changed();
    return removed;
  }

  /** Looks at every byte of the store, and drops what is damaged. Throws why there is none. */
  async verify(): Promise<StoreCheck> {
    return this.requireKeeper().verify();
  }

  async close(): Promise<void> {
    await this.indexer.close();
    for (const session of [...this.sessions]) await session.close();
    await this.cutter.close();
    await this.keeper?.close();
    await this.native.close();
  }
}

/** Where there can be none, what is being loaded is let go of. */
function makeTokenizer(model: ModelFolder, loading: Promise<NativeEngine>): Tokenizer {
  try {
    return new Tokenizer(model);
  } catch (error) {
    loading.then((native) => native.close()).catch(() => {});
    throw error;
  }
}

/** What they hold is encoded again. */
async function dropOldFolders(store: string, log: (line: string) => void): Promise<void> {
  const there = oldFolders.map((name) => path.join(store, name));
  const found = await Promise.all(there.map((dir) => stat(dir).then(() => true, () => false)));
  if (!found.includes(true)) return;
  try {
    for (const dir of there) await rm(dir, { recursive: true, force: true });
    log('store: what an earlier version kept was removed; it is read again');
  } catch (error) {
    log(`store: what an earlier version kept could not be removed: ${toEngineError(error).message}`);
  }
}

/** Loads the model: see session.ts. */
export const loadCore = (options: CoreOptions): Promise<EngineCore> => Core.load(options);
