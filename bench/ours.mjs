// Our side of `compare.mjs`: the addon, driven without engine process or store, by the same commands as peer.cpp. A prompt is one
// sequence in exact mode, which is what the product runs for one long sequence; FINAL, its whole length, decides there whether
// layers attend densely (below the model's dense_len) or to selected blocks.
//
//   node ours.mjs ADDON MODEL THREADS
//     reset FINAL   an empty sequence that will be FINAL long      ok
//     prefill N     N more tokens                                  wall_s cpu_s
//     decode N      N tokens one by one, then taken back           wall_s cpu_s

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const [addonFile = '', modelDir = '', threads = ''] = process.argv.slice(2);
/** @type {import('../extension/engine/addon').Addon} */
const addon = createRequire(import.meta.url)(addonFile);
const engine = await addon.load({ modelDir, activations: 'int8', threads: Number(threads) });
const random = randomIds(engine.info.vocabSize);

const warm = engine.createExactTail(64, 80);
await engine.prefill(warm, random(64), { priority: 'prefill' }).done;
await decode(warm, 4);
engine.releaseTail(warm);
say('ready');

/** @type {number | undefined} */
let tail;
for await (const line of createInterface({ input: process.stdin })) {
  const [command, count] = line.split(' ');
  const n = Number(count);
  if (command === 'reset') {
    if (tail !== undefined) engine.releaseTail(tail);
    tail = engine.createExactTail(n, n + 256);
    say('ok');
  } else if (command === 'prefill' && tail !== undefined) {
    const of = tail, tokens = random(n);
    say(await timed(() => engine.prefill(of, tokens, { priority: 'prefill' }).done));
  } else if (command === 'decode' && tail !== undefined) {
    const copy = engine.forkTail(tail);
    // A first token is chosen from logits that are there already. With it the copy is made, which is no part of decoding.
    await decode(copy, 1);
    say(await timed(() => decode(copy, n)));
    engine.releaseTail(copy);
  } else {
    throw new Error(`unknown command: ${line}`);
  }
}
await engine.close();

async function decode(/** @type {number} */ from, /** @type {number} */ n) {
  const options = { priority: /** @type {const} */ ('decode'), maxTokens: n, stopIds: new Int32Array(0), speculate: false };
  const { ids } = await engine.decode(from, options).done;
  if (ids.length !== n) throw new Error(`expected ${n} tokens, decoded ${ids.length}`);
}

async function timed(/** @type {() => Promise<unknown>} */ work) {
  const wall = performance.now();
  const cpu = process.cpuUsage();
  await work();
  const used = process.cpuUsage(cpu);
  return `${((performance.now() - wall) / 1e3).toFixed(6)} ${((used.user + used.system) / 1e6).toFixed(6)}`;
}

function say(/** @type {string} */ line) {
  process.stdout.write(`${line}\n`);
}

/** A linear congruential generator (Numerical Recipes, 32 bits). @returns {(n: number) => Int32Array} */
function randomIds(/** @type {number} */ vocabSize) {
  let state = 1;
  return (n) =>
    Int32Array.from({ length: n }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * vocabSize);
    });
}
