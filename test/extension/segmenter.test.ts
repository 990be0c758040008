// Segmenter: segments are the file, byte for byte, fit the model and depend on the bytes alone; a small edit costs little.

import fc from 'fast-check';
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { before, test } from 'node:test';
import { assetPath } from '../../extension/engine/assets';
import type { ModelFolder } from '../../extension/engine/model-folder';
import { linesOf, type Tokenizer } from '../../extension/engine/tokenizer';
import { grammarFor, type Grammar } from '../../extension/engine/workspace/grammars';
import { cutFile, type SegmentCut } from '../../extension/engine/workspace/segmenter';
import { embeddedModel } from './model';

let folder: ModelFolder;
let tokenizer: Tokenizer;
before(async () => {
  ({ folder, tokenizer } = await embeddedModel());
});

async function cut(file: string, text: string | Uint8Array, grammar?: Grammar): Promise<SegmentCut[]> {
  const bytes = typeof text === 'string' ? Buffer.from(text) : text;
  return cutFile(file, bytes, { tokenizer, segment: folder.sala.segment, grammar: grammar ?? (await grammarFor(file)) });
}

/** Everything that must hold of any file's segments. */
async function check(file: string, text: string, grammar?: Grammar): Promise<SegmentCut[]> {
  const bytes = Buffer.from(text);
  const segments = await cut(file, bytes, grammar);
  const header = tokenizer.encodeTemplate(folder.sala.segment.header, { path: file });
  const nLines = linesOf(text).length;
  const tokens: number[] = [];
  let end = 0;
  for (const segment of segments) {
    assert.equal(segment.startByte, end, 'no gap, no overlap');
    end = segment.endByte;
    assert.ok(end > segment.startByte);
    assert.ok(segment.tokens.length <= folder.sala.segment.max_tokens);
    assert.deepEqual(segment.tokens.slice(0, segment.headerTokens), header);
    const own = segment.tokens.slice(segment.headerTokens);
    tokens.push(...own);
    assert.ok(Buffer.from(tokenizer.decodeBytes(own)).equals(bytes.subarray(segment.startByte, end)));
    const before = bytes.subarray(0, segment.startByte).filter((byte) => byte === 10).length;
    const within = bytes.subarray(segment.startByte, end - 1).filter((byte) => byte === 10).length;
    assert.deepEqual([segment.startLine, segment.endLine], [before + 1, before + within + 1]);
    assert.ok(segment.endLine <= nLines);
  }
  assert.equal(end, bytes.length);
  assert.deepEqual(tokens, [...tokenizer.encodeLines(text).tokens]);
  return segments;
}

const repository = path.resolve(assetPath('..'));

/** Sources at hand: our own, those of our packages, and the system's where it has some. At most `each` of a kind. */
function sources(each: number): { file: string; text: string }[] {
  const found = new Map<string, { file: string; text: string }[]>();
  const places = ['extension', 'kernels', 'native', 'node_modules', '/usr/lib/python3', '/usr/include/c++'];
  for (const place of places.map((name) => path.resolve(repository, name)).filter(existsSync)) {
    for (const entry of readdirSync(place, { recursive: true, withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const kind = /\.(d\.ts|ts|js|py|c|h|cpp|css|md|json)$/.exec(entry.name)?.[1];
      const list = kind === undefined ? undefined : (found.get(kind) ?? found.set(kind, []).get(kind));
      if (list === undefined || list.length >= each || !entry.isFile() || /\bmin\.|min\.css/.test(entry.name)) continue;
      const text = readFileSync(path.join(entry.parentPath, entry.name), 'utf8');
      if (text.length < 4_000 || text.length > 60_000 || text.includes('\ufffd') || /[^\n]{2000}/.test(text)) continue;
      list.push({ file: `src/${entry.name}`, text });
    }
  }
  return [...found.values()].flat();
}

test('segments are the file, for real sources', async () => {
  const files = sources(4);
  assert.ok(files.length >= 20);
  let nTokens = 0;
  let nSegments = 0;
  for (const { file, text } of files) {
    for (const segment of await check(file, text)) {
      nTokens += segment.tokens.length;
      nSegments++;
    }
  }
  const mean = nTokens / nSegments;
  assert.ok(mean > 200 && mean < 350, `mean segment: ${mean} tokens`);
});

test('segments are the file, for any text', async () => {
  const line = fc.oneof(
    fc.constantFrom('', '}', '\t', '  ', 'def f():', '    return 1', '# Heading', '```', 'function f() {', '/* a', '*/', '"""'),
    fc.string({ unit: 'binary', maxLength: 60 }),
    fc.string({ maxLength: 5 }).map((unit) => unit.repeat(400)),
  );
  const text = fc.array(fc.tuple(line, fc.constantFrom('\n', '\r\n', '\r', '\n\n')), { maxLength: 60 });
  // Whatever a grammar says: the parser itself is another test's (tokenizer-worker), since nonsense may use it up.
  const nesting = (depths: readonly number[]): Grammar => ({
    name: 'any',
    nesting: (_, nLines) => {
      const depth = Uint16Array.from({ length: Math.max(0, nLines - 1) }, (_, i) => depths[i % depths.length] ?? 0);
      return { depth, attached: Uint8Array.from(depth, (value) => value & 1) };
    },
  });
  await fc.assert(
    fc.asyncProperty(fc.constantFrom('a.md', 'a.txt', 'a.any'), text, fc.array(fc.nat(9)), async (file, lines, depths) => {
      const grammar = file === 'a.any' ? nesting(depths) : undefined;
      const segments = await check(file, lines.flat().join(''), grammar);
      assert.deepEqual(await cut(file, lines.flat().join(''), grammar), segments);
    }),
    { numRuns: 150, verbose: 1 },
  );
});

test('byte order mark and CRLF stay; an empty file has no segments', async () => {
  assert.deepEqual(await cut('a.ts', ''), []);
  const text = '\ufeffconst a = 1;\r\nconst b = 2;\r\n';
  const [segment, ...rest] = await check('a.ts', text);
  assert.equal(rest.length, 0);
  assert.equal(tokenizer.decode(segment!.tokens.slice(segment!.headerTokens)), text);
});

test('bytes that are not UTF-8 are refused, not changed', async () => {
  await assert.rejects(cut('a.ts', Uint8Array.of(0x61, 0xff)));
});

test('a line longer than a segment is split between characters', async () => {
  const segments = await check('a.txt', `short\n${'設定🚀'.repeat(3000)}\nshort\n`);
  assert.ok(segments.length > 10);
  for (const { tokens, headerTokens } of segments) assert.ok(!tokenizer.decode(tokens.slice(headerTokens)).includes('\ufffd'));
});

test('an edit in a line longer than a segment costs a few segments', async () => {
  const words = Array.from({ length: 20_000 }, (_, i) => `w${(i * 7919) % 10_007}`);
  const had = new Set((await cut('a.txt', words.join(' '))).map(({ tokens }) => tokens.join()));
  words.splice(1000, 1, 'another', 'word');
  const added = (await cut('a.txt', words.join(' '))).filter(({ tokens }) => !had.has(tokens.join()));
  assert.ok(had.size > 100 && added.length <= 4, `${added.length} of ${had.size} segments`);
});

test('functions are not parted where the file offers other places', async () => {
  const body = Array.from({ length: 12 }, (_, i) => `    total += step(${i});\n`).join('');
  const text = Array.from({ length: 40 }, (_, i) => `/** Adds up number ${i}. */\nfunction sum${i}() {\n${body}}\n\n`).join('');
  for (const segment of await check('sum.js', text)) {
    const own = tokenizer.decode(segment.tokens.slice(segment.headerTokens));
    assert.match(own, /^\/\*\* Adds/);
    assert.match(own, /\n}\n\n$/);
  }
  const markdown = Array.from({ length: 60 }, (_, i) => `## Part ${i}\n\n${`Sentence of part ${i}. `.repeat(12)}\n\n`).join('');
  for (const segment of await check('a.md', markdown)) {
    assert.match(tokenizer.decode(segment.tokens.slice(segment.headerTokens)), /^## Part/);
  }
});

test('text that repeats, and a path longer than a segment, are no trouble', async () => {
  const began = performance.now();
  await check('a.txt', '\n'.repeat(100_000));
  await check('a.py', 'x = 1\n'.repeat(20_000));
  assert.ok(performance.now() - began < 20_000);
  const deep = `${'very/long/path/'.repeat(300)}file.ts`;
  const [segment] = await cut(deep, 'const a = 1;\n');
  assert.ok(segment!.tokens.length <= folder.sala.segment.max_tokens);
  assert.match(tokenizer.decode(segment!.tokens), /…[^\n]*\/file\.ts\nconst a = 1;\n$/);
});

test('an edit of 1–4 lines costs at most 400 tokens in the median and 1,000 at p95', async () => {
  const seed = Number(process.env['SALA_SEED'] ?? 20_240_601);
  const random = generator(seed);
  const files = sources(6);
  const before = new Map<string, Set<string>>();
  const costs: number[] = [];
  for (let i = 0; i < 1000; i++) {
    const { file, text } = files[random(files.length)]!;
    const lines = linesOf(text);
    let had = before.get(text);
    if (had === undefined) before.set(text, (had = new Set((await cut(file, text)).map(({ tokens }) => tokens.join()))));
    const n = 1 + random(4);
    const at = random(lines.length);
    const other = linesOf(files[random(files.length)]!.text);
    const from = random(other.length);
    if (i % 3 === 0) lines.splice(at, 0, ...other.slice(from, from + n));
    else if (i % 3 === 1) lines.splice(at, n);
    else for (let k = at; k < Math.min(at + n, lines.length); k++) lines[k] = lines[k]!.replace(/\w+|$/, `changed_${i}`);
    const added = (await cut(file, lines.join(''))).filter(({ tokens }) => !had.has(tokens.join()));
    costs.push(added.reduce((sum, { tokens }) => sum + tokens.length, 0));
  }
  costs.sort((a, b) => a - b);
  const said = `${files.length} files, seed ${seed}: median ${costs[500]}, p95 ${costs[950]}`;
  console.log(said);
  assert.ok(costs[500]! <= 400 && costs[950]! <= 1000, said);
});

/** Numbers in [0, n), by a linear congruential generator (Numerical Recipes). */
function generator(seed: number): (n: number) => number {
  let state = seed >>> 0;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}
