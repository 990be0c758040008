import test from 'node:test';
import { runHistory } from './history';

test('after any history of edits memory equals that of a fresh read', async () => {
  const seed = Number(process.env['SALA_SEED'] ?? Date.now() % 1e9);
  console.log(`seed ${seed}: SALA_SEED=${seed} repeats it`);
  const { edits, comparisons, restarts } = await runHistory({ seed, edits: Number(process.env['SALA_EDITS'] ?? 1500) });
  console.log(`${edits} edits, ${comparisons} comparisons, ${restarts} restarts`);
});
