import test from 'node:test';
import { leaksNoHandle, soak } from './soak';

test('edits, questions and completions together: coverage stays true, no handle is lost', async () => {
  const seed = Number(process.env['SALA_SEED'] ?? Date.now() % 1e9);
  console.log(`seed ${seed}: SALA_SEED=${seed} repeats it`);
  leaksNoHandle(await soak({ seed, goesOn: (cycles) => cycles < 60, cyclesPerLook: 15 }));
});
