import test from 'node:test';
import { runKills } from './kill';

test('after kill -9 at any moment nothing that was committed is lost, and nothing is wrong', async () => {
  const seed = Number(process.env['SALA_SEED'] ?? Date.now() % 1e9);
  console.log(`seed ${seed}: SALA_SEED=${seed} repeats it`);
  const { rounds, kills, comparisons } = await runKills({ seed, rounds: Number(process.env['SALA_ROUNDS'] ?? 10) });
  console.log(`${rounds} rounds, ${kills} engines killed, ${comparisons} comparisons`);
});
