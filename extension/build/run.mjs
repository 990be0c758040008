// Runs a program of the build, its output going to a log that is shown only where it failed. An interrupt is passed on and
// waited for, so that make can remove what it has written in part.

import { spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { finished } from 'node:stream/promises';

/**
 * Resolves when the program ended with 0, else rejects with its last lines.
 * @param {string} program
 * @param {readonly string[]} args
 * @param {{ log: string, cwd?: string, env?: NodeJS.ProcessEnv, onLine?: (line: string) => void, append?: boolean }} options
 */
export async function run(program, args, options) {
  await mkdir(path.dirname(options.log), { recursive: true });
  const log = createWriteStream(options.log, { flags: options.append ? 'a' : 'w' });
  log.write(`$ ${[program, ...args].join(' ')}\n`);
  const child = spawn(program, args, {
    cwd: options.cwd,
    env: options.env ?? process.env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const forward = (/** @type {NodeJS.Signals} */ signal) => child.kill(signal);
  process.on('SIGINT', forward).on('SIGTERM', forward);
  try {
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => {
        log.write(`${line}\n`);
        options.onLine?.(line);
      });
    }
    const ended = await new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) => resolve(signal ?? code));
    });
    if (ended !== 0) {
      await finished(log.end());
      const lines = (await readFile(options.log, 'utf8')).trimEnd().split('\n');
      throw new Error(`${path.basename(program)} failed (${ended}); ${options.log} ends with\n${lines.slice(-40).join('\n')}`);
    }
  } finally {
    process.off('SIGINT', forward).off('SIGTERM', forward);
    log.end();
  }
}
