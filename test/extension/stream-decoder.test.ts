// Streaming: the pieces put together are the text, and no piece ever ends within a character.

import fc from 'fast-check';
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { StreamDecoder } from '../../extension/engine/chat/stream-decoder';
import type { Tokenizer } from '../../extension/engine/tokenizer';
import { embeddedModel } from './model';

let tokenizer: Tokenizer;
before(async () => {
  ({ tokenizer } = await embeddedModel());
});

test('pieces are whole characters and make up the text', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 100 }), (text) => {
      const decoder = new StreamDecoder(tokenizer);
      const pieces = Array.from(tokenizer.encodeText(text), (id) => decoder.push(id));
      if (!text.includes('\ufffd')) assert.ok(pieces.every((piece) => !piece.includes('\ufffd') && !/[\ud800-\udfff]/u.test(piece)));
      assert.equal(pieces.join('') + decoder.end(), text);
    }),
    { numRuns: 1000, verbose: 1 },
  );
});

test('special tokens show nothing, a byte order mark is kept, an unfinished character is dropped', () => {
  const rocket = tokenizer.encodeText('\ufeffa🚀');
  assert.ok(tokenizer.bytesOf(rocket.at(-1) as number).length < 4, 'the rocket takes several tokens');
  const decoder = new StreamDecoder(tokenizer);
  const ids = [tokenizer.idOf('<|im_start|>'), ...rocket.slice(0, -1)];
  assert.equal(ids.map((id) => decoder.push(id)).join('') + decoder.end(), '\ufeffa');
});
