// What 8 bit costs where a user sees it; see bench/quality/main.ts.

import { runBundled } from '../extension/build/run-bundled.mjs';

await runBundled('bench/quality/main.ts', 'bench/quality');
