// `sala logits`: the model's forward pass on raw token ids, for conformance. Logits are those of the tail's tokens.

import { EngineError } from '../engine/errors';
import type { SelectedBlocks } from '../engine/addon';
import type { Frame } from './command';
import { finish, prepareTail, withNative, type RunOptions } from './native';
import type { CommonOptions } from './options';
import { readRun } from './run-object';
import { writeSafetensors, type Tensor } from './safetensors';

export interface LogitsOptions extends CommonOptions, RunOptions {
  readonly out: string;
  readonly exact?: boolean;
  readonly last?: number;
  readonly blocks?: boolean;
}

export async function logits(frame: Frame<LogitsOptions>): Promise<void> {
  const { options, output, signal } = frame;
  const run = readRun(options.tokens, options.run);
  await withNative(frame, async (engine, defaults) => {
    const { tail, tokens } = await prepareTail(engine, defaults, run, { exact: options.exact ?? false, nDecoded: 0, signal });
    const n = Math.min(options.last ?? tokens.length, tokens.length);
    const { vocabSize, nKvHeads } = engine.info;
    output.progress(`running ${tokens.length} tokens`);
    const result = await finish(engine.prefill(tail, tokens, { priority: 'prefill', logits: n, blocks: options.blocks ?? false }), signal);
    const tensors: Tensor[] = [{ name: 'logits', shape: [n, vocabSize], data: result.logits }];
    for (const blocks of result.blocks) tensors.push(selected(blocks, n, nKvHeads));
    writeSafetensors(options.out, tensors);
    const about = { n_tokens: tokens.length, seconds: result.seconds };
    output.result(about, () => `${tokens.length} tokens in ${result.seconds.toFixed(2)} s → ${options.out}\n`);
  });
}

/** The last `n` rows. */
function selected({ layer, data, width }: SelectedBlocks, n: number, nKvHeads: number): Tensor {
  const rowLength = nKvHeads * width;
  if (data.length < n * rowLength) {
    throw new EngineError('internal', `selected.${layer}: expected ${n} rows of ${rowLength}, found ${data.length} numbers`);
  }
  return { name: `selected.${layer}`, shape: [n, nKvHeads, width], data: data.subarray(data.length - n * rowLength) };
}
