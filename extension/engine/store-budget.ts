// Keeps the store folder under its cap: how much there is, and what goes when it is too much. Segments that nobody has in memory go,
// those written first first; what is in memory stays, and then reading has to stop. Also drops what killed processes left behind
// and the manifests of folders that have been gone for a month.

import { readdir, readFile, rm, stat } from 'node:fs/promises';
import path from 'node:path';

const goneManifestMs = 30 * 24 * 3600 * 1000;
/** Sweeping makes some room, so that it is not asked for with every segment. */
const keptShare = 0.9;

interface StoredFile {
  readonly key: string;
  readonly file: string;
  readonly bytes: number;
  readonly mtimeMs: number;
}

export class StoreBudget {
  private bytes = 0;

  constructor(
    private readonly store: string,
    private readonly maxBytes: number,
    private readonly inMemory: (key: string) => boolean,
  ) {}

  segmentFile(key: string): string {
    return path.join(this.store, 'segments', key.slice(0, 2), `${key}.seg`);
  }

  /** Looks at everything: at the start of an engine. */
  async open(): Promise<void> {
    await this.dropGoneManifests();
    await this.sweep(0);
  }

  /** Counts new segments; false if the store is over its cap and nothing can go. */
  async added(keys: readonly string[]): Promise<boolean> {
    for (const key of keys) this.bytes += await stat(this.segmentFile(key)).then((s) => s.size, () => 0);
    if (this.bytes <= this.maxBytes) return true;
    await this.sweep();
    return this.bytes <= this.maxBytes;
  }

  /** Removes these segments, but for those in memory. */
  async remove(keys: Iterable<string>): Promise<{ segments: number; bytes: number }> {
    const removed = { segments: 0, bytes: 0 };
    for (const key of keys) {
      if (this.inMemory(key)) continue;
      const file = this.segmentFile(key);
      const size = await stat(file).then((s) => s.size, () => undefined);
      if (size === undefined) continue;
      await rm(file, { force: true });
      removed.segments++;
      removed.bytes += size;
    }
    this.bytes -= removed.bytes;
    return removed;
  }

  private async sweep(temporaryAgeMs = 60_000): Promise<void> {
    const files = await this.list(temporaryAgeMs);
    this.bytes = files.reduce((sum, { bytes }) => sum + bytes, 0);
    if (this.bytes <= this.maxBytes) return;
    files.sort((a, b) => a.mtimeMs - b.mtimeMs);
    for (const { key, file, bytes } of files) {
      if (this.bytes <= this.maxBytes * keptShare) break;
      if (this.inMemory(key)) continue;
      await rm(file, { force: true });
      this.bytes -= bytes;
    }
  }

  /** Removes on the way what a killed process left and what was set aside, unless it is young and may be being written. */
  private async list(temporaryAgeMs: number): Promise<StoredFile[]> {
    const folder = path.join(this.store, 'segments');
    const files: StoredFile[] = [];
    for (const part of await readdir(folder).catch(() => [])) {
      for (const name of await readdir(path.join(folder, part)).catch(() => [])) {
        const file = path.join(folder, part, name);
        const info = await stat(file).catch(() => undefined);
        if (!info) continue;
        if (name.endsWith('.seg')) files.push({ key: name.slice(0, -4), file, bytes: info.size, mtimeMs: info.mtimeMs });
        else if (Date.now() - info.mtimeMs >= temporaryAgeMs) await rm(file, { force: true });
      }
    }
    return files;
  }

  private async dropGoneManifests(): Promise<void> {
    const folder = path.join(this.store, 'manifests');
    for (const name of await readdir(folder).catch(() => [])) {
      const file = path.join(folder, name);
      const info = await stat(file).catch(() => undefined);
      if (!info || Date.now() - info.mtimeMs < goneManifestMs) continue;
      const root = await readFile(file, 'utf8').then((text) => (JSON.parse(text) as { root?: unknown }).root, () => undefined).catch(() => undefined);
      const there = typeof root === 'string' && (await stat(root).then(() => true, () => false));
      if (!there) await rm(file, { force: true });
    }
  }
}
