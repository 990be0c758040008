// Work on many files leaves the thread to others every few milliseconds: nothing that is asked meanwhile waits for all of it.

import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';

/** Whoever waits gets a turn so often. */
const turnMs = 8;
/** The clock is not looked at for each of many small pieces. */
const smallAtOnce = 16;

/** Asked after each piece of some long work: a promise where it is the others' turn, which is to be awaited. */
export class Turns {
  private last = performance.now();
  private nSmall = 0;
  private waiting: Promise<void> | undefined;

  /** `rest`: so many times as long as it was worked, nothing is done. */
  constructor(private readonly rest = 0) {}

  /** No promise where nobody has to wait: 200,000 of them would be work too. */
  due(): Promise<void> | undefined {
    const worked = performance.now() - this.last;
    if (worked < turnMs) return undefined;
    // All who share the work wait for one turn: with one each, each would work until the next.
    return (this.waiting ??= (this.rest > 0 ? sleep(this.rest * worked) : turn()).then(() => {
      this.waiting = undefined;
      this.last = performance.now();
    }));
  }

  /** The same after a piece of some microseconds. */
  dueSmall(): Promise<void> | undefined {
    this.nSmall = (this.nSmall + 1) % smallAtOnce;
    return this.nSmall === 0 ? this.due() : undefined;
  }
}

/** Goes through all of it, a small piece of work each, leaving others their turn. What comes and goes meanwhile is the iterator's business. */
export async function inTurns<T>(items: Iterable<T>, work: (item: T) => void): Promise<void> {
  const turns = new Turns();
  for (const item of items) {
    work(item);
    const due = turns.dueSmall();
    if (due) await due;
  }
}

/** A set or a map of many, which are gone through in turns. */
export async function setInTurns<T, K>(items: Iterable<T>, keyOf: (item: T) => K): Promise<Set<K>> {
  const set = new Set<K>();
  await inTurns(items, (item) => void set.add(keyOf(item)));
  return set;
}

export async function mapInTurns<T, K>(items: Iterable<T>, keyOf: (item: T) => K): Promise<Map<K, T>> {
  const map = new Map<K, T>();
  await inTurns(items, (item) => void map.set(keyOf(item), item));
  return map;
}
