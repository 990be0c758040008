// All files of a root with what became of them, as they are at one moment. 200,000 of them are gathered in turns, while files go on
// changing: the list is told what does, and looks at that again. What a path is, its owner says. Not here: levels of a tree
// (coverage-tree.ts), for which each file is as it is when its turn comes.

import type { FileCoverage } from './messages';
import { inTurns } from './turns';

/** So many are looked at again in a moment. */
const fewChanges = 500;
/** Where as much changes all the time, the last look is a long one. */
const mostRounds = 8;

export interface ListedPaths {
  /** What there is at all; more may come and go while it is gone through. */
  all(): Iterable<string>;
  at(path: string): FileCoverage | undefined;
  /** Has the list told all that changed. */
  settle(): void;
}

export class CoverageList {
  private readonly files = new Map<string, FileCoverage>();
  private readonly changed = new Set<string>();
  private isOld = true;

  /** `paths` is to tell of changes until the list is closed. */
  constructor(
    private readonly paths: ListedPaths,
    readonly close: () => void,
  ) {}

  /** What is there at a path may be something else. */
  change(path: string): void {
    if (!this.isOld) this.changed.add(path);
  }

  /** Everything may be. */
  changeAll(): void {
    this.isOld = true;
  }

  /** So that `now` takes but a moment. */
  async gather(): Promise<void> {
    this.paths.settle();
    for (let round = 0; round < mostRounds && (this.isOld || this.changed.size > fewChanges); round++) {
      await inTurns(this.takeOld(), (path) => this.put(path));
      this.paths.settle();
    }
  }

  /** All files as they are, in no order. */
  now(): FileCoverage[] {
    this.paths.settle();
    for (const path of this.takeOld()) this.put(path);
    return [...this.files.values()];
  }

  private takeOld(): Iterable<string> {
    const changed = [...this.changed];
    this.changed.clear();
    if (!this.isOld) return changed;
    this.isOld = false;
    this.files.clear();
    return this.paths.all();
  }

  private put(path: string): void {
    const coverage = this.paths.at(path);
    if (coverage) this.files.set(path, coverage);
    else this.files.delete(path);
  }
}
