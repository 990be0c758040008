// What packs have brought: which segments the bytes of a file have, whichever root they turn up in. Lies in the store's tables beside
// the roots' own records (manifest.ts), which take over what they use. Segments of another numerics family stand beside our own; ours
// are what is asked for first. Not here: packs themselves (pack-import.ts).

import type { StoreChange } from './addon';
import { parseSegments, segmentsText, type KnownSegment, type KnownVersion, type ManifestStore } from './manifest';

const prefix = 'pack/';
/** A version that no root has taken over for so long is none that will turn up. */
const keptMs = 30 * 24 * 3600 * 1000;

interface Entry {
  /** Of which pack: what is forgotten of one is forgotten of all of it. */
  readonly pack: string;
  readonly segments: readonly KnownSegment[];
}

/** `<family>.<revision>.<form>`, as the native engine names them. */
export function familyOf(numerics: string): string {
  return numerics.split('.')[0] as string;
}

/** Whether segments made with these numerics may be used beside our own: another family's may, another revision's or form's may not. */
export function isUsable(numerics: string, own: string): boolean {
  const [, ...kind] = numerics.split('.');
  const [, ...ownKind] = own.split('.');
  return /^[a-z][a-z0-9_]*$/.test(familyOf(numerics)) && kind.length === 2 && kind.join('.') === ownKind.join('.');
}

export class PackTable {
  /** By file key, then by numerics. */
  private readonly entries = new Map<string, Map<string, Entry>>();

  private constructor(
    private readonly at: ManifestStore | undefined,
    private readonly numerics: string,
  ) {}

  /** `at`: absent: nothing is kept. `numerics`: this engine's. Throws `store_full` or `store_unwritable`. */
  static async open(at: ManifestStore | undefined, numerics: string): Promise<PackTable> {
    const table = new PackTable(at, numerics);
    if (at) await table.load(at);
    return table;
  }

  /** Ours before another family's, those in the order of their names. */
  find(fileKey: string): KnownVersion | undefined {
    const known = this.entries.get(fileKey);
    if (!known) return undefined;
    const own = known.get(this.numerics);
    if (own) return { segments: own.segments };
    const [from] = [...known.keys()].sort();
    return from === undefined ? undefined : { segments: (known.get(from) as Entry).segments, from };
  }

  /** Durable, with the segments, when it resolves. Throws `store_full` or `store_unwritable`. */
  async add(numerics: string, pack: string, versions: ReadonlyMap<string, readonly KnownSegment[]>): Promise<void> {
    const changes: StoreChange[] = [];
    for (const [fileKey, segments] of versions) {
      this.set(fileKey, numerics, { pack, segments });
      changes.push({ table: 'versions', key: recordKey(numerics, fileKey), value: segmentsText([Date.now(), pack], segments) });
    }
    await this.at?.write(changes);
  }

  /** Drops whole packs: those that any of these files has been in. Returns the addresses of their segments. */
  async forget(fileKeys: Iterable<string>): Promise<Set<string>> {
    const packs = new Set<string>();
    for (const fileKey of fileKeys) for (const { pack } of this.entries.get(fileKey)?.values() ?? []) packs.add(pack);
    const keys = new Set<string>();
    const changes: StoreChange[] = [];
    for (const [fileKey, known] of [...this.entries]) {
      for (const [numerics, { pack, segments }] of [...known]) {
        if (!packs.has(pack)) continue;
        for (const { key } of segments) keys.add(key);
        known.delete(numerics);
        changes.push({ table: 'versions', key: recordKey(numerics, fileKey), value: null });
      }
      if (known.size === 0) this.entries.delete(fileKey);
    }
    if (changes.length > 0 && this.at?.store.readOnly === undefined) await this.at?.write(changes);
    return keys;
  }

  private set(fileKey: string, numerics: string, entry: Entry): void {
    const known = this.entries.get(fileKey);
    if (known) known.set(numerics, entry);
    else this.entries.set(fileKey, new Map([[numerics, entry]]));
  }

  private async load(at: ManifestStore): Promise<void> {
    const gone: StoreChange[] = [];
    for (const [key, value] of await at.store.records('versions', prefix)) {
      const [numerics = '', fileKey = ''] = key.slice(prefix.length).split('/');
      const entry = isUsable(numerics, this.numerics) ? parseEntry(value) : undefined;
      if (entry) this.set(fileKey, numerics, entry);
      else gone.push({ table: 'versions', key, value: null });
    }
    if (gone.length > 0 && at.store.readOnly === undefined) await at.write(gone);
  }
}

function recordKey(numerics: string, fileKey: string): string {
  return `${prefix}${numerics}/${fileKey}`;
}

/** Undefined: too old, or none of ours. */
function parseEntry(value: string): Entry | undefined {
  const parsed = parseSegments(value, 2);
  if (!parsed) return undefined;
  const [sinceMs, pack] = parsed.about;
  if (typeof sinceMs !== 'number' || typeof pack !== 'string' || Date.now() - sinceMs > keptMs) return undefined;
  return { pack, segments: parsed.segments };
}
