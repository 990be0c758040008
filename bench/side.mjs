// One side of `compare.mjs`: a process with a model loaded that answers commands, one a line, and what the machine did meanwhile.

import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { parseProcessStat, parseStat, sample } from './measure.mjs';

/** Our processes: what they use of the machine is not the others'. */
const own = new Set([process.pid]);

/** Who had its turn last. @type {Side | undefined} */
let last;

export class Side {
  /** @param {import('node:child_process').ChildProcess} child @param {AsyncIterator<string>} lines */
  constructor(child, lines) {
    this.child = child;
    this.lines = lines;
  }

  /** Resolves when the model is loaded and warm. With `parameters` it must have that many. */
  static async start(/** @type {string} */ program, /** @type {readonly string[]} */ args, /** @type {number | undefined} */ parameters = undefined) {
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const side = new Side(child, lines);
    await new Promise((resolve, reject) => child.once('spawn', resolve).once('error', reject));
    own.add(/** @type {number} */ (child.pid));
    await side.answer(parameters === undefined ? 'ready' : `ready ${parameters}`);
    return side;
  }

  async reset(/** @type {number} */ finalLength) {
    await this.send(`reset ${finalLength}`);
    await this.answer('ok');
  }

  /** Makes the sequence `n` long without reading (peer.cpp). */
  async fill(/** @type {number} */ n) {
    await this.send(`fill ${n}`);
    await this.answer('ok');
  }

  /** @returns {Promise<import('./measure.mjs').Sample>} */
  async run(/** @type {'prefill' | 'decode'} */ command, /** @type {number} */ n) {
    if (last !== this) await atRest();
    last = this;
    const before = ticks();
    await this.send(`${command} ${n}`);
    const [wall = NaN, cpu = NaN] = (await this.answer()).split(' ').map(Number);
    return sample(wall, cpu, before, ticks());
  }

  async end() {
    const ended = new Promise((resolve) => this.child.once('close', resolve));
    this.child.stdin?.end();
    await ended;
    own.delete(/** @type {number} */ (this.child.pid));
  }

  /** @private */
  async send(/** @type {string} */ line) {
    this.child.stdin?.write(`${line}\n`);
  }

  /** @private */
  async answer(/** @type {string | undefined} */ expected = undefined) {
    const { value, done } = await this.lines.next();
    if (done || (expected !== undefined && value !== expected)) {
      throw new Error(`${this.child.spawnargs.join(' ')}: expected ${expected ?? 'an answer'}, ${done ? 'it ended' : `found ${value}`}`);
    }
    return value;
  }
}

/** @returns {import('./measure.mjs').Ticks} */
function ticks() {
  const used = [...own].map((pid) => parseProcessStat(readFileSync(`/proc/${pid}/stat`, 'utf8')));
  return { ...parseStat(readFileSync('/proc/stat', 'utf8')), own: used.reduce((sum, one) => sum + one, 0) };
}

/**
 * Until none of our processes uses the processor, two seconds at most. llama.cpp's threads go on turning for a while after an answer,
 * in case there is more to do: the next side must not pay for that.
 */
async function atRest() {
  for (let waited_ms = 0; waited_ms < 2000; waited_ms += 100) {
    const before = ticks().own;
    await delay(100);
    if (ticks().own <= before + 1) return;
  }
}
