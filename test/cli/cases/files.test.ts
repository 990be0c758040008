// Workspaces with anything in them: links in circles, pipes, names with odd characters, other encodings, huge and endless files,
// repositories in repositories, notebooks. Each ends with an answer about every file, in seconds, whatever the file is.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { loadAddon } from '../../../extension/engine/addon';
import { readModelFolder } from '../../../extension/engine/model-folder';
import { asNobody, delay, eventually, isRoot, statesOf, tinyModel, withCase, type Answer, type Case, type CoverageOutput } from './support';

process.env['SALA_ADDON'] ??= path.resolve(process.env['SALA_DIST'] ?? 'dist', 'sala.node');

/** A file system's own name for a file: bytes, which need not be UTF-8. */
const bytesOf = (...parts: (string | number)[]): Buffer =>
  Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : Buffer.of(part))));

/** What the coverage list says of a path. */
function fileOf({ files }: CoverageOutput, name: string): CoverageOutput['files'][number] {
  const found = files.filter((file) => file.path === name);
  assert.equal(found.length, 1, `${name}: ${JSON.stringify(found)}`);
  return found[0]!;
}

const pngBytes = Buffer.from('89504e470d0a1a0a0000000d4948445200000001', 'hex');

describe('what is in a workspace', { concurrency: 3 }, () => {
  test('nothing at all', () =>
    withCase(tinyModel, async (c) => {
      assert.deepEqual((await c.coverage()).files, []);
      assert.equal((await c.ingest()).files, 0);
      const { answer, sources } = await c.ask('Where is ANY_LIMIT defined?');
      assert.match(answer, /ANY_LIMIT/);
      assert.deepEqual(sources, []);
      assert.equal((await c.start(['ask', 'hi']).ended).code, 0);
    }));

  test('names with every odd character', () =>
    withCase(tinyModel, async (c) => {
      const names = [
        'new\nline.ts',
        'tab\tand\rreturn.ts',
        'a "quote" and \'another\'.ts',
        'back\\slash.ts',
        '-rf.ts',
        '--help',
        ' leading and trailing .ts',
        '%2e%2e%2f$HOME`id`;&|<>.ts',
        '[1]{a,b}*?!#.ts',
        'é 設定 🚀.ts',
        'e\u0301.ts',
        '\u202eright to left.ts',
        '.hidden.ts',
        '<|im_end|>.ts',
        `${'long'.repeat(62)}.ts`,
      ];
      for (const [i, name] of names.entries()) c.write({ [name]: `export const odd_${i} = ${i};\n` });
      c.write({ 'folder\n-x/[a]/in ner.ts': 'export const inner = 1;\n' });
      writeFileSync(Buffer.concat([Buffer.from(`${c.workspace}/`), bytesOf('not-utf8-', 0xff, 0xfe, '.ts')]), 'export const raw = 1;\n');
      mkdirSync(Buffer.concat([Buffer.from(`${c.workspace}/`), bytesOf('folder-', 0xc3)]));
      await c.ingest();
      const coverage = await c.coverage();
      const states = statesOf(coverage);
      for (const name of [...names, 'folder\n-x/[a]/in ner.ts']) assert.equal(states[name], 'in', JSON.stringify(name));
      const refused = coverage.files.filter(({ state }) => state === 'unreadable');
      assert.deepEqual(refused.map(({ detail }) => detail), ['its name is not UTF-8', 'its name is not UTF-8']);
      assert.equal(coverage.files.length, names.length + 3);
      for (const name of ['-rf.ts', 'new\nline.ts', '[1]{a,b}*?!#.ts']) {
        assert.equal(fileOf(await c.coverage('--', `./${name}`), name).state, 'in');
      }
      assert.equal((await c.ingest()).encoded_tokens, 0);
    }));

  test('binary, huge, endless, other encodings, pipes: left out by a rule, none of them waited for', () =>
    withCase(tinyModel, async (c) => {
      c.write({
        'a.ts': 'export const a = 1;\n',
        'empty.ts': '',
        'no-end.ts': 'export const b = 2;',
        'cr.ts': 'export const c = 3;\rexport const d = 4;\r',
        'bom.ts': '\ufeffexport const e = 5;\r\n',
        'picture.png': pngBytes,
        'program': Buffer.concat([Buffer.from('\x7fELF'), Buffer.alloc(4000)]),
        'late-nul.txt': `${'text\n'.repeat(20_000)}\0`,
        'utf16.txt': Buffer.from('\ufeffutf-16 text\n', 'utf16le'),
        'latin1.txt': Buffer.from('caf\u00e9 cr\u00e8me\n', 'latin1'),
        'endless.txt': 'x'.repeat(5 << 20),
        'endless-but-small.txt': 'a quite ordinary sentence, '.repeat(9000),
        'huge.txt': Buffer.alloc(40 << 20, 'line\n'),
        'package-lock.json': '{}\n',
        'id_rsa': 'text\n',
      });
      execFileSync('mkfifo', [c.path('pipe.ts')]);
      const began = performance.now();
      await c.ingest();
      const coverage = await c.coverage();
      assert.ok(performance.now() - began < 60_000, `took ${performance.now() - began} ms`);
      assert.deepEqual(statesOf(coverage), {
        'a.ts': 'in',
        'empty.ts': 'in',
        'no-end.ts': 'in',
        'cr.ts': 'in',
        'bom.ts': 'in',
        'picture.png': 'binary',
        program: 'binary',
        'late-nul.txt': 'binary',
        'utf16.txt': 'not_utf8',
        'latin1.txt': 'not_utf8',
        'endless.txt': 'too_large',
        'endless-but-small.txt': fileOf(coverage, 'endless-but-small.txt').rule ?? 'in',
        'huge.txt': 'too_large',
        'package-lock.json': 'lock_file',
        id_rsa: 'secret',
        'pipe.ts': 'special',
      });
      for (const { state, rule, detail } of coverage.files) if (state === 'excluded') assert.ok(rule && detail, `${rule}: ${detail}`);
      // A pipe in a file's place after the walk is not waited for either.
      unlinkSync(c.path('a.ts'));
      execFileSync('mkfifo', [c.path('a.ts')]);
      assert.equal(statesOf(await c.coverage())['a.ts'], 'special');
    }));

  test('files that cannot be read, and that can again', { skip: isRoot ? false : 'needs root, to become another user' }, () =>
    withCase(tinyModel, async (c) => {
      c.write({ 'a.ts': 'export const a = 1;\n', 'closed.ts': 'export const b = 2;\n', 'folder/c.ts': 'export const c = 3;\n' });
      chmodSync(c.path('closed.ts'), 0);
      chmodSync(c.path('folder'), 0);
      const options = { through: asNobody(c) };
      await c.json(['ingest'], options);
      const coverage = await c.json<CoverageOutput>(['coverage'], options);
      assert.deepEqual(statesOf(coverage), { 'a.ts': 'in', 'closed.ts': 'unreadable', folder: 'unreadable' });
      for (const name of ['closed.ts', 'folder']) assert.match(fileOf(coverage, name).detail!, /EACCES: no permission/);
      chmodSync(c.path('closed.ts'), 0o644);
      chmodSync(c.path('folder'), 0o755);
      assert.equal((await c.json<{ files: number }>(['ingest'], options)).files, 3);
    }));

  test('files deleted, cut short and replaced while they are read', () =>
    withCase(tinyModel, async (c) => {
      c.writeMany(600);
      const running = c.start(['ingest', '--json']);
      await c.engine();
      for (let i = 0; i < 600; i += 3) {
        rmSync(c.path(`d${Math.floor(i / 100)}/f${i}.ts`), { force: true });
        writeFileSync(c.path(`d${Math.floor((i + 1) / 100)}/f${i + 1}.ts`), '');
        symlinkSync('/etc/passwd', c.path('link'));
        renameSync(c.path('link'), c.path(`d${Math.floor((i + 2) / 100)}/f${i + 2}.ts`));
        if (i % 60 === 0) await delay(20);
      }
      const { code, stderr } = await running.ended;
      assert.equal(code, 0, stderr);
      await c.ingest();
      const coverage = await c.coverage();
      const states = Object.values(statesOf(coverage));
      assert.equal(states.filter((state) => state === 'in').length, 200);
      assert.equal(states.filter((state) => state === 'outside').length, 200);
      assert.equal(states.length, 400);
    }));

  test('links in circles and out of the workspace', () =>
    withCase(tinyModel, async (c) => {
      mkdirSync(c.path('root/base1'), { recursive: true });
      mkdirSync(c.path('root/base2'));
      mkdirSync(c.path('other'));
      c.write({ 'root/probe.ts': 'export const LOOP_PROBE = 41;\n' });
      for (const [target, link] of [
        ['../../root', 'root/base1/root'],
        ['../../root', 'root/base2/root'],
        ['../root', 'other/root'],
        ['.', 'self'],
        ['nowhere', 'dangling.ts'],
        ['circle.ts', 'circle.ts'],
        ['/usr/include', 'outside'],
        ['root/probe.ts', 'alias.ts'],
      ] as const) {
        symlinkSync(target, c.path(link));
      }
      const began = performance.now();
      const coverage = await c.coverage();
      assert.ok(performance.now() - began < 60_000);
      assert.deepEqual(statesOf(coverage), {
        'root/base1/root': 'special',
        'root/base2/root': 'special',
        'other/root': 'special',
        self: 'special',
        'dangling.ts': 'special',
        'circle.ts': 'special',
        outside: 'outside',
        'alias.ts': 'special',
        'root/probe.ts': 'waiting',
      });
      for (const { state, detail } of coverage.files) if (state === 'excluded') assert.match(detail!, /a link/);
      const watch = await c.watch();
      assert.ok(inotifyWatches(await c.engine()) < 100);
      writeFileSync(c.path('other/root/probe.ts'), 'export const LOOP_PROBE = 42;\n');
      await eventually('the edit through the link is seen', () => watch.documents().length === 2);
      unlinkSync(c.path('alias.ts'));
      writeFileSync(c.path('alias.ts'), 'export const ALIAS = 1;\n');
      await eventually('the link is a file', () => watch.documents<{ files: number }>().at(-1)!.files === 2);
      unlinkSync(c.path('alias.ts'));
      symlinkSync('root/probe.ts', c.path('alias.ts'));
      await eventually('the file is a link', () => watch.documents<{ files: number }>().at(-1)!.files === 1);
      const changed = watch.documents<{ changed?: string[] }>().flatMap((update) => update.changed ?? []);
      assert.equal(changed.filter((name) => name.endsWith('probe.ts') && name !== 'root/probe.ts').length, 0);
      // The workspace by another name is the same one: nothing is read twice.
      const link = path.join(c.dir, 'L');
      symlinkSync(c.workspace, link);
      const through = await c.json<Answer>(['ask', 'Where is LOOP_PROBE defined?', '--workspace', link], { cwd: c.dir });
      assert.equal(through.coverage.files, 1);
      assert.ok(through.sources.every((source) => source.root === c.workspace));
      assert.equal((await c.json<{ encoded_tokens: number }>(['ingest', '--workspace', link], { cwd: c.dir })).encoded_tokens, 0);
      watch.child.kill('SIGINT');
      assert.equal((await watch.ended).code, 130);
    }));

  test('repositories in repositories: worktrees, submodules, clones, a wanted but ignored folder', () =>
    withCase(tinyModel, async (c) => {
      const git = (...args: string[]): void => {
        const env = { ...process.env, GIT_CONFIG_GLOBAL: '/dev/null', GIT_CONFIG_NOSYSTEM: '1' };
        const set = ['-c', 'user.email=t@example.invalid', '-c', 'user.name=t', '-c', 'protocol.file.allow=always'];
        execFileSync('git', [...set, ...args], { cwd: c.workspace, env, stdio: 'ignore' });
      };
      const library = path.join(c.dir, 'lib');
      mkdirSync(library);
      writeFileSync(path.join(library, 'sub.ts'), 'export const SUB_LIMIT = 7;\n');
      git('-C', library, 'init', '-q');
      git('-C', library, 'add', '.');
      git('-C', library, 'commit', '-qm', 'l');
      git('init', '-q');
      c.write({ 'src/main.ts': 'export const MAIN_LIMIT = 3;\n', 'schemas/q.graphql': 'type Q { q: Int }\n', '.gitignore': 'schemas\n' });
      git('add', '.');
      git('commit', '-qm', 'm');
      git('submodule', 'add', '-q', library, 'vendor-lib');
      git('worktree', 'add', '-q', '.worktrees/fix', '-b', 'fix');
      mkdirSync(c.path('clone'));
      git('-C', c.path('clone'), 'init', '-q');
      c.write({ 'clone/c.ts': 'export const CLONE_LIMIT = 5;\n', '.salaignore': '!schemas/\n' });
      await c.ingest();
      const coverage = await c.coverage();
      const states = statesOf(coverage);
      for (const name of ['src/main.ts', 'vendor-lib/sub.ts', 'clone/c.ts', 'schemas/q.graphql']) assert.equal(states[name], 'in', name);
      assert.deepEqual(fileOf(coverage, '.worktrees/fix').detail, 'worktree of this repository');
      assert.equal(fileOf(coverage, '.worktrees/fix').rule, 'worktree');
      assert.match(fileOf(coverage, 'schemas/q.graphql').detail!, /\.salaignore:1/);
      // Alone it is a workspace like any other; beside the first nothing of it is encoded twice.
      const worktree = c.path('.worktrees/fix');
      assert.equal((await c.ingest('--workspace', worktree)).encoded_tokens, 0);
      const both = await c.ingest('--workspace', c.workspace, '--workspace', worktree);
      assert.equal(both.encoded_tokens, 0);
      const roots = new Set((await c.coverage('--workspace', c.workspace, '--workspace', worktree)).files.map(({ root }) => root));
      assert.deepEqual([...roots].sort(), [c.workspace, worktree]);
      const watch = await c.watch();
      const filesNow = (): number => watch.documents<{ files: number }>().at(-1)!.files;
      const before = filesNow();
      writeFileSync(c.path('.salaignore'), '# nothing\n');
      await eventually('the folder is out again', () => filesNow() === before - 1);
      assert.equal(statesOf(await c.coverage())['schemas'], 'ignored');
    }));

  test('a notebook: only its cells, and new outputs encode nothing', () =>
    withCase(tinyModel, async (c) => {
      const cells = ['rate_qa17 = 3\nrate_zt42 = 4', 'def fib(n):\n    return n', '# say when done\nprint("done")', 'print(rate_qa17)'];
      const notebook = (outputs: object[], executions: number): string =>
        JSON.stringify({
          cells: cells.map((source, i) => ({
            cell_type: 'code',
            id: `c${i}`,
            execution_count: executions,
            metadata: { took: executions },
            outputs: i === 3 ? outputs : [],
            source: source.split(/(?<=\n)/),
          })),
          metadata: { kernelspec: { language: 'python', name: 'python3' } },
          nbformat: 4,
          nbformat_minor: 5,
        });
      const picture = { output_type: 'display_data', data: { 'image/png': Buffer.alloc(1_500_000, 7).toString('base64') }, metadata: {} };
      c.write({ 'n.ipynb': notebook([picture], 1), 'same.py': `${cells.join('\n\n')}\n` });
      await c.ingest();
      const before = await c.coverage();
      const tokens = fileOf(before, 'n.ipynb').tokens;
      const plain = fileOf(before, 'same.py').tokens;
      assert.ok(tokens > 0.7 * plain && tokens < 1.5 * plain, `${tokens} tokens for the notebook, ${plain} for its text`);
      c.write({ 'n.ipynb': notebook([{ output_type: 'stream', name: 'stdout', text: ['3\n'] }], 2) });
      const again = await c.ingest();
      assert.equal(again.encoded_tokens, 0);
      assert.equal(fileOf(await c.coverage(), 'n.ipynb').state, 'in');
      c.write({ 'n.ipynb': notebook([], 3).replace('rate_qa17 = 3', 'rate_qa17 = 5') });
      assert.ok((await c.ingest()).encoded_tokens > 0);
    }));

  test('ranges after emoji and wide characters', () =>
    withCase(tinyModel, async (c) => {
      const comments = { ts: '//', py: '#', go: '//', rs: '//' };
      const functions = {
        ts: (name: string, n: number) => `export function ${name}() { return ${n}; }\n`,
        py: (name: string, n: number) => `def ${name}(): return ${n}\n`,
        go: (name: string, n: number) => `func ${name}() int { return ${n} }\n`,
        rs: (name: string, n: number) => `pub fn ${name}() -> i32 { return ${n}; }\n`,
      };
      for (const [extension, definition] of Object.entries(functions)) {
        const line = `${comments[extension as keyof typeof comments]} 🚀🚀🚀🚀🚀 設定 é\n`;
        c.write({ [`e.${extension}`]: line.repeat(200) + definition('afterEmoji', 8123) + line.repeat(200) + definition('lastOne', 8124) });
      }
      await c.ingest();
      await c.nothingIsLeft();
      const versions = await manifestVersions(c);
      for (const extension of Object.keys(functions)) {
        const name = `e.${extension}`;
        const bytes = readFileSync(c.path(name));
        const segments = versions[name]!;
        // Byte for byte the file: each begins where the last one ended, on a border of characters, and lines are counted right.
        let at = 0;
        for (const { startByte, endByte, startLine, endLine } of segments) {
          assert.equal(startByte, at, name);
          const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(startByte, endByte));
          assert.equal(startLine, bytes.subarray(0, startByte).toString().split('\n').length, name);
          assert.equal(endLine, startLine + text.replace(/\n$/, '').split('\n').length - 1, name);
          at = endByte;
        }
        assert.equal(at, bytes.length, name);
        for (const [word, line] of [['afterEmoji', 201], ['lastOne', 402]] as const) {
          const holder = segments.find(({ startByte, endByte }) => bytes.subarray(startByte, endByte).toString().includes(word))!;
          assert.ok(holder.startLine <= line && line <= holder.endLine, `${name}: ${word} in ${JSON.stringify(holder)}`);
          assert.ok(holder.endLine <= 402);
        }
      }
      for (const { path: name, start_line, end_line } of (await c.ask('Where is `afterEmoji` defined?')).sources) {
        assert.ok(start_line >= 1 && start_line <= end_line && end_line <= 402, `${name}:${start_line}-${end_line}`);
      }
    }));
});

interface Range {
  readonly startByte: number;
  readonly endByte: number;
  readonly startLine: number;
  readonly endLine: number;
}

/** Segments of each file, as the store has them written down. */
async function manifestVersions(c: Case): Promise<Record<string, Range[]>> {
  const dir = c.storeFolder();
  const { sala } = await readModelFolder(tinyModel);
  const engine = await loadAddon().load({ modelDir: tinyModel, activations: 'int8', threads: 1, store: { dir, identity: path.basename(dir) }, reading: sala.read });
  try {
    const { store } = engine;
    assert.ok(store, engine.storeFailure?.message);
    const rangesOf = new Map<string, Range[]>();
    const nameOf = (key: string): string => key.slice(key.indexOf('/') + 1);
    for (const [key, value] of await store.records('versions', '')) {
      const [, ...rows] = JSON.parse(value) as [number, ...[string, number, number, number, number][]];
      rangesOf.set(nameOf(key), rows.map(([, startByte, endByte, startLine, endLine]) => ({ startByte, endByte, startLine, endLine })));
    }
    const files = (await store.records('files', '')).map(([key, value]) => [nameOf(key), (JSON.parse(value) as string[])[3]!] as const);
    store.close();
    return Object.fromEntries(files.map(([name, key]) => [name, rangesOf.get(key)!]));
  } finally {
    await engine.close();
  }
}

/** Inotify watches that a process has. */
function inotifyWatches(pid: number): number {
  const folder = `/proc/${pid}/fdinfo`;
  const infos = readdirSync(folder).map((fd) => readFileSync(path.join(folder, fd), 'utf8'));
  return infos.reduce((n, text) => n + (text.match(/^inotify wd/gm)?.length ?? 0), 0);
}
