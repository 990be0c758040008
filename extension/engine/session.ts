// What the engine process does for its clients: one `EngineCore` holds the loaded model and the store, one `ClientSession` the
// roots, settings and documents of a connection. The process around it (socket, start, end) is lifecycle.ts and server.ts.

import type { NotificationType } from 'vscode-jsonrpc/node';
import type { Activations } from './addon';
import type * as messages from './messages';

export interface CoreOptions {
  /** Absent: the embedded model. */
  readonly modelDir?: string;
  /** The store folder of this model (store-folder.ts), already made; absent: nothing is kept. */
  readonly store?: string;
  readonly activations: Activations;
  readonly threads?: number;
  readonly maxMemoryBytes?: number;
  readonly maxDiskBytes?: number;
  onProgress(message: string, fraction?: number): void;
  /** One line for the log; never text of the workspace. */
  log(line: string): void;
}

/** Loads the model. Fails with the loader's EngineError. */
export type LoadCore = (options: CoreOptions) => Promise<EngineCore>;

export interface SessionClient {
  readonly kind: messages.HelloParams['client'];
  notify<P>(type: NotificationType<P>, params: P): void;
}

export interface EngineCore {
  hello(): messages.HelloResult;
  createSession(client: SessionClient): ClientSession;
  /** Cancels everything and frees the model. */
  close(): Promise<void>;
}

/** The messages of one connection. Every failure is an EngineError. */
export interface ClientSession {
  open(params: messages.OpenParams): Promise<messages.Coverage>;
  /** Cancelling still resolves, with stop 'cancelled' and what had come. */
  ask(params: messages.AskParams, signal: AbortSignal): Promise<messages.AskResult>;
  complete(params: messages.CompleteParams, signal: AbortSignal): Promise<messages.CompleteResult>;
  place(params: messages.CompleteParams): void;
  ingest(signal: AbortSignal): Promise<messages.IngestResult>;
  coverage(params: { path?: string }): Promise<readonly messages.FileCoverage[]>;
  coverageLevel(place: messages.CoveragePlace): Promise<messages.CoverageLevel>;
  coverageOf(params: { paths: readonly string[] }): Promise<readonly (messages.FileCoverage | null)[]>;
  pause(params: messages.PauseParams): void;
  settings(params: Partial<messages.EngineSettings>): void;
  typing(): void;
  filesChanged(params: { paths: readonly string[]; missed?: boolean }): void;
  recentFiles(params: { paths: readonly string[] }): void;
  document(params: { path: string; text: string | null }): void;
  forget(): Promise<{ segments: number; bytes: number }>;
  verify(): Promise<messages.StoreCheck>;
  exportPack(params: { file: string }, signal: AbortSignal): Promise<messages.ExportResult>;
  importPack(params: { file: string }, signal: AbortSignal): Promise<messages.ImportResult>;
  /** The client is gone: cancels its work and lets go of its roots. */
  close(): Promise<void>;
}
