// `npm run build`: fills dist/. With --watch it goes on bundling when sources change (the addon is built once).

import { copyFile, mkdir, rename } from 'node:fs/promises';
import path from 'node:path';
import { bundle, watch } from './bundle.mjs';
import { buildNative, systemToolchain } from './native.mjs';
import { dist, say } from './paths.mjs';

try {
  const addon = await buildNative(systemToolchain(), 'sala_node');
  await mkdir(dist, { recursive: true });
  // Renamed into place: an engine that runs has the old file mapped.
  const placed = path.join(dist, 'sala.node');
  await copyFile(addon, `${placed}.new`);
  await rename(`${placed}.new`, placed);
  if (process.argv.includes('--watch')) await watch();
  else await bundle();
} catch (error) {
  // The bundler has printed its own.
  if (!(error instanceof Error && 'errors' in error)) say(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}
