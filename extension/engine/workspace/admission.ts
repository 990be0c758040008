// Which files enter memory, and in which order they are read. Pure. Membership is a function of files, settings and budget alone,
// so that any history of edits and restarts ends in the same memory: class by class, within a class in path order, until the
// budget is full. What was asked, opened or used lately changes the order of reading, never membership.

import { comparePaths } from './walk';
import type { FileClass } from './classify';

/** What decides a file's place. */
export interface Candidate {
  readonly path: string;
  readonly class: FileClass;
}

const classOrder: Record<FileClass, number> = { code: 0, doc: 1, data: 2 };
const fileClasses = Object.keys(classOrder) as FileClass[];

/** Code, then documents and configuration, then data; by path. */
export function admissionOrder(a: Candidate, b: Candidate): number {
  return classOrder[a.class] - classOrder[b.class] || comparePaths(a.path, b.path);
}

/** Files in the order of admission while some come and some go: those that stay are not sorted again. */
export class AdmissionList<T extends Candidate> {
  private sorted: T[] = [];
  private readonly added = new Set<T>();
  private readonly removed = new Set<T>();

  add(file: T): void {
    this.added.add(file);
  }

  delete(file: T): void {
    if (!this.added.delete(file)) this.removed.add(file);
  }

  clear(): void {
    this.sorted = [];
    this.added.clear();
    this.removed.clear();
  }

  get files(): readonly T[] {
    if (this.added.size > 0 || this.removed.size > 0) {
      const left = this.removed.size === 0 ? this.sorted : this.sorted.filter((file) => !this.removed.has(file));
      // Class by class: a walk finds them in the order of their paths, which costs no sorting then.
      const added = fileClasses.flatMap((one) => [...this.added].filter((file) => file.class === one).sort(admissionOrder));
      this.sorted = merged(left, added);
      this.added.clear();
      this.removed.clear();
    }
    return this.sorted;
  }
}

function merged<T extends Candidate>(a: readonly T[], b: readonly T[]): T[] {
  const both: T[] = [];
  let i = 0;
  for (const file of b) {
    for (let next = a[i]; next !== undefined && admissionOrder(next, file) <= 0; next = a[++i]) both.push(next);
    both.push(file);
  }
  for (; i < a.length; i++) both.push(a[i] as T);
  return both;
}

/**
 * How many of `order` fit: its longest beginning within the budget. Nothing behind the first file that does not fit enters, however
 * small: otherwise an edit of one file could swap others far away, and "the budget ends here" would explain nothing.
 */
export function admit<T>(order: readonly T[], tokensOf: (file: T) => number, budgetTokens: number): number {
  let tokens = 0;
  let n = 0;
  for (const file of order) {
    tokens += tokensOf(file);
    if (tokens > budgetTokens) break;
    n++;
  }
  return n;
}

/** What is read when: changed files, then open and recent ones as given (newest first), then the rest as admitted. Others are passed over. */
export function readingOrder<T>(admitted: readonly T[], changed: readonly T[], recent: readonly T[]): T[] {
  const known = new Set(admitted);
  return [...new Set([...changed, ...recent, ...admitted])].filter((file) => known.has(file));
}
