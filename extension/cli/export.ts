// `sala export FILE`: reads the whole workspace, then writes its memory into one file that other machines can import.

import path from 'node:path';
import * as messages from '../engine/messages';
import { withEngine, type Frame } from './command';
import { showReading } from './ingest';
import type { CommonOptions } from './options';
import { count, formatBytes } from './output';
import { readPrivateKey, signatureOf, signPack } from './pack-signature';

/** So many paths of each kind are named. */
const named = 3;

const reasons: Readonly<Record<messages.PackOmission, string>> = {
  over_budget: 'over the budget of tokens',
  unreadable: 'cannot be read',
  stale: 'changed meanwhile',
  waiting: 'not read yet',
  reading: 'not read to the end yet',
  unsaved: 'with text in an editor that is not saved',
  foreign: 'from a pack of another family',
};

export interface ExportOptions extends CommonOptions {
  /** File of a private key. */
  readonly sign?: string;
}

export async function exportPack(frame: Frame<ExportOptions>, file: string): Promise<void> {
  const { options, output, signal } = frame;
  // What is wrong with it is told before hours of reading.
  const key = options.sign === undefined ? undefined : await readPrivateKey(options.sign);
  await withEngine(frame, { watch: 'none', ingest: false }, async (client) => {
    const reading = showReading(client, output);
    client.on(messages.packProgress, ({ done, total }) => {
      reading.dispose();
      output.progress(`writing ${formatBytes(total)}`, done / total);
    });
    const result = await client.request(messages.exportPack, { file: path.resolve(file) }, signal);
    if (key) await signPack(path.resolve(file), key);
    const signature = key && { signature: signatureOf(file) };
    output.result({ ...result, ...signature }, () => `${describe(file, result)}${signature ? `signed: ${signature.signature}\n` : ''}`);
  });
}

function describe(file: string, { segments, tokens, bytes, files, left_out }: messages.ExportResult): string {
  const lines = [`${file}: ${count(files, 'file')}, ${count(segments, 'segment')}, ${count(tokens, 'token')}, ${formatBytes(bytes)}`];
  for (const reason of messages.packOmissions) {
    const those = left_out.filter((one) => one.reason === reason);
    if (those.length === 0) continue;
    const paths = those.slice(0, named).map((one) => one.path).join(', ');
    const more = those.length > named ? ` and ${those.length - named} more` : '';
    lines.push(`left out, ${reasons[reason]}: ${paths}${more}`);
  }
  return `${lines.join('\n')}\n`;
}
