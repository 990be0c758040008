// `npm run build`: fills dist/. Options: --tests builds the native tests as well, --watch goes on bundling when sources change.

import { copyFile, mkdir, rename } from 'node:fs/promises';
import path from 'node:path';
import { bundle, watch } from './bundle.mjs';
import { buildNative, systemToolchain } from './native.mjs';
import { dist, say } from './paths.mjs';

try {
  const tests = process.argv.includes('--tests');
  const { addon } = await buildNative(systemToolchain(), { tests });
  await mkdir(dist, { recursive: true });
  // Renamed into place: an engine that runs has the old file mapped.
  const placed = path.join(dist, 'sala.node');
  await copyFile(addon, `${placed}.new`);
  await rename(`${placed}.new`, placed);
  if (process.argv.includes('--watch')) await watch();
  else await bundle();
} catch (error) {
  say(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}
