// Who may be the engine of a store folder. A candidate raises a flag – an empty file whose name is its process id and start time –
// and looks for other flags: it is elected if no other belongs to a living process. Of two candidates at least one sees the
// other, whatever their timing, and a flag of the dead may be removed by anybody at any time: its name can never come back. So
// there is no takeover to race for and no content to be half written; a living, unrelated process with a reused id holds nothing.

import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { EngineError } from './errors';

export interface Flag {
  /** Gives the election up. Safe to call more than once. */
  lower(): void;
}

export type Elected = { readonly flag: Flag } | { readonly heldBy: number };

/** One attempt. Candidates that meet both lose: wait a random time and try again. Throws `store_unwritable`. */
export function tryElection(dir: string, name: string): Elected {
  const own = `${name}.${process.pid}.${processStart(process.pid) ?? ''}.lock`;
  const file = path.join(dir, own);
  try {
    writeFileSync(file, '', { mode: 0o600 });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new EngineError('store_unwritable', `${dir}: expected a folder that can be written, found ${code}`, { cause: error });
  }
  for (const other of flagsIn(dir, name)) {
    if (other.file === own) continue;
    if (isAlive(other.pid, other.start)) {
      rmSync(file, { force: true });
      return { heldBy: other.pid };
    }
    rmSync(path.join(dir, other.file), { force: true });
  }
  return { flag: { lower: () => lower(file) } };
}

function lower(file: string): void {
  try {
    rmSync(file, { force: true });
  } catch {
    // The disk cannot be written any more: it is a flag of the dead when this process has ended.
  }
}

/** The process that holds the election or is a candidate, if any lives. */
export function holder(dir: string, name: string): number | undefined {
  return flagsIn(dir, name).find(({ pid, start }) => isAlive(pid, start))?.pid;
}

/**
 * When a process started, in words that no later process of the same id repeats; undefined if there is none (or the system
 * does not tell). Linux: clock ticks since boot, and the boot's own id.
 */
export function processStart(pid: number): string | undefined {
  if (process.platform === 'linux') {
    try {
      // The command name, in parentheses, may itself hold spaces and parentheses; the start time is the 22nd field.
      const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      if (fields[0] === 'Z') return undefined;
      return `${fields[19]}-${readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').slice(0, 8)}`;
    } catch {
      return undefined;
    }
  }
  if (process.platform === 'win32') return undefined;
  const ps = spawnSync('ps', ['-o', 'lstart=', '-p', String(pid)], { encoding: 'utf8', env: { LC_ALL: 'C' } });
  return ps.status === 0 ? ps.stdout.trim().replace(/[^0-9A-Za-z]+/g, '-') || undefined : undefined;
}

function isAlive(pid: number, start: string): boolean {
  if (start !== '') return processStart(pid) === start;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function flagsIn(dir: string, name: string): { file: string; pid: number; start: string }[] {
  return readdirSync(dir).flatMap((file) => {
    const match = file.startsWith(`${name}.`) ? /^\.(\d+)\.([0-9A-Za-z-]*)\.lock$/.exec(file.slice(name.length)) : null;
    return match ? [{ file, pid: Number(match[1]), start: match[2]! }] : [];
  });
}
