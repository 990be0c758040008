// Packages the extension with the engine of fake-engine.ts in place of the real one: what the user sees is the product's, what
// answers is a script. The product's own VSIX is made by `npm run package`.

import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import * as esbuild from 'esbuild';
import { nodeOptions } from '../../extension/build/bundle.mjs';
import { run } from '../../extension/build/run.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** Resolves to the VSIX's path within `folder`, which is emptied. */
export async function packageWithFakeEngine(folder) {
  const stage = path.join(folder, 'stage');
  await rm(folder, { recursive: true, force: true });
  await mkdir(path.join(stage, 'dist'), { recursive: true });
  const outdir = path.join(stage, 'dist');
  await esbuild.build({ ...nodeOptions, entryPoints: { extension: 'extension/main.ts', engine: 'test/e2e/fake-engine.ts' }, outdir });
  await esbuild.build({
    absWorkingDir: root,
    entryPoints: { 'webview/main': 'webview/main.ts', 'webview/style': 'webview/style.css' },
    bundle: true,
    platform: 'browser',
    target: 'chrome122',
    format: 'iife',
    outdir,
  });
  // Its being there is what says that this platform is supported; the fake engine does not load it.
  await writeFile(path.join(outdir, 'sala.node'), '');
  await cp(path.join(root, 'test/fixtures/tiny'), path.join(stage, 'models', 'tiny'), { recursive: true });
  await cp(path.join(root, 'extension/media'), path.join(stage, 'extension/media'), { recursive: true });
  await writeFile(path.join(stage, 'README.md'), '# SALA with a fake engine\n');
  await cp(path.join(root, 'LICENSE'), path.join(stage, 'LICENSE'));

  const manifest = JSON.parse(await readFile(path.join(root, 'package.json'), 'utf8'));
  for (const key of ['private', 'type', 'scripts', 'dependencies', 'devDependencies']) delete manifest[key];
  manifest.files = ['**'];
  await writeFile(path.join(stage, 'package.json'), JSON.stringify(manifest));
  const vsix = path.join(folder, 'sala.vsix');
  const vsce = path.join(root, 'node_modules/@vscode/vsce/vsce');
  await run(process.execPath, [vsce, 'package', '--out', vsix, '--no-dependencies', '--allow-missing-repository'], {
    cwd: stage,
    log: path.join(folder, 'vsce.log'),
  });
  return vsix;
}
