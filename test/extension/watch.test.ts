// The watcher on real folders: bursts become one change, nothing excluded is watched, limits lead to polling and back, roots come and go.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { appendFileSync, mkdirSync, mkdtempSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { look, walk } from '../../extension/engine/workspace/walk';
import { VolatileFiles, watchRoot, type RootWatch, type WatchOptions } from '../../extension/engine/workspace/watch';

/** A client as the engine is one: it looks where it is told to, and knows the files. */
class Client {
  readonly files = new Map<string, number>();
  folders: ReadonlySet<string> = new Set();
  readonly changes: (readonly string[])[] = [];
  readonly polling: (string | undefined)[] = [];
  readonly rootStates: string[] = [];
  watch: RootWatch | undefined;
  constructor(readonly root: string) {}

  async start(more: Partial<WatchOptions> = {}): Promise<RootWatch> {
    await this.scan();
    this.watch = await watchRoot({
      root: this.root,
      folders: () => this.folders,
      onChange: (paths) => this.changed(paths),
      onPolling: (reason) => void this.polling.push(reason),
      onRoot: (state) => void this.rootStates.push(state),
      debounceMs: 60,
      maxDelayMs: 500,
      heartbeatMs: 100,
      ...more,
    });
    // The look at everything that closes the gap.
    await until(() => this.changes.length > 0);
    this.changes.length = 0;
    return this.watch;
  }

  private async scan(): Promise<void> {
    const found = await walk({ root: this.root });
    this.files.clear();
    for (const { path, mtimeMs } of found.files) this.files.set(path, mtimeMs);
    this.folders = new Set(found.folders);
  }

  private async changed(paths: readonly string[]): Promise<void> {
    this.changes.push(paths);
    if (paths.length === 0) {
      await this.scan().catch((error: { code?: string }) => assert.equal(error.code, 'not_a_workspace'));
      return;
    }
    const found = await look({ root: this.root }, paths);
    const looked = (path: string): boolean => found.looked.some((top) => path === top || path.startsWith(`${top}/`));
    for (const path of this.files.keys()) if (looked(path)) this.files.delete(path);
    for (const { path, mtimeMs } of found.files) this.files.set(path, mtimeMs);
    this.folders = new Set([...[...this.folders].filter((folder) => !looked(folder)), ...found.folders]);
  }

  /** Waits until what is known is what is there. */
  async settled(): Promise<void> {
    const expected = async (): Promise<string> => JSON.stringify((await walk({ root: this.root })).files.map(({ path, mtimeMs }) => [path, mtimeMs]));
    const known = (): string => JSON.stringify([...this.files].sort(([a], [b]) => (a < b ? -1 : 1)));
    const end = performance.now() + 30_000;
    while ((await expected()) !== known()) {
      assert.ok(performance.now() < end, `known: ${known()}\nthere: ${await expected()}`);
      await sleep(20);
    }
  }
}

async function until(condition: () => boolean, ms = 30_000): Promise<void> {
  const end = performance.now() + ms;
  while (!condition()) {
    assert.ok(performance.now() < end, `waited ${ms} ms for ${condition}`);
    await sleep(10);
  }
}

function write(root: string, files: Record<string, string>): void {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
}

function folder(t: TestContext, files: Record<string, string> = {}): Client {
  const parent = realpathSync(mkdtempSync(join(tmpdir(), 'sala-watch-')));
  const client = new Client(join(parent, 'w'));
  mkdirSync(client.root);
  write(client.root, files);
  t.after(() => {
    client.watch?.close();
    rmSync(parent, { recursive: true, force: true });
  });
  return client;
}

test('each kind of change is seen; what is excluded is not watched', async (t) => {
  const client = folder(t, { 'a.ts': '1', 'sub/b.ts': '1', 'sub/c.ts': '', 'node_modules/x/i.js': '', '.gitignore': 'out\n', 'out/o.ts': '' });
  const watch = await client.start();
  if (process.platform === 'linux') assert.equal(watch.watchCount, 2);
  const steps: (() => void)[] = [
    () => writeFileSync(join(client.root, 'a.ts'), '22'),
    () => appendFileSync(join(client.root, 'sub/b.ts'), '3'),
    () => rmSync(join(client.root, 'sub/c.ts')),
    () => write(client.root, { 'new/deep/er/d.ts': '' }),
    () => write(client.root, { 'new/deep/er/e.ts': '', 'new/f.ts': '' }),
    () => renameSync(join(client.root, 'new'), join(client.root, 'renamed')),
    () => write(client.root, { 'renamed/deep/er/g.ts': '' }),
    () => rmSync(join(client.root, 'renamed'), { recursive: true }),
  ];
  for (const step of steps) {
    step();
    await client.settled();
  }
  await sleep(200);
  client.changes.length = 0;
  write(client.root, { 'node_modules/x/j.js': '', 'out/p.ts': '' });
  await sleep(300);
  assert.deepEqual(client.changes, []);
  watch.close();
  writeFileSync(join(client.root, 'a.ts'), '333');
  await sleep(200);
  assert.deepEqual(client.changes, []);
});

test('a folder removed and made again at once is still watched, and what is below it', async (t) => {
  const client = folder(t, { 'sub/deep/a.ts': '1' });
  await client.start();
  rmSync(join(client.root, 'sub'), { recursive: true });
  write(client.root, { 'sub/deep/a.ts': '2' });
  await client.settled();
  await sleep(300);
  writeFileSync(join(client.root, 'sub/deep/a.ts'), '33');
  await client.settled();
});

test('a checkout of thousands of files is one change', async (t) => {
  const client = folder(t);
  for (let i = 0; i < 1500; i++) write(client.root, { [`d${i % 30}/f${i}.ts`]: `${i}` });
  await client.start({ debounceMs: 150 });
  for (let i = 0; i < 1500; i++) writeFileSync(join(client.root, `d${i % 30}/f${i}.ts`), `changed ${i}`);
  await client.settled();
  await sleep(300);
  assert.ok(client.changes.length <= 2, `${client.changes.length} change sets`);
});

test('a file written all the time gives a change a window, not one a write', async (t) => {
  const client = folder(t, { 'app.txt': '' });
  await client.start();
  for (let i = 0; i < 60; i++) {
    appendFileSync(join(client.root, 'app.txt'), 'line\n');
    await sleep(20);
  }
  await client.settled();
  assert.ok(client.changes.length >= 2 && client.changes.length <= 8, `${client.changes.length} change sets`);
});

test('changes during a look come in the next one, and looks do not overlap', async (t) => {
  const client = folder(t, { 'a.ts': '' });
  let running = 0;
  const seen: (readonly string[])[] = [];
  const watch = await watchRoot({
    root: client.root,
    folders: () => new Set(['']),
    debounceMs: 20,
    onChange: async (paths) => {
      assert.equal(++running, 1);
      seen.push(paths);
      await sleep(150);
      running--;
    },
  });
  t.after(() => watch.close());
  await until(() => seen.length === 1);
  for (const name of ['b.ts', 'c.ts']) {
    write(client.root, { [name]: '' });
    await sleep(100);
  }
  await until(() => seen.flat().includes('c.ts'));
  assert.ok(seen.flat().includes('b.ts'));
});

test('our own paths are not reported', async (t) => {
  const client = folder(t, { 'a.ts': '' });
  await client.start({ ignores: (path) => path.startsWith('.sala') });
  write(client.root, { '.sala-store': 'x' });
  await sleep(250);
  assert.deepEqual(client.changes, []);
});

test('a root that is renamed away is gone, and whole when it is back', async (t) => {
  const client = folder(t, { 'sub/a.ts': '1' });
  await client.start();
  // The look that follows the start is over: one under way while the root goes finds nothing there.
  await sleep(400);
  renameSync(client.root, `${client.root}-away`);
  await until(() => client.rootStates.includes('gone'));
  assert.equal(client.watch?.watchCount, 0);
  assert.ok(client.files.has('sub/a.ts'), 'the client was not told to drop anything');
  writeFileSync(join(`${client.root}-away`, 'sub/a.ts'), '22');
  renameSync(`${client.root}-away`, client.root);
  await until(() => client.rootStates.includes('back'));
  await client.settled();
  writeFileSync(join(client.root, 'sub/a.ts'), '333');
  await client.settled();
});

test('a root replaced by another of that name', async (t) => {
  const client = folder(t, { 'a.ts': '1' });
  await client.start();
  renameSync(client.root, `${client.root}-away`);
  write(client.root, { 'b.ts': '1' });
  await client.settled();
  await until(() => client.rootStates.at(-1) === 'back');
  writeFileSync(join(client.root, 'b.ts'), '22');
  await client.settled();
});

// ---- limits --------------------------------------------------------------------------------------------------------------------

/**
 * Runs a test of this file in a process whose inotify limit a script can lower and raise; null where the system does not allow
 * that (user namespaces).
 */
function underLimits(name: string, before: string): { status: number | null; output: string } | null {
  const probe = spawnSync('unshare', ['-Ur', 'sh', '-c', 'echo 50 > /proc/sys/user/max_inotify_watches']);
  if (probe.status !== 0) return null;
  const command = `${before}; exec "${process.execPath}" --test-reporter=tap --test-name-pattern='^${name}$' "${__filename}"`;
  const env: NodeJS.ProcessEnv = { ...process.env, SALA_UNDER_LIMITS: '1' };
  delete env['NODE_TEST_CONTEXT'];
  const result = spawnSync('unshare', ['-Ur', 'sh', '-c', command], { env, encoding: 'utf8', timeout: 120_000 });
  return { status: result.status, output: result.stdout + result.stderr };
}

const limited = process.env['SALA_UNDER_LIMITS'] === '1';

for (const [title, before, reason] of [
  ['fifty watches', 'echo 50 > /proc/sys/user/max_inotify_watches', /fs\.inotify\.max_user_watches/],
  ['no inotify instance', 'echo 0 > /proc/sys/user/max_inotify_instances', /fs\.inotify\.max_user_instances/],
] as const) {
  const inner = `inside ${title}`;
  if (!limited) {
    test(`with ${title} it polls, says so once, and sees every change`, (t) => {
      const result = underLimits(inner, before);
      if (!result) return t.skip('limits cannot be lowered here: no user namespaces');
      assert.equal(result.status, 0, result.output);
      assert.match(result.output, new RegExp(`ok \\d+ - ${inner}`));
    });
  } else {
    test(inner, async (t) => {
      const files: Record<string, string> = {};
      for (let i = 1; i <= 200; i++) files[`d${i}/a.ts`] = `export const w${i} = ${i};`;
      const client = folder(t, files);
      const watch = await client.start({ pollMs: 300 });
      assert.equal(client.polling.length, 1);
      assert.match(client.polling[0] ?? '', reason);
      assert.ok(watch.watchCount <= 50);
      writeFileSync(join(client.root, 'd3/a.ts'), 'changed');
      writeFileSync(join(client.root, 'd150/a.ts'), 'changed');
      write(client.root, { 'd199/b.ts': 'new' });
      rmSync(join(client.root, 'd180/a.ts'));
      await client.settled();
      await sleep(700);
      assert.equal(client.polling.length, 1, 'said once');
      if (title !== 'fifty watches') return;
      execFileSync('sh', ['-c', 'echo 5000 > /proc/sys/user/max_inotify_watches']);
      await until(() => watch.polling === undefined);
      assert.equal(watch.watchCount, 201);
      assert.equal(client.polling.at(-1), undefined);
      writeFileSync(join(client.root, 'd150/a.ts'), 'changed again');
      await client.settled();
    });
  }
}

// ---- volatile ------------------------------------------------------------------------------------------------------------------

test('files that change all the time are set aside until they rest', () => {
  const volatile = new VolatileFiles(5, 10_000, 60_000);
  for (let i = 0; i < 4; i++) assert.equal(volatile.note('app.log', i * 1000), false);
  assert.equal(volatile.note('app.log', 4000), true);
  assert.equal(volatile.note('app.log', 5000), true);
  for (let i = 0; i < 20; i++) assert.equal(volatile.note('slow.ts', i * 3000), false, 'now and then is not all the time');
  assert.deepEqual(volatile.paths, ['app.log']);
  assert.deepEqual(volatile.rested(64_999), []);
  assert.equal(volatile.restsAtMs, 65_000);
  assert.deepEqual(volatile.rested(65_000), ['app.log']);
  volatile.release('app.log');
  assert.deepEqual([volatile.paths, volatile.restsAtMs], [[], undefined]);
  assert.equal(volatile.note('app.log', 65_001), false);
});

test('who changed longest ago rests first, and another change puts it off', () => {
  const volatile = new VolatileFiles(1, 10_000, 60_000);
  for (const [i, file] of ['a', 'b', 'c'].entries()) assert.equal(volatile.note(file, i), true);
  assert.equal(volatile.note('a', 3), true);
  assert.equal(volatile.restsAtMs, 60_001);
  assert.deepEqual(volatile.rested(60_002), ['b', 'c']);
  assert.deepEqual(volatile.rested(60_003), ['b', 'c', 'a']);
});
