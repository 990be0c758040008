// Where the store lies: private, one for each model, elsewhere if the usual place cannot be written.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { EngineError } from '../../extension/engine/errors';
import { isPrivate, lookUpStoreFolders, makePrivate, openStoreFolder } from '../../extension/engine/store-folder';

let dir: string;
let model: string;
const { XDG_CACHE_HOME } = process.env;

beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), 'sala-test-'));
  model = path.join(dir, 'model');
  mkdirSync(model);
  for (const name of ['config.json', 'tokenizer.json', 'model.safetensors']) writeFileSync(path.join(model, name), name);
  process.env['XDG_CACHE_HOME'] = path.join(dir, 'cache');
});
afterEach(() => {
  if (XDG_CACHE_HOME === undefined) delete process.env['XDG_CACHE_HOME'];
  else process.env['XDG_CACHE_HOME'] = XDG_CACHE_HOME;
  rmSync(dir, { recursive: true, force: true });
});

const mode = (file: string): string => (statSync(file).mode & 0o777).toString(8);

test('the cache folder, the identity, the owner alone', async () => {
  const store = await openStoreFolder(model, undefined);
  assert.equal(store.dir, path.join(dir, 'cache', 'sala', store.identity));
  assert.match(store.identity, /^[0-9a-f]{64}$/);
  assert.equal(store.replaced, undefined);
  assert.deepEqual([mode(store.dir), mode(path.dirname(store.dir))], ['700', '700']);
  assert.deepEqual(readdirSync(path.dirname(store.dir)).sort(), [store.identity, 'models.json', 'CACHEDIR.TAG'].sort());
});

test('the same model elsewhere has the same store; another model another', async () => {
  const store = await openStoreFolder(model, undefined);
  const copy = path.join(dir, 'copy');
  mkdirSync(copy);
  for (const name of ['config.json', 'tokenizer.json', 'model.safetensors']) writeFileSync(path.join(copy, name), name);
  assert.equal((await openStoreFolder(copy, undefined)).dir, store.dir);
  writeFileSync(path.join(copy, 'model.safetensors'), 'model.safetensorz');
  assert.notEqual((await openStoreFolder(copy, undefined)).dir, store.dir);
});

test('looking up finds what was opened, makes nothing, and does not trust a model that changed', async () => {
  assert.deepEqual(await lookUpStoreFolders(model, path.join(dir, 's')), []);
  assert.deepEqual(readdirSync(dir).sort(), ['model']);
  const { dir: found } = await openStoreFolder(model, path.join(dir, 's'));
  assert.deepEqual(await lookUpStoreFolders(model, path.join(dir, 's')), [found]);
  writeFileSync(path.join(model, 'config.json'), 'another');
  assert.deepEqual(await lookUpStoreFolders(model, path.join(dir, 's')), []);
});

test('a usual place that cannot be used is replaced and named; one that the user named is not', async () => {
  // A file in the way refuses root as well.
  writeFileSync(path.join(dir, 'cache'), '');
  const store = await openStoreFolder(model, undefined);
  try {
    assert.ok(!store.dir.startsWith(dir), store.dir);
    assert.match(store.replaced ?? '', new RegExp(`${path.join(dir, 'cache')}.*`));
    assert.ok(isPrivate(store.dir));
  } finally {
    rmSync(store.dir, { recursive: true, force: true });
  }
  await assert.rejects(openStoreFolder(model, path.join(dir, 'cache', 's')), (error) => {
    return error instanceof EngineError && error.code === 'store_unwritable' && error.message.includes(path.join(dir, 'cache', 's'));
  });
});

test('what others may enter is closed; a link is refused', () => {
  const open = path.join(dir, 'open');
  mkdirSync(open);
  chmodSync(open, 0o755);
  assert.equal(isPrivate(open), false);
  makePrivate(open);
  assert.equal(mode(open), '700');
  symlinkSync(open, path.join(dir, 'link'));
  assert.equal(isPrivate(path.join(dir, 'link')), false);
  assert.throws(() => makePrivate(path.join(dir, 'link')), /expected a folder/);
});
