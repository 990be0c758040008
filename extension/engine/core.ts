// What all clients of an engine process share: the loaded model, the store, the segments in memory, the roots and the loop that
// reads them. A client's own view of it is client-session.ts.

import path from 'node:path';
import { readdir, realpath, rm, stat } from 'node:fs/promises';
import { loadAddon, type NativeEngine } from './addon';
import { EngineError, toEngineError } from './errors';
import { ClientSessionOver } from './client-session';
import { Indexer } from './indexer';
import { Manifest } from './manifest';
import type { HelloResult, Root } from './messages';
import { findModel, readModelFolder, type ModelFolder } from './model-folder';
import { RootIndex } from './root-index';
import { SegmentMemory } from './segment-memory';
import type { ClientSession, CoreOptions, EngineCore, SessionClient } from './session';
import { Tokenizer } from './tokenizer';
import { createCutter, type Cutter } from './tokenizer-worker';
import { version } from '../../package.json';
import type { FilterSettings } from './workspace/filter';
import { Hash } from './workspace/hash';
import { cutterVersion } from './workspace/segmenter';

const defaultMaxDiskBytes = 10 * 2 ** 30;

export class Core implements EngineCore {
  readonly indexer: Indexer;
  readonly memory: SegmentMemory;
  /** By real path. A promise, so that clients who come at the same time share one index. */
  private readonly roots = new Map<string, { readonly index: Promise<RootIndex>; clients: number }>();
  private readonly sessions = new Set<ClientSessionOver>();

  private constructor(
    readonly native: NativeEngine,
    readonly model: ModelFolder,
    readonly tokenizer: Tokenizer,
    readonly prefix: Int32Array,
    private readonly cutter: Cutter,
    private readonly hash: Hash,
    private readonly identity: string,
    readonly threads: number,
    private readonly options: CoreOptions,
  ) {
    this.memory = new SegmentMemory(native, {
      damaged: (key) => options.log(`store: segment ${key} was damaged; set aside, it is encoded again`),
      storeFailed: (error) => {
        options.log(`store: ${error.code}: ${error.message}`);
        for (const session of this.sessions) session.storeFailed(error);
      },
    });
    this.indexer = new Indexer(this.memory, { most: threads, limit: (n) => native.limitThreads(n) }, (line) => options.log(line));
  }

  static async load(options: CoreOptions): Promise<Core> {
    const dir = options.modelDir ?? (await findModel((line) => options.onProgress(line)));
    const model = await readModelFolder(dir);
    const tokenizer = new Tokenizer(model);
    const addon = loadAddon();
    const threads = options.threads ?? addon.physicalCores();
    options.onProgress(`loading ${model.sala.name}`);
    const native = await addon.load({
      modelDir: dir,
      activations: options.activations,
      threads,
      reading: model.sala.read,
      ...(options.store !== undefined && { segmentsDir: path.join(options.store, 'segments') }),
    });
    const prefix = tokenizer.encodeTemplate(model.sala.prefix);
    await native.setPrefix(prefix);
    const identity = options.store === undefined ? dir : path.basename(options.store);
    const core = new Core(native, model, tokenizer, prefix, await createCutter(dir), await Hash.create(), identity, threads, options);
    await core.sweep();
    return core;
  }

  hello(): HelloResult {
    return {
      version,
      pid: process.pid,
      model: { name: this.model.sala.name, dir: this.model.dir, identity: this.identity },
      store: this.options.store ?? '',
      backend: this.native.info.backend,
      activations: this.options.activations,
      threads: this.threads,
    };
  }

  createSession(client: SessionClient): ClientSession {
    // Behind an editor the editor comes first; somebody at a terminal waits for us alone.
    if (client.kind === 'editor') loadAddon().setBackground(true);
    const session = new ClientSessionOver(this, client, (closed) => this.sessions.delete(closed));
    this.sessions.add(session);
    return session;
  }

  log(line: string): void {
    this.options.log(line);
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
        cut: (file, bytes) => this.cutter.cut(file, bytes),
        keyOf: (tokens, headerTokens) =>
          this.hash.segmentKey({
            identity: this.identity,
            numerics: this.native.info.numerics,
            prefixTokens: this.prefix,
            headerTokens,
            tokens,
          }),
        ownPaths: this.ownPaths(),
      },
      await Manifest.open(this.options.store, dir, recipe),
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

  /** Drops what is stored of a root, but for segments that other roots in memory have. */
  async forget(index: RootIndex): Promise<{ segments: number; bytes: number }> {
    const { keys } = await index.close(true);
    let segments = 0;
    let bytes = 0;
    for (const key of keys) {
      if (this.options.store === undefined || this.memory.handleOf(key) !== undefined) continue;
      const file = this.segmentFile(key);
      const size = await stat(file).then((s) => s.size, () => undefined);
      if (size === undefined) continue;
      await rm(file, { force: true });
      segments++;
      bytes += size;
    }
    this.indexer.changed();
    return { segments, bytes };
  }

  private segmentFile(key: string): string {
    return path.join(this.options.store ?? '', 'segments', key.slice(0, 2), `${key}.seg`);
  }

  /** Keeps the store under its cap: the segments that were written first go first. Once, at the start. */
  private async sweep(): Promise<void> {
    if (this.options.store === undefined) return;
    const cap = this.options.maxDiskBytes ?? defaultMaxDiskBytes;
    const folder = path.join(this.options.store, 'segments');
    const files: { file: string; bytes: number; mtimeMs: number }[] = [];
    let total = 0;
    for (const part of await readdir(folder).catch(() => [])) {
      for (const name of await readdir(path.join(folder, part)).catch(() => [])) {
        const file = path.join(folder, part, name);
        // What a killed process left behind, and what was set aside.
        if (!name.endsWith('.seg')) {
          await rm(file, { force: true });
          continue;
        }
        const info = await stat(file).catch(() => undefined);
        if (!info) continue;
        files.push({ file, bytes: info.size, mtimeMs: info.mtimeMs });
        total += info.size;
      }
    }
    files.sort((a, b) => a.mtimeMs - b.mtimeMs);
    for (const { file, bytes } of files) {
      if (total <= cap) break;
      await rm(file, { force: true });
      total -= bytes;
    }
  }

  async close(): Promise<void> {
    await this.indexer.close();
    for (const session of [...this.sessions]) await session.close();
    await this.cutter.close();
    await this.native.close();
  }
}

/** Loads the model: see session.ts. */
export const loadCore = (options: CoreOptions): Promise<EngineCore> => Core.load(options);
