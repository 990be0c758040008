// `sala generate`: greedy continuation of raw token ids, and with --logits the logits that chose each.

import type { Frame } from './command';
import { finish, prepareTail, withNative, type RunOptions } from './native';
import type { CommonOptions } from './options';
import { readRun } from './run-object';
import { writeSafetensors } from './safetensors';

export interface GenerateOptions extends CommonOptions, RunOptions {
  readonly n: number;
  readonly ignoreEos?: boolean;
  readonly logits?: string;
  readonly exact?: boolean;
}

export async function generate(frame: Frame<GenerateOptions>): Promise<void> {
  const { options, output, signal } = frame;
  const run = readRun(options.tokens, options.run);
  await withNative(frame, async (engine, defaults) => {
    const { tail, tokens } = await prepareTail(engine, defaults, run, { exact: options.exact ?? false, nDecoded: options.n, signal });
    output.progress(`running ${tokens.length} tokens`);
    const { seconds: prefillSeconds } = await finish(engine.prefill(tail, tokens, { priority: 'prefill' }), signal);
    let nDone = 0;
    const result = await finish(
      engine.decode(tail, {
        priority: 'decode',
        maxTokens: options.n,
        stopIds: Int32Array.from(options.ignoreEos ? [] : engine.info.eosTokenIds),
        logits: options.logits !== undefined,
        onToken: () => output.progress('generating', ++nDone / options.n),
      }),
      signal,
    );
    const ids = [...result.ids];
    if (options.logits !== undefined) {
      writeSafetensors(options.logits, [{ name: 'logits', shape: [ids.length, engine.info.vocabSize], data: result.logits }]);
    }
    const about = { ids, stop: result.stop, prefill_seconds: prefillSeconds, seconds: result.seconds };
    output.result(about, () => `${ids.join(' ')}\n`);
  });
}
