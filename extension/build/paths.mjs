// Where building reads and writes: the clone, its two output folders, and the cache outside it that clones share.

import { homedir, tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** The clone. */
export const root = fileURLToPath(new URL('../../', import.meta.url)).replace(/[/\\]$/, '');

/** What runs: bundles, grammars, addon. */
export const dist = path.join(root, 'dist');

/** Everything else that building leaves behind in the clone. */
export const output = path.join(root, 'build');

/** Shared by all clones: finished native builds, the packaging compiler, and the launcher's Node. Always rebuildable. */
export const cache = path.join(process.env['XDG_CACHE_HOME'] || path.join(homedir() || tmpdir(), '.cache'), 'sala-build');

/** A line of progress, on standard error as every one of them. */
export function say(/** @type {string} */ text) {
  process.stderr.write(`sala: ${text}\n`);
}
