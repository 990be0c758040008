// Keeps the store in order: what the engine and the manifests add is durable within about a second, half-dead files are copied,
// room is made below the cap, and what was found damaged is said. Whatever fails is tried again: nothing that is in memory is
// lost by it. One thing at a time; none of it on the engine's thread or this one. Not here: what is in the store (manifest.ts).

import { stat } from 'node:fs/promises';
import type { NativeEngine, NativeStore, Removed, StoreChange } from './addon';
import { EngineError, toEngineError } from './errors';
import { eraseRoot, isOutOfUse } from './manifest';
import type { StoreCheck } from './messages';

/** One flush for all that was added meanwhile. */
const commitEveryMs = 1000;
/** What the disk refused is tried again so often. */
const retryMs = 15_000;
/** Room that was made may be taken by the first segments of many. */
const mostTries = 8;
/** The log tells of more. */
const keptFindings = 100;

export class StoreKeeper {
  private queue: Promise<unknown> = Promise.resolve();
  private timer: NodeJS.Timeout | undefined;
  private closing: Promise<void> | undefined;
  /** What was said last: the same failure is not said with every batch. */
  private failure: string | undefined;
  /** All that was found damaged since the start, for who asks later. */
  private readonly findings: string[] = [];

  constructor(
    private readonly native: NativeEngine,
    readonly store: NativeStore,
    private readonly report: { log(line: string): void; failed(error: EngineError): void },
  ) {}

  /** At the start: the store is made on the disk, so that what is wrong with its place is said now. Never rejects. */
  async open(): Promise<void> {
    this.sayFindings();
    if (this.store.readOnly !== undefined) this.report.log(`store: it is only read: ${this.store.readOnly}`);
    else {
      await this.inTurn(async () => {
        await this.store.commit();
        await this.eraseGoneRoots();
      }).catch((error) => this.fail(error));
    }
  }

  /** Something was added: it is durable soon. */
  added(): void {
    this.commitIn(commitEveryMs);
  }

  /** Damage that opening segments has found. */
  sayFindings(): void {
    for (const line of this.store.takeFindings()) {
      this.report.log(`store: ${line}`);
      if (this.findings.length < keptFindings) this.findings.push(line);
    }
  }

  /** The store did not take some segments: room is made, where that is it, and they are tried again. */
  async refused(error: EngineError): Promise<void> {
    if (error.code !== 'store_full') return this.fail(error);
    await this.inTurn(async () => {
      const failure = await this.keep();
      if (failure) throw failure;
      this.added();
    }).catch((thrown) => this.fail(thrown));
  }

  /** What was added by now is durable when this resolves. Throws `store_unwritable`. */
  commitNow(): Promise<void> {
    return this.inTurn(async () => {
      if (this.store.readOnly === undefined) await this.store.commit();
    });
  }

  /** All that is in memory is in the store, and durable, when this resolves. Throws `store_full`, `store_unwritable`. */
  flush(): Promise<void> {
    return this.inTurn(async () => {
      const failure = await this.keep();
      if (failure) throw failure;
      if (this.store.readOnly === undefined) await this.store.commit();
    });
  }

  /** True where so many bytes more fit below the cap now: what nobody has in memory gives way. */
  makeRoom(bytes: number): Promise<boolean> {
    return this.inTurn(() => this.store.makeRoom(bytes));
  }

  /** Records of a manifest, durable when this resolves. What failed waits in the store, and is tried again. */
  async write(changes: readonly StoreChange[]): Promise<void> {
    try {
      await this.inTurn(() => this.store.write(changes));
    } catch (error) {
      this.commitIn(retryMs);
      throw error;
    }
  }

  /** Removes segments but for those in memory. Nothing of them, nor of records erased before, is on the disk then. */
  async forget(keys: Iterable<string>): Promise<Removed> {
    const removed = await this.native.removeSegments([...keys]);
    await this.inTurn(() => this.store.purge());
    return removed;
  }

  /** Reads all of it. What is damaged is dropped, what is sound moved out of damaged files. */
  verify(): Promise<StoreCheck> {
    return this.inTurn(async () => {
      const { nSegments, nFiles, bytes, nDamaged } = await this.store.verify();
      this.sayFindings();
      if (this.store.readOnly === undefined) while (await this.store.compact());
      return { segments: nSegments, files: nFiles, bytes, damaged: nDamaged, findings: this.findings.splice(0) };
    });
  }

  close(): Promise<void> {
    return (this.closing ??= this.commitAndClose());
  }

  private async commitAndClose(): Promise<void> {
    clearTimeout(this.timer);
    await this.inTurn(() => this.commit()).catch((error) => this.report.log(`store: ${toEngineError(error).message}`));
    this.sayFindings();
    this.store.close();
  }

  private commitIn(ms: number): void {
    if (this.closing || this.timer !== undefined || this.store.readOnly !== undefined) return;
    this.timer = setTimeout(() => {
      this.timer = undefined;
      void this.inTurn(async () => {
        await this.commit();
        while (!this.closing && (await this.store.compact()));
        this.failure = undefined;
      }).catch((error) => {
        this.fail(error);
        this.commitIn(retryMs);
      });
    }, ms);
    this.timer.unref();
  }

  private async commit(): Promise<void> {
    if (this.store.readOnly !== undefined) return;
    // What the store refused before: there may be room now.
    if (this.native.memory().segmentBytes > 0) {
      const failure = await this.keep();
      if (failure) this.fail(failure);
    }
    await this.store.commit();
    this.sayFindings();
  }

  /** Gives the store what it has not taken yet, with room made for it below the cap. Why some of it stays out, if it does. */
  private async keep(): Promise<EngineError | undefined> {
    for (let tries = 0; ; tries++) {
      const { failure, neededBytes } = await this.native.keepSegments();
      if (failure === undefined) return undefined;
      const error = toEngineError(failure);
      if (error.code !== 'store_full' || tries === mostTries || !(await this.store.makeRoom(neededBytes))) return error;
    }
  }

  private async eraseGoneRoots(): Promise<void> {
    for (const [root, value] of await this.store.records('roots', '')) {
      if (!isOutOfUse(value) || (await stat(root).then(() => true, () => false))) continue;
      await eraseRoot(this.store, root);
    }
  }

  private fail(thrown: unknown): void {
    const error = toEngineError(thrown);
    if (error.message !== this.failure) this.report.log(`store: ${error.code}: ${error.message}`);
    this.failure = error.message;
    this.report.failed(error);
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.queue.then(work);
    this.queue = done.catch(() => {});
    return done;
  }
}
