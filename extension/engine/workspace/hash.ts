// Addresses of what is kept: BLAKE3 over exactly what the kept bytes depend on. Parts are framed by their lengths, so that no
// two different inputs give the same message.

import { createBLAKE3, type IHasher } from 'hash-wasm';

export interface SegmentAddress {
  /** Identity of the model (modelIdentity). */
  readonly identity: string;
  /** Revision, family and stored form, as the native engine names them. */
  readonly numerics: string;
  readonly prefixTokens: Int32Array;
  /** How many of `tokens` are the header. */
  readonly headerTokens: number;
  readonly tokens: Int32Array;
}

/** Hashing without waiting; `create` loads the code once. */
export class Hash {
  private constructor(private readonly blake3: IHasher) {}

  static async create(): Promise<Hash> {
    return new Hash(await createBLAKE3());
  }

  /** Address of a segment: 64 hex digits. */
  segmentKey({ identity, numerics, prefixTokens, headerTokens, tokens }: SegmentAddress): string {
    const header = tokens.subarray(0, headerTokens);
    return this.of('segment', identity, numerics, prefixTokens, header, tokens.subarray(headerTokens));
  }

  /** What a file's segments depend on besides the model: 64 hex digits. The path counts because the header names it. */
  fileKey(bytes: Uint8Array, path: string, cutterVersion: number): string {
    return this.of('file', path, String(cutterVersion), bytes);
  }

  private of(...parts: readonly (string | Int32Array | Uint8Array)[]): string {
    this.blake3.init();
    for (const part of parts) {
      const bytes = typeof part === 'string' ? Buffer.from(part) : part instanceof Int32Array ? littleEndian(part) : part;
      const length = new Uint8Array(8);
      new DataView(length.buffer).setBigUint64(0, BigInt(bytes.length), true);
      this.blake3.update(length).update(bytes);
    }
    return this.blake3.digest('hex');
  }
}

/** Bytes of the ids; every machine that we run on is little-endian, and a pack may travel between them. */
function littleEndian(ids: Int32Array): Uint8Array {
  return new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength);
}
