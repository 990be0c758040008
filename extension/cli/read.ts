// `sala read`: shares of segments in the attention of a raw question (design section 6).

import { EngineError } from '../engine/errors';
import type { Frame } from './command';
import { encode, finish, withNative, type RunOptions } from './native';
import type { CommonOptions } from './options';
import { checkVocabulary, readRun } from './run-object';

export async function read(frame: Frame<CommonOptions & RunOptions>): Promise<void> {
  const { options, output, signal } = frame;
  const run = readRun(options.tokens, options.run);
  if (run.kind === 'exact') throw new EngineError('invalid_argument', `${options.tokens}: expected prefix, segments and tail, found tokens`);
  await withNative(frame, async (engine, defaults) => {
    checkVocabulary(run, engine.info.vocabSize);
    const layer = run.layer ?? defaults.read?.layer;
    const heads = run.heads ?? defaults.read?.heads;
    if (layer === undefined || heads === undefined) {
      throw new EngineError('invalid_argument', `expected layer and heads in ${options.tokens} or in sala.json, found neither`);
    }
    const shares = await finish(
      engine.read({
        segments: await encode(engine, run, signal),
        tail: run.tail,
        span: run.span ?? [0, run.tail.length],
        layer,
        heads,
        startsFrom: run.tailStartsFrom ?? defaults.tailStartsFrom,
      }),
      signal,
    );
    output.result({ shares: [...shares] }, () => [...shares].map((share, i) => `${String(i).padStart(4)}  ${share.toFixed(6)}\n`).join(''));
  });
}
