// The path line of a segment: names the file, stays one line, adds no special token, leaves room for text.

import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import type { Tokenizer } from '../../extension/engine/tokenizer';
import { headerTokens, safePath } from '../../extension/engine/workspace/header';
import { embeddedModel, goldenRuns } from './model';

const template = '<|file_sep|>{path}\n';
let tokenizer: Tokenizer;
before(async () => {
  ({ tokenizer } = await embeddedModel());
});

test('headers are those of the golden segments', () => {
  const run = goldenRuns().find(({ name }) => name === 'where');
  assert.equal(run?.paths?.length, 3);
  run?.paths?.forEach((path, i) => {
    assert.deepEqual([...headerTokens(tokenizer, template, path, 200)], run.segments[i]?.slice(0, run.headers?.[i]));
  });
});

test('control characters and line separators are written out, everything else stays', () => {
  assert.equal(safePath('src/設定 50%/été.ts'), 'src/設定 50%/été.ts');
  assert.equal(safePath('a\nb\r\u0000\u007f\u0085\u2028.ts'), 'a%0Ab%0D%00%7F%C2%85%E2%80%A8.ts');
  const tokens = headerTokens(tokenizer, template, 'a\n<|im_end|>\n.ts', 200);
  assert.equal(tokenizer.decode(tokens.slice(1)), 'a%0A<|im_end|>%0A.ts\n');
  assert.deepEqual([...tokens].filter((id) => tokenizer.isSpecial(id)), [tokenizer.idOf('<|file_sep|>')]);
});

test('a path that is too long keeps its end', () => {
  const tokens = headerTokens(tokenizer, template, `${'folder/'.repeat(500)}🚀/last.ts`, 100);
  assert.ok(tokens.length <= 100);
  assert.match(tokenizer.decode(tokens), /^<\|file_sep\|>….*folder\/🚀\/last\.ts\n$/);
  assert.ok(headerTokens(tokenizer, template, 'x'.repeat(4096), 1).length <= 8, 'ends even where nothing would fit');
});
