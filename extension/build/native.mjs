// Compiles the addon and the native tests (targets of CMakeLists.txt). Finished builds are kept outside the clone under a hash of everything that goes
// into them, so that a second clone, or a branch switched back to, compiles nothing. Within a clone make compiles only what
// changed. Two builds at once wait for each other. One that was broken off by force starts over, since make takes a half-written
// object for a finished one.

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { cache, output, root, say } from './paths.mjs';
import { run } from './run.mjs';

/** Finished builds that are kept; the least recently used goes first. */
const keptBuilds = 20;

/**
 * A compiler. `name` tells its builds apart within a clone; `version` is all that decides what it makes of the same sources.
 * @typedef {{ name: string, cmake: readonly string[], version: string, env?: NodeJS.ProcessEnv }} Toolchain
 */

/**
 * The compiler that CMake finds by itself.
 * @returns {Toolchain}
 */
export function systemToolchain() {
  const compiler = process.env['CXX'] || 'c++';
  const asked = spawnSync(compiler, ['--version'], { encoding: 'utf8' });
  if (asked.status !== 0) throw new Error(`expected a C++20 compiler, found none: ${compiler} --version failed`);
  const ccache = spawnSync('ccache', ['--version']).status === 0;
  return {
    name: `${process.platform}-${process.arch}`,
    version: [asked.stdout.split('\n')[0], process.env['CXXFLAGS'], process.env['LDFLAGS']].join('\n'),
    cmake: ccache ? ['-DCMAKE_CXX_COMPILER_LAUNCHER=ccache'] : [],
    env: { ...process.env, CCACHE_BASEDIR: root, CCACHE_NOHASHDIR: '1' },
  };
}

/**
 * The same, with AddressSanitizer and UBSan: a build folder of its own.
 * @param {Toolchain} toolchain
 * @returns {Toolchain}
 */
export function sanitizing(toolchain) {
  const cmake = [...toolchain.cmake, '-DSALA_SANITIZE=ON', '-DCMAKE_CXX_FLAGS_RELEASE=-O1 -g'];
  return { ...toolchain, name: `${toolchain.name}-sanitized`, cmake };
}

/** @typedef {'sala_node' | 'test_kernels' | 'test_native' | 'fuzz_replay' | 'bench_kernels' | 'bench_fill_store'} BuildTarget */

/**
 * What a target becomes, the option of CMakeLists.txt that it belongs to, and its sources beside those of the engine.
 * @type {Record<BuildTarget, { file: string, part?: string, sources?: string }>}
 */
const products = {
  sala_node: { file: 'sala.node' },
  test_kernels: { file: 'test_kernels', part: 'SALA_TESTS', sources: 'test/kernels' },
  test_native: { file: 'test_native', part: 'SALA_TESTS', sources: 'test/native' },
  fuzz_replay: { file: 'fuzz_replay', part: 'SALA_TESTS', sources: 'test/fuzz' },
  bench_kernels: { file: 'bench_kernels', part: 'SALA_BENCH', sources: 'bench/kernels.cpp' },
  bench_fill_store: { file: 'bench_fill_store', part: 'SALA_BENCH', sources: 'bench/fill_store.cpp' },
};

/**
 * Builds a target, unless it is in the cache.
 * @param {Toolchain} toolchain
 * @param {BuildTarget} target
 * @returns {Promise<string>} the file, in the cache
 */
export async function buildNative(toolchain, target) {
  const { file, sources } = products[target];
  const inputs = ['CMakeLists.txt', 'kernels', 'native', ...(sources ? [sources] : [])];
  const key = await hashOf(inputs, [toolchain.name, toolchain.version]);
  const finished = path.join(cache, 'native', `${toolchain.name}-${target}-${key}`);
  if (!(await exists(finished))) {
    const folder = path.join(output, `native-${toolchain.name}`);
    await compile(toolchain, target, folder);
    await keep(path.join(folder, file), finished);
  }
  await touch(finished);
  await dropOldBuilds();
  return path.join(finished, file);
}

/** Hash of the files' names and bytes and of `more`, as hex. */
async function hashOf(/** @type {string[]} */ sources, /** @type {string[]} */ more) {
  const hash = createHash('sha256').update(JSON.stringify(more));
  for (const headers of ['node-api-headers', 'node-addon-api']) {
    hash.update(await readFile(path.join(root, 'node_modules', headers, 'package.json')));
  }
  for (const source of sources) {
    for (const file of await filesBelow(source)) {
      const bytes = await readFile(path.join(root, file));
      hash.update(`${file}\0${bytes.length}\0`).update(bytes);
    }
  }
  return hash.digest('hex').slice(0, 32);
}

/** Files below a path of the clone, itself if it is one, sorted. @returns {Promise<string[]>} */
async function filesBelow(/** @type {string} */ relative) {
  const info = await stat(path.join(root, relative)).catch(() => undefined);
  if (!info?.isDirectory()) return info ? [relative] : [];
  const names = (await readdir(path.join(root, relative))).sort();
  return (await Promise.all(names.map((name) => filesBelow(`${relative}/${name}`)))).flat();
}

async function compile(/** @type {Toolchain} */ toolchain, /** @type {BuildTarget} */ target, /** @type {string} */ folder) {
  const log = `${folder}.log`;
  await mkdir(output, { recursive: true });
  const { brokenOff, release } = await claim(`${folder}.building`);
  if (brokenOff || (await wasElsewhere(folder))) await rm(folder, { recursive: true, force: true });
  const began = Date.now();
  say(`compiling ${target} for ${toolchain.name} …`);
  try {
    const env = toolchain.env ?? process.env;
    const parts = ['SALA_TESTS', 'SALA_BENCH'].map((part) => `-D${part}=${part === products[target].part ? 'ON' : 'OFF'}`);
    const configure = ['-S', root, '-B', folder, '-DCMAKE_BUILD_TYPE=Release', '-DSALA_TEST_DIR=test', ...parts];
    await run('cmake', [...configure, ...toolchain.cmake], { log, env });
    const build = ['--build', folder, '--target', target, '--parallel', String(availableParallelism())];
    await run('cmake', build, { log, env, append: true, onLine: percentReporter() });
  } finally {
    await release();
  }
  say(`compiled in ${Math.round((Date.now() - began) / 1000)} s`);
}

/**
 * Waits until no other process builds in a folder, then holds a file there that says we do: our process id, touched as long as
 * we live. One that is left over names a process that is gone, or another's by now, which does not touch it.
 * @returns {Promise<{ brokenOff: boolean, release: () => Promise<void> }>} whether a build before us was ended by force
 */
async function claim(/** @type {string} */ file) {
  for (let waited = false, brokenOff = false; ; ) {
    try {
      await writeFile(file, String(process.pid), { flag: 'wx' });
      const touching = setInterval(() => void touch(file), 5_000);
      const release = async () => {
        clearInterval(touching);
        await rm(file, { force: true });
      };
      return { brokenOff, release };
    } catch (error) {
      if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'EEXIST') throw error;
    }
    const touched = (await stat(file).catch(() => undefined))?.mtimeMs ?? Date.now();
    const pid = Number(await readFile(file, 'utf8').catch(() => ''));
    if ((pid > 0 && !isAlive(pid)) || Date.now() - touched > 60_000) {
      brokenOff = true;
      await rm(file, { force: true });
      continue;
    }
    if (!waited) say(`waiting for another build (process ${pid})`);
    waited = true;
    await delay(500);
  }
}

async function touch(/** @type {string} */ file) {
  const now = new Date();
  await utimes(file, now, now).catch(() => undefined);
}

function isAlive(/** @type {number} */ pid) {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return /** @type {NodeJS.ErrnoException} */ (error).code === 'EPERM';
  }
}

/** CMake refuses a build folder whose clone was moved or copied. */
async function wasElsewhere(/** @type {string} */ folder) {
  const known = await readFile(path.join(folder, 'CMakeCache.txt'), 'utf8').catch(() => undefined);
  return known !== undefined && !known.includes(`\nCMAKE_HOME_DIRECTORY:INTERNAL=${root}\n`);
}

/** Prints how far make is, from its own `[ 42%]`: in place on a terminal, else in quarters. */
function percentReporter() {
  const inPlace = process.stderr.isTTY;
  const step = inPlace ? 1 : 25;
  let reported = 0;
  return (/** @type {string} */ line) => {
    const percent = Number(/^\[ *(\d+)%\]/.exec(line)?.[1] ?? 0);
    if (percent < reported + step) return;
    reported = percent - (percent % step);
    process.stderr.write(inPlace ? `\rsala: ${reported} %${reported === 100 ? '\n' : ''}` : `sala: ${reported} %\n`);
  };
}

/** Copies what was built to the cache; a name appears there only with everything in it. */
async function keep(/** @type {string} */ built, /** @type {string} */ finished) {
  await mkdir(path.dirname(finished), { recursive: true });
  const partial = await mkdtemp(`${finished}.partial-`);
  await copyFile(built, path.join(partial, path.basename(built)));
  // Another clone may have been faster; its build is as good.
  await rename(partial, finished).catch(() => rm(partial, { recursive: true, force: true }));
}

async function dropOldBuilds() {
  const folder = path.join(cache, 'native');
  const lastUse = async (/** @type {string} */ name) => (await stat(path.join(folder, name)).catch(() => undefined))?.mtimeMs ?? 0;
  const builds = await Promise.all((await readdir(folder)).map(async (name) => ({ name, used: await lastUse(name) })));
  builds.sort((a, b) => b.used - a.used);
  for (const { name } of builds.slice(keptBuilds)) await rm(path.join(folder, name), { recursive: true, force: true });
}

async function exists(/** @type {string} */ file) {
  return (await stat(file).catch(() => undefined)) !== undefined;
}
