// Model folders: what is read, what is refused and how that is said, the identity and its cache, and where the embedded model is.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { findModel, modelIdentity, readModelFolder } from '../../extension/engine/model-folder';

let root: string;
let dir: string;
const dist = process.env['SALA_DIST'];

beforeEach(() => {
  root = mkdtempSync(path.join(tmpdir(), 'sala-model-'));
  dir = writeModel(path.join(root, 'model'));
});

afterEach(() => {
  if (dist === undefined) delete process.env['SALA_DIST'];
  else process.env['SALA_DIST'] = dist;
  rmSync(root, { recursive: true, force: true });
});

const sala = {
  format: 1,
  name: 'tiny',
  prefix: '<|im_start|>system\nHello.<|im_end|>\n',
  segment: { header: '<|file_sep|>{path}\n', max_tokens: 495, tokenize: 'line by line' },
  fim: {
    order: 'suffix-prefix-middle',
    header: '<|file_sep|>{path}\n',
    suffix: '<|fim_suffix|>',
    prefix: '<|fim_prefix|>',
    middle: '<|fim_middle|>',
    stop: ['<|endoftext|>'],
  },
  tail_starts_from: 'empty',
  tail_tokens: 2048,
  read: { layer: 9, heads: [8, 10, 13], uncertain_below: 0.25 },
  focus: { segments: 3, headers: 'first file' },
  completion: { segments: 5, headers: 'shown', question_tokens: 24, suffix_tokens: 96, prefix_tokens: 256 },
  dense_scope_tokens: 4096,
};
const config = { vocab_size: 300, num_attention_heads: 14, num_key_value_heads: 2, mixer_types: ['minicpm4', 'lightning-attn', 'minicpm4'] };
const tokenizerConfig = { chat_template: 'hello', eos_token: '<|im_end|>', bos_token: { content: '<s>' } };

function writeModel(folder: string): string {
  mkdirSync(folder, { recursive: true });
  write(folder, 'config.json', config);
  write(folder, 'sala.json', sala);
  write(folder, 'tokenizer.json', { model: { vocab: {}, merges: [] } });
  write(folder, 'tokenizer_config.json', tokenizerConfig);
  writeFileSync(path.join(folder, 'model-1.safetensors'), 'one');
  writeFileSync(path.join(folder, 'model-2.safetensors'), 'two');
  write(folder, 'model.safetensors.index.json', { weight_map: { a: 'model-1.safetensors', b: 'model-2.safetensors' } });
  return folder;
}

function write(folder: string, name: string, json: unknown): void {
  writeFileSync(path.join(folder, name), JSON.stringify(json));
}

async function refuses(code: string, message: RegExp): Promise<void> {
  await assert.rejects(readModelFolder(dir), { code, message });
}

test('a folder is read as it is written', async () => {
  const folder = await readModelFolder(dir);
  assert.deepEqual(folder.sala, sala);
  assert.equal(folder.vocabSize, 300);
  assert.equal(folder.chatTemplate, 'hello');
  assert.deepEqual(folder.templateTokens, { eos_token: '<|im_end|>', bos_token: '<s>' });
});

test('what is missing or wrong is named: file, key, expected, found', async () => {
  const changes: readonly [unknown, RegExp][] = [
    [{ ...sala, format: 2 }, /sala\.json: format: expected 1, found 2$/],
    [{ ...sala, prefix: undefined }, /sala\.json: prefix: expected a text, found nothing$/],
    [{ ...sala, segment: 7 }, /segment: expected an object, found 7$/],
    [{ ...sala, segment: { ...sala.segment, header: 'x' } }, /segment\.header: expected a text with one \{path\}, found "x"$/],
    [{ ...sala, segment: { ...sala.segment, max_tokens: -1 } }, /segment\.max_tokens: expected an integer of at least 64, found -1$/],
    [{ ...sala, tail_starts_from: 'end' }, /tail_starts_from: expected "prefix" or "empty", found "end"$/],
    [{ ...sala, read: { ...sala.read, heads: [1.5] } }, /read\.heads: expected a list of integers, found \[1\.5\]$/],
    [{ ...sala, read: { ...sala.read, uncertain_below: 2 } }, /read\.uncertain_below: expected a number from 0 to 1, found 2$/],
    [{ ...sala, fim: { ...sala.fim, stop: [] } }, /fim\.stop: expected a list of texts, found \[\]$/],
    [[], /sala\.json: expected an object, found \[\]$/],
  ];
  for (const [json, message] of changes) {
    write(dir, 'sala.json', json);
    await refuses('model_invalid', message);
  }
  write(dir, 'sala.json', sala);
  writeFileSync(path.join(dir, 'config.json'), '{');
  await refuses('model_invalid', /config\.json: expected JSON/);
  write(dir, 'config.json', { ...config, vocab_size: '300' });
  await refuses('model_invalid', /config\.json: vocab_size: expected an integer of at least 1, found "300"$/);
  rmSync(path.join(dir, 'config.json'));
  await refuses('model_not_found', /config\.json, found: ENOENT/);
  mkdirSync(path.join(dir, 'config.json'));
  await refuses('model_invalid', /config\.json: expected a regular file$/);
  rmSync(dir, { recursive: true });
  await refuses('model_not_found', /expected a model folder at .*ENOENT/);
});

test('a model without sala.json has the documented defaults', async () => {
  rmSync(path.join(dir, 'sala.json'));
  let folder = await readModelFolder(dir);
  assert.equal(folder.sala.tail_starts_from, 'prefix');
  assert.equal(folder.sala.fim, null);
  assert.deepEqual(folder.sala.read, { layer: 2, heads: [0, 1, 2, 3, 4, 5, 6], uncertain_below: 0 });
  const special = ['<|fim_suffix|>', '<|fim_prefix|>', '<|fim_middle|>', '<|im_end|>'];
  write(dir, 'tokenizer.json', { added_tokens: special.map((content, id) => ({ id, content })) });
  folder = await readModelFolder(dir);
  assert.deepEqual(folder.sala.fim?.stop, ['<|im_end|>']);
});

test('a chat template may lie in a file of its own or have a name', async () => {
  write(dir, 'tokenizer_config.json', { chat_template: [{ name: 'tool', template: 'no' }, { name: 'default', template: 'yes' }] });
  assert.equal((await readModelFolder(dir)).chatTemplate, 'yes');
  write(dir, 'tokenizer_config.json', {});
  await refuses('model_invalid', /chat_template: expected a text, found nothing/);
  writeFileSync(path.join(dir, 'chat_template.jinja'), 'file');
  assert.equal((await readModelFolder(dir)).chatTemplate, 'file');
});

test('the identity depends on every file that makes the model, and on nothing else', async () => {
  const cache = path.join(root, 'cache/identity.json');
  const first = await modelIdentity(dir, cache);
  assert.match(first, /^[0-9a-f]{64}$/);
  assert.equal(await modelIdentity(writeModel(path.join(root, 'elsewhere')), path.join(root, 'other.json')), first);
  writeFileSync(path.join(dir, 'README.md'), 'hello');
  assert.equal(await modelIdentity(dir, cache), first);
  const seen = new Set([first]);
  for (const name of ['config.json', 'sala.json', 'tokenizer.json', 'model-2.safetensors', 'quantize_config.json']) {
    writeFileSync(path.join(dir, name), `changed ${name}`);
    seen.add(await modelIdentity(dir, cache));
  }
  rmSync(path.join(dir, 'model-1.safetensors'));
  seen.add(await modelIdentity(dir, cache));
  assert.equal(seen.size, 7);
});

test('unchanged files are not read again; a broken cache only costs the reading', async () => {
  const cache = path.join(root, 'identity.json');
  const first = await modelIdentity(dir, cache);
  const entries = Object.entries(JSON.parse(readFileSync(cache, 'utf8')) as Record<string, string>);
  assert.equal(entries.length, 5);
  const forged = entries.map(([state, hash]) => [state, state.includes('model-1') ? '0'.repeat(64) : hash]);
  writeFileSync(cache, JSON.stringify(Object.fromEntries(forged)));
  assert.notEqual(await modelIdentity(dir, cache), first, 'the cached hash is used');
  const part = path.join(dir, 'model-1.safetensors');
  utimesSync(part, statSync(part).atime, new Date(Date.now() + 5000));
  assert.equal(await modelIdentity(dir, cache), first, 'another mtime: hashed again');
  writeFileSync(cache, 'no json');
  assert.equal(await modelIdentity(dir, cache), first);
  assert.equal(await modelIdentity(dir, path.join(part, 'no/folder')), first);
});

test('a pipe in place of a part is refused, not waited for', async () => {
  const part = path.join(dir, 'model-1.safetensors');
  rmSync(part);
  execFileSync('mkfifo', [part]);
  await assert.rejects(modelIdentity(dir, path.join(root, 'c')), { code: 'model_invalid', message: /model-1\.safetensors: expected a regular file/ });
});

test('the embedded model is the only folder in models/; missing parts are named', async () => {
  process.env['SALA_DIST'] = path.join(root, 'repo/dist');
  await assert.rejects(findModel(), { code: 'model_not_found', message: /found none or several/ });
  const own = path.join(root, 'repo/models/tiny');
  cpSync(dir, own, { recursive: true });
  assert.equal(await findModel(), own);
  rmSync(path.join(own, 'model-2.safetensors'));
  await assert.rejects(findModel(), { code: 'model_not_found', message: /missing: model-2\.safetensors$/ });
});
