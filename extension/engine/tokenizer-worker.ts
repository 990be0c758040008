// Tokenizing and cutting in a thread of their own, so that a large file never keeps the engine process from answering. This file
// is both ends: the client, and, in the bundle that the thread runs, the thread.

import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { assetPath } from './assets';
import { EngineError, toEngineError, type EngineErrorCode } from './errors';
import { readModelFolder } from './model-folder';
import { Tokenizer } from './tokenizer';
import { grammarFor } from './workspace/grammars';
import { cutFile, type SegmentCut } from './workspace/segmenter';

export interface Cutter {
  /** Segments of a file (segmenter.ts). `bytes` must be UTF-8; they are copied. Requests are answered in their order. */
  cut(path: string, bytes: Uint8Array): Promise<SegmentCut[]>;
  /** Ends the thread; what is pending is rejected with `cancelled`. */
  close(): Promise<void>;
}

interface SegmentRequest {
  readonly type: 'segment';
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

interface Pending {
  resolve(segments: SegmentCut[]): void;
  reject(error: EngineError): void;
}

class ThreadCutter implements Cutter {
  private worker: Worker | undefined;
  private starting: Promise<void> | undefined;
  private readonly pending = new Map<number, Pending>();
  private nextId = 0;
  private closed = false;

  constructor(
    private readonly modelDir: string,
    private readonly script: string,
  ) {}

  start(): Promise<void> {
    this.starting ??= this.launch().catch((error: unknown) => {
      this.starting = undefined;
      throw error;
    });
    return this.starting;
  }

  async cut(path: string, bytes: Uint8Array): Promise<SegmentCut[]> {
    // A thread that died (out of memory, a fault in a grammar) took its requests with it; the next one gets another thread.
    await this.start();
    return new Promise((resolve, reject) => {
      if (this.worker === undefined) return reject(new EngineError('cancelled', `${path}: not cut, the engine closes`));
      const id = this.nextId++;
      this.pending.set(id, { resolve, reject });
      this.worker.ref();
      this.worker.postMessage({ type: 'segment', id, path, bytes } satisfies SegmentRequest);
    });
  }

  async close(): Promise<void> {
    this.closed = true;
    const worker = this.worker;
    this.ended(worker, new EngineError('cancelled', 'not cut, the engine closes'));
    await worker?.terminate();
  }

  private launch(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.closed) return reject(new EngineError('cancelled', 'not cut, the engine closes'));
      const worker = new Worker(this.script, { workerData: { salaModelDir: this.modelDir } satisfies ThreadData });
      this.worker = worker;
      const fail = (error: EngineError): void => {
        this.ended(worker, error);
        reject(error);
      };
      worker.on('error', (error) => fail(new EngineError('internal', `tokenizer thread: ${error.message}`, { cause: error })));
      worker.on('exit', (code) => fail(new EngineError('internal', `tokenizer thread: ended with code ${code}`)));
      worker.on('message', (reply: Reply) => {
        if (reply.type === 'ready') {
          if (this.pending.size === 0) worker.unref();
          return resolve();
        }
        const error = reply.type === 'failed' ? new EngineError(reply.code, reply.message) : undefined;
        if (reply.id === undefined) {
          fail(error as EngineError);
          void worker.terminate();
          return;
        }
        const request = this.pending.get(reply.id);
        this.pending.delete(reply.id);
        if (this.pending.size === 0) worker.unref();
        if (reply.type === 'segments') request?.resolve(reply.segments);
        else request?.reject(error as EngineError);
      });
    });
  }

  /** After this the next request starts another thread. */
  private ended(worker: Worker | undefined, error: EngineError): void {
    if (this.worker !== worker) return;
    this.worker = undefined;
    this.starting = undefined;
    for (const request of this.pending.values()) request.reject(error);
    this.pending.clear();
  }
}

// ---- thread -------------------------------------------------------------------------------------------------------------

async function serve(port: NonNullable<typeof parentPort>, { salaModelDir }: ThreadData): Promise<void> {
  const post = (reply: Reply, transfer: ArrayBuffer[] = []): void => port.postMessage(reply, transfer);
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
        post({ type: 'failed', id, code, message });
      }
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
