// What `sala ask` says while it works.

import assert from 'node:assert/strict';
import test from 'node:test';
import { AskProgress } from '../../extension/cli/ask-progress';

const coverage = { files: 1, tokens: 1000, total_files: 100, total_tokens: 100_000, estimated: true };

test('progress of a question: places while reading for it, the workspace while reading that, no rate that is none', () => {
  const progress = new AskProgress();
  const status = (tokens_per_s: number, state: 'scanning' | 'reading' | 'idle' = 'idle') => progress.status({ state, coverage, tokens_per_s });
  assert.deepEqual(status(0, 'scanning'), { message: 'looking at the files' });
  assert.equal(status(0), undefined);
  assert.deepEqual(progress.phase({ phase: 'searching', coverage }), { message: 'searching' });
  assert.equal(status(0), undefined);
  const line = progress.phase({ phase: 'reading', coverage, places: { read: 0, total: 32 } });
  assert.deepEqual(line, { message: 'reading for the question, 0 of 32 places in', fraction: 0 });
  assert.deepEqual(status(410), { message: 'reading for the question, 0 of 32 places in, 410 tokens/s', fraction: 0 });
  assert.equal(progress.phase({ phase: 'reading', coverage, places: { read: 8, total: 32 } }).fraction, 0.25);
  assert.deepEqual(progress.phase({ phase: 'reading', coverage }), { message: 'reading the workspace, 410 tokens/s', fraction: 0.01 });
  assert.deepEqual(progress.phase({ phase: 'answering', coverage }), { message: 'answering' });
  assert.equal(status(0), undefined, 'an answer that has begun is not a bar at 1 %');
});
