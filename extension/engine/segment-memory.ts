// The segments that somebody needs, by address, and which of them the native engine holds. An address is retained by every file
// version that has it (two worktrees share all equal segments) and let go of with the last one. Not here: files and their order.

import type { NativeEngine, Priority, SegmentInput } from './addon';
import { withCancel } from './cancel';
import { EngineError, toEngineError } from './errors';

interface Entry {
  /** In the native engine; undefined: not (yet). */
  handle: number | undefined;
  /** How many file versions have it. */
  retained: number;
}

export interface Encoded {
  readonly tokens: number;
  readonly seconds: number;
}

export class SegmentMemory {
  private readonly entries = new Map<string, Entry>();

  constructor(
    private readonly native: NativeEngine,
    /** `refused`: the store did not take some segments, which stay in memory. Resolves when what can be done about it is done. */
    private readonly report: { opened(): void; added(): void; refused(error: EngineError): Promise<void> },
  ) {}

  retain(keys: Iterable<string>): void {
    for (const key of keys) {
      const entry = this.entries.get(key);
      if (entry) entry.retained++;
      else this.entries.set(key, { handle: undefined, retained: 1 });
    }
  }

  release(keys: Iterable<string>): void {
    const handles: number[] = [];
    for (const key of keys) {
      const entry = this.entries.get(key);
      if (!entry || --entry.retained > 0) continue;
      this.entries.delete(key);
      if (entry.handle !== undefined) handles.push(entry.handle);
    }
    if (handles.length > 0) this.native.releaseSegments(Int32Array.from(handles));
  }

  /** Whether anybody retains it. */
  isWanted(key: string): boolean {
    return this.entries.has(key);
  }

  handleOf(key: string): number | undefined {
    return this.entries.get(key)?.handle;
  }

  /** A segment that turned out damaged in the store is no longer there: it will be encoded again. */
  drop(key: string): void {
    const entry = this.entries.get(key);
    if (entry?.handle === undefined) return;
    this.native.releaseSegments(Int32Array.of(entry.handle));
    entry.handle = undefined;
  }

  /** Looks retained addresses up in the store. */
  async open(keys: readonly string[]): Promise<void> {
    const wanted = [...new Set(keys)].filter((key) => this.entries.has(key) && this.handleOf(key) === undefined);
    if (wanted.length === 0) return;
    this.settle(wanted, await this.native.openSegments(wanted));
    this.report.opened();
  }

  /**
   * Runs segments through the model; those that nobody retains any more are skipped. Rejects with 'cancelled' within one step of
   * `signal`; what was encoded until then is kept.
   */
  async encode(segments: readonly SegmentInput[], priority: Priority, signal: AbortSignal): Promise<Encoded> {
    const wanted = segments.filter(({ key }) => this.entries.has(key) && this.handleOf(key) === undefined);
    if (wanted.length === 0) return { tokens: 0, seconds: 0 };
    const result = await withCancel(this.native.encodeSegments(wanted, priority), signal);
    this.settle(
      wanted.map(({ key }) => key),
      result.handles,
    );
    if (result.encodedTokens > 0) this.report.added();
    if (result.storeFailure) await this.report.refused(toEngineError(result.storeFailure));
    return { tokens: result.encodedTokens, seconds: result.seconds };
  }

  private settle(keys: readonly string[], handles: Int32Array): void {
    const unwanted: number[] = [];
    keys.forEach((key, i) => {
      const handle = handles[i] as number;
      if (handle < 0) return;
      const entry = this.entries.get(key);
      // Released, or found by another call, while we waited.
      if (!entry || entry.handle !== undefined) unwanted.push(handle);
      else entry.handle = handle;
    });
    if (unwanted.length > 0) this.native.releaseSegments(Int32Array.from(unwanted));
  }
}
