// What several tests need of the embedded model: its folder without the weights, its tokenizer, and the golden runs made with it.

import { readFileSync } from 'node:fs';
import path from 'node:path';
import { assetPath } from '../../extension/engine/assets';
import { findModel, readModelFolder, type ModelFolder } from '../../extension/engine/model-folder';
import { Tokenizer } from '../../extension/engine/tokenizer';

export interface GoldenRun {
  readonly name: string;
  readonly prefix: readonly number[];
  readonly segments: readonly (readonly number[])[];
  readonly tail: readonly number[];
  readonly ids: readonly number[];
  readonly text: string;
  readonly paths?: readonly string[];
  readonly headers?: readonly number[];
  readonly span?: readonly [number, number];
}

let loaded: Promise<{ folder: ModelFolder; tokenizer: Tokenizer }> | undefined;

export function embeddedModel(): Promise<{ folder: ModelFolder; tokenizer: Tokenizer }> {
  loaded ??= findModel()
    .then(readModelFolder)
    .then((folder) => ({ folder, tokenizer: new Tokenizer(folder) }));
  return loaded;
}

export function goldenRuns(): readonly GoldenRun[] {
  const file = path.resolve(assetPath('..'), 'test/golden/r-embedded-model/expected.json');
  return (JSON.parse(readFileSync(file, 'utf8')) as { runs: GoldenRun[] }).runs;
}
