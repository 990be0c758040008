// What a real editor brings beside single files: notebooks, several roots, folders that are not on disk, other extensions' keys.
// With a scripted engine (fake-engine.ts) in a real VS Code. Ends with `N passed, N failed`.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { appendFile, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { Checks, delay, poll, Window, writeFolderSettings } from './bench.mjs';
import { notebook } from './notebook.mjs';
import { askIn, openChatIn, startScripted } from './scripted.mjs';
import { packageVimKeys } from './vim-keys.mjs';

const { server, browser, requests, control, battery, newWorkspace, stop } = await startScripted('cases', { extensions: async (folder) => [await packageVimKeys(folder)] });
/** @type {Window} */
let window;
const checks = new Checks(async (n) => window?.screenshot(`cases-failed-${n}`).catch(() => {}));
checks.say(`server at ${server.origin}`);

/** A group of cases in a window of its own. */
async function group(title, folder, body) {
  await checks.group(title, async () => {
    // Whatever became of the group before.
    await battery(false);
    await control({});
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

function isRunning(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** By the notification, which hides after some seconds: on a slow machine, before a test comes to it. */
async function allowReading() {
  const button = window.notification('SALA can read').getByRole('button', { name: 'Read in the background' });
  if (!(await button.click({ timeout: 10_000 }).then(() => true, () => false))) await window.command('SALA: Read This Workspace in the Background');
}

const ended = () => poll('ended', async () => (await window.chat().locator('.turn').count()) > 0 && (await window.chat().locator('.turn.running').count()) === 0);

async function ask(question) {
  await openChatIn(window);
  await askIn(window, question);
  await window.chat().locator('.turn.running').waitFor();
  await ended();
  return window.chat().locator('.turn').last();
}

try {
  // ---- notebooks, and names that several files have ----

  const sources = async () =>
    write(await newWorkspace('sources', { empty: true }), {
      'n.ipynb': notebook([
        ['code', 'rate_qa17 = 3\nrate_zt42 = 4'],
        ['markdown', 'Fibonacci numbers'],
        ['code', 'def fib(n):\n    pass'],
        ['code', '# say when done\nprint("done")'],
      ]),
      ...Object.fromEntries(['first', 'second', 'third'].map((name, i) => [`${name}/path/to/app.c`, `// ${name}\nint any_limit(void) { return ${i + 1}; }\n`])),
    });
  await group('sources', sources, async (folder) => {
    await checks.check('a cell is completed in its language, with the cells before it; Tab takes the text', async () => {
      await window.openEditor('n.ipynb');
      await window.focusCell(2);
      await window.type('\nprint(rate_');
      await window.ghostTextBecomes('zt42', window.cellEditor());
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
      await window.ghostTextBecomes('qa17 * n', window.cellEditor());
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
  // ---- several roots ----

  const twoRoots = async () => {
    const top = await newWorkspace('two', { empty: true });
    await write(top, {
      'a/src/util.ts': 'export const A_ONLY = 1;\nexport const BOTH_HAVE = 1;\n',
      'a/foo/readme.md': 'Of a.\n',
      'real-b/src/util.ts': 'export const B_ONLY = 2;\nexport const BOTH_HAVE = 2;\n',
      'real-b/foo/readme.md': 'Of b.\n',
      'real-b/src/main.ts': 'export const main = 0;\n',
      'c/src/util.ts': 'export const C_ONLY = 3;\n',
    });
    // The second folder is opened through a link.
    await symlink('real-b', path.join(top, 'b'));
    return openRoots(top, ['a', 'b']);
  };
  const openRoots = async (top, names) => {
    const file = path.join(top, 'two.code-workspace');
    await writeFile(file, JSON.stringify({ folders: names.map((name) => ({ path: name })) }));
    return file;
  };
  await group('roots', twoRoots, async (file) => {
    const top = path.dirname(file);
    const row = (text) => window.page.locator('.pane-body .monaco-list-row', { hasText: text });
    await checks.check('each root stands in the coverage view under its name', async () => {
      // The window before may still have told of its own folder.
      const opened = await poll('opened', async () => (await requests('open')).map(({ params }) => params.roots).filter(([first]) => first?.path.startsWith(top)).at(-1));
      assert.deepEqual(opened.map((r) => [r.path, r.name]), [[path.join(top, 'a'), 'a'], [path.join(top, 'real-b'), 'b']]);
      await allowReading();
      await window.command('SALA: Show What Has Been Read');
      await row(/^a2 files/).waitFor();
      await row(/^b3 files/).waitFor();
      await window.screenshot('roots-coverage');
    });

    await checks.check('sources of the same path are told apart, and open the file of their root', async () => {
      const turn = await ask('Where is `BOTH_HAVE` defined?');
      await turn.locator('.source', { hasText: 'a/src/' }).waitFor();
      await turn.locator('.source', { hasText: 'b/src/' }).click();
      await poll('the file of b', async () => /B_ONLY/.test(await window.text().catch(() => '')));
      await window.screenshot('roots-sources');
      await turn.locator('.source', { hasText: 'a/src/' }).click();
      await poll('the file of a', async () => /A_ONLY/.test(await window.text().catch(() => '')));
      const only = await ask('Where is `B_ONLY` defined?');
      await only.locator('.answer a', { hasText: 'src/util.ts' }).click();
      await poll('the file of b', async () => /B_ONLY/.test(await window.text().catch(() => '')));
    });

    await checks.check('what is typed and saved in a root that was opened through a link is told under its real path', async () => {
      await window.openFile('main.ts');
      await window.press('Control+End');
      await window.type('const answer =');
      await window.ghostTextBecomes(' 42;');
      const { params } = (await requests('complete')).at(-1);
      assert.deepEqual([params.root, params.path], [path.join(top, 'real-b'), 'src/main.ts']);
      await window.press('Escape');
      await window.save();
      await poll('told', async () => (await requests('filesChanged')).some((r) => r.params.paths.includes(path.join(top, 'real-b/src/main.ts'))));
    });

    await checks.check('one click changes the settings of the one root', async () => {
      await window.command('SALA: Read or Leave Out');
      await window.told('src/main.ts is left out of what is read');
      assert.deepEqual(JSON.parse(await readFile(path.join(top, 'real-b/.vscode/settings.json'), 'utf8')), { 'sala.ingest.exclude': ['/src/main.ts'] });
      await poll('told', async () => (await requests('open')).at(-1).params.roots.map((r) => r.exclude.join()).join('|') === '|/src/main.ts');
      await window.command('SALA: Read or Leave Out');
      await poll('taken back', async () => (await requests('open')).at(-1).params.roots.every((r) => r.exclude.length === 0));
    });

    await checks.check('a root that is added or taken away is a change of scope', async () => {
      const loads = (await requests('load')).length;
      // Without its first folder VS Code starts the extension host anew.
      await openRoots(top, ['a', 'c']);
      await poll('opened', async () => (await requests('open')).at(-1).params.roots.map((r) => r.name).join() === 'a,c');
      await window.command('SALA: Show What Has Been Read');
      await row(/^c1 file/).waitFor();
      assert.equal(await row(/^b3 files/).count(), 0);
      assert.equal((await requests('load')).length, loads, 'the same engine');
    });
  });

  // ---- a root within a root ----

  const nested = async () => {
    const top = await newWorkspace('nested', { empty: true });
    await write(top, { 'a/lib/x.ts': 'export const X = 1;\n', 'a/src/util.ts': 'export const U = 1;\n', 'a/src/deep/y.ts': 'export const Y = 1;\n', 'a/src/deep/yarn.lock': 'y\n' });
    const file = path.join(top, 'nested.code-workspace');
    await writeFile(file, JSON.stringify({ folders: [{ path: 'a' }, { path: 'a/src', name: 'sources' }] }));
    return file;
  };
  await group('nested', nested, async (file) => {
    const outer = path.join(path.dirname(file), 'a');
    const inner = path.join(outer, 'src');
    const innerSettings = async () => JSON.parse(await readFile(path.join(inner, '.vscode/settings.json'), 'utf8').catch(() => '{}'));
    const why = async (sentence) => {
      await poll(sentence, async () => {
        await window.command('SALA: Why Is This File Not Read?');
        return window.notification(sentence).first().waitFor({ timeout: 2000 }).then(() => true, () => false);
      });
    };

    await checks.check('a file of the inner root is left out and brought back, in the settings of the inner root', async () => {
      await allowReading();
      await window.openFile('util.ts');
      await why(/src\/util\.ts is in memory: \d+ tokens/);
      await window.command('SALA: Read or Leave Out');
      await window.told('util.ts is left out of what is read');
      assert.deepEqual(await innerSettings(), { 'sala.ingest.exclude': ['/util.ts'] });
      await poll('told', async () => (await requests('open')).at(-1).params.roots.map((r) => r.exclude.join()).join('|') === '|/util.ts');
      await why('src/util.ts is not read: your settings leave it out (exclude: /src/util.ts)');
      await delay(500);
      await window.screenshot('nested-left-out');
      await window.command('SALA: Read or Leave Out');
      await window.told('util.ts is treated as before');
      await why(/src\/util\.ts is in memory: \d+ tokens/);
      assert.deepEqual(await innerSettings(), {});
    });

    await checks.check('what is told of a file or folder of the inner root is true of it', async () => {
      await window.openFile('yarn.lock');
      await why('src/deep/yarn.lock is not read: it is a lock file');
      const row = (name) => window.page.locator('.explorer-folders-view .monaco-list-row', { hasText: new RegExp(`^${name}$`) });
      const label = row('yarn.lock').first().locator('.monaco-icon-label').first();
      await poll('the badge', async () => (await label.evaluate((e) => getComputedStyle(e, '::after').content)) === '"−"');
      await row('deep').first().click({ button: 'right' });
      await window.page.locator('.monaco-menu .action-label', { hasText: /^SALA$/ }).hover();
      const entry = window.page.locator('.monaco-menu .action-item', { hasText: 'Why Is This File Not Read?' }).last();
      await entry.hover();
      // A menu takes no click in the moment in which it opens.
      await delay(400);
      await entry.click();
      await window.told('deep: 1 file in memory, 1 file excluded.');
    });
  });

  // ---- what was read, as a file ----

  await group('packs', () => newWorkspace('packed'), async (folder) => {
    const pack = `${folder}.pack`;
    const isThere = () => readFile(pack).then(() => true, () => false);
    const packRequests = async () => (await requests()).filter(({ type }) => /Pack$/.test(type)).map(({ type, params }) => `${type} ${path.relative(path.dirname(folder), params.file)}`);
    /** It begins with the folder that the workspace lies in. */
    const open = (title) => window.fileDialog(title, path.dirname(folder));
    const importFile = async (name) => {
      await open('SALA: Import What Was Read Elsewhere');
      await window.chooseFile(path.join(path.dirname(folder), name));
    };
    const closeNotifications = () => window.command('Notifications: Clear All Notifications');

    await checks.check('put aside, neither dialog does anything', async () => {
      await allowReading();
      for (const title of ['SALA: Export What Was Read', 'SALA: Import What Was Read Elsewhere']) {
        await open(title);
        await window.press('Escape');
        await window.filePlace().waitFor({ state: 'hidden' });
      }
      await delay(500);
      assert.deepEqual(await packRequests(), []);
      assert.equal(await window.page.locator('.notifications-toasts .notification-list-item').count(), 0);
    });

    await checks.check('an export goes beside the workspace, shows how far it is, and says what it wrote', async () => {
      await control({ packDelay_ms: 400 });
      await open('SALA: Export What Was Read');
      assert.equal(await window.filePlace().inputValue(), pack);
      await window.screenshot('export-dialog');
      await window.press('Enter');
      const progress = window.notification('Exporting');
      await progress.getByText('writing 5 MB').waitFor();
      await window.screenshot('export-progress');
      await window.told(/Exported: \d+ files, [\d,]+ tokens, 5 MB\./);
      await progress.waitFor({ state: 'hidden' });
      await delay(500);
      await window.screenshot('export-done');
      assert.deepEqual(await packRequests(), ['exportPack packed.pack']);
      assert.equal(await isThere(), true);
      await closeNotifications();
    });

    await checks.check('an export that is stopped ends in the engine too, and is no error', async () => {
      await rm(pack);
      await control({ packDelay_ms: 600_000 });
      await open('SALA: Export What Was Read');
      await window.press('Enter');
      await window.notification('Exporting').getByRole('button', { name: 'Cancel' }).click();
      await poll('stopped', async () => (await requests('packCancelled')).length === 1);
      await window.notification('Exporting').waitFor({ state: 'hidden' });
      await delay(500);
      assert.equal(await window.page.locator('.notifications-toasts .notification-list-item').count(), 0);
      assert.equal(await isThere(), false);
      await control({});
    });

    await checks.check('a pack is imported; of a damaged one that is said, and the log names what', async () => {
      await open('SALA: Export What Was Read');
      await window.press('Enter');
      await window.told('Exported: ');
      await closeNotifications();
      await importFile('packed.pack');
      await window.told('Imported: 6 files, 1,234 tokens, 5 MB.');
      assert.equal(await window.notification('damaged').count(), 0);
      await delay(500);
      await window.screenshot('import-done');
      await closeNotifications();
      await appendFile(pack, 'x');
      await importFile('packed.pack');
      await window.told('Some of it was damaged and is read again; the log names it.');
      await delay(500);
      await window.screenshot('import-damaged');
      await window.notification('Some of it was damaged').getByRole('button', { name: 'Show log' }).click();
      await poll('the log', async () => (await window.page.locator('.part.panel .view-lines').innerText().catch(() => '')).replaceAll('\u00a0', ' ').includes('import: segment 00ff of src/ring.c: checksum of the record differs'));
      await window.command('View: Hide Panel');
    });

    await checks.check('a file that is none is not said to be the workspace\'s own memory', async () => {
      await writeFile(path.join(path.dirname(folder), 'other.pack'), 'something else');
      await importFile('other.pack');
      const told = await window.told('This file holds nothing that SALA can import');
      await told.getByText('expected a pack, found 14 bytes').waitFor();
      await told.getByRole('button', { name: 'Show log' }).waitFor();
      await delay(500);
      await window.screenshot('import-refused');
    });
  });

  // ---- consent, where the chat is in sight ----

  const held = async () => {
    // The engine of the window before is none that could be held.
    const { pid } = (await requests()).at(-1) ?? {};
    await poll('no engine', async () => pid === undefined || !isRunning(pid));
    await control({ hold: true });
    return newWorkspace('consent');
  };
  await group('consent', held, async () => {
    await checks.check('where the chat asks for consent no notification does as well', async () => {
      await window.openContainer('SALA');
      await window.chat().locator('body.ready').waitFor();
      await control({});
      await window.chat().getByRole('button', { name: 'Read in the background' }).waitFor();
      await delay(1000);
      assert.equal(await window.notification('SALA can read').count(), 0);
      await window.chat().getByRole('button', { name: 'Only when I ask' }).click();
      await window.chat().getByRole('button', { name: 'Only when I ask' }).waitFor({ state: 'hidden' });
      assert.equal((await requests('open')).at(-1).params.ingest, false);
    });
  });

  // ---- a machine on battery ----

  const unplugged = async () => {
    await battery(true);
    // As long as something is left to read.
    await control({ filesPerSecond: 0 });
    return newWorkspace('battery');
  };
  await group('battery', unplugged, async (folder) => {
    const threads = async () => (await requests()).findLast(({ type }) => type === 'open' || type === 'settings').params;
    const threadsWanted = async () => {
      const params = await threads();
      return (params.settings ?? params).threads;
    };
    const pausedIs = (paused) => poll(paused ? 'paused' : 'not paused', async () => (await requests('pause')).at(-1).params.paused === paused);
    const chatSays = (text) => window.chat().getByText(text).waitFor();

    await checks.check('on battery reading keeps to one core and says so; with mains power no more', async () => {
      await window.openContainer('SALA');
      await window.chat().getByRole('button', { name: 'Read in the background' }).click();
      await chatSays(/^Reading slowly, on battery: \d+ of about \d+ files/);
      assert.equal(await threadsWanted(), 1);
      await window.screenshot('battery-slow');
      await battery(false);
      await chatSays(/^Reading: \d+ of about \d+ files/);
      assert.equal(await threadsWanted(), 0);
    });

    await checks.check('where the user wants it so reading waits for mains power, says so, and goes on at once with it', async () => {
      await writeFolderSettings(folder, { 'sala.ingest.onBattery': 'pause' });
      await battery(true);
      await pausedIs(true);
      await chatSays(/reading is paused on battery$/);
      await window.statusItem(/SALA \d+ %/).click();
      await window.page.locator('.quick-input-list .monaco-list-row', { hasText: 'Resume reading' }).waitFor();
      await window.screenshot('battery-paused');
      await window.press('Escape');
      await battery(false);
      await pausedIs(false);
      await chatSays(/^Reading: /);
    });

    await checks.check('resumed by hand it goes on without mains power, slowly, and waits again the next time', async () => {
      await battery(true);
      await pausedIs(true);
      await window.command('SALA: Resume Reading');
      await pausedIs(false);
      await chatSays(/^Reading slowly, on battery: /);
      assert.equal(await threadsWanted(), 1);
      await battery(false);
      await poll('told', async () => (await threadsWanted()) === 0);
      await battery(true);
      await pausedIs(true);
      await writeFolderSettings(folder, { 'sala.ingest.onBattery': 'full' });
      await pausedIs(false);
      await chatSays(/^Reading: /);
      assert.equal(await threadsWanted(), 0);
    });
  });

  // ---- folders that are not on disk ----

  const virtual = async () => {
    const file = path.join(await newWorkspace('virtual', { empty: true }), 'virtual.code-workspace');
    await writeFile(file, JSON.stringify({ folders: [{ uri: 'vscode-vfs://example/project', name: 'project' }] }));
    return file;
  };
  await group('virtual', virtual, async () => {
    await checks.check('a virtual folder gets one clear sentence, and no engine', async () => {
      const loads = (await requests('load')).length;
      await window.openContainer('SALA');
      await window.chat().getByText('SALA reads folders on disk; this window has only virtual ones, so nothing can be read.').waitFor();
      await askIn(window, 'hi');
      await window.command('SALA: Why Is This File Not Read?');
      await window.told('Open a file first');
      await window.command('SALA: Forget This Workspace');
      await window.told('SALA reads folders on disk, and none is open.');
      assert.equal(await window.chat().locator('.turn').count(), 0);
      assert.equal((await requests('load')).length, loads);
      await window.screenshot('chat-virtual');
    });
  });

  // ---- keys, lists, blank lines, with the editor's own defaults ----

  const typing = async () => {
    const folder = await write(await newWorkspace('typing', { empty: true }), {
      'w.js': 'const list = [3, 1, 2];\n',
      'f.js': '',
      'size.c': '#include <stdio.h>\n\nlong size_of(const char *path) {\n    FILE *in = fopen(path, "rb");\n    fclose(in);\n    return n;\n}\n',
      'vim.js': 'const first = 1;\nconst second = 2;\n',
    });
    await promisify(execFile)('git', ['init', '-q', folder]);
    await writeFolderSettings(folder, {
      'editor.quickSuggestions': { other: 'on', comments: 'off', strings: 'off' },
      // A list that is late may still hold what was meant two keys ago: a bracket would take that.
      'editor.acceptSuggestionOnCommitCharacter': false,
      'editor.autoClosingBrackets': 'languageDefined',
      'editor.autoClosingQuotes': 'languageDefined',
    });
    return folder;
  };
  await group('typing', typing, async () => {
    const completeRequests = async () => (await requests('complete')).length;
    const list = window.page.locator('.suggest-widget.visible .monaco-list-row');
    const lastLine = async () => (await window.text()).split('\n').at(-1);
    /** The text that a key brings, whatever comes after it. */
    const newFile = async (name) => {
      await window.openFile(name);
      await window.press('Control+End');
    };

    await checks.check('the list does not wait for an engine that is frozen', async () => {
      await newFile('w.js');
      await window.type('l');
      await list.first().waitFor();
      await window.press('Escape');
      await window.press('Backspace');
      const { pid } = (await requests()).at(-1);
      process.kill(pid, 'SIGSTOP');
      try {
        await window.type('list.');
        await list.filter({ hasText: 'concat' }).first().waitFor();
      } finally {
        process.kill(pid, 'SIGCONT');
      }
      await window.press('Escape');
    });

    await checks.check('list and ghost text: Escape closes the list, Tab takes the text', async () => {
      await window.press('Enter');
      await window.type('const total = li');
      // Of a language server that is slow to start the list comes by itself by now, and what is offered goes with its item.
      await poll('ghost text', async () => (await list.count()) > 0 || (await window.ghostText()) === 'st.length;');
      if ((await list.count()) === 0) await window.press('Control+Space');
      await list.first().waitFor();
      await delay(500);
      await window.screenshot('list-and-ghost');
      await window.press('Escape');
      await list.first().waitFor({ state: 'hidden' });
      await window.ghostTextBecomes('st.length;');
      await window.press('Tab');
      await poll('taken', async () => (await lastLine()) === 'const total = list.length;');
    });

    await checks.check('a blank line that the editor indented: one Tab takes all of the text', async () => {
      await newFile('f.js');
      await window.type('function f() {');
      await window.press('Enter');
      await window.ghostTextBecomes('char buffer[64];');
      await window.press('Tab');
      await poll('taken', async () => /^function f\(\) \{\n {4}char buffer\[64\];\n\}$/.test(await window.text()));
    });

    await checks.check('behind a bracket that the editor closes by itself there is a text', async () => {
      await window.press('End');
      await window.press('Enter');
      await window.type('call(');
      await window.ghostTextBecomes('alpha(beta, gamma)');
      await window.press('Tab');
      await poll('taken', async () => /\n {4}call\(alpha\(beta, gamma\)\)?\n\}$/.test(await window.text()));
    });

    await checks.check('without a text Tab is one indent, Escape and Shift+Tab are the editor\'s own', async () => {
      await control({ completeDelay_ms: 600_000 });
      try {
        await window.press('End');
        await window.press('Enter');
        await delay(300);
        assert.equal(await window.ghostText(), '');
        await window.press('Tab');
        await window.type('x');
        await poll('indented', async () => /\n {8}x\n/.test(await window.text()));
        await window.press('Escape');
        await window.press('Shift+Tab');
        await poll('outdented', async () => /\n {4}x\n/.test(await window.text()));
        await window.press('Control+F');
        // It is seen before it has the focus, and has the focus before the editor knows that Escape closes it: an earlier one is nobody's.
        await window.page.locator('.find-widget.visible :focus').waitFor();
        await poll('closed', async () => {
          await window.press('Escape');
          return window.page.locator('.find-widget.visible').waitFor({ state: 'hidden', timeout: 1000 }).then(() => true, () => false);
        });
      } finally {
        await control({});
      }
    });

    await checks.check('a blank line between statements: offered after Enter and by command, not by coming there', async () => {
      await window.openFile('size.c');
      await window.goTo(4, 1);
      await window.press('End');
      await window.press('Enter');
      await window.ghostTextBecomes('char buffer[64];');
      await window.press('Escape');
      await window.type('q');
      await window.press('Backspace');
      await delay(600);
      await window.press('Escape');
      const before = await completeRequests();
      for (const key of ['ArrowUp', 'ArrowDown', 'ArrowDown', 'ArrowUp']) await window.press(key);
      await delay(700);
      assert.equal(await window.ghostText(), '');
      assert.equal(await completeRequests(), before);
      await window.command('Trigger Inline Suggestion');
      await window.ghostTextBecomes('char buffer[64];');
      await window.press('Escape');
    });

    await checks.check('Vim-like keys: normal mode asks for nothing, insert mode is offered text, Escape only leaves it', async () => {
      await newFile('vim.js');
      await window.command('Vim Keys: On');
      await window.focusEditor();
      await delay(500);
      const before = await completeRequests();
      await window.type('jjkkllhj', 40);
      await delay(600);
      assert.equal(await completeRequests(), before);
      assert.equal(await window.text(), 'const first = 1;\nconst second = 2;\n');
      await window.type('o', 40);
      await window.type('const answer =', 40);
      await window.ghostTextBecomes(' 42;');
      await window.press('Escape');
      await delay(700);
      assert.equal(await window.ghostText(), '', 'Escape hides it, for good');
      const asked = await completeRequests();
      await window.type('kjkhl', 40);
      await delay(700);
      assert.equal(await window.ghostText(), '', 'nothing comes back in normal mode');
      assert.equal(await completeRequests(), asked);
      await window.type('jA', 40);
      await window.type(' ', 40);
      await window.ghostTextBecomes('42;');
      await window.press('Tab');
      await poll('taken', async () => (await window.text()).includes('const answer = 42;'));
      await window.command('Vim Keys: Off');
    });

    await checks.check('the commit message box is offered nothing', async () => {
      await window.openContainer('Source Control');
      const box = window.page.locator('.scm-editor .monaco-editor');
      await box.waitFor();
      const before = await completeRequests();
      await box.click();
      await window.type('const answer =', 30);
      await delay(1000);
      assert.equal(await completeRequests(), before);
      assert.equal(await window.ghostText(box), '');
    });
  });

  // ---- reading, stopped and forgotten ----

  await group('reading', () => newWorkspace('reading'), async (folder) => {
    await checks.check('a pause holds through a reload, and is said everywhere', async () => {
      // As long as something is left to read.
      await control({ filesPerSecond: 0 });
      await allowReading();
      await poll('reading', async () => (await requests('open')).at(-1).params.ingest);
      await window.command('SALA: Pause Reading');
      await poll('paused', async () => (await requests('pause')).at(-1).params.paused);
      // VS Code in a browser writes down what an extension keeps only now and then.
      await delay(2000);
      await window.reload();
      await window.openContainer('SALA');
      await window.chat().getByText(/reading is paused/).waitFor();
      assert.equal((await requests('pause')).at(-1).params.paused, true);
      await window.command('SALA: Show What Has Been Read');
      await window.page.locator('.pane-header', { hasText: 'Coverage' }).hover();
      await window.page.locator('.pane-header .action-label[aria-label^="SALA: Resume Reading"], .pane-header .action-label[aria-label^="Resume Reading"]').click();
      await poll('resumed', async () => !(await requests('pause')).at(-1).params.paused);
      await window.chat().getByText(/^Reading: /).waitFor();
      await control({});
    });

    await checks.check('a pause that another window has ended does not come back with a reload', async () => {
      await control({ filesPerSecond: 0 });
      await window.command('SALA: Pause Reading');
      await window.chat().getByText(/reading is paused/).waitFor();
      await control({ filesPerSecond: 0, endPauses: true });
      await window.chat().getByText(/reading is paused/).waitFor({ state: 'detached' });
      await delay(2000);
      await control({ filesPerSecond: 0 });
      const n = (await requests('pause')).length;
      await window.reload();
      await poll('opened again', async () => (await requests('pause')).length > n);
      assert.equal((await requests('pause')).at(-1).params.paused, false);
      await control({});
    });

    await checks.check('files that were not searched stand with the answer, after a reload too, until all are searched', async () => {
      await ask('vast: where is it?');
      const note = window.chat().locator('.note', { hasText: '1,234 files were not searched for what the question names' });
      await note.waitFor();
      await delay(500);
      await window.reload();
      await note.waitFor();
      await window.screenshot('unsearched');
      await window.chat().getByRole('button', { name: 'Ask again and search all of them' }).click();
      await poll('asked again', async () => (await requests('ask')).at(-1).params.search === 'all');
      await note.waitFor({ state: 'detached' });
      await window.chat().locator('.turn:not(.running)').waitFor();
      assert.equal(await note.count(), 0);
    });

    await checks.check('a workspace is forgotten after a question, and not read again by itself', async () => {
      await window.command('SALA: Forget This Workspace');
      const dialog = window.page.locator('.monaco-dialog-box');
      await dialog.getByRole('button', { name: 'Cancel' }).click();
      assert.equal((await requests('forget')).length, 0);
      await window.command('SALA: Forget This Workspace');
      await dialog.getByText('Forget what was read of this workspace?').waitFor();
      await window.screenshot('forget');
      await dialog.getByRole('button', { name: 'Forget' }).click();
      await window.told('Forgotten: 42 segments, 3 MB.');
      await poll('not read again', async () => (await requests('open')).at(-1).params.ingest === false);
      await delay(2000);
      await window.reload();
      await window.statusItem('SALA').waitFor();
      await poll('opened', async () => (await requests('open')).at(-1).params.roots[0].path === folder);
      assert.equal((await requests('open')).at(-1).params.ingest, false);
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
      await allowReading();
      await poll('read', async () => /In memory, \d+ tokens/.test(await tooltip('plain.ts')));
      await row('src').click();
      await row('stale.ts').waitFor();
      await poll('stale', async () => (await badge('stale.ts')) === '~');
      assert.match(await tooltip('dist'), /SALA: Excluded: by an ignore file \(\.salaignore:2: dist\)/);
      await window.screenshot('explorer');
    });

    await checks.check('"Why is this file not read?" names the rule and opens it', async () => {
      await menu('private.ts', 'Why Is This File Not Read?');
      const told = await window.told('private.ts is not read: an ignore rule leaves it out');
      await window.screenshot('explorer-why');
      await told.getByRole('button', { name: 'Open the rule' }).click();
      await poll('the rule', async () => (await window.activeTab()) === '.salaignore' && /Ln 1,/.test(await window.position()));
      await menu('src', 'Why Is This File Not Read?');
      await window.told('src: 2 files in memory.');
    });

    await checks.check('one click leaves a folder out, in the settings of the folder; undo is the same click', async () => {
      await menu('src', 'Read or Leave Out');
      const told = await window.told('src is left out of what is read');
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
      await window.told('private.ts is read from now on');
      await poll('told', async () => (await requests('open')).at(-1).params.roots[0].include.includes('/private.ts'));
      await poll('read', async () => /In memory/.test(await tooltip('private.ts')));
      await menu('.env', 'Read or Leave Out');
      await window.told('.env is not read: it may hold secrets');
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
