// The full forms of what the tests run in small: seeded, and resumable. What was reached stands in build/reliability/; a run that is
// stopped goes on where it was.

import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { runHistory } from './history';
import { runKills } from './kill';
import { leaksNoHandle, soak as runSoak } from './soak';

const usage = `node test/reliability.mjs history [--edits N] [--seed N]
node test/reliability.mjs kill [--rounds N] [--seed N]
node test/reliability.mjs soak [--minutes N] [--seed N]

  kill      kill -9 of the engine at random moments (default: 500 rounds)
  soak      edits, questions and completions together (default: 30 minutes); memory of its second sixth and of its last within 5 %
  history   random edits of workspaces; after every batch memory equals that of a fresh read (default: 1000000 edits)

  --restart  begins anew instead of going on
`;
/** A history of its own each: a failure is repeated within a minute. */
const editsPerHistory = 4000;
const roundsPerCase = 50;

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
  options: { edits: { type: 'string', default: '1000000' }, rounds: { type: 'string', default: '500' }, minutes: { type: 'string', default: '30' }, seed: { type: 'string', default: '1' }, restart: { type: 'boolean', default: false }, help: { type: 'boolean', default: false } },
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

async function kill(): Promise<void> {
  const wanted = Number(values.rounds);
  let state = kept('kill', { seed: Number(values.seed), cases: 0, rounds: 0, kills: 0, comparisons: 0 });
  while (state.rounds < wanted) {
    const done = await runKills({ seed: state.seed + state.cases, rounds: Math.min(roundsPerCase, wanted - state.rounds) });
    state = { seed: state.seed, cases: state.cases + 1, rounds: state.rounds + done.rounds, kills: state.kills + done.kills, comparisons: state.comparisons + done.comparisons };
    keep('kill', state);
    console.log(`${((100 * state.rounds) / wanted).toFixed(1)} %: ${state.rounds} rounds, ${state.kills} engines killed, ${state.comparisons} comparisons`);
  }
}

/** Not resumable: it is about one process that lives for long. */
async function soak(): Promise<void> {
  const seconds = 60 * Number(values.minutes);
  const looks = await runSoak({
    seed: Number(values.seed),
    goesOn: (_, now) => now < seconds,
    cyclesPerLook: 50,
    look: ({ cycles, seconds: now, residentBytes, handles }) => console.log(`${Math.round(now)} s, ${cycles} cycles: ${Math.round(residentBytes / 2 ** 20)} MiB, ${handles} handles`),
  });
  leaksNoHandle(looks);
  // A look meets the collectors of two JavaScript heaps anywhere between two rounds of theirs: medians of five minutes tell a trend.
  const medianFrom = (from: number): number => {
    const sorted = looks.filter((look) => look.seconds >= from && look.seconds < from + seconds / 6).map(({ residentBytes }) => residentBytes).sort((a, b) => a - b);
    return sorted[sorted.length >> 1] ?? NaN;
  };
  const [early, late] = [medianFrom(seconds / 6), medianFrom((5 * seconds) / 6)];
  const settled = looks.filter((look) => look.seconds >= seconds / 6).map(({ residentBytes }) => residentBytes);
  const [least, most] = [Math.min(...settled), Math.max(...settled)];
  const mib = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;
  console.log(`the second sixth of the time ${mib(early)} in the median, the last one ${mib(late)}; after the first one ${mib(least)} to ${mib(most)}`);
  if (!(Math.abs(late / early - 1) <= 0.05)) throw new Error('expected medians within 5 %, found more');
  keep('soak', { seed: Number(values.seed), minutes: Number(values.minutes), cycles: looks.at(-1)?.cycles, early, late, least, most });
}

mkdirSync(folder, { recursive: true });
const forms: Readonly<Record<string, () => Promise<void>>> = { history, kill, soak };
const form = values.help ? undefined : forms[positionals[0] ?? ''];
if (form) {
  void form().catch((error: unknown) => {
    console.log(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  });
} else {
  process.stderr.write(usage);
  process.exitCode = values.help ? 0 : 2;
}
