// Whatever happened before, memory equals that of a fresh read: random edits of a workspace while an engine follows them, with
// restarts, unsaved documents and reading under way, compared after every batch with an engine that reads all of it for the first
// time. The model is the tiny one.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Core } from '../../extension/engine/core';
import type { FileCoverage } from '../../extension/engine/messages';
import type { ClientSession } from '../../extension/engine/session';
import { VolatileFiles } from '../../extension/engine/workspace/watch';
import { EditedWorkspace } from './edited-workspace';
import { Random } from './random';
import { filesOf, loadTinyCore, never, numbersAreTrue, rootOf, setVolatile } from './tiny-core';

const mostEditsBetween = 400;

export interface HistoryResult {
  readonly edits: number;
  readonly comparisons: number;
  readonly restarts: number;
}

interface Follower {
  readonly core: Core;
  readonly session: ClientSession;
}

/** What memory holds of a workspace: the state of every path, where its segments lie, and what a model makes of all of them. */
interface Memory {
  readonly files: Readonly<Record<string, readonly string[]>>;
  readonly logits: readonly number[];
  readonly shares: readonly number[];
}

/** Runs one history. Throws an AssertionError where memory differs. */
export async function runHistory({ seed, edits }: { seed: number; edits: number }): Promise<HistoryResult> {
  const random = new Random(seed);
  const dir = mkdtempSync(path.join(os.tmpdir(), 'sala-history-'));
  const log: string[] = [];
  const total = { edits: 0, comparisons: 0, restarts: 0 };
  // Of the same name, since addresses depend on it; forgotten after every comparison.
  const fresh = await loadTinyCore(path.join(dir, 'fresh', 'tiny'), log);
  let follower: Follower | undefined;
  try {
    const workspace = new EditedWorkspace(path.join(dir, 'workspace'), random);
    const store = path.join(dir, 'store', 'tiny');
    follower = await follow(workspace.dir, store, random, log);
    while (total.edits < edits) {
      const batch = Math.min(edits - total.edits, 1 + random.below(mostEditsBetween));
      const reading = await editWhileReading(workspace, follower.session, random, batch);
      total.edits += batch;
      await reading;
      const shadowed = unsaved(follower.session, random);
      const memory = await memoryOf(follower);
      const cold = { core: fresh, session: await open(fresh, workspace.dir) };
      for (const [file, text] of shadowed) cold.session.document({ path: file, text });
      const expected = await memoryOf(cold);
      const isSamePack = (await packOf(follower, path.join(dir, 'pack'))).equals(await packOf(cold, path.join(dir, 'cold-pack')));
      await cold.session.forget();
      await cold.session.close();
      const different = differences(memory, expected);
      assert.ok(different.length === 0, `after ${total.edits} edits: ${different.join('\n')}`);
      assert.ok(isSamePack, `after ${total.edits} edits: equal memories, other packs`);
      total.comparisons++;
      for (const [file] of shadowed) follower.session.document({ path: file, text: null });
      if (random.once(3)) {
        follower = await restart(follower, workspace, store, random, log);
        total.restarts++;
      }
    }
    assert.deepEqual(log, []);
    rmSync(dir, { recursive: true });
    return total;
  } catch (error) {
    console.log(`kept for a look: ${dir}`);
    throw error;
  } finally {
    await follower?.core.close();
    await fresh.close();
  }
}

async function open(core: Core, workspace: string): Promise<ClientSession> {
  const session = core.createSession({ kind: 'cli', notify: () => {} });
  await session.open({ roots: [{ path: workspace, name: 'workspace' }], trusted: true, settings: {}, watch: 'client', ingest: false });
  return session;
}

async function follow(workspace: string, store: string, random: Random, log: string[]): Promise<Follower> {
  return followWith(await loadTinyCore(store, log), workspace, random);
}

/** Few changes are too many for it: files are set aside and taken back on slow machines too. */
async function followWith(core: Core, workspace: string, random: Random): Promise<Follower> {
  const session = await open(core, workspace);
  setVolatile(session, new VolatileFiles(2 + random.below(6)));
  return { core, session };
}

/** Another window, or another process; sometimes files change while nobody looks. */
async function restart({ core, session }: Follower, workspace: EditedWorkspace, store: string, random: Random, log: string[]): Promise<Follower> {
  if (random.once(2)) {
    await session.close();
    if (random.once(2)) workspace.edit();
    return followWith(core, workspace.dir, random);
  }
  await core.close();
  if (random.once(2)) workspace.edit();
  return follow(workspace.dir, store, random, log);
}

/** A batch of edits, told as a watcher tells them: one by one, some together, or "look at everything"; reading may go on meanwhile. */
async function editWhileReading(workspace: EditedWorkspace, session: ClientSession, random: Random, n: number): Promise<Promise<unknown>> {
  const style = random.below(4);
  const reads = random.once(2);
  let reading: Promise<unknown> = Promise.resolve();
  let looking: Promise<unknown> = Promise.resolve();
  let waiting: string[] = [];
  for (let i = 0; i < n; i++) {
    waiting.push(...workspace.edit());
    if (style === 0 || (style === 1 && random.once(5)) || i === n - 1) {
      // Where events were dropped all is looked at, and what is told meanwhile is looked at beside it.
      if (random.once(4)) session.filesChanged({ paths: [] });
      // One at leisure sees much of what is over by the time that it takes note.
      if (random.once(6)) looking = looking.then(() => lookAround(session));
      session.filesChanged({ paths: style === 2 ? [] : waiting });
      waiting = [];
    }
    if (reads && random.once(20)) {
      await reading;
      reading = session.ingest(never);
      if (random.once(2)) await new Promise((resolve) => setTimeout(resolve, random.below(30)));
    }
  }
  return Promise.all([reading, looking]);
}

/** As it comes by itself: whoever reads hears of what it has found. */
function lookAround(session: ClientSession): Promise<void> {
  const { core } = session as unknown as Follower;
  return core.indexer.look(() => rootOf(session).lookAround());
}

/** Some documents have text that nobody has saved. */
function unsaved(session: ClientSession, random: Random): Map<string, string> {
  const texts = new Map<string, string>();
  const files = rootOf(session).records;
  while (files.size > 0 && random.once(3)) {
    const file = path.join(rootOf(session).dir, random.pick([...files.keys()].sort()));
    texts.set(file, `typed ${random.below(1000)}\n`.repeat(1 + random.below(50)));
  }
  for (const [file, text] of texts) session.document({ path: file, text });
  return texts;
}

/** By path, for a reader; empty where nothing is. */
function differences(memory: Memory, expected: Memory): string[] {
  const paths = [...new Set([...Object.keys(memory.files), ...Object.keys(expected.files)])].sort();
  const different = paths.filter((file) => String(memory.files[file]) !== String(expected.files[file]));
  if (different.length > 0) return different.map((file) => `${file}: followed ${memory.files[file]?.slice(0, 3).join(', ')}; read now ${expected.files[file]?.slice(0, 3).join(', ')}`);
  return String(memory.logits) === String(expected.logits) && String(memory.shares) === String(expected.shares) ? [] : ['equal segments with other bits'];
}

async function memoryOf({ core, session }: Follower): Promise<Memory> {
  // Twice, because nobody tells of a change through another hard link: the second look finds what was not read yet at the first.
  for (let i = 0; i < 2; i++) {
    await session.coverage({});
    await session.ingest(never);
  }
  numbersAreTrue(session);
  const root = rootOf(session);
  const states = new Map(filesOf(root).map((file: FileCoverage) => [file.path, `${file.state} ${file.rule ?? ''} ${file.tokens}`]));
  const files: Record<string, string[]> = {};
  const keys = new Set<string>();
  for (const [file, state] of [...states].sort()) {
    const record = root.records.get(file);
    const segments = record === undefined ? [] : root.readable(record);
    files[file] = [state, ...segments.map((s) => `${s.key} ${s.startByte}-${s.endByte} ${s.startLine}-${s.endLine} ${s.nTokens}`)];
    for (const { key } of segments) keys.add(key);
  }
  const handles = Int32Array.from([...keys].sort(), (key) => core.memory.handleOf(key) ?? assert.fail(`${key} is in memory`));
  return { files, ...(await bitsOf(core, handles)) };
}

/** The memory as a file: what is in it of every block, byte for byte. */
async function packOf({ session }: Follower, file: string): Promise<Buffer> {
  await session.exportPack({ file }, never);
  return readFileSync(file);
}

/** What attention makes of segments: equal where every bit of their blocks is. */
async function bitsOf(core: Core, segments: Int32Array): Promise<Pick<Memory, 'logits' | 'shares'>> {
  const { native, model } = core;
  const tokens = core.tokenizer.encodeText('where is name1 = f2?');
  const { layer, heads } = model.sala.read;
  const shares = await native.read({ tail: tokens, span: [0, tokens.length], segments, layer, heads, startsFrom: 'empty', priority: 'prefill' }).done;
  const tail = native.createTail({ view: segments, startsFrom: 'empty', maxTokens: 64 });
  try {
    const { logits } = await native.prefill(tail, tokens, { priority: 'prefill', logits: 1 }).done;
    return { logits: [...logits], shares: [...shares] };
  } finally {
    native.releaseTail(tail);
  }
}
