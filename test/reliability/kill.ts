// `kill -9` of the engine, at any moment and while files change: it opens again, what a finished command had read is still there,
// nothing in the store is damaged, and what a question gets is what it gets from a store that was never killed.

import assert from 'node:assert/strict';
import path from 'node:path';
import { Case, delay, tinyModel } from '../cli/cases/support';
import { EditedWorkspace } from './edited-workspace';
import { Random } from './random';

const question = 'what do the functions here return?';
/** Most kills hit what the engine does in its first seconds: opening, reading, the first commits. */
const latestMs = 1500;
const compareEvery = 10;

export interface KillResult {
  readonly rounds: number;
  /** Engines that ran when they were killed. */
  readonly kills: number;
  readonly comparisons: number;
}

/** Throws an AssertionError where something committed is lost or wrong. */
export async function runKills({ seed, rounds, say = () => {} }: { seed: number; rounds: number; say?: (done: KillResult) => void }): Promise<KillResult> {
  const random = new Random(seed);
  const c = new Case(tinyModel);
  const done = { rounds: 0, kills: 0, comparisons: 0 };
  try {
    const workspace = new EditedWorkspace(c.workspace, random);
    while (done.rounds < rounds) {
      for (let i = random.below(12); i >= 0; i--) workspace.edit();
      done.kills += await killed(c, random, workspace);
      const { encoded_tokens, reused_tokens, tokens } = await c.ingest();
      // The engine may still run: whatever the command said is in must be there without it.
      kill(c);
      const again = await c.ingest();
      assert.deepEqual([again.encoded_tokens, again.tokens], [0, tokens], `round ${done.rounds}: ${encoded_tokens} encoded, ${reused_tokens} reused before`);
      if (++done.rounds % compareEvery === 0) {
        await compare(c);
        done.comparisons++;
        say(done);
      }
    }
    return done;
  } finally {
    await c.dispose();
  }
}

/** Starts a command and kills its engines at some moment; the command may end as it likes, but it ends. The number of engines killed. */
async function killed(c: Case, random: Random, workspace: EditedWorkspace): Promise<number> {
  const running = c.start(random.once(4) ? ['ask', question, '--json'] : ['ingest', '--json']);
  await delay(random.below(latestMs));
  if (random.once(3)) workspace.edit();
  if (random.once(4)) running.child.kill('SIGKILL');
  const n = kill(c);
  const { signal, stderr } = await running.ended;
  assert.ok(signal === null || signal === 'SIGKILL', `ended by ${signal}: ${stderr}`);
  return n;
}

function kill(c: Case): number {
  let n = 0;
  for (const pid of c.processes('engines')) {
    try {
      process.kill(pid, 'SIGKILL');
      n++;
    } catch {
      // It had ended by itself.
    }
  }
  return n;
}

/** With a store that nobody killed, and the damage that a look at every byte finds. */
async function compare(c: Case): Promise<void> {
  const verified = await c.run('doctor', '--verify');
  assert.equal(verified.code, 0, verified.stdout + verified.stderr);
  const here = await c.ask(question);
  const fresh = path.join(c.dir, `fresh-${process.hrtime.bigint()}`);
  await c.ingest('--store', fresh);
  const there = await c.ask(question, '--store', fresh);
  assert.deepEqual([here.answer, here.sources, here.coverage], [there.answer, there.sources, there.coverage]);
}
