// The full forms of what the tests run in small: seeded, and resumable. What was reached stands in build/reliability/; a run that is
// stopped goes on where it was.

import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { runHistory } from './history';

const usage = `node test/reliability.mjs history [--edits N] [--seed N]

  history   random edits of workspaces; after every batch memory equals that of a fresh read (default: 1000000 edits)

  --restart  begins anew instead of going on
`;
/** A history of its own each: a failure is repeated within a minute. */
const editsPerHistory = 4000;

interface State {
  readonly seed: number;
  readonly histories: number;
  readonly edits: number;
  readonly comparisons: number;
  readonly restarts: number;
  readonly seconds: number;
}

const folder = path.join(process.cwd(), 'build/reliability');
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { edits: { type: 'string', default: '1000000' }, seed: { type: 'string', default: '1' }, restart: { type: 'boolean', default: false } },
});

function kept<T>(name: string, beginning: T): T {
  if (values.restart) return beginning;
  try {
    return JSON.parse(readFileSync(path.join(folder, `${name}.json`), 'utf8')) as T;
  } catch {
    return beginning;
  }
}

function keep(name: string, state: unknown): void {
  const file = path.join(folder, `${name}.json`);
  writeFileSync(`${file}.tmp`, `${JSON.stringify(state, null, 2)}\n`);
  renameSync(`${file}.tmp`, file);
}

async function history(): Promise<void> {
  const wanted = Number(values.edits);
  let state = kept<State>('history', { seed: Number(values.seed), histories: 0, edits: 0, comparisons: 0, restarts: 0, seconds: 0 });
  while (state.edits < wanted) {
    const began = performance.now();
    const seed = state.seed + state.histories;
    const done = await runHistory({ seed, edits: Math.min(editsPerHistory, wanted - state.edits) }).catch((error: unknown) => {
      console.log(`history ${seed} failed; SALA_SEED=${seed} SALA_EDITS=${editsPerHistory} repeats it in test/reliability/history.test.ts`);
      throw error;
    });
    state = {
      seed: state.seed,
      histories: state.histories + 1,
      edits: state.edits + done.edits,
      comparisons: state.comparisons + done.comparisons,
      restarts: state.restarts + done.restarts,
      seconds: state.seconds + (performance.now() - began) / 1000,
    };
    keep('history', state);
    console.log(`${((100 * state.edits) / wanted).toFixed(1)} %: ${state.edits} edits, ${state.comparisons} comparisons, ${state.restarts} restarts in ${Math.round(state.seconds)} s`);
  }
  console.log(`all ${wanted} edits: memory was always that of a fresh read (${os.cpus()[0]?.model ?? 'unknown processor'})`);
}

mkdirSync(folder, { recursive: true });
const forms: Readonly<Record<string, () => Promise<void>>> = { history };
const form = forms[positionals[0] ?? ''];
if (form) {
  void form().catch((error: unknown) => {
    console.log(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  });
} else {
  process.stderr.write(usage);
  process.exitCode = 2;
}
