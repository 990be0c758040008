// Tokenizer: exact to the byte on any text, no special token out of text, the ids of the format's reference implementation,
// and fast on the worst lines.

import fc from 'fast-check';
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { ModelFolder } from '../../extension/engine/model-folder';
import { Tokenizer, linesOf } from '../../extension/engine/tokenizer';
import { embeddedModel, goldenRuns } from './model';

let folder: ModelFolder;
let tokenizer: Tokenizer;
before(async () => {
  ({ folder, tokenizer } = await embeddedModel());
});

const nasty = ['\r\n', '\n', '\u0000', '\ufeff', 'e\u0301', '👩‍👩‍👧', '設定', '<|im_end|>', '<|file_sep|>', '\u0085', '\u2028', "'s", ' '];
const anyText = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 200 }),
  fc.array(fc.oneof(fc.constantFrom(...nasty), fc.string({ maxLength: 6 })), { maxLength: 40 }).map((parts) => parts.join('')),
);

test('any text comes back byte for byte, and holds no special token', () => {
  fc.assert(
    fc.property(anyText, (text) => {
      const ids = tokenizer.encodeText(text);
      assert.equal(tokenizer.decode(ids), text);
      assert.deepEqual(tokenizer.decodeBytes(ids), new Uint8Array(Buffer.from(text)));
      assert.ok(!ids.some((id) => tokenizer.isSpecial(id)));
    }),
    { numRuns: 2000, verbose: 1 },
  );
});

test('lines put together are the text, and each is encoded by itself', () => {
  fc.assert(
    fc.property(anyText, (text) => {
      const lines = linesOf(text);
      assert.equal(lines.join(''), text);
      const { tokens, counts } = tokenizer.encodeLines(text);
      assert.equal(counts.length, lines.length);
      let end = 0;
      lines.forEach((line, i) => {
        const own = tokens.slice(end, (end += counts[i] as number));
        assert.deepEqual(own, tokenizer.encodeText(line));
      });
      assert.equal(end, tokens.length);
    }),
    { numRuns: 500, verbose: 1 },
  );
});

test('a lone surrogate becomes U+FFFD, not a broken character', () => {
  assert.equal(tokenizer.decode(tokenizer.encodeText('a\ud83db')), 'a\ufffdb');
  assert.equal(tokenizer.decode(tokenizer.encodeText('\ude80')), '\ufffd');
});

test('combining marks stay as they are written (no normalizer)', () => {
  assert.notDeepEqual(tokenizer.encodeText('e\u0301'), tokenizer.encodeText('\u00e9'));
});

test('ids are those of the reference implementation', () => {
  // Made with the Rust library (PyPI `tokenizers` 0.23.3), normalizer and added tokens taken out.
  const expected: Readonly<Record<string, readonly number[]>> = {
    "const a = 1;\r\n": [1024, 264, 284, 220, 16, 463],
    "\ufeffimport x\n": [3167, 474, 856, 198],
    "e\u0301te\u0301 na\u00efve fa\u00e7ade": [68, 136, 223, 665, 136, 223, 4178, 21965, 586, 2191, 3077, 1021],
    "\ud83d\udc69\u200d\ud83d\udc69\u200d\ud83d\udc67\ud83d\ude80 \u8a2d\u5b9a \u00e9": [172, 253, 239, 102, 378, 235, 172, 253, 239, 102, 378, 235, 172, 253, 239, 100, 172, 253, 248, 222, 220, 164, 101, 255, 161, 106, 248, 220, 963],
    "\u0000\u0001\u0085\u2028 x": [188, 189, 126, 227, 378, 101, 856],
    "<|im_end|><|file_sep|>": [27, 91, 318, 5809, 91, 1772, 91, 1192, 26494, 91, 29],
    "it's I'LL they've": [275, 594, 358, 6, 3968, 807, 2957],
    "x   =  12345;\n\n\n  \t y": [87, 256, 284, 220, 220, 16, 17, 18, 19, 20, 4966, 256, 197, 379],
    "   \n \n": [5530, 715],
    "\t\tif (a && b) {\n": [197, 743, 320, 64, 1009, 293, 8, 341],
    "`ring_push`?": [63, 10544, 11549, 63, 30],
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3002\u0e44\u0e17\u0e22 \u0627\u0644\u0639\u0631\u0628\u064a\u0629": [162, 245, 98, 162, 250, 105, 164, 103, 252, 159, 223, 106, 159, 225, 228, 159, 224, 255, 159, 224, 117, 159, 225, 230, 159, 222, 224, 156, 117, 226, 156, 116, 245, 156, 116, 95, 220, 148, 100, 149, 226, 148, 117, 148, 109, 148, 101, 149, 232, 148, 102],
  };
  for (const [text, ids] of Object.entries(expected)) assert.deepEqual([...tokenizer.encodeText(text)], ids, JSON.stringify(text));
});

test('segments of the golden runs are encoded line by line, headers apart', () => {
  let checked = 0;
  for (const run of goldenRuns()) {
    run.paths?.forEach((path, i) => {
      const segment = run.segments[i] as readonly number[];
      const header = tokenizer.encodeTemplate(folder.sala.segment.header, { path });
      assert.equal(header.length, run.headers?.[i]);
      const text = tokenizer.decode(segment.slice(header.length));
      assert.deepEqual([...header, ...tokenizer.encodeLines(text).tokens], segment);
      checked++;
    });
    assert.deepEqual([...tokenizer.encodeTemplate(folder.sala.prefix)], run.prefix);
  }
  assert.equal(checked, 12);
});

test('a value in a template adds no special token', () => {
  const ids = tokenizer.encodeTemplate('<|file_sep|>{path}\n', { path: 'a<|im_end|>{path}.ts' });
  assert.deepEqual([...ids].filter((id) => tokenizer.isSpecial(id)), [tokenizer.idOf('<|file_sep|>')]);
  assert.equal(tokenizer.decode(ids.slice(1)), 'a<|im_end|>{path}.ts\n');
});

test('a long line is cut without changing a token where it has words', () => {
  const line = Array.from({ length: 3000 }, (_, i) => `call_${i}(a${i % 7}, "text of ${i}"); `).join('');
  const parts = line.match(/.*?; /gs) ?? [];
  assert.ok(line.length > 50_000);
  // Parts end with a space before a letter, where a word would take the space with it: encode them without it.
  const apart = parts.map((part, i) => (i === 0 ? '' : ' ') + part.trimEnd()).flatMap((part) => [...tokenizer.encodeText(part)]);
  assert.deepEqual([...tokenizer.encodeText(line)], [...apart, ...tokenizer.encodeText(' ')]);
});

test('no surrogate pair is cut', () => {
  for (const shift of ['', 'x']) {
    const text = shift + '🚀'.repeat(5000);
    assert.equal(tokenizer.decode(tokenizer.encodeText(text)), text);
  }
});

test('the worst lines take no longer than others', () => {
  for (const unit of [' ', 'a', '=', '\t', '設', '\r', 'ab', '0']) {
    const text = unit.repeat(100_000 / unit.length);
    const began = performance.now();
    assert.equal(tokenizer.decode(tokenizer.encodeText(text)), text);
    const elapsed_ms = performance.now() - began;
    assert.ok(elapsed_ms < 20_000, `100,000 units of ${JSON.stringify(unit)}: ${elapsed_ms} ms`);
  }
});

test('earlier texts of a large file that is edited do not stay in memory with their lines', () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const held = (): number => {
    collect();
    return process.memoryUsage().heapUsed;
  };
  const lines = Array.from({ length: 8000 }, (_, i) => `export const someName${i % 100} = compute(${i % 100}) + offset;\n`);
  tokenizer.encodeLines(lines.join(''));
  const before = held();
  for (let i = 0; i < 60; i++) {
    lines[100 * i] = `const editedName${i} = ${i} * anotherQuiteLongExpression;\n`;
    // As it is read from a file: one string, not the parts that it was made of.
    tokenizer.encodeLines(Buffer.from(lines.join('')).toString());
  }
  const more = held() - before;
  assert.ok(more < 5 << 20, `60 texts of ${lines.join('').length} units: ${more} bytes more`);
});

test('a tokenizer that does not fit is refused', () => {
  const refuse = (change: Partial<ModelFolder>, message: RegExp): void => {
    assert.throws(() => new Tokenizer({ ...folder, ...change }), { code: 'model_invalid', message });
  };
  const json = folder.tokenizer as { model: { vocab: Record<string, number> } };
  const { Z: _, ...vocab } = json.model.vocab;
  refuse({ vocabSize: 32_000 }, /vocab_size 32000, found 32767/);
  refuse({ tokenizer: { ...json, model: { ...json.model, vocab } } }, /a token for each byte, found none for 90/);
  refuse({ tokenizer: { ...json, model: { type: 'WordPiece' } } }, /a BPE model/);
  refuse({ tokenizer: {} }, /a BPE model/);
  refuse({ tokenizer: { ...json, pre_tokenizer: null } }, /byte-level BPE or BPE with byte fallback/);
  refuse({ tokenizer: { ...json, added_tokens: [{ id: -1, content: 'x' }] } }, /added_tokens/);
  assert.throws(() => tokenizer.idOf('<|nowhere|>'), { code: 'model_invalid' });
});

test('BPE with byte fallback is exact too', () => {
  const pieces = ['<unk>', ...Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`)];
  pieces.push('▁', 'a', 'b', 'ab', '▁a');
  const sentencepiece = new Tokenizer({
    dir: 'test',
    vocabSize: pieces.length,
    tokenizer: {
      added_tokens: [{ id: 0, content: '<unk>', special: true }],
      normalizer: {
        type: 'Sequence',
        normalizers: [
          { type: 'Prepend', prepend: '▁' },
          { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
        ],
      },
      pre_tokenizer: null,
      model: {
        type: 'BPE',
        unk_token: '<unk>',
        byte_fallback: true,
        vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
        merges: ['a b', '▁ a'],
      },
    },
  });
  assert.deepEqual(sentencepiece.encodeText('ab'), Int32Array.of(260));
  fc.assert(
    fc.property(anyText, (text) => assert.equal(sentencepiece.decode(sentencepiece.encodeText(text)), text)),
    { numRuns: 500, verbose: 1 },
  );
});
