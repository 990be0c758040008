// An engine's core on the tiny model, and what tests look at behind a session.

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import type { NativeEngine } from '../../extension/engine/addon';
import { Core } from '../../extension/engine/core';
import type { FileCoverage } from '../../extension/engine/messages';
import type { RootIndex } from '../../extension/engine/root-index';
import type { ClientSession, CoreOptions } from '../../extension/engine/session';
import type { Cutter } from '../../extension/engine/tokenizer-worker';
import { comparePaths } from '../../extension/engine/workspace/walk';
import type { VolatileFiles } from '../../extension/engine/workspace/watch';

const tiny = path.join(process.cwd(), 'test/fixtures/tiny');
export const never = new AbortController().signal;

/** `store` is made; what the core logs is added to `log`. */
export function loadTinyCore(store: string, log: string[], options: Partial<CoreOptions> = {}): Promise<Core> {
  mkdirSync(store, { recursive: true });
  return Core.load({ modelDir: tiny, store, activations: 'int8', threads: 1, onProgress: () => {}, log: (line) => log.push(line), ...options });
}

/** The first root of a session, which it tells nobody of. */
export function rootOf(session: ClientSession): RootIndex {
  return (session as unknown as { roots: readonly RootIndex[] }).roots[0]!;
}

/** All of its files, as they are now. */
export function filesOf(root: RootIndex): FileCoverage[] {
  return [...root.coveragesWithin('')].sort((a, b) => comparePaths(a.path, b.path));
}

/** Another measure of what changes all the time. */
export function setVolatile(session: ClientSession, volatile: VolatileFiles): void {
  Object.assign(rootOf(session), { volatile });
}

/** How many files were cut and tokenised since. */
export function countCuts(core: Core): () => number {
  const { cutter } = core as unknown as { cutter: Cutter };
  const cut = cutter.cut.bind(cutter);
  let n = 0;
  cutter.cut = (file, bytes) => {
    n++;
    return cut(file, bytes);
  };
  return () => n;
}

/** What is counted as files change is what they add up to, one by one. Throws an AssertionError. */
export function numbersAreTrue(session: ClientSession): void {
  const root = rootOf(session);
  const total = { files: 0, tokens: 0, total_files: 0, total_tokens: 0 };
  for (const { path: file, state, tokens } of filesOf(root)) {
    if (state === 'excluded' || state === 'unreadable' || state === 'over_budget') continue;
    total.total_files++;
    total.total_tokens += root.records.get(file)?.tokens ?? tokens;
    if (state !== 'waiting') total.tokens += tokens;
    if (state === 'in' || state === 'stale') total.files++;
  }
  const { estimated: _, ...counted } = root.count();
  assert.deepEqual(counted, total);
}

/** Methods of the addon cannot be assigned to. */
export function replaceEncode(native: NativeEngine, value: NativeEngine['encodeSegments']): void {
  Object.defineProperty(native, 'encodeSegments', { value, configurable: true });
}
