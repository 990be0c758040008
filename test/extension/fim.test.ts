// Filling in the middle: the golden tail, limits kept at whole lines and characters, a window that stays while one types.

import fc from 'fast-check';
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { fimTail, type FimInput, type FimTail } from '../../extension/engine/completion/fim';
import type { ModelFolder } from '../../extension/engine/model-folder';
import type { Tokenizer } from '../../extension/engine/tokenizer';
import { embeddedModel, goldenRuns } from './model';

let folder: ModelFolder;
let tokenizer: Tokenizer;
before(async () => {
  ({ folder, tokenizer } = await embeddedModel());
});

/** A tail's texts, and what must hold of any. */
function check(input: FimInput): FimTail & { before: string; after: string } {
  const tail = fimTail(folder, tokenizer, input);
  const at = (special: string): number => tail.tokens.indexOf(tokenizer.idOf(special));
  const [suffix, prefix, middle] = [at('<|fim_suffix|>'), at('<|fim_prefix|>'), at('<|fim_middle|>')];
  assert.equal([...tail.tokens].filter((id) => tokenizer.isSpecial(id)).length, 4);
  assert.ok(0 < suffix && suffix < prefix && prefix < middle && middle === tail.tokens.length - 1);
  assert.ok(prefix - suffix - 1 <= (input.suffixTokens ?? 96));
  assert.ok(middle - prefix - 1 <= (input.prefixTokens ?? 256));
  assert.deepEqual(tail.span, [Math.max(0, tail.tokens.length - 24), tail.tokens.length]);
  const before = tokenizer.decode(tail.tokens.slice(prefix + 1, middle));
  const after = tokenizer.decode(tail.tokens.slice(suffix + 1, prefix));
  return { ...tail, before, after };
}

test('the tail of the golden completion', () => {
  const run = goldenRuns().find(({ name }) => name === 'complete');
  const before = "import { withRetry } from './retry';\n\nexport const load = (url: string) => with";
  const tail = fimTail(folder, tokenizer, { path: 'src/load.ts', text: `${before}\n`, offset: before.length });
  assert.deepEqual([...tail.tokens], run?.tail);
  assert.deepEqual(tail.span, run?.span);
  assert.equal(tail.windowStart, 0);
});

test('any text and any offset: a part that ends, and one that begins, at the cursor', () => {
  const part = fc.oneof(
    fc.constantFrom('\n', '\r\n', '<|fim_middle|>', '🚀', '設定', '    '),
    fc.string({ maxLength: 8 }),
    fc.string({ unit: 'binary', maxLength: 8 }),
    fc.string({ minLength: 1, maxLength: 3 }).map((unit) => unit.repeat(300)),
  );
  fc.assert(
    fc.property(fc.array(part, { maxLength: 60 }), fc.nat(), fc.nat(), (parts, where, start) => {
      const text = parts.join('');
      const offset = text.length === 0 ? 0 : where % (text.length + 1);
      const windowStart = start % (offset + 1);
      const inputs: readonly Partial<FimInput>[] = [{}, { windowStart }, { prefixTokens: 12, suffixTokens: 12 }];
      for (const input of inputs) {
        const tail = check({ path: 'a.ts', text, offset, ...input });
        const pair = /[\udc00-\udfff]/.test(text[offset] ?? '') && /[\ud800-\udbff]/.test(text[offset - 1] ?? '');
        const cursor = pair ? offset - 1 : offset;
        assert.equal(tail.before, text.slice(tail.windowStart, cursor));
        assert.ok(text.startsWith(tail.after, cursor));
        if (text.length < 4 && input.windowStart === undefined) assert.equal(tail.before + tail.after, text);
      }
    }),
    { numRuns: 300, verbose: 1 },
  );
});

test('long texts are cut at lines; at least half of what fits is used', () => {
  const text = Array.from({ length: 400 }, (_, i) => `const value_${i} = compute(${i});\n`).join('');
  const offset = text.indexOf('value_200');
  const tail = check({ path: 'a.ts', text, offset });
  assert.match(tail.before, /^const value_\d+ = .*const $/s);
  assert.match(tail.after, /^value_200 = .*;\n$/s);
  assert.ok(tokenizer.encodeText(tail.before).length > 230 && tokenizer.encodeText(tail.after).length > 80);
  // At the start of the line behind a line that is too long.
  const minified = `${'call(1, 2);'.repeat(2000)}\n`;
  const behind = check({ path: 'a.js', text: minified, offset: minified.length });
  assert.ok(tokenizer.encodeText(behind.before).length > 200 && behind.after === '');
  const ahead = check({ path: 'a.js', text: minified, offset: 0 });
  assert.ok(tokenizer.encodeText(ahead.after).length > 80 && ahead.before === '');
});

test('while one types the tail grows at its end only, until the window is full', () => {
  const head = Array.from({ length: 100 }, (_, i) => `let v${i} = ${i};\n`).join('');
  const typed = 'export function total(values: number[]): number {';
  let { windowStart, tokens } = check({ path: 'a.ts', text: head, offset: head.length, prefixTokens: 200 });
  for (let i = 1; i <= typed.length; i++) {
    const text = head + typed.slice(0, i);
    const next = check({ path: 'a.ts', text, offset: text.length, windowStart });
    assert.equal(next.windowStart, windowStart);
    const common = next.tokens.findIndex((id, k) => id !== tokens[k]);
    assert.ok(common >= tokens.length - 3, `only ${common} of ${tokens.length} tokens stay`);
    tokens = next.tokens;
  }
  const text = head + typed.repeat(40);
  const moved = check({ path: 'a.ts', text, offset: text.length, windowStart });
  assert.ok(moved.windowStart > windowStart);
});

test('the file name is text too, and a model without FIM says so', () => {
  const tail = check({ path: 'a\n<|fim_middle|>.ts', text: 'x', offset: 1 });
  assert.match(tokenizer.decode(tail.tokens), /^<\|file_sep\|>a%0A<\|fim_middle\|>\.ts\n<\|fim_suffix\|>/);
  const without = { ...folder, sala: { ...folder.sala, fim: null } };
  assert.throws(() => fimTail(without, tokenizer, { path: 'a.ts', text: '', offset: 0 }), { code: 'unsupported' });
});
