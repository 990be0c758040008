// Addresses: BLAKE3 as published, and different for everything that the kept bytes depend on.

import { blake3 } from 'hash-wasm';
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { Hash, type SegmentAddress } from '../../extension/engine/workspace/hash';

let hash: Hash;
before(async () => {
  hash = await Hash.create();
});

const address: SegmentAddress = {
  identity: 'model',
  numerics: 'cpu.1.kv8',
  prefixTokens: Int32Array.of(1, 2, 3),
  headerTokens: 2,
  tokens: Int32Array.of(4, 5, 6, 7),
};

test('the address of a segment is fixed, since stores and packs outlive the program', async () => {
  const frame = (bytes: Uint8Array): Uint8Array[] => [Uint8Array.of(bytes.length, 0, 0, 0, 0, 0, 0, 0), bytes];
  const ids = (...values: number[]): Uint8Array => new Uint8Array(values.flatMap((value) => [value, 0, 0, 0]));
  const parts = [Buffer.from('segment'), Buffer.from('model'), Buffer.from('cpu.1.kv8'), ids(1, 2, 3), ids(4, 5), ids(6, 7)];
  assert.equal(hash.segmentKey(address), await blake3(Buffer.concat(parts.flatMap(frame))));
  // The published test vector for one byte 0x00.
  assert.equal(await blake3(Uint8Array.of(0)), '2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213');
});

test('everything counts, and parts cannot run into each other', () => {
  const changes: readonly Partial<SegmentAddress>[] = [
    {},
    { identity: 'other' },
    { identity: 'modelc', numerics: 'pu.1.kv8' },
    { numerics: 'cuda.1.kv8' },
    { prefixTokens: Int32Array.of(1, 2) },
    { prefixTokens: Int32Array.of(1, 2, 3, 4), tokens: Int32Array.of(5, 6, 7), headerTokens: 1 },
    { headerTokens: 1 },
    { tokens: Int32Array.of(4, 5, 6) },
    { tokens: Int32Array.of(4, 5, 7, 6) },
  ];
  assert.equal(new Set(changes.map((change) => hash.segmentKey({ ...address, ...change }))).size, changes.length);
  // A view into a larger array is hashed as what it shows.
  const tokens = Int32Array.of(9, 4, 5, 6, 7, 9).subarray(1, 5);
  assert.equal(hash.segmentKey({ ...address, tokens }), hash.segmentKey(address));
});

test('a file is known by bytes, path and cutter version', () => {
  const bytes = Buffer.from('const a = 1;\n');
  const keys = [
    hash.fileKey(bytes, 'a.ts', 1),
    hash.fileKey(Buffer.from('const a = 2;\n'), 'a.ts', 1),
    hash.fileKey(bytes, 'b.ts', 1),
    hash.fileKey(bytes, 'a.ts', 2),
    hash.fileKey(new Uint8Array(), 'a.ts', 1),
  ];
  assert.equal(new Set(keys).size, keys.length);
  assert.ok(keys.every((key) => /^[0-9a-f]{64}$/.test(key)));
  assert.equal(hash.fileKey(Buffer.from(bytes), 'a.ts', 1), keys[0]);
});
