// Snapshots of tails, so that typing on extends what has been run instead of running it again. A snapshot is an idle tail: whoever
// goes on from it does so on a fork. The least recently used one is released for a new one.

import type { NativeEngine } from '../addon';

export interface Snapshot {
  readonly tail: number;
  /** Names the view that the tail was made with: another view gives other rows. */
  readonly view: string;
  /** Behind P. */
  readonly tokens: Int32Array;
}

export class TailCache {
  /** Most recently used first. */
  private snapshots: Snapshot[] = [];

  constructor(
    private readonly native: Pick<NativeEngine, 'releaseTail'>,
    private readonly capacity = 16,
  ) {}

  /** The snapshot that holds most of these tokens and nothing else. Valid until the next `put`: fork it at once. */
  longest(view: string, tokens: Int32Array): Snapshot | undefined {
    let best: Snapshot | undefined;
    for (const snapshot of this.snapshots) {
      if (snapshot.view !== view || snapshot.tokens.length <= (best?.tokens.length ?? 0)) continue;
      if (startsWith(tokens, snapshot.tokens)) best = snapshot;
    }
    if (best !== undefined) this.snapshots = [best, ...this.snapshots.filter((other) => other !== best)];
    return best;
  }

  /** Takes the tail over, in place of `superseded` where that is given. */
  put(snapshot: Snapshot, superseded?: Snapshot): void {
    const { view, tokens } = snapshot;
    const isOut = (other: Snapshot): boolean =>
      other === superseded || (other.view === view && other.tokens.length === tokens.length && startsWith(other.tokens, tokens));
    const all = [snapshot, ...this.snapshots.filter((other) => !isOut(other))];
    const kept = all.slice(0, this.capacity);
    for (const { tail } of [...this.snapshots.filter(isOut), ...all.slice(this.capacity)]) this.native.releaseTail(tail);
    this.snapshots = kept;
  }

  get size(): number {
    return this.snapshots.length;
  }

  /** How many went. */
  clear(): number {
    const { length } = this.snapshots;
    for (const { tail } of this.snapshots) this.native.releaseTail(tail);
    this.snapshots = [];
    return length;
  }
}

function startsWith(tokens: Int32Array, start: Int32Array): boolean {
  return start.length <= tokens.length && start.every((id, i) => id === tokens[i]);
}
