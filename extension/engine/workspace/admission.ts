// Which files enter memory, and in which order they are read. Pure. Membership is a function of files, settings and budget alone,
// so that any history of edits and restarts ends in the same memory: class by class, within a class in path order, until the
// budget is full. What was asked, opened or used lately changes the order of reading, never membership.

import { comparePaths } from './walk';
import type { FileClass } from './classify';

export interface Candidate {
  /** Absent where all are of one root. */
  readonly root?: string;
  readonly path: string;
  readonly class: FileClass;
  /** Counted, or estimated from bytes while the file is not tokenized. */
  readonly tokens: number;
}

export interface Admission<T extends Candidate> {
  /** In the order of admission. */
  readonly admitted: readonly T[];
  readonly over: readonly T[];
  readonly tokens: number;
}

const classOrder: Record<FileClass, number> = { code: 0, doc: 1, data: 2 };

/** Code, then documents and configuration, then data; by path, and by root where paths are the same. */
export function admissionOrder(a: Candidate, b: Candidate): number {
  return classOrder[a.class] - classOrder[b.class] || comparePaths(a.path, b.path) || comparePaths(a.root ?? '', b.root ?? '');
}

/**
 * The longest beginning of the order that fits. Nothing behind the first file that does not fit enters, however small:
 * otherwise an edit of one file could swap others far away, and "the budget ends here" would explain nothing.
 */
export function admit<T extends Candidate>(candidates: Iterable<T>, budgetTokens: number): Admission<T> {
  const order = [...candidates].sort(admissionOrder);
  let tokens = 0;
  let n = 0;
  for (const candidate of order) {
    if (tokens + candidate.tokens > budgetTokens) break;
    tokens += candidate.tokens;
    n++;
  }
  return { admitted: order.slice(0, n), over: order.slice(n), tokens };
}

interface Named {
  readonly root: string;
  readonly path: string;
}

/**
 * What is read when: matches of a waiting question as ranked, then open and recent files as given (newest first), then the
 * rest as admitted. Names that were not admitted are passed over: a question reads those by itself, for its own answer.
 */
export function readingOrder<T extends Named>(admitted: readonly T[], matches: readonly Named[] = [], recent: readonly Named[] = []): T[] {
  const keyOf = ({ root, path }: Named): string => `${root}\0${path}`;
  // A Map keeps the order of insertion, and deleting what was taken leaves the rest in its order.
  const left = new Map(admitted.map((file) => [keyOf(file), file]));
  const order: T[] = [];
  for (const name of [...matches, ...recent]) {
    const file = left.get(keyOf(name));
    if (file === undefined) continue;
    left.delete(keyOf(name));
    order.push(file);
  }
  return [...order, ...left.values()];
}
