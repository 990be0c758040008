// Reads the roots into memory in the background: one segment after the other, what matters first. A question's segments go before
// edited files, those before open and recent ones, those before the rest in the order of admission. Files are cut ahead while the
// engine is busy, so that cutting and reading from disk hide behind encoding. Not here: what a file's segments are (root-index.ts).

import { EventEmitter } from 'node:events';
import type { Priority } from './addon';
import { EngineError, toEngineError, type EngineErrorCode } from './errors';
import type { KnownSegment } from './manifest';
import type { Coverage, IngestStatus, PauseReason } from './messages';
import type { FileRecord, RootIndex, Segment } from './root-index';
import type { SegmentMemory } from './segment-memory';
import { readingOrder } from './workspace/admission';

/** A batch is one pass of the engine or two: small enough that a question's segments need not wait. */
const batchSegments = 4;
/** So few of a question's segments at a time that a deadline is met. */
const firstSegments = 2;
/** Cut this many tokens ahead of the engine. */
const aheadTokens = 4096;
const saveEveryMs = 15_000;
/** What is admitted is looked at again so often while files are cut and their sizes become known, and at the end. */
const admitEveryMs = 5000;
/** What the machine refused is tried again so often. */
const retryMs = 15_000;
/** The pause that follows a refusal. */
const pauseAfter: Partial<Record<EngineErrorCode, PauseReason>> = { store_full: 'disk_full', out_of_memory: 'memory_full' };
/** The rate that is told is that of so long. */
const rateWindowMs = 5000;
/** Background reading keeps to one core for so long after the last key. */
const typingMs = 3000;

/** Who may want reading to pause. */
export interface Pauser {
  /** Somebody else has asked for it to go on for everyone. */
  pauseEnded(): void;
}

interface Wanted {
  readonly record: FileRecord;
  readonly segment: Segment;
}

export class Indexer extends EventEmitter<{ status: []; file: [FileRecord] }> {
  private readonly roots = new Set<RootIndex>();
  private recent = new Set<string>();
  private order: FileRecord[] | undefined;
  private cursor = 0;
  private readonly cut: FileRecord[] = [];
  private readonly pauses = new Set<PauseReason>();
  /** Who wants everything to be read in the background, and who wants nothing to be. */
  private readonly readers = new Set<object>();
  private readonly pausing = new Set<Pauser>();
  /** Raised to break off what is encoded in the background. */
  private background = new AbortController();
  /** What is encoded in the background now. */
  private inFlight: readonly Wanted[] = [];
  /** Pauses that end by themselves, since when. */
  private readonly refused = new Map<PauseReason, { readonly error: EngineError; readonly since: number }>();
  private closed = false;
  private wake: (() => void) | undefined;
  private woken = false;
  private readonly loop: Promise<void>;
  private typingUntil = 0;
  private typingTimer: NodeJS.Timeout | undefined;
  private saved = performance.now();
  private saving: Promise<void> | undefined;
  private readmitted = performance.now();
  private rate = 0;
  /** What was read lately, for whatever reason. */
  private batches: { readonly begin: number; readonly end: number; readonly tokens: number }[] = [];
  private scanning = 0;
  private active = 0;

  constructor(
    private readonly memory: SegmentMemory,
    private readonly threads: { most: number; limit(n: number): void },
    private readonly log: (line: string) => void,
    /** Memory is short: true where something gave way. */
    private readonly giveWay: () => boolean,
  ) {
    super();
    this.setMaxListeners(0);
    this.loop = this.run();
  }

  // ---- what is read -----------------------------------------------------------------------------------------------------------

  add(root: RootIndex): void {
    this.roots.add(root);
    root.on('rested', () => void this.look(() => root.lookAt([])));
    root.on('astray', () => void this.look(() => root.lookAround()));
    this.changed();
  }

  remove(root: RootIndex): void {
    this.roots.delete(root);
    this.changed();
  }

  async scan(root: RootIndex, signal?: AbortSignal): Promise<void> {
    this.scanning++;
    this.emit('status');
    try {
      await root.scan(signal);
      try {
        await root.restore();
      } catch (thrown) {
        const error = toEngineError(thrown);
        if (!this.refuse(error)) throw error;
      }
      root.readmit();
    } finally {
      this.scanning--;
      this.changed();
    }
  }

  /** Looks at files of a root, as `look` does it, and reads what is different. What goes wrong is logged. */
  async look(look: () => Promise<boolean>): Promise<void> {
    try {
      if (await look()) this.changed();
    } catch (error) {
      this.log(`looking at changes: ${toEngineError(error).message}`);
    }
  }

  /** Something about the files is different: look again at what is to be read. What nobody wants any more ends at the next step. */
  changed(): void {
    this.order = undefined;
    const isSuperseded = this.inFlight.length > 0 && this.inFlight.every(({ segment }) => !this.memory.isWanted(segment.key));
    if (isSuperseded) this.stopBackground();
    this.notify();
  }

  /** The store has segments for these bytes that this engine might have made. */
  async preferOwn(versions: ReadonlyMap<string, readonly KnownSegment[]>): Promise<void> {
    try {
      for (const root of this.roots) for (const record of await root.preferOwn(versions)) this.emit('file', record);
    } catch (thrown) {
      const error = toEngineError(thrown);
      if (!this.refuse(error)) throw error;
    }
  }

  /** Background reading goes on while anybody wants it; a question's segments are read in any case. */
  setReading(reader: object, on: boolean): void {
    if (on) this.readers.add(reader);
    else this.readers.delete(reader);
    if (this.readers.size === 0) this.stopBackground();
    this.notify();
  }

  setRecent(paths: readonly string[]): void {
    this.recent = new Set(paths);
    this.changed();
  }

  /** A user's pause, for all of the engine; it ends with whoever wanted it. `everyone`: where it ends, it does so for all of them, who are told. */
  setPausing(client: Pauser, on: boolean, everyone = false): void {
    if (on) this.pausing.add(client);
    else this.pausing.delete(client);
    if (!on && everyone) {
      for (const other of this.pausing) other.pauseEnded();
      this.pausing.clear();
    }
    if (this.pauses.has('user') !== this.pausing.size > 0) this.pause('user', this.pausing.size > 0);
  }

  pause(reason: PauseReason, paused: boolean): void {
    if (paused) this.pauses.add(reason);
    else this.pauses.delete(reason);
    if (!paused) this.refused.delete(reason);
    if (paused) this.stopBackground();
    this.notify();
  }

  /** The machine has no room: reading pauses, says so, and is tried again now and then. False for any other error. */
  refuse(error: EngineError): boolean {
    const reason = pauseAfter[error.code];
    if (reason === undefined) return false;
    this.refused.set(reason, { error, since: performance.now() });
    this.pause(reason, true);
    return true;
  }

  /** Within one step; what was encoded is kept, the rest is asked for again when there is a reason. */
  private stopBackground(): void {
    this.background.abort();
    this.background = new AbortController();
  }

  /** At most so many threads from the next step on. */
  setThreads(n: number): void {
    this.threads.most = n;
    if (!this.typingTimer) this.threads.limit(n);
  }

  /** The user is typing: one core is left for us. */
  typing(): void {
    this.typingUntil = performance.now() + typingMs;
    if (this.typingTimer) return;
    this.threads.limit(1);
    const check = (): void => {
      const left = this.typingUntil - performance.now();
      if (left > 0) {
        this.typingTimer = setTimeout(check, left);
        return;
      }
      this.typingTimer = undefined;
      this.threads.limit(this.threads.most);
    };
    this.typingTimer = setTimeout(check, typingMs);
  }

  /** Cuts a file now; its segments can be asked for then. */
  async prepare(record: FileRecord): Promise<void> {
    const before = record.current;
    await record.root.prepare(record);
    if (record.current !== before) this.emit('file', record);
    if (record.next) this.cut.push(record);
  }

  /**
   * Reads these segments before all else, ahead of the background's, which waits within a step. Resolves when they are in, at the
   * deadline (performance.now()); throws what encoding throws, 'cancelled' when aborted. `onRead` is told how many are in.
   */
  async readFirst(wanted: readonly Wanted[], deadline: number, signal: AbortSignal, onRead?: (n: number) => void): Promise<void> {
    for (let first = 0; first < wanted.length; first += firstSegments) {
      if (performance.now() >= deadline || signal.aborted || this.closed) return;
      await this.encode(wanted.slice(first, first + firstSegments), 'edit', signal);
      onRead?.(Math.min(first + firstSegments, wanted.length));
    }
  }

  /** Resolves when everything is in that can be, at the deadline, or when aborted or paused. */
  async readAll(deadline: number, signal: AbortSignal): Promise<void> {
    while (!this.idle && performance.now() < deadline && !signal.aborted && !this.closed && this.pauses.size === 0) {
      await this.nextStatus(deadline, signal);
    }
  }

  private nextStatus(deadline: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.off('status', done);
        signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, Math.min(1000, Math.max(1, deadline - performance.now())));
      this.on('status', done);
      signal.addEventListener('abort', done);
    });
  }

  // ---- numbers ----------------------------------------------------------------------------------------------------------------

  /** Measured while reading; a guess before that. */
  get tokensPerSecond(): number {
    return this.rate || 150 * this.threads.most;
  }

  /** Of the last seconds, a question's reading included; 0 while nothing is read. */
  private get recentRate(): number {
    const now = performance.now();
    const within = this.batches.filter(({ end }) => now - end < rateWindowMs);
    // A slow machine's batch may take longer than that.
    const recent = within.length === 0 && this.active > 0 ? this.batches.slice(-1) : within;
    const begin = Math.min(...recent.map((batch) => batch.begin));
    const tokens = recent.reduce((sum, batch) => sum + batch.tokens, 0);
    return tokens === 0 ? 0 : (1000 * tokens) / Math.max(1, now - begin);
  }

  get idle(): boolean {
    if (this.scanning > 0 || this.active > 0) return false;
    for (const root of this.roots) if (!root.isRead) return false;
    return true;
  }

  static total(roots: Iterable<RootIndex>): Coverage {
    const total = { files: 0, tokens: 0, total_files: 0, total_tokens: 0, estimated: false };
    for (const root of roots) {
      const part = root.count();
      total.files += part.files;
      total.tokens += part.tokens;
      total.total_files += part.total_files;
      total.total_tokens += part.total_tokens;
      total.estimated ||= part.estimated;
    }
    return total;
  }

  status(roots: Iterable<RootIndex>): IngestStatus {
    const list = [...roots];
    const coverage = Indexer.total(list);
    const [reason] = this.pauses;
    const idle = this.idle;
    const left = coverage.total_tokens - coverage.tokens;
    return {
      state: this.scanning > 0 ? 'scanning' : reason ? 'paused' : idle || this.readers.size === 0 ? 'idle' : 'reading',
      ...(reason && { reason }),
      coverage,
      encoded_tokens: list.reduce((sum, root) => sum + root.nEncoded, 0),
      reused_tokens: list.reduce((sum, root) => sum + root.nReused, 0),
      tokens_per_s: Math.round(this.recentRate),
      ...(this.rate > 0 && !idle && { seconds_left: Math.round(left / this.rate) }),
    };
  }

  // ---- the loop -----------------------------------------------------------------------------------------------------------------

  private notify(): void {
    this.woken = true;
    this.wake?.();
    this.emit('status');
  }

  private async run(): Promise<void> {
    while (!this.closed) {
      this.woken = false;
      try {
        const batch = await this.nextBatch();
        if (batch.length > 0) {
          const edited = batch.some(({ record }) => record.current !== undefined);
          this.inFlight = batch;
          const encoded = this.encode(batch, edited ? 'edit' : 'ingest', this.background.signal).finally(() => (this.inFlight = []));
          await Promise.all([encoded, this.cutAhead()]);
          this.saveNowAndThen();
        } else {
          this.saveNowAndThen();
          this.emit('status');
          await this.sleep();
        }
      } catch (thrown) {
        const error = toEngineError(thrown);
        if (error.code === 'cancelled') continue;
        if (error.code === 'out_of_memory' && this.giveWay()) continue;
        this.log(`reading: ${error.code}: ${error.message}`);
        this.refuse(error);
        await this.sleep();
      }
    }
  }

  private sleep(): Promise<void> {
    return new Promise((resolve) => {
      // Woken since the last look at what there is to do.
      if (this.closed || this.woken) return resolve();
      const done = (): void => {
        clearTimeout(timer);
        this.wake = undefined;
        resolve();
      };
      const timer = setTimeout(done, 5000);
      timer.unref();
      this.wake = done;
    });
  }

  private async nextBatch(): Promise<Wanted[]> {
    for (const [reason, { since }] of this.refused) if (performance.now() - since > retryMs) this.pauses.delete(reason);
    if (this.readers.size === 0 || this.pauses.size > 0) return [];
    this.active++;
    try {
      await this.cutAhead();
    } finally {
      this.active--;
    }
    const batch: Wanted[] = [];
    while (this.cut.length > 0 && batch.length < batchSegments) {
      const record = this.cut[0] as FileRecord;
      const isOurs = this.stillOurs(record);
      const missing = isOurs ? record.root.missing(record) : [];
      // What it lacked was read for another file of the same segments.
      if (isOurs && missing.length === 0 && record.root.promote(record)) this.emit('file', record);
      // It is being looked up in the store: whoever does that has it cut if it is not there.
      if (missing.some(({ tokens }) => tokens === undefined)) {
        this.cut.shift();
        continue;
      }
      const queued = new Set(batch.map(({ segment }) => segment));
      for (const segment of missing) if (!queued.has(segment) && batch.length < batchSegments) batch.push({ record, segment });
      if (missing.every((segment) => batch.some((wanted) => wanted.segment === segment))) this.cut.shift();
      else break;
    }
    return batch;
  }

  private stillOurs(record: FileRecord): boolean {
    return this.roots.has(record.root) && record.root.records.get(record.path) === record && record.next !== undefined;
  }

  /** Cuts files in order until enough tokens wait for the engine. */
  private async cutAhead(): Promise<void> {
    let waiting = 0;
    for (const record of this.cut) if (this.stillOurs(record)) for (const { nTokens } of record.root.missing(record)) waiting += nTokens;
    while (waiting < aheadTokens && !this.closed && this.pauses.size === 0) {
      const record = this.nextFile();
      if (!record) return;
      const before = this.cut.length;
      await this.prepare(record);
      this.emit('file', record);
      for (const cut of this.cut.slice(before)) for (const { nTokens } of cut.root.missing(cut)) waiting += nTokens;
    }
  }

  private nextFile(): FileRecord | undefined {
    if (performance.now() - this.readmitted > admitEveryMs) this.readmit();
    return this.nextInOrder() ?? (this.readmit() ? this.nextInOrder() : undefined);
  }

  /** True where what is admitted may be different now. */
  private readmit(): boolean {
    this.readmitted = performance.now();
    const roots = [...this.roots].filter((root) => root.needsAdmission);
    for (const root of roots) root.readmit();
    if (roots.length > 0) this.order = undefined;
    return roots.length > 0;
  }

  private nextInOrder(): FileRecord | undefined {
    this.order ??= this.sorted();
    for (; this.cursor < this.order.length; this.cursor++) {
      const record = this.order[this.cursor] as FileRecord;
      // A file that turned out to be gone is no record any more, and would be tried for ever.
      const isOurs = this.roots.has(record.root) && record.root.records.get(record.path) === record;
      if (isOurs && record.root.needsCut(record)) return record;
    }
    return undefined;
  }

  private sorted(): FileRecord[] {
    this.cursor = 0;
    const roots = [...this.roots];
    for (const record of roots.flatMap((root) => root.beingRead())) if (!this.cut.includes(record)) this.cut.push(record);
    const waiting = roots.flatMap((root) => root.waiting());
    const recent = [...this.recent].flatMap((file) => roots.flatMap((root) => root.recordAt(file) ?? []));
    return readingOrder(waiting, waiting.filter((record) => record.current !== undefined), recent);
  }

  private async encode(batch: readonly Wanted[], priority: Priority, signal: AbortSignal): Promise<void> {
    const segments = batch.flatMap(({ segment }) =>
      segment.tokens ? [{ key: segment.key, tokens: segment.tokens, headerTokens: segment.headerTokens }] : [],
    );
    const fresh = batch.filter(({ segment }) => this.memory.handleOf(segment.key) === undefined);
    this.active++;
    try {
      const begin = performance.now();
      const { tokens, seconds } = await this.memory.encode(segments, priority, signal);
      const end = performance.now();
      if (tokens > 0) this.batches = [...this.batches.filter((batch) => end - batch.end < rateWindowMs), { begin, end, tokens }];
      // An edit's one segment says little about the rate, and a pass that was made to wait nothing.
      if (tokens > 0 && priority === 'ingest') this.rate = this.rate === 0 ? tokens / seconds : 0.8 * this.rate + 0.2 * (tokens / seconds);
      if (tokens > 0) for (const { record, segment } of fresh) record.root.nEncoded += segment.nTokens;
    } catch (error) {
      // What was broken off is asked for again.
      for (const { record } of batch) if (!this.cut.includes(record)) this.cut.unshift(record);
      throw error;
    } finally {
      this.active--;
      for (const record of new Set(batch.map((wanted) => wanted.record))) {
        record.root.promote(record);
        this.emit('file', record);
        if (record.next && !this.cut.includes(record)) this.cut.unshift(record);
      }
      this.emit('status');
    }
  }

  /** In the background: a slow disk is not to hold up what is read next. */
  private saveNowAndThen(): void {
    if (this.saving || (performance.now() - this.saved < saveEveryMs && !this.idle)) return;
    this.saved = performance.now();
    this.saving = this.saveAll()
      .catch((thrown) => {
        const error = toEngineError(thrown);
        this.log(`reading: ${error.code}: ${error.message}`);
        this.refuse(error);
      })
      .finally(() => (this.saving = undefined));
  }

  private async saveAll(): Promise<void> {
    for (const root of this.roots) await root.save();
  }

  async close(): Promise<void> {
    this.closed = true;
    clearTimeout(this.typingTimer);
    this.stopBackground();
    this.notify();
    await this.loop;
    await this.saving;
    for (const root of this.roots) {
      try {
        await root.save();
      } catch (error) {
        this.log(`manifest of a root: ${toEngineError(error).message}`);
      }
    }
  }

  /** Throws what keeps the background from going on, where something does. */
  throwIfStopped(): void {
    for (const [reason, { error }] of this.refused) if (this.pauses.has(reason)) throw error;
  }
}
