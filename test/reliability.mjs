// The full forms of the reliability tests (docs/reliability.md).

import { runBundled } from '../extension/build/run-bundled.mjs';

await runBundled('test/reliability/main.ts', 'reliability');
