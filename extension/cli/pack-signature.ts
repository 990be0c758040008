// Signatures of packs, beside them in FILE.sig: base64 of an Ed25519 signature of the line `sala pack sha512 <hex>\n`, so that openssl can
// make and check them too. They say who made a pack, which is what an import cannot find out by itself. Keys are read here and nowhere
// else: the engine never has one.

import { createHash, createPrivateKey, createPublicKey, sign, verify, type KeyObject } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { EngineError } from '../engine/errors';

/** Throws `invalid_argument` for what is no such key. */
export function readPrivateKey(file: string): Promise<KeyObject> {
  return readKey(file, 'an Ed25519 private key (PEM)', createPrivateKey);
}

/** A private key has its public one in it. Throws `invalid_argument` for what is no such key. */
export function readPublicKey(file: string): Promise<KeyObject> {
  return readKey(file, 'an Ed25519 public key (PEM)', createPublicKey);
}

export function signatureOf(file: string): string {
  return `${file}.sig`;
}

/** Throws `store_unwritable` where the signature cannot be written. */
export async function signPack(file: string, key: KeyObject): Promise<void> {
  const signature = sign(null, await statementOf(file), key).toString('base64');
  const place = signatureOf(file);
  const temporary = `${place}.${process.pid}.tmp`;
  try {
    await writeFile(temporary, `${signature}\n`, { flag: 'wx' });
    await rename(temporary, place);
  } catch (error) {
    await rm(temporary, { force: true });
    throw new EngineError('store_unwritable', `${place}: ${(error as Error).message}`, { cause: error });
  }
}

/** Throws `untrusted` unless the holder of the key's private half has signed these very bytes. */
export async function verifyPack(file: string, key: KeyObject): Promise<void> {
  const place = signatureOf(file);
  const text = await readFile(place, 'utf8').catch((error: unknown) => {
    throw new EngineError('untrusted', `expected a signature in ${place}, found: ${(error as Error).message}`, { cause: error });
  });
  if (!verify(null, await statementOf(file), key, Buffer.from(text, 'base64'))) {
    throw new EngineError('untrusted', `expected a signature of ${file} by this key in ${place}, found one of another file or by another key`);
  }
}

async function statementOf(file: string): Promise<Buffer> {
  const hash = createHash('sha512');
  try {
    for await (const piece of createReadStream(file)) hash.update(piece as Buffer);
  } catch (error) {
    throw new EngineError('invalid_argument', `expected a pack in ${file}, found: ${(error as Error).message}`, { cause: error });
  }
  return Buffer.from(`sala pack sha512 ${hash.digest('hex')}\n`);
}

async function readKey(file: string, expected: string, parse: (pem: Buffer) => KeyObject): Promise<KeyObject> {
  let found = 'another kind of key';
  try {
    const key = parse(await readFile(file));
    if (key.asymmetricKeyType === 'ed25519') return key;
  } catch (error) {
    found = (error as Error).message;
  }
  throw new EngineError('invalid_argument', `expected ${expected} in ${file}, found: ${found}`);
}
