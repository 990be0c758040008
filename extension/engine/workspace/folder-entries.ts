// What lies in a folder. One of very many entries is listed some of them at a time: handed over all at once, 200,000 of them would keep
// everything else waiting.

import type { Dirent } from 'node:fs';
import { opendir, readdir, stat } from 'node:fs/promises';

/** Of this size a folder has some thousand entries, or more, whatever its file system counts: bytes of names, or names. */
const largeBytes = 100_000;
const readAtOnce = 1024;

/** In no order. Throws what the system says where it cannot be listed. */
export async function entriesOf(folder: string): Promise<Dirent[]> {
  if ((await stat(folder)).size < largeBytes) return readdir(folder, { withFileTypes: true });
  const listing = await opendir(folder, { bufferSize: readAtOnce });
  try {
    const entries: Dirent[] = [];
    for (let entry = await listing.read(); entry; entry = await listing.read()) entries.push(entry);
    return entries;
  } finally {
    await listing.close();
  }
}
