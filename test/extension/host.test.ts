// The parts of the extension host that need no editor: the conversation and its file, inserting code, where completions are off,
// what the window says about itself, messages of the page, the coverage tree.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { EngineError, errorCodes } from '../../extension/engine/errors';
import { exclusionRules, fileStates, type FileCoverage } from '../../extension/engine/messages';
import { compileGlobs } from '../../extension/engine/workspace/filter';
import { chatPage } from '../../extension/host/chat-page';
import { offReason, type PolicyDocument } from '../../extension/host/completion-policy';
import { Conversation } from '../../extension/host/conversation';
import { choose, globOf, type Globs } from '../../extension/host/coverage-choice';
import { CoverageLevelSum, mostNodes } from '../../extension/engine/coverage-tree';
import { nodesOf, type CoverageNode } from '../../extension/host/coverage-tree';
import { badgeOf, explain, whySentence } from '../../extension/host/coverage-words';
import { failureOf, packSentences } from '../../extension/host/error-texts';
import { fitBlock } from '../../extension/host/indent';
import { parseToHost } from '../../extension/host/parse-message';
import { surfaceOf, type SurfaceState } from '../../extension/host/surface';
import { ingestSentence } from '../../extension/texts';

const silent = { warn: () => {} };
const folder = (): string => mkdtempSync(path.join(tmpdir(), 'sala-host-'));

// ---- conversation -----------------------------------------------------------------------------------------------------

test('a question is on disk before it is asked; a turn that was running is broken off', () => {
  const dir = path.join(folder(), 'made', 'when needed');
  const first = new Conversation(dir, silent);
  const { turn } = first.begin('why?', null, null);
  first.update(turn, { answer: 'half' });
  const second = new Conversation(dir, silent);
  assert.deepEqual(second.turns.map((t) => [t.question, t.status]), [['why?', 'broken_off']]);
  first.update(turn, { status: 'answered', answer: 'whole' });
  assert.deepEqual(new Conversation(dir, silent).turns.map((t) => [t.answer, t.status]), [['whole', 'answered']]);
});

test('numbers are not used again, so that a late message meets no other turn', () => {
  const conversation = new Conversation(folder(), silent);
  const first = conversation.begin('a', null, null).turn;
  const second = conversation.begin('a', null, first).turn;
  assert.notEqual(first, second);
  assert.equal(conversation.turns.length, 1);
  assert.equal(conversation.update(first, { answer: 'late' }), null);
});

test('a damaged file costs the history and says so', () => {
  const dir = folder();
  const warnings: string[] = [];
  for (const text of ['{', '{}', '']) {
    writeFileSync(path.join(dir, 'conversation.json'), text);
    assert.deepEqual(new Conversation(dir, { warn: (line: string) => warnings.push(line) }).turns, []);
  }
  assert.equal(warnings.length, 3);
});

test('history leaves out what failed; without a folder nothing is kept', () => {
  const conversation = new Conversation(undefined, silent);
  conversation.update(conversation.begin('one', null, null).turn, { answer: '1', status: 'answered' });
  conversation.update(conversation.begin('two', null, null).turn, { answer: '', status: 'failed' });
  const third = conversation.begin('three', null, null);
  assert.deepEqual(conversation.historyBefore(third.turn), [{ question: 'one', answer: '1' }]);
});

test('exported as Markdown with code that holds fences', () => {
  const conversation = new Conversation(undefined, silent);
  const attachment = { root: '/w', path: 'a.md', start_line: 1, end_line: 3, text: '```\nx\n```' };
  conversation.update(conversation.begin('what\nis it?', attachment, null).turn, {
    answer: 'It is `x`.', status: 'answered', sources: [{ root: '/w', path: 'a.md', start_line: 1, end_line: 2, weight: 1 }],
  });
  assert.equal(
    conversation.toMarkdown(),
    '# Conversation\n\n## what is it?\n\nAbout `a.md`, lines 1–3:\n\n````\n```\nx\n```\n````\n\nIt is `x`.\n\nSources:\n\n- `a.md`, lines 1–2\n',
  );
});

// ---- inserting --------------------------------------------------------------------------------------------------------

const tab = { indentation: '\t\t', unit: '\t' };
const two = { indentation: '  ', unit: '  ' };

test('a block gets the cursor\'s indentation in the file\'s unit', () => {
  const block = 'if (a) {\n    b();\n    if (c) {\n        d();\n    }\n}\n';
  assert.equal(fitBlock(block, tab), 'if (a) {\n\t\t\tb();\n\t\t\tif (c) {\n\t\t\t\td();\n\t\t\t}\n\t\t}');
  assert.equal(fitBlock(block, two), 'if (a) {\n    b();\n    if (c) {\n      d();\n    }\n  }');
  assert.equal(fitBlock('\tx:\n\t\ty\n', two), 'x:\n    y');
});
test('common indentation is taken off, blank lines stay blank, aligned text stays aligned', () => {
  assert.equal(fitBlock('    a\r\n\r\n      b\r\n', { indentation: '', unit: '\t' }), 'a\n\n\tb');
  assert.equal(fitBlock('f(a,\n  b,\n     c)', { indentation: '', unit: '    ' }), 'f(a,\n    b,\n         c)');
});
test('every line but the first starts with the cursor\'s indentation', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(12), fc.constantFrom('x', 'yy', '')), { minLength: 1 }), fc.constantFrom(tab, two), (lines, place) => {
      const fitted = fitBlock(lines.map(([n, text]) => ' '.repeat(text === '' ? 0 : n) + text).join('\n'), place).split('\n');
      for (const line of fitted.slice(1)) assert.ok(line === '' || line.startsWith(place.indentation));
      assert.ok(fitted.every((line) => line === '' || line.trim() !== ''));
    }),
  );
});

// ---- where completions are off -----------------------------------------------------------------------------------------

const file: PolicyDocument = { scheme: 'file', languageId: 'python', path: '/w/a.py', length: 10, readOnly: false };
const on = { enabled: true, languages: { '*': true, markdown: false, scminput: true } };

function checkOff(name: string, document: Partial<PolicyDocument>, off: boolean, settings: Parameters<typeof offReason>[1] = on): void {
  test(`completions are ${off ? 'off' : 'on'}: ${name}`, () => assert.equal(offReason({ ...file, ...document }, settings) !== null, off));
}

checkOff('a file', {}, false);
checkOff('an untitled file', { scheme: 'untitled' }, false);
checkOff('a cell of a notebook', { scheme: 'vscode-notebook-cell', path: '/w/n.ipynb' }, false);
checkOff('everything', {}, true, { ...on, enabled: false });
checkOff('a language that is off', { languageId: 'markdown' }, true);
checkOff('a language that is not named, all others off', {}, true, { enabled: true, languages: { '*': false } });
checkOff('a language that is named, all others off', {}, false, { enabled: true, languages: { '*': false, python: true } });
checkOff('a commit message', { path: '/w/.git/COMMIT_EDITMSG', languageId: 'git-commit' }, true);
checkOff('a commit message without its language', { path: '/w/.git/COMMIT_EDITMSG', languageId: 'plaintext' }, true);
checkOff('the source control box, named', { scheme: 'vscode-scm', languageId: 'scminput' }, false);
checkOff('the source control box', { scheme: 'vscode-scm', languageId: 'scminput' }, true, { enabled: true, languages: {} });
checkOff('the left side of a comparison', { scheme: 'git' }, true);
checkOff('the user\'s settings', { scheme: 'vscode-userdata', languageId: 'jsonc' }, true);
checkOff('output', { scheme: 'output', languageId: 'Log' }, true);
checkOff('the debug console', { scheme: 'debug' }, true);
checkOff('a search editor', { scheme: 'search-editor', languageId: 'search-result' }, true);
checkOff('a read-only file', { readOnly: true }, true);
checkOff('a huge file', { length: 3_000_000 }, true);

// ---- what the window says ---------------------------------------------------------------------------------------------

const coverage = { files: 0, tokens: 0, total_files: 900, total_tokens: 1_200_000, estimated: true };
const ingest = { state: 'idle', coverage, encoded_tokens: 0, reused_tokens: 0, tokens_per_s: 0 } as const;
const hello = { threads: 2 } as never;
const base: SurfaceState = {
  place: 'workspace', engine: { state: 'ready', hello }, ingest, consent: 'granted', readsSlowly: false, expectedSpeed: 200, roots: [{ path: '/w', name: 'w' }],
  config: { threads: 0, ingest: { enabled: true, pause: false, onBattery: 'slow' } },
};

test('consent names size, time and cores', () => {
  const { notice } = surfaceOf({ ...base, consent: 'unknown' });
  assert.match(notice?.sentence ?? '', /900 files, about 1\.2 M tokens, about 1\.7 hours on 2 cores \(one while you type\)/);
  assert.deepEqual(notice?.actions.map((a) => a.id), ['grant_consent', 'decline_consent']);
});
test('consent is not asked when it was answered, when reading is off, or when all is in', () => {
  assert.equal(surfaceOf(base).notice, null);
  assert.equal(surfaceOf({ ...base, consent: 'unknown', config: { ...base.config, ingest: { ...base.config.ingest, enabled: false } } }).notice, null);
  assert.equal(surfaceOf({ ...base, consent: 'unknown', ingest: { ...ingest, coverage: { ...coverage, files: 900 } } }).notice, null);
});
test('windows in which nothing can be read say so, and do not ask', () => {
  for (const place of ['no_folder', 'virtual', 'untrusted', 'unsupported'] as const) {
    const surface = surfaceOf({ ...base, place, ingest: null, engine: { state: 'stopped' } });
    assert.equal(surface.canAsk, false);
    assert.ok(surface.notice !== null && surface.notice.sentence.length > 20, place);
  }
});
test('a failed engine: sentence, the program\'s own words, log and diagnostics', () => {
  const error = new EngineError('model_invalid', 'a.safetensors: expected 8 bytes, found 7');
  const { notice, canAsk } = surfaceOf({ ...base, engine: { state: 'failed', error } });
  assert.equal(canAsk, false);
  assert.equal(notice?.detail, error.message);
  assert.deepEqual(notice?.actions.map((a) => a.id), ['choose_model', 'show_log', 'diagnostics']);
});
test('on battery it says that it reads slowly, or why it waits', () => {
  const status = { ...ingest, state: 'reading' as const, coverage: { ...coverage, files: 9 }, seconds_left: 90 };
  assert.equal(ingestSentence(status, false), 'Reading: 9 of about 900 files, about 2 minutes left');
  assert.equal(ingestSentence(status, true), 'Reading slowly, on battery: 9 of about 900 files, about 2 minutes left');
  assert.equal(ingestSentence({ ...ingest, state: 'paused', reason: 'battery' }, true), '0 of about 900 files read; reading is paused on battery');
  assert.equal(surfaceOf({ ...base, readsSlowly: true }).readsSlowly, true);
});
test('every error code has a sentence', () => {
  for (const code of errorCodes) {
    assert.match(failureOf(new EngineError(code, 'x')).sentence, /^[A-Z].*\.$/);
    assert.match(failureOf(new EngineError(code, 'x'), packSentences).sentence, /^[A-Z].*\.$/);
  }
  // A file that was chosen by mistake is not the workspace's own memory.
  assert.doesNotMatch(failureOf(new EngineError('store_invalid', 'x'), packSentences).sentence, /read again/);
});

// ---- messages of the page ----------------------------------------------------------------------------------------------

test('known messages pass, with their known fields only', () => {
  const source = { root: '/w', path: 'a', start_line: 1, end_line: 2, weight: 0.5 };
  assert.deepEqual(parseToHost({ type: 'reveal', sources: [{ ...source, more: 1 }, source], more: 2 }), { type: 'reveal', sources: [source, source] });
  assert.deepEqual(parseToHost({ type: 'ask', question: 'q' }), { type: 'ask', question: 'q' });
  assert.deepEqual(parseToHost({ type: 'retry', turn: 1 }), { type: 'retry', turn: 1, searchAll: false });
  assert.deepEqual(parseToHost({ type: 'retry', turn: 1, searchAll: true }), { type: 'retry', turn: 1, searchAll: true });
  assert.deepEqual(parseToHost({ type: 'action', action: 'show_log' }), { type: 'action', action: 'show_log' });
});
test('anything else is dropped', () => {
  const bad = [
    null, 1, 'ask', {}, { type: 'ask' }, { type: 'ask', question: 1 }, { type: 'eval', code: '1' }, { type: 'action', action: 'workbench.action.quit' },
    { type: 'open_link', href: 'command:x' }, { type: 'open_link', href: 'file:///etc/passwd' }, { type: 'stop', turn: -1 }, { type: 'stop', turn: NaN },
    { type: 'reveal', sources: [] }, { type: 'reveal', source: { root: '/w', path: 'a', start_line: 1, end_line: 2, weight: 1 } },
    { type: 'reveal', sources: [{ root: '/w', path: 'a', start_line: 1, end_line: 2, weight: 1 }, { root: '/w', path: 'a', start_line: 'x', end_line: 2, weight: 1 }] }, { type: 'draft', draft: { revision: 1 } }, { type: '__proto__' },
  ];
  for (const message of bad) assert.equal(parseToHost(message), null, JSON.stringify(message));
  fc.assert(fc.property(fc.anything(), (value) => void parseToHost(value)));
});

test('the page runs one script and loads nothing else', () => {
  const page = chatPage({ script: 's.js', style: 's.css', source: 'https://x', nonce: 'abc' });
  assert.match(page, /default-src 'none'; script-src 'nonce-abc'; style-src https:\/\/x"/);
  assert.equal(page.match(/<script/g)?.length, 1);
  assert.doesNotMatch(page, /style="|onload|unsafe/);
});

// ---- coverage tree ----------------------------------------------------------------------------------------------------

function covered(filePath: string, more: Partial<FileCoverage> = {}): FileCoverage {
  return { root: '/a', path: filePath, state: 'in', tokens: 10, bytes: 30, ...more };
}

/** The rows below a place, as the view asks for them. */
function below(files: readonly FileCoverage[], node?: CoverageNode, rootNames = new Map([['/a', 'a']])): CoverageNode[] {
  if (node?.kind === 'file' || node?.kind === 'more') return [];
  const place = node?.place ?? {};
  const sum = new CoverageLevelSum(place, rootNames.size);
  for (const file of files) sum.add(file);
  return nodesOf(sum.level(), place, rootNames);
}

function draw(files: readonly FileCoverage[], nodes = below(files), indent = ''): string[] {
  return nodes.flatMap((node) => [`${indent}${node.label}|${node.description}`, ...draw(files, below(files, node), `${indent}  `)]);
}

test('files stand under state, rule and folder, folders with one folder joined', () => {
  const files = [
    covered('src/net/a.c'), covered('src/net/b.c'), covered('README.md', { state: 'waiting' }),
    covered('yarn.lock', { state: 'excluded', rule: 'lock_file', tokens: 0 }), covered('x/tmp/', { state: 'excluded', rule: 'ignored', detail: '.gitignore:3', tokens: 0 }),
  ];
  assert.deepEqual(draw(files), [
    'In memory|2 files, 20 tokens', '  src/net|2 files, 20 tokens', '    a.c|10 tokens', '    b.c|10 tokens',
    'Waiting|1 file, 10 tokens', '  README.md|10 tokens',
    'Excluded|2 files', '  Lock files|1 file', '    yarn.lock|lock_file', '  By an ignore file|1 file', '    x|1 file', '      tmp/|.gitignore:3',
  ]);
});
test('several roots stand under their names, in the order of the window', () => {
  const files = [covered('u.ts'), covered('u.ts', { root: '/b' })];
  const names = new Map([['/b', 'second'], ['/a', 'first']]);
  const tree = below(files, undefined, names);
  assert.deepEqual(tree.map(({ label, description }) => [label, description]), [['second', '1 file, 10 tokens'], ['first', '1 file, 10 tokens']]);
  const [state] = below(files, tree[0], names);
  assert.deepEqual(below(files, state, names).map((node) => node.kind === 'file' && node.file.root), ['/b']);
});
test('a level has a bounded number of rows, and says how many are missing', () => {
  const files = Array.from({ length: mostNodes + 7 }, (_, i) => covered(`f${i}`));
  const rows = below(files, below(files)[0]);
  assert.deepEqual([rows.length, rows.at(-1)?.label], [mostNodes + 1, '7 files or folders more']);
});
test('the rows of very many files are the first by path, in whatever order they come, and no more than some are sorted at once', () => {
  const names = Array.from({ length: 20 * mostNodes }, (_, i) => `f${(i * 7919) % (20 * mostNodes)}`);
  const files = [...names, 'src/a.c', 'lib/b.c'].map((name) => covered(name));
  let most = 0;
  const { sort } = Array.prototype;
  Array.prototype.sort = function (this: unknown[], compare) {
    most = Math.max(most, this.length);
    return sort.call(this, compare);
  };
  const rows = below(files, below(files)[0]);
  Array.prototype.sort = sort;
  assert.ok(most <= 2 * mostNodes, `${most} sorted at once`);
  assert.deepEqual(rows.slice(0, -1).map(({ label }) => label), ['lib', 'src', ...names.toSorted().slice(0, mostNodes - 2)]);
  assert.equal(rows.at(-1)?.label, `${files.length - mostNodes} files or folders more`.replace(/^(\d+)(\d{3}) /, '$1,$2 '));
});
test('every file is in the tree once, whatever its path', () => {
  const segment = fc.string({ minLength: 1, maxLength: 3 }).filter((s) => !s.includes('/'));
  const paths = fc.uniqueArray(fc.array(segment, { minLength: 1, maxLength: 4 }).map((parts) => parts.join('/')), { maxLength: 20 });
  fc.assert(
    fc.property(paths, fc.constantFrom(...fileStates), fc.constantFrom(...exclusionRules), (list, state, rule) => {
      const files = list.map((p) => covered(p, { state, ...(state === 'excluded' ? { rule } : {}) }));
      const leaves = (nodes: readonly CoverageNode[]): string[] => nodes.flatMap((n) => (n.kind === 'file' ? [n.file.path] : leaves(below(files, n))));
      assert.deepEqual(leaves(below(files)).sort(), [...list].sort());
      for (const f of files) assert.ok(explain(f).includes(f.path));
    }),
  );
});

// ---- why, and read or leave out -----------------------------------------------------------------------------------------

const excluded = { state: 'excluded', tokens: 0 } as const;

test('why a file is read or not, in a sentence with the rule and its place', () => {
  const ignored = covered('dist', { ...excluded, rule: 'ignored', detail: '.gitignore:3: dist' });
  assert.equal(whySentence('a.c', covered('a.c', { tokens: 1234 })), 'a.c is in memory: 1,234 tokens.');
  assert.equal(whySentence('dist', ignored), 'dist is not read: an ignore rule leaves it out (.gitignore:3: dist).');
  assert.equal(whySentence('dist/x.js', ignored), 'dist/x.js is not read: it lies in dist, and an ignore rule leaves it out (.gitignore:3: dist).');
  for (const rule of exclusionRules) assert.match(whySentence('a', covered('a', { ...excluded, rule })), /^a is not read: \w/);
  for (const state of fileStates) assert.match(whySentence('a', covered('a', { state })), /^a \w.*\.$/);
});

test('badges are one character, for exceptions alone unless all are wanted, and not repeated below a folder', () => {
  for (const state of fileStates) {
    const few = badgeOf('a', covered('a', { state }), 'exceptions');
    assert.ok(few.badge.length <= 1 && few.tooltip.startsWith('SALA: '), state);
    assert.equal(few.badge === '', ['in', 'waiting', 'reading'].includes(state), state);
    assert.equal(badgeOf('a', covered('a', { state }), 'all').badge.length, 1, state);
  }
  assert.equal(badgeOf('dist/x', covered('dist', excluded), 'all').badge, '');
});

test('one click leaves out or brings in, the same click takes it back', () => {
  const none: Globs = { include: [], exclude: [] };
  const cases: [string, FileCoverage | null, 'left_out' | 'brought_in' | 'refused'][] = [
    ['src/a.ts', covered('src/a.ts'), 'left_out'],
    ['src', null, 'left_out'],
    ['src/b.ts', covered('src/b.ts', { state: 'over_budget' }), 'left_out'],
    ['dist', covered('dist', { ...excluded, rule: 'ignored', detail: '.gitignore:1: dist' }), 'brought_in'],
    ['dist/x.js', covered('dist', { ...excluded, rule: 'ignored', detail: '.gitignore:1: dist' }), 'brought_in'],
    ['node_modules', covered('node_modules', { ...excluded, rule: 'ignored', detail: 'built in: node_modules' }), 'brought_in'],
    ['.git', covered('.git', { ...excluded, rule: 'ignored', detail: 'built in: .git' }), 'refused'],
    ['.env', covered('.env', { ...excluded, rule: 'secret' }), 'refused'],
    ['x.lock', covered('x.lock', { ...excluded, rule: 'user', detail: 'exclude: *.lock' }), 'refused'],
  ];
  for (const [file, coverage, done] of cases) {
    const choice = choose(none, file, coverage);
    assert.equal(choice.done, done, file);
    if (choice.done === 'refused') continue;
    const left = choice.done === 'left_out' ? covered(file, { ...excluded, rule: 'user', detail: `exclude: ${globOf(file)}` }) : covered(file);
    assert.deepEqual(choose(choice.globs, file, left), { done: 'taken_back', globs: none }, file);
  }
  assert.deepEqual(choose({ include: ['x'], exclude: ['y'] }, 'a', null), { done: 'left_out', globs: { include: ['x'], exclude: ['y', '/a'] } });
});

test('the glob of a path takes that path and what lies below it, and nothing else, whatever its name', () => {
  // But for two backslashes in a row, which the matcher takes for one.
  const name = fc.string({ minLength: 1, maxLength: 6, unit: fc.constantFrom(...'ab.*?[]{}()!+@\\ #$^|~-é') }).filter((s) => s !== '.' && s !== '..' && !s.includes('\\\\'));
  fc.assert(
    fc.property(fc.array(name, { minLength: 1, maxLength: 3 }), name, (parts, other) => {
      const file = parts.join('/');
      const takes = compileGlobs([globOf(file)]);
      assert.ok(takes(file) !== undefined && takes(`${file}/${other}`) !== undefined, file);
      assert.ok(takes(`${other}/${file}`) === undefined || `${other}/${file}`.startsWith(`${file}/`), file);
      const sibling = [...parts.slice(0, -1), other].join('/');
      if (other !== parts.at(-1)) assert.equal(takes(sibling), undefined, `${file} takes ${sibling}`);
    }),
  );
});

// ---- the manifest -----------------------------------------------------------------------------------------------------

test('commands have one prefix and exist in the code; no key is taken; media are there', () => {
  const root = path.join(process.env['SALA_DIST'] ?? '', '..');
  const manifest = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as {
    contributes: { commands: { command: string; category: string }[]; keybindings?: unknown[]; configuration: { properties: Record<string, { description?: string; markdownDescription?: string }> }[] };
  };
  const source = readFileSync(path.join(root, 'extension/commands.ts'), 'utf8');
  const declared = manifest.contributes.commands.map((c) => c.command);
  assert.ok(manifest.contributes.commands.every((c) => c.category === 'SALA' && c.command.startsWith('sala.')));
  const table = source.slice(source.indexOf('const table'), source.indexOf('return vscode.Disposable.from'));
  assert.deepEqual([...table.matchAll(/^ {4}'(sala\.\w+)':/gm)].map((m) => m[1]!).sort(), [...declared].sort());
  assert.deepEqual(manifest.contributes.keybindings ?? [], []);
  for (const { properties } of manifest.contributes.configuration) {
    for (const [name, setting] of Object.entries(properties)) {
      assert.ok((setting.description ?? setting.markdownDescription ?? '').length > 10, name);
      assert.ok(readFileSync(path.join(root, 'extension/config.ts'), 'utf8').includes(`'${name.replace('sala.', '')}'`), `${name} is read`);
    }
  }
});
