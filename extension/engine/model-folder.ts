// A model is a folder in Hugging Face layout; this reads what TypeScript needs of it: sala.json, the tokenizer's files and the
// chat template. Weights and the graph's numbers are the native engine's business. The folder is untrusted: every value that
// is used is checked, and an error names the file, the key, what was expected and what was found.

import { createBLAKE3 } from 'hash-wasm';
import { createReadStream, type BigIntStats } from 'node:fs';
import { mkdir, readFile, readdir, rename, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { TailStart } from './addon';
import { assetPath } from './assets';
import { EngineError } from './errors';

/** What the product must know about a model beyond its graph. Keys are those of the file; the model's README explains them. */
export interface SalaJson {
  readonly format: 1;
  readonly name: string;
  /** P: the constant text in front of everything, special tokens written out. */
  readonly prefix: string;
  readonly segment: {
    /** `{path}` is the path within its root. */
    readonly header: string;
    /** Longest segment, its header included, P not. */
    readonly max_tokens: number;
    readonly tokenize: 'line by line';
  };
  /** null: the model has no tokens for filling in the middle. */
  readonly fim: {
    readonly order: 'suffix-prefix-middle';
    readonly header: string;
    readonly suffix: string;
    readonly prefix: string;
    readonly middle: string;
    readonly stop: readonly string[];
  } | null;
  readonly tail_starts_from: TailStart;
  /** Longest tail: P, conversation, question and answer. */
  readonly tail_tokens: number;
  readonly read: { readonly layer: number; readonly heads: readonly number[]; readonly uncertain_below: number };
  readonly focus: { readonly segments: number; readonly headers: HeadersInView };
  readonly completion: {
    readonly segments: number;
    readonly headers: HeadersInView;
    readonly question_tokens: number;
    readonly suffix_tokens: number;
    readonly prefix_tokens: number;
  };
  readonly dense_scope_tokens: number;
}

/** Whose headers an answer sees: of segments of the first one's file, or of all. */
export type HeadersInView = 'first file' | 'shown';

export interface ModelFolder {
  readonly dir: string;
  readonly sala: SalaJson;
  /** `vocab_size` of config.json: no token id reaches it. */
  readonly vocabSize: number;
  /** Parsed tokenizer.json; class Tokenizer checks it further. */
  readonly tokenizer: JsonObject;
  readonly chatTemplate: string;
  /** Special tokens that a chat template may name: `bos_token`, `eos_token`, … */
  readonly templateTokens: Readonly<Record<string, string>>;
}

export type JsonObject = { readonly [key: string]: unknown };

/** What a model is told to be, where neither sala.json nor its own chat template says it. */
export const systemText = 'You are a coding assistant. You have read this repository.';

/** Reads and checks a model folder. Throws `model_not_found` or `model_invalid`. */
export async function readModelFolder(dir: string): Promise<ModelFolder> {
  await requireFolder(dir);
  const config = await readJson(dir, 'config.json');
  const tokenizer = await readJson(dir, 'tokenizer.json');
  const tokenizerConfig = await readJson(dir, 'tokenizer_config.json');
  const templateTokens = specialTokens(tokenizerConfig);
  const configKeys = new Keys(path.join(dir, 'config.json'), config);
  const salaFile = path.join(dir, 'sala.json');
  return {
    dir,
    sala: (await exists(salaFile))
      ? checkSala(salaFile, await readJson(dir, 'sala.json'))
      : defaultSala(path.basename(dir), configKeys, tokenizer, tokenizerConfig, templateTokens),
    vocabSize: configKeys.count('vocab_size'),
    tokenizer,
    chatTemplate: await chatTemplate(dir, tokenizerConfig),
    templateTokens,
  };
}

/**
 * Identity of a model: BLAKE3 (64 hex digits) over names, sizes and hashes of config.json, sala.json, tokenizer.json, a
 * quantize_config.json and all *.safetensors. A file's own hash is kept in `cacheFile` by name, size, mtime and inode, so that a
 * start reads no weights. Streams: needs no memory to speak of. Throws `model_not_found` or `model_invalid`.
 */
export async function modelIdentity(dir: string, cacheFile: string): Promise<string> {
  const cache = await readCache(cacheFile);
  let changed = false;
  const identity = await identityOf(dir, cache, async (file, state, size) => {
    const hash = await hashFile(file, size);
    for (const key of cache.keys()) if (key.startsWith(`${path.resolve(file)}\0`)) cache.delete(key);
    cache.set(state, hash);
    changed = true;
    return hash;
  });
  if (changed) await writeCache(cacheFile, cache);
  return identity!;
}

/** The same, if the cache knows every file as it is now; else undefined, and no weights are read. */
export async function knownModelIdentity(dir: string, cacheFile: string): Promise<string | undefined> {
  return identityOf(dir, await readCache(cacheFile), async () => undefined);
}

async function identityOf(
  dir: string,
  cache: ReadonlyMap<string, string>,
  hashUnknown: (file: string, state: string, size: bigint) => Promise<string | undefined>,
): Promise<string | undefined> {
  await requireFolder(dir);
  const optional = ['quantize_config.json', 'sala.json'];
  const present = new Set(await readdir(dir));
  const names = [
    'config.json',
    'tokenizer.json',
    ...optional.filter((name) => present.has(name)),
    ...[...present].filter((name) => name.endsWith('.safetensors')),
  ].sort();
  const identity = await createBLAKE3();
  for (const name of names) {
    const file = path.join(dir, name);
    const found = await requireFile(file);
    const state = `${path.resolve(file)}\0${found.size}\0${found.mtimeNs}\0${found.ino}`;
    const hash = cache.get(state) ?? (await hashUnknown(file, state, found.size));
    if (hash === undefined) return undefined;
    identity.update(`${name}\0${found.size}\0${hash}\n`);
  }
  return identity.digest('hex');
}

/**
 * Folder of the embedded model: the only one in `models/` beside `dist/`. Throws `model_not_found`, naming what is missing.
 */
export async function findModel(): Promise<string> {
  const models = assetPath('..', 'models');
  const name = await onlyFolder(models);
  if (name === undefined) {
    throw new EngineError('model_not_found', `expected one model folder in ${models}, found none or several`);
  }
  const dir = path.join(models, name);
  const missing = await missingParts(dir);
  if (missing.length > 0) {
    throw new EngineError('model_not_found', `expected the whole model in ${dir}, missing: ${missing.join(', ')}`);
  }
  return dir;
}

// ---- sala.json ------------------------------------------------------------------------------------------------------

function checkSala(file: string, json: JsonObject): SalaJson {
  const keys = new Keys(file, json);
  const segment = keys.object('segment');
  const read = keys.object('read');
  const focus = keys.object('focus');
  const completion = keys.object('completion');
  const fim = json['fim'] === undefined || json['fim'] === null ? null : keys.object('fim');
  return {
    format: keys.oneOf('format', [1] as const),
    name: keys.text('name'),
    prefix: keys.text('prefix'),
    segment: {
      header: segment.template('header'),
      max_tokens: segment.count('max_tokens', 64),
      tokenize: segment.oneOf('tokenize', ['line by line'] as const),
    },
    fim: fim && {
      order: fim.oneOf('order', ['suffix-prefix-middle'] as const),
      header: fim.template('header'),
      suffix: fim.text('suffix'),
      prefix: fim.text('prefix'),
      middle: fim.text('middle'),
      stop: fim.texts('stop'),
    },
    tail_starts_from: keys.oneOf('tail_starts_from', ['prefix', 'empty'] as const),
    tail_tokens: keys.count('tail_tokens', 64),
    read: {
      layer: read.count('layer', 0),
      heads: read.counts('heads'),
      uncertain_below: read.fraction('uncertain_below'),
    },
    focus: { segments: focus.count('segments'), headers: focus.oneOf('headers', ['first file', 'shown'] as const) },
    completion: {
      segments: completion.count('segments', 0),
      headers: completion.oneOf('headers', ['first file', 'shown'] as const),
      question_tokens: completion.count('question_tokens'),
      suffix_tokens: completion.count('suffix_tokens', 0),
      prefix_tokens: completion.count('prefix_tokens'),
    },
    dense_scope_tokens: keys.count('dense_scope_tokens', 0),
  };
}

/**
 * What holds for a folder without sala.json, such as the 9B release. Limits are ours; `read` is the middle one of the sparse
 * layers with the heads of its first K/V head: nobody calibrated them, so nothing is ever called uncertain. Tails continue P's
 * end state, as the architecture describes it. Filling in the middle is on if the vocabulary has the tokens for it.
 */
function defaultSala(
  name: string,
  config: Keys,
  tokenizer: JsonObject,
  tokenizerConfig: JsonObject,
  tokens: Readonly<Record<string, string>>,
): SalaJson {
  const sparse = config
    .texts('mixer_types')
    .flatMap((type, layer) => (type.startsWith('lightning') ? [] : [layer]));
  const group = config.count('num_attention_heads') / config.count('num_key_value_heads');
  const added = Array.isArray(tokenizer['added_tokens']) ? (tokenizer['added_tokens'] as { content?: unknown }[]) : [];
  const has = (token: string): boolean => added.some(({ content }) => content === token);
  const bos = tokenizerConfig['add_bos_token'] === true ? (tokens['bos_token'] ?? '') : '';
  return {
    format: 1,
    name,
    prefix: `${bos}<|im_start|>system\n${systemText}<|im_end|>\n`,
    segment: { header: 'File: {path}\n', max_tokens: 495, tokenize: 'line by line' },
    fim: ['<|fim_suffix|>', '<|fim_prefix|>', '<|fim_middle|>'].every(has)
      ? {
          order: 'suffix-prefix-middle',
          header: 'File: {path}\n',
          suffix: '<|fim_suffix|>',
          prefix: '<|fim_prefix|>',
          middle: '<|fim_middle|>',
          stop: [...new Set([tokens['eos_token'] ?? '', '<|im_end|>'])].filter(has),
        }
      : null,
    tail_starts_from: 'prefix',
    tail_tokens: 8192,
    read: {
      layer: sparse[Math.floor(sparse.length / 2)] ?? 0,
      heads: Array.from({ length: Math.max(1, Math.floor(group)) }, (_, head) => head),
      uncertain_below: 0,
    },
    focus: { segments: 8, headers: 'shown' },
    completion: { segments: 5, headers: 'shown', question_tokens: 24, suffix_tokens: 96, prefix_tokens: 256 },
    dense_scope_tokens: 8192,
  };
}

// ---- tokenizer_config.json --------------------------------------------------------------------------------------------

/** Values of `…_token` keys: a text, or an object with `content`. */
function specialTokens(config: JsonObject): Record<string, string> {
  const tokens: Record<string, string> = {};
  for (const [key, value] of Object.entries(config)) {
    const content = isObject(value) ? value['content'] : value;
    if (key.endsWith('_token') && typeof content === 'string') tokens[key] = content;
  }
  return tokens;
}

/** The template named 'default' where there are several; chat_template.jinja where tokenizer_config.json has none. */
async function chatTemplate(dir: string, config: JsonObject): Promise<string> {
  const given = config['chat_template'];
  const named = Array.isArray(given) ? (given as unknown[]).find((item) => isObject(item) && item['name'] === 'default') : undefined;
  const template = isObject(named) ? named['template'] : given;
  if (typeof template === 'string') return template;
  const file = path.join(dir, 'chat_template.jinja');
  if (await exists(file)) return readFile(file, 'utf8');
  throw invalid(path.join(dir, 'tokenizer_config.json'), 'chat_template', 'a text', given);
}

// ---- files ------------------------------------------------------------------------------------------------------------

/** Reading anything but a regular file could block for ever (a pipe), so its kind is checked first. */
async function requireFile(file: string): Promise<BigIntStats> {
  let found: BigIntStats;
  try {
    found = await stat(file, { bigint: true });
  } catch (error) {
    throw new EngineError('model_not_found', `expected the file ${file}, found: ${reason(error)}`, { cause: error });
  }
  if (!found.isFile()) throw new EngineError('model_invalid', `${file}: expected a regular file`);
  return found;
}

async function requireFolder(dir: string): Promise<void> {
  try {
    if ((await stat(dir)).isDirectory()) return;
  } catch (error) {
    throw new EngineError('model_not_found', `expected a model folder at ${dir}, found: ${reason(error)}`, { cause: error });
  }
  throw new EngineError('model_not_found', `expected a model folder at ${dir}, found a file`);
}

/** No file that is read whole has a reason to be larger: the largest tokenizer.json known has 40 MB. */
const maxJsonBytes = 256n << 20n;

async function readJson(dir: string, name: string): Promise<JsonObject> {
  const file = path.join(dir, name);
  const { size } = await requireFile(file);
  if (size > maxJsonBytes) throw new EngineError('model_invalid', `${file}: expected at most ${maxJsonBytes} bytes, found ${size}`);
  let json: unknown;
  try {
    json = JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    throw new EngineError('model_invalid', `${file}: expected JSON, found: ${reason(error)}`, { cause: error });
  }
  if (!isObject(json)) throw new EngineError('model_invalid', `${file}: expected an object, found ${describe(json)}`);
  return json;
}

async function hashFile(file: string, size: bigint): Promise<string> {
  const hasher = await createBLAKE3();
  let read = 0n;
  try {
    for await (const part of createReadStream(file, { highWaterMark: 4 << 20 }) as AsyncIterable<Buffer>) {
      hasher.update(part);
      read += BigInt(part.length);
    }
  } catch (error) {
    throw new EngineError('model_invalid', `${file}: cannot be read: ${reason(error)}`, { cause: error });
  }
  if (read !== size) throw new EngineError('model_invalid', `${file}: expected ${size} bytes, found ${read}: it changes while it is read`);
  return hasher.digest('hex');
}

/** A cache that cannot be read or written costs time only, so neither stops the start. */
async function readCache(cacheFile: string): Promise<Map<string, string>> {
  try {
    const json: unknown = JSON.parse(await readFile(cacheFile, 'utf8'));
    if (!isObject(json)) return new Map();
    return new Map(Object.entries(json).filter((entry): entry is [string, string] => /^[0-9a-f]{64}$/.test(String(entry[1]))));
  } catch {
    return new Map();
  }
}

async function writeCache(cacheFile: string, cache: ReadonlyMap<string, string>): Promise<void> {
  const temporary = `${cacheFile}.${process.pid}`;
  try {
    await mkdir(path.dirname(cacheFile), { recursive: true, mode: 0o700 });
    await writeFile(temporary, JSON.stringify(Object.fromEntries(cache)), { mode: 0o600 });
    await rename(temporary, cacheFile);
  } catch {
    return;
  }
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}

async function onlyFolder(dir: string): Promise<string | undefined> {
  const entries = await readdir(dir, { withFileTypes: true }).catch(() => []);
  const folders = entries.filter((entry) => entry.isDirectory());
  return folders.length === 1 ? folders[0]?.name : undefined;
}

/** Files that a whole model has and `dir` has not; parts of the weights as its index names them. */
async function missingParts(dir: string): Promise<string[]> {
  const index = 'model.safetensors.index.json';
  const needed = ['config.json', 'tokenizer.json', 'tokenizer_config.json'];
  if (await exists(path.join(dir, index))) {
    const names = Object.values((await readJson(dir, index))['weight_map'] ?? {}) as unknown[];
    // A name is a file in the folder, never a path out of it.
    needed.push(...new Set(names.map((name) => path.basename(String(name)))));
  } else if (!(await exists(path.join(dir, 'model.safetensors')))) {
    needed.push(index);
  }
  const there = await Promise.all(needed.map((name) => exists(path.join(dir, name))));
  return needed.filter((_, i) => !there[i]).sort();
}

// ---- checks -----------------------------------------------------------------------------------------------------------

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function describe(value: unknown): string {
  const text = value === undefined ? 'nothing' : JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function invalid(file: string, key: string, expected: string, found: unknown): EngineError {
  return new EngineError('model_invalid', `${file}: ${key}: expected ${expected}, found ${describe(found)}`);
}

/** Typed access to the keys of one object in a file; every failure names file and key. */
class Keys {
  constructor(
    private readonly file: string,
    private readonly json: JsonObject,
    private readonly within = '',
  ) {}

  object(key: string): Keys {
    const value = this.json[key];
    if (!isObject(value)) throw this.fail(key, 'an object');
    return new Keys(this.file, value, `${this.within}${key}.`);
  }

  text(key: string): string {
    const value = this.json[key];
    if (typeof value !== 'string' || value === '') throw this.fail(key, 'a text');
    return value;
  }

  template(key: string): string {
    const text = this.text(key);
    if (text.split('{path}').length !== 2) throw this.fail(key, 'a text with one {path}');
    return text;
  }

  texts(key: string): string[] {
    return this.list(key, 'a list of texts', (item): item is string => typeof item === 'string' && item !== '');
  }

  count(key: string, least = 1): number {
    const value = this.json[key];
    if (!isCount(value) || value < least) throw this.fail(key, `an integer of at least ${least}`);
    return value;
  }

  counts(key: string): number[] {
    return this.list(key, 'a list of integers', isCount);
  }

  fraction(key: string): number {
    const value = this.json[key];
    if (typeof value !== 'number' || !(value >= 0 && value <= 1)) throw this.fail(key, 'a number from 0 to 1');
    return value;
  }

  oneOf<const T extends readonly (string | number)[]>(key: string, values: T): T[number] {
    const value = this.json[key];
    const found = values.find((allowed) => allowed === value);
    if (found === undefined) throw this.fail(key, values.map((allowed) => JSON.stringify(allowed)).join(' or '));
    return found;
  }

  private list<T>(key: string, expected: string, is: (item: unknown) => item is T): T[] {
    const value = this.json[key];
    if (!Array.isArray(value) || value.length === 0 || !value.every(is)) throw this.fail(key, expected);
    return value;
  }

  private fail(key: string, expected: string): EngineError {
    return invalid(this.file, this.within + key, expected, this.json[key]);
  }
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= 0x7fffffff;
}
