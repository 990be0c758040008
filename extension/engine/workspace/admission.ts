// Which files enter memory, and in which order they are read. Pure. Membership is a function of files, settings and budget alone,
// so that any history of edits and restarts ends in the same memory: class by class, within a class in path order, until the
// budget is full (root-index.ts). What was asked, opened or used lately changes the order of reading, never membership.

import { comparePaths } from './walk';
import type { FileClass } from './classify';

/** What decides a file's place. */
export interface Candidate {
  readonly path: string;
  readonly class: FileClass;
}

const classOrder: Record<FileClass, number> = { code: 0, doc: 1, data: 2 };
const fileClasses = Object.keys(classOrder) as FileClass[];

/** So few come at once, as a rule. */
const fewFiles = 64;

/** Code, then documents and configuration, then data; by path. */
export function admissionOrder(a: Candidate, b: Candidate): number {
  return classOrder[a.class] - classOrder[b.class] || comparePaths(a.path, b.path);
}

/** Files in the order of admission while some come and some go: those that stay are not sorted again. */
export class AdmissionList<T extends Candidate> {
  /** Class by class, by path. */
  private readonly sorted = fileClasses.map((): readonly T[] => []);
  private readonly added = fileClasses.map((): T[] => []);
  /** A walk finds files in the order of their paths: 200,000 of them need no sorting then. */
  private readonly addedInOrder = fileClasses.map(() => true);
  private readonly removed = new Set<T>();
  private all: readonly T[] | undefined;

  add(file: T): void {
    // It may be one that was removed just now.
    if (this.removed.has(file)) this.settle();
    const i = classOrder[file.class];
    const added = this.added[i] as T[];
    const last = added[added.length - 1];
    if (last && comparePaths(last.path, file.path) > 0) this.addedInOrder[i] = false;
    added.push(file);
    this.all = undefined;
  }

  delete(file: T): void {
    this.removed.add(file);
    this.all = undefined;
  }

  clear(): void {
    this.sorted.fill([]);
    for (const files of this.added) files.length = 0;
    this.addedInOrder.fill(true);
    this.removed.clear();
    this.all = undefined;
  }

  get files(): readonly T[] {
    if (!this.all) {
      this.settle();
      // Of one class as a rule, or nearly: `concat` copies a class at once, `flat` a file at a time.
      this.all = ([] as T[]).concat(...this.sorted);
    }
    return this.all;
  }

  private settle(): void {
    const { removed } = this;
    for (const [i, sorted] of this.sorted.entries()) {
      const added = this.added[i] ?? [];
      const left = removed.size === 0 ? sorted : sorted.filter((file) => !removed.has(file));
      const more = removed.size === 0 ? [...added] : added.filter((file) => !removed.has(file));
      if (!this.addedInOrder[i]) more.sort(byPath);
      this.sorted[i] = merged(left, more);
      added.length = 0;
    }
    this.addedInOrder.fill(true);
    removed.clear();
  }
}

/** Where in files of this order one stands, or would stand. */
export function placeOf(files: readonly Candidate[], file: Candidate): number {
  return firstFrom(files, 0, (other) => admissionOrder(other, file) >= 0);
}

function byPath(a: Candidate, b: Candidate): number {
  return comparePaths(a.path, b.path);
}

/** Few into many, as a rule: between two of them what stays is not compared. */
function merged<T extends Candidate>(a: readonly T[], b: readonly T[]): readonly T[] {
  if (a.length === 0 || b.length === 0) return a.length === 0 ? b : a;
  if (b.length <= fewFiles) return withFew(a, b);
  const both: T[] = [];
  let i = 0;
  for (const file of b) {
    const end = firstFrom(a, i, (other) => comparePaths(other.path, file.path) > 0);
    for (; i < end; i++) both.push(a[i] as T);
    both.push(file);
  }
  for (; i < a.length; i++) both.push(a[i] as T);
  return both;
}

/** What stays is copied, not gone through. */
function withFew<T extends Candidate>(a: readonly T[], b: readonly T[]): readonly T[] {
  const parts: (readonly T[])[] = [];
  let i = 0;
  for (const file of b) {
    const end = firstFrom(a, i, (other) => comparePaths(other.path, file.path) > 0);
    parts.push(a.slice(i, end), [file]);
    i = end;
  }
  return ([] as T[]).concat(...parts, a.slice(i));
}

/** The first place from `start` on from where on `isBehind` holds; near ones are found soonest. */
function firstFrom<T>(files: readonly T[], start: number, isBehind: (file: T) => boolean): number {
  let step = 1;
  let low = start;
  while (low + step <= files.length && !isBehind(files[low + step - 1] as T)) {
    low += step;
    step *= 2;
  }
  let high = Math.min(files.length, low + step - 1);
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isBehind(files[middle] as T)) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * What is read when: changed files, those first that are open or recent, then these as given (newest first), then the rest as admitted.
 * Others are passed over.
 */
export function readingOrder<T>(admitted: readonly T[], changed: readonly T[], recent: readonly T[]): T[] {
  const isChanged = new Set(changed);
  const early = new Set([...recent.filter((file) => isChanged.has(file)), ...changed, ...recent]);
  if (early.size === 0) return [...admitted];
  const known = new Set(admitted.filter((file) => early.has(file)));
  return [...[...early].filter((file) => known.has(file)), ...admitted.filter((file) => !known.has(file))];
}
