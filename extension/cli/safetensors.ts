// Writes tensors in the safetensors format: eight bytes of header length, a JSON header, the data, little endian. The file appears
// whole or not at all.

import { closeSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { EngineError } from '../engine/errors';

export interface Tensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array;
}

/** Throws `invalid_argument` where the file cannot be written, or the data does not fit the shape. */
export function writeSafetensors(file: string, tensors: readonly Tensor[]): void {
  if (os.endianness() !== 'LE') throw new EngineError('unsupported', 'safetensors are written on little-endian machines only');
  const temporary = path.join(path.dirname(file), `.${path.basename(file)}.${process.pid}`);
  try {
    const descriptor = openSync(temporary, 'w');
    try {
      writeAll(descriptor, header(tensors));
      for (const { data } of tensors) writeAll(descriptor, Buffer.from(data.buffer, data.byteOffset, data.byteLength));
    } finally {
      closeSync(descriptor);
    }
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    if (error instanceof EngineError) throw error;
    throw new EngineError('invalid_argument', `expected to write ${file}, found: ${(error as Error).message}`, { cause: error });
  }
}

function header(tensors: readonly Tensor[]): Buffer {
  const entries: Record<string, unknown> = {};
  let end = 0;
  for (const { name, shape, data } of tensors) {
    const n = shape.reduce((product, dimension) => product * dimension, 1);
    if (n !== data.length) throw new EngineError('internal', `${name}: expected ${n} numbers for [${shape.join()}], found ${data.length}`);
    const begin = end;
    end += data.byteLength;
    entries[name] = { dtype: data instanceof Float32Array ? 'F32' : 'I32', shape, data_offsets: [begin, end] };
  }
  const json = Buffer.from(JSON.stringify(entries));
  // Padded with spaces, so that the data is aligned for who maps it.
  const length = Math.ceil(json.length / 8) * 8;
  const bytes = Buffer.alloc(8 + length, ' ');
  bytes.writeBigUInt64LE(BigInt(length), 0);
  json.copy(bytes, 8);
  return bytes;
}

function writeAll(descriptor: number, bytes: Buffer): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(descriptor, bytes, at, Math.min(bytes.length - at, 1 << 30));
}
