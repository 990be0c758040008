// Model folders that are truncated, changed, foreign or lie: refused before anything of them is used, by one line that names what
// was expected and found, within seconds, and never by a signal.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { execFileSync } from 'node:child_process';
import { appendFileSync, chmodSync, cpSync, mkdirSync, readFileSync, rmSync, statSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { asNobody, eventually, failureOf, isRoot, tinyModel, withCase, type Case } from './support';

const part = 'model.safetensors';

function patch(dir: string, name: string, change: (json: Record<string, unknown>) => void): void {
  const file = path.join(dir, name);
  const json = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  change(json);
  writeFileSync(file, JSON.stringify(json));
}

function overwrite(dir: string, change: (bytes: Buffer) => Buffer): void {
  const file = path.join(dir, part);
  writeFileSync(file, change(readFileSync(file)));
}

const headerEnd = (bytes: Buffer): number => 8 + Number(bytes.readBigUInt64LE());

/** What is done to a copy of the model, and what the message must name. */
const damages: readonly (readonly [string, (dir: string) => void, RegExp])[] = [
  ...[0, 7, 8, 300].map((bytes) => [`cut at ${bytes} bytes`, (dir: string) => truncateSync(path.join(dir, part), bytes), /model\.safetensors/] as const),
  ['cut one byte short', (dir) => truncateSync(path.join(dir, part), statSync(path.join(dir, part)).size - 1), /model\.safetensors.*expected .*found .*\d{6}/],
  ['cut at half', (dir) => truncateSync(path.join(dir, part), statSync(path.join(dir, part)).size >> 1), /model\.safetensors.*expected .*found .*\d{6}/],
  ['a byte more', (dir) => appendFileSync(path.join(dir, part), '\0'), /model\.safetensors.*expected .*found .*\d{6}/],
  ['header length: lowest byte', (dir) => overwrite(dir, (b) => (b[0]! ^= 1, b)), /model\.safetensors/],
  ['header length: highest byte', (dir) => overwrite(dir, (b) => (b[7]! ^= 0x80, b)), /model\.safetensors/],
  ['header: no JSON', (dir) => overwrite(dir, (b) => (b.fill(0xff, 8, headerEnd(b)), b)), /model\.safetensors/],
  ['a folder in its place', (dir) => (rmSync(path.join(dir, part)), mkdirSync(path.join(dir, part))), /model\.safetensors/],
  ['a pipe in its place', (dir) => (rmSync(path.join(dir, part)), void execFileSync('mkfifo', [path.join(dir, part)])), /model\.safetensors/],
  ['no weights', (dir) => unlinkSync(path.join(dir, part)), /safetensors/],
  ['no config.json', (dir) => unlinkSync(path.join(dir, 'config.json')), /config\.json/],
  ['no tokenizer.json', (dir) => unlinkSync(path.join(dir, 'tokenizer.json')), /tokenizer\.json/],
  ['config.json: no JSON', (dir) => writeFileSync(path.join(dir, 'config.json'), '{"model_type":'), /config\.json/],
  ['config.json: other layers', (dir) => patch(dir, 'config.json', (c) => (c['num_hidden_layers'] = 100_000)), /./],
  ['config.json: huge width', (dir) => patch(dir, 'config.json', (c) => (c['hidden_size'] = 1 << 30)), /./],
  ['config.json: negative', (dir) => patch(dir, 'config.json', (c) => (c['intermediate_size'] = -1)), /intermediate_size/],
  ['config.json: a text for a number', (dir) => patch(dir, 'config.json', (c) => (c['num_attention_heads'] = 'four')), /num_attention_heads/],
  ['config.json: heads that do not divide', (dir) => patch(dir, 'config.json', (c) => (c['num_attention_heads'] = 3)), /./],
  ['config.json: another architecture', (dir) => patch(dir, 'config.json', (c) => (c['model_type'] = 'llama')), /model_type.*llama|llama.*model_type/],
  ['config.json: unknown mixer', (dir) => patch(dir, 'config.json', (c) => ((c['mixer_types'] as string[])[0] = 'mamba')), /mamba/],
  ['config.json: larger vocabulary', (dir) => patch(dir, 'config.json', (c) => (c['vocab_size'] = Number(c['vocab_size']) + 64)), /./],
  ['tokenizer.json: no JSON', (dir) => writeFileSync(path.join(dir, 'tokenizer.json'), 'no'), /tokenizer\.json/],
  [
    'tokenizer.json: ids beyond the vocabulary',
    (dir) =>
      patch(dir, 'tokenizer.json', (t) => {
        const { vocab } = t['model'] as { vocab: Record<string, number> };
        vocab['zzzz'] = 4_000_000;
      }),
    /tokenizer\.json/,
  ],
  ['tokenizer.json: another kind', (dir) => patch(dir, 'tokenizer.json', (t) => (t['model'] = { type: 'Unigram', vocab: [] })), /tokenizer\.json/],
  ['sala.json: a lie', (dir) => patch(dir, 'sala.json', (s) => (s['read'] = { layer: 4000, heads: [99], uncertain_below: 2 })), /sala\.json|layer/],
];

describe('a damaged model folder', { concurrency: 3 }, () => {
  for (const [name, damage, expected] of damages) {
    test(name, () =>
      withCase(tinyModel, async (c) => {
        const dir = copyOf(c);
        damage(dir);
        const began = performance.now();
        const failure = failureOf(await c.start(['ask', '--json', 'hi', '--model', dir]).ended);
        assert.ok(performance.now() - began < 60_000, `took ${performance.now() - began} ms`);
        assert.ok(['model_not_found', 'model_invalid', 'unsupported', 'out_of_memory'].includes(failure.code), `${failure.code}: ${failure.message}`);
        assert.match(failure.message, expected);
        const doctor = await c.start(['doctor', '--json', '--model', dir]).ended;
        assert.equal(doctor.signal, null, doctor.stderr);
        assert.equal(doctor.code, 1, doctor.stdout);
        const { checks } = JSON.parse(doctor.stdout) as { checks: { name: string; ok: boolean; detail: string }[] };
        assert.ok(checks.some(({ ok, detail }) => !ok && expected.test(detail)), JSON.stringify(checks));
      }));
  }

  test('without permission', { skip: isRoot ? false : 'needs root, to become another user' }, () =>
    withCase(tinyModel, async (c) => {
      const dir = copyOf(c);
      chmodSync(path.join(dir, part), 0);
      const failure = failureOf(await c.start(['ask', '--json', 'hi', '--model', dir], { through: asNobody(c) }).ended);
      assert.match(failure.message, /model\.safetensors/);
      assert.match(failure.message, /EACCES|permission/);
    }));

  test('damaged while it is used: the engine answers or says what is wrong, and the store keeps its identity', () =>
    withCase(tinyModel, async (c) => {
      const dir = copyOf(c);
      c.write({ 'a.ts': 'export const a = 1;\n' });
      const running = c.start(['ask', '--json', '--model', dir, '-']);
      running.child.stdin!.write('What is a?\n');
      await eventually('an answer', () => running.documents().length === 1, 20_000);
      truncateSync(path.join(dir, part), 1000);
      running.child.stdin!.end('And what is b?\n');
      const { code, signal, stderr } = await running.ended;
      assert.equal(signal, null);
      assert.ok(code === 0 || code === 1, stderr);
      assert.equal(running.documents().length, 2);
      // Another model from now on: nothing of it may come under the old one's name.
      const failure = failureOf(await c.start(['ask', '--json', 'hi', '--model', dir]).ended);
      assert.equal(failure.code, 'model_invalid');
    }));
});

function copyOf(c: Case): string {
  const dir = path.join(c.dir, 'model');
  cpSync(tinyModel, dir, { recursive: true });
  return dir;
}

test('a memory limit that the model does not fit into is told with the numbers', () =>
  withCase(tinyModel, async (c) => {
    const error = failureOf(await c.run('ask', 'hi', '--json', '--max-memory', '1MB'));
    assert.equal(error.code, 'out_of_memory');
    assert.match(error.message, /expected at most 1048576 bytes of memory \(the memory limit\), found \d+ in use and \d+ more needed/);
  }));
