// What a user waits for; see bench/product/main.ts.

import { runBundled } from '../extension/build/run-bundled.mjs';

await runBundled('bench/product/main.ts', 'bench');
