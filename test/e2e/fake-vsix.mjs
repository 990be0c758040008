// Packages the extension with the engine of fake-engine.ts in place of the real one: what the user sees is the product's, what
// answers is a script. The product's own VSIX is made by `npm run package`.

import { cp, mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import * as esbuild from 'esbuild';
import { nodeOptions, pageOptions } from '../../extension/build/bundle.mjs';
import { pack } from '../../extension/build/package.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** Resolves to the VSIX's path within `folder`, which is emptied. */
export async function packageWithFakeEngine(folder) {
  const stage = path.join(folder, 'stage');
  await rm(folder, { recursive: true, force: true });
  await mkdir(path.join(stage, 'dist'), { recursive: true });
  const outdir = path.join(stage, 'dist');
  await esbuild.build({ ...nodeOptions, entryPoints: { extension: 'extension/main.ts', engine: 'test/e2e/fake-engine.ts' }, outdir });
  await esbuild.build({ ...pageOptions, outdir });
  // Its being there is what says that this platform is supported; the fake engine does not load it.
  await writeFile(path.join(outdir, 'sala.node'), '');
  await cp(path.join(root, 'test/fixtures/tiny'), path.join(stage, 'models', 'tiny'), { recursive: true });
  await cp(path.join(root, 'extension/media'), path.join(stage, 'extension/media'), { recursive: true });
  await writeFile(path.join(stage, 'README.md'), '# SALA with a fake engine\n');
  await cp(path.join(root, 'LICENSE'), path.join(stage, 'LICENSE'));

  const vsix = path.join(folder, 'sala.vsix');
  await pack(stage, vsix);
  return vsix;
}
