// The product as a user has it: the packaged VSIX with its own engine and model in a real VS Code. A question with a streamed
// answer and a source that opens, ghost text, an edit that changes an answer, an engine that is killed, a reload that encodes
// nothing again. $SALA_VSIX names a VSIX to test; without it one is packaged. Ends with `N passed, N failed`.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { packageExtension } from '../../extension/build/package.mjs';
import { hostTarget } from '../../extension/build/zig.mjs';
import { Checks, installVsix, launchBrowser, makeProfile, poll, setUp, startServer, Window } from './bench.mjs';
import { notebook } from './notebook.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));
const fixtures = path.join(root, 'test/fixtures/workspace');
/** Two cores that are busy with other tests read some hundred tokens a second. */
const reading_ms = 300_000;
const answer_ms = 120_000;

await setUp();
const vsix = process.env['SALA_VSIX'] ?? (await packageExtension(hostTarget()));
const scratch = await mkdtemp(path.join(tmpdir(), 'sala-e2e-product-'));
const profile = await makeProfile(path.join(scratch, 'profile'), { 'workbench.colorTheme': 'Default Dark Modern' }, modelSetting());
await installVsix(profile, vsix);
const server = await startServer(profile, { env: { XDG_CACHE_HOME: path.join(scratch, 'cache') } });
const browser = await launchBrowser();
/** @type {Window} */
let window;
const checks = new Checks(async (n) => window?.screenshot(`product-failed-${n}`).catch(() => {}));

/** The VSIX's own model, unless SALA_E2E_MODEL names another folder. */
function modelSetting() {
  const folder = process.env['SALA_E2E_MODEL'];
  return folder === undefined ? {} : { 'sala.model.folder': folder };
}

/** Process ids of the engines that this server's extension started. */
function engines() {
  const lines = execFileSync('ps', ['-eo', 'pid=,stat=,args='], { encoding: 'utf8' }).split('\n');
  return lines.filter((line) => line.includes(profile.extensions) && line.includes('engine.cjs') && !/^\s*\d+\s+Z/.test(line)).map((line) => Number(line.trim().split(/\s+/, 1)[0]));
}

/** Asks and returns the turn, once it has ended. */
async function ask(question) {
  const turns = window.chat().locator('.turn');
  const before = await turns.count();
  const input = window.chat().locator('textarea');
  await input.fill(question);
  await input.press('Enter');
  await poll('asked', async () => (await turns.count()) > before);
  const turn = turns.nth(before);
  await poll('answered', async () => !((await turn.getAttribute('class')) ?? '').includes('running'), answer_ms);
  return turn;
}

async function allRead() {
  await poll('everything is read', async () => /^\d+ files read/.test(await window.chat().locator('.ingest-line').innerText()), reading_ms);
}

/** The text of the diagnostics, as far as it is in view. */
async function diagnostics() {
  await window.command('SALA: Diagnostics');
  return poll('diagnostics', async () => {
    const shown = await window.editor().locator('.view-lines').innerText().catch(() => '');
    return /diagnostics/.test(shown) ? shown.replace(/\u00a0/g, ' ') : null;
  });
}

try {
  const folder = path.join(scratch, 'tidepool');
  await cp(fixtures, folder, { recursive: true });
  window = await Window.open(browser, server, folder);

  await checks.check('the workspace is read after consent', async () => {
    await window.statusItem('SALA').waitFor();
    await window.openContainer('SALA');
    await window.chat().getByRole('button', { name: 'Read in the background' }).click();
    await allRead();
    await window.screenshot('product-read');
  });

  await checks.check('an answer streams, and its source opens the right file and line', async () => {
    // Watched within the page: a machine that is busy looks at it less often than it changes.
    const lengths = await window.chat().locator('body').evaluateHandle((body) => {
      const seen = new Set();
      new MutationObserver(() => seen.add(body.querySelector('.turn.running .answer')?.textContent.length ?? 0)).observe(body, { childList: true, subtree: true, characterData: true });
      return seen;
    });
    const turn = await ask('Where is `frame_checksum` defined?');
    assert.ok((await lengths.evaluate((seen) => [...seen])).filter((n) => n > 0).length >= 3, 'it streams');
    // Which of the two, the header's declaration or the definition, is the model's choice; the link must keep its word.
    const named = /src\/net\/(frame\.[ch])/.exec(await turn.locator('.answer').innerText())?.[1];
    assert.ok(named !== undefined, await turn.locator('.answer').innerText());
    assert.match(await turn.locator('.source').first().innerText(), /frame\.[ch]/);
    await window.screenshot('product-answer');
    await turn.locator('.answer a', { hasText: named }).first().click();
    await poll(named, async () => (await window.activeTab()) === named);
    await poll('a line that holds the name', async () => {
      const line = Number(/Ln (\d+)/.exec(await window.position())?.[1]);
      const lines = (await readFile(path.join(folder, 'src/net', named), 'utf8')).split('\n');
      return lines[line - 1]?.includes('frame_checksum');
    });
  });

  await checks.check('a name that is nowhere is said to be nowhere', async () => {
    const turn = await ask('What does `drain_estuary` do?');
    await turn.locator('.banner', { hasText: 'drain_estuary is nowhere in this workspace' }).waitFor();
  });

  await checks.check('an edit changes the answer', async () => {
    const before = await ask('What is the value of `SILENT_AFTER_S`?');
    assert.match(await before.locator('.answer').innerText(), /600/);
    await window.openFile('alerts.ts');
    await window.goTo(4, 31);
    await window.press('Shift+End');
    await window.type('947;');
    await window.save();
    assert.match(await readFile(path.join(folder, 'web/alerts.ts'), 'utf8'), /SILENT_AFTER_S = 947;/);
    const answer = await poll('the new value', async () => {
      const text = await (await ask('What is the value of `SILENT_AFTER_S`?')).locator('.answer').innerText();
      return /947/.test(text) ? text : null;
    }, answer_ms);
    assert.doesNotMatch(answer, /\b600\b/);
  });

  await checks.check('ghost text appears and Tab takes it', async () => {
    await window.openFile('ring-reader.ts');
    await window.press('Control+End');
    await window.type('\nexport function newestReading(readings: readonly Reading[]): Reading | undefined {\n  return ', 15);
    const ghost = await poll('ghost text', async () => (await window.ghostText()) || null);
    await window.screenshot('product-ghost');
    const before = await window.text();
    await window.press('Tab');
    await poll('taken', async () => (await window.text()) !== before && (await window.ghostText()) === '');
    assert.ok((await window.text()).includes(ghost.split('\n')[0].trim()));
  });

  await checks.check('a cell of a notebook is completed from the cells before it', async () => {
    await writeFile(path.join(folder, 'rates.ipynb'), notebook([
      ['code', 'harbour_rate_qa17 = 3'],
      ['markdown', 'What ships pay.'],
      ['code', '# the rate'],
      ['code', 'print("done")'],
    ]));
    await window.openEditor('rates.ipynb');
    await window.focusCell(2);
    await window.type('\nprint(harbour_', 15);
    await window.ghostTextBecomes(/^rate_qa17/, window.cellEditor());
    await window.screenshot('product-notebook');
    await window.press('Tab');
    await poll('taken', async () => /\nprint\(harbour_rate_qa17/.test(await window.text(window.cellEditor())));
    assert.doesNotMatch(await window.text(window.cellEditor()), /%%|done/, 'nothing of the next cell');
    await window.press('Control+S');
  });

  await checks.check('a file that is left out leaves memory, and comes back', async () => {
    const told = async (sentence) => {
      await poll(sentence, async () => {
        await window.command('SALA: Why Is This File Not Read?');
        return window.notification(sentence).first().waitFor({ timeout: 1500 }).then(() => true, () => false);
      }, answer_ms);
    };
    await window.openFile('summary.py');
    await window.command('SALA: Read or Leave Out');
    await window.told('summary.py is left out of what is read');
    await told('summary.py is not read: your settings leave it out (exclude: /tools/summary.py)');
    await window.command('SALA: Read or Leave Out');
    await told(/summary\.py is in memory: \d+ tokens/);
  });

  await checks.check('an engine that is killed comes back and answers', async () => {
    const [pid] = engines();
    assert.ok(pid > 0);
    process.kill(pid, 'SIGKILL');
    await poll('another engine', async () => engines().some((other) => other !== pid));
    const turn = await ask('Which file decides the HTTP port?');
    assert.match(`${await turn.locator('.answer').innerText()} ${await turn.locator('.sources').innerText()}`, /settings\.ts|deploy\.toml/);
  });

  await checks.check('a reload encodes nothing again, and the conversation is there', async () => {
    await allRead();
    const turns = await window.chat().locator('.turn').count();
    await window.save().catch(() => {});
    await window.reload();
    await window.chat().locator('body.ready').waitFor();
    await allRead();
    assert.equal(await window.chat().locator('.turn').count(), turns);
    const status = await diagnostics();
    assert.match(status, /"encoded_tokens": 0,/);
    assert.match(status, /"reused_tokens": [1-9]/);
  });

  await checks.check('what was read is exported and imported; a damaged pack is said to be one', async () => {
    const pack = `${folder}.pack`;
    const importFile = async (file) => {
      await window.fileDialog('SALA: Import What Was Read Elsewhere', scratch);
      await window.chooseFile(file);
    };
    await window.fileDialog('SALA: Export What Was Read', scratch);
    assert.equal(await window.filePlace().inputValue(), pack);
    await window.press('Enter');
    const exported = await window.told(/Exported: (\d+) files/, answer_ms);
    const [, files] = /Exported: (\d+) files/.exec(await exported.innerText());
    await importFile(pack);
    await window.told(`Imported: ${files} files`, answer_ms);
    await window.command('Notifications: Clear All Notifications');
    const bytes = await readFile(pack);
    bytes[bytes.length >> 1] ^= 1;
    await writeFile(path.join(scratch, 'damaged.pack'), bytes);
    await importFile(path.join(scratch, 'damaged.pack'));
    await window.told('Some of it was damaged and is read again; the log names it.', answer_ms);
    await window.screenshot('product-import-damaged');
    await writeFile(path.join(scratch, 'short.pack'), bytes.subarray(0, 100));
    await importFile(path.join(scratch, 'short.pack'));
    await window.told('This file holds nothing that SALA can import', answer_ms);
    await window.command('Notifications: Clear All Notifications');
  });

  await checks.check('the packaged kernels are the best that this processor can run', async () => {
    const flags = readFileSync('/proc/cpuinfo', 'utf8');
    const tables = { avx512_vnni: 'avx512_vnni', avx_vnni: 'avx_vnni', avx2: 'avx2', i8mm: 'neon_i8mm', asimddp: 'neon' };
    const expected = Object.entries(tables).find(([flag]) => new RegExp(`\\b${flag}\\b`).test(flags))?.[1] ?? 'portable';
    assert.match(await diagnostics(), new RegExp(`"backend": "${expected}"`));
  });

  await checks.check('nothing was asked of the network', async () => assert.deepEqual(window.outside, []));

  await checks.check('closing the window ends the engine', async () => {
    await window.close();
    await poll('no engine', async () => engines().length === 0);
  });
} finally {
  await browser.close();
  await server.stop();
  await rm(scratch, { recursive: true, force: true });
}
checks.end();
