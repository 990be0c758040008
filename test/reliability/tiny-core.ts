// An engine's core on the tiny model, and what tests look at behind a session.

import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { Core } from '../../extension/engine/core';
import type { RootIndex } from '../../extension/engine/root-index';
import type { ClientSession, CoreOptions } from '../../extension/engine/session';

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
