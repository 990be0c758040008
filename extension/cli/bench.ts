// `sala bench`: speed of this machine. Ids are random: what is measured depends on their number only. Each length is measured
// once, after a short run that warms caches and threads; an average over lengths would hide what matters. Memories of many tokens are
// synthetic: a few encoded segments listed again and again, which costs a question as much as others would.

import type { NativeEngine, SegmentInput } from '../engine/addon';
import type { Frame } from './command';
import { finish, withNative, type ModelDefaults } from './native';
import type { CommonOptions } from './options';

export interface BenchOptions extends CommonOptions {
  readonly prefill: readonly number[];
  readonly decodeAt: readonly number[];
  readonly edit: number;
  readonly memory: readonly number[];
}

/** A question over a memory: reading, focus and prefill until the first token is there; then decoding with that focus in view, with
 * all of the memory in view, of which blocks are selected above the model's dense scope, and with nothing, in turn. */
interface Question {
  readonly memory: number;
  readonly synthetic: true;
  readonly read_ms: number;
  readonly first_token_ms: number;
  readonly decode_tokens_per_s: number;
  readonly decode_all_in_view_tokens_per_s: number;
  readonly decode_nothing_in_view_tokens_per_s: number;
}

const nWarm = 64;
const nDecoded = 32;
/** What is compared is decoded in turn, so that the machine's other work meets all of it, and the medians are taken. */
const nRounds = 9, nOfRound = 24;
const nPrefix = 17;
/** A question of 40 tokens within its turn, the segments it is answered from, and those that its memory is made of. */
const nTurn = 50, question = [5, 45] as const, nFocus = 3, nDistinct = 8;

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
      const { tail } = await prefill(engine, random(Math.max(at, 1)), nDecoded + 1, signal);
      decodes.push({ at, tokens_per_s: await decode(engine, tail, signal) });
      engine.releaseTail(tail);
    }
    output.progress(`edit of ${options.edit} tokens`);
    await engine.setPrefix(random(nPrefix));
    const segments = inputs(random(options.edit), defaults.maxSegmentTokens, 'e');
    const began = performance.now();
    await finish(engine.encodeSegments(segments, 'edit'), signal);
    const edits = [{ tokens: options.edit, ready_ms: performance.now() - began }];
    const questions: Question[] = [];
    if (defaults.read && options.memory.length > 0) {
      output.progress(`${nDistinct} segments for a synthetic memory`);
      const distinct = inputs(random(nDistinct * defaults.maxSegmentTokens), defaults.maxSegmentTokens, 'd');
      const { handles } = await finish(engine.encodeSegments(distinct, 'ingest'), signal);
      for (const n of options.memory) {
        output.progress(`a question over ${n} tokens`);
        questions.push(await ask(engine, defaults, handles, n, random(nTurn), signal));
      }
    }
    output.result({ backend: engine.info.backend, prefill: prefills, decode: decodes, edit: edits, question: questions }, () =>
      [
        `kernels: ${engine.info.backend}`,
        ...prefills.map(({ n, tokens_per_s }) => `prefill of ${n}: ${tokens_per_s.toFixed(1)} tokens/s`),
        ...decodes.map(({ at, tokens_per_s }) => `decode at ${at}: ${tokens_per_s.toFixed(1)} tokens/s`),
        ...edits.map(({ tokens, ready_ms }) => `edit of ${tokens}: ready in ${Math.round(ready_ms)} ms`),
        ...questions.map(
          ({ memory, read_ms, first_token_ms, decode_tokens_per_s, decode_all_in_view_tokens_per_s, decode_nothing_in_view_tokens_per_s }) => {
            const share = (rate: number): string => `${rate.toFixed(1)} (${((100 * rate) / decode_nothing_in_view_tokens_per_s).toFixed(0)} %)`;
            return (
              `question over ${memory} tokens (synthetic): read in ${Math.round(read_ms)} ms, first token after ${Math.round(first_token_ms)} ms, ` +
              `then ${share(decode_tokens_per_s)} tokens/s, with all in view ${share(decode_all_in_view_tokens_per_s)}, ` +
              `with nothing ${decode_nothing_in_view_tokens_per_s.toFixed(1)}`
            );
          },
        ),
        '',
      ].join('\n'),
    );
  }, { reading: true });
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

/** Tokens a second. The first token behind a prefill is chosen from logits that are there already: it is none of them. */
async function decode(engine: NativeEngine, tail: number, signal: AbortSignal): Promise<number> {
  await decodeMore(engine, tail, 1, signal);
  return decodeMore(engine, tail, nDecoded, signal);
}

async function decodeMore(engine: NativeEngine, tail: number, n: number, signal: AbortSignal): Promise<number> {
  const options = { priority: 'decode', maxTokens: n, stopIds: new Int32Array(0), speculate: false } as const;
  const { ids, seconds } = await finish(engine.decode(tail, options), signal);
  return ids.length / seconds;
}

/** What a turn of the chat does (design section 6), without texts: read, take the best as the view, prefill, decode. */
async function ask(
  engine: NativeEngine,
  defaults: ModelDefaults,
  handles: Int32Array,
  memory: number,
  turn: Int32Array,
  signal: AbortSignal,
): Promise<Question> {
  const segments = Int32Array.from({ length: Math.ceil(memory / defaults.maxSegmentTokens) }, (_, i) => handles[i % handles.length]!);
  const startsFrom = defaults.tailStartsFrom;
  const began = performance.now();
  const reading = { tail: turn, span: question, segments, ...defaults.read!, startsFrom };
  const shares = await finish(engine.read(reading), signal);
  const read_ms = performance.now() - began;
  const best = [...shares.keys()].sort((a, b) => shares[b]! - shares[a]!).map((i) => segments[i]!);
  const view = Int32Array.from([...new Set(best)].slice(0, nFocus));
  const prefilled = async (view: Int32Array, dense?: number): Promise<number> => {
    const maxTokens = nPrefix + nTurn + nRounds * nOfRound + 1;
    const tail = engine.createTail({ view, startsFrom, maxTokens, ...(dense !== undefined && { denseScopeTokens: dense }) });
    await finish(engine.prefill(tail, turn, { priority: 'prefill' }), signal);
    return tail;
  };
  const focused = await prefilled(view);
  // The first token can be chosen now.
  const first_token_ms = performance.now() - began;
  const tails = [focused, await prefilled(segments, defaults.denseScopeTokens), await prefilled(new Int32Array(0))];
  for (const tail of tails) await decodeMore(engine, tail, 1, signal);
  const rates: number[][] = tails.map(() => []);
  for (let round = 0; round < nRounds; round++) {
    for (const [i, tail] of tails.entries()) rates[i]!.push(await decodeMore(engine, tail, nOfRound, signal));
  }
  for (const tail of tails) engine.releaseTail(tail);
  const [decode_tokens_per_s, decode_all_in_view_tokens_per_s, decode_nothing_in_view_tokens_per_s] = rates.map(median) as [number, number, number];
  return { memory, synthetic: true, read_ms, first_token_ms, decode_tokens_per_s, decode_all_in_view_tokens_per_s, decode_nothing_in_view_tokens_per_s };
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1]!;
}

/** Segments of at most `most` tokens; any address will do, as nothing is kept. */
function inputs(tokens: Int32Array, most: number, digit: string): SegmentInput[] {
  return Array.from({ length: Math.ceil(tokens.length / most) }, (_, i) => ({
    key: digit + i.toString(16).padStart(63, '0'),
    tokens: tokens.subarray(i * most, (i + 1) * most),
    headerTokens: 0,
  }));
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
