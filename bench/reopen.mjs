// What starting again costs with a large memory of the embedded model; see bench/reopen/main.ts.

import { buildNative, systemToolchain } from '../extension/build/native.mjs';
import { runBundled } from '../extension/build/run-bundled.mjs';

if (!process.argv.includes('--help')) process.env['BENCH_FILL_STORE'] ??= await buildNative(systemToolchain(), 'bench_fill_store');
await runBundled('bench/reopen/main.ts', 'bench');
