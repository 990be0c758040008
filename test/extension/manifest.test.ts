// What a manifest goes on knowing of versions that no file has: enough for a branch, a rename or an undone edit to come back, and
// bounded by the workspace.

import assert from 'node:assert/strict';
import test from 'node:test';
import type { NativeStore, StoreChange, StoreTable } from '../../extension/engine/addon';
import { Manifest, type KnownSegment, type ManifestStore } from '../../extension/engine/manifest';

/** Tables in memory. */
class Tables {
  private readonly tables = { files: new Map<string, string>(), versions: new Map<string, string>(), roots: new Map<string, string>() };

  open(): Promise<Manifest> {
    const write = async (changes: readonly StoreChange[]): Promise<void> => {
      for (const { table, key, value } of changes) {
        if (value === null) this.tables[table].delete(key);
        else this.tables[table].set(key, value);
      }
    };
    const records = async (table: StoreTable, prefix: string): Promise<[string, string][]> => [...this.tables[table]].filter(([key]) => key.startsWith(prefix));
    const at: ManifestStore = { store: { readOnly: undefined, records, write } as unknown as NativeStore, write };
    return Manifest.open(at, '/root', 'recipe', { find: () => undefined });
  }

  get nFiles(): number {
    return this.tables.files.size;
  }

  get nVersions(): number {
    return this.tables.versions.size;
  }
}

const segment: KnownSegment = { key: 'a'.repeat(64), startByte: 0, endByte: 100, startLine: 1, endLine: 9, nTokens: 40, headerTokens: 5 };

function put(manifest: Manifest, file: number, version: string): void {
  manifest.set({ path: `f${file}`, fileKey: keyOf(file, version), bytes: 100, mtimeMs: 1, ino: file }, { segments: [segment] });
}

const keyOf = (file: number, version: string): string => `${file} ${version}`;

/** How many of the first `n` files are known as they were in this version. */
function nKnown(manifest: Manifest, n: number, version: string): number {
  return Array.from({ length: n }, (_, file) => manifest.versionOf(keyOf(file, version))).filter((known) => known !== undefined).length;
}

test('manifest: a workspace of few files keeps few earlier versions, those that were used last, in memory and in the store', async () => {
  const tables = new Tables();
  const manifest = await tables.open();
  for (let file = 0; file < 10; file++) put(manifest, file, 'first');
  for (let i = 0; i < 1000; i++) {
    put(manifest, 0, `edit ${i}`);
    if (i % 20 === 0) assert.equal(nKnown(manifest, 1, 'first'), 1);
    if (i % 7 === 0) await manifest.save();
  }
  await manifest.save();
  assert.ok(manifest.fileKeys.size <= 10 + 80 + 10, `${manifest.fileKeys.size} versions`);
  assert.equal(tables.nVersions, manifest.fileKeys.size);
  const known = Array.from({ length: 60 }, (_, i) => manifest.versionOf(keyOf(0, `edit ${999 - i}`)));
  assert.ok(!known.includes(undefined));
  assert.equal(manifest.versionOf(keyOf(0, 'edit 0')), undefined);
  assert.equal(nKnown(manifest, 1, 'first'), 1);
});

test('manifest: on a branch of few files, and after a restart there, those of the branch that was left are known', async () => {
  const tables = new Tables();
  const first = await tables.open();
  for (let file = 0; file < 600; file++) put(first, file, 'main');
  for (let file = 10; file < 600; file++) first.delete(`f${file}`);
  for (const manifest of [first, await first.save().then(() => tables.open())]) {
    for (let i = 0; i < 100; i++) {
      put(manifest, 0, `edit ${i}`);
      await manifest.save();
    }
    assert.equal(nKnown(manifest, 600, 'main'), 600);
  }
});

test('manifest: of many files, all have an earlier version', async () => {
  const manifest = await new Tables().open();
  for (const version of ['a', 'b', 'c']) {
    for (let file = 0; file < 6000; file++) put(manifest, file, version);
    await manifest.save();
  }
  assert.deepEqual(['a', 'b', 'c'].map((version) => nKnown(manifest, 6000, version)), [0, 6000, 6000]);
});

test('manifest: of files that others replaced while nobody looked, what they had is forgotten as if somebody had', async () => {
  const tables = new Tables();
  for (let start = 0; start < 200; start++) {
    const manifest = await tables.open();
    // Each time others, as of builds and branches.
    const files = [0, ...Array.from({ length: 49 }, (_, i) => 50 * start + i + 1)];
    const names = new Set(files.map((file) => `f${file}`));
    await manifest.deleteOthers((file) => names.has(file));
    for (const file of files) put(manifest, file, 'first');
    await manifest.save();
    assert.equal(tables.nFiles, 50);
    assert.ok(tables.nVersions <= 50 + 8 * 50 + 50, `${tables.nVersions} versions`);
  }
});
