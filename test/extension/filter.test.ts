// Ignore rules against git itself on random trees, .salaignore above them, globs, repositories within repositories, roots.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import fc from 'fast-check';
import { compileGlobs, dedupeRoots, type FilterSettings } from '../../extension/engine/workspace/filter';
import { look, walk, type Walk } from '../../extension/engine/workspace/walk';
import { folder, write } from './folder';

/** git without any configuration but the repository's own. */
function git(cwd: string, args: string[], input?: string): string {
  const env = {
    PATH: process.env['PATH'],
    HOME: '/nonexistent',
    GIT_CONFIG_NOSYSTEM: '1',
    GIT_AUTHOR_NAME: 't',
    GIT_AUTHOR_EMAIL: 't@example.invalid',
    GIT_COMMITTER_NAME: 't',
    GIT_COMMITTER_EMAIL: 't@example.invalid',
  };
  return execFileSync('git', args, { cwd, env, encoding: 'utf8', stdio: ['pipe', 'pipe', 'ignore'], ...(input === undefined ? {} : { input }) });
}

const inPaths = (found: Walk): string[] => found.files.map(({ path }) => path);
const excludedAs = (found: Walk): Record<string, string> => Object.fromEntries(found.excluded.map(({ path, rule }) => [path, rule]));

// ---- git is the specification ----------------------------------------------------------------------------------------------

const names = ['a', 'b', 'foo', 'foobar', 'x y', 'ü', '[z]', '*s', '!n', '#h', 'a.log', 'b.txt', 'tail ', 'back\\slash', '.dot', '~', 'A', 'a?b'];
const name = fc.constantFrom(...names);
const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((parts) => parts.join('/'));
const escaped = (text: string): string => text.replace(/[\\*?[\]!# ]/g, '\\$&');
const glob = fc.constantFrom('*', '**', '?', 'a*', '*.log', '*.*', '[a-f]*', '[!a]', 'fo[o]', '*o*', '[[:upper:]]', '\\!n', '\\#h', '[z]', '{a,b}', '.*');
const part = fc.oneof({ weight: 3, arbitrary: name.map(escaped) }, { weight: 2, arbitrary: glob }, { weight: 1, arbitrary: name });
const pattern = fc
  .record({
    negated: fc.boolean(),
    lead: fc.constantFrom('', '', '/', '**/', './'),
    parts: fc.array(part, { minLength: 1, maxLength: 3 }),
    trail: fc.constantFrom('', '', '', '/', '/**', '/*', ' ', '  ', '\t', '\\ ', '\r'),
  })
  .map(({ negated, lead, parts, trail }) => `${negated ? '!' : ''}${lead}${parts.join('/')}${trail}`);
const ignoreFile = fc.array(fc.oneof({ weight: 8, arbitrary: pattern }, { weight: 1, arbitrary: fc.constantFrom('', '# note', '!', '/', ' ') }), {
  minLength: 1,
  maxLength: 6,
});

test('the same files as git, by the same rule, on random trees', (t) => {
  const property = fc.asyncProperty(
    fc.array(path, { minLength: 1, maxLength: 25 }),
    fc.array(fc.tuple(fc.oneof(fc.constant(''), path), ignoreFile), { maxLength: 4 }),
    fc.option(ignoreFile),
    async (paths, ignores, exclude) => {
      const root = folder(t);
      git(root, ['init', '-q']);
      for (const path of paths) tryWrite(root, path, 'x');
      for (const [at, lines] of ignores) tryWrite(root, join(at, '.gitignore'), lines.join('\n'));
      if (exclude) write(root, { '.git/info/exclude': `${exclude.join('\n')}\n` });

      const found = await walk({ root });
      const expected = split(git(root, ['ls-files', '-o', '-z', '--exclude-standard'])).sort();
      assert.deepEqual(inPaths(found).sort(), expected);

      const ruled = found.excluded.filter(({ path }) => path !== '.git');
      if (ruled.length === 0) return;
      const fields = split(git(root, ['check-ignore', '-v', '-n', '-z', '--stdin'], ruled.map(({ path }) => `${path}\0`).join('')));
      for (const [index, { path, detail }] of ruled.entries()) {
        const [source, line, text] = fields.slice(4 * index, 4 * index + 4);
        // git names the pattern without the white space that it strips.
        assert.ok(detail.startsWith(`${source}:${line}: ${text?.trimEnd()}`), `${path}: ${detail} against ${source}:${line}: ${text}`);
      }
      rmSync(root, { recursive: true });
    },
  );
  return fc.assert(property, { numRuns: 60 });
});

/** A path may need a folder where an earlier one made a file, or the reverse: then it is left out. */
function tryWrite(root: string, path: string, text: string): void {
  try {
    write(root, { [path]: text });
  } catch {
    return;
  }
}

function split(zeroTerminated: string): string[] {
  return zeroTerminated.split('\0').slice(0, -1);
}

test('a deeper rule takes back a folder, and what is in it follows its own rules', async (t) => {
  const root = folder(t);
  git(root, ['init', '-q']);
  write(root, { '.gitignore': 'tmp\n*.o\n', 'sub/.gitignore': '!tmp\n', 'sub/tmp/x.c': '', 'sub/tmp/x.o': '', 'sub/tmp/tmp/y.c': '', 'tmp/z.c': '' });
  const found = await walk({ root });
  assert.deepEqual(inPaths(found), ['.gitignore', 'sub/.gitignore', 'sub/tmp/tmp/y.c', 'sub/tmp/x.c']);
  assert.deepEqual(split(git(root, ['ls-files', '-o', '-z', '--exclude-standard'])).sort(), inPaths(found).sort());
});

// ---- .salaignore --------------------------------------------------------------------------------------------------------------

test('.salaignore brings ignored paths in, with the rule that did, and keeps others out', async (t) => {
  const root = folder(t);
  write(root, {
    '.gitignore': 'schemas\n*.tmp\ngen/\n',
    '.salaignore': '# ours\n!schemas/\nprivate/\n!node_modules/ours/\n!node_modules/\n/node_modules/*\n!/node_modules/ours/\n',
    'schemas/q.graphql': 'type Q',
    'schemas/x.tmp': '',
    'schemas/deep/schemas/z.graphql': '',
    'gen/a.ts': '',
    'private/p.ts': '',
    'node_modules/ours/i.js': '',
    'node_modules/other/i.js': '',
    'src/.salaignore': '!*.tmp\nlocal.ts\n',
    'src/a.tmp': 'now in',
    'src/local.ts': '',
    '.env': 'A=1',
  });
  const found = await walk({ root });
  assert.deepEqual(inPaths(found), [
    '.gitignore',
    '.salaignore',
    'node_modules/ours/i.js',
    'schemas/deep/schemas/z.graphql',
    'schemas/q.graphql',
    'src/.salaignore',
    'src/a.tmp',
  ]);
  const detailOf = (path: string): string | undefined => found.files.find((file) => file.path === path)?.detail;
  assert.equal(detailOf('schemas/q.graphql'), '.salaignore:2: !schemas/');
  assert.equal(detailOf('src/a.tmp'), 'src/.salaignore:1: !*.tmp');
  assert.equal(detailOf('.gitignore'), undefined);
  assert.deepEqual(excludedAs(found), {
    '.env': 'secret',
    gen: 'ignored',
    'node_modules/other': 'ignored',
    private: 'ignored',
    'schemas/x.tmp': 'ignored',
    'src/local.ts': 'ignored',
  });
  assert.equal(found.excluded.find(({ path }) => path === 'private')?.detail, '.salaignore:3: private/');
});

test('built in: version control, installed packages, environments, tagged caches', async (t) => {
  const root = folder(t);
  write(root, {
    'node_modules/x/i.js': '',
    'a/node_modules/x/i.js': '',
    'a/__pycache__/m.pyc': '',
    '.hg/store/x': '',
    'env/pyvenv.cfg': '',
    'env/lib/site.py': '',
    'target/CACHEDIR.TAG': 'Signature: 8a477f597d28d172789f06886806bc55\n',
    'target/out.c': '',
    'tagged/CACHEDIR.TAG': 'no signature',
    '.salaignore': '!.hg/\n',
    'src/node_modules.ts': '',
  });
  const found = await walk({ root });
  assert.deepEqual(inPaths(found), ['.salaignore', 'src/node_modules.ts', 'tagged/CACHEDIR.TAG']);
  assert.deepEqual(excludedAs(found), {
    '.hg': 'ignored',
    'a/__pycache__': 'ignored',
    'a/node_modules': 'ignored',
    env: 'ignored',
    node_modules: 'ignored',
    target: 'ignored',
  });
  for (const { detail } of found.excluded) assert.match(detail, /^built in/);
});

// ---- globs ----------------------------------------------------------------------------------------------------------------------

test('globs take paths, folders and names', () => {
  const cases: [string, string[], string[]][] = [
    ['*.sql', ['a.sql', 'x/y/b.sql'], ['a.sqlx']],
    ['/a.sql', ['a.sql'], ['x/a.sql']],
    ['src/net', ['src/net', 'src/net/a.c', 'src/net/x/b.c'], ['src/network.c', 'lib/src/net/a.c']],
    ['src/net/**', ['src/net', 'src/net/a.c'], ['src/a.c']],
    ['./src/', ['src/a', 'src/x/y'], ['lib/src2']],
    ['src', ['src/a', 'lib/src/x'], ['srcs/a']],
    ['**/test/*.py', ['test/a.py', 'x/test/b.py'], ['test/x/a.py']],
    ['**', ['a', '.hidden/b'], []],
    ['{a,b}/*.c', ['a/x.c', 'b/y.c'], ['c/x.c']],
    ['.github/**', ['.github/workflows/x.yml'], ['github/x']],
  ];
  for (const [globText, taken, left] of cases) {
    const match = compileGlobs(['never-this', globText]);
    for (const path of taken) assert.equal(match(path), globText, `${globText} takes ${path}`);
    for (const path of left) assert.equal(match(path), undefined, `${globText} leaves ${path}`);
  }
});

test('the exclude setting is the rule `user`', async (t) => {
  const root = folder(t);
  write(root, { 'src/net/a.c': '', 'src/net/gen/b.c': '', 'docs/d.md': '', 'e.c': '', 'docs/e.c': '' });
  const found = await walk({ root, settings: { include: [], exclude: ['**/gen/**', '/e.c'] } });
  assert.deepEqual(inPaths(found), ['docs/d.md', 'docs/e.c', 'src/net/a.c']);
  assert.deepEqual(excludedAs(found), { 'e.c': 'user', 'src/net/gen': 'user' });
});

test('the include setting brings in what an ignore file or a rule about folders leaves out, and nothing else', async (t) => {
  const root = folder(t);
  write(root, {
    '.gitignore': 'dist\nschemas\n*.log\n',
    'src/a.c': '', 'src/b.log': '', 'c.log': '',
    'schemas/q.graphql': '', 'x/schemas/deep/r.graphql': '',
    'dist/api/v1/a.d.ts': '', 'dist/api/b.js': '', 'dist/c.js': '', 'dist/api/v1/node_modules/d.js': '',
    'node_modules/pkg/index.d.ts': '', 'node_modules/pkg/lib/e.js': '', 'node_modules/other/f.js': '',
    'odd [1]/g.log': '',
  });
  const include = ['schemas/**', '/dist/api/v1', 'node_modules/pkg/*.d.ts', '/c.log', 'odd \\[1\\]/g.log'];
  const found = await walk({ root, settings: { include, exclude: [] } });
  assert.deepEqual(inPaths(found), [
    '.gitignore', 'c.log', 'dist/api/v1/a.d.ts', 'node_modules/pkg/index.d.ts', 'odd [1]/g.log', 'schemas/q.graphql', 'src/a.c', 'x/schemas/deep/r.graphql',
  ]);
  assert.deepEqual(excludedAs(found), {
    'dist/api/b.js': 'ignored', 'dist/api/v1/node_modules': 'ignored', 'dist/c.js': 'ignored', 'node_modules/other': 'ignored', 'node_modules/pkg/lib/e.js': 'ignored', 'src/b.log': 'ignored',
  });
  assert.equal(found.excluded.find(({ path }) => path === 'dist/c.js')?.detail, '.gitignore:1: dist');
  assert.equal(found.files.find(({ path }) => path === 'schemas/q.graphql')?.detail, 'include: schemas/**');
  // The same of single paths, as after a change; and an exclude glob is stronger.
  const settings: FilterSettings = { include, exclude: ['/schemas'] };
  const again = await look({ root, settings }, ['dist/c.js', 'dist/api/v1/a.d.ts', 'schemas/q.graphql', 'node_modules/other/f.js']);
  assert.deepEqual(inPaths(again), ['dist/api/v1/a.d.ts']);
  assert.deepEqual(excludedAs(again), { 'dist/c.js': 'ignored', 'node_modules/other': 'ignored', schemas: 'user' });
});

test('a folder that its content leaves out can be brought in, whole or in part', async (t) => {
  const root = folder(t);
  write(root, { 'env/pyvenv.cfg': '', 'env/lib/a.py': '', 'env2/pyvenv.cfg': '', 'env2/lib/b.py': '', 'env2/c.py': '' });
  const found = await walk({ root, settings: { include: ['/env', '/env2/lib'], exclude: [] } });
  assert.deepEqual(inPaths(found), ['env/lib/a.py', 'env/pyvenv.cfg', 'env2/lib/b.py']);
  assert.deepEqual(excludedAs(found), { 'env2/c.py': 'ignored', 'env2/pyvenv.cfg': 'ignored' });
});

test('a wish for names opens no ignored folder; version control stays out', async (t) => {
  const root = folder(t);
  write(root, { '.gitignore': 'dist\n*.sql\n', 'a.sql': '', 'dist/b.sql': '', '.git/HEAD': 'x', '.git/c.sql': '' });
  const found = await walk({ root, settings: { include: ['*.sql', '.git/c.sql'], exclude: [] } });
  assert.deepEqual(inPaths(found), ['.gitignore', 'a.sql']);
  assert.deepEqual(found.folders, ['']);
});

// ---- repositories in repositories ---------------------------------------------------------------------------------------------

/** The fixture of a submodule, a linked worktree, a nested clone and a wanted but ignored folder. */
function repositories(t: TestContext): string {
  const parent = folder(t);
  const root = join(parent, 'w');
  write(parent, { 'lib/sub.ts': 'export const SUB_LIMIT = 7;\n', 'lib/.gitignore': 'out\n', 'lib/out/x.ts': '' });
  git(join(parent, 'lib'), ['init', '-q']);
  git(join(parent, 'lib'), ['add', '.']);
  git(join(parent, 'lib'), ['commit', '-qm', 'l']);
  write(root, {
    'src/main.ts': 'export const MAIN_LIMIT = 3;\n',
    'schemas/q.graphql': 'type Q { q: Int }\n',
    '.gitignore': 'schemas\n',
    'clone/c.ts': 'export const CLONE_LIMIT = 5;\n',
    'clone/schemas/kept.ts': '',
  });
  git(root, ['init', '-q']);
  git(root, ['add', '.gitignore', 'src']);
  git(root, ['commit', '-qm', 'm']);
  git(root, ['-c', 'protocol.file.allow=always', 'submodule', 'add', '-q', join(parent, 'lib'), 'vendor-lib']);
  git(root, ['worktree', 'add', '-q', '.worktrees/fix', '-b', 'fix']);
  git(join(root, 'clone'), ['init', '-q']);
  write(root, { '.salaignore': '!schemas/\n', 'vendor-lib/out/x.ts': '' });
  return root;
}

test('worktrees out, submodules and clones in under their own rules, schemas brought in', async (t) => {
  const root = repositories(t);
  const found = await walk({ root });
  assert.deepEqual(inPaths(found), [
    '.gitignore',
    '.gitmodules',
    '.salaignore',
    'clone/c.ts',
    'clone/schemas/kept.ts',
    'schemas/q.graphql',
    'src/main.ts',
    'vendor-lib/.gitignore',
    'vendor-lib/sub.ts',
  ]);
  assert.equal(found.files.find(({ path }) => path === 'schemas/q.graphql')?.detail, '.salaignore:1: !schemas/');
  const worktree = found.excluded.find(({ path }) => path === '.worktrees/fix');
  assert.deepEqual([worktree?.rule, worktree?.detail, worktree?.folder], ['worktree', 'worktree of this repository', true]);
  assert.equal(excludedAs(found)['vendor-lib/out'], 'ignored');
});

test('a worktree opened by itself, and beside its repository', async (t) => {
  const root = repositories(t);
  const fix = join(root, '.worktrees/fix');
  assert.deepEqual(inPaths(await walk({ root: fix })), ['.gitignore', 'src/main.ts']);
  const roots = await dedupeRoots([{ path: fix, name: 'fix' }, { path: root, name: 'w' }]);
  assert.deepEqual(roots.map(({ name }) => name), ['fix', 'w']);
});

test('worktrees of a bare repository are nobody’s second copy', async (t) => {
  const parent = folder(t);
  write(parent, { 'seed/a.ts': '' });
  git(join(parent, 'seed'), ['init', '-q', '-b', 'main']);
  git(join(parent, 'seed'), ['add', '.']);
  git(join(parent, 'seed'), ['commit', '-qm', 'm']);
  const root = join(parent, 'w');
  git(parent, ['clone', '-q', '--bare', 'seed', 'w/.bare']);
  write(root, { '.git': 'gitdir: ./.bare\n', '.gitignore': '.bare\n' });
  git(root, ['worktree', 'add', '-q', 'main']);
  assert.ok(inPaths(await walk({ root })).includes('main/a.ts'));
});

test('a folder within a repository obeys the rules above it, unless they ignore the folder itself', async (t) => {
  const top = folder(t);
  git(top, ['init', '-q']);
  write(top, {
    '.gitignore': '*.tmp\n/app/src/gen\nbuild/\n',
    'app/.gitignore': 'local\n',
    '.git/info/exclude': 'mine\n',
    'app/src/a.ts': '',
    'app/src/b.tmp': '',
    'app/src/gen/c.ts': '',
    'app/src/local/d.ts': '',
    'app/src/mine': '',
    'build/out.ts': '',
    'build/x.tmp': '',
  });
  const found = await walk({ root: join(top, 'app/src') });
  assert.deepEqual(inPaths(found), ['a.ts']);
  assert.equal(found.excluded.find(({ path }) => path === 'gen')?.detail, '../../.gitignore:2: /app/src/gen');
  assert.deepEqual(excludedAs(found), { 'b.tmp': 'ignored', gen: 'ignored', local: 'ignored', mine: 'ignored' });
  assert.deepEqual(inPaths(await walk({ root: join(top, 'build') })), ['out.ts', 'x.tmp']);
});

// ---- roots ------------------------------------------------------------------------------------------------------------------------

test('a root within another counts once, in any order, unless it is left out there', async (t) => {
  const top = folder(t);
  write(top, { 'a/src/util.ts': '', 'a/.salaignore': 'ignored/\n', 'a/ignored/x.ts': '', 'ab/x.ts': '', 'b/y.ts': '' });
  symlinkSync(join(top, 'a'), join(top, 'link'));
  const roots = ['a/src', 'b', 'a', 'a/ignored', 'ab', 'link', 'link/src', 'missing'].map((path) => ({ path: join(top, path), name: path }));
  const kept = (await dedupeRoots(roots)).map(({ name }) => name);
  assert.deepEqual(kept, ['b', 'a', 'a/ignored', 'ab', 'missing']);
  assert.deepEqual((await dedupeRoots([...roots].reverse())).map(({ path }) => path).sort(), (await dedupeRoots(roots)).map(({ path }) => path).sort());
});

test('what a root within another has globs for, the outer one has them for', async (t) => {
  const top = folder(t);
  write(top, { 'a/src/(x)/util.ts': '', 'a/src/(x)/gen/g.ts': '', 'a/src/(x)/deep/gen/h.ts': '', 'a/src/(x)/deep/notes.md': '', 'a/src/plain.md': '', 'a/gen/k.ts': '', 'a/.gitignore': 'wanted\n', 'a/src/(x)/wanted/w.ts': '', 'a/wanted/v.ts': '' });
  const inner = { path: join(top, 'a/src/(x)'), name: 'x', exclude: ['/util.ts', 'gen', 'deep/*.md'], include: ['wanted'] };
  const [outer, ...more] = await dedupeRoots([inner, { path: join(top, 'a'), name: 'a', exclude: ['/src/plain.md'] }]);
  assert.deepEqual([outer?.name, more], ['a', []]);
  assert.deepEqual(outer?.exclude, ['/src/plain.md', '/src/\\(x\\)/util.ts', '/src/\\(x\\)/**/gen', '/src/\\(x\\)/deep/*.md']);
  const found = await walk({ root: outer!.path, settings: { include: outer!.include ?? [], exclude: outer!.exclude ?? [] } });
  assert.deepEqual(inPaths(found), ['.gitignore', 'gen/k.ts', 'src/(x)/wanted/w.ts']);
  const all = await dedupeRoots([{ path: join(top, 'a'), name: 'a' }, { ...inner, exclude: ['**'] }]);
  assert.deepEqual(inPaths(await walk({ root: join(top, 'a'), settings: { include: [], exclude: all[0]?.exclude ?? [] } })), ['.gitignore', 'gen/k.ts', 'src/plain.md']);
});

test('a root that another one leaves out by its own globs stays one', async (t) => {
  const top = folder(t);
  write(top, { 'a/src/util.ts': '', 'a/x.ts': '' });
  const roots = [{ path: join(top, 'a'), name: 'a', exclude: ['/src'] }, { path: join(top, 'a/src'), name: 'src', exclude: ['*.md'] }];
  assert.deepEqual(await dedupeRoots(roots), roots);
});

test('a root that is no folder is refused with what was found', async (t) => {
  const root = folder(t);
  write(root, { 'file.ts': '' });
  await assert.rejects(walk({ root: join(root, 'nowhere') }), { code: 'not_a_workspace', message: /nowhere: expected a folder .* it does not exist/ });
  await assert.rejects(walk({ root: join(root, 'file.ts') }), { code: 'not_a_workspace', message: /it is a file/ });
});
