// `sala bench`: speed of this machine. Ids are random: what is measured depends on their number only. Each length is measured
// once, after a short run that warms caches and threads; an average over lengths would hide what matters.

import type { NativeEngine } from '../engine/addon';
import type { Frame } from './command';
import { finish, withNative } from './native';
import type { CommonOptions } from './options';

export interface BenchOptions extends CommonOptions {
  readonly prefill: readonly number[];
  readonly decodeAt: readonly number[];
  readonly edit: number;
}

const nWarm = 64;
const nDecoded = 32;
const nPrefix = 17;

export async function bench(frame: Frame<BenchOptions>): Promise<void> {
  const { options, output, signal } = frame;
  await withNative(frame, async (engine, defaults) => {
    const random = randomIds(engine.info.vocabSize);
    await prefill(engine, random(nWarm), 0, signal);
    const prefills: { n: number; tokens_per_s: number }[] = [];
    for (const n of options.prefill) {
      output.progress(`prefill of ${n} tokens`);
      const { tail, seconds } = await prefill(engine, random(n), 0, signal);
      engine.releaseTail(tail);
      prefills.push({ n, tokens_per_s: n / seconds });
    }
    const decodes: { at: number; tokens_per_s: number }[] = [];
    for (const at of options.decodeAt) {
      output.progress(`decode at ${at} tokens`);
      // There is nothing to decode from without a token.
      const { tail } = await prefill(engine, random(Math.max(at, 1)), nDecoded, signal);
      const stopIds = new Int32Array(0);
      const { ids, seconds } = await finish(engine.decode(tail, { priority: 'decode', maxTokens: nDecoded, stopIds }), signal);
      engine.releaseTail(tail);
      decodes.push({ at, tokens_per_s: ids.length / seconds });
    }
    output.progress(`edit of ${options.edit} tokens`);
    await engine.setPrefix(random(nPrefix));
    const segments = cut(random(options.edit), defaults.maxSegmentTokens).map((tokens, i) => ({
      key: i.toString(16).padStart(64, '0'),
      tokens,
      headerTokens: 0,
    }));
    const began = performance.now();
    await finish(engine.encodeSegments(segments, 'edit'), signal);
    const edits = [{ tokens: options.edit, ready_ms: performance.now() - began }];
    output.result({ backend: engine.info.backend, prefill: prefills, decode: decodes, edit: edits }, () =>
      [
        `kernels: ${engine.info.backend}`,
        ...prefills.map(({ n, tokens_per_s }) => `prefill of ${n}: ${tokens_per_s.toFixed(1)} tokens/s`),
        ...decodes.map(({ at, tokens_per_s }) => `decode at ${at}: ${tokens_per_s.toFixed(1)} tokens/s`),
        ...edits.map(({ tokens, ready_ms }) => `edit of ${tokens}: ready in ${Math.round(ready_ms)} ms`),
        '',
      ].join('\n'),
    );
  });
}

/** One sequence in exact mode, sparse where its length demands it: what other programs do with a prompt. */
async function prefill(
  engine: NativeEngine,
  tokens: Int32Array,
  nBehind: number,
  signal: AbortSignal,
): Promise<{ tail: number; seconds: number }> {
  const tail = engine.createExactTail(tokens.length, tokens.length + nBehind);
  const { seconds } = await finish(engine.prefill(tail, tokens, { priority: 'prefill' }), signal);
  return { tail, seconds };
}

function cut(tokens: Int32Array, most: number): Int32Array[] {
  return Array.from({ length: Math.ceil(tokens.length / most) }, (_, i) => tokens.subarray(i * most, (i + 1) * most));
}

/** The same ids in every run: a linear congruential generator (Numerical Recipes, 32 bits). */
function randomIds(vocabSize: number): (n: number) => Int32Array {
  let state = 1;
  return (n) =>
    Int32Array.from({ length: n }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * vocabSize);
    });
}
