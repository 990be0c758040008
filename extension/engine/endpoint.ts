// The local socket of an engine: its name, its place, who may reach it. One engine serves a store folder per protocol and kind of
// activations, so both are in the name. A path too long for a socket, or a file system without sockets, is answered by a short
// name in the runtime folder, which a record in the store folder leads to.

import { createHash } from 'node:crypto';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import type { Activations } from './addon';
import { protocolVersion } from './messages';
import { makePrivate } from './store-folder';

/** Bytes of a path that the kernel takes: `sun_path` less its final zero. */
const maxSocketPathBytes = process.platform === 'darwin' ? 103 : 107;

/** What an engine's files in the store folder are called: `<name>.sock`, `<name>.where`, `<name>.<owner>.lock`. */
export function endpointName(activations: Activations): string {
  return `engine-${protocolVersion}-${activations}`;
}

/** Where an engine for this store folder listens, if one does. */
export function endpointPath(storeDir: string, name: string): string {
  if (process.platform === 'win32') return `\\\\.\\pipe\\sala-${shortName(storeDir, name)}`;
  try {
    return readFileSync(path.join(storeDir, `${name}.where`), 'utf8');
  } catch {
    return path.join(storeDir, `${name}.sock`);
  }
}

/** True if somebody accepts connections there. A stopped (SIGSTOP) engine does. */
export function accepts(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(socketPath);
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

/**
 * Listens for this store folder and returns the socket's path. The caller has been elected (election.ts), so whatever lies in
 * the way is left over. On Windows, where the pipe itself elects, fails with EADDRINUSE.
 */
export async function listenAt(server: net.Server, storeDir: string, name: string): Promise<string> {
  removeEndpoint(storeDir, name);
  const direct = endpointPath(storeDir, name);
  if (Buffer.byteLength(direct) <= maxSocketPathBytes) {
    try {
      await listen(server, direct);
      return direct;
    } catch (error) {
      // Network and foreign file systems without sockets answer so.
      if (!['EPERM', 'EOPNOTSUPP', 'ENOTSUP', 'EINVAL', 'EACCES'].includes(String((error as NodeJS.ErrnoException).code))) throw error;
    }
  }
  const short = path.join(runtimeFolder(), `${shortName(storeDir, name)}.sock`);
  rmSync(short, { force: true });
  await listen(server, short);
  writeFileSync(path.join(storeDir, `${name}.where`), short, { mode: 0o600 });
  return short;
}

/**
 * Takes away the socket and the record that leads to it. Only for one who has been elected. Throws nothing: where the disk cannot be
 * written any more they stay, and whoever connects finds that nobody listens.
 */
export function removeEndpoint(storeDir: string, name: string): void {
  if (process.platform === 'win32') return;
  for (const file of [endpointPath(storeDir, name), ...['where', 'sock'].map((ending) => path.join(storeDir, `${name}.${ending}`))]) {
    try {
      rmSync(file, { force: true });
    } catch {
      // As said above.
    }
  }
}

function listen(server: net.Server, socketPath: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(socketPath, () => {
      server.off('error', reject);
      if (process.platform !== 'win32') chmodSync(socketPath, 0o600);
      resolve();
    });
  });
}

function runtimeFolder(): string {
  const { XDG_RUNTIME_DIR } = process.env;
  const dirs = [
    ...(XDG_RUNTIME_DIR && path.isAbsolute(XDG_RUNTIME_DIR) ? [path.join(XDG_RUNTIME_DIR, 'sala')] : []),
    path.join(os.tmpdir(), `sala-${process.getuid?.() ?? ''}`),
  ];
  for (const dir of dirs) {
    try {
      makePrivate(dir);
      return dir;
    } catch {
      // Somebody else's, or not to be written: the next.
    }
  }
  return mkdtempSync(path.join(os.tmpdir(), 'sala-'));
}

function shortName(storeDir: string, name: string): string {
  return createHash('sha256').update(`${storeDir}\0${name}`).digest('hex').slice(0, 24);
}
