// The client's side of starting an engine process: spawns it detached, listens to its report until it can be connected to, and
// afterwards knows how it ended, in words for the user. Who becomes the engine is decided among the processes (lifecycle.ts).

import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Duplex } from 'node:stream';
import path from 'node:path';
import { EngineError, isErrorCode } from './errors';
import type { StartReport } from './lifecycle';
import { lastLines } from './log-file';
import { formatEngineArgs, type EngineOptions } from './options';

const reportFd = 3;
const stderrTailChars = 4000;

export interface Listening {
  readonly socket: string;
  readonly store: string;
  readonly name: string;
}

export interface Launched {
  /** Fails with the process's own reason, or with how it ended. */
  readonly listening: Promise<Listening>;
  /** How the process ended, once it has. It may be another than the one that serves: candidates that lost end with code 0. */
  readonly ended: Promise<EngineError>;
}

/**
 * For glibc's allocator, read when a process starts. Tails come and go by the megabyte, from any thread: left to itself it gives each
 * thread an arena of its own, and after the first ones no large block back to the system, so that memory grows for half an hour.
 */
const allocator = { MALLOC_ARENA_MAX: '2', MALLOC_MMAP_THRESHOLD_: String(1 << 18) };

/** `engine` is the bundle of process.ts. After `signal` a process that does not listen yet ends by itself. */
export function launchEngine(
  engine: string,
  options: EngineOptions,
  onProgress: (message: string) => void,
  signal: AbortSignal,
): Launched {
  const env: NodeJS.ProcessEnv = { ...process.env, ELECTRON_RUN_AS_NODE: '1' };
  // Debuggers and loaders of the editor's own process are not meant for another one.
  delete env['NODE_OPTIONS'];
  Object.assign(env, allocator);
  const child = spawn(process.execPath, [engine, ...formatEngineArgs({ ...options, reportFd })], {
    detached: true,
    // A workspace as working directory could not be unmounted or renamed while the engine runs.
    cwd: path.parse(process.execPath).root,
    env,
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
    windowsHide: true,
  });
  const stderrTail = tailOf(child);
  const report = child.stdio[reportFd] as Duplex;
  // Neither the process nor its pipes keep the client alive.
  child.unref();
  for (const stream of [report, child.stderr]) (stream as unknown as { unref?(): void } | null)?.unref?.();

  const ended = new Promise<EngineError>((resolve) => {
    child.on('error', (error) => {
      resolve(new EngineError('engine_unreachable', `expected to start ${process.execPath}, found: ${error.message}`, { cause: error }));
    });
    child.on('exit', (code, signal) => resolve(describeEnd(`the engine process ${child.pid ?? ''} (${engine}) to run`, code, signal, stderrTail())));
  });
  const listening = new Promise<Listening>((resolve, reject) => {
    // Holds the client's event loop while it waits: a command line has nothing else to do.
    const waiting = setInterval(() => {}, 1 << 30);
    const settle = (act: () => void): void => {
      clearInterval(waiting);
      report.destroy();
      act();
    };
    report.on('error', () => {});
    signal.addEventListener('abort', () => settle(() => reject(new EngineError('cancelled', 'given up while the engine was starting'))), {
      once: true,
    });
    createInterface({ input: report }).on('line', (line) => {
      const message = parseReport(line);
      if (!message) return;
      if ('progress' in message) onProgress(message.progress);
      else if ('listening' in message) {
        settle(() => resolve({ socket: message.listening, store: message.store, name: message.name }));
      } else {
        const { code, message: text } = message.failure;
        settle(() => reject(new EngineError(isErrorCode(code) ? code : 'internal', text)));
      }
    });
    // A report written right before the end is still read: its pipe closes after its last line.
    void ended.then((error) => setTimeout(() => settle(() => reject(error)), 100));
  });
  listening.catch(() => {});
  return { listening, ended };
}

/** The reason for the user, from exit code, signal and the last words of a process that was `expected` to do something. */
export function describeEnd(expected: string, code: number | null, signal: NodeJS.Signals | null, lastWords: string): EngineError {
  const words = lastWords.trim() === '' ? '' : `; its last words: ${lastWords.trim().split('\n').slice(-6).join(' | ')}`;
  const what = `expected ${expected}, found: `;
  switch (signal) {
    case 'SIGILL':
      return new EngineError(
        'unsupported',
        `${what}stopped by SIGILL: the native engine uses an instruction that this processor lacks${words}`,
      );
    case 'SIGKILL':
      return new EngineError('engine_unreachable', `${what}killed (SIGKILL), by somebody or by the system for lack of memory${words}`);
    case null:
      return new EngineError('engine_unreachable', `${what}ended with exit code ${code}${words}`);
    default:
      return new EngineError('engine_unreachable', `${what}stopped by ${signal}${words}`);
  }
}

/** The same for an engine that another client launched: what it wrote into its log is all there is. */
export function describeLoss(store: string, pid: number): EngineError {
  const lines = lastLines(store, pid, 3).join(' | ');
  return new EngineError('engine_unreachable', `the engine process ${pid} ended${lines === '' ? '' : `; its log ends with: ${lines}`}`);
}

function parseReport(line: string): StartReport | undefined {
  try {
    return JSON.parse(line) as StartReport;
  } catch {
    return undefined;
  }
}

function tailOf(child: ChildProcess): () => string {
  let text = '';
  child.stderr?.setEncoding('utf8').on('data', (part: string) => (text = (text + part).slice(-stderrTailChars)));
  child.stderr?.on('error', () => {});
  return () => text;
}
