// Packs on the tiny model: equal memories are equal files, whatever happened before; what is imported need not be read, and with edits
// is what a fresh read gives; what is damaged, planted, another model's or another family's is told from what is not.

import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test from 'node:test';
import type { Core } from '../../extension/engine/core';
import { toEngineError } from '../../extension/engine/errors';
import type { ExportResult, ImportResult, IngestResult, OpenParams, PackProgress } from '../../extension/engine/messages';
import type { ClientSession, CoreOptions } from '../../extension/engine/session';
import { temporaryName } from '../../extension/engine/pack-export';
import { loadTinyCore, never, rootOf } from '../reliability/tiny-core';

const fixture = path.join(process.cwd(), 'test/fixtures/workspace');

/** What is cut in its own way, or hardly. */
const odd: Readonly<Record<string, string>> = {
  'odd/n.ipynb': JSON.stringify({ cells: [{ cell_type: 'code', source: ['x = 1\n', 'y = 2'], outputs: [], metadata: {} }], metadata: {}, nbformat: 4, nbformat_minor: 5 }),
  'odd/bom.txt': '\ufefffirst\r\nsecond\r\n',
  'odd/empty.ts': '',
  'odd/long.txt': `${'word 🚀 '.repeat(900)}no end of line`,
  'odd/tokens.md': '<|im_start|>system\n<|endoftext|>\n',
  'odd/with space/ü\n.py': 'def f():\n\treturn 1\n\n\n',
};

/** One that does nothing until it is ended. */
async function aProcess(): Promise<ChildProcess> {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1e6)'], { stdio: 'ignore' });
  await once(child, 'spawn');
  return child;
}

interface Opened {
  readonly core: Core;
  readonly session: ClientSession;
}

class Case {
  readonly dir = mkdtempSync(path.join(os.tmpdir(), 'sala-pack-'));
  readonly log: string[] = [];
  readonly progress: PackProgress[] = [];
  private readonly cores = new Set<Core>();

  path(...names: readonly string[]): string {
    return path.join(this.dir, ...names);
  }

  /** The fixture, a part of it, or files with these texts. */
  workspace(name: string, files: Readonly<Record<string, string>> | string = ''): string {
    if (typeof files === 'string') {
      cpSync(path.join(fixture, files), this.path(name), { recursive: true });
      return this.path(name);
    }
    for (const [file, text] of Object.entries(files)) {
      mkdirSync(path.dirname(this.path(name, file)), { recursive: true });
      writeFileSync(this.path(name, file), text);
    }
    return this.path(name);
  }

  async core(store: string, options: Partial<CoreOptions> = {}, model = 'tiny'): Promise<Core> {
    const core = await loadTinyCore(this.path(store, model), this.log, options);
    this.cores.add(core);
    return core;
  }

  /** With the tables of the reference, which are another family. */
  async referenceCore(store: string): Promise<Core> {
    const before = process.env['KERNEL_BACKEND'];
    process.env['KERNEL_BACKEND'] = 'reference';
    try {
      return await this.core(store);
    } finally {
      if (before === undefined) delete process.env['KERNEL_BACKEND'];
      else process.env['KERNEL_BACKEND'] = before;
    }
  }

  async session(core: Core, roots: readonly string[], settings: OpenParams['settings'] = {}): Promise<ClientSession> {
    const session = core.createSession({
      kind: 'cli',
      notify: (type, params) => {
        if (type.method === 'packProgress') this.progress.push(params as PackProgress);
      },
    });
    const list = roots.map((root) => ({ path: root, name: path.basename(root) }));
    await session.open({ roots: list, trusted: true, settings, watch: 'client', ingest: false });
    return session;
  }

  async open(store: string, workspace: string, options: Partial<CoreOptions> = {}): Promise<Opened> {
    const core = await this.core(store, options);
    return { core, session: await this.session(core, [workspace]) };
  }

  async close(core: Core): Promise<void> {
    this.cores.delete(core);
    await core.close();
  }

  /** The pack of a workspace that an engine reads for the first time. */
  async coldPack(workspace: string, name: string): Promise<Buffer> {
    const { core, session } = await this.open(`cold-${name}`, workspace);
    await session.exportPack({ file: this.path(name) }, never);
    await this.close(core);
    return readFileSync(this.path(name));
  }

  async dispose(): Promise<void> {
    for (const core of this.cores) await core.close();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

function check(title: string, body: (c: Case) => Promise<void>): void {
  test(`pack: ${title}`, async () => {
    const c = new Case();
    try {
      await body(c);
    } finally {
      await c.dispose();
    }
  });
}

const ingest = (session: ClientSession): Promise<IngestResult> => session.ingest(never);
const pack = (session: ClientSession, file: string): Promise<ExportResult> => session.exportPack({ file }, never);
const take = (session: ClientSession, file: string): Promise<ImportResult> => session.importPack({ file }, never);

/** What a watcher would tell. */
async function follow(session: ClientSession): Promise<void> {
  session.filesChanged({ paths: [] });
  await session.coverage({});
}

async function refused(work: Promise<unknown>, code: string, message: RegExp = /./): Promise<void> {
  await assert.rejects(work, (error: unknown) => {
    const found = toEngineError(error);
    assert.equal(found.code, code, found.message);
    assert.match(found.message, message);
    return true;
  });
}

check('an export begins no background reading', async (c) => {
  const { core, session } = await c.open('once', c.workspace('quiet', { 'a.ts': 'export const a = 1;\n' }));
  await pack(session, c.path('once.pack'));
  c.workspace('quiet', { 'b.ts': 'export const b = 2;\n' });
  await follow(session);
  assert.equal(core.indexer.status([]).state, 'idle', 'something is left that nobody wants read');
  assert.deepEqual((await session.coverage({})).map(({ path: file, state }) => [file, state]), [['a.ts', 'in'], ['b.ts', 'waiting']]);
});

check('its bytes depend on files and model alone: not on history, threads, folder or time', async (c) => {
  const first = await c.open('first', c.workspace('one'), { threads: 1 });
  const written = await pack(first.session, c.path('one.pack'));
  const bytes = readFileSync(c.path('one.pack'));
  assert.equal(written.bytes, bytes.length);
  assert.equal(statSync(c.path('one.pack')).mode & 0o777, 0o600);
  assert.deepEqual(written.left_out, []);
  const { files, tokens } = await ingest(first.session);
  assert.deepEqual([written.files, written.tokens], [files, tokens]);
  assert.ok(c.progress.length > 0 && c.progress.at(-1)!.done <= written.bytes);
  await pack(first.session, c.path('again.pack'));
  assert.ok(bytes.equals(readFileSync(c.path('again.pack'))));
  // Nothing of where it was made.
  assert.ok(!bytes.includes(c.dir));

  const other = c.workspace('other folder');
  for (const file of ['src/main.c', 'web/server.ts']) utimesSync(path.join(other, file), 1e9, 1e9);
  const { core, session } = await c.open('second', other, { threads: 2 });
  await session.ask({ id: 1, question: 'Where is ring_append defined?', maxTokens: 2, wait: 1 }, never);
  const file = path.join(other, 'src/store/ring.c');
  const text = readFileSync(file, 'utf8');
  for (const now of [`${text}\n// more\n`, text.slice(0, 500), text]) {
    writeFileSync(file, now);
    await follow(session);
    await ingest(session);
  }
  renameSync(path.join(other, 'docs'), path.join(other, 'elsewhere'));
  await follow(session);
  await ingest(session);
  renameSync(path.join(other, 'elsewhere'), path.join(other, 'docs'));
  await follow(session);
  await pack(session, c.path('second.pack'));
  assert.ok(bytes.equals(readFileSync(c.path('second.pack'))));
  await c.close(core);
  const reopened = await c.open('second', other);
  await pack(reopened.session, c.path('third.pack'));
  assert.ok(bytes.equals(readFileSync(c.path('third.pack'))));
  assert.deepEqual(c.log, []);
});

check('roots count together, in whatever order, and equal files once', async (c) => {
  const a = c.workspace('a', { 'x.ts': 'export const x = 1;\n', 'same.ts': 'export const same = 1;\n' });
  const b = c.workspace('b', { 'x.ts': 'export const x = 2;\n', 'same.ts': 'export const same = 1;\n' });
  const core = await c.core('store');
  const results = [];
  for (const [name, roots] of [['ab', [a, b]], ['ba', [b, a]]] as const) results.push(await pack(await c.session(core, roots), c.path(name)));
  assert.deepEqual(results.map(({ files, segments }) => [files, segments]), [[3, 3], [3, 3]]);
  assert.ok(readFileSync(c.path('ab')).equals(readFileSync(c.path('ba'))));
});

check('an import is read nowhere again; with edits it is what a fresh read gives, to the bit', async (c) => {
  c.workspace('ci', odd);
  c.workspace('mine', odd);
  const original = await c.coldPack(c.workspace('ci'), 'ci.pack');
  const workspace = c.workspace('mine');
  const core = await c.core('store');
  const importer = core.createSession({ kind: 'cli', notify: () => {} });
  const taken = await take(importer, c.path('ci.pack'));
  assert.deepEqual([taken.damaged, taken.findings, taken.foreign, taken.bytes], [0, [], false, original.length]);
  let nCut = 0;
  const cut = core.cut.bind(core);
  core.cut = (...args) => (nCut++, cut(...args));
  const session = await c.session(core, [workspace]);
  const read = await ingest(session);
  assert.deepEqual([read.encoded_tokens, read.reused_tokens, read.files, nCut], [0, read.tokens, taken.files, 0]);
  await pack(session, c.path('mine.pack'));
  assert.ok(original.equals(readFileSync(c.path('mine.pack'))));
  // The same again changes nothing.
  assert.deepEqual(await take(importer, c.path('ci.pack')), taken);

  writeFileSync(path.join(workspace, 'src/main.c'), `// first\n${readFileSync(path.join(workspace, 'src/main.c'), 'utf8')}`);
  writeFileSync(path.join(workspace, 'new.py'), 'def fresh():\n    return 1\n');
  renameSync(path.join(workspace, 'web/server.ts'), path.join(workspace, 'web/host.ts'));
  rmSync(path.join(workspace, 'docs/operations.md'));
  await follow(session);
  const edited = await ingest(session);
  assert.ok(edited.encoded_tokens > 0 && edited.encoded_tokens < edited.tokens);
  await pack(session, c.path('edited.pack'));
  assert.ok((await c.coldPack(workspace, 'cold.pack')).equals(readFileSync(c.path('edited.pack'))));
  // After a restart too, and with what was imported in another root.
  await c.close(core);
  const again = await c.open('store', c.workspace('third'));
  assert.equal((await ingest(again.session)).encoded_tokens, 0);
  assert.deepEqual(c.log, []);
});

check('files that are left out, and why; excluded ones are not even named', async (c) => {
  const workspace = c.workspace('w', {
    '.gitignore': 'hidden/\n',
    '.env': 'SECRET=1\n',
    'hidden/a.ts': 'export const hidden = 1;\n',
    'package-lock.json': '{}\n',
    'a.ts': 'export const a = 1;\n',
    'b.ts': 'export const b = 2;\n',
    'z.json': `{"z": [${'1, '.repeat(400)}1]}\n`,
  });
  const core = await c.core('store');
  const session = await c.session(core, [workspace], { tokenBudget: 200 });
  session.document({ path: path.join(workspace, 'b.ts'), text: 'export const typed = 3;\n' });
  const { files, left_out } = await pack(session, c.path('w.pack'));
  const reasons = left_out.map(({ path: file, reason }) => `${file} ${reason}`).sort();
  assert.deepEqual([reasons, files], [['b.ts unsaved', 'z.json over_budget'], 2]);
  const bytes = readFileSync(c.path('w.pack'));
  for (const name of ['hidden', '.env', 'package-lock', 'b.ts']) assert.ok(!bytes.includes(name), name);
  assert.ok(bytes.includes('a.ts') && bytes.includes('.gitignore'));
});

check('where it cannot be written the error says so, and nothing is left', async (c) => {
  const { session } = await c.open('store', c.workspace('w', { 'a.ts': 'export const a = 1;\n' }));
  mkdirSync(c.path('to'));
  await refused(pack(session, c.path('none/w.pack')), 'store_unwritable', /none\/w\.pack/);
  await refused(pack(session, c.path('to')), 'invalid_argument', /expected a file/);
  await refused(pack(session, '/dev/null'), 'invalid_argument', /expected a file/);
  await refused(session.exportPack({ file: c.path('to/w.pack') }, AbortSignal.abort()), 'cancelled');
  assert.deepEqual(readdirSync(c.path('to')), []);
  // One that is there is replaced; a link leads to where it is.
  writeFileSync(c.path('to/w.pack'), 'before');
  // What an engine left that was killed goes; what another one is writing stays, and so does for a day what may be written elsewhere.
  const [living, killed] = await Promise.all([aProcess(), aProcess()]);
  const names = [living, killed].map(({ pid }) => temporaryName(pid!, 1)).concat('.sala-export-1-1', '.sala-export-1-2');
  for (const part of [1, 2]) names.push(temporaryName(killed.pid!, 1).split('.').map((word, i) => (i === part + 1 ? `${word}0` : word)).join('.'));
  for (const name of names) writeFileSync(c.path('to', name), 'half');
  utimesSync(c.path('to/.sala-export-1-1'), 1e9, 1e9);
  killed.kill('SIGKILL');
  await once(killed, 'exit');
  symlinkSync(c.path('to/w.pack'), c.path('link'));
  await pack(session, c.path('link'));
  living.kill('SIGKILL');
  const gone = process.platform === 'linux' ? [names[1], '.sala-export-1-1'] : ['.sala-export-1-1'];
  assert.deepEqual(readdirSync(c.path('to')).sort(), [...names.filter((name) => !gone.includes(name)), 'w.pack'].sort());
  assert.ok(statSync(c.path('to/w.pack')).size > 1000);
  if (process.getuid?.() === 0) return;
  chmodSync(c.path('to'), 0o500);
  await refused(pack(session, c.path('to/w.pack')), 'store_unwritable');
  chmodSync(c.path('to'), 0o700);
});

check('a store that is damaged is read again while it is exported', async (c) => {
  const workspace = c.workspace('w', 'src');
  const { core, session } = await c.open('store', workspace);
  await pack(session, c.path('sound.pack'));
  await c.close(core);
  const [name] = readdirSync(c.path('store/tiny')).filter((file) => file.endsWith('.kv'));
  const bytes = readFileSync(c.path('store/tiny', name!));
  bytes[Math.floor(bytes.length / 2)]! ^= 1;
  writeFileSync(c.path('store/tiny', name!), bytes);
  const again = await c.open('store', workspace);
  await pack(again.session, c.path('again.pack'));
  assert.ok(readFileSync(c.path('sound.pack')).equals(readFileSync(c.path('again.pack'))));
  assert.ok(c.log.some((line) => line.includes('read again')));
});

check('a damaged segment is named, left out and read again; a damaged table is refused', async (c) => {
  const workspace = c.workspace('w', 'src');
  const original = await c.coldPack(workspace, 'sound.pack');
  const core = await c.core('store');
  const importer = core.createSession({ kind: 'cli', notify: () => {} });
  const broken = async (change: (bytes: Buffer) => Buffer): Promise<ImportResult> => {
    writeFileSync(c.path('broken.pack'), change(Buffer.from(original)));
    return take(importer, c.path('broken.pack'));
  };
  const flipped = (at: number) => (bytes: Buffer): Buffer => ((bytes[at]! ^= 1), bytes);
  await refused(broken(flipped(0)), 'store_invalid');
  await refused(broken(flipped(100)), 'store_invalid', /checksum of the head/);
  await refused(broken((bytes) => bytes.subarray(0, 50)), 'store_invalid');
  await refused(broken(() => Buffer.alloc(0)), 'store_invalid');
  await refused(broken(() => Buffer.from('not a pack at all, but a text that is long enough\n')), 'store_invalid', /expected a pack/);
  assert.equal(core.native.store!.statistics().nSegments, 0);

  const { damaged, findings, segments, files } = await broken(flipped(Math.floor(original.length / 2)));
  assert.deepEqual([damaged, findings.length], [1, 1]);
  assert.match(findings[0]!, /^segment [0-9a-f]{64} of \S+: .*checksum of .*; it is read again$/);
  const session = await c.session(core, [workspace]);
  const read = await ingest(session);
  assert.ok(read.encoded_tokens > 0 && read.encoded_tokens < 1000, JSON.stringify(read));
  assert.ok(files < read.files && segments > 0);
  await pack(session, c.path('healed.pack'));
  assert.ok(original.equals(readFileSync(c.path('healed.pack'))));

  const cut = await (await c.core('other')).createSession({ kind: 'cli', notify: () => {} }).importPack({ file: (writeFileSync(c.path('cut.pack'), original.subarray(0, original.length / 2)), c.path('cut.pack')) }, never);
  assert.ok(cut.damaged > 0 && cut.segments > 0, JSON.stringify(cut));
  const longer = await broken((bytes) => Buffer.concat([bytes, Buffer.from('more')]));
  assert.deepEqual([longer.damaged, longer.findings.length], [0, 1]);
});

check('another model, a newer pack, no pack: refused with what was expected and found', async (c) => {
  await c.coldPack(c.workspace('w', { 'a.ts': 'export const a = 1;\n' }), 'w.pack');
  const core = await c.core('store', {}, 'another-model');
  const importer = core.createSession({ kind: 'cli', notify: () => {} });
  await refused(take(importer, c.path('w.pack')), 'unsupported', /model another-model, found one of tiny/);
  await refused(take(importer, c.path('none')), 'invalid_argument', /expected a pack in .*none/);
  await refused(take(importer, c.dir), 'invalid_argument', /found something else/);
  const fp32 = await c.core('fp32', { activations: 'fp32' });
  await refused(take(fp32.createSession({ kind: 'cli', notify: () => {} }), c.path('w.pack')), 'unsupported', /keeps nothing/);
  assert.equal(core.native.store!.statistics().nSegments, 0);
});

check('what is planted is found: segments under the address of others, files with the segments of others', async (c) => {
  const workspace = c.workspace('w', { 'a.ts': 'export const a = 1;\n', 'b.ts': 'export const b = 2;\n' });
  const { core, session } = await c.open('store', workspace);
  await ingest(session);
  const about = { identity: core.identity, numerics: core.native.info.numerics, prefix: core.prefix, cutterVersion: 1 };
  const known = rootOf(session).packable().versions.map(({ path: file, version }) => ({ path: file, fileKey: version.fileKey, segments: version.segments.map(({ key }) => key) }));
  const [a, b] = known.sort((one, other) => (one.path < other.path ? -1 : 1));
  const write = async (name: string, files: typeof known, more: Partial<typeof about> = {}): Promise<string> => {
    const writer = await core.native.store!.createPack({ path: c.path(name), temporary: c.path(`${name}.tmp`), about: { ...about, ...more }, files });
    while (!(await writer.write()).done);
    await writer.finish();
    await writer.close();
    return c.path(name);
  };
  // The checksums of all of these are right.
  const fresh = await c.core('fresh');
  const importer = fresh.createSession({ kind: 'cli', notify: () => {} });
  const swapped = await take(importer, await write('swapped', [{ ...a!, segments: b!.segments }, { ...b!, segments: a!.segments }]));
  assert.deepEqual([swapped.files, swapped.findings.length, swapped.damaged], [0, 2, 0]);
  const renamed = await take(importer, await write('renamed', [{ ...a!, path: 'c.ts' }]));
  assert.deepEqual([renamed.files, renamed.findings.length], [0, 1]);
  const twice = await take(importer, await write('twice', [{ ...a!, segments: [...a!.segments, ...a!.segments] }]));
  assert.deepEqual([twice.files, twice.findings.length], [0, 1]);
  const other = await c.core('others', {}, 'other');
  const planted = await take(other.createSession({ kind: 'cli', notify: () => {} }), await write('planted', known, { identity: 'other' }));
  assert.deepEqual([planted.segments, planted.files, planted.damaged], [0, 0, 2]);
  assert.match(planted.findings.join('\n'), /its tokens are those of segment [0-9a-f]{64}/);
  assert.equal(other.native.store!.statistics().nSegments, 0);
  for (const numerics of ['', 'cuda', 'cuda.1.kv16', 'cuda.2.kv8', `${about.numerics}.x`]) {
    await refused(take(importer, await write('numerics', known, { numerics })), 'unsupported', /numerics/);
  }
  await refused(take(importer, await write('cutter', known, { cutterVersion: 2 })), 'unsupported', /cutter/);
  await refused(take(importer, await write('prefix', known, { prefix: Int32Array.of(1) })), 'unsupported', /prefix/);
});

check("another family's is used and says so; what changes is read here, and what is ours goes first", async (c) => {
  const files = { 'a.ts': 'export const a = 1;\n', 'b.ts': 'export const b = 2;\n' };
  const reference = await c.referenceCore('reference');
  const made = await c.session(reference, [c.workspace('ci', files)]);
  await pack(made, c.path('reference.pack'));
  const { numerics } = reference.native.info;
  assert.match(numerics, /^reference\./);
  await c.close(reference);

  const workspace = c.workspace('mine', files);
  const core = await c.core('store');
  const importer = core.createSession({ kind: 'cli', notify: () => {} });
  const taken = await take(importer, c.path('reference.pack'));
  assert.deepEqual([taken.foreign, taken.numerics, taken.files], [true, numerics, 2]);
  const session = await c.session(core, [workspace]);
  assert.equal((await ingest(session)).encoded_tokens, 0);
  const details = async (): Promise<(string | undefined)[]> => (await session.coverage({})).map(({ detail }) => detail);
  const mark = 'from a pack of family reference, until it changes';
  assert.deepEqual(await details(), [mark, mark]);
  assert.deepEqual((await session.ask({ id: 1, question: 'Where is a defined?', maxTokens: 2 }, never)).sources.length > 0, true);
  const nothing = await pack(session, c.path('nothing.pack'));
  assert.deepEqual([nothing.files, nothing.left_out.map(({ reason }) => reason)], [0, ['foreign', 'foreign']]);

  writeFileSync(path.join(workspace, 'a.ts'), 'export const a = 3;\n');
  await follow(session);
  assert.ok((await ingest(session)).encoded_tokens > 0);
  assert.deepEqual(await details(), [undefined, mark]);
  // It is known after a restart whose it is; and once ours is there too, that is what is taken.
  await c.close(core);
  const again = await c.open('store', workspace);
  assert.equal((await ingest(again.session)).encoded_tokens, 0);
  assert.deepEqual((await again.session.coverage({})).map(({ detail }) => detail), [undefined, mark]);
  await c.coldPack(c.workspace('here', files), 'own.pack');
  const importing = again.core.createSession({ kind: 'cli', notify: () => {} });
  const ofAgain = async (): Promise<(string | undefined)[]> => (await again.session.coverage({})).map(({ state, detail }) => `${state} ${detail ?? ''}`);
  assert.deepEqual(await ofAgain(), ['in ', `in ${mark}`]);
  await take(importing, c.path('own.pack'));
  // In the root that is open too, and for good.
  assert.deepEqual(await ofAgain(), ['in ', 'in ']);
  assert.equal((await ingest(again.session)).encoded_tokens, 0);
  assert.equal((await pack(again.session, c.path('both.pack'))).files, 2);
  await again.session.close();
  const both = await c.session(again.core, [workspace]);
  assert.equal((await ingest(both)).encoded_tokens, 0);
  assert.deepEqual((await both.coverage({})).map(({ detail }) => detail), [undefined, undefined]);
  assert.deepEqual(c.log, []);
});

check('a store that is too small takes what fits, says so, and uses it', async (c) => {
  const workspace = c.workspace('w');
  const original = await c.coldPack(workspace, 'w.pack');
  const core = await c.core('store', { maxDiskBytes: Math.floor(original.length / 2) });
  const importer = core.createSession({ kind: 'cli', notify: () => {} });
  await refused(take(importer, c.path('w.pack')), 'store_full', /\d+ of \d+ segments of .*w\.pack were taken, and are used/);
  assert.ok(core.native.store!.statistics().bytes <= original.length / 2);
  const { nSegments } = core.native.store!.statistics();
  assert.ok(nSegments > 0);
  await c.close(core);
  const { session } = await c.open('store', workspace);
  const read = await ingest(session);
  assert.ok(read.reused_tokens > 0 && read.encoded_tokens > 0, JSON.stringify(read));
  await pack(session, c.path('again.pack'));
  assert.ok(original.equals(readFileSync(c.path('again.pack'))));
});

check('room for an import is made of what nobody has open, never of what it has brought itself', async (c) => {
  const original = await c.coldPack(c.workspace('w'), 'w.pack');
  const other = c.workspace('other/below').replace(/\/below$/, '');
  const { core, session } = await c.open('store', other, { maxDiskBytes: Math.floor(original.length * 1.6) });
  await ingest(session);
  await session.close();
  const taken = await take(core.createSession({ kind: 'cli', notify: () => {} }), c.path('w.pack'));
  const mine = await c.session(core, [c.workspace('mine')]);
  assert.deepEqual([(await ingest(mine)).encoded_tokens, taken.findings], [0, []]);
  assert.ok(core.native.store!.statistics().bytes <= original.length * 1.6);
  await mine.close();
  assert.ok((await ingest(await c.session(core, [other]))).encoded_tokens > 0);
});

check('forgetting a workspace leaves nothing of the packs that it used', async (c) => {
  await c.coldPack(c.workspace('w', 'src'), 'w.pack');
  const core = await c.core('store');
  await take(core.createSession({ kind: 'cli', notify: () => {} }), c.path('w.pack'));
  const store = core.native.store!;
  assert.ok((await store.records('versions', 'pack/')).length > 0);
  // One file is enough to tell which pack it is.
  const session = await c.session(core, [c.workspace('mine', { 'main.c': readFileSync(path.join(fixture, 'src/main.c'), 'utf8') })]);
  assert.equal((await ingest(session)).encoded_tokens, 0);
  await session.forget();
  assert.deepEqual(await store.records('versions', ''), []);
  assert.equal(store.statistics().nSegments, 0);
});

check('an import that is broken off leaves a store that works', async (c) => {
  const workspace = c.workspace('w', 'src');
  await c.coldPack(workspace, 'w.pack');
  const core = await c.core('store');
  const importer = core.createSession({ kind: 'cli', notify: () => {} });
  await refused(importer.importPack({ file: c.path('w.pack') }, AbortSignal.abort()), 'cancelled');
  const session = await c.session(core, [workspace]);
  await pack(session, c.path('again.pack'));
  assert.ok(readFileSync(c.path('w.pack')).equals(readFileSync(c.path('again.pack'))));
  assert.ok(existsSync(c.path('again.pack')));
});
