// What `compare.mjs` runs against: llama.cpp's prebuilt libraries from npm (`node-llama-cpp`), the driver compiled against that
// version's own headers, which the package brings as a git bundle, and models of random weights written with PyPI's `gguf`. All of
// it lies in the build cache, outside the clone, and is made at first use.

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm, symlink } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { cache, output, root, say } from '../extension/build/paths.mjs';
import { run } from '../extension/build/run.mjs';

export const versions = { 'node-llama-cpp': '3.22.1', gguf: '0.19.0' };

/** @typedef {'dense_q4_0' | 'dense_q4_k' | 'hybrid_q4_0'} PeerModel */

/** @typedef {{ program: string, libraries: string, avx2: () => Promise<string>, release: string, model: (name: PeerModel) => Promise<string> }} Peer */

const log = path.join(output, 'compare.log');

/**
 * Installs what is missing. Rejects, saying what the machine lacks, where that cannot be done.
 * @returns {Promise<Peer>}
 */
export async function installPeer() {
  const platform = `linux-${process.arch}`;
  if (process.platform !== 'linux' || !['x64', 'arm64'].includes(process.arch)) {
    throw new Error(`expected Linux on x64 or arm64, whose processor times and peer this compares, found ${process.platform}-${process.arch}`);
  }
  const home = await once(`peer-${versions['node-llama-cpp']}`, async (folder) => {
    const packages = ['node-llama-cpp', `@node-llama-cpp/${platform}`].map((name) => `${name}@${versions['node-llama-cpp']}`);
    say(`fetching the peer (${packages[0]})`);
    // Its optional packages are the same for other systems and graphics cards, a gigabyte of them.
    await run('npm', ['install', '--prefix', folder, '--ignore-scripts', '--omit=optional', '--no-audit', '--no-fund', ...packages], { log });
    const bundle = path.join(folder, 'node_modules/node-llama-cpp/llama/gitRelease.bundle');
    await run('git', ['clone', '--quiet', '--no-checkout', bundle, path.join(folder, 'source')], { log, append: true });
    await run('git', ['-C', path.join(folder, 'source'), 'checkout', '--quiet', 'HEAD', '--', 'include', 'ggml/include'], { log, append: true });
  });
  const libraries = path.join(home, `node_modules/@node-llama-cpp/${platform}/bins/${platform}`);
  const release = JSON.parse(readFileSync(path.join(home, 'node_modules/node-llama-cpp/llama/llama.cpp.info.json'), 'utf8')).tag;
  return { program: await compileDriver(home, libraries), libraries, avx2: () => avx2(libraries), release, model };
}

/** @returns {Promise<string>} the driver, compiled */
async function compileDriver(/** @type {string} */ home, /** @type {string} */ libraries) {
  const source = path.join(root, 'bench/peer.cpp');
  const folder = await once(`peer-driver-${hash(source)}`, async (folder) => {
    const shared = ['libllama.', 'libggml.', 'libggml-base.'].map((name) => {
      const found = readdirSync(libraries).find((file) => file.startsWith(name));
      if (!found) throw new Error(`expected ${name}*so in ${libraries}, found none`);
      return path.join(libraries, found);
    });
    const includes = ['include', 'ggml/include'].map((name) => `-I${path.join(home, 'source', name)}`);
    const compiler = process.env['CXX'] || 'c++';
    await run(compiler, ['-std=c++20', '-O2', ...includes, source, '-o', path.join(folder, 'peer'), ...shared, `-Wl,-rpath,${libraries}`], { log, append: true });
  });
  return path.join(folder, 'peer');
}

/** @returns {Promise<string>} a folder of the same libraries in which the one for AVX2 is the best for this processor */
async function avx2(/** @type {string} */ libraries) {
  return once(`peer-avx2-${hash(fileURLToPath(import.meta.url))}`, async (folder) => {
    const best = 'libggml-cpu-haswell.so';
    const names = readdirSync(libraries).filter((name) => !name.startsWith('libggml-cpu-') || name === best);
    if (!names.includes(best)) throw new Error(`expected ${best} in ${libraries}, found none: --avx2 is for x64`);
    for (const name of names) await symlink(path.join(libraries, name), path.join(folder, name));
  });
}

/** @returns {Promise<string>} the GGUF file */
async function model(/** @type {PeerModel} */ name) {
  const script = path.join(root, 'bench/make_gguf.py');
  const python = path.join(await gguf(), 'bin/python');
  const folder = await once(`peer-model-${name}-${hash(script)}`, async (folder) => {
    say(`writing a model of random weights: ${name}`);
    await run(python, [script, name, path.join(folder, 'model.gguf')], { log, append: true });
  });
  return path.join(folder, 'model.gguf');
}

/** @returns {Promise<string>} a virtual environment with the `gguf` package */
async function gguf() {
  if (spawnSync('python3', ['-c', 'import ensurepip']).status !== 0) {
    throw new Error('expected python3 with its venv module, found none: apt-get install python3-venv');
  }
  // A virtual environment knows its own path: it is made where it stays.
  const home = path.join(cache, `gguf-${versions.gguf}`);
  const ready = path.join(home, 'lib');
  if (existsSync(path.join(home, 'bin/gguf-dump')) && existsSync(ready)) return home;
  say(`fetching gguf ${versions.gguf}`);
  await run('python3', ['-m', 'venv', '--clear', home], { log, append: true });
  await run(path.join(home, 'bin/pip'), ['install', '--quiet', `gguf==${versions.gguf}`], { log, append: true });
  return home;
}

/** A folder of the cache that is there with everything in it or not at all. */
async function once(/** @type {string} */ name, /** @type {(folder: string) => Promise<void>} */ make) {
  const finished = path.join(cache, name);
  if (existsSync(finished)) return finished;
  await mkdir(cache, { recursive: true });
  const partial = await mkdtemp(`${finished}.partial-`);
  try {
    await make(partial);
    // Another clone may have been faster; what it made is as good.
    await rename(partial, finished).catch(() => undefined);
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
  return finished;
}

function hash(/** @type {string} */ file) {
  return createHash('sha256').update(readFileSync(file)).update(versions['node-llama-cpp']).digest('hex').slice(0, 16);
}
