// Edits, questions, completions and looks at coverage together, for long: memory stays flat, no file handle is lost, and what coverage
// says is what the disk has.

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { ClientSession } from '../../extension/engine/session';
import { walk } from '../../extension/engine/workspace/walk';
import { EditedWorkspace } from './edited-workspace';
import { Random } from './random';
import { filesOf, loadTinyCore, never, numbersAreTrue, rootOf } from './tiny-core';


/** One of the looks that are taken at equal distances. */
export interface Look {
  readonly cycles: number;
  readonly seconds: number;
  readonly residentBytes: number;
  readonly handles: number;
}

export interface SoakOptions {
  readonly seed: number;
  /** Whether to go on, asked between cycles. */
  readonly goesOn: (cycles: number, seconds: number) => boolean;
  readonly cyclesPerLook: number;
  readonly look?: (look: Look) => void;
}

/** Throws an AssertionError where coverage is not true, and where a handle is lost. */
export async function soak({ seed, goesOn, cyclesPerLook, look = () => {} }: SoakOptions): Promise<readonly Look[]> {
  const random = new Random(seed);
  const dir = mkdtempSync(path.join(os.tmpdir(), 'sala-soak-'));
  const workspace = new EditedWorkspace(path.join(dir, 'workspace'), random);
  const log: string[] = [];
  const core = await loadTinyCore(path.join(dir, 'store', 'tiny'), log, { maxDiskBytes: 64 << 20 });
  const looks: Look[] = [];
  try {
    const session = core.createSession({ kind: 'editor', notify: () => {} });
    await session.open({ roots: [{ path: workspace.dir, name: 'workspace' }], trusted: true, settings: {}, watch: 'engine', ingest: true });
    const began = performance.now();
    const seconds = (): number => (performance.now() - began) / 1000;
    for (let cycles = 0; goesOn(cycles, seconds()); cycles++) {
      await cycle(session, workspace, random, cycles);
      if (cycles % cyclesPerLook !== cyclesPerLook - 1) continue;
      await coverageIsTrue(session, workspace.dir);
      global.gc?.();
      const taken = { cycles: cycles + 1, seconds: seconds(), residentBytes: process.memoryUsage.rss(), handles: readdirSync('/proc/self/fd').length };
      looks.push(taken);
      look(taken);
    }
    assert.deepEqual(log, []);
    return looks;
  } finally {
    await core.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

async function cycle(session: ClientSession, workspace: EditedWorkspace, random: Random, id: number): Promise<void> {
  for (let i = random.below(6); i >= 0; i--) workspace.edit();
  const root = rootOf(session);
  const [file] = [...root.records.values()].filter(({ current }) => current).map((record) => record.path).sort();
  // A signal for each request, as clients have: one that is never raised would hold on to something of all of them.
  const own = (): AbortSignal => new AbortController().signal;
  const work: Promise<unknown>[] = [session.ask({ id, question: 'what do the functions here return?', maxTokens: 8 }, random.once(4) ? AbortSignal.timeout(random.below(200)) : own())];
  if (file !== undefined) {
    const text = 'export function f(a) {\n  return \n}\n';
    work.push(session.complete({ root: root.dir, path: file, text, offset: text.indexOf('return ') + 7, trigger: 'automatic' }, own()));
    if (random.once(3)) session.document({ path: path.join(root.dir, file), text: random.once(2) ? text : null });
  }
  if (random.once(5)) workspace.edit();
  await Promise.all(work);
}

/** Everything looked at anew, and nothing left to read. */
async function coverageIsTrue(session: ClientSession, dir: string): Promise<void> {
  session.filesChanged({ paths: [] });
  for (let i = 0; i < 2; i++) {
    await session.coverage({});
    await session.ingest(never);
  }
  numbersAreTrue(session);
  const said = filesOf(rootOf(session));
  const there = await walk({ root: dir });
  const expected = [...there.files, ...there.excluded, ...there.unreadable].map((entry) => entry.path).sort();
  assert.deepEqual(said.map((file) => file.path).sort(), expected);
  for (const { path: file, state } of said) assert.ok(['in', 'excluded', 'unreadable'].includes(state), `${file}: ${state}`);
}

/** Handles may come and go by a few; they do not grow. */
export function leaksNoHandle(looks: readonly Look[]): void {
  const [first, last] = [looks[0], looks.at(-1)];
  if (first && last) assert.ok(last.handles <= first.handles + 8, `${first.handles} handles after ${first.cycles} cycles, ${last.handles} after ${last.cycles}`);
}
