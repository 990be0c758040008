// The native engine in the command's own process, for `logits`, `read`, `generate` and `bench`: no engine process, no store, and of
// the model no more than config and weights.

import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { loadAddon, type Job, type NativeEngine, type TailStart } from '../engine/addon';
import { EngineError } from '../engine/errors';
import type { Frame } from './command';
import { modelDir } from './options';
import { checkVocabulary, concatenate, type ComposedRun, type Run } from './run-object';

export interface RunOptions {
  readonly tokens: string;
  readonly run?: string;
}

/** What sala.json says of a run that does not say it itself. The folder of a golden case has none. */
export interface ModelDefaults {
  readonly tailStartsFrom: TailStart;
  readonly read?: { readonly layer: number; readonly heads: readonly number[] };
  readonly maxSegmentTokens: number;
  readonly denseScopeTokens?: number;
}

/** Loads the model for `work` and frees it afterwards. With `reading`, keys for reading stay resident as in the engine process. */
export async function withNative<T>(
  frame: Frame,
  work: (engine: NativeEngine, defaults: ModelDefaults) => Promise<T>,
  { reading = false } = {},
): Promise<T> {
  const { options, output } = frame;
  const dir = await modelDir(options);
  const defaults = readDefaults(dir);
  const addon = loadAddon();
  output.progress('loading the model');
  const engine = await addon.load({
    modelDir: dir,
    activations: options.activations,
    threads: options.threads ?? addon.physicalCores(),
    ...(options.maxMemory !== undefined && { maxMemoryBytes: options.maxMemory }),
    ...(reading && defaults.read && { reading: defaults.read }),
  });
  output.endProgress();
  try {
    return await work(engine, defaults);
  } finally {
    await engine.close();
  }
}

/** The job's result; Ctrl-C cancels the job. */
export async function finish<T>(job: Job<T>, signal: AbortSignal): Promise<T> {
  const cancel = (): void => job.cancel();
  if (signal.aborted) cancel();
  signal.addEventListener('abort', cancel);
  try {
    return await job.done;
  } finally {
    signal.removeEventListener('abort', cancel);
  }
}

export interface PreparedTail {
  readonly tail: number;
  /** What is to be run: the prefix is the engine's business. */
  readonly tokens: Int32Array;
}

/** A tail for the run, with everything in front of it in place and room for `nDecoded` tokens behind. */
export async function prepareTail(
  engine: NativeEngine,
  defaults: ModelDefaults,
  run: Run,
  options: { exact: boolean; nDecoded: number; signal: AbortSignal },
): Promise<PreparedTail> {
  checkVocabulary(run, engine.info.vocabSize);
  if (run.kind === 'exact' || options.exact) {
    const tokens = run.kind === 'exact' ? run.tokens : concatenate(run);
    if (tokens.length === 0) throw new EngineError('invalid_argument', 'expected at least one token, found none');
    return { tail: engine.createExactTail(tokens.length, tokens.length + options.nDecoded), tokens };
  }
  const handles = await encode(engine, run, options.signal);
  const tail = engine.createTail({
    view: Int32Array.from(run.view, (i) => handles[i]!),
    hidden: Int32Array.from(run.hidden),
    startsFrom: run.tailStartsFrom ?? defaults.tailStartsFrom,
    ...(run.denseScopeTokens !== undefined && { denseScopeTokens: run.denseScopeTokens }),
    maxTokens: run.prefix.length + run.tail.length + options.nDecoded,
  });
  return { tail, tokens: run.tail };
}

/** Sets the prefix and encodes all segments of the run; their handles in its order. */
export async function encode(engine: NativeEngine, run: ComposedRun, signal: AbortSignal): Promise<Int32Array> {
  await engine.setPrefix(run.prefix);
  if (run.segments.length === 0) return new Int32Array(0);
  // Nothing is kept, so any address will do.
  const inputs = run.segments.map((tokens, i) => ({
    key: i.toString(16).padStart(64, '0'),
    tokens,
    headerTokens: run.headers[i]!,
  }));
  return (await finish(engine.encodeSegments(inputs, 'prefill'), signal)).handles;
}

function readDefaults(dir: string): ModelDefaults {
  const file = path.join(dir, 'sala.json');
  const none: ModelDefaults = { tailStartsFrom: 'prefix', maxSegmentTokens: 495 };
  if (!existsSync(file)) return none;
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  } catch (error) {
    throw new EngineError('model_invalid', `${file}: expected JSON, found: ${(error as Error).message}`, { cause: error });
  }
  const read = json['read'] as { layer?: unknown; heads?: unknown } | undefined;
  const segment = json['segment'] as { max_tokens?: unknown } | undefined;
  const heads = Array.isArray(read?.heads) ? (read.heads as unknown[]).filter((head): head is number => Number.isInteger(head)) : [];
  return {
    tailStartsFrom: json['tail_starts_from'] === 'empty' ? 'empty' : 'prefix',
    ...(Number.isInteger(json['dense_scope_tokens']) && { denseScopeTokens: json['dense_scope_tokens'] as number }),
    maxSegmentTokens: Number.isInteger(segment?.max_tokens) ? Math.max(1, segment!.max_tokens as number) : none.maxSegmentTokens,
    ...(Number.isInteger(read?.layer) && heads.length > 0 && { read: { layer: read!.layer as number, heads } }),
  };
}
