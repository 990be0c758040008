// What the bookkeeping of large workspaces costs; see bench/scale/main.ts.

import { runBundled } from '../extension/build/run-bundled.mjs';

await runBundled('bench/scale/main.ts', 'bench');
