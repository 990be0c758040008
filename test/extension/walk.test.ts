// The walk on real folders: links in circles and out of the root, odd names, what cannot be read, order, stopping, and `look`.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { comparePaths, look, outermost, readBytes, walk, type Walk } from '../../extension/engine/workspace/walk';
import { folder, write } from './folder';

const inPaths = (found: Walk): string[] => found.files.map(({ path }) => path);
const excludedAs = (found: Walk): Record<string, string> => Object.fromEntries(found.excluded.map(({ path, rule }) => [path, rule]));

test('links in circles, to nothing, and out of the root', async (t) => {
  const root = folder(t);
  write(root, { 'root/probe.ts': 'export const LOOP_PROBE = 41;\n' });
  for (const path of ['root/base1', 'root/base2', 'other']) mkdirSync(join(root, path));
  const links: Record<string, string> = {
    'root/base1/root': '../../root',
    'root/base2/root': '../../root',
    'other/root': '../root',
    self: '.',
    'dangling.ts': 'nowhere',
    outside: '/usr/include',
    'alias.ts': 'root/probe.ts',
    'circle-a': 'circle-b',
    'circle-b': 'circle-a',
  };
  for (const [path, target] of Object.entries(links)) symlinkSync(target, join(root, path));
  const found = await walk({ root });
  assert.deepEqual(inPaths(found), ['root/probe.ts']);
  const rules = excludedAs(found);
  assert.equal(rules['outside'], 'outside');
  for (const path of Object.keys(links)) if (path !== 'outside') assert.equal(rules[path], 'special', path);
  const detailOf = (path: string): string | undefined => found.excluded.find((entry) => entry.path === path)?.detail;
  assert.equal(detailOf('alias.ts'), 'a link to root/probe.ts, which counts under that path');
  assert.equal(detailOf('dangling.ts'), 'a link to nothing: nowhere');
  assert.equal(detailOf('circle-a'), 'a link in a circle: circle-b');
  assert.equal(detailOf('self'), 'a link to the root itself, which counts under that path');
  assert.deepEqual(found.folders, ['', 'other', 'root', 'root/base1', 'root/base2']);

  symlinkSync(root, `${root}-link`);
  t.after(() => rmSync(`${root}-link`));
  assert.deepEqual(await walk({ root: `${root}-link` }), found, 'opened through a link it is the same workspace');
});

test('names with odd characters, kept as they are', async (t) => {
  const root = folder(t);
  const names = ['a b.ts', 'é.ts', 'e\u0301.ts', '🚀.ts', "q'uote.ts", 'new\nline.ts', '#hash.ts', '!bang.ts', '-dash.ts', '..two.ts', '...', 'back\\slash.ts', '[x].ts', '{a,b}.ts', ' lead.ts', 'trail .ts '];
  for (const name of names) write(root, { [name]: '', [`in/${name}/f.c`]: '' });
  const found = await walk({ root });
  assert.deepEqual(inPaths(found), [...names, ...names.map((name) => `in/${name}/f.c`)].sort(comparePaths));
  assert.deepEqual(await pathsOfLook(root, names), [...names].sort(comparePaths));
});

async function pathsOfLook(root: string, paths: readonly string[]): Promise<string[]> {
  return inPaths(await look({ root }, paths));
}

test('a name that is not UTF-8 is unreadable and says so', { skip: process.platform !== 'linux' && 'needs names of any bytes' }, async (t) => {
  const root = folder(t);
  writeFileSync(Buffer.concat([Buffer.from(`${root}/bad`), Buffer.from([0xff]), Buffer.from('.ts')]), '');
  const found = await walk({ root });
  assert.deepEqual(found.unreadable.map(({ error }) => error), ['its name is not UTF-8']);
  // Shown as one, they are not to look as if they were one.
  for (const byte of [0xfe, 0xfd]) writeFileSync(Buffer.concat([Buffer.from(`${root}/bad`), Buffer.from([byte]), Buffer.from('.ts')]), '');
  writeFileSync(Buffer.concat([Buffer.from(`${root}/other`), Buffer.from([0xff])]), '');
  const { unreadable } = await walk({ root });
  assert.deepEqual(unreadable.map(({ path, error }) => [path, error]), [['bad\ufffd.ts', 'its name is not UTF-8; 3 names here read alike'], ['other\ufffd', 'its name is not UTF-8']]);
});

test('pipes and sockets are never opened', { skip: process.platform === 'win32' && 'no pipes in folders' }, async (t) => {
  const root = folder(t);
  execFileSync('mkfifo', [join(root, 'pipe.ts')]);
  execFileSync('mkfifo', [join(root, '.gitignore')]);
  const server = createServer().listen(join(root, 'socket'));
  t.after(() => server.close());
  await new Promise((resolve) => server.once('listening', resolve));
  const found = await walk({ root });
  assert.deepEqual(found.excluded.map(({ path, rule, detail }) => [path, rule, detail]), [
    ['.gitignore', 'special', 'a pipe'],
    ['pipe.ts', 'special', 'a pipe'],
    ['socket', 'special', 'a socket'],
  ]);
});

test('an unreadable folder is one entry, the rest is there', { skip: process.getuid?.() === 0 && 'root reads everything' }, async (t) => {
  const root = folder(t);
  write(root, { 'a.ts': '', 'locked/b.ts': '', 'z.ts': '' });
  chmodSync(join(root, 'locked'), 0);
  const found = await walk({ root });
  chmodSync(join(root, 'locked'), 0o700);
  assert.deepEqual(inPaths(found), ['a.ts', 'z.ts']);
  assert.deepEqual(found.unreadable, [{ path: 'locked', folder: true, error: 'EACCES: no permission to read it' }]);
});

test('sizes, classes and times; notebooks may be large', async (t) => {
  const root = folder(t);
  write(root, { 'big.ts': 'x'.repeat((1 << 20) + 1), 'big.ipynb': 'x'.repeat((1 << 20) + 1), 'a.md': 'four', 'd.csv': '' });
  const found = await walk({ root });
  assert.deepEqual(found.files.map((file) => [file.path, file.class, file.bytes]), [
    ['a.md', 'doc', 4],
    ['big.ipynb', 'code', (1 << 20) + 1],
    ['d.csv', 'data', 0],
  ]);
  assert.ok(found.files.every(({ mtimeMs, ino }) => Math.abs(mtimeMs - Date.now()) < 60_000 && ino > 0));
  assert.deepEqual(excludedAs(found), { 'big.ts': 'too_large' });
});

test('our own store inside the workspace is not looked into', async (t) => {
  const root = folder(t);
  write(root, { '.sala-store/seg-1.kv': '', 'a.ts': '' });
  const found = await walk({ root, ownPaths: [join(root, '.sala-store')] });
  assert.deepEqual([inPaths(found), found.folders], [['a.ts'], ['']]);
});

const name = fc.constantFrom('a', 'b', 'a-b', 'a.b', 'ab', 'A', '0', 'é');
const paths = fc.array(fc.array(name, { minLength: 1, maxLength: 4 }).map((parts) => parts.join('/')), { maxLength: 30 });

test('path order, whatever order the disk answers in', async (t) => {
  await fc.assert(
    fc.asyncProperty(paths, async (list) => {
      const root = folder(t);
      for (const path of list) {
        try {
          write(root, { [path]: path });
        } catch {
          continue;
        }
      }
      const found = inPaths(await walk({ root }));
      assert.deepEqual(found, [...found].sort(comparePaths));
      assert.deepEqual(await pathsOfLook(root, found), found, 'a look at every file is the walk');
      const tops = [...new Set(found.map((path) => path.split('/')[0] ?? ''))];
      assert.deepEqual(await pathsOfLook(root, tops), found, 'and so is a look at every folder');
      rmSync(root, { recursive: true });
    }),
    { numRuns: 40 },
  );
});

test('outermost keeps what is in no other', () => {
  fc.assert(
    fc.property(paths, (list) => {
      const kept = outermost(list);
      const within = (path: string, other: string): boolean => path === other || path.startsWith(`${other}/`);
      for (const path of list) assert.equal(kept.filter((other) => within(path, other)).length, 1);
      for (const path of kept) assert.ok(list.includes(path));
    }),
  );
});

test('a look at changed paths: files, folders, what is gone, what is excluded', async (t) => {
  const root = folder(t);
  write(root, { '.gitignore': 'out/\n', 'a.ts': '1', 'sub/b.ts': '', 'sub/deep/c.ts': '', 'out/x/y.ts': '', 'package-lock.json': '{}' });
  const found = await look({ root }, ['a.ts', 'sub/b.ts', 'sub', 'gone.ts', 'gone/too.ts', 'out/x/y.ts', 'out/x/z.ts', 'package-lock.json', 'a.ts/below']);
  // Without a repository .gitignore counts all the same.
  assert.deepEqual(inPaths(found), ['a.ts', 'sub/b.ts', 'sub/deep/c.ts']);
  assert.deepEqual(excludedAs(found), { out: 'ignored', 'package-lock.json': 'lock_file' });
  assert.deepEqual(found.excluded.filter(({ path }) => path === 'out').length, 1);
  assert.deepEqual(found.gone, ['gone.ts', 'gone/too.ts']);
  assert.deepEqual(found.folders, ['sub', 'sub/deep']);
});

test('a look at changed rules is one at all that they hold for', async (t) => {
  const root = folder(t);
  write(root, { 'sub/.gitignore': 'b.ts\n', 'sub/a.ts': '', 'sub/b.ts': '', 'sub/deep/b.ts': '', 'other/b.ts': '' });
  const ruled = await look({ root }, ['sub/.gitignore']);
  assert.deepEqual([ruled.looked, inPaths(ruled)], [['sub'], ['sub/.gitignore', 'sub/a.ts']]);
  assert.deepEqual(excludedAs(ruled), { 'sub/b.ts': 'ignored', 'sub/deep/b.ts': 'ignored' });
  rmSync(join(root, 'sub/.gitignore'));
  assert.deepEqual(inPaths(await look({ root }, ['sub/.gitignore'])), ['sub/a.ts', 'sub/b.ts', 'sub/deep/b.ts']);
  write(root, { 'sub/pyvenv.cfg': '' });
  assert.deepEqual(excludedAs(await look({ root }, ['sub/pyvenv.cfg'])), { sub: 'ignored' });
  assert.deepEqual((await look({ root }, ['sub/.git'])).looked, ['']);
  assert.deepEqual((await look({ root }, ['.git/info/exclude'])).looked, ['']);
});

test('stops when told, and leaves the event loop to others', async (t) => {
  const root = folder(t);
  for (let i = 0; i < 6000; i++) {
    if (i % 300 === 0) mkdirSync(join(root, `d${i / 300}`));
    writeFileSync(join(root, `d${Math.floor(i / 300)}`, `f${i}.ts`), '');
  }
  const controller = new AbortController();
  const aborted = walk({ root, signal: controller.signal, onProgress: () => controller.abort(new Error('enough')) });
  await assert.rejects(aborted, /enough/);
  // While there is but one folder to be walked, all others who walk wait for more.
  await assert.rejects(walk({ root, signal: AbortSignal.abort(new Error('at once')) }), /at once/);

  // Counted, not timed: how long a turn takes depends on who else uses the machine. At most 8 folders with 32 entries each may be
  // answered between two turns; a walk that kept the event loop would leave it a turn or two.
  let turns = 0;
  let walking = true;
  const turning = (async () => {
    while (walking) {
      await turn();
      turns++;
    }
  })();
  const found = await walk({ root });
  walking = false;
  await turning;
  assert.equal(found.files.length, 6000);
  assert.ok(turns >= 6000 / (8 * 32), `${turns} turns of the event loop`);
});

test('bytes of files that grow, shrink or become pipes', async (t) => {
  const root = folder(t);
  const bytes = Buffer.from(Array.from({ length: 5000 }, (_, i) => i % 251));
  writeFileSync(join(root, 'a'), bytes);
  for (const expected of [0, 1, 4999, 5000, 5001, 9000]) assert.deepEqual(await readBytes(join(root, 'a'), expected), bytes, `${expected}`);
  assert.equal((await readBytes(join(root, 'a'), 10, 100)).length, 101, 'the limit and one more');
  assert.equal((await readBytes(join(root, 'a'), 1e9, 100)).length, 101);
  await assert.rejects(readBytes(join(root, 'b'), 1), { code: 'ENOENT' });
  await assert.rejects(readBytes(root, 1), { code: 'EISDIR' });
  if (process.platform === 'win32') return;
  symlinkSync('a', join(root, 'link'));
  await assert.rejects(readBytes(join(root, 'link'), 1), { code: 'ELOOP' });
  execFileSync('mkfifo', [join(root, 'pipe')]);
  // Nothing can be read at an offset of a pipe; what matters is that it does not wait for a writer.
  await assert.rejects(readBytes(join(root, 'pipe'), 1), { code: 'ESPIPE' });
});

test('files that vanish during the walk are simply not there', async (t) => {
  const root = folder(t);
  for (let i = 0; i < 2000; i++) write(root, { [`d${i % 20}/f${i}.ts`]: '' });
  const walking = walk({ root });
  for (let i = 0; i < 2000; i += 2) rmSync(join(root, `d${i % 20}/f${i}.ts`));
  const found = await walking;
  assert.deepEqual(found.unreadable, []);
  for (let i = 1; i < 2000; i += 2) assert.ok(inPaths(found).includes(`d${i % 20}/f${i}.ts`));
});
