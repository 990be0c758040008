// Passes every test (`./sala test`), or the parts that are named (`./sala test unit e2e`). Parts run one after another, since
// each takes all cores. A part's output is kept in build/test/ and shown where something failed. The last line counts the
// cases of all parts, whatever runs them: `N passed, N failed`, and `, N skipped` where something could not be run.

import { spawn, spawnSync } from 'node:child_process';
import { createWriteStream, existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import * as esbuild from 'esbuild';
import { nodeOptions } from '../extension/build/bundle.mjs';
import { buildNative, sanitizing, systemToolchain } from '../extension/build/native.mjs';
import { packageExtension, releaseAddon } from '../extension/build/package.mjs';
import { dist, output, root } from '../extension/build/paths.mjs';
import { hostTarget, targets, zigToolchain } from '../extension/build/zig.mjs';

/** @typedef {{ passed: number, failed: number, skipped: number }} Count */

const results = path.join(output, 'test');

/** What runs longer hangs: it is ended and has failed. */
const longestMs = 15 * 60_000;
/** The same of one file under Node's runner, so that what the other files had to say is not lost with it. */
const longestFileMs = 5 * 60_000;

/**
 * In the order of what is quickest to tell.
 * @type {Record<string, () => Promise<Count>>}
 */
const parts = { types, unit, native, arm64, webview, quality, vsix, e2e };

const chosen = process.argv.slice(2);
const unknown = chosen.filter((name) => !(name in parts));
if (unknown.length > 0) {
  process.stderr.write(`unknown part: ${unknown.join(', ')}; there are ${Object.keys(parts).join(', ')}\n`);
  process.exit(2);
}

await rm(results, { recursive: true, force: true });
await mkdir(results, { recursive: true });
/** @type {Count} */
const total = { passed: 0, failed: 0, skipped: 0 };
for (const [name, part] of Object.entries(parts)) {
  if (chosen.length > 0 && !chosen.includes(name)) continue;
  const began = Date.now();
  const count = await part().catch((error) => {
    console.log(error instanceof Error ? error.message : error);
    return { passed: 0, failed: 1, skipped: 0 };
  });
  add(total, count);
  console.log(`${name.padEnd(8)} ${said(count)} in ${((Date.now() - began) / 1000).toFixed(1)} s`);
}
process.exitCode = total.failed > 0 ? 1 : 0;
console.log(said(total));

// ---- parts ------------------------------------------------------------------------------------------------------------

/** The TypeScript compiler over everything; each project is one case. */
async function types() {
  const count = none();
  for (const project of ['.', 'webview']) {
    const compiler = path.join(root, 'node_modules/typescript/bin/tsc');
    const ended = await run(`types-${project === '.' ? 'extension' : project}`, process.execPath, [compiler, '-p', project]);
    if (ended.code === 0) count.passed++;
    else count.failed++;
    if (ended.code !== 0) show(ended);
  }
  return count;
}

/** Every *.test.ts under Node's runner: modules by themselves, and the command line on small models. */
async function unit() {
  return underNode('unit', ['test/extension', 'test/cli', 'test/webview', 'test/reliability']);
}

/** Questions over a fully read repository, answered by the embedded model: minutes. */
async function quality() {
  return underNode('quality', ['test/quality']);
}

/**
 * Kernels and engine: the doctest programs of the native build; what the matrix products cost in instructions; then what fuzzing has
 * collected, under sanitizers.
 */
async function native() {
  const count = none();
  for (const target of /** @type {const} */ (['test_kernels', 'test_native'])) {
    add(count, await doctest(target, await buildNative(systemToolchain(), target), []));
  }
  add(count, await counted('instructions', process.execPath, ['bench/instructions.mjs']));
  const replay = await buildNative(sanitizing(systemToolchain()), 'fuzz_replay');
  add(count, await counted('fuzz', replay, ['test/fuzz/corpus', '--rounds', '100']));
  return count;
}

/** The kernels of arm64, compiled as they are handed out and emulated; on such a machine itself `native` has run them. */
async function arm64() {
  if (process.arch === 'arm64') return none();
  const libraries = '/usr/aarch64-linux-gnu';
  const emulator = ['qemu-aarch64', 'qemu-aarch64-static'].find((name) => spawnSync(name, ['--version']).status === 0);
  if (!emulator || !existsSync(libraries)) return skip('kernels of arm64: no emulator (apt-get install qemu-user libc6-arm64-cross)');
  const program = await buildNative(await zigToolchain('linux-arm64'), 'test_kernels');
  return doctest('test_kernels-arm64', emulator, ['-L', libraries, program]);
}

/** The chat page in a real browser. */
async function webview() {
  return inBrowser('test/webview');
}

/** What is handed out: addons for all targets that run on old systems, this machine's VSIX with all that belongs in it. */
async function vsix() {
  const count = none();
  for (const target of /** @type {(keyof typeof targets)[]} */ (Object.keys(targets))) {
    await releaseAddon(target);
    count.passed++;
  }
  const host = hostTarget();
  if (!host) return count;
  const file = await packageExtension(host);
  process.env['SALA_VSIX'] = file;
  const listed = spawnSync('python3', ['-m', 'zipfile', '-l', file], { encoding: 'utf8' }).stdout;
  const missing = [/dist\/sala\.node/, /dist\/extension\.cjs/, /dist\/grammars\/.*\.wasm/, /models\/.*\.safetensors/, /package\.json/].filter(
    (wanted) => !wanted.test(listed),
  );
  const unwanted = listed.match(/^.*(\.(ts|cpp|h|map)|node_modules\/.*|\.mjs) /gm) ?? [];
  if (missing.length > 0) throw new Error(`${file} lacks ${missing.join(', ')}`);
  if (unwanted.length > 0) throw new Error(`${file} has sources in it:\n${unwanted.join('\n')}`);
  count.passed++;
  return count;
}

/** The extension in a real VS Code, the packaged one among them: the VSIX of the part before, where that has run. */
async function e2e() {
  return inBrowser('test/e2e');
}

// ---- runners ----------------------------------------------------------------------------------------------------------

/** Every *.test.ts of some folders under Node's runner. */
async function underNode(/** @type {string} */ name, /** @type {readonly string[]} */ folders) {
  const sources = (await Promise.all(folders.map((folder) => testSources(folder)))).flat();
  const outdir = path.join(results, name);
  await esbuild.build({ ...nodeOptions, entryPoints: sources, outbase: path.join(root, 'test'), outdir, sourcemap: 'inline' });
  const bundles = sources.map((file) => path.join(outdir, path.relative('test', file).replace(/\.ts$/, '.cjs')));
  const tap = path.join(results, `${name}.tap`);
  const reporters = ['--test-reporter=spec', '--test-reporter-destination=stdout'];
  reporters.push('--test-reporter=tap', `--test-reporter-destination=${tap}`);
  const ended = await run(name, process.execPath, ['--enable-source-maps', '--test', `--test-timeout=${longestFileMs}`, ...reporters, ...bundles]);
  const counts = await readFile(tap, 'utf8');
  const of = (/** @type {string} */ what) => Number(new RegExp(`^# ${what} (\\d+)$`, 'm').exec(counts)?.[1] ?? 0);
  const count = { passed: of('pass'), failed: of('fail') + of('cancelled'), skipped: of('skipped') + of('todo') };
  if (ended.code !== 0 && count.failed === 0) count.failed = 1;
  if (count.failed > 0) show(ended, /^✖ failing tests:/m);
  return count;
}

/** Cases of a doctest program, from its closing line; one that did not come to its end failed. */
async function doctest(/** @type {string} */ name, /** @type {string} */ program, /** @type {string[]} */ args) {
  const ended = await run(name, program, [...args, '--no-colors=true']);
  const line = /test cases:\s*(\d+)\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed\s*\|\s*(\d+) skipped/.exec(ended.text);
  const count = { passed: Number(line?.[2] ?? 0), failed: Number(line?.[3] ?? 0), skipped: Number(line?.[4] ?? 0) };
  if (ended.code !== 0 && count.failed === 0) count.failed = 1;
  if (count.failed > 0) show(ended);
  return count;
}

/**
 * Every *.test.mjs of a folder. A file that failed is run once more, since an editor in a browser shows what it shows when it
 * gets to it; that this was needed is printed with what failed, and all of the first run's output is kept.
 */
async function scripts(/** @type {string} */ folder) {
  const count = none();
  for (const file of await testSources(folder, '.test.mjs')) {
    const name = path.basename(file, '.test.mjs');
    let one = await counted(name, process.execPath, [path.join(root, file)]);
    if (one.failed > 0) {
      console.log(`${name}: ${said(one)}; once more`);
      one = await counted(`${name}-again`, process.execPath, [path.join(root, file)]);
      if (one.failed === 0) console.log(`${name}: passed when run again: something in it depends on time`);
    }
    add(count, one);
  }
  return count;
}

/** A program that ends with `N passed, N failed`. */
async function counted(/** @type {string} */ name, /** @type {string} */ program, /** @type {readonly string[]} */ args) {
  const ended = await run(name, program, args);
  const lines = [...ended.text.matchAll(/^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$/gm)].at(-1);
  const count = { passed: Number(lines?.[1] ?? 0), failed: Number(lines?.[2] ?? 0), skipped: Number(lines?.[3] ?? 0) };
  if ((ended.code !== 0 || !lines) && count.failed === 0) count.failed = 1;
  if (count.failed > 0) show(ended);
  else for (const line of ended.text.match(/^skipped: .*$/gm) ?? []) console.log(line);
  return count;
}

/** Tests in a browser install what they need, which for Chromium takes root. */
async function inBrowser(/** @type {string} */ folder) {
  if (existsSync(process.env['CHROMIUM'] ?? '/usr/bin/chromium') || process.getuid?.() === 0) return scripts(folder);
  return skip(`${folder}: no Chromium (apt-get install chromium, or set CHROMIUM to its path)`);
}

/** @returns {Count} */
function skip(/** @type {string} */ why) {
  console.log(`skipped: ${why}`);
  return { ...none(), skipped: 1 };
}

/** Paths relative to the clone, sorted. */
async function testSources(/** @type {string} */ folder, /** @type {string} */ ending = '.test.ts') {
  if (!existsSync(path.join(root, folder))) return [];
  const names = await readdir(path.join(root, folder), { recursive: true });
  return names.filter((name) => name.endsWith(ending)).sort().map((name) => path.join(folder, name));
}

/**
 * Runs a program in the clone to its end, whatever that is; its output goes to build/test/NAME.log.
 * @returns {Promise<{ code: number | string, text: string, log: string }>}
 */
async function run(/** @type {string} */ name, /** @type {string} */ program, /** @type {readonly string[]} */ args) {
  const log = path.join(results, `${name}.log`);
  const file = createWriteStream(log);
  // The path of the bundles under test; without it they would look for their files beside the tests.
  const env = { ...process.env, SALA_DIST: dist };
  const child = spawn(program, args, { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (piece) => {
      text += piece;
      file.write(piece);
    });
  }
  /** @type {NodeJS.Timeout | undefined} */
  let timer;
  const code = await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status, signal) => resolve(signal ?? status));
    timer = setTimeout(() => child.kill('SIGKILL'), longestMs);
  }).finally(() => clearTimeout(timer));
  file.end();
  return { code, text, log };
}

/** Prints what a failed run said, from `start` on where that is found, and its end if it is long. */
function show(/** @type {{ code: number | string, text: string, log: string }} */ ended, /** @type {RegExp} */ start = /^/) {
  const from = ended.text.search(start);
  const lines = ended.text.slice(Math.max(from, 0)).trimEnd().split('\n');
  console.log(lines.slice(-200).join('\n'));
  console.log(`(ended with ${ended.code}; all of it: ${ended.log})`);
}

/** @returns {Count} */
function none() {
  return { passed: 0, failed: 0, skipped: 0 };
}

function add(/** @type {Count} */ sum, /** @type {Count} */ more) {
  sum.passed += more.passed;
  sum.failed += more.failed;
  sum.skipped += more.skipped;
}

function said(/** @type {Count} */ { passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}
