// What a real editor brings beside single files: notebooks, several roots, folders that are not on disk, other extensions' keys.
// With a scripted engine (fake-engine.ts) in a real VS Code. Ends with `N passed, N failed`.

import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { Checks, delay, poll, Window, writeFolderSettings } from './bench.mjs';
import { askIn, openChatIn, startScripted } from './scripted.mjs';

const { server, browser, requests, newWorkspace, stop } = await startScripted('cases');
/** @type {Window} */
let window;
const checks = new Checks(async (n) => window?.screenshot(`cases-failed-${n}`).catch(() => {}));
checks.say(`server at ${server.origin}`);

/** A group of cases in a window of its own. */
async function group(title, folder, body) {
  await checks.group(title, async () => {
    const where = await folder();
    window = await Window.open(browser, server, where);
    try {
      await window.statusItem('SALA').waitFor();
      await body(where);
      await checks.check(`${title}: nothing was asked of the network`, async () => assert.deepEqual(window.outside, []));
    } finally {
      await window.close();
    }
  });
}

/** Writes files below a folder. */
async function write(folder, files) {
  for (const [name, text] of Object.entries(files)) {
    await mkdir(path.dirname(path.join(folder, name)), { recursive: true });
    await writeFile(path.join(folder, name), text);
  }
  return folder;
}

const ended = () => poll('ended', async () => (await window.chat().locator('.turn').count()) > 0 && (await window.chat().locator('.turn.running').count()) === 0);

async function ask(question) {
  await openChatIn(window);
  await askIn(window, question);
  await window.chat().locator('.turn.running').waitFor();
  await ended();
  return window.chat().locator('.turn').last();
}

/** Opens an editor that the helpers for text do not know, such as a notebook's. */
async function openAny(name) {
  const rows = await window.quickInput('', name);
  await rows.filter({ hasText: name }).first().click();
  await window.page.locator(`.tab.active[data-resource-name="${name}"]`).waitFor();
}

const notebookMetadata = { language_info: { name: 'python' }, kernelspec: { name: 'python3', language: 'python', display_name: 'Python 3' } };

function notebook(sources) {
  const cells = sources.map(([cell_type, source], i) => ({ cell_type, source, metadata: {}, id: `c${i}`, ...(cell_type === 'code' ? { outputs: [], execution_count: null } : {}) }));
  return JSON.stringify({ cells, metadata: notebookMetadata, nbformat: 4, nbformat_minor: 5 });
}

try {
  const notebooks = async () =>
    write(await newWorkspace('notebooks', { empty: true }), {
      'n.ipynb': notebook([
        ['code', 'rate_qa17 = 3\nrate_zt42 = 4'],
        ['markdown', 'Fibonacci numbers'],
        ['code', 'def fib(n):\n    pass'],
        ['code', '# say when done\nprint("done")'],
      ]),
    });
  await group('notebooks', notebooks, async (folder) => {
    const cell = (nth) => window.page.locator('.notebook-editor .cell-editor-container').nth(nth);
    await checks.check('a cell is completed in its language, with the cells before it; Tab takes the text', async () => {
      await openAny('n.ipynb');
      await cell(2).locator('.view-line').last().click({ timeout: 30_000 });
      await window.cellEditor().waitFor();
      await window.press('Control+End');
      await window.type('\nprint(rate_');
      await window.ghostTextBecomes('zt42', 15_000, window.cellEditor());
      await window.screenshot('notebook');
      const { params } = (await requests('complete')).at(-1);
      assert.deepEqual([params.root, params.path, params.languageId], [folder, 'n.ipynb', 'python']);
      assert.match(params.before, /^# %%\nrate_qa17 = 3\nrate_zt42 = 4\n# %% \[markdown\]\n# Fibonacci numbers\n# %%\ndef fib/);
      assert.match(params.before, /\n *print\(rate_$/);
      assert.equal(params.after, '\n# %%\n# say when done\nprint("done")\n');
      await window.press('Tab');
      await poll('taken', async () => (await window.text(window.cellEditor())).endsWith('print(rate_zt42'));
    });

    await checks.check('what the model would write into the next cell is not offered', async () => {
      await window.type(')\nreturn rate_');
      await window.ghostTextBecomes('qa17 * n', 15_000, window.cellEditor());
      await window.press('Tab');
      await poll('taken', async () => (await window.text(window.cellEditor())).endsWith('return rate_qa17 * n'));
    });

    await checks.check('an unsaved notebook is told as its file would be, and settled when saved', async () => {
      const told = await poll('told', async () => (await requests('document')).findLast((r) => r.params.text?.includes('return rate_qa17')));
      assert.equal(told.params.path, path.join(folder, 'n.ipynb'));
      assert.deepEqual(JSON.parse(told.params.text).cells.map((c) => c.cell_type), ['code', 'markdown', 'code', 'code']);
      assert.ok((await requests('recentFiles')).at(-1).params.paths.includes(path.join(folder, 'n.ipynb')));
      await window.press('Control+S');
      await poll('settled', async () => (await requests('document')).at(-1).params.text === null);
      assert.match(await readFile(path.join(folder, 'n.ipynb'), 'utf8'), /return rate_qa17 \* n/);
    });

    await checks.check('a source in a notebook opens its cell', async () => {
      await window.command('View: Close All Editors');
      const turn = await ask('Where is `rate_qa17` used with `return`?');
      await turn.locator('.source', { hasText: 'n.ipynb' }).click();
      await poll('the tab', async () => (await window.activeTab()) === 'n.ipynb');
      // The last line with the name stands in the third cell.
      await window.statusItem('Cell 3 of 4').waitFor();
    });
  });

  const sameNames = async () => {
    const names = ['first', 'second', 'third'];
    return write(await newWorkspace('names', { empty: true }), Object.fromEntries(names.map((name, i) => [`${name}/path/to/app.c`, `// ${name}\nint any_limit(void) { return ${i + 1}; }\n`])));
  };
  await group('names', sameNames, async () => {
    await checks.check('a bare file name that fits several files offers the choice', async () => {
      const turn = await ask('In which file of a bare name is `any_limit`?');
      const link = turn.locator('.answer a', { hasText: 'app.c' });
      assert.equal(await link.count(), 1);
      await link.click();
      const rows = window.page.locator('.quick-input-list .monaco-list-row');
      await poll('the choice', async () => (await rows.count()) === 3);
      await window.screenshot('choice');
      await rows.filter({ hasText: 'second/path/to/app.c' }).click();
      await poll('the file', async () => /second/.test(await window.text().catch(() => '')));
      await poll('its lines', async () => /^Ln 3, Col 1 \(\d+ selected\)/.test(await window.position()));
    });

    await checks.check('put aside, the choice opens nothing; a source is no choice', async () => {
      await window.command('View: Close All Editors');
      const turn = window.chat().locator('.turn').last();
      await turn.locator('.answer a', { hasText: 'app.c' }).click();
      await window.page.locator('.quick-input-list .monaco-list-row').first().waitFor();
      await window.press('Escape');
      await window.page.locator('.quick-input-widget').waitFor({ state: 'hidden' });
      assert.equal(await window.page.locator('.tab').count(), 0);
      await turn.locator('.source', { hasText: 'third' }).click();
      await poll('the file', async () => /third/.test(await window.text().catch(() => '')));
    });
  });
  // ---- the explorer ----

  const explored = async () =>
    write(await newWorkspace('explored', { empty: true }), {
      'src/a.ts': 'export const a = 1;\n',
      'src/stale.ts': 'export const s = 1;\n',
      'dist/x.js': 'x();\n',
      'over_budget.ts': 'export const o = 1;\n',
      'plain.ts': 'export const p = 1;\n',
      'yarn.lock': 'x\n',
      '.env': 'KEY=1\n',
      '.salaignore': 'private.ts\ndist\n',
      'private.ts': 'export const q = 1;\n',
    });
  await group('explorer', explored, async (folder) => {
    const row = (name) => window.page.locator('.explorer-folders-view .monaco-list-row', { hasText: new RegExp(`^${name.replaceAll('.', '\\.')}$`) });
    const label = (name) => row(name).locator('.monaco-icon-label').first();
    const badge = (name) => label(name).evaluate((e) => getComputedStyle(e, '::after').content.replace(/^none$|"/g, ''));
    const tooltip = (name) => label(name).getAttribute('aria-label');
    const menu = async (name, entry) => {
      await row(name).click({ button: 'right' });
      await window.page.locator('.monaco-menu .action-label', { hasText: /^SALA$/ }).hover();
      const item = window.page.locator('.monaco-menu .action-item', { hasText: entry }).last();
      await item.hover();
      // A menu takes no click in the moment in which it opens.
      await delay(400);
      await item.click();
    };
    const folderSettings = async () => JSON.parse(await readFile(path.join(folder, '.vscode/settings.json'), 'utf8').catch(() => '{}'));

    await checks.check('exceptions have a badge, all files say in the tooltip what became of them', async () => {
      await row('plain.ts').waitFor();
      await poll('badges', async () => (await badge('yarn.lock')) !== '');
      assert.deepEqual(await Promise.all(['yarn.lock', '.env', 'dist', 'private.ts', 'over_budget.ts', 'plain.ts'].map(badge)), ['−', '−', '−', '−', '+', '']);
      await window.notification('SALA can read').getByRole('button', { name: 'Read in the background' }).click();
      await poll('read', async () => /In memory, \d+ tokens/.test(await tooltip('plain.ts')));
      await row('src').click();
      await row('stale.ts').waitFor();
      await poll('stale', async () => (await badge('stale.ts')) === '~');
      assert.match(await tooltip('dist'), /SALA: Excluded: by an ignore file \(\.salaignore:2: dist\)/);
      await window.screenshot('explorer');
    });

    await checks.check('"Why is this file not read?" names the rule and opens it', async () => {
      await menu('private.ts', 'Why Is This File Not Read?');
      const told = window.notification('private.ts is not read: an ignore rule leaves it out');
      await told.waitFor();
      await window.screenshot('explorer-why');
      await told.getByRole('button', { name: 'Open the rule' }).click();
      await poll('the rule', async () => (await window.activeTab()) === '.salaignore' && /Ln 1,/.test(await window.position()));
      await menu('src', 'Why Is This File Not Read?');
      await window.notification('src: 2 files in memory.').waitFor();
    });

    await checks.check('one click leaves a folder out, in the settings of the folder; undo is the same click', async () => {
      await menu('src', 'Read or Leave Out');
      const told = window.notification('src is left out of what is read');
      await told.waitFor();
      assert.deepEqual((await folderSettings())['sala.ingest.exclude'], ['/src']);
      await poll('told', async () => (await requests('open')).at(-1).params.roots[0].exclude.includes('/src'));
      await poll('the badge', async () => (await badge('src')) === '−');
      await told.getByRole('button', { name: 'Undo' }).click();
      await poll('undone', async () => (await requests('open')).at(-1).params.roots[0].exclude.length === 0);
      await poll('no badge', async () => (await badge('src')) === '');
      assert.equal((await folderSettings())['sala.ingest.exclude'], undefined);
    });

    await checks.check('an ignored file is brought in; a secret is not', async () => {
      await menu('private.ts', 'Read or Leave Out');
      await window.notification('private.ts is read from now on').waitFor();
      await poll('told', async () => (await requests('open')).at(-1).params.roots[0].include.includes('/private.ts'));
      await poll('read', async () => /In memory/.test(await tooltip('private.ts')));
      await menu('.env', 'Read or Leave Out');
      await window.notification('.env is not read: it may hold secrets').waitFor();
      assert.deepEqual(await folderSettings(), { 'sala.ingest.include': ['/private.ts'] });
    });

    await checks.check('switched off nothing is asked and nothing shown', async () => {
      await writeFolderSettings(folder, { 'sala.explorer.badges': 'off' });
      await poll('no badges', async () => (await badge('yarn.lock')) === '');
      const before = (await requests('coverageOf')).length;
      await window.command('View: Close All Editors');
      await row('src').click();
      await row('src').click();
      await delay(800);
      assert.equal((await requests('coverageOf')).length, before);
      await writeFolderSettings(folder, { 'sala.explorer.badges': 'all' });
      await poll('all of them', async () => (await badge('plain.ts')) === '•');
      await window.screenshot('explorer-all');
    });
  });
} finally {
  await stop();
}
checks.end();
