// Where a prompt token's and a decoded token's time goes, by operator: our side of `compare.mjs` under Linux's `perf`, sampled by
// processor time with call stacks. Needs `perf` (Debian: linux-perf) and the right to use it on own processes.
//
//   SALA_ADDON=FILE node bench/profile.mjs [--threads N] COMMAND…    the last command is profiled: `reset 8192` `prefill 4096` `decode 64`

import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { buildNative, systemToolchain } from '../extension/build/native.mjs';
import { root } from '../extension/build/paths.mjs';
import { Side } from './side.mjs';

/** The innermost frame that a rule fits names the sample. @type {readonly [RegExp, string][]} */
const operators = [
  [/memset|exc_page_fault|munmap|operator (new|delete)|cfree|malloc/, 'buffers: zeroing, page faults'],
  [/Stream::worker|futex|sched_yield|cpu_relax/, 'threads: waiting for work'],
  [/panels_int8|Forward::logits/, 'matmul int8 (head)'],
  [/int4|matmul/, 'matmul int4'],
  [/quantize_rows/, 'quantising of activations'],
  [/::lightning_attn\b/, 'lightning attention'],
  [/::sparse_attn\b/, 'sparse attention'],
  [/::(topk_blocks|select_blocks|block_scores|compress_keys)\b/, 'selection of blocks'],
  [/::(rms_norm|rope|rope_table|sigmoid_gate|embed)\b/, 'norms, gates, rotation, residual'],
  [/_layer\b|sala::Forward|sala::LinearInput|Job::step/, 'layer code'],
];

const { values: options, positionals: commands } = parseArgs({
  options: { threads: { type: 'string', default: '1' } },
  allowPositionals: true,
});
const addon = process.env['SALA_ADDON'] ?? (await buildNative(systemToolchain(), 'sala_node'));
const folder = mkdtempSync(path.join(os.tmpdir(), 'sala-profile-'));
const side = await Side.start(process.execPath, [path.join(root, 'bench/ours.mjs'), addon, path.join(root, 'models/sala-coder-0.5b'), options.threads]);
try {
  for (const [i, line] of commands.entries()) {
    const [command = '', count] = line.split(' ');
    const n = Number(count);
    if (command === 'reset') await side.reset(n);
    else if (i < commands.length - 1) await side.run(/** @type {'prefill' | 'decode'} */ (command), n);
    else print(n, await profiled(() => side.run(/** @type {'prefill' | 'decode'} */ (command), n)));
  }
} finally {
  await side.end();
  rmSync(folder, { recursive: true });
}

/** @returns {Promise<{ cpu_s: number, stacks: string[][] }>} innermost frames first */
async function profiled(/** @type {() => Promise<{ cpu_s: number }>} */ work) {
  const file = path.join(folder, 'perf.data');
  const args = ['record', '-F', '397', '-e', 'cpu-clock', '--call-graph', 'dwarf,4096', '-o', file, '-p', String(side.child.pid)];
  const perf = spawn('perf', args, { stdio: 'ignore' });
  const ended = new Promise((resolve, reject) => perf.once('close', resolve).once('error', reject));
  await Promise.race([delay(700), ended]);
  const { cpu_s } = await work();
  perf.kill('SIGINT');
  await ended;
  const script = spawnSync('perf', ['script', '-i', file, '--no-inline', '-F', 'ip,sym'], { encoding: 'utf8', maxBuffer: 2 ** 31 });
  if (script.status !== 0) throw new Error(`perf script failed: ${script.stderr.slice(-400)}`);
  const stacks = script.stdout.split('\n\n').map((stack) => stack.split('\n').map((line) => line.trim().replace(/^[0-9a-f]+ /, '')));
  // The copy that is decoded from is made before the time begins (ours.mjs).
  const isCopying = (/** @type {string[]} */ stack) => stack.some((frame) => frame.includes('Sequence::fork'));
  return { cpu_s, stacks: stacks.filter((stack) => stack.some((frame) => frame.includes('sala::')) && !isCopying(stack)) };
}

function print(/** @type {number} */ n, /** @type {{ cpu_s: number, stacks: string[][] }} */ { cpu_s, stacks }) {
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const stack of stacks) {
    const name = operatorOf(stack);
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  console.log(`${commands.join(' · ')} on ${options.threads} thread(s): ${((cpu_s / n) * 1e3).toFixed(3)} ms of processor time a token, ${stacks.length} samples`);
  for (const [name, count] of [...counts].sort((a, b) => b[1] - a[1])) {
    const share = count / stacks.length;
    console.log(`| ${name} | ${(share * 100).toFixed(1)} % | ${((share * cpu_s * 1e6) / n).toFixed(0)} µs |`);
  }
}

/** @returns {string} */
function operatorOf(/** @type {readonly string[]} */ stack) {
  for (const frame of stack) {
    const found = operators.find(([pattern]) => pattern.test(frame));
    if (found) return found[1];
  }
  return 'other';
}
