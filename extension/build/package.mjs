// `npm run package`: makes sala-<target>-<version>.vsix for this machine, or for every `--target linux-x64|linux-arm64`. What goes
// in is laid out in build/vsix/<target> and nothing else: bundles, grammars, the addon, the model, the pictures, the documents.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { copyFile, cp, link, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { bundle } from './bundle.mjs';
import { buildNative } from './native.mjs';
import { output, root, say } from './paths.mjs';
import { run } from './run.mjs';
import { hostTarget, targets, zigToolchain } from './zig.mjs';

/** What VS Code's own server asks of a system: nothing newer may be needed. */
const newest = { GLIBC: '2.28', GLIBCXX: '3.4.25' };

/**
 * Makes one VSIX.
 * @param {import('./zig.mjs').Target} target
 * @returns {Promise<string>} its path, in the clone
 */
export async function packageExtension(target) {
  const addon = await releaseAddon(target);
  const stage = path.join(output, 'vsix', target);
  await rm(stage, { recursive: true, force: true });
  await mkdir(path.join(stage, 'dist'), { recursive: true });
  const inputs = await bundle({ release: true, into: path.join(stage, 'dist') });
  await copyFile(addon, path.join(stage, 'dist', 'sala.node'));
  await writeFile(path.join(stage, 'dist', 'THIRD-PARTY-NOTICES.txt'), await notices(inputs));
  await cp(path.join(root, 'extension', 'media'), path.join(stage, 'extension', 'media'), { recursive: true });
  for (const name of ['README.md', 'CHANGELOG.md', 'LICENSE']) await copyFile(path.join(root, name), path.join(stage, name));
  await linkModel(path.join(stage, 'models'));

  const { version } = JSON.parse(await readFile(path.join(root, 'package.json'), 'utf8'));
  const vsix = path.join(root, `sala-${target}-${version}.vsix`);
  await pack(stage, vsix, ['--target', target]);
  say(`${path.basename(vsix)}: ${((await stat(vsix)).size / 1e6).toFixed(0)} MB`);
  return vsix;
}

/**
 * Makes a VSIX of everything in a folder; the manifest is ours without what only building needs.
 * @param {string} stage
 * @param {string} vsix its path
 * @param {readonly string[]} [options] more of vsce's
 */
export async function pack(stage, vsix, options = []) {
  const manifest = JSON.parse(await readFile(path.join(root, 'package.json'), 'utf8'));
  for (const key of ['private', 'type', 'scripts', 'dependencies', 'devDependencies']) delete manifest[key];
  manifest.files = ['**'];
  await writeFile(path.join(stage, 'package.json'), JSON.stringify(manifest, undefined, 2));
  const vsce = path.join(root, 'node_modules', '@vscode', 'vsce', 'vsce');
  const args = [vsce, 'package', '--out', vsix, '--no-dependencies', '--allow-missing-repository', '--no-rewrite-relative-links'];
  await run(process.execPath, [...args, ...options], { cwd: stage, log: `${stage}.log` });
}

/**
 * The addon that is handed out, checked: it needs no newer system than promised and, if it is this machine's, loads.
 * @param {import('./zig.mjs').Target} target
 */
export async function releaseAddon(target) {
  const addon = await buildNative(await zigToolchain(target), 'sala_node');
  checkSymbols(addon);
  if (target === hostTarget()) checkLoads(addon);
  return addon;
}

/** Throws if the addon needs a symbol that systems of its glibc lack. */
function checkSymbols(/** @type {string} */ addon) {
  const listed = spawnSync('objdump', ['-T', addon], { encoding: 'utf8' });
  if (listed.status !== 0) throw new Error(`expected objdump to list the symbols of ${addon}: ${listed.error?.message ?? listed.stderr}`);
  for (const [library, limit] of Object.entries(newest)) {
    const needed = [...listed.stdout.matchAll(new RegExp(`\\b${library}_([\\d.]+)`, 'g'))].map((match) => match[1] ?? '');
    const tooNew = needed.filter((version) => compareVersions(version, limit) > 0);
    if (tooNew.length > 0) throw new Error(`expected at most ${library}_${limit}, ${addon} needs ${[...new Set(tooNew)].join(', ')}`);
  }
}

function compareVersions(/** @type {string} */ a, /** @type {string} */ b) {
  return a.localeCompare(b, 'en', { numeric: true });
}

/**
 * Loads the addon and has an exception of its C++ library caught at its boundary: a model that is not there. Its best kernels must
 * be those that this machine can run: a compiler that left them out would cost no test but all speed.
 */
function checkLoads(/** @type {string} */ addon) {
  const flags = new Set(/^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]?.trim().split(/\s+/));
  const expected = process.arch === 'arm64' ? 'neon' : ['avx2', 'fma', 'f16c'].every((flag) => flags.has(flag)) ? 'avx2' : 'portable';
  const script = `
    const addon = require(process.argv[1]);
    if (!addon.backends().includes('${expected}')) throw new Error('expected kernels ${expected}, found ' + addon.backends());
    addon.load({ modelDir: '/nonexistent', activations: 'fp32', threads: 1 }).then(
      () => { throw new Error('loaded a model that is not there'); },
      (error) => { if (error.code !== 'model_not_found') throw error; });`;
  const ended = spawnSync(process.execPath, ['-e', script, addon], { encoding: 'utf8' });
  if (ended.status !== 0) throw new Error(`expected ${addon} to load, found:\n${ended.stderr}`);
}

/** The embedded model, without copying it: hard links where the file system has them. */
async function linkModel(/** @type {string} */ models) {
  const from = path.join(root, 'models');
  const entries = await readdir(from, { withFileTypes: true });
  const name = entries.find((entry) => entry.isDirectory())?.name;
  if (!name) throw new Error(`expected a model folder in ${from}, found none`);
  const dir = path.join(from, name);
  const folder = path.join(models, name);
  await mkdir(folder, { recursive: true });
  for (const file of await readdir(dir)) {
    const [from, to] = [path.join(dir, file), path.join(folder, file)];
    await link(from, to).catch(() => copyFile(from, to));
  }
}

/** Licences of the npm packages that went into the bundles or lie beside them, as they ask for. */
async function notices(/** @type {readonly string[]} */ inputs) {
  const names = inputs.map((file) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1]);
  names.push('@vscode/tree-sitter-wasm');
  const packages = [...new Set(names.filter((name) => name !== undefined))].sort();
  const texts = packages.map(async (name) => {
    const folder = path.join(root, 'node_modules', name);
    const { version, license } = JSON.parse(await readFile(path.join(folder, 'package.json'), 'utf8'));
    const files = (await readdir(folder)).filter((file) => /^(licen[cs]e|notice|copying)/i.test(file));
    const bodies = await Promise.all(files.map((file) => readFile(path.join(folder, file), 'utf8')));
    return [`${name} ${version} (${license})`, ...bodies.map((text) => text.trim())].join('\n\n');
  });
  return `${(await Promise.all(texts)).join(`\n\n${'-'.repeat(80)}\n\n`)}\n`;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  try {
    const named = process.argv.flatMap((word, i) => (process.argv[i - 1] === '--target' ? [word] : []));
    const chosen = named.length > 0 ? named : [hostTarget() ?? `${process.platform}-${process.arch}`];
    for (const target of chosen) {
      if (!(target in targets)) throw new Error(`expected one of ${Object.keys(targets).join(', ')}, found target ${target}`);
    }
    for (const target of chosen) await packageExtension(/** @type {import('./zig.mjs').Target} */ (target));
  } catch (error) {
    say(error instanceof Error ? error.message : String(error));
    process.exitCode = 1;
  }
}
