// Answers about few files by the embedded model: links that lead where their words say, files of one name, several roots, questions
// that do not fit; and a tree of twenty thousand files, where nobody waits for all of it.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import path from 'node:path';
import type { AnswerMark } from '../../../extension/engine/messages';
import { embeddedModel, eventually, failureOf, statesOf, tinyModel, withCase, type Answer } from './support';

const links = ({ marks }: Answer): AnswerMark[] => marks.filter(({ kind }) => kind === 'link');

/** Every link leads to a file of the workspace whose path its text names, at a line that is there. */
function checkLinks(answer: Answer): void {
  for (const { start, end, source } of links(answer)) {
    const text = answer.answer.slice(start, end);
    assert.ok(source, text);
    const file = path.join(source.root, source.path);
    const nLines = readFileSync(file, 'utf8').split('\n').length;
    assert.ok(source.start_line >= 1 && source.end_line <= nLines, `${text} → ${JSON.stringify(source)}`);
    const named = text.replace(/:\d.*$/, '').replace(/^\.\//, '');
    assert.ok(source.path === named || source.path.endsWith(`/${named}`), `${text} → ${source.path}`);
  }
  for (const { root, path: file, start_line, end_line, weight } of answer.sources) {
    const nLines = readFileSync(path.join(root, file), 'utf8').split('\n').length;
    assert.ok(start_line >= 1 && start_line <= end_line && end_line <= nLines && weight >= 0 && weight <= 1);
  }
}

describe('answers', { concurrency: 1 }, () => {
  test('four files of one name, and files that do not exist', () =>
    withCase(embeddedModel, async (c) => {
      const names = ['first', 'second', 'third', 'fourth'];
      for (const [i, name] of names.entries()) c.write({ [`${name}/path/to/app.c`]: `int ${name}_limit(void) { return ${i + 1}; }\n` });
      c.write({ 'lib/app.c/readme.txt': 'A folder of that name.\n' });
      const questions = ['Which app.c defines third_limit?', 'How do the app.c files differ?', 'What is in src/missing.c, line 400?', 'Where is second_limit defined?'];
      const running = c.start(['ask', '-', '--json', '--wait', 'full'], { input: `${questions.join('\n')}\n` });
      const { code, stderr } = await running.ended;
      assert.equal(code, 0, stderr);
      const [third, differ, missing, second] = running.documents<Answer>() as [Answer, Answer, Answer, Answer];
      for (const answer of [third, differ, missing, second]) checkLinks(answer);
      for (const [answer, name] of [[third, 'third'], [second, 'second']] as const) {
        assert.equal(answer.sources[0]?.path, `${name}/path/to/app.c`, JSON.stringify(answer));
        for (const { source } of links(answer)) if (source!.path.endsWith('app.c')) assert.equal(source!.path, `${name}/path/to/app.c`, answer.answer);
      }
      // A bare name that several files have offers the choice.
      const bare = links(differ).filter(({ start, end }) => differ.answer.slice(start, end) === 'app.c');
      for (const { start } of bare) assert.ok(bare.filter((other) => other.start === start).length > 1, differ.answer);
      assert.deepEqual(missing.missing, ['src/missing.c']);
      assert.deepEqual(links(missing).filter(({ start, end }) => missing.answer.slice(start, end).includes('missing.c')), []);
    }));

  test('two roots with the same paths', () =>
    withCase(embeddedModel, async (c) => {
      c.write({
        'a/foo/readme.md': 'The first part.\n',
        'b/foo/readme.md': 'The second part.\n',
        'a/src/util.ts': 'export const A_ONLY = 1;\n',
        'b/src/util.ts': 'export const B_ONLY = 2;\n',
        'b/.gitignore': 'tmp/\n',
        'a/tmp/x.ts': 'export const x = 1;\n',
        'b/tmp/x.ts': 'export const x = 2;\n',
      });
      const [a, b] = [c.path('a'), c.path('b')];
      const both = ['--workspace', a, '--workspace', b];
      const answer = await c.ask('Where is B_ONLY defined?', ...both, '--wait', 'full');
      checkLinks(answer);
      assert.deepEqual([answer.sources[0]?.root, answer.sources[0]?.path], [b, 'src/util.ts']);
      for (const { source } of links(answer)) if (source!.path === 'src/util.ts') assert.equal(source!.root, b);
      const { files } = await c.coverage(...both);
      const stateOf = (root: string, name: string): string | undefined => files.find((file) => file.root === root && file.path === name)?.state;
      assert.deepEqual([stateOf(a, 'src/util.ts'), stateOf(b, 'src/util.ts'), stateOf(a, 'tmp/x.ts')], ['in', 'in', 'in']);
      assert.equal(files.find((file) => file.root === b && file.path === 'tmp')?.rule, 'ignored');
      // Taking a root away or changing the order is no reading; a folder in another counts once.
      for (const roots of [['--workspace', b], ['--workspace', b, '--workspace', a], ['--workspace', a, '--workspace', c.path('a/src')]]) {
        assert.equal((await c.ingest(...roots)).encoded_tokens, 0);
      }
      assert.equal((await c.coverage('--workspace', a, '--workspace', c.path('a/src'))).files.filter(({ path: file }) => file.endsWith('util.ts')).length, 1);
      assert.deepEqual((await c.ask('Where is A_ONLY defined?', '--workspace', b)).missing, ['A_ONLY']);
      await c.nothingIsLeft();
    }));

  test('definitions behind emoji, in four languages', () =>
    withCase(embeddedModel, async (c) => {
      const comments = '// 🚀🚀🚀🚀🚀 設定 é\n'.repeat(60);
      c.write({ 'e.ts': `${comments}export function afterEmoji() { return 8123; }\n${comments}export function lastOne() { return 8124; }\n` });
      for (const [name, line] of [['afterEmoji', 61], ['lastOne', 122]] as const) {
        const answer = await c.ask(`Where is ${name} defined?`, '--wait', 'full');
        checkLinks(answer);
        const { path: file, start_line, end_line } = answer.sources[0]!;
        assert.ok(file === 'e.ts' && start_line <= line && line <= end_line, `${name}: ${JSON.stringify(answer.sources)}`);
      }
    }));

  test('a question longer than the context is refused with the numbers', () =>
    withCase(tinyModel, async (c) => {
      c.write({ 'a.ts': 'export const a = 1;\n' });
      const { code, message } = failureOf(await c.start(['ask', '--json', 'word '.repeat(20_000)]).ended);
      assert.equal(code, 'context_full');
      assert.match(message, /at most \d+ tokens.*found \d{5}/);
      assert.ok((await c.ask('short enough')).stop);
    }));
});

describe('a huge tree', { concurrency: 1 }, () => {
  const needle = 'export const HAYSTACK_PROBE = 4711;\n';

  test('twenty thousand files: the needle first, well before everything is read', () =>
    withCase(embeddedModel, async (c) => {
      c.writeMany(20_000, 200);
      c.write({ 'needle/target.ts': needle });
      mkdirSync(c.path('blob'));
      const block = randomBytes(1 << 20);
      for (let i = 0; i < 30; i++) writeFileSync(c.path(`blob/${i}.bin`), Buffer.concat([block, block]));
      const began = performance.now();
      const answer = await c.ask('Where is HAYSTACK_PROBE defined?', '--wait', '15');
      assert.ok(performance.now() - began < 120_000, `${performance.now() - began} ms`);
      assert.equal(answer.sources[0]?.path, 'needle/target.ts', JSON.stringify(answer.sources.slice(0, 3)));
      assert.ok(answer.coverage.total_files > 20_000 && answer.coverage.files < 20_000 && answer.coverage.estimated);
    }));

  test('a file over the budget answers the question about it, and is no member', () =>
    withCase(embeddedModel, async (c) => {
      c.writeMany(40);
      c.write({ 'z/target.ts': needle });
      const budget = ['--max-tokens', '300'];
      const answer = await c.ask('Where is HAYSTACK_PROBE defined?', ...budget, '--wait', '10');
      assert.equal(answer.sources[0]?.path, 'z/target.ts', JSON.stringify(answer));
      const { tokens, total_tokens } = { ...answer.coverage, ...(await c.ingest(...budget)) };
      assert.ok(tokens <= 300 && total_tokens > 0, `${tokens} of at most 300 tokens`);
      assert.equal(statesOf(await c.coverage(...budget))['z/target.ts'], 'over_budget');
    }));

  test('killed at a tenth: what was read counts as reused', () =>
    withCase(tinyModel, async (c) => {
      c.writeMany(1200, 200);
      const running = c.start(['ingest', '--json']);
      const engine = await c.engine();
      // The log tells of about 100 bytes a segment once they are committed.
      const committed = (): number => {
        const names = existsSync(c.store) ? readdirSync(c.store, { recursive: true, encoding: 'utf8' }) : [];
        return names.filter((name) => /wal-\d+$/.test(name)).reduce((sum, name) => sum + statSync(path.join(c.store, name)).size, 0);
      };
      await eventually('a tenth is in', () => committed() >= 120 * 100, 60_000);
      process.kill(engine, 'SIGKILL');
      assert.equal((await running.ended).code, 1);
      const states = Object.values(statesOf(await c.coverage()));
      const nIn = states.filter((state) => state === 'in').length;
      const again = await c.ingest();
      assert.ok(again.reused_tokens > 0, JSON.stringify(again));
      assert.equal(again.files, 1200);
      assert.ok(nIn < 1200);
    }));
});
