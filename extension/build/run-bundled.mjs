// Programs in TypeScript that are no part of what is handed out: bundled, then run in the clone's top folder on what dist/ has.

import path from 'node:path';
import { spawnSync } from 'node:child_process';
import { dist, output, root } from './paths.mjs';

/** Runs `source` (within the clone) with this process's arguments; its exit code becomes ours. `name`: of its folder below build/. */
export async function runBundled(/** @type {string} */ source, /** @type {string} */ name) {
  // Nothing is measured of a dist/ that is missing or older than its sources.
  if (spawnSync(path.join(root, 'sala'), ['--version'], { stdio: ['ignore', 'ignore', 'inherit'] }).status !== 0) process.exit(1);
  const { build } = await import('esbuild');
  const { nodeOptions } = await import('./bundle.mjs');
  const outdir = path.join(output, name);
  await build({ ...nodeOptions, entryPoints: [path.join(root, source)], outdir, sourcemap: 'inline' });
  const program = path.join(outdir, path.basename(source).replace(/\.ts$/, '.cjs'));
  // The allocator's settings are those of an engine process (extension/engine/launch.ts).
  const env = { SALA_DIST: dist, MALLOC_ARENA_MAX: '2', MALLOC_MMAP_THRESHOLD_: String(1 << 18), ...process.env };
  const args = ['--enable-source-maps', '--expose-gc', program, ...process.argv.slice(2)];
  process.exitCode = spawnSync(process.execPath, args, { cwd: root, env, stdio: 'inherit' }).status ?? 1;
}
