// What Linux knows of a running process: memory and processor time.

import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';

export interface Resident {
  /** Anonymous: the process's own. Files: mapped, the system may take them back. Segments: of those, of segment files. */
  readonly anonymous: number;
  readonly files: number;
  readonly segments: number;
}

/** In bytes. */
export function residentOf(pid: number): Resident {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const field = (name: string): number => 1024 * Number(new RegExp(`^${name}:\\s*(\\d+) kB`, 'm').exec(status)?.[1] ?? NaN);
  let segments = 0;
  let isSegment = false;
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'utf8').split('\n')) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) isSegment = /\/seg-\d+\.kv$/.test(line);
    const rss = isSegment ? /^Rss:\s*(\d+) kB/.exec(line)?.[1] : undefined;
    if (rss !== undefined) segments += 1024 * Number(rss);
  }
  return { anonymous: field('RssAnon'), files: field('RssFile') + field('RssShmem'), segments };
}

/** Milliseconds of all threads until now; the system counts in hundredths of a second. */
export function processorTimeOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /, '').split(' ');
  return 10 * (Number(fields[11]) + Number(fields[12]));
}

/** Processes that run this script with an argument that holds `part`. */
export function processesWith(script: string, part: string): number[] {
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      return words.some((word) => path.basename(word) === script) && words.some((word) => word.includes(part));
    } catch {
      return false;
    }
  });
}
