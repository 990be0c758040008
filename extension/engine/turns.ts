// Work on many files leaves the thread to others every few milliseconds: nothing that is asked meanwhile waits for all of it.

import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';

/** Whoever waits gets a turn so often. */
const turnMs = 8;
/** The clock is not looked at for each of many small pieces. */
const smallAtOnce = 16;
/** Sorted in a millisecond or two. */
const sortedAtOnce = 4096;

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

/** As `toSorted`: in runs that are merged then. */
export async function sortedInTurns<T>(items: readonly T[], compare: (a: T, b: T) => number): Promise<T[]> {
  const turns = new Turns();
  let runs: T[][] = [];
  for (let i = 0; i < items.length; i += sortedAtOnce) {
    runs.push(items.slice(i, i + sortedAtOnce).sort(compare));
    await turns.due();
  }
  while (runs.length > 1) {
    const longer: T[][] = [];
    for (let i = 0; i < runs.length; i += 2) longer.push(await mergedInTurns(runs[i] ?? [], runs[i + 1] ?? [], compare, turns));
    runs = longer;
  }
  return runs[0] ?? [];
}

async function mergedInTurns<T>(a: readonly T[], b: readonly T[], compare: (a: T, b: T) => number, turns: Turns): Promise<T[]> {
  const merged: T[] = [];
  let i = 0;
  for (const item of b) {
    // Of equals the one that came first stays first.
    for (; i < a.length && compare(a[i] as T, item) <= 0; i++) merged.push(a[i] as T);
    merged.push(item);
    const due = turns.dueSmall();
    if (due) await due;
  }
  for (; i < a.length; i++) merged.push(a[i] as T);
  return merged;
}
