// Makes the JavaScript that runs: one CommonJS file for each process, one script for the webview, and beside them the WebAssembly
// files that they load. Sources are TypeScript modules without a build of their own; types are checked by `npm run typecheck`.

import { copyFile, mkdir, readdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import * as esbuild from 'esbuild';
import { dist, root, say } from './paths.mjs';

/** Bundle → source: a program for each process, and the worker of the engine process. */
const programs = {
  'cli': 'extension/cli/main.ts',
  'engine': 'extension/engine/process.ts',
  'tokenizer-worker': 'extension/engine/tokenizer-worker.ts',
  'extension': 'extension/main.ts',
};

/** Bundle → source, for the browser that the editor shows webviews in. */
const pages = {
  'webview/main': 'webview/main.ts',
  'webview/style': 'webview/style.css',
};

/**
 * Options of everything that runs in Node; also used for the tests, which bundle in the same way.
 * `import.meta.url`, which some packages ask for their own place, is given the bundle's.
 * @satisfies {import('esbuild').BuildOptions}
 */
export const nodeOptions = {
  absWorkingDir: root,
  bundle: true,
  platform: 'node',
  target: 'node20.19',
  format: 'cjs',
  outExtension: { '.js': '.cjs' },
  external: ['vscode', '*.wasm'],
  define: { 'import.meta.url': 'bundleUrl' },
  banner: { js: "const bundleUrl = require('node:url').pathToFileURL(__filename).href;" },
  logLevel: 'warning',
};

/**
 * Options of everything that runs in the editor's browser.
 * @satisfies {import('esbuild').BuildOptions}
 */
export const pageOptions = {
  absWorkingDir: root,
  entryPoints: pages,
  bundle: true,
  platform: 'browser',
  target: 'chrome122',
  format: 'iife',
  logLevel: 'warning',
};

/**
 * Fills `into` with everything but the addon. With `release` bundles are minified and have no source maps.
 * @param {{ release?: boolean, into?: string }} [options]
 * @returns {Promise<readonly string[]>} the files that went into the bundles, relative to the clone
 */
export async function bundle({ release = false, into = dist } = {}) {
  await copyWasm(into);
  const results = await Promise.all(configurations(release, into).map((options) => esbuild.build(options)));
  return results.flatMap((result) => Object.keys(result.metafile?.inputs ?? {}));
}

/** Bundles again whenever a source changes; never resolves. */
export async function watch() {
  await copyWasm(dist);
  const contexts = await Promise.all(
    configurations(false, dist).map((options) => esbuild.context({ ...options, logLevel: 'info', plugins: [watchLines] })),
  );
  await Promise.all(contexts.map((context) => context.watch()));
}

/** @returns {import('esbuild').BuildOptions[]} */
function configurations(/** @type {boolean} */ release, /** @type {string} */ outdir) {
  const common = { minify: release, sourcemap: !release, metafile: true, outdir };
  return [
    { ...nodeOptions, ...common, entryPoints: programs },
    { ...pageOptions, ...common },
  ];
}

/** The tree-sitter runtime and its grammars. */
async function copyWasm(/** @type {string} */ into) {
  const require = createRequire(import.meta.url);
  const folder = path.join(into, 'grammars');
  await mkdir(folder, { recursive: true });
  const runtime = require.resolve('web-tree-sitter/web-tree-sitter.wasm');
  await copyFile(runtime, path.join(folder, 'web-tree-sitter.wasm'));
  const grammars = path.join(root, 'node_modules/@vscode/tree-sitter-wasm/wasm');
  for (const name of await readdir(grammars)) {
    // That package's own runtime is an older one and not used.
    if (name.endsWith('.wasm') && name !== 'tree-sitter.wasm') await copyFile(path.join(grammars, name), path.join(folder, name));
  }
}

/** What the editor's watch task looks for, to know when building began and ended (.vscode/tasks.json). @type {esbuild.Plugin} */
const watchLines = {
  name: 'watch-lines',
  setup(build) {
    build.onStart(() => say('bundling …'));
    build.onEnd((result) => say(`bundled, ${result.errors.length} errors`));
  },
};
