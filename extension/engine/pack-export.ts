// `sala export`: the memory of a client's roots as one file. Everything is read first; what goes in is decided in one moment, and stays
// in memory until it is written. Bytes of a pack: native/store/pack_format.h.

import { constants } from 'node:fs';
import { readlinkSync } from 'node:fs';
import { access, readdir, realpath, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import type { PackInput } from './addon';
import type { ClientSessionOver } from './client-session';
import type { Core } from './core';
import { processStart } from './election';
import { EngineError, toEngineError } from './errors';
import * as messages from './messages';
import type { RootIndex } from './root-index';
import { cutterVersion } from './workspace/segmenter';

/** A segment that turns out damaged is read again, and all is written anew. */
const mostTries = 3;

const temporaryPrefix = '.sala-export-';
/** A pack that nobody has added to for so long is of an engine that was killed, wherever it ran: nobody else can remove it. */
const abandonedMs = 24 * 3600 * 1000;

let nExports = 0;

/**
 * `file`: absolute; replaced when the new one is whole. Throws `store_full`, `store_unwritable` where it cannot be written or the store
 * has no room for all of the memory, `cancelled`: nothing of it stays then.
 */
export async function exportPack(session: ClientSessionOver, file: string, signal: AbortSignal): Promise<messages.ExportResult> {
  const { core } = session;
  const keeper = core.requireKeeper();
  const target = await placeOf(file);
  for (let tries = 1; ; tries++) {
    await session.refresh();
    try {
      await session.ingest(signal);
    } finally {
      // Once, for this: whoever did not want background reading does not have it from now on.
      core.indexer.setReading(session, session.reads);
    }
    for (const { unavailable } of session.roots) if (unavailable !== undefined) throw new EngineError('not_a_workspace', unavailable);
    const roots = session.roots.map((root) => root.packable());
    const files = roots.flatMap(({ versions }) => versions.map(({ path: name, version }) => inputOf(name, version)));
    const keys = files.flatMap(({ segments }) => segments);
    core.memory.retain(keys);
    try {
      await keeper.flush();
      const written = await write(core, files, target, signal, (progress) => session.notify(messages.packProgress, progress));
      return { ...written, left_out: roots.flatMap(({ leftOut }) => leftOut) };
    } catch (thrown) {
      const error = toEngineError(thrown);
      if (error.code !== 'store_invalid' || tries === mostTries) throw error;
      core.log(`store: ${error.message}; read again`);
      readAgain(session.roots, await keeper.store.missing(keys));
      core.indexer.changed();
    } finally {
      core.memory.release(keys);
    }
  }
}

async function write(
  core: Core,
  files: readonly PackInput[],
  target: string,
  signal: AbortSignal,
  onProgress: (progress: messages.PackProgress) => void,
): Promise<Omit<messages.ExportResult, 'left_out'>> {
  await removeAbandoned(core, path.dirname(target));
  const pack = await core.requireKeeper().store.createPack({
    path: target,
    temporary: path.join(path.dirname(target), temporaryName(process.pid, ++nExports)),
    about: { identity: core.identity, numerics: core.native.info.numerics, prefix: core.prefix, cutterVersion },
    files,
  });
  try {
    for (let done = false; !done; ) {
      signal.throwIfAborted();
      const step = await pack.write();
      done = step.done;
      onProgress({ phase: 'segments', done: step.written, total: pack.bytes });
    }
    signal.throwIfAborted();
    await pack.finish();
    return { segments: pack.nSegments, tokens: pack.nTokens, bytes: pack.bytes, files: pack.nFiles };
  } finally {
    await pack.close();
  }
}

function inputOf(name: string, { fileKey, segments }: { readonly fileKey: string; readonly segments: readonly { readonly key: string }[] }): PackInput {
  return { path: name, fileKey, segments: segments.map(({ key }) => key) };
}

/** Says which process writes it, so that whoever comes later can tell whether it still may. */
export function temporaryName(pid: number, n: number): string {
  return `${temporaryPrefix}${pid}.${processStart(pid) ?? ''}.${pidNamespace()}.${n}`;
}

/** False also where that cannot be known from here: of another machine or container, or from before this machine was started. */
function hasEnded(name: string): boolean {
  const [pid, start = '', namespace] = name.slice(temporaryPrefix.length).split('.');
  const own = processStart(process.pid) ?? '';
  const isOfHere = start !== '' && bootOf(start) === bootOf(own) && namespace !== '' && namespace === pidNamespace();
  return isOfHere && processStart(Number(pid)) !== start;
}

/** In which of a machine's containers a process id holds; '' where the system does not tell. */
function pidNamespace(): string {
  try {
    return /\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0] ?? '';
  } catch {
    return '';
  }
}

/** `processStart` is the time within it, then which start of which machine it was. */
const bootOf = (start: string): string => start.slice(start.indexOf('-'));

async function removeAbandoned(core: Core, folder: string): Promise<void> {
  try {
    for (const name of await readdir(folder)) {
      if (!name.startsWith(temporaryPrefix)) continue;
      const file = path.join(folder, name);
      if (hasEnded(name) || Date.now() - (await stat(file)).mtimeMs > abandonedMs) await rm(file, { force: true });
    }
  } catch (error) {
    core.log(`what an earlier export left behind: ${(error as Error).message}`);
  }
}

/** What the store has dropped is encoded again with the files that have it. */
function readAgain(roots: readonly RootIndex[], missing: readonly string[]): void {
  const gone = new Set(missing);
  for (const root of roots) {
    for (const record of root.records.values()) if (record.current?.segments.some(({ key }) => gone.has(key))) root.reread(record);
  }
}

/** Where the pack will lie, links followed. What can be known to be wrong with it is said before hours of reading. */
async function placeOf(file: string): Promise<string> {
  const there = await stat(file).catch(() => undefined);
  if (there && !there.isFile()) throw new EngineError('invalid_argument', `expected a file in ${file}, found something else`);
  try {
    const target = there ? await realpath(file) : path.join(await realpath(path.dirname(file)), path.basename(file));
    await access(path.dirname(target), constants.W_OK | constants.X_OK);
    return target;
  } catch (error) {
    throw new EngineError('store_unwritable', `${file}: expected a folder that can be written, found: ${(error as Error).message}`, { cause: error });
  }
}
