// The completer around a scripted engine that checks how it is used: what is run for which text, what is kept, what is cancelled,
// and that every tail is released. And around the real one with the tiny model, where a figure is compared with a fresh run's.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { DecodeOptions, DecodeResult, Job, NativeEngine, PrefillOptions, PrefillResult, ReadInput, TailInput } from '../../extension/engine/addon';
import type { ClientSessionOver } from '../../extension/engine/client-session';
import { Completer } from '../../extension/engine/completion/complete';
import { importedPaths } from '../../extension/engine/completion/view';
import { loadCore } from '../../extension/engine/core';
import { EngineError } from '../../extension/engine/errors';
import type { CompleteParams, ExclusionRule } from '../../extension/engine/messages';
import { readModelFolder, type ModelFolder } from '../../extension/engine/model-folder';
import { Tokenizer } from '../../extension/engine/tokenizer';

const tiny = path.resolve('test/fixtures/tiny');
let model: ModelFolder;
let tokenizer: Tokenizer;
before(async () => {
  model = await readModelFolder(tiny);
  tokenizer = new Tokenizer(model);
});

interface FakeTail {
  readonly view: readonly number[];
  tokens: number[];
  busy: boolean;
  failed: boolean;
}

/** Answers with scripted text, after so many milliseconds; a misuse fails the test. */
class FakeNative {
  readonly info = { eosTokenIds: [] as number[] };
  readonly tails = new Map<number, FakeTail>();
  readonly log: string[] = [];
  readonly reads: ReadInput[] = [];
  readonly prefilled: { tokens: number; priority: string }[] = [];
  readonly misuse: string[] = [];
  readonly prompts: string[] = [];
  prefillMs = 1;
  says = 'done();\n';
  wouldSay: string[] = [];
  /** Code that the first prefill of a tail with these segments fails with. */
  damaged: number | undefined;
  /** More tails than this do not fit into memory. */
  mostTails = Infinity;
  /** Handles that nobody holds any more: asking for one is refused. */
  readonly released = new Set<number>();
  atWork = 0;
  mostAtWork = 0;
  private next = 0;

  get lastPrompt(): string {
    return this.prompts.at(-1) ?? '';
  }

  private get(tail: number): FakeTail {
    const found = this.tails.get(tail);
    if (!found) throw new Error(this.misused(`tail ${tail} is none`));
    if (found.busy) this.misused(`tail ${tail} is busy`);
    if (found.failed) this.misused(`tail ${tail} was broken off`);
    return found;
  }

  private misused(what: string): string {
    this.misuse.push(what);
    return what;
  }

  /** Ends with what `work` returns once it is `ready`, unless it was cancelled before. */
  private job<T>(ready: Promise<unknown>, work: () => T, broken: () => void): Job<T> {
    this.atWork++;
    this.mostAtWork = Math.max(this.mostAtWork, this.atWork);
    let cancel: () => void = () => {};
    const done = new Promise<T>((resolve, reject) => {
      let over = false;
      const end = (how: () => void): void => {
        if (over) return;
        over = true;
        this.atWork--;
        how();
      };
      void ready.then(() => end(() => {
        try {
          resolve(work());
        } catch (error) {
          reject(error);
        }
      }));
      cancel = () => end(() => {
        broken();
        reject(Object.assign(new Error('cancelled'), { code: 'cancelled' }));
      });
    });
    return { done, cancel };
  }

  read(input: ReadInput): Job<Float32Array> {
    this.log.push(`read ${input.priority}`);
    this.reads.push(input);
    // The higher the handle, the larger the share.
    const shares = (): Float32Array => Float32Array.from(input.segments, (handle) => this.held(handle) / 1000);
    return this.job(delay(this.prefillMs), shares, () => {});
  }

  private held(handle: number): number {
    if (this.released.has(handle)) throw new EngineError('invalid_argument', this.misused(`segment ${handle} is not in memory`));
    return handle;
  }

  createTail(input: TailInput): number {
    input.view.forEach((handle) => this.held(handle));
    this.log.push(`create ${[...input.view].join()}`);
    this.tails.set(this.next, { view: [...input.view], tokens: [], busy: false, failed: false });
    return this.next++;
  }

  forkTail(from: number): number {
    const { view, tokens } = this.get(from);
    this.tails.set(this.next, { view, tokens: [...tokens], busy: false, failed: false });
    return this.next++;
  }

  releaseTail(tail: number): void {
    if (!this.tails.delete(tail)) this.misused(`tail ${tail} is released twice`);
  }

  prefill(id: number, tokens: Int32Array, { priority, logits }: PrefillOptions): Job<PrefillResult> {
    const tail = this.get(id);
    if (tokens.length === 0) this.misused('nothing to prefill');
    tail.busy = true;
    this.prefilled.push({ tokens: tokens.length, priority });
    return this.job(
      delay(this.prefillMs),
      () => {
        tail.busy = false;
        if (this.tails.size > this.mostTails) throw new EngineError('out_of_memory', 'no room');
        if (this.damaged !== undefined && tail.view.includes(this.damaged)) throw new EngineError('store_invalid', 'damaged');
        tail.tokens.push(...tokens);
        return { logits: logits === undefined ? new Float32Array() : this.firstLogits(), blocks: [], seconds: tokens.length / 300 };
      },
      () => (tail.failed = true),
    );
  }

  /** What is said is the best way to begin; `wouldSay` are better ones still. */
  private firstLogits(): Float32Array {
    const logits = new Float32Array(model.vocabSize);
    [this.says, ...this.wouldSay].forEach((text, i) => {
      const [first] = tokenizer.encodeText(text);
      if (first !== undefined) logits[first] = i + 1;
    });
    return logits;
  }

  decode(id: number, { onToken, maxTokens, stopIds }: DecodeOptions): Job<DecodeResult> {
    const tail = this.get(id);
    tail.busy = true;
    this.prompts.push(tokenizer.decode(tail.tokens));
    const ids = [...tokenizer.encodeText(this.says), stopIds[0]!].slice(0, maxTokens);
    const done = { ids: Int32Array.from(ids), logits: new Float32Array(), stop: ids.length === maxTokens ? ('max_tokens' as const) : ('stop_id' as const), proposed: 0, accepted: 0, seconds: 0.005 };
    let cancelled = false;
    let allSaid: () => void = () => {};
    const saying = new Promise<void>((resolve) => (allSaid = resolve));
    const job = this.job(saying, () => done, () => {
      cancelled = true;
      tail.failed = true;
    });
    const say = (i: number): void => {
      if (cancelled) return;
      if (i === ids.length) return allSaid();
      onToken?.(ids[i]!);
      this.log.push(`token ${i}`);
      setImmediate(() => say(i + 1));
    };
    setImmediate(() => say(0));
    return job;
  }
}

interface Setup {
  readonly native: FakeNative;
  readonly completer: Completer;
  /** Another client of the same engine. */
  another(): Completer;
  readonly reread: string[];
  /** The file is other text now: its segments are let go of. */
  edit(file: string): void;
  /** How often somebody holds a segment, its file included. */
  holds(key: string): number;
  complete(marked: string, more?: Partial<CompleteParams>, signal?: AbortSignal): Promise<string>;
}

/** Files of ten lines a segment of 100 bytes; handles in order, from 1. */
function setup(files: Readonly<Record<string, number>>, rules: Readonly<Record<string, ExclusionRule>> = {}): Setup {
  const native = new FakeNative();
  const handles = new Map<string, number>();
  const holds = new Map<string, number>();
  const retain = (keys: Iterable<string>): void => {
    for (const key of keys) holds.set(key, (holds.get(key) ?? 0) + 1);
  };
  const release = (keys: Iterable<string>): void => {
    for (const key of keys) {
      holds.set(key, (holds.get(key) ?? 0) - 1);
      if (holds.get(key) !== 0) continue;
      native.released.add(handles.get(key)!);
      handles.delete(key);
    }
  };
  const reread: string[] = [];
  const records = new Map<string, object>();
  const root = {
    dir: '/w',
    records,
    readable: (record: { current: { segments: object[] } }) => record.current.segments,
    ruleOf: (file: string) => rules[file],
    reread: (record: { path: string }) => reread.push(record.path),
  };
  for (const [file, count] of Object.entries(files)) {
    const segments = Array.from({ length: count }, (_, i) => {
      const key = `${file}#${i}`;
      handles.set(key, handles.size + 1);
      return { key, startByte: 100 * i, endByte: 100 * (i + 1), startLine: 10 * i + 1, endLine: 10 * i + 10, nTokens: 50, headerTokens: 4 };
    });
    records.set(file, { root, path: file, current: { segments } });
    retain(segments.map(({ key }) => key));
  }
  const caches = new Set<() => number>();
  const core = {
    native: native as unknown as NativeEngine,
    model,
    tokenizer,
    prefix: tokenizer.encodeTemplate(model.sala.prefix),
    memory: { handleOf: (key: string) => handles.get(key), retain, release },
    log: (line: string) => native.misuse.push(line),
    caches,
    giveWay: () => [...caches].reduce((sum, clear) => sum + clear(), 0) > 0,
  };
  const locate = (file: string) => (file.startsWith('/w/') ? { root, path: file.slice(3) } : undefined);
  const session = { core, roots: [root], locate } as unknown as ClientSessionOver;
  const completer = new Completer(session);
  return {
    native,
    completer,
    another: () => new Completer(session),
    reread,
    edit: (file) => release([...handles.keys()].filter((key) => key.startsWith(`${file}#`))),
    holds: (key) => holds.get(key) ?? 0,
    async complete(marked, more = {}, signal = new AbortController().signal) {
      const offset = marked.indexOf('█');
      const text = marked.replace('█', '');
      const result = await completer.complete({ root: '/w', path: 'a.ts', text, offset, trigger: 'explicit', ...more }, signal);
      assert.ok(result.start <= result.end && result.end <= text.length);
      return text.slice(0, result.start) + result.completion + text.slice(result.end);
    },
  };
}

const long = Array.from({ length: 14 }, (_, i) => `const value${i} = ${i};\n`).join('');

async function until(isThere: () => boolean): Promise<void> {
  for (const deadline = performance.now() + 5000; !isThere(); ) {
    assert.ok(performance.now() < deadline, `not within five seconds: ${isThere}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

async function ended({ native, completer }: Setup): Promise<void> {
  await completer.close();
  assert.deepEqual(native.misuse, []);
  assert.equal(native.tails.size, 0, 'all tails are released');
}

test('explicit: read, then the best five in view, and the shape of the place', async () => {
  const s = setup({ 'a.ts': 4, 'b.ts': 8 });
  s.native.says = ' done();\n  more();\n';
  assert.equal(await s.complete('function f() {\n  █\n}\n'), 'function f() {\n  done();\n}\n');
  assert.deepEqual(s.native.log.slice(0, 2), ['read completion', 'create 12,11,10,9,8']);
  const { tail, span, layer, heads, startsFrom } = s.native.reads[0]!;
  assert.deepEqual([layer, heads, startsFrom], [2, [2, 3], 'empty']);
  assert.deepEqual(span, [Math.max(0, tail.length - 24), tail.length]);
  assert.equal(`${tokenizer.decode(tail)} `, s.native.lastPrompt, 'and the indentation, which is known');
  assert.ok(!s.native.log.includes('token 30'), 'decoding ends with the statement');
  await ended(s);
});

test('the segments that the tail holds are left out, those of the file around it are not', async () => {
  const s = setup({ 'a.ts': 9, 'b.ts': 1 });
  const line = `${'x'.repeat(48)};\n`;
  await s.complete(`${line.repeat(8)}█\n${line.repeat(9)}`);
  const handles = [...s.native.reads[0]!.segments];
  // The window begins within the first ones; the cursor is at the border of the fourth and the fifth; some follow behind it.
  assert.ok(!handles.includes(4) && !handles.includes(5));
  assert.ok(handles.includes(1) && handles.includes(9) && handles.includes(10));
  await ended(s);
});

test('typing on extends the tail', async () => {
  const s = setup({ 'a.ts': 1, 'b.ts': 3 });
  const count = (): number => s.native.prefilled.splice(0).reduce((sum, { tokens }) => sum + tokens, 0);
  await s.complete(`${long}const sum = █\n\nexport { sum };\n`);
  const all = count();
  assert.ok(all > 150);
  for (const typed of ['v', 'va', 'val', 'valu']) {
    await s.complete(`${long}const sum = ${typed}█\n\nexport { sum };\n`);
    assert.ok(count() <= 32);
    assert.equal(s.native.lastPrompt.slice(-10 - typed.length), `= ${typed}<|fim_middle|>`.slice(-10 - typed.length));
  }
  // A step back, brackets that the editor closes, the next line: all of it goes on from what was run.
  await s.complete(`${long}const sum = v█\n\nexport { sum };\n`);
  await s.complete(`${long}const sum = f(█)\n\nexport { sum };\n`);
  await s.complete(`${long}const sum = f(v);\n█\n\nexport { sum };\n`, { trigger: 'automatic' });
  assert.ok(count() <= 3 * 40);
  assert.equal(s.native.log.filter((line) => line === 'read completion').length, 1, 'one view for the place');
  // Other text behind the cursor is another tail.
  await s.complete(`${long}const sum = █\n\nexport { sum, more };\n`);
  assert.ok(count() > 100);
  assert.ok(s.native.tails.size <= 16);
  await ended(s);
});

test('at most sixteen snapshots', async () => {
  const s = setup({});
  for (let i = 0; i < 40; i++) await s.complete(`${long}const sum${i} = █\n// ${i}\n`);
  assert.equal(s.native.tails.size, 16);
  await ended(s);
});

test('cancelled: nothing to offer, nothing left, what was run in whole pieces is kept', async () => {
  const s = setup({ 'b.ts': 3 });
  const abort = new AbortController();
  const asked = s.complete(`${long}const sum = █\n`, {}, abort.signal);
  await until(() => s.native.prefilled.length > 1);
  abort.abort();
  assert.equal(await asked, `${long}const sum = \n`);
  assert.equal(s.native.atWork, 0);
  assert.equal(s.native.tails.size, 1);
  assert.equal(s.native.prompts.length, 0);
  const before = s.native.prefilled.length;
  await s.complete(`${long}const sum = █\n`);
  assert.ok(s.native.prefilled.slice(before).reduce((sum, { tokens }) => sum + tokens, 0) < 200);
  const aborted = AbortSignal.abort();
  assert.equal(await s.complete('█', {}, aborted), '');
  await ended(s);
});

test('a newer request replaces the older one, whatever that was doing', async () => {
  const stages: ((native: FakeNative) => boolean)[] = [
    () => true,
    ({ reads }) => reads.length > 0,
    ({ prefilled }) => prefilled.length > 0,
    ({ prefilled }) => prefilled.length > 1,
    ({ log }) => log.includes('token 0'),
  ];
  for (const isThere of stages) {
    const s = setup({ 'b.ts': 3 });
    s.native.says = 'something();\n';
    const first = s.complete(`${long}const a = █\n`);
    await until(() => isThere(s.native));
    s.native.says = 'done();\n';
    const second = s.complete(`${long}const b = █\n`);
    assert.equal(await first, `${long}const a = \n`);
    assert.equal(await second, `${long}const b = done();\n`);
    await ended(s);
  }
});

test('at most two at any time, of all clients', async () => {
  const s = setup({});
  s.native.prefillMs = 10;
  const completers = [s.completer, s.another(), s.another(), s.another()];
  const params = { root: '/w', path: 'a.ts', text: `${long}a`, offset: long.length, trigger: 'explicit' } as const;
  const abort = new AbortController();
  const all = completers.map((completer, i) => completer.complete(params, i === 2 ? abort.signal : new AbortController().signal));
  abort.abort();
  assert.deepEqual((await Promise.all(all)).map(({ completion }) => completion !== ''), [true, true, false, true]);
  assert.equal(s.native.mostAtWork, 2);
  for (const completer of completers.slice(1)) await completer.close();
  assert.ok(s.native.tails.size > 0, 'snapshots are kept while anybody is there');
  await ended(s);
});

test('outside the workspace: no view; excluded: nothing unless asked for', async () => {
  const s = setup({ 'a.ts': 3, 'b.ts': 3 }, { 'secret.ts': 'secret', 'big.ts': 'too_large' });
  assert.equal(await s.complete('f(█', { root: null, path: '/tmp/x.ts' }), 'f(done();');
  assert.equal(await s.complete('f(█', { root: '/elsewhere', path: 'x.ts', trigger: 'automatic' }), 'f(done();');
  s.completer.place({ root: null, path: 'x.ts', text: 'a', offset: 1, trigger: 'automatic' });
  await delay(10);
  assert.deepEqual(s.native.reads, []);
  assert.deepEqual(s.native.log.filter((line) => line.startsWith('create')), ['create ', 'create ']);
  assert.equal(await s.complete('f(█', { path: 'secret.ts', trigger: 'automatic' }), 'f(');
  assert.equal(await s.complete('f(█', { path: 'secret.ts' }), 'f(done();');
  assert.equal(await s.complete('f(█', { path: 'big.ts', trigger: 'automatic' }), 'f(done();');
  await ended(s);
});

test('while typing: what is near until the view of the place was read', async () => {
  const s = setup({ 'a.ts': 9, 'lib/b.ts': 3, 'c.ts': 3, 'd.ts': 2, 'e.ts': 2 });
  s.completer.setOpenFiles(['/w/a.ts', '/w/d.ts', '/elsewhere/x.ts', '/w/gone.ts', '/w/c.ts']);
  const typed = "import { b } from './lib/b';\nb(█)\n";
  await s.complete(typed, { trigger: 'automatic' });
  // Of lib/b.ts, of this file, of the open ones.
  assert.deepEqual(s.native.log.filter((line) => line.startsWith('create')), ['create 10,4,5,16,13']);
  // The place's own view is read behind it, and its tail made ready.
  await until(() => s.native.reads.length === 1 && s.native.atWork === 0);
  s.native.prefilled.length = 0;
  await s.complete(typed.replace('█', 'x█'), { trigger: 'automatic' });
  assert.equal(s.native.log.filter((line) => line.startsWith('create')).at(-1), 'create 19,18,17,16,15');
  assert.ok(s.native.prefilled.every(({ priority }) => priority === 'completion'));
  await delay(10);
  assert.equal(s.native.reads.length, 1, 'the view is kept');
  // An offer that was taken ends the place, though its line is the same.
  await s.complete(typed.replace('█', 'xdone();█'), { trigger: 'automatic' });
  await until(() => s.native.reads.length === 2);
  await ended(s);
});

test('a view ahead: read once for a line, given up for another', async () => {
  const s = setup({ 'a.ts': 3, 'b.ts': 3 });
  const place = (text: string, offset: number): void => s.completer.place({ root: '/w', path: 'a.ts', text, offset, trigger: 'automatic' });
  s.native.prefillMs = 20;
  place('a;\nb;\n', 1);
  place('a;\nb;\n', 2);
  await until(() => s.native.reads.length === 1);
  place('a;\nb;\n', 4);
  await until(() => s.native.reads.length === 2 && s.native.atWork === 0);
  place('a;\nb;\n', 5);
  await delay(10);
  assert.deepEqual(s.native.log, ['read prefill', 'read prefill']);
  assert.equal(s.native.prefilled.length, 0, 'where nobody types no tail is run');
  await s.complete('a;\nb;█\n', { trigger: 'automatic' });
  assert.equal(s.native.reads.length, 2);
  assert.match(s.native.log[2]!, /^create \d/);
  await ended(s);
});

test('the selected item of a list: the completion begins with it, at its range, or is none', async () => {
  const s = setup({ 'b.ts': 2 });
  const text = 'list.re\n';
  const ask = async (says: string) => {
    s.native.says = says;
    const selected = { text: 'reduce', offset: 5 };
    return s.completer.complete({ root: '/w', path: 'a.ts', text, offset: 7, selected, trigger: 'automatic' }, new AbortController().signal);
  };
  const { completion, start, end } = await ask('(add, 0);\n');
  assert.deepEqual([completion, start, end], ['reduce(add, 0);', 5, 7]);
  assert.match(s.native.lastPrompt, /list\.reduce<\|fim_middle\|>$/);
  const nothing = await ask('\n');
  assert.deepEqual([nothing.completion, nothing.start, nothing.end], ['', 7, 7]);
  await ended(s);
});

test('the text begins as the place allows', async () => {
  const s = setup({});
  // The scripted text is said in any case; what was begun with stands before it.
  s.native.says = 'x();\n';
  s.native.wouldSay = ['#'];
  assert.equal(await s.complete('def f():\n    a = g(█)\n', { path: 'a.py' }), 'def f():\n    a = g(xx();)\n');
  assert.match(s.native.lastPrompt, /g\(<\|fim_middle\|>x$/);
  s.native.wouldSay = [];
  assert.equal(await s.complete('class A:\n    def f():\n        █\n', { path: 'a.py' }), 'class A:\n    def f():\n        x();\n');
  assert.match(s.native.lastPrompt, /<\|fim_middle\|> {7}$/, 'indentation that is known, but for its last character');
  await ended(s);
});

test('a damaged segment in view: read again, and completed without', async () => {
  const s = setup({ 'b.ts': 2, 'c.ts': 1 });
  s.native.damaged = 3;
  assert.equal(await s.complete('f(█', {}), 'f(done();');
  assert.deepEqual(s.reread, ['c.ts', 'b.ts', 'b.ts']);
  assert.equal(s.native.log.filter((line) => line.startsWith('create')).at(-1), 'create ');
  await ended(s);
});

test('where memory is short, snapshots give way to the completion', async () => {
  const s = setup({});
  await s.complete(`${long}f(█`);
  assert.ok(s.native.tails.size > 0);
  s.native.mostTails = 1;
  assert.equal(await s.complete('g(█', { path: 'c.ts' }), 'g(done();');
  s.native.mostTails = 0;
  await assert.rejects(s.complete('h(█', { path: 'd.ts' }), { code: 'out_of_memory' });
  await ended(s);
});

test('a file that changes while a completion runs loses it nothing, and is let go of afterwards', async () => {
  const s = setup({ 'b.ts': 8 });
  const asked = s.complete('f(█', {});
  await until(() => s.native.reads.length > 0);
  s.edit('b.ts');
  assert.equal(await asked, 'f(done();');

  const t = setup({ 'b.ts': 8 });
  const created = t.complete('f(█', {});
  await until(() => t.native.log.some((line) => line.startsWith('create')));
  assert.equal(t.holds('b.ts#7'), 2);
  t.edit('b.ts');
  assert.equal(await created, 'f(done();');
  assert.equal(t.holds('b.ts#7'), 0);
  await ended(s);
  await ended(t);
});

test('paths that a text imports, as far as they are there', () => {
  const cases: [string, string, string[], string[]][] = [
    ['src/a.ts', "import { b } from './b';\nimport c from '../lib/c.js';\nconst d = require(\"./d\");\nimport 'fs';", ['src/b.ts', 'lib/c.ts', 'src/d/index.ts'], ['src/b.ts', 'lib/c.ts', 'src/d/index.ts']],
    ['pkg/a.py', 'import os\nfrom .b import x\nfrom ..c.d import y\nimport pkg.e\nfrom f import z', ['pkg/b.py', 'c/d.py', 'pkg/e.py', 'f/__init__.py'], ['pkg/b.py', 'c/d.py', 'pkg/e.py', 'f/__init__.py']],
    ['src/a.c', '#include <stdio.h>\n  # include "b.h"\n#include "util/c.h"\n#include "a.c"', ['src/b.h', 'util/c.h', 'src/a.c'], ['src/b.h', 'util/c.h']],
  ];
  for (const [own, text, there, wanted] of cases) assert.deepEqual(importedPaths(own, text, (file) => there.includes(file)), wanted);
});

const addon = process.env['SALA_ADDON'] ?? path.join(process.env['SALA_DIST'] ?? 'dist', 'sala.node');

test('the engine itself, with the tiny model', { skip: existsSync(addon) ? false : `no native addon in ${addon}` }, async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'sala-test-'));
  const core = await loadCore({ modelDir: tiny, activations: 'int8', threads: 1, onProgress: () => {}, log: () => {} });
  try {
    // Short enough for any window, and one segment to be seen: what is compared depends on the text alone.
    const short = long.slice(0, 80);
    writeFileSync(path.join(dir, 'a.ts'), short);
    writeFileSync(path.join(dir, 'b.ts'), short.replaceAll('value', 'other'));
    const open = async () => {
      const session = core.createSession({ kind: 'cli', notify: () => {} });
      await session.open({ roots: [{ path: dir, name: 'w' }], trusted: true, settings: {}, watch: 'none', ingest: false });
      await session.ingest(new AbortController().signal);
      return session;
    };
    const { native } = core as unknown as { native: NativeEngine };
    const at = (typed: string): CompleteParams => {
      const text = `${short}const sum = ${typed}\n`;
      return { root: dir, path: 'a.ts', text, offset: text.length - 1, trigger: 'explicit' };
    };
    const complete = async (session: Awaited<ReturnType<typeof open>>, typed: string): Promise<string> =>
      (await session.complete(at(typed), new AbortController().signal)).completion;
    const one = await open();
    const typed = ['', 'v', 'va', 'val', 'valu', 'value3 + ', 'value3 + v'];
    const grown: string[] = [];
    for (const part of typed) grown.push(await complete(one, part));
    const abort = new AbortController();
    const cancelled = one.complete(at('value1'), abort.signal);
    setImmediate(() => abort.abort());
    assert.equal((await cancelled).completion, '');
    await one.close();
    const fresh: string[] = [];
    for (const part of typed) {
      const session = await open();
      fresh.push(await complete(session, part));
      await session.close();
    }
    assert.deepEqual(grown, fresh, 'a tail that grew is the tail that is run at once');
    await delay(20);
    assert.equal(native.memory().nTails, 0);
  } finally {
    await core.close();
    rmSync(dir, { recursive: true });
  }
});
