// `sala import FILE`: takes what `sala export` wrote into the store; no workspace is needed.

import path from 'node:path';
import * as messages from '../engine/messages';
import { withClient, type Frame } from './command';
import type { CommonOptions } from './options';
import { count, formatBytes } from './output';
import { readPublicKey, verifyPack } from './pack-signature';

export interface ImportOptions extends CommonOptions {
  /** File of a public key: without a signature of its owner nothing is taken. */
  readonly verifyWith?: string;
}

export async function importPack(frame: Frame<ImportOptions>, file: string): Promise<void> {
  const { options, output, signal } = frame;
  if (options.verifyWith !== undefined) await verifyPack(path.resolve(file), await readPublicKey(options.verifyWith));
  await withClient(frame, async (client) => {
    client.on(messages.packProgress, ({ phase, done, total }) => {
      output.progress(phase === 'segments' ? `reading ${formatBytes(total)}` : `checking ${count(total, 'file')}`, done / total);
    });
    const result = await client.request(messages.importPack, { file: path.resolve(file) }, signal);
    output.result(result, () => describe(file, result));
    for (const line of result.findings) output.note(line);
    // What was damaged is read again where it is needed: yet whoever fetched the pack wants to know.
    if (result.findings.length > 0) frame.failed();
  });
}

function describe(file: string, { segments, tokens, bytes, files, numerics, foreign, damaged }: messages.ImportResult): string {
  const lines = [`${file}: ${count(files, 'file')}, ${count(segments, 'segment')}, ${count(tokens, 'token')} of ${formatBytes(bytes)} taken`];
  if (foreign) lines.push(`made by another family (${numerics}): used as it is; files that change are read by this engine`);
  if (damaged > 0) lines.push(`${count(damaged, 'segment')} left out: damaged, or not what they say`);
  return `${lines.join('\n')}\n`;
}
