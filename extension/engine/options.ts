// What an engine process is started with, as its command line: written by the client, read by the process, and used by both to
// find a running engine. Knows nothing of settings that may change while an engine runs (messages.ts).

import path from 'node:path';
import { parseArgs } from 'node:util';
import type { Activations } from './addon';
import { EngineError } from './errors';

export interface EngineOptions {
  /** Absolute model folder; absent: the embedded model (model-folder.ts). */
  readonly model?: string;
  /** Folder that holds the store folders; absent: the system's cache folder (store-folder.ts). */
  readonly store?: string;
  readonly activations: Activations;
  readonly threads?: number;
  readonly maxMemoryBytes?: number;
  readonly maxDiskBytes?: number;
  /** How long the process waits for another client after its last one went. */
  readonly graceMs: number;
  /** Descriptor on which the process reports its start to the one that launched it. */
  readonly reportFd?: number;
}

/** Long enough for a window to reload, short enough that a closed one leaves nothing behind. */
const defaultGraceMs = 3000;

/** Throws `invalid_argument`. */
export function parseEngineArgs(argv: readonly string[]): EngineOptions {
  const text = { type: 'string' } as const;
  const values = parse(argv, {
    model: text,
    store: text,
    activations: text,
    threads: text,
    'max-memory': text,
    'max-disk': text,
    'grace-ms': text,
    'report-fd': text,
  });
  const reportFd = count('report-fd', values['report-fd']);
  const threads = count('threads', values.threads);
  const maxMemoryBytes = size('max-memory', values['max-memory']);
  const maxDiskBytes = size('max-disk', values['max-disk']);
  return {
    activations: activations(values.activations),
    graceMs: count('grace-ms', values['grace-ms']) ?? defaultGraceMs,
    ...(values.model !== undefined && { model: path.resolve(values.model) }),
    ...(values.store !== undefined && { store: path.resolve(values.store) }),
    ...(threads !== undefined && { threads }),
    ...(maxMemoryBytes !== undefined && { maxMemoryBytes }),
    ...(maxDiskBytes !== undefined && { maxDiskBytes }),
    ...(reportFd !== undefined && { reportFd }),
  };
}

/** The same options as arguments; paths are absolute, since the process runs in another folder. */
export function formatEngineArgs(options: Partial<EngineOptions>): string[] {
  const { model, store, activations, threads, maxMemoryBytes, maxDiskBytes, graceMs, reportFd } = options;
  const pairs = {
    model,
    store,
    activations,
    threads,
    'max-memory': maxMemoryBytes,
    'max-disk': maxDiskBytes,
    'grace-ms': graceMs,
    'report-fd': reportFd,
  };
  return Object.entries(pairs).flatMap(([name, value]) => (value === undefined ? [] : [`--${name}=${value}`]));
}

/** '200MB', '1.5 GiB', '4096' → bytes; undefined if it is no size. Units are powers of 1024. */
export function parseSize(text: string): number | undefined {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*$/i.exec(text);
  if (!match) return undefined;
  const exponent = ['', 'k', 'm', 'g', 't'].indexOf(match[2]!.toLowerCase());
  const bytes = Math.floor(Number(match[1]) * 1024 ** exponent);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

function parse<T extends Record<string, { type: 'string' }>>(argv: readonly string[], options: T): Partial<Record<keyof T, string>> {
  try {
    return parseArgs({ args: [...argv], options, strict: true }).values as Partial<Record<keyof T, string>>;
  } catch (error) {
    throw new EngineError('invalid_argument', `engine arguments: ${(error as Error).message}`, { cause: error });
  }
}

function activations(text = 'int8'): Activations {
  if (text === 'int8' || text === 'fp32') return text;
  throw new EngineError('invalid_argument', `--activations: expected fp32 or int8, found ${text}`);
}

function count(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new EngineError('invalid_argument', `--${name}: expected a whole number, found ${text}`);
}

function size(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const bytes = parseSize(text);
  if (bytes !== undefined) return bytes;
  throw new EngineError('invalid_argument', `--${name}: expected a size such as 200MB or 2G, found ${text}`);
}
