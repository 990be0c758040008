// What 8 bit costs: the KL divergence of the next token's distribution, fp32 against the whole int8 path (weights as they are in the
// model, activations of 8 bit, and stored keys and values of 8 bit), on text from outside this repository. Each file gives one sample: its first lines are a segment in view, encoded and stored as the product does it, and the
// lines behind them the tail, whose every token is measured. Samples are independent of each other, tokens within one are not: the
// standard error is that of the samples' means.
//
//   node bench/quality-kl.mjs [--files N] [--tail N] [--threads N] [--max KL] FOLDER…     default: /usr/lib/python3
//
// SALA_ADDON=FILE takes that addon. With --max the exit code is 1 where the mean is above it.

import { createRequire } from 'node:module';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';
import { buildNative, systemToolchain } from '../extension/build/native.mjs';
import { root } from '../extension/build/paths.mjs';

const { values: options, positionals } = parseArgs({
  options: {
    files: { type: 'string', default: '32' },
    tail: { type: 'string', default: '128' },
    threads: { type: 'string', default: '1' },
    max: { type: 'string' },
  },
  allowPositionals: true,
});
const nFiles = Number(options.files), nTail = Number(options.tail);
const folders = positionals.length > 0 ? positionals : ['/usr/lib/python3'];
const modelDir = path.join(root, 'models/sala-coder-0.5b');
/** @type {import('../extension/engine/addon').Addon} */
const addon = createRequire(import.meta.url)(process.env['SALA_ADDON'] ?? (await buildNative(systemToolchain(), 'sala_node')));
const sala = JSON.parse(readFileSync(path.join(modelDir, 'sala.json'), 'utf8'));
const config = JSON.parse(readFileSync(path.join(modelDir, 'config.json'), 'utf8'));
const tokenizer = await makeTokenizer();
const prefix = tokenizer.encodeTemplate(sala.prefix);

const samples = collect();
if (samples.length < 2) throw new Error(`expected files of ${sala.segment.max_tokens + nTail} tokens and more in ${folders.join(', ')}, found ${samples.length}`);
// One model after the other: two at once would need twice the memory.
const exact = await run('fp32'), rounded = await run('int8');
const means = samples.map((_, i) => klOfRows(of(exact, i), of(rounded, i)));
const mean = meanOf(means.map(({ kl }) => kl));
const error = Math.sqrt(means.reduce((sum, { kl }) => sum + (kl - mean) ** 2, 0) / (means.length - 1) / means.length);
console.log(`${samples.length} files, ${nTail} tokens of each behind a stored segment of at most ${sala.segment.max_tokens}`);
console.log(`KL(fp32 ‖ int8): ${mean.toFixed(5)} ± ${error.toFixed(5)} nats a token; worst file ${Math.max(...means.map(({ kl }) => kl)).toFixed(5)}`);
console.log(`same first choice: ${(100 * meanOf(means.map(({ same }) => same))).toFixed(2)} %`);
if (options.max !== undefined && !(mean <= Number(options.max))) process.exitCode = 1;

/** Files spread evenly over the folders' sorted list. @returns {{ segment: Int32Array, headerTokens: number, tail: Int32Array }[]} */
function collect() {
  const files = folders.flatMap((folder) => readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((name) => path.join(folder, name)));
  const code = files.filter((file) => /\.(py|c|h|cc|cpp|js|ts|go|rs|java|pl|rb)$/.test(file) && !/(^|\/)test/.test(file)).sort();
  const found = [];
  const n = Math.min(code.length, 8 * nFiles);
  for (let i = 0; i < n && found.length < nFiles; i++) {
    const file = code[Math.floor((i * code.length) / n)] ?? '';
    if (!statSync(file).isFile()) continue;
    const sample = cut(file);
    if (sample) found.push(sample);
  }
  return found;
}

/** The file's first lines that fit a segment, and the tokens behind them; undefined where there are too few. */
function cut(/** @type {string} */ file) {
  const header = tokenizer.encodeTemplate(sala.segment.header.replace('{path}', path.basename(file)));
  const { tokens, counts } = tokenizer.encodeLines(readFileSync(file, 'utf8'));
  let n = 0;
  for (const count of counts) {
    if (header.length + n + count > sala.segment.max_tokens) break;
    n += count;
  }
  if (n < 256 || tokens.length < n + nTail) return undefined;
  return { segment: Int32Array.from([...header, ...tokens.subarray(0, n)]), headerTokens: header.length, tail: tokens.slice(n, n + nTail) };
}

/** Logits of every sample's tail. @returns {Promise<Float32Array[]>} */
async function run(/** @type {'fp32' | 'int8'} */ activations) {
  const engine = await addon.load({ modelDir, activations, threads: Number(options.threads) });
  await engine.setPrefix(prefix);
  const startsFrom = sala.tail_starts_from ?? 'prefix';
  const all = [];
  for (const [i, { segment, headerTokens, tail: tokens }] of samples.entries()) {
    const key = i.toString(16).padStart(64, '0');
    const { handles } = await engine.encodeSegments([{ key, tokens: segment, headerTokens }], 'ingest').done;
    const tail = engine.createTail({ view: handles, startsFrom, denseScopeTokens: sala.dense_scope_tokens, maxTokens: prefix.length + nTail + 1 });
    const { logits } = await engine.prefill(tail, tokens, { priority: 'prefill', logits: nTail }).done;
    all.push(logits);
    engine.releaseTail(tail);
    engine.releaseSegments(handles);
    process.stderr.write(`\r${activations}: ${i + 1} of ${samples.length}`);
  }
  process.stderr.write('\n');
  await engine.close();
  return all;
}

/** Mean over the rows of KL(p ‖ q), and the share of rows whose largest logit is the same. */
function klOfRows(/** @type {Float32Array} */ p, /** @type {Float32Array} */ q) {
  const width = config.vocab_size;
  let kl = 0, same = 0;
  for (let row = 0; row < nTail; row++) {
    const a = p.subarray(row * width, (row + 1) * width), b = q.subarray(row * width, (row + 1) * width);
    const [aMax, aSum, aBest] = partition(a), [bMax, bSum, bBest] = partition(b);
    const shift = bMax + Math.log(bSum) - aMax - Math.log(aSum);
    for (let i = 0; i < width; i++) kl += (Math.exp(of(a, i) - aMax) / aSum) * (of(a, i) - of(b, i) + shift);
    same += aBest === bBest ? 1 : 0;
  }
  return { kl: kl / nTail, same: same / nTail };
}

/** Maximum, Σ exp(x − maximum) and where the maximum is. @returns {[number, number, number]} */
function partition(/** @type {Float32Array} */ x) {
  let best = 0;
  for (let i = 1; i < x.length; i++) if (of(x, i) > of(x, best)) best = i;
  const max = of(x, best);
  let sum = 0;
  for (const value of x) sum += Math.exp(value - max);
  return [max, sum, best];
}

function meanOf(/** @type {readonly number[]} */ values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** @template T @param {{ readonly [i: number]: T }} list @param {number} i @returns {T} */
function of(list, i) {
  const value = list[i];
  if (value === undefined) throw new Error(`expected an element at ${i}`);
  return value;
}

/** The engine's own, which is TypeScript. @returns {Promise<import('../extension/engine/tokenizer').Tokenizer>} */
async function makeTokenizer() {
  const { outputFiles } = await build({
    entryPoints: [path.join(root, 'extension/engine/tokenizer.ts')], bundle: true, write: false, platform: 'node', format: 'cjs', logLevel: 'error',
  });
  const module = { exports: /** @type {any} */ ({}) };
  new Function('module', 'exports', 'require', of(outputFiles, 0).text)(module, module.exports, createRequire(import.meta.url));
  const json = JSON.parse(readFileSync(path.join(modelDir, 'tokenizer.json'), 'utf8'));
  return new module.exports.Tokenizer({ dir: modelDir, tokenizer: json, vocabSize: config.vocab_size });
}
