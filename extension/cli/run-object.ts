// What `logits`, `read` and `generate` are given: a JSON list of token ids, or one run object of a golden case (design section 8,
// ../../test/golden/README.md), or a whole case of which `--run NAME` picks one. Checked here; other keys are ignored.

import { readFileSync } from 'node:fs';
import type { TailStart } from '../engine/addon';
import { EngineError } from '../engine/errors';

/** One sequence with reference semantics. */
export interface ExactRun {
  readonly kind: 'exact';
  readonly tokens: Int32Array;
}

/** Prefix, segments and tail; what is absent is the model's to say. */
export interface ComposedRun {
  readonly kind: 'composed';
  readonly prefix: Int32Array;
  readonly segments: readonly Int32Array[];
  /** Header tokens of each segment. */
  readonly headers: readonly number[];
  readonly tail: Int32Array;
  /** Segments in view, in their order there. */
  readonly view: readonly number[];
  /** Leading tokens of each segment in view that the tail does not see. */
  readonly hidden: readonly number[];
  readonly denseScopeTokens?: number;
  readonly tailStartsFrom?: TailStart;
  readonly span?: readonly [number, number];
  readonly layer?: number;
  readonly heads?: readonly number[];
}

export type Run = ExactRun | ComposedRun;

/** `name` is needed where the file holds several runs. Throws `invalid_argument`. */
export function readRun(file: string, name: string | undefined): Run {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new EngineError('invalid_argument', `expected JSON in ${file}, found: ${(error as Error).message}`, { cause: error });
  }
  return parseRun(json, name, file);
}

/** Exported for tests. */
export function parseRun(json: unknown, name: string | undefined, file: string): Run {
  if (Array.isArray(json)) return { kind: 'exact', tokens: ids(json, file) };
  if (!isObject(json)) throw mismatch(file, 'a list of token ids or a run object', json);
  if (Array.isArray(json['runs'])) return parseRun(pick(json['runs'], name, file), undefined, file);
  if (json['tokens'] !== undefined) return { kind: 'exact', tokens: ids(json['tokens'], `${file}: tokens`) };
  return composed(json, file);
}

/** The composed run as one sequence: what exact mode makes of it. Throws `unsupported` for what has no meaning there. */
export function concatenate(run: ComposedRun): Int32Array {
  if (run.hidden.some((n) => n > 0) || run.tailStartsFrom !== undefined) {
    throw new EngineError('unsupported', "exact mode has neither 'hidden' nor 'tail_starts_from': its sequence is one");
  }
  const parts = [run.prefix, ...run.view.map((i) => run.segments[i]!), run.tail];
  const all = new Int32Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Throws `invalid_argument` for an id that the model does not have. */
export function checkVocabulary(run: Run, vocabSize: number): void {
  const lists = run.kind === 'exact' ? [run.tokens] : [run.prefix, run.tail, ...run.segments];
  for (const list of lists) {
    const wrong = list.find((id) => id >= vocabSize);
    if (wrong !== undefined) throw new EngineError('invalid_argument', `expected token ids below ${vocabSize}, found ${wrong}`);
  }
}

function composed(json: Readonly<Record<string, unknown>>, file: string): ComposedRun {
  const given = json['segments'];
  if (!Array.isArray(given)) throw mismatch(`${file}: segments`, 'a list of lists of token ids', given);
  const segments = given.map((segment, i) => ids(segment, `${file}: segments[${i}]`));
  const view = json['focus'] === undefined ? segments.map((_, i) => i) : counts(json, 'focus', file);
  const wrong = view.find((i) => i >= segments.length);
  if (wrong !== undefined) throw mismatch(`${file}: focus`, `segments below ${segments.length}`, wrong);
  if (new Set(view).size < view.length) throw mismatch(`${file}: focus`, 'each segment once', view);
  const headers = listFor(json, 'headers', segments.map((segment) => segment.length), file);
  const hidden = listFor(json, 'hidden', view.map((i) => segments[i]!.length), file);
  const tail = ids(json['tail'], `${file}: tail`);
  if (tail.length === 0) throw mismatch(`${file}: tail`, 'at least one token', []);
  const span = json['span'] === undefined ? undefined : counts(json, 'span', file);
  if (span && !(span.length === 2 && span[0]! < span[1]! && span[1]! <= tail.length)) {
    throw mismatch(`${file}: span`, `[begin, end) within ${tail.length} tokens`, span);
  }
  const start = json['tail_starts_from'];
  if (start !== undefined && start !== 'prefix' && start !== 'empty') throw mismatch(`${file}: tail_starts_from`, "'prefix' or 'empty'", start);
  return {
    kind: 'composed',
    prefix: ids(json['prefix'], `${file}: prefix`),
    segments,
    headers,
    tail,
    view,
    hidden,
    ...(json['dense_scope_tokens'] !== undefined && { denseScopeTokens: oneCount(json, 'dense_scope_tokens', file) }),
    ...(start !== undefined && { tailStartsFrom: start }),
    ...(span && { span: [span[0]!, span[1]!] }),
    ...(json['layer'] !== undefined && { layer: oneCount(json, 'layer', file) }),
    ...(json['heads'] !== undefined && { heads: counts(json, 'heads', file) }),
  };
}

function pick(runs: readonly unknown[], name: string | undefined, file: string): unknown {
  const names = runs.map((run) => (isObject(run) ? String(run['name']) : '?'));
  const found = name === undefined && runs.length === 1 ? 0 : names.indexOf(name ?? '');
  if (found >= 0) return runs[found];
  throw mismatch(file, `one of its runs by --run (${names.join(', ')})`, name);
}

/** As many numbers as `limits`, each at most its limit; zeros where the key is absent. */
function listFor(json: Readonly<Record<string, unknown>>, key: string, limits: readonly number[], file: string): readonly number[] {
  if (json[key] === undefined) return limits.map(() => 0);
  const list = counts(json, key, file);
  if (list.length !== limits.length) throw mismatch(`${file}: ${key}`, `${limits.length} numbers`, list);
  const at = list.findIndex((n, i) => n > limits[i]!);
  if (at >= 0) throw mismatch(`${file}: ${key}[${at}]`, `at most ${limits[at]}`, list[at]);
  return list;
}

function counts(json: Readonly<Record<string, unknown>>, key: string, file: string): number[] {
  return Array.from(ids(json[key], `${file}: ${key}`));
}

function oneCount(json: Readonly<Record<string, unknown>>, key: string, file: string): number {
  return ids([json[key]], `${file}: ${key}`)[0]!;
}

function ids(value: unknown, where: string): Int32Array {
  if (!Array.isArray(value)) throw mismatch(where, 'a list of whole numbers', value);
  const wrong = value.findIndex((id) => !(Number.isInteger(id) && id >= 0 && id <= 0x7fffffff));
  if (wrong >= 0) throw mismatch(`${where}[${wrong}]`, 'a whole number from 0', value[wrong]);
  return Int32Array.from(value as number[]);
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function mismatch(where: string, expected: string, found: unknown): EngineError {
  const text = JSON.stringify(found) ?? 'nothing';
  return new EngineError('invalid_argument', `${where}: expected ${expected}, found ${text.length > 80 ? `${text.slice(0, 80)}…` : text}`);
}
