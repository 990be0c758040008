// `sala doctor`: what keeps the engine from running here, check by check, each with what was expected and found. The addon and the
// model are tried in a process of their own: where it crashes, that is the finding. Nothing is repaired but the store, with
// --verify, by whichever engine has it: what is damaged is dropped, to be read again.

import { spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync, statfsSync, statSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { holder } from '../engine/election';
import { accepts, endpointName, endpointPath } from '../engine/endpoint';
import { EngineError, toEngineError } from '../engine/errors';
import { assetPath } from '../engine/assets';
import { describeEnd } from '../engine/launch';
import { machineMemoryBytes } from '../engine/memory-limit';
import { verify } from '../engine/messages';
import { openStoreFolder, type StoreFolder } from '../engine/store-folder';
import { readModelFolder } from '../engine/model-folder';
import { Tokenizer } from '../engine/tokenizer';
import { withClient, type Frame } from './command';
import { modelDir, type CommonOptions } from './options';
import { count, formatBytes } from './output';

export interface DoctorOptions extends CommonOptions {
  readonly verify?: boolean;
}

export interface Check {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
}

const leastNode = [20, 19] as const;
/** Beside the weights: Node, tokenizer, grammars, a tail. */
const memoryBesideWeights = 300 * 2 ** 20;
const leastFreeDisk = 2 ** 30;
const probeMs = 20_000;
/** Nine billion weights are read from a slow disk in this time. */
const loadMs = 300_000;

export async function doctor(frame: Frame<DoctorOptions>): Promise<void> {
  const { options, output } = frame;
  const checks: Check[] = [];
  const check = async (name: string, work: () => string | Promise<string>): Promise<void> => {
    let outcome: Check;
    try {
      outcome = { name, ok: true, detail: await work() };
    } catch (error) {
      outcome = { name, ok: false, detail: toEngineError(error).message };
    }
    checks.push(outcome);
    output.text(`${outcome.ok ? 'ok  ' : 'FAIL'}  ${name.padEnd(10)}  ${outcome.detail}\n`);
  };

  const addon = process.env['SALA_ADDON'] ?? assetPath('sala.node');
  let model: string | undefined;
  let store: StoreFolder | undefined;
  await check('node', checkNode);
  await check('addon file', () => checkAddonFile(addon));
  await check('addon', () => checkAddon(addon));
  await check('processor', describeProcessor);
  await check('gpu', () => 'not supported yet; the processor does the work');
  await check('model', async () => {
    model = await modelDir(options);
    return checkModel(model);
  });
  await check('memory', () => checkMemory(model));
  // Only where it can succeed: what failed above would be said twice, and too large a model would take the machine down.
  if (model !== undefined && checks.every(({ ok }) => ok)) {
    const dir = model;
    await check('weights', () => checkWeights(addon, dir));
  }
  await check('store', async () => {
    if (model === undefined) throw new EngineError('model_not_found', 'expected a model, whose identity names the store; found none');
    store = await openStoreFolder(model, options.store);
    return `${store.dir} can be written${store.replaced === undefined ? '' : `; ${store.replaced}`}`;
  });
  await check('disk', () => checkDisk(store?.dir));
  await check('engine', () => describeEngine(store?.dir, options));
  if (options.verify) await check('contents', () => verifyStore(frame, checks));
  output.result({ checks }, () => '');
  if (checks.some(({ ok }) => !ok)) frame.failed();
}

function checkNode(): string {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < leastNode[0] || (major === leastNode[0] && minor < leastNode[1])) {
    throw new Error(`expected at least ${leastNode.join('.')}, found ${process.versions.node} (${process.execPath})`);
  }
  return `${process.versions.node} (${process.execPath})`;
}

/** The machine that the file was built for, read from its own header. */
function checkAddonFile(file: string): string {
  if (!existsSync(file)) throw new Error(`expected the native engine in ${file}, found nothing; ./sala builds it`);
  const wanted = `${process.platform}-${process.arch}`;
  const found = binaryKind(file);
  if (process.platform === 'linux' && found !== wanted) throw new Error(`${file}: expected a library for ${wanted}, found ${found}`);
  return `${file} is for ${found}`;
}

function binaryKind(file: string): string {
  const head = Buffer.alloc(20);
  const descriptor = openSync(file, 'r');
  let n: number;
  try {
    n = readSync(descriptor, head, 0, head.length, 0);
  } finally {
    closeSync(descriptor);
  }
  if (n < head.length || head.toString('latin1', 0, 4) !== '\x7fELF') return `no ELF library (it begins with ${JSON.stringify(head.toString('latin1', 0, Math.min(n, 10)))})`;
  const machine = head.readUInt16LE(18);
  return `linux-${{ 62: 'x64', 183: 'arm64' }[machine] ?? `machine ${machine}`}`;
}

/** Loading may stop the process: that must not be this one. */
function checkAddon(file: string): string {
  const program =
    'const addon = require(process.argv[1]); console.log(JSON.stringify({ backends: addon.backends(), cores: addon.physicalCores() }))';
  const { status, signal, stdout, stderr, error } = spawnProbe(program, [file], probeMs);
  if (error) throw error;
  if (status !== 0) {
    const words = /Error: .*/.exec(stderr)?.[0] ?? stderr;
    throw new Error(describeEnd(`${file} to load`, status, signal, words).message);
  }
  const { backends, cores } = JSON.parse(stdout) as { backends: string[]; cores: number };
  return `loads; kernels: ${backends.at(-1)} (this machine can run ${backends.join(', ')}), ${cores} cores`;
}

function describeProcessor(): string {
  const name = os.cpus()[0]?.model.trim() || process.arch;
  if (process.platform !== 'linux') return name;
  const flags = new Set(/^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]?.trim().split(/\s+/));
  const known = ['avx2', 'fma', 'f16c', 'avx_vnni', 'avx512f', 'avx512_vnni', 'asimd', 'asimddp', 'i8mm'];
  return `${name}: ${known.filter((flag) => flags.has(flag)).join(', ') || 'no vector instructions that are used'}`;
}

/** Sizes of the weights against their own headers and the index; then what TypeScript reads of the folder. */
async function checkModel(dir: string): Promise<string> {
  const names = readdirSync(dir).filter((name) => name.endsWith('.safetensors'));
  const bytes = names.map((name) => checkSafetensors(path.join(dir, name))).reduce((sum, size) => sum + size, 0);
  const index = path.join(dir, 'model.safetensors.index.json');
  if (existsSync(index)) {
    const { weight_map: map } = JSON.parse(readFileSync(index, 'utf8')) as { weight_map?: Record<string, string> };
    const missing = [...new Set(Object.values(map ?? {}))].filter((name) => !names.includes(name));
    if (missing.length > 0) throw new Error(`${index}: expected ${missing.join(', ')} beside it, found ${names.join(', ') || 'no weights'}`);
  } else if (names.length === 0) {
    throw new Error(`expected *.safetensors in ${dir}, found none`);
  }
  const folder = await readModelFolder(dir);
  // Whether the tokenizer is one that we have and fits the model, its constructor says.
  new Tokenizer(folder);
  return `${folder.sala.name}: ${dir}, ${formatBytes(bytes)} in ${names.length} files`;
}

/** Loads the model for once: whether configuration and weights fit is the engine's to say. */
async function checkWeights(addon: string, dir: string): Promise<string> {
  const { read } = (await readModelFolder(dir)).sala;
  const began = performance.now();
  const program =
    'const [, file, options] = process.argv; const addon = require(file);' +
    'addon.load({ ...JSON.parse(options), threads: addon.physicalCores() }).then((engine) => {' +
    '  console.log(JSON.stringify(engine.info)); return engine.close();' +
    '}, (error) => { console.log(JSON.stringify({ failure: error.message })); process.exitCode = 1; });';
  const options = JSON.stringify({ modelDir: dir, activations: 'int8', reading: read });
  const { status, signal, stdout, stderr, error } = spawnProbe(program, [addon, options], loadMs);
  if (error) throw error;
  const said = parseProbe(stdout);
  if (said?.failure !== undefined) throw new Error(said.failure);
  if (status !== 0 || said?.backend === undefined) throw new Error(describeEnd(`the model in ${dir} to load`, status, signal, stderr).message);
  return `load in ${((performance.now() - began) / 1000).toFixed(1)} s; ${said.nLayers} layers, vocabulary ${said.vocabSize}, ${said.numerics}`;
}

function parseProbe(text: string): { failure?: string; backend?: string; nLayers?: number; vocabSize?: number; numerics?: string } | undefined {
  try {
    return JSON.parse(text) as ReturnType<typeof parseProbe>;
  } catch {
    return undefined;
  }
}

/** A piece of JavaScript in a process of its own, which it may well stop. */
function spawnProbe(program: string, args: readonly string[], timeout: number): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, ['-e', program, ...args], {
    encoding: 'utf8',
    timeout,
    killSignal: 'SIGKILL',
    env: { ...process.env, ELECTRON_RUN_AS_NODE: '1' },
  });
}

/** Size of the file, which must be what its header says. */
function checkSafetensors(file: string): number {
  const found = statSync(file);
  if (!found.isFile()) throw new Error(`${file}: expected a regular file, found something else`);
  const descriptor = openSync(file, 'r');
  try {
    const lengthBytes = Buffer.alloc(8);
    if (readSync(descriptor, lengthBytes, 0, 8, 0) < 8) throw new Error(`${file}: expected at least 8 bytes, found ${found.size}`);
    const headerBytes = lengthBytes.readBigUInt64LE();
    // The format's own limit is 100 MB.
    if (headerBytes > 100_000_000n || headerBytes + 8n > BigInt(found.size)) {
      throw new Error(`${file}: expected a header within its ${found.size} bytes, found a length of ${headerBytes}`);
    }
    const header = Buffer.alloc(Number(headerBytes));
    readSync(descriptor, header, 0, header.length, 8);
    let tensors: Record<string, { data_offsets?: [number, number] }>;
    try {
      tensors = JSON.parse(header.toString('utf8')) as typeof tensors;
    } catch (error) {
      throw new Error(`${file}: expected a JSON header, found: ${(error as Error).message}`);
    }
    const end = Object.values(tensors).reduce((most, { data_offsets }) => Math.max(most, data_offsets?.[1] ?? 0), 0);
    const expected = 8 + header.length + end;
    if (expected !== found.size) throw new Error(`${file}: expected ${expected} bytes, found ${found.size}`);
    return found.size;
  } finally {
    closeSync(descriptor);
  }
}

function checkMemory(model: string | undefined): string {
  const weightBytes = model === undefined ? 0 : modelBytes(model);
  const total = machineMemoryBytes();
  const available = Math.min(process.availableMemory(), total);
  const needed = weightBytes + memoryBesideWeights;
  const found = `${formatBytes(available)} of ${formatBytes(total)} available`;
  if (available < needed) throw new Error(`expected ${formatBytes(needed)} of memory, found ${found}`);
  return `${found}, about ${formatBytes(needed)} needed`;
}

function modelBytes(dir: string): number {
  const names = readdirSync(dir).filter((name) => name.endsWith('.safetensors'));
  return names.reduce((sum, name) => sum + statSync(path.join(dir, name)).size, 0);
}

function checkDisk(dir: string | undefined): string {
  if (dir === undefined) throw new EngineError('store_unwritable', 'expected a store folder, found none');
  const { bavail, bsize } = statfsSync(dir);
  const free = bavail * bsize;
  if (free < leastFreeDisk) throw new Error(`expected at least ${formatBytes(leastFreeDisk)} free in ${dir}, found ${formatBytes(free)}`);
  return `${formatBytes(free)} free in ${dir}`;
}

/** Throws what was found damaged: it is dropped by then, and read again when it is wanted. */
async function verifyStore(frame: Frame<DoctorOptions>, before: readonly Check[]): Promise<string> {
  if (before.some(({ ok, name }) => !ok && name !== 'disk')) throw new Error('expected an engine that can run, to look at the store; found what failed above');
  const { segments, files, bytes, damaged, findings } = await withClient(frame, (client) => client.request(verify, undefined, frame.signal));
  const all = `${count(segments, 'segment')} in ${count(files, 'file')}, ${formatBytes(bytes)}`;
  if (findings.length === 0) return `${all}: every byte is what it was`;
  const what = damaged > 0 ? `${count(damaged, 'segment')} damaged and dropped, to be read again` : 'damaged parts dropped, to be made again';
  throw new Error(`expected ${all} as they were written, found ${what}: ${findings.join('; ')}`);
}

async function describeEngine(dir: string | undefined, { activations }: DoctorOptions): Promise<string> {
  if (dir === undefined) return 'not running';
  const name = endpointName(activations);
  const pid = holder(dir, name);
  if (!(await accepts(endpointPath(dir, name)))) return pid === undefined ? 'not running' : `process ${pid} is starting or ending`;
  return `running${pid === undefined ? '' : `, process ${pid}`}; log: ${path.join(dir, 'engine.log')}`;
}
