// Questions over a fully read repository, asked as a user asks them: through the command line and the engine process, with the
// embedded model. The thresholds are those that the product promises; each miss is printed, so that a fall shows where.

import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { askAll, score, type Scores } from './questions';

let scores: Scores;

before(() => {
  const answers = askAll();
  const coverage = answers[0]!.coverage;
  console.log(`read: ${coverage.files} files, ${coverage.tokens} tokens`);
  assert.ok(coverage.files >= 15 && coverage.tokens >= 20_000 && !coverage.estimated);
  scores = score(answers, console.log);
});

function atLeast(name: keyof Scores, least: number): void {
  const { hits, of } = scores[name];
  assert.ok(hits / of >= least, `${hits} of ${of}`);
}

test('quality: the right file is first among the sources in 90 %, among the first three in 97 %', () => {
  atLeast('first', 0.9);
  atLeast('first three', 0.97);
});

test('quality: the right path is named in 85 %, the right text in 70 %', () => {
  atLeast('path', 0.85);
  atLeast('text', 0.7);
});

test('quality: a name that is nowhere is said to be nowhere, and no path is invented for it', () => atLeast('absent', 1));

test('quality: no answer names a path that is not in the workspace', () => atLeast('real paths', 1));
