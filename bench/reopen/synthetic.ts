// A large workspace that has been read, in a moment: its files are cut and its manifest is written by the engine itself, but of its
// segments only a few are run; all others get their rows (bench/fill_store.cpp). So everything is as large as if it were real.

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Job, EncodeResult, SegmentInput } from '../../extension/engine/addon';
import { Core } from '../../extension/engine/core';
import { never, replaceEncode } from '../../test/reliability/tiny-core';

/** Bytes of source text a token stands for, about. */
const bytesPerToken = 3.4;
/** Segments that are run; the longest ones, so that their rows suffice for all others. */
const trulyEncoded = 6;
const longEnough = 440;

export interface Workspace {
  readonly dir: string;
  readonly files: readonly string[];
}

/** This repository's sources, in as many folders as it takes; files of at most `perFile` tokens, about. */
export function writeWorkspace(dir: string, tokens: number, perFile: number): Workspace {
  const names = execFileSync('git', ['ls-files', '-z', 'extension', 'native', 'kernels', 'webview', 'test', 'bench'], { encoding: 'utf8', maxBuffer: 1 << 26 });
  const sources = names.split('\0').filter((file) => /\.(ts|mjs|cpp|h)$/.test(file));
  const files: string[] = [];
  let left = tokens * bytesPerToken;
  // A file that was written a moment ago may be written again and look the same: it would be read again when the engine starts.
  const before = Date.now() / 1000 - 3600;
  for (let round = 0; left > 0; round++) {
    for (const source of sources) {
      for (const [i, text] of parts(readFileSync(source, 'utf8'), perFile * bytesPerToken).entries()) {
        if (left <= 0) return { dir, files };
        const { name, ext } = path.parse(source);
        const file = path.join(`part${round}`, path.dirname(source), i === 0 ? `${name}${ext}` : `${name}-${i}${ext}`);
        mkdirSync(path.dirname(path.join(dir, file)), { recursive: true });
        writeFileSync(path.join(dir, file), text);
        utimesSync(path.join(dir, file), before, before);
        files.push(file);
        left -= text.length;
      }
    }
  }
  return { dir, files };
}

/** A text cut at ends of lines. */
function parts(text: string, most: number): string[] {
  const found: string[] = [];
  for (let begin = 0; begin < text.length; ) {
    const newline = text.indexOf('\n', begin + most);
    const end = newline < 0 ? text.length : newline + 1;
    found.push(text.slice(begin, end));
    begin = end;
  }
  return found;
}

export interface Filled {
  readonly segments: number;
  readonly tokens: number;
  /** Of keys, values and compressed keys: the blocks themselves. */
  readonly image_bytes: number;
}

/** Reads a workspace into the store folder `store` without running the model. `fill`: the program of bench/fill_store.cpp. */
export async function fillStore(workspace: Workspace, store: string, modelDir: string, fill: string): Promise<Filled> {
  const core = await Core.load({ modelDir, store, activations: 'int8', maxDiskBytes: 2 ** 40, maxMemoryBytes: 16 * 2 ** 30, onProgress: () => {}, log: (line) => console.error(line) });
  const { native } = core;
  const wanted = new Map<string, SegmentInput>();
  const encode = native.encodeSegments.bind(native);
  let nTrue = 0;
  let handle = -1;
  // All others are told to be where the last one is that was run: a reading of them is not asked for.
  const instead = async (segments: readonly SegmentInput[]): Promise<EncodeResult> => {
    for (const segment of segments) {
      wanted.set(segment.key, segment);
      if (handle >= 0 && (nTrue >= trulyEncoded || segment.tokens.length < longEnough)) continue;
      const { handles } = await encode([segment], 'ingest').done;
      handle = handles[0]!;
      nTrue++;
    }
    return { handles: Int32Array.from(segments, () => handle), encodedTokens: 0, seconds: 0 };
  };
  replaceEncode(native, (segments): Job<EncodeResult> => ({ done: instead(segments), cancel: () => {} }));
  const session = core.createSession({ kind: 'cli', notify: () => {} });
  await session.open({ roots: [{ path: workspace.dir, name: 'workspace' }], trusted: true, settings: { tokenBudget: 1e9 }, watch: 'none', ingest: true });
  await session.ingest(never);
  const { read } = core.model.sala;
  const identity = core.identity;
  await core.close();
  const list = Buffer.concat([...wanted.values()].flatMap(({ key, tokens, headerTokens }) => [Buffer.from(key, 'hex'), Buffer.from(Int32Array.of(headerTokens, tokens.length, ...tokens).buffer)]));
  const filled = spawnSync(fill, [store, identity, modelDir, String(read.layer), read.heads.join(',')], { input: list, encoding: 'utf8', maxBuffer: 1 << 20 });
  if (filled.status !== 0) throw new Error(`${fill}: ${filled.error?.message ?? filled.stderr}`);
  return JSON.parse(filled.stdout) as Filled;
}
