// `logits`, `read` and `generate` on the golden cases, and what they are made of. The cases need the native addon in dist/.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { offsetAt, parsePlace } from '../../extension/cli/complete';
import { concatenate, parseRun, type ComposedRun } from '../../extension/cli/run-object';
import { writeSafetensors } from '../../extension/cli/safetensors';
import { bundle } from '../extension/fake-dist';

const addon = path.resolve(process.env['SALA_ADDON'] ?? 'dist/sala.node');
const skip = existsSync(addon) ? false : `no native addon in ${addon}`;

/** float arrays by name; I32 as well, they are small. */
function readSafetensors(file: string): Map<string, { shape: number[]; data: Float32Array | Int32Array }> {
  const bytes = readFileSync(file);
  const headerEnd = 8 + Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString('utf8', 8, headerEnd)) as Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
  return new Map(
    Object.entries(header).flatMap(([name, entry]) => {
      if (name === '__metadata__') return [];
      const part = bytes.subarray(headerEnd + entry.data_offsets[0], headerEnd + entry.data_offsets[1]);
      const copy = new Uint8Array(part).buffer;
      return [[name, { shape: entry.shape, data: entry.dtype === 'F32' ? new Float32Array(copy) : new Int32Array(copy) }] as const];
    }),
  );
}

function relativeError(found: Float32Array | Int32Array, expected: Float32Array | Int32Array): number {
  assert.equal(found.length, expected.length);
  let [difference, norm] = [0, 0];
  for (let i = 0; i < found.length; i++) {
    difference += (found[i]! - expected[i]!) ** 2;
    norm += expected[i]! ** 2;
  }
  return Math.sqrt(difference / norm);
}

interface GoldenRun {
  readonly name: string;
  readonly decode?: number;
  readonly layer?: number;
}

for (const name of ['a-short-dense', 'h-qwen2-hybrid', 's-composed', 't-composed-sparse', 'u-focus']) {
  test(`golden ${name}`, { skip }, () => {
    const dir = mkdtempSync(path.join(os.tmpdir(), 'sala-test-'));
    try {
      const cli = path.join(dir, 'cli.cjs');
      bundle('extension/cli/main.ts', cli);
      const folder = path.resolve('test/golden', name);
      const file = path.join(folder, 'tokens.json');
      const { runs, model = 'model' } = JSON.parse(readFileSync(file, 'utf8')) as { runs: GoldenRun[]; model?: string };
      const expected = readSafetensors(path.join(folder, 'expected.safetensors'));
      const sala = (command: string, run: string, ...args: string[]): Record<string, unknown> => {
        const common = ['--model', path.join(folder, model), '--tokens', file, '--run', run, '--activations', 'fp32', '--json'];
        return JSON.parse(
          execFileSync(process.execPath, [cli, command, ...common, ...args], {
            encoding: 'utf8',
            env: { ...process.env, SALA_ADDON: addon },
            stdio: ['ignore', 'pipe', 'pipe'],
          }),
        ) as Record<string, unknown>;
      };
      for (const run of runs) {
        const out = path.join(dir, 'out.safetensors');
        const positions = expected.get(`${run.name}.logits_pos`)?.data;
        sala('logits', run.name, '--out', out, '--blocks');
        const found = readSafetensors(out);
        const logits = found.get('logits')!;
        const rows = positions ? gather(logits.data as Float32Array, logits.shape[1]!, positions as Int32Array) : logits.data;
        assert.ok(relativeError(rows, expected.get(`${run.name}.logits`)!.data) <= 5e-5, `${run.name}: logits`);
        for (const [tensor, { data, shape }] of found) {
          if (!tensor.startsWith('selected.')) continue;
          const selected = expected.get(`${run.name}.${tensor}`)!;
          const at = expected.get(`${run.name}.selected_pos`)?.data as Int32Array | undefined;
          const width = shape[1]! * shape[2]!;
          assert.deepEqual(at ? gather(data as Int32Array, width, at) : data, selected.data, `${run.name}: ${tensor}`);
        }
        if (run.layer !== undefined) {
          const { shares } = sala('read', run.name) as { shares: number[] };
          const wanted = expected.get(`${run.name}.shares`)!.data;
          assert.equal(shares.length, wanted.length);
          for (const [i, share] of shares.entries()) assert.ok(Math.abs(share - wanted[i]!) <= 1e-5, `${run.name}: share ${i}`);
        }
        if (run.decode) {
          const { ids } = sala('generate', run.name, '--n', String(run.decode), '--ignore-eos') as { ids: number[] };
          assert.deepEqual(ids, [...expected.get(`${run.name}.decode_ids`)!.data], `${run.name}: ids`);
        }
      }
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });
}

function gather<A extends Float32Array | Int32Array>(data: A, width: number, rows: Int32Array): A {
  const out = data.slice(0, rows.length * width) as A;
  rows.forEach((row, i) => out.set(data.subarray(row * width, (row + 1) * width), i * width));
  return out;
}

test('what is written as safetensors is read back', () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'sala-test-'));
  try {
    const file = path.join(dir, 'x.safetensors');
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.float32Array(), fc.int32Array()), { maxLength: 3 }), (pairs) => {
        const tensors = pairs.flatMap(([a, b], i) => [
          { name: `a.${i}`, shape: [a.length], data: a },
          { name: `b.${i}`, shape: [1, b.length], data: b },
        ]);
        writeSafetensors(file, tensors);
        const found = readSafetensors(file);
        assert.equal(found.size, tensors.length);
        for (const { name, shape, data } of tensors) assert.deepEqual(found.get(name), { shape, data });
      }),
      { numRuns: 50 },
    );
    assert.throws(() => writeSafetensors(path.join(dir, 'no', 'x'), []), /expected to write .*no\/x/);
    assert.throws(() => writeSafetensors(file, [{ name: 'a', shape: [2, 2], data: new Float32Array(3) }]), /expected 4 numbers for \[2,2\]/);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

test('runs: lists, single runs, whole cases, and what is wrong with them', () => {
  const composed = { prefix: [1], segments: [[2, 3], [4], [5, 6, 7]], tail: [8, 9], extra: 'ignored' };
  const parsed = parseRun({ ...composed, focus: [2, 0], hidden: [1, 0], headers: [1, 0, 2] }, undefined, 'f') as ComposedRun;
  assert.deepEqual([parsed.view, parsed.hidden, parsed.headers, parsed.denseScopeTokens], [[2, 0], [1, 0], [1, 0, 2], undefined]);
  assert.deepEqual((parseRun(composed, undefined, 'f') as ComposedRun).view, [0, 1, 2]);
  assert.deepEqual([...concatenate(parseRun({ ...composed, focus: [2, 0] }, undefined, 'f') as ComposedRun)], [1, 5, 6, 7, 2, 3, 8, 9]);
  assert.throws(() => concatenate(parsed), /exact mode has neither/);
  assert.equal(parseRun([1, 2], undefined, 'f').kind, 'exact');
  const runs = { runs: [{ name: 'a', tokens: [1] }, { name: 'b', tokens: [2] }] };
  assert.deepEqual(parseRun(runs, 'b', 'f'), { kind: 'exact', tokens: Int32Array.of(2) });
  assert.throws(() => parseRun(runs, undefined, 'f'), /one of its runs by --run \(a, b\)/);
  const wrong: [object, RegExp][] = [
    [{ tokens: [1, -1] }, /tokens\[1\]: expected a whole number from 0, found -1/],
    [{ tokens: [1.5] }, /tokens\[0\]/],
    [{ ...composed, tail: [] }, /tail: expected at least one token/],
    [{ ...composed, segments: [1] }, /segments\[0\]/],
    [{ ...composed, focus: [3] }, /focus: expected segments below 3, found 3/],
    [{ ...composed, focus: [0, 0] }, /each segment once/],
    [{ ...composed, hidden: [1] }, /hidden: expected 3 numbers/],
    [{ ...composed, headers: [3, 0, 0] }, /headers\[0\]: expected at most 2, found 3/],
    [{ ...composed, span: [1, 3] }, /span/],
    [{ ...composed, tail_starts_from: 'end' }, /tail_starts_from/],
  ];
  for (const [json, message] of wrong) assert.throws(() => parseRun(json, undefined, 'f'), message);
});

test('positions', () => {
  assert.deepEqual(parsePlace('a:b.ts:3:4'), { file: 'a:b.ts', line: 3, column: 4 });
  assert.equal(offsetAt('ab\r\ncd', 1, 3), 2);
  assert.throws(() => offsetAt('ab\r\ncd', 1, 4), /expected a column from 1 to 3/);
  assert.equal(offsetAt('ab\r\ncd', 2, 3), 6);
  assert.equal(offsetAt('a\n', 2, 1), 2);
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.nat(), (text, at) => {
      // A carriage return alone ends a line in an editor; here it ends none, and which column it has is nobody's question.
      fc.pre(!/\r(?!\n)/.test(text));
      const offset = text.length === 0 ? 0 : at % (text.length + 1);
      const before = text.slice(0, offset).split('\n');
      const lineEnd = text.slice(offset).split('\n')[0]!;
      fc.pre(!(text[offset - 1] === '\r' && text[offset] === '\n') && lineEnd !== undefined);
      const found = offsetAt(text, before.length, before.at(-1)!.length + 1);
      const isInsidePair = /^[\udc00-\udfff]/.test(text.slice(offset)) && /[\ud800-\udbff]$/.test(text.slice(0, offset));
      assert.equal(found, isInsidePair ? offset - 1 : offset);
    }),
  );
});

test('bench: a row for all that was asked, memories marked as synthetic', { skip }, () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'sala-test-'));
  try {
    const cli = path.join(dir, 'cli.cjs');
    bundle('extension/cli/main.ts', cli);
    const args = ['bench', '--model', path.resolve('test/fixtures/tiny'), '--prefill', '8,70', '--decode-at', '0,9', '--edit', '30', '--memory', '1000', '--json'];
    const out = execFileSync(process.execPath, [cli, ...args], { encoding: 'utf8', env: { ...process.env, SALA_ADDON: addon }, stdio: ['ignore', 'pipe', 'ignore'] });
    const { prefill, decode, edit, question } = JSON.parse(out) as Record<string, Record<string, unknown>[]>;
    assert.deepEqual(prefill?.map(({ n }) => n), [8, 70]);
    assert.deepEqual(decode?.map(({ at }) => at), [0, 9]);
    assert.deepEqual(edit?.map(({ tokens }) => tokens), [30]);
    assert.deepEqual(question?.map(({ memory, synthetic }) => ({ memory, synthetic })), [{ memory: 1000, synthetic: true }]);
    const rates = [...prefill!, ...decode!].map(({ tokens_per_s }) => tokens_per_s as number);
    const times = [edit![0]!['ready_ms'], question![0]!['read_ms'], question![0]!['first_token_ms'], question![0]!['decode_tokens_per_s'], question![0]!['decode_all_in_view_tokens_per_s']];
    for (const figure of [...rates, ...(times as number[])]) assert.ok(figure > 0 && Number.isFinite(figure));
  } finally {
    rmSync(dir, { recursive: true });
  }
});
