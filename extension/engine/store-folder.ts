// Where the store of a model lies: `<system's cache folder>/sala/<model identity>`, owner only. The engine process makes the
// folder; clients only look it up, and read nothing in it but the way to the socket. A client never hashes a model: what the
// engine process found is remembered, and where nothing is known no engine is running either.

import { chmodSync, lstatSync, mkdirSync, mkdtempSync, rmdirSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { EngineError } from './errors';
import { knownModelIdentity, modelIdentity } from './model-folder';

export interface StoreFolder {
  readonly dir: string;
  readonly identity: string;
  /** Set where the usual place could not be written: which, why, and what is used instead. For the user. */
  readonly replaced?: string;
}

/** Beside the store folders: what model-folder.ts remembers of hashed files. */
const knownModels = 'models.json';

/**
 * The store folder of the model in `modelDir`, made if it is not there. `explicit` is the folder that the user named; only the
 * usual place is replaced by another. Throws `model_not_found`, `model_invalid`, `store_unwritable`.
 */
export async function openStoreFolder(modelDir: string, explicit: string | undefined): Promise<StoreFolder> {
  const { base, replaced } = writableBase(explicit);
  const identity = await modelIdentity(modelDir, path.join(base, knownModels));
  const dir = path.join(base, identity);
  try {
    makePrivate(dir);
    tagAsCache(dir);
  } catch (error) {
    throw new EngineError('store_unwritable', `the store folder: ${(error as Error).message}`, { cause: error });
  }
  return { dir, identity, ...(replaced !== undefined && { replaced }) };
}

/** The store folders that an engine for this model may be using now, likeliest first; nothing is hashed, made or written. */
export async function lookUpStoreFolders(modelDir: string, explicit: string | undefined): Promise<string[]> {
  const bases = explicit === undefined ? usualBases().filter(isPrivate) : [path.resolve(explicit)];
  const dirs: string[] = [];
  for (const base of bases) {
    const identity = await knownModelIdentity(modelDir, path.join(base, knownModels));
    if (identity !== undefined && isPrivate(path.join(base, identity))) dirs.push(path.join(base, identity));
  }
  return dirs;
}

/** Makes a folder that only its owner may enter, or throws. A folder of another user, or a link, is refused. */
export function makePrivate(dir: string): void {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  if (process.platform === 'win32') return;
  const found = lstatSync(dir);
  if (!found.isDirectory()) throw new Error(`expected a folder in ${dir}, found something else`);
  if (found.uid !== process.getuid!()) throw new Error(`expected a folder of this user in ${dir}, found one of user ${found.uid}`);
  if (found.mode & 0o077) chmodSync(dir, 0o700);
}

/** Backups leave out what is tagged so, and our own walk does: a store may lie, or be left, in a workspace. */
function tagAsCache(dir: string): void {
  const text = 'Signature: 8a477f597d28d172789f06886806bc55\n# A cache of SALA, which makes it again; see https://bford.info/cachedir/\n';
  try {
    writeFileSync(path.join(dir, 'CACHEDIR.TAG'), text, { flag: 'wx', mode: 0o600 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

/** True for a folder that nobody else can have prepared for us. */
export function isPrivate(dir: string): boolean {
  const found = lstatSync(dir, { throwIfNoEntry: false });
  if (!found?.isDirectory()) return false;
  return process.platform === 'win32' || (found.uid === process.getuid!() && (found.mode & 0o077) === 0);
}

// ---- place ------------------------------------------------------------------------------------------------------------

function writableBase(explicit: string | undefined): { base: string; replaced?: string } {
  const bases = explicit === undefined ? usualBases() : [path.resolve(explicit)];
  const refused: string[] = [];
  for (const base of bases) {
    try {
      // A folder that the user made and named may be open to others: only the store folders within must not be.
      if (explicit === undefined) makePrivate(base);
      const isNew = mkdirSync(base, { recursive: true, mode: 0o700 }) !== undefined;
      if (isNew || explicit === undefined) tagAsCache(base);
      rmdirSync(mkdtempSync(path.join(base, '.probe-')));
      if (refused.length === 0) return { base };
      return { base, replaced: `the store is kept in ${base}, because another place could not be used: ${refused.join('; ')}` };
    } catch (error) {
      refused.push(`${base}: ${(error as Error).message}`);
    }
  }
  throw new EngineError('store_unwritable', `expected a folder for the store that can be written, found: ${refused.join('; ')}`);
}

/** The system's cache folder first; then places that survive a restart; then any. */
function usualBases(): string[] {
  const mine = `sala-${process.getuid?.() ?? os.userInfo().username}`;
  const replacements = process.platform === 'win32' ? [os.tmpdir()] : ['/var/tmp', os.tmpdir()];
  return [...new Set([...cacheFolder(), ...replacements.map((dir) => path.join(dir, mine))])];
}

/**
 * $XDG_CACHE_HOME and its like on other systems. Written out, because `env-paths` asks for the home folder when it is loaded,
 * which throws for a user without one: just the case that needs a replacement.
 */
function cacheFolder(): string[] {
  const { XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  try {
    if (process.platform === 'win32') return [path.join(LOCALAPPDATA || path.join(os.homedir(), 'AppData', 'Local'), 'sala', 'Cache')];
    if (process.platform === 'darwin') return [path.join(os.homedir(), 'Library', 'Caches', 'sala')];
    // The specification has relative paths ignored.
    if (XDG_CACHE_HOME && path.isAbsolute(XDG_CACHE_HOME)) return [path.join(XDG_CACHE_HOME, 'sala')];
    return [path.join(os.homedir(), '.cache', 'sala')];
  } catch {
    return [];
  }
}
