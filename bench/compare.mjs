// Our engine against llama.cpp, on this machine, in one run: `node bench/compare.mjs --help`. Both sides run interleaved, length by
// length, so that whatever else the machine does meets both. Figures on the clock (two threads) are refused where other processes
// took more than 5 % of the machine; processor time on one thread is always measured, and is judged instead.
//
// Ours is the embedded model, with its weights; a prompt is one sequence in exact mode (ours.mjs). The peer's models have random
// weights: what a model says has no influence on its speed (make_gguf.py, peer.cpp).

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { buildNative, systemToolchain } from '../extension/build/native.mjs';
import { root, say } from '../extension/build/paths.mjs';
import { add, best, isDisturbed, judge, parameters, rates, times } from './measure.mjs';
import { installPeer, versions } from './peer.mjs';
import { markdown } from './report.mjs';
import { Side } from './side.mjs';

const help = `node bench/compare.mjs [options]
  --rounds N        rounds of every length up to 8192; one beyond (default: 5)
  --max-prompt N    leave out what is longer (default: 32768)
  --peers NAME,…    dense_q4_0, dense_q4_k, hybrid_q4_0 (default: all; the first one named is what the ratios are to)
  --threads N,…     1 and 2 (default: both)
  --avx2            both sides keep to AVX2's instructions, on a processor that has more
  --sampled         beyond 2048 the peer's dense models do not read a whole prompt: 512 tokens at two depths stand for what
                    is added (attention's share of a token grows linearly), and its hybrid is left out; for a busy machine
  --json            one JSON document on standard output
Results also go to bench/results/. SALA_ADDON=FILE compares that addon instead of building this clone's.
`;

/** @typedef {import('./measure.mjs').Sample} Sample */
/** @typedef {{ kind: 'prefill' | 'decode_at', n: number }} Row */
/** @typedef {{ model: string, setting: string, threads: number, start: () => Promise<Side>, splitsAt: number, fills: boolean }} Contestant */

const prompts = [512, 2048, 8192, 32768];
const depths = [0, 8192, 32768];
/** One round is enough where a round takes minutes. */
const longest = 8192;
const nDecoded = 32;
/** With --sampled: what is read whole; beyond, depths between two lengths, tokens read at each. */
const longestWhole = 2048, nSamples = 2, sampleTokens = 512;

const { values: options } = parseArgs({
  options: {
    'rounds': { type: 'string', default: '5' },
    'max-prompt': { type: 'string', default: '32768' },
    'peers': { type: 'string', default: 'dense_q4_0,dense_q4_k,hybrid_q4_0' },
    'threads': { type: 'string', default: '1,2' },
    'avx2': { type: 'boolean', default: false },
    'sampled': { type: 'boolean', default: false },
    'json': { type: 'boolean', default: false },
    'help': { type: 'boolean', default: false },
  },
});
if (options.help) {
  process.stdout.write(help);
  process.exit(0);
}
const nRounds = Number(options.rounds), maxPrompt = Number(options['max-prompt']);
const peers = /** @type {import('./peer.mjs').PeerModel[]} */ (options.peers.split(','));
const threadCounts = options.threads.split(',').map(Number);
const rows = /** @type {Row[]} */ ([
  ...prompts.map((n) => ({ kind: 'prefill', n })),
  ...depths.map((n) => ({ kind: 'decode_at', n })),
]).filter(({ n }) => n <= maxPrompt);

const began = machine();
const modelDir = path.join(root, 'models/sala-coder-0.5b');
const addon = process.env['SALA_ADDON'] ?? (await buildNative(systemToolchain(), 'sala_node'));
if (options.avx2) process.env['KERNEL_BACKEND'] = 'avx2';
const peer = await installPeer();
const libraries = options.avx2 ? await peer.avx2() : peer.libraries;
/** Samples by contestant and row. @type {Map<string, Sample[]>} */
const samples = new Map();
for (const threads of threadCounts) await measure(await contestants(threads));

const document = result();
const text = markdown(document);
const file = path.join(root, 'bench/results', `${began.date.slice(0, 10)}-${began.cpu.toLowerCase().replace(/[^a-z0-9]+/g, '-')}${options.avx2 ? '-avx2' : ''}`);
await mkdir(path.dirname(file), { recursive: true });
await writeFile(`${file}.json`, `${JSON.stringify(document, undefined, 1)}\n`);
await writeFile(`${file}.md`, text);
process.stdout.write(options.json ? `${JSON.stringify(document)}\n` : text);

/** @returns {Promise<Contestant[]>} */
async function contestants(/** @type {number} */ threads) {
  const config = JSON.parse(readFileSync(path.join(modelDir, 'config.json'), 'utf8'));
  const ours = [path.join(root, 'bench/ours.mjs'), addon, modelDir, String(threads)];
  /** @type {Contestant[]} */
  const all = [
    {
      model: 'ours', setting: '', threads,
      start: () => Side.start(process.execPath, ours),
      // A prompt of this length and more is another computation: a pass of its own.
      splitsAt: config.sparse_config?.dense_len ?? Infinity,
      fills: false,
    },
  ];
  for (const name of peers) {
    const gguf = await peer.model(name);
    for (const setting of ['on', 'off']) {
      // A sequence is put behind itself by a copy of all of it.
      const context = (options.sampled ? 2 : 1) * Math.min(maxPrompt, 32768) + 256;
      const args = [libraries, 'model', gguf, String(threads), setting, String(context)];
      all.push({ model: name, setting, threads, start: () => Side.start(peer.program, args, parameters(name)), splitsAt: Infinity, fills: name.startsWith('dense') });
    }
  }
  return all;
}

/** All rounds on one number of threads. */
async function measure(/** @type {Contestant[]} */ all) {
  const running = [];
  for (const contestant of all) running.push({ ...contestant, side: await contestant.start(), length: 0, passed: /** @type {Sample | undefined} */ (undefined) });
  /** @typedef {(typeof running)[number]} Running */

  const decode = async (/** @type {Running} */ of, /** @type {number} */ at) => record(of, { kind: 'decode_at', n: at }, await of.side.run('decode', nDecoded));
  const prompt = async (/** @type {Running} */ of, /** @type {number} */ n, /** @type {number} */ finalLength) => {
    if (of.passed === undefined || (of.length < of.splitsAt && n >= of.splitsAt)) {
      await of.side.reset(n < of.splitsAt ? Math.min(finalLength, of.splitsAt - 1) : finalLength);
      of.length = 0;
      of.passed = undefined;
    }
    const more = await of.side.run('prefill', n - of.length);
    of.passed = of.passed === undefined ? more : add(of.passed, more);
    of.length = n;
    return of.passed;
  };

  /** As prompt(), what is added to the length before by samples in the middle of equal parts of it. */
  const sampledPrompt = async (/** @type {Running} */ of, /** @type {number} */ n) => {
    const part = (n - of.length) / nSamples;
    let passed = /** @type {Sample} */ (of.passed);
    for (let i = 0; i < nSamples; i++) {
      await of.side.fill(of.length + Math.round((i + 0.5) * part) - sampleTokens / 2);
      passed = add(passed, times(part / sampleTokens, await of.side.run('prefill', sampleTokens)));
    }
    await of.side.fill(n);
    of.length = n;
    of.passed = passed;
    return passed;
  };

  /** Ours cannot decode behind nothing; one token is as good as none. */
  const first = async (/** @type {Running} */ of) => {
    await of.side.reset(1);
    await of.side.run('prefill', 1);
  };

  for (let round = 0; round < nRounds; round++) {
    // The one round beyond is the last: by then it is known which settings it is worth while for.
    const lengths = [0, ...prompts].filter((n) => n <= maxPrompt && (n <= longest || round === nRounds - 1));
    const finalLength = /** @type {number} */ (lengths.at(-1));
    for (const of of running) of.passed = undefined;
    for (const n of lengths) {
      for (const of of round % 2 ? [...running].reverse() : running) {
        const isSampled = options.sampled && n > longestWhole && of.model !== 'ours';
        if (isSampled && !of.fills) continue;
        say(`round ${round + 1}, ${of.threads} thread${of.threads > 1 ? 's' : ''}, ${n} tokens: ${of.model} ${of.setting}`);
        if (n === 0) await first(of);
        else record(of, { kind: 'prefill', n }, await (isSampled ? sampledPrompt(of, n) : prompt(of, n, finalLength)));
        if (depths.includes(n)) await decode(of, n);
      }
    }
  }
  for (const { side } of running) await side.end();
}

function key(/** @type {Contestant} */ { model, setting, threads }, /** @type {Row} */ { kind, n }) {
  return [model, setting, threads, kind, n].join(' ');
}

function record(/** @type {Contestant} */ of, /** @type {Row} */ row, /** @type {Sample} */ one) {
  samples.set(key(of, row), [...(samples.get(key(of, row)) ?? []), one]);
  const n = row.kind === 'prefill' ? row.n : nDecoded;
  say(`  ${row.kind}_${row.n}: ${(n / one.wall_s).toFixed(1)} tokens/s, ${(n / one.cpu_s).toFixed(1)} per second of processor time${isDisturbed(one) ? ', disturbed' : ''}`);
}

/** Everything that was measured, as design section 8 has it and with all that it rests on. */
function result() {
  const figures = rows.map((row) => {
    const name = `${row.kind}_${row.n}`;
    const of = (/** @type {string} */ model) => {
      const settings = model === 'ours' ? [''] : ['on', 'off'];
      return best(settings.flatMap((setting) => figure(model, setting, row) ?? []));
    };
    const ours = of('ours');
    return {
      name,
      ours,
      peers: Object.fromEntries(peers.map((model) => [model, { ...of(model), ...judge(ours, of(model)) }])),
    };
  });
  const ratios = (/** @type {string} */ model) => Object.fromEntries(figures.map(({ name, peers }) => [name, peers[model]?.ratio ?? null]));
  const [first = '', ...more] = peers;
  return {
    ratios: ratios(first),
    judged: Object.fromEntries(figures.map(({ name, peers }) => [name, peers[first]?.by ?? null])),
    ...Object.fromEntries(more.map((model) => [`ratios_${model}`, ratios(model)])),
    rows: figures,
    peer: { 'llama.cpp': peer.release, ...versions },
    machine: { ...began, load_at_end: os.loadavg().map((one) => Number(one.toFixed(2))) },
    rounds: nRounds,
    avx2: options.avx2,
    sampled: options.sampled,
    samples: Object.fromEntries(samples),
  };
}

/** @returns {import('./measure.mjs').Figure | undefined} undefined: this setting was not run */
function figure(/** @type {string} */ model, /** @type {string} */ setting, /** @type {Row} */ row) {
  const n = row.kind === 'prefill' ? row.n : nDecoded;
  const by = (/** @type {number} */ threads) => samples.get([model, setting, threads, row.kind, row.n].join(' '));
  const one = by(1), two = by(2);
  if (!one && !two) return undefined;
  return { ...(two && { two_threads: rates(n, two).clock }), ...(one && { one_thread_cpu: rates(n, one).cpu }) };
}

function machine() {
  const info = readFileSync('/proc/cpuinfo', 'utf8');
  const flags = /^(?:flags|Features)\s*: (.*)$/m.exec(info)?.[1]?.split(' ') ?? [];
  const git = (/** @type {string[]} */ ...args) => spawnSync('git', ['-C', root, ...args], { encoding: 'utf8' }).stdout?.trim() ?? '';
  return {
    date: new Date().toISOString(),
    cpu: /^model name\s*: (.*)$/m.exec(info)?.[1] ?? os.cpus()[0]?.model ?? os.arch(),
    cores: os.availableParallelism(),
    flags: flags.filter((flag) => /^(avx|fma|f16c|amx|asimd|i8mm|sve)/.test(flag)),
    memory_gb: Math.round(os.totalmem() / 2 ** 30),
    system: `${os.type()} ${os.release()}`,
    node: process.version,
    compiler: systemToolchain().version.split('\n')[0],
    // Nothing is known of an addon that was given.
    commit: process.env['SALA_ADDON'] ?? git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', '--', 'kernels', 'native') ? ' with changes' : ''),
    load: os.loadavg().map((one) => Number(one.toFixed(2))),
  };
}
