// Matrix products on one core, ours (bench_kernels) against llama.cpp's repacked q4_0 (peer.cpp), interleaved, by processor time:
//   node bench/compare-kernels.mjs [--rounds N]
// The peer's figure holds the quantising of its activations, which it does within the product. BENCH_KERNELS=FILE takes that program
// instead of building this clone's.

import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import { buildNative, systemToolchain } from '../extension/build/native.mjs';
import { median } from './measure.mjs';
import { installPeer } from './peer.mjs';

/** Row of bench/kernels.cpp → tokens, out, in. */
const products = { gemm_up: [512, 4864, 896], gemm_down: [512, 896, 4864], gemv_up: [1, 4864, 896], gemv_down: [1, 896, 4864] };

const { values: options } = parseArgs({ options: { rounds: { type: 'string', default: '3' } } });
const ours = process.env['BENCH_KERNELS'] ?? (await buildNative(systemToolchain(), 'bench_kernels'));
const peer = await installPeer();

console.log('| one core | ours, GOP/s | peer, GOP/s | ratio |\n| --- | --- | --- | --- |');
for (const [name, [n = 0, out = 0, input = 0]] of Object.entries(products)) {
  /** @type {number[]} */
  const mine = [];
  /** @type {number[]} */
  const theirs = [];
  for (let round = 0; round < Number(options.rounds); round++) {
    mine.push(Number(/([\d.]+) GOP\/s/.exec(output(ours, [name]))?.[1]));
    theirs.push((2e-9 * n * out * input) / Number(output(peer.program, [peer.libraries, 'kernel', ...[n, out, input].map(String)])));
  }
  console.log(`| ${name} ${n}×${out}×${input} | ${median(mine).toFixed(1)} | ${median(theirs).toFixed(1)} | **${(median(mine) / median(theirs)).toFixed(2)}×** |`);
}

function output(/** @type {string} */ program, /** @type {string[]} */ args) {
  const ended = spawnSync(program, args, { encoding: 'utf8' });
  if (ended.status !== 0) throw new Error(`${program} ${args.join(' ')}: ${ended.error ?? ended.stderr}`);
  return ended.stdout;
}
