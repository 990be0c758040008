// The compiler of what we hand out. Debian's binds symbols of its own C and C++ libraries that older systems lack, and compiles
// for this machine alone. Zig (PyPI's `ziglang`, a Clang with the headers and stubs of every glibc) links its C++ library
// statically, takes the glibc to be compatible with as a part of the target's name, and compiles for arm64 as well.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { cache, output, say } from './paths.mjs';
import { run } from './run.mjs';

const version = '0.17.1';

/** The processors that CMakeLists.txt wants for its NEON kernels, as Zig names them. */
const neon = '-mcpu=generic+v8_2a+dotprod';
const neonI8mm = `${neon}+i8mm`;

/** What a VSIX can be made for: the editor's name of it → Zig's and CMake's. */
export const targets = {
  'linux-x64': { zig: 'x86_64-linux-gnu.2.28', processor: 'x86_64' },
  'linux-arm64': { zig: 'aarch64-linux-gnu.2.28', processor: 'aarch64' },
};

/** @typedef {keyof typeof targets} Target */

/** This machine's target, if there is one. @returns {Target | undefined} */
export function hostTarget() {
  const name = `${process.platform}-${process.arch}`;
  return name in targets ? /** @type {Target} */ (name) : undefined;
}

/**
 * The compiler of a target, installed into the cache if it is not there. Rejects, saying what is missing, where that cannot be
 * done.
 * @param {Target} target
 * @returns {Promise<import('./native.mjs').Toolchain>}
 */
export async function zigToolchain(target) {
  const zig = await install();
  const { zig: triple, processor } = targets[target];
  const folder = path.join(output, `zig-${target}`);
  await writeTools(zig, triple, folder);
  const file = path.join(folder, 'toolchain.cmake');
  const settings = {
    CMAKE_SYSTEM_NAME: 'Linux',
    CMAKE_SYSTEM_PROCESSOR: processor,
    CMAKE_C_COMPILER: path.join(folder, 'cc'),
    CMAKE_CXX_COMPILER: path.join(folder, 'c++'),
    CMAKE_AR: path.join(folder, 'ar'),
    CMAKE_RANLIB: path.join(folder, 'ranlib'),
  };
  await writeFile(file, Object.entries(settings).map(([name, value]) => `set(${name} "${value}")\n`).join(''));
  return {
    name: `${target}-release`,
    version: `ziglang ${version} ${triple} ${neonI8mm}`,
    cmake: [
      `-DCMAKE_TOOLCHAIN_FILE=${file}`,
      `-DCMAKE_MODULE_LINKER_FLAGS=-s`,
      `-DSALA_NEON=${neon}`,
      `-DSALA_NEON_I8MM=${neonI8mm}`,
      `-DSALA_INCLUDE=${await systemHeaders()}`,
    ],
    // Its C++ library, compiled once for each target, is kept with it.
    env: { ...process.env, CXXFLAGS: '', CFLAGS: '', LDFLAGS: '', ZIG_GLOBAL_CACHE_DIR: path.join(cache, 'zig-objects') },
  };
}

/** @returns {Promise<string>} the zig program */
async function install() {
  const home = path.join(cache, `ziglang-${version}`);
  const zig = path.join(home, 'ziglang', 'zig');
  if (existsSync(zig)) return zig;
  if (spawnSync('python3', ['-c', 'import ensurepip']).status !== 0) {
    throw new Error('expected python3 with its venv module, which fetches the compiler, found none: apt-get install python3-venv');
  }
  say(`fetching the compiler of the VSIX (ziglang ${version})`);
  await mkdir(cache, { recursive: true });
  const partial = await mkdtemp(path.join(cache, 'ziglang.partial-'));
  const log = path.join(output, 'ziglang.log');
  await run('python3', ['-m', 'venv', path.join(partial, 'venv')], { log });
  const pip = path.join(partial, 'venv', 'bin', 'pip');
  const target = path.join(partial, 'home');
  await run(pip, ['install', '--no-deps', '--target', target, `ziglang==${version}`], { log, append: true });
  // Another clone may have been faster: then the name is taken by one as good.
  await rename(target, home).catch(() => undefined);
  await rm(partial, { recursive: true });
  return zig;
}

/** CMake wants programs without arguments. */
async function writeTools(/** @type {string} */ zig, /** @type {string} */ triple, /** @type {string} */ folder) {
  await mkdir(folder, { recursive: true });
  const commands = { 'cc': `cc -target ${triple}`, 'c++': `c++ -target ${triple}`, 'ar': 'ar', 'ranlib': 'ranlib' };
  for (const [tool, command] of Object.entries(commands)) {
    await writeFile(path.join(folder, tool), `#!/bin/sh\nexec '${zig.replaceAll("'", `'\\''`)}' ${command} "$@"\n`, { mode: 0o755 });
  }
}

/** The header-only libraries by themselves: with the whole of /usr/include, the system's libc would be found as well. */
async function systemHeaders() {
  const folder = path.join(output, 'zig-include');
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  for (const name of ['nlohmann', 'xxhash.h', 'doctest']) {
    const found = ['/usr/include', '/usr/local/include'].map((dir) => path.join(dir, name)).find(existsSync);
    if (!found) throw new Error(`expected ${name} in /usr/include or /usr/local/include, found none`);
    await symlink(found, path.join(folder, name));
  }
  return folder;
}
