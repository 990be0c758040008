// Tokenizing and cutting in a thread of their own, so that a large file never keeps the engine process from answering. This file
// is both ends: the client, and, in the bundle that the thread runs, the thread.

import os from 'node:os';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { assetPath } from './assets';
import { EngineError, toEngineError, type EngineErrorCode } from './errors';
import { readModelFolder } from './model-folder';
import { Tokenizer } from './tokenizer';
import { grammarFor, parserIsSuspect } from './workspace/grammars';
import { cutFile, type SegmentCut } from './workspace/segmenter';

export interface Cutter {
  /** Segments of a file (segmenter.ts). `bytes` must be UTF-8; they are copied. Requests are answered in their order. */
  cut(path: string, bytes: Uint8Array): Promise<SegmentCut[]>;
  /** Ends the thread; what is pending is rejected with `cancelled`. */
  close(): Promise<void>;
}

interface SegmentRequest {
  readonly id: number;
  readonly path: string;
  readonly bytes: Uint8Array;
}

type Reply =
  | { readonly type: 'ready' }
  | { readonly type: 'segments'; readonly id: number; readonly segments: SegmentCut[] }
  /** Without id: the thread could not start. */
  | { readonly type: 'failed'; readonly id?: number; readonly code: EngineErrorCode; readonly message: string };

interface ThreadData {
  readonly salaModelDir: string;
}

// ---- client -------------------------------------------------------------------------------------------------------------

/** Starts the thread. Rejects with what the model folder lacks, as the thread finds it. */
export async function createCutter(modelDir: string, script = assetPath('tokenizer-worker.cjs')): Promise<Cutter> {
  const cutter = new ThreadCutter(modelDir, script);
  await cutter.start();
  return cutter;
}

/** The same, not waiting for the thread: what keeps it from starting is told to whoever has something cut, and it is tried again then. */
export function startCutter(modelDir: string, script = assetPath('tokenizer-worker.cjs')): Cutter {
  const cutter = new ThreadCutter(modelDir, script);
  cutter.start().catch(() => {});
  return cutter;
}

interface Pending {
  readonly request: SegmentRequest;
  resolve(segments: SegmentCut[]): void;
  reject(error: EngineError): void;
}

class ThreadCutter implements Cutter {
  private worker: Worker | undefined;
  /** Oldest first: the first one is what the thread works on. */
  private readonly pending = new Map<number, Pending>();
  private nextId = 0;
  private closed = false;

  constructor(
    private readonly modelDir: string,
    private readonly script: string,
  ) {}

  /** Resolves when the thread is ready, or rejects. */
  start(): Promise<void> {
    return new Promise((resolve, reject) => {
      const worker = new Worker(this.script, { workerData: { salaModelDir: this.modelDir } satisfies ThreadData });
      this.worker = worker;
      let ready = false;
      let failure: EngineError | undefined;
      worker.on('error', (error) => (failure = new EngineError('internal', `tokenizer thread: ${error.message}`, { cause: error })));
      worker.on('exit', (code) => {
        failure ??= new EngineError('internal', `tokenizer thread: ended with code ${code}`);
        reject(failure);
        this.ended(worker, code === 0 ? undefined : failure, ready);
      });
      worker.on('message', (reply: Reply) => {
        if (reply.type === 'ready') {
          ready = true;
          this.release();
          resolve();
        } else if (reply.type === 'failed' && reply.id === undefined) {
          failure = new EngineError(reply.code, reply.message);
          void worker.terminate();
        } else {
          const id = reply.id as number;
          const request = this.pending.get(id);
          this.pending.delete(id);
          this.release();
          if (reply.type === 'segments') request?.resolve(reply.segments);
          else request?.reject(new EngineError(reply.code, reply.message));
        }
      });
    });
  }

  cut(path: string, bytes: Uint8Array): Promise<SegmentCut[]> {
    return new Promise((resolve, reject) => {
      if (this.closed) return reject(closing());
      const request = { id: this.nextId++, path, bytes };
      this.pending.set(request.id, { request, resolve, reject });
      if (this.worker === undefined) return this.restart();
      this.worker.ref();
      this.worker.postMessage(request);
    });
  }

  async close(): Promise<void> {
    this.closed = true;
    this.rejectAll(closing());
    await this.worker?.terminate();
  }

  /** Without a failure the thread asked to be replaced (parserIsSuspect). What it had not begun goes to the next one. */
  private ended(worker: Worker, failure: EngineError | undefined, wasReady: boolean): void {
    if (this.worker === worker) this.worker = undefined;
    if (this.closed) return;
    if (!wasReady) return this.rejectAll(failure ?? new EngineError('internal', 'tokenizer thread: ended before it was ready'));
    const [oldest] = this.pending.values();
    if (failure !== undefined && oldest !== undefined) {
      this.pending.delete(oldest.request.id);
      oldest.reject(failure);
    }
    if (this.pending.size > 0) this.restart();
  }

  private restart(): void {
    this.start().catch(() => {}); // `ended` has told everyone who waits.
    for (const { request } of this.pending.values()) this.worker?.postMessage(request);
  }

  /** An idle thread does not keep the process alive. One that is being ended does, until it has: a late reply changes nothing. */
  private release(): void {
    if (this.pending.size === 0 && !this.closed) this.worker?.unref();
  }

  private rejectAll(error: EngineError): void {
    for (const { reject } of this.pending.values()) reject(error);
    this.pending.clear();
  }
}

function closing(): EngineError {
  return new EngineError('cancelled', 'not cut, the engine closes');
}

// ---- thread -------------------------------------------------------------------------------------------------------------

async function serve(port: NonNullable<typeof parentPort>, { salaModelDir }: ThreadData): Promise<void> {
  const post = (reply: Reply, transfer: ArrayBuffer[] = []): void => port.postMessage(reply, transfer);
  // The editor and answers come first. Linux gives a thread a niceness of its own; elsewhere it would be the whole process's.
  const lowered = os.constants.priority.PRIORITY_BELOW_NORMAL;
  if (process.platform === 'linux' && os.getPriority() < lowered) os.setPriority(lowered);
  const folder = await readModelFolder(salaModelDir);
  const tokenizer = new Tokenizer(folder);
  // One after the other: a grammar that is being loaded must not let a later request overtake.
  let last = Promise.resolve();
  port.on('message', ({ id, path, bytes }: SegmentRequest) => {
    last = last.then(async () => {
      try {
        const segments = cutFile(path, bytes, { tokenizer, segment: folder.sala.segment, grammar: await grammarFor(path) });
        post({ type: 'segments', id, segments }, segments.map(({ tokens }) => tokens.buffer as ArrayBuffer));
      } catch (error) {
        const { code, message } = toEngineError(error);
        // Without an answer the request goes to the next thread.
        if (!parserIsSuspect()) post({ type: 'failed', id, code, message });
      }
      if (parserIsSuspect()) process.exit(0); // Of this thread only; what was posted still arrives.
    });
  });
  post({ type: 'ready' });
}

// The engine's own bundle holds this file too, and a test may run it in a thread of another kind.
const data = workerData as Partial<ThreadData> | null;
if (!isMainThread && parentPort !== null && typeof data?.salaModelDir === 'string') {
  const port = parentPort;
  serve(port, data as ThreadData).catch((error: unknown) => {
    const { code, message } = toEngineError(error);
    port.postMessage({ type: 'failed', code, message } satisfies Reply);
  });
}
