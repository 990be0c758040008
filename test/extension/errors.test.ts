// One list of error codes on both sides of the addon's boundary.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { loadAddon } from '../../extension/engine/addon';
import { EngineError, errorCodes, toEngineError } from '../../extension/engine/errors';

test('errors: C++ and TypeScript have the same codes, in the same order', () => {
  assert.deepEqual(loadAddon().errorCodes(), [...errorCodes]);
  const header = readFileSync('kernels/error.h', 'utf8');
  const listed = /enum class ErrorCode \{([^}]*)\}/.exec(header)?.[1]?.match(/\w+/g);
  assert.deepEqual(listed, [...errorCodes]);
});

test('errors: ours keep their code, anything else is internal', () => {
  const ours = new EngineError('store_full', 'x');
  assert.equal(toEngineError(ours), ours);
  assert.deepEqual([toEngineError(Object.assign(new Error('y'), { code: 'store_newer' })).code, toEngineError(Object.assign(new Error('z'), { code: 'ENOENT' })).code], ['store_newer', 'internal']);
  assert.equal(toEngineError('text').message, 'text');
});
