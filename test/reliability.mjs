// Bundles and runs test/reliability/main.ts.

import path from 'node:path';
import { spawnSync } from 'node:child_process';
import * as esbuild from 'esbuild';
import { nodeOptions } from '../extension/build/bundle.mjs';
import { root } from '../extension/build/paths.mjs';

const outdir = path.join(root, 'build/reliability');
await esbuild.build({ ...nodeOptions, entryPoints: [path.join(root, 'test/reliability/main.ts')], outdir });
const env = { SALA_DIST: path.join(root, 'dist'), ...process.env };
process.exitCode = spawnSync(process.execPath, ['--expose-gc', path.join(outdir, 'main.cjs'), ...process.argv.slice(2)], { cwd: root, env, stdio: 'inherit' }).status ?? 1;
