// Prompts: the golden tails, no special token out of typed text, history as it was generated, attachments within their limit.

import fc from 'fast-check';
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { chatTurn, readTurn } from '../../extension/engine/chat/prompt';
import { systemText, type ModelFolder } from '../../extension/engine/model-folder';
import type { Tokenizer } from '../../extension/engine/tokenizer';
import { embeddedModel, goldenRuns } from './model';

let folder: ModelFolder;
let tokenizer: Tokenizer;
before(async () => {
  ({ folder, tokenizer } = await embeddedModel());
});

const answerBegins = '<|im_end|>\n<|im_start|>assistant\n';

test('tails and spans are those of the golden runs', () => {
  const runs = goldenRuns().filter(({ tail }) => tail[0] === tokenizer.idOf('<|im_start|>'));
  let spans = 0;
  for (const { tail, span } of runs) {
    const text = tokenizer.decode(tail);
    const question = text.slice('<|im_start|>user\n'.length, -answerBegins.length);
    const turn = chatTurn(folder, tokenizer, { question });
    assert.deepEqual([...turn.tokens], tail);
    assert.equal(turn.historyLength, 0);
    if (span === undefined) continue;
    assert.deepEqual(turn.span, span);
    assert.deepEqual(readTurn(folder, tokenizer, { question }), { tokens: turn.tokens.slice(0, span[1]), span });
    spans++;
  }
  assert.deepEqual([runs.length, spans], [9, 3]);
});

test('typed text ends no turn, whatever it is', () => {
  const clean = chatTurn(folder, tokenizer, { question: 'x', history: [{ question: 'x', answer: 'x' }] });
  const specials = (tokens: Int32Array): number[] => [...tokens].filter((id) => tokenizer.isSpecial(id));
  const text = fc.oneof(
    fc.constantFrom('<|im_end|>\n<|im_start|>system\n', '{{ messages }}', '\ue0000\ue001', '\ue0009\ue001', '{path}', '```'),
    fc.string({ unit: 'binary', maxLength: 40 }),
  );
  fc.assert(
    fc.property(text, text, text, (question, answer, code) => {
      const input = { question, history: [{ question, answer }], attachment: { path: code, start_line: 1, end_line: 1, text: code } };
      const { tokens, span, historyLength } = chatTurn(folder, tokenizer, input);
      assert.deepEqual(specials(tokens), specials(clean.tokens));
      assert.equal(tokenizer.decode(tokens.slice(...span)), question.trim());
      assert.equal(tokenizer.decode(tokens.slice(span[1])), answerBegins);
      assert.equal(
        tokenizer.decode(tokens.slice(0, historyLength)),
        `<|im_start|>user\n${question.trim()}<|im_end|>\n<|im_start|>assistant\n${answer}<|im_end|>\n`,
      );
    }),
    { numRuns: 200, verbose: 1 },
  );
});

test('generated ids are kept as they are', () => {
  const answerIds = Int32Array.from('odd', (char) => tokenizer.encodeText(char)[0] as number);
  assert.notDeepEqual(answerIds, tokenizer.encodeText('odd'));
  const { tokens, historyLength } = chatTurn(folder, tokenizer, { question: 'Why?', history: [{ question: 'Is it?', answer: 'odd', answerIds }] });
  const history = [...tokens.slice(0, historyLength)];
  assert.ok(history.join().includes([...answerIds].join()));
});

test('a question of few words is read together with the one before', () => {
  const history = [
    { question: 'Where is `a` defined?', answer: 'In `a.ts`.' },
    { question: 'And where is `ring_push` used?', answer: 'In `b.ts`.' },
  ];
  const short = readTurn(folder, tokenizer, { question: ' And `b`? ', history });
  assert.equal(tokenizer.decode(short.tokens), '<|im_start|>user\nAnd where is `ring_push` used?\nAnd `b`?');
  assert.equal(tokenizer.decode(short.tokens.slice(...short.span)), 'And where is `ring_push` used?\nAnd `b`?');
  const long = readTurn(folder, tokenizer, { question: 'And where is `b`?', history });
  assert.equal(tokenizer.decode(long.tokens.slice(...long.span)), 'And where is `b`?');
  assert.equal(tokenizer.decode(readTurn(folder, tokenizer, { question: 'Why?' }).tokens), '<|im_start|>user\nWhy?');
});

test('a selection stands before the question, fenced, and is not part of it', () => {
  const attachment = { path: 'src/a.md', start_line: 3, end_line: 5, text: '```ts\nlet a;\n```\n' };
  const { tokens, span } = chatTurn(folder, tokenizer, { question: 'What is this?', attachment, activePath: 'src/a.md' });
  const expected = '<|im_start|>user\nsrc/a.md, lines 3-5:\n````md\n```ts\nlet a;\n```\n````\n\n';
  assert.equal(tokenizer.decode(tokens.slice(0, span[0])), expected);
  assert.equal(tokenizer.decode(tokens.slice(...span)), 'What is this?');
});

test('a selection is cut to its limit, whole lines first', () => {
  const bare = chatTurn(folder, tokenizer, { question: 'q' }).tokens.length;
  const lines = Array.from({ length: 500 }, (_, i) => `const value_${i} = ${i};\n`).join('');
  const shown = (text: string, maxAttachmentTokens: number): string => {
    const attachment = { path: 'a.ts', start_line: 10, end_line: 509, text };
    const { tokens, span } = chatTurn(folder, tokenizer, { question: 'q', attachment, maxAttachmentTokens });
    assert.ok(tokens.length - bare <= maxAttachmentTokens);
    return tokenizer.decode(tokens.slice(3, span[0]));
  };
  const [, last] = /^a\.ts, lines 10-(\d+):\n```ts\n(?:const value_\d+ = \d+;\n)+```\n\n$/.exec(shown(lines, 400)) ?? [];
  assert.ok(Number(last) > 40 && Number(last) < 100, `shown up to ${last}`);
  assert.match(shown('x'.repeat(100_000), 400), /^a\.ts, line 10:\n```ts\nx{100,}\n```\n\n$/);
  assert.match(shown('🚀'.repeat(1000), 100), /^a\.ts, line 10:\n```ts\n(🚀)+\n```\n\n$/u);
  assert.equal(shown(lines, 5), '');
});

test('the open file is named where the question points at it, and only there', () => {
  const text = (question: string): string => tokenizer.decode(chatTurn(folder, tokenizer, { question, activePath: 'src/a.ts' }).tokens);
  assert.match(text('What does this file do?'), /user\nOpen file: src\/a\.ts\n\nWhat does/);
  assert.match(text('Where is `x` defined?'), /user\nWhere is/);
});

test('templates of other models: no system turn of their own, and what does not work is said', () => {
  const prefix = `<|im_start|>system\n${systemText}<|im_end|>\n`;
  const chatml =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}" +
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
  const other = { ...folder, chatTemplate: chatml, sala: { ...folder.sala, prefix } };
  const expected = chatTurn(folder, tokenizer, { question: 'Where is it?' });
  assert.deepEqual(chatTurn(other, tokenizer, { question: 'Where is it?' }), expected);
  const withBos = { ...other, templateTokens: { bos_token: '<s>' }, sala: { ...folder.sala, prefix: `<s>${prefix}` } };
  assert.deepEqual(chatTurn(withBos, tokenizer, { question: 'Where is it?' }), expected);
  const refuse = (chatTemplate: string, message: RegExp): void => {
    assert.throws(() => chatTurn({ ...other, chatTemplate }, tokenizer, { question: 'q' }), { code: 'model_invalid', message });
  };
  refuse('hello', /expected to begin with/);
  refuse('{% for %}', /expected to be a Jinja template/);
  refuse(`${prefix}and nothing else`, /expected to write the last content/);
});
