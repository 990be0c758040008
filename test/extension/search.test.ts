// Search over real folders: whole words wherever they stand, "nowhere" exactly, and an order that puts what matters first.

import assert from 'node:assert/strict';
import { mkdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import type { ExclusionRule } from '../../extension/engine/messages';
import { ReadingBudget, WorkspaceSearch, type FileName, type SearchFile } from '../../extension/engine/workspace/search';
import { folder, write as writeFiles } from './folder';

function write(root: string, files: Record<string, string | Uint8Array>, rules: Record<string, ExclusionRule> = {}): SearchFile[] {
  writeFiles(root, files);
  return Object.keys(files).map((path) => {
    const { size, mtimeMs } = statSync(join(root, path));
    const rule = rules[path];
    return { root, path, bytes: size, mtimeMs, ...(rule === undefined ? {} : { rule }) };
  });
}

async function searching(files: SearchFile[], cacheBytes?: number): Promise<WorkspaceSearch> {
  const search = new WorkspaceSearch(cacheBytes === undefined ? {} : { cacheBytes });
  await search.setFiles(files);
  return search;
}

const shown = (places: readonly { path: string; line: number; rule?: string }[]): string[] =>
  places.map(({ path, line, rule }) => `${path}:${line}${rule ? ` (${rule})` : ''}`);

test('every place of a word, whole and case-sensitive, excluded files named', async (t) => {
  const root = folder(t);
  const files = write(
    root,
    {
      'a.ts': 'const limit = 1;\nlimits; Limit;\n\nlimit + limit;\nmy_limit; limit2; $limit\n',
      'b.py': 'x = limit',
      'package-lock.json': '{"limit": 1}\n',
      'gen.ts': '// Code generated. DO NOT EDIT.\nlimit\n',
      'image.png': new Uint8Array([0x89, 0x50, 0, 0, ...Buffer.from(' limit ')]),
      'latin.txt': Buffer.from('caf\u00e9\nlimit\n', 'latin1'),
      'ignored.ts': 'limit\n',
      'wörter.md': 'größelimit limitgröße „limit“ limit—limit\nlimit…',
    },
    { 'package-lock.json': 'lock_file', 'ignored.ts': 'ignored' },
  );
  const { places, complete } = await (await searching(files)).findWord('limit');
  assert.deepEqual(shown(places), [
    'a.ts:1',
    'a.ts:4',
    'b.py:1',
    'package-lock.json:1 (lock_file)',
    'gen.ts:2 (generated)',
    'latin.txt:2 (not_utf8)',
    'wörter.md:1',
    'wörter.md:2',
  ]);
  assert.equal(complete, true);
  const cut = await (await searching(files)).findWord('limit', { limit: 3 });
  assert.deepEqual([cut.places.length, cut.complete], [3, false]);
});

test('a text too large to be read is searched piece by piece', async (t) => {
  const root = folder(t);
  const line = 'an ordinary line of a log, größer als sonst\n';
  const big = line.repeat(60_000) + 'deep_needle here\n' + line.repeat(30_000) + 'last_needle';
  const oneLine = 'word '.repeat(400_000) + 'deep_needle ' + 'x'.repeat(3 << 20) + ' last_needle';
  const files = write(root, { 'big.log': big, 'line.txt': oneLine }, { 'big.log': 'too_large', 'line.txt': 'too_large' });
  for (const cacheBytes of [0, 1 << 20]) {
    const search = await searching(files, cacheBytes);
    assert.deepEqual(shown((await search.findWord('deep_needle')).places), ['big.log:60001 (too_large)', 'line.txt:1 (too_large)']);
    assert.deepEqual(shown((await search.findWord('last_needle')).places), ['big.log:90002 (too_large)', 'line.txt:1 (too_large)']);
    assert.deepEqual((await search.findWord('no_needle')).places, []);
    assert.equal((await search.findWord('größer')).places.length, 1000, 'as many as the limit allows');
  }
});

const alphabet = ['foo', 'Foo', 'foo_bar', 'fooBar', 'bar', 'b', 'x1', '$x', 'é', '設定', 'größe', 'HTTPServer'];
const separators = [' ', '\n', '.', '::', '(', ')', '-', '…', '"', '\r\n', '、', '\t'];

test('the same places as a plain look at every word', async (t) => {
  const root = folder(t);
  const text = fc.array(fc.tuple(fc.constantFrom(...alphabet), fc.constantFrom(...separators)), { maxLength: 40 }).map((parts) => parts.flat().join(''));
  await fc.assert(
    fc.asyncProperty(fc.array(text, { minLength: 1, maxLength: 5 }), fc.constantFrom(...alphabet, 'absent'), async (texts, word) => {
      const search = await searching(write(root, Object.fromEntries(texts.map((text, i) => [`f${i}.txt`, text]))));
      const expected = texts.flatMap((text, i) =>
        text.split('\n').flatMap((line, n) => (line.split(/[ .:()\-…"\r、\t]/).includes(word) ? [`f${i}.txt:${n + 1}`] : [])),
      );
      assert.deepEqual(shown((await search.findWord(word)).places), expected);
      assert.equal((await search.occurring([word])).found.has(word), expected.length > 0);
      assert.deepEqual(shown((await search.findWord(word)).places), expected, 'and again, from signatures and cache');
    }),
    { numRuns: 60 },
  );
});

test('words that occur, sources first, and misspelled ones', async (t) => {
  const root = folder(t);
  const search = await searching(write(root, { 'a.ts': 'const ringBuffer = makeRing();', 'b.ts': 'parseHeader(); retry_limit = 3' }));
  const { found, complete } = await search.occurring(['ringBuffer', 'parseHeader', 'ringbuffer', 'parse', 'nowhere_9'], { first: [{ root, path: 'b.ts' }] });
  assert.deepEqual([[...found].sort(), complete], [['parseHeader', 'ringBuffer'], true]);
  assert.deepEqual(await search.similarWords('ringbuffer'), ['ringBuffer']);
  assert.deepEqual(await search.similarWords('parseHaeder'), ['parseHeader']);
  assert.deepEqual(await search.similarWords('retry_limits'), ['retry_limit']);
  assert.deepEqual(await search.similarWords('entirely_else'), []);
});

test('changes, unsaved documents, and files that go', async (t) => {
  const root = folder(t);
  const files = write(root, { 'a.ts': 'old_name', 'b.ts': 'other' });
  const search = await searching(files);
  assert.equal((await search.findWord('old_name')).places.length, 1);
  search.setText({ root, path: 'a.ts' }, 'new_name\nunsaved_name');
  assert.deepEqual(shown((await search.findWord('unsaved_name')).places), ['a.ts:2']);
  assert.equal((await search.findWord('old_name')).places.length, 0);
  search.setText({ root, path: 'a.ts' }, null);
  assert.equal((await search.findWord('old_name')).places.length, 1);
  const [changed] = write(root, { 'a.ts': 'saved_name!' });
  search.updateFiles([changed!], [{ root, path: 'b.ts' }]);
  assert.deepEqual((await search.occurring(['old_name', 'saved_name', 'other'])).found, new Set(['saved_name']));
  rmSync(join(root, 'a.ts'));
  search.updateFiles([], []);
  assert.equal((await search.findWord('saved_name')).complete, true);
});

test('a change while it searches leaves nothing stale behind', async (t) => {
  const root = folder(t);
  const texts = Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`f${i}.ts`, `first_${i}`]));
  const search = await searching(write(root, texts));
  const searching1 = search.rankFiles('first_1');
  search.setText({ root, path: 'f1.ts' }, 'second_1');
  const changed = write(root, { 'f2.ts': 'second_number_2' });
  search.updateFiles(changed);
  await searching1;
  assert.deepEqual(shown((await search.findWord('second_1')).places), ['f1.ts:1']);
  assert.deepEqual(shown((await search.findWord('second_number_2')).places), ['f2.ts:1']);
  assert.deepEqual((await search.occurring(['first_1', 'first_2', 'first_3'])).found, new Set(['first_3']));
});

test('a notebook is searched by its cells', async (t) => {
  const root = folder(t);
  const notebook = { cells: [{ cell_type: 'code', source: 'a = 1\nrate_qa17 = 3', outputs: [{ text: 'out_only' }] }], metadata: {} };
  const search = await searching(write(root, { 'n.ipynb': JSON.stringify(notebook) }));
  assert.deepEqual(shown((await search.findWord('rate_qa17')).places), ['n.ipynb:3']);
  assert.deepEqual((await search.findWord('out_only')).places, []);
});

test('paths that a mention may mean', async () => {
  const root = '/w';
  const paths = ['lib/ring.c', 'src/util.ts', 'first/path/to/app.c', 'second/app.c', 'lib/app.c/readme.txt', 'util.ts'];
  const search = await searching(paths.map((path) => ({ root, path, bytes: 1, mtimeMs: 1 })));
  const resolved = async (mention: string): Promise<string[]> => (await search.resolvePaths([mention])).get(mention)!.map(({ path }) => path);
  assert.deepEqual(await resolved('ring.c'), ['lib/ring.c']);
  assert.deepEqual(await resolved('./lib/ring.c'), ['lib/ring.c']);
  assert.deepEqual(await resolved('lib\\ring.c'), ['lib/ring.c']);
  assert.deepEqual(await resolved('/w/lib/ring.c'), ['lib/ring.c']);
  assert.deepEqual(await resolved('app.c'), ['first/path/to/app.c', 'second/app.c']);
  assert.deepEqual(await resolved('to/app.c'), ['first/path/to/app.c']);
  assert.deepEqual(await resolved('util.ts'), ['util.ts'], 'the very path, not what ends in it');
  assert.deepEqual(await resolved('src/missing.c'), []);
  assert.deepEqual(await resolved('ing.c'), []);
});

test('definitions, names and paths come before mere uses', async (t) => {
  const root = folder(t);
  const uses = 'import x\n' + 'call(retry_limit)\n'.repeat(20);
  const texts: Record<string, string> = {
    'use1.py': uses,
    'use2.py': uses,
    'config.py': '# settings\nretry_limit = 3\n',
    'net/http_server.go': 'package net\nfunc (s *Server) Listen(port int) error {\n\treturn nil\n}\n',
    'net/other.go': 'package net\n// calls Listen\nfunc run() { s.Listen(1); s.Listen(2) }\n',
    'lib/ring.c': 'static int ring_push(struct ring *r, int v) {\n  return 0;\n}\n',
    'lib/use.c': 'int main() {\n  ring_push(r, 1);\n  ring_push(r, 2);\n  return ring_push(r, 3);\n}\n',
    'docs/a.md': 'The server listens and retries. Limits apply to pushing into a ring.\n',
  };
  for (let i = 0; i < 60; i++) texts[`filler/f${i}.ts`] = `export function helper${i}(value: number) { return value + ${i}; }\n`;
  const search = await searching(write(root, texts));
  const first = async (question: string): Promise<string | undefined> => (await search.rankFiles(question))[0]?.path;
  assert.equal(await first('Where is retry_limit defined?'), 'config.py');
  assert.equal(await first('What is the limit for a retry?'), 'config.py');
  assert.equal(await first('How does `Listen` work?'), 'net/http_server.go');
  assert.equal(await first('What does ring_push do?'), 'lib/ring.c');
  assert.equal(await first('Explain the http server'), 'net/http_server.go');
  assert.equal(await first('What does helper42 return?'), 'filler/f42.ts');
  assert.deepEqual(await search.rankFiles('the of is'), []);
  assert.deepEqual(await search.rankFiles('xyzzy_nowhere'), []);
});

test('excluded files are never ranked, whoever found it out', async (t) => {
  const root = folder(t);
  const files = write(root, { 'a.ts': 'probe_word', 'gen.ts': '// @generated\nprobe_word', 'x.lock': 'probe_word' }, { 'x.lock': 'lock_file' });
  const search = await searching(files);
  for (let i = 0; i < 2; i++) assert.deepEqual((await search.rankFiles('probe_word')).map(({ path }) => path), ['a.ts']);
});

test('the segment that defines what is asked for', async (t) => {
  const root = folder(t);
  const block = (name: string): string => `/** Does ${name}. */\nfunction ${name}() {\n  return helper('${name}');\n}\n\n`;
  const files = write(root, { 'a.ts': ['alpha', 'beta', 'gamma'].map(block).join(''), 'b.ts': 'alpha(); beta(); gamma();\n'.repeat(5) });
  const search = await searching(files);
  const segments = [
    { root, path: 'a.ts', segments: [1, 6, 11].map((start_line) => ({ start_line, end_line: start_line + 4 })) },
    { root, path: 'b.ts', segments: [{ start_line: 1, end_line: 5 }] },
  ];
  for (const [index, name] of ['alpha', 'beta', 'gamma'].entries()) {
    const [best] = await search.rankSegments(`Where is ${name}() defined?`, segments);
    assert.deepEqual([best?.path, best?.segmentIndex], ['a.ts', index]);
  }
  const all = await search.rankSegments('beta', segments);
  assert.deepEqual(all.map(({ path, segmentIndex }) => `${path}#${segmentIndex}`), ['a.ts#1', 'b.ts#0']);
});

test('signatures seldom promise what is not there', async (t) => {
  const root = folder(t);
  const files = write(root, Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`f${i}.ts`, Array.from({ length: 300 }, (_, j) => `name_${i}_${j}`).join(' ')])));
  const search = await searching(files, 0);
  await search.rankFiles('name_1_1');
  for (const { path } of files) rmSync(join(root, path));
  for (const { path } of files) mkdirSync(join(root, path));
  // Whatever is opened now fails, so completeness tells how many files were: here, that of 40 × 100 look-ups few were needed.
  let opened = 0;
  for (let i = 0; i < 100; i++) if (!(await search.occurring([`absent${i}x`])).complete) opened++;
  assert.ok(opened < 60, `${opened} of 100 words absent from 40 files made it open one; 33 are expected at 1 %`);
});

test('a small cache changes nothing but speed, and stays small', async (t) => {
  const root = folder(t);
  const texts: Record<string, string> = {};
  for (let i = 0; i < 200; i++) texts[`d/f${i}.ts`] = `export const value_${i} = ${i};\n${'// some words that fill the file\n'.repeat(100)}`;
  const files = write(root, texts);
  const small = await searching(files, 20_000);
  const large = await searching(files);
  for (const question of ['value_7', 'value_199 words', 'some file of words']) assert.deepEqual(await small.rankFiles(question), await large.rankFiles(question));
  assert.ok(small.heldBytes < 20_000 + 200 * 400, `${small.heldBytes}`);
});

test('stops when told', async (t) => {
  const root = folder(t);
  const files = write(root, Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`f${i}.ts`, `word${i}`])));
  const signal = AbortSignal.abort(new Error('enough'));
  await assert.rejects((await searching(files)).rankFiles('word1', { signal }), /enough/);
  await assert.rejects((await searching(files)).findWord('word1', { signal }), /enough/);
});

/** So many files, and all in `memory/`. */
function budgetOf(root: string, files: number, near: readonly FileName[] = []): ReadingBudget {
  return new ReadingBudget({ files, bytes: 1 << 20 }, Infinity, () => [0, 1, 2].map((i) => ({ root, path: `memory/f${i}.ts` })), near);
}

test('within a budget the likeliest are searched, the rest is said to be left and searched later', async (t) => {
  const root = folder(t);
  const texts: Record<string, string> = {};
  for (let i = 0; i < 30; i++) texts[`far/f${i}.ts`] = `wanted far_${i}`;
  for (let i = 0; i < 3; i++) texts[`memory/f${i}.ts`] = 'wanted';
  Object.assign(texts, { 'here/open.ts': 'wanted', 'here/beside.ts': 'wanted', 'here/below/f.ts': 'wanted', 'z/wanted.ts': 'wanted', 'wanted/f.ts': 'wanted' });
  const files = write(root, texts);
  const near = [{ root, path: 'here/open.ts' }];
  for (const [nFiles, expected] of [
    [0, ['memory/f0.ts', 'memory/f1.ts', 'memory/f2.ts']],
    [1, ['memory/f0.ts', 'memory/f1.ts', 'memory/f2.ts', 'z/wanted.ts']],
    [4, ['here/beside.ts', 'here/open.ts', 'memory/f0.ts', 'memory/f1.ts', 'memory/f2.ts', 'wanted/f.ts', 'z/wanted.ts']],
    [5, ['far/f0.ts', 'here/beside.ts', 'here/open.ts', 'memory/f0.ts', 'memory/f1.ts', 'memory/f2.ts', 'wanted/f.ts', 'z/wanted.ts']],
  ] as const) {
    const search = await searching(files);
    const reading = budgetOf(root, nFiles, near);
    const { places, complete } = await search.findWord('wanted', { reading });
    assert.deepEqual([places.map(({ path }) => path).sort(), complete, reading.passedOver], [expected, false, files.length - expected.length]);
    // What was told is known from then on; another request goes on from there.
    const { found } = await search.occurring(['far_29', 'far_0'], { reading: budgetOf(root, 0) });
    assert.deepEqual([...found], nFiles === 5 ? ['far_0'] : []);
    await search.readOn();
    const again = budgetOf(root, 0);
    const all = await search.findWord('wanted', { reading: again });
    assert.deepEqual([all.places.length, all.complete, again.passedOver], [files.length, true, 0]);
  }
});

test('a budget that suffices, or none, leaves nothing out; bytes and time count too', async (t) => {
  const root = folder(t);
  const files = write(root, Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`word${i}.ts`, `word word${i}`])));
  const all = budgetOf(root, 50);
  assert.deepEqual([(await (await searching(files)).findWord('word', { reading: all })).complete, all.passedOver], [true, 0]);
  assert.equal((await (await searching(files)).findWord('word')).complete, true);
  for (const reading of [
    new ReadingBudget({ files: 50, bytes: 30 }, Infinity, () => []),
    new ReadingBudget({ files: 50, bytes: 1 << 20 }, -1, () => []),
  ]) {
    const { places, complete } = await (await searching(files)).findWord('word', { reading });
    assert.deepEqual([complete, places.length + reading.passedOver], [false, 50]);
  }
  const ranked = await (await searching(files)).rankFiles('word7', { reading: budgetOf(root, 1) });
  assert.deepEqual(ranked.map(({ path }) => path), ['word7.ts'], 'named like it, so read');
});

test('a path is known by any of its words or their parts, in any case and number', async (t) => {
  const root = folder(t);
  const names = ['HTTPServers.ts', 'parsed_rings.ts', 'größe.ts', '$scope.ts', 'Retry/limit2.ts', 'makeEntries.ts'];
  const search = await searching(write(root, Object.fromEntries(names.map((name) => [name, 'nothing']))));
  for (const [question, path] of [
    ['the http server', 'HTTPServers.ts'],
    ['parsing', 'parsed_rings.ts'],
    ['Ring', 'parsed_rings.ts'],
    ['größe', 'größe.ts'],
    ['`$scope`', '$scope.ts'],
    ['retries and retry', 'Retry/limit2.ts'],
    ['limit2', 'Retry/limit2.ts'],
    ['MAKE', 'makeEntries.ts'],
  ] as const) {
    assert.deepEqual((await search.rankFiles(question)).map((file) => file.path), [path], question);
  }
});

test('files that change while the list of all is replaced are as they were told last', async (t) => {
  const root = folder(t);
  const files = write(root, Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`d${i % 9}/f${i}.ts`, i < 20 ? `first_${i}` : ''])));
  const search = await searching(files);
  search.setText({ root, path: 'd1/f1.ts' }, 'unsaved_1');
  function* slowly(): Iterable<SearchFile> {
    for (const [i, file] of files.entries()) {
      // Some have had their turn by then, some have not.
      if (i === 10) {
        search.updateFiles(write(root, { 'd3/f3.ts': 'second_number_3', 'd6/f15.ts': 'second_number_15' }), [{ root, path: 'd2/f2.ts' }]);
        search.setText({ root, path: 'd4/f4.ts' }, 'unsaved_4');
        search.setText({ root, path: 'd7/f16.ts' }, 'unsaved_16');
      }
      if (file.path !== 'd5/f5.ts' && (i < 10 || file.path !== 'd6/f15.ts')) yield file;
    }
  }
  await search.setFiles(slowly());
  const { found } = await search.occurring(['first_0', 'first_1', 'first_2', 'first_3', 'first_4', 'first_5', 'first_15', 'first_16', 'first_19']);
  assert.deepEqual([...found].sort(), ['first_0', 'first_19']);
  const now = await search.occurring(['unsaved_1', 'second_number_3', 'unsaved_4', 'second_number_15', 'unsaved_16']);
  assert.equal(now.found.size, 5);
  const resolved = await search.resolvePaths(['f2.ts', 'f5.ts', 'f3.ts']);
  assert.deepEqual([...resolved.values()], [[], [], [{ root, path: 'd3/f3.ts' }]]);
});
