// Ctrl-C in each phase, killed clients and engines, stopped processes, homes that cannot be written: work ends when nobody wants
// it, and five seconds after the last command nothing of us is left.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { chmodSync, existsSync, mkdirSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { asNobody, cpuSeconds, delay, embeddedModel, eventually, failureOf, isRoot, statesOf, tinyModel, withCase, type Answer, type Case } from './support';

/** Share of a core that a process uses in the next `ms`. */
async function busyShare(pid: number, ms = 500): Promise<number> {
  try {
    const before = cpuSeconds(pid);
    await delay(ms);
    return (cpuSeconds(pid) - before) / (ms / 1000);
  } catch {
    // What has ended rests.
    return 0;
  }
}

/** Enough text for reading to take a while. */
function writeLong(c: Case, nFiles: number): void {
  const body = Array.from({ length: 60 }, (_, i) => `  total += values[${i}] * ${i}; // step ${i} of the sum\n`).join('');
  for (let i = 0; i < nFiles; i++) c.write({ [`src/m${i}.ts`]: `export function sum_${i}(values: number[]) {\n  let total = ${i};\n${body}  return total;\n}\n` });
}

describe('Ctrl-C', { concurrency: 1 }, () => {
  test('while the engine starts', () =>
    withCase(tinyModel, async (c) => {
      for (const ms of [20, 80, 150, 250]) {
        const running = c.start(['ask', 'hi', '--json']);
        await delay(ms);
        running.child.kill('SIGINT');
        const { code, signal } = await running.ended;
        // A fast machine may have answered.
        assert.ok(signal === 'SIGINT' || code === 130 || code === 0, `after ${ms} ms: ${signal ?? code}`);
      }
      await eventually('no process is left', () => c.processes().length === 0, 5000);
      if (existsSync(c.store)) assert.deepEqual(c.leftovers(), []);
    }));

  /** Interrupts an ask a little after it has told a phase. */
  async function interrupted(c: Case, phase: string, ms: number, ...args: string[]): Promise<Answer> {
    const running = c.start(['ask', '--json', ...args]);
    await eventually(`the phase: ${phase}`, () => running.stderr().includes(phase), 30_000);
    await delay(ms);
    assert.equal(running.child.exitCode, null, `it was over before: ${running.stdout()}`);
    const engine = await c.engine();
    running.child.kill('SIGINT');
    const { code, stdout, stderr } = await running.ended;
    assert.equal(code, 130, stderr);
    await eventually('the engine rests', async () => (await busyShare(engine)) < 0.2, 10_000);
    const answer = JSON.parse(stdout) as Answer;
    assert.equal(answer.stop, 'cancelled');
    return answer;
  }

  test('while it reads, runs the prompt, answers: the engine rests, what had come stays', () =>
    withCase(embeddedModel, async (c) => {
      writeLong(c, 2);
      const reading = await interrupted(c, 'reading', 1000, 'What does sum_1 do?', '--wait', 'full');
      assert.ok(reading.coverage.tokens < reading.coverage.total_tokens);
      await c.ingest();
      const question = 'List every step of sum_1, one line for each step, with all the numbers.';
      const prompt = await interrupted(c, 'finding the places', 500, `${question} ${'It is a sum of all the values. '.repeat(150)}`);
      assert.equal(prompt.answer, '');
      // How soon the first words come, the machine decides.
      let answering = prompt;
      for (let ms = 100; answering.answer === '' && ms <= 1600; ms *= 2) answering = await interrupted(c, 'answering', ms, question);
      assert.notEqual(answering.answer, '');
      assert.equal(answering.sources[0]?.path, 'src/m1.ts');
      await c.nothingIsLeft();
    }));
});

describe('ends', { concurrency: 5 }, () => {
  test('a client killed: the engine stops working at once, and ends', () =>
    withCase(embeddedModel, async (c) => {
      writeLong(c, 60);
      const running = c.start(['ingest', '--json']);
      const engine = await c.engine();
      await eventually('it works', () => running.stderr().includes('reading'), 20_000);
      running.child.kill('SIGKILL');
      await running.ended;
      await eventually('the engine rests', async () => (await busyShare(engine)) < 0.2, 10_000);
      await c.nothingIsLeft();
    }));

  test('a client killed while the engine starts', () =>
    withCase(tinyModel, async (c) => {
      for (const ms of [100, 200, 300]) {
        const running = c.start(['ingest', '--watch']);
        await delay(ms);
        running.child.kill('SIGKILL');
        await running.ended;
      }
      await eventually('no process is left', () => c.processes().length === 0, 8000);
      if (existsSync(c.store)) assert.deepEqual(c.leftovers(), []);
    }));

  test('an engine killed under a watch: another one starts, follows, and nothing is left of either', () =>
    withCase(tinyModel, async (c) => {
      c.writeMany(20);
      const watch = await c.watch();
      const first = await c.engine();
      process.kill(first, 'SIGKILL');
      await eventually('another engine', () => c.processes('engines').some((pid) => pid !== first), 10_000);
      c.write({ 'new.ts': 'export const fresh = 1;\n' });
      await eventually('the change is seen', () => watch.documents<{ files: number }>().some(({ files }) => files === 21), 15_000);
      watch.child.kill('SIGINT');
      assert.equal((await watch.ended).code, 130);
      await c.nothingIsLeft();
    }));

  test('an engine killed while it answers: one clear line, and the next question works', () =>
    withCase(tinyModel, async (c) => {
      c.writeMany(200);
      const running = c.start(['ask', '--json', 'Where is v3?', '--wait', 'full']);
      const engine = await c.engine();
      await delay(300);
      process.kill(engine, 'SIGKILL');
      const ended = await running.ended;
      if (ended.code !== 0) assert.equal(failureOf(ended).code, 'engine_unreachable');
      assert.deepEqual((await c.ask('Where is `v3` defined?')).missing, []);
      await c.nothingIsLeft();
    }));

  test('the terminal goes: a watch ends', () =>
    withCase(tinyModel, async (c) => {
      const watch = await c.watch();
      watch.child.kill('SIGHUP');
      await watch.ended;
      await c.nothingIsLeft();
    }));

  test('stopped for five seconds in an answer: it goes on, nobody is restarted', () =>
    withCase(embeddedModel, async (c) => {
      c.write({ 'src/a.ts': 'export const STOP_PROBE = 5;\n' });
      const running = c.start(['ask', 'Explain at length what STOP_PROBE is good for.', '--json']);
      const engine = await c.engine();
      await delay(2500);
      process.kill(engine, 'SIGSTOP');
      await delay(5000);
      assert.deepEqual(c.processes('engines'), [engine]);
      process.kill(engine, 'SIGCONT');
      const { code, stdout, stderr } = await running.ended;
      assert.equal(code, 0, stderr);
      assert.notEqual((JSON.parse(stdout) as Answer).answer, '');
      await c.nothingIsLeft();
    }));
});

describe('places', { concurrency: 2 }, () => {
  test('a home that cannot be written, no TMPDIR: the store lies elsewhere, and is found again', { skip: isRoot ? false : 'needs root, to become another user' }, () =>
    withCase(tinyModel, async (c) => {
      c.write({ 'a.ts': 'export const HOME_PROBE = 1;\n' });
      const through = asNobody(c);
      const home = path.join(c.dir, 'home');
      mkdirSync(home);
      chmodSync(home, 0o555);
      const env = { HOME: home, TMPDIR: undefined, XDG_CACHE_HOME: undefined, XDG_RUNTIME_DIR: undefined };
      const first = c.start(['ingest', '--json'], { through, env });
      const { code, stdout, stderr } = await first.ended;
      assert.equal(code, 0, stderr);
      assert.ok(stderr.includes(home), `the place that could not be used is named: ${stderr}`);
      assert.equal((JSON.parse(stdout) as { files: number }).files, 1);
      const again = await c.json<{ encoded_tokens: number }>(['ingest'], { through, env });
      assert.equal(again.encoded_tokens, 0);
      assert.equal(statesOf(await c.json(['coverage'], { through, env }))['a.ts'], 'in');
      assert.deepEqual(readdirSync(home), []);
      await eventually('no process is left', () => c.processes().length === 0, 5000);
    }));

  test('a folder name with everything in it', () =>
    withCase(tinyModel, async (c) => {
      const dir = path.join(c.dir, "my proj 'quoted' \"é\" $HOME #1%20");
      mkdirSync(dir);
      c.write({ 'a.ts': '' });
      const written = await c.json<{ files: number }>(['ingest', '--workspace', dir, '--workspace', c.workspace]);
      assert.equal(written.files, 1);
      const failure = failureOf(await c.start(['coverage', '--json', '--workspace', path.join(dir, 'none')]).ended);
      assert.equal(failure.code, 'not_a_workspace');
    }));
});
