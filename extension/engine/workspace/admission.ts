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

/** What is read when: changed files, then open and recent ones as given (newest first), then the rest as admitted. Others are passed over. */
export function readingOrder<T>(admitted: readonly T[], changed: readonly T[], recent: readonly T[]): T[] {
  const known = new Set(admitted);
  return [...new Set([...changed, ...recent, ...admitted])].filter((file) => known.has(file));
}
