// The engine's log: `engine.log` in the store folder, at most two files of 1 MB. Lines are ours – what was done, how long it
// took, which error – and never text of the workspace. A log that cannot be written stops nothing.

import { appendFileSync, readFileSync, renameSync, statSync } from 'node:fs';
import path from 'node:path';

const maxBytes = 1 << 20;
/** An error may quote its input; a line is cut here. */
const maxLineChars = 2000;

export class LogFile {
  readonly file: string;
  private bytes: number;

  constructor(dir: string) {
    this.file = path.join(dir, 'engine.log');
    this.bytes = statSync(this.file, { throwIfNoEntry: false })?.size ?? 0;
  }

  /** Written before it returns, so that a crash right after it loses nothing. */
  write(text: string): void {
    const line = `${new Date().toISOString()} ${process.pid} ${text.slice(0, maxLineChars).replace(/\s*\n\s*/g, ' | ')}\n`;
    try {
      if (this.bytes + line.length > maxBytes) {
        renameSync(this.file, `${this.file}.1`);
        this.bytes = 0;
      }
      appendFileSync(this.file, line, { mode: 0o600 });
      this.bytes += Buffer.byteLength(line);
    } catch {
      // A full disk is reported by what needs the disk.
    }
  }
}

/** The last lines that process `pid` wrote, oldest first. */
export function lastLines(dir: string, pid: number, n: number): string[] {
  try {
    const lines = readFileSync(path.join(dir, 'engine.log'), 'utf8').split('\n');
    return lines.flatMap((line) => (line.split(' ', 2)[1] === String(pid) ? [line.split(' ').slice(2).join(' ')] : [])).slice(-n);
  } catch {
    return [];
  }
}
