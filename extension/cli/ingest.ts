// `sala ingest`: reads the whole workspace into memory and store; with --watch it stays, follows changes and prints one line (with
// --json: one document) whenever it has caught up.

import { once } from 'node:events';
import type { EngineClient } from '../engine/client';
import * as messages from '../engine/messages';
import { withEngine, type Frame } from './command';
import type { CommonOptions } from './options';
import { abbreviate, count, type Output } from './output';

export interface IngestOptions extends CommonOptions {
  readonly watch?: boolean;
}

export async function ingest(frame: Frame<IngestOptions>): Promise<void> {
  const { options, output, signal } = frame;
  const watch = options.watch === true;
  // Whoever stays wants reading to go on behind another engine too, which is told `open` again and nothing else.
  await withEngine(frame, { watch: watch ? 'engine' : 'none', ingest: watch }, async (client) => {
    const progress = showReading(client, output);
    const result = await client.request(messages.ingest, undefined, signal);
    progress.dispose();
    output.result(result, () => `${describe(result)}\n`);
    if (watch && !signal.aborted) await follow(client, frame, result);
  });
}

/** Until it is disposed. */
export function showReading(client: EngineClient, output: Output): { dispose(): void } {
  return client.on(messages.ingestStatus, ({ coverage, tokens_per_s, seconds_left }) => {
    const left = seconds_left === undefined ? '' : `, ${formatSeconds(seconds_left)} left`;
    const fraction = coverage.total_tokens > 0 ? coverage.tokens / coverage.total_tokens : undefined;
    const speed = tokens_per_s > 0 ? `, ${abbreviate(tokens_per_s)} tokens/s` : '';
    output.progress(`reading ${count(coverage.total_files, 'file')}${speed}${left}`, fraction);
  });
}

/** Until it is interrupted. */
async function follow(client: EngineClient, { output, signal }: Frame, first: messages.IngestResult): Promise<void> {
  const changed = new Set<string>();
  let told = { encoded: first.encoded_tokens, files: first.files, tokens: first.tokens };
  let polling: string | undefined;
  client.on(messages.coverageChanged, ({ files, everything }) => {
    if (everything && files.length === 0) void noteUnreadable(client, output);
    const away = files.filter(({ state }) => state === 'unreadable');
    // What was read of them stays in.
    for (const reason of new Set(away.map(({ detail }) => detail))) {
      const those = away.filter(({ detail }) => detail === reason);
      output.note(`${describeChanged(those.map((file) => file.path))} cannot be read: ${reason ?? 'no reason known'}`);
    }
    for (const file of files) if (file.state !== 'unreadable') changed.add(file.path);
  });
  client.on(messages.ingestStatus, (status) => {
    if (status.polling !== undefined && status.polling !== polling) output.note(status.polling);
    polling = status.polling;
    // Another engine counts from nothing.
    if (status.encoded_tokens < told.encoded) told.encoded = 0;
    if (status.state !== 'idle') return;
    const { files, tokens } = status.coverage;
    const now = { encoded: status.encoded_tokens, files, tokens };
    if (changed.size === 0 && now.encoded === told.encoded && files === told.files && tokens === told.tokens) return;
    const update: messages.IngestResult & { readonly changed: readonly string[] } = {
      files,
      tokens,
      encoded_tokens: status.encoded_tokens - told.encoded,
      reused_tokens: status.reused_tokens,
      tokens_per_s: status.tokens_per_s,
      changed: [...changed].sort(),
    };
    told = now;
    changed.clear();
    output.result(update, () => `${describeChanged(update.changed)}: ${abbreviate(update.encoded_tokens)} tokens read, ${describe(update)}\n`);
  });
  await once(signal, 'abort');
}

/** Of more files than are told one by one. */
async function noteUnreadable(client: EngineClient, output: Output): Promise<void> {
  try {
    const { nodes } = await client.request(messages.coverageLevel, {});
    const unreadable = nodes.find((node) => node.kind === 'group' && node.place.state === 'unreadable');
    if (unreadable?.kind === 'group' && unreadable.files > 0) output.note(`${count(unreadable.files, 'file')} cannot be read`);
  } catch {
    // The engine is gone: what follows says so.
  }
}

function describe({ files, tokens, encoded_tokens, reused_tokens, tokens_per_s }: messages.IngestResult): string {
  const speed = encoded_tokens > 0 ? ` at ${abbreviate(tokens_per_s)} tokens/s` : '';
  return `${count(files, 'file')}, ${count(tokens, 'token')}: ${abbreviate(encoded_tokens)} read${speed}, ${abbreviate(reused_tokens)} reused`;
}

function describeChanged(paths: readonly string[]): string {
  if (paths.length === 0) return 'caught up';
  return paths.length <= 3 ? paths.join(', ') : `${paths.slice(0, 3).join(', ')} and ${paths.length - 3} more`;
}

function formatSeconds(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
