// Instructions of the matrix products, counted by callgrind: time is noisy where tests run, a count is not. A count above its limit
// fails; what the kernels are worth in time is bench_kernels' and compare.mjs's business. A part of `./sala test native`.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { buildNative, systemToolchain } from '../extension/build/native.mjs';
import { collected } from './measure.mjs';

/** Rows of bench/kernels.cpp, on AVX2: 512×4864×896 and 1×4864×896, int4 in groups of 128. Reached: 0.249 G and 0.838 M. */
const limits = { gemm_up: 0.29e9, gemv_up: 0.85e6 };

const why = process.platform === 'linux' ? obstacle() : 'callgrind needs Linux here';
if (why) console.log(`skipped: instructions of the kernels: ${why}`);
const { passed, failed } = why ? { passed: 0, failed: 0 } : await count();
console.log(`${passed} passed, ${failed} failed${why ? ', 1 skipped' : ''}`);
process.exitCode = failed > 0 ? 1 : 0;

/** @returns {string | undefined} why nothing can be counted here */
function obstacle() {
  if (process.arch !== 'x64') return 'the limits are for AVX2';
  if (!/\bavx2\b/.test(readFileSync('/proc/cpuinfo', 'utf8'))) return 'no AVX2';
  if (spawnSync('valgrind', ['--version']).status !== 0) return 'no valgrind (apt-get install valgrind)';
  return undefined;
}

/** @returns {Promise<{ passed: number, failed: number }>} */
async function count() {
  const program = await buildNative(systemToolchain(), 'bench_kernels');
  const folder = mkdtempSync(path.join(os.tmpdir(), 'sala-instructions-'));
  const sum = { passed: 0, failed: 0 };
  for (const [row, limit] of Object.entries(limits)) {
    const args = ['--tool=callgrind', `--callgrind-out-file=${path.join(folder, row)}`, '--toggle-collect=sala::avx2::matmul(*'];
    const env = { ...process.env, KERNEL_BACKEND: 'avx2' };
    const n = collected(spawnSync('valgrind', [...args, program, '--once', row], { encoding: 'utf8', env }).stderr);
    console.log(`${row}: ${(n / 1e6).toFixed(3)} M instructions, at most ${(limit / 1e6).toFixed(3)} M${n > limit ? ': TOO MANY' : ''}`);
    if (n > limit) sum.failed++;
    else sum.passed++;
  }
  rmSync(folder, { recursive: true });
  return sum;
}
