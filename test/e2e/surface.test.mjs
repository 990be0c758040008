// The editor's surface in a real VS Code, with a scripted engine (fake-engine.ts): chat, completions, coverage, status, consent,
// what survives a reload, what a crash looks like. Screenshots go to test/e2e/screenshots. Ends with `N passed, N failed`.

import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { Checks, delay, installVsix, makeProfile, poll, startServer, Window, writeFolderSettings } from './bench.mjs';
import { answerIn, askIn, openChatIn, startScripted } from './scripted.mjs';

const { scratch, vsix, server, browser, env, requests, control, newWorkspace, stop } = await startScripted('surface');
/** @type {Window} */
let window;
const checks = new Checks(async (n) => window?.screenshot(`failed-${n}`).catch(() => {}));
checks.say(`server at ${server.origin}`);

const ask = (question) => askIn(window, question);
const openChat = () => openChatIn(window);
const answer = (nth) => answerIn(window, nth);

try {
  const folder = await newWorkspace('tidepool');
  await writeFile(path.join(folder, 'package.lock'), 'x\n');
  await writeFile(path.join(folder, '.env'), 'KEY=1\n');
  await control({ filesPerSecond: 1 });
  window = await Window.open(browser, server, folder);
  checks.say('workbench ready');

  await checks.check('first start: nothing is opened, consent is asked for with its cost', async () => {
    await window.statusItem('SALA').waitFor();
    await window.told('SALA can read this workspace in the background');
    await window.screenshot('consent');
    assert.match(await window.notification('SALA can read').innerText(), /\d+ files, about [\d.]+ K tokens, .* on 2 cores/s);
    assert.equal(await window.page.locator('.part.sidebar .composite.title', { hasText: 'SALA' }).count(), 0, 'no view is opened');
    assert.deepEqual((await requests('open')).map((r) => r.params.ingest), [false]);
  });

  await checks.check('the chat view asks the same, and reading begins when it is granted', async () => {
    await window.openContainer('SALA');
    await window.chat().locator('body.ready').waitFor();
    await delay(500);
    await window.screenshot('chat-empty');
    await window.chat().getByRole('button', { name: 'Read in the background' }).click();
    await poll('reading', async () => (await requests('open')).some((r) => r.params.ingest));
    await window.chat().getByText(/Reading: \d+ of about \d+ files/).waitFor();
  });

  await checks.check('a question streams an answer with code, sources and how much was read', async () => {
    await ask('What does `parse_frame` do?');
    await window.chat().locator('.turn.running').waitFor();
    await answer();
    await delay(300);
    await window.screenshot('chat-answer');
    await window.chat().locator('.source', { hasText: 'frame.c' }).waitFor();
    await window.chat().getByText(/Answered after reading/).waitFor();
    await window.chat().locator('.hljs-type, .hljs-keyword').first().waitFor();
  });

  await checks.check('a source opens its file at its lines, and the focus stays in the chat', async () => {
    const source = window.chat().locator('.source', { hasText: 'frame.c' });
    const line = Number(/:(\d+)/.exec(await source.innerText())[1]);
    await source.click();
    await poll('tab', async () => (await window.activeTab()) === 'frame.c');
    await poll('line', async () => new RegExp(`Ln ${line + 7},|Ln ${line},`).test(await window.position()));
    assert.equal(await window.page.evaluate(() => document.activeElement?.tagName), 'IFRAME');
    await window.screenshot('chat-source');
  });

  await checks.check('a path that is not there is marked and no link', async () => {
    const mark = window.chat().locator('.mark.unknown', { hasText: 'src/nowhere.c' });
    assert.match(await mark.getAttribute('title'), /Nowhere in this workspace/);
    assert.equal(await window.chat().locator('a', { hasText: 'src/nowhere.c' }).count(), 0);
  });

  await checks.check('a follow-up carries the turns before it', async () => {
    await ask('and who calls it?');
    await answer(1);
    const { params } = (await requests('ask')).at(-1);
    assert.deepEqual(params.history.map((t) => t.question), ['What does `parse_frame` do?']);
    assert.equal(params.activeFile.path, 'src/net/frame.c');
  });

  await checks.check('Stop before the first token and in the middle; what had come stays; Ask again works', async () => {
    await ask('slow question');
    await window.chat().locator('.turn.running').waitFor();
    await window.chat().getByRole('button', { name: 'Stop' }).click();
    await window.chat().getByText('Stopped.', { exact: true }).waitFor();
    await ask('long answer');
    await window.chat().locator('.answer', { hasText: 'Paragraph 2' }).waitFor();
    await window.chat().locator('textarea').press('Escape');
    await poll('stopped', async () => (await window.chat().getByText('Stopped.', { exact: true }).count()) === 2);
    const last = window.chat().locator('.turn').last();
    assert.match(await last.innerText(), /Paragraph 1/);
    const before = await window.chat().locator('.turn').count();
    await control({ filesPerSecond: 1000, tokenDelay_ms: 2 });
    await last.locator('.icon-button[aria-label="Ask again"]').click();
    await window.chat().locator('.answer', { hasText: 'Paragraph 30' }).waitFor();
    assert.equal(await window.chat().locator('.turn').count(), before, 'asked again in its place');
  });

  await checks.check('Copy gives exactly the block', async () => {
    await ask('fence');
    await window.chat().locator('.answer', { hasText: 'Done.' }).waitFor();
    await window.chat().getByRole('button', { name: 'Copy code' }).last().click();
    await poll('clipboard', async () => (await window.page.evaluate(() => navigator.clipboard.readText())) === '# Demo\n```sh\nnpm start\n```\n## After\n- item');
  });

  await checks.check('typing in the editor while an answer streams loses no key', async () => {
    await control({ filesPerSecond: 1000, tokenDelay_ms: 10 });
    const text = 'the quick brown fox jumps over the lazy dog and runs away from it ';
    await window.openFile('architecture.md');
    await openChat();
    await ask('long answer');
    await window.focusEditor();
    await window.press('Control+End');
    await window.type(`\n${text.repeat(3)}`, 20);
    await window.save();
    assert.ok((await readFile(path.join(folder, 'docs/architecture.md'), 'utf8')).endsWith(`\n${text.repeat(3)}`));
    await poll('ended', async () => (await window.chat().locator('.turn.running').count()) === 0);
  });

  await checks.check('Explain, Fix and Write a Test ask about the selection and leave the focus in the editor', async () => {
    await window.openFile('alerts.ts');
    await window.goTo(6, 1);
    for (let i = 0; i < 4; i += 1) await window.press('Shift+ArrowDown');
    await window.command('SALA: Explain the Selection');
    await poll('asked', async () => (await requests('ask')).at(-1).params.attachment?.path === 'web/alerts.ts');
    const { params } = (await requests('ask')).at(-1);
    assert.deepEqual([params.attachment.start_line, params.attachment.end_line], [6, 9]);
    assert.match(params.attachment.text, /^export function silentSensors/);
    await window.chat().locator('.question-attachment', { hasText: 'web/alerts.ts:6–9' }).waitFor();
    await poll('ended', async () => (await window.chat().locator('.turn.running').count()) === 0);
    assert.equal(await window.page.evaluate(() => document.activeElement?.tagName !== 'IFRAME'), true);
  });

  await checks.check('a block is inserted with the cursor\'s indentation in the file\'s unit', async () => {
    await window.openFile('tideview.go');
    await window.goTo(33, 1);
    await window.press('End');
    await window.press('Enter');
    const before = await window.text();
    await window.chat().getByRole('button', { name: 'Insert at cursor' }).last().click();
    await poll('inserted', async () => (await window.text()) !== before);
    await window.save();
    const saved = await readFile(path.join(folder, 'tools/tideview.go'), 'utf8');
    assert.match(saved, /\n(\t+)if \(ready\) \{\n\1\tstart\(\);\n\1\}/);
    await poll('the engine hears of it', async () => (await requests('filesChanged')).some((r) => r.params.paths.some((f) => f.endsWith('tideview.go'))));
  });

  await checks.check('an edited document is told, and settled when saved', async () => {
    await window.openFile('summary.py');
    await window.press('Control+End');
    await window.type('# note');
    await poll('told', async () => (await requests('document')).some((r) => r.params.path.endsWith('summary.py') && r.params.text?.includes('# note')));
    await window.save();
    await poll('settled', async () => (await requests('document')).at(-1).params.text === null);
    assert.ok((await requests('typing')).length > 0);
    assert.ok((await requests('recentFiles')).at(-1).params.paths[0].endsWith('summary.py'));
  });

  // ---- completions ----

  await checks.check('ghost text of one line and of several, taken with Tab', async () => {
    await writeFile(path.join(folder, 'hello.js'), '// a file to type in\n');
    await window.openFile('hello.js');
    await window.press('Control+End');
    await window.type('const answer =');
    await window.ghostTextBecomes(' 42;');
    await window.screenshot('ghost-line');
    await window.press('Tab');
    await poll('taken', async () => (await window.text()).endsWith('const answer = 42;'));
    await window.type('\nfunction greet');
    await window.ghostTextBecomes(/return/);
    await window.screenshot('ghost-block');
    await window.press('Tab');
    await window.save();
    assert.equal(await readFile(path.join(folder, 'hello.js'), 'utf8'), '// a file to type in\nconst answer = 42;\nfunction greet(name) {\n  return `hello ${name}`;\n}');
  });

  const completeRequests = async () => (await requests('complete')).length;

  await checks.check('moving the cursor, undo and redo ask for nothing and show nothing', async () => {
    await delay(500);
    const before = await completeRequests();
    for (const key of ['ArrowUp', 'ArrowLeft', 'End', 'Home', 'PageUp', 'Control+End']) await window.press(key);
    await window.editor().locator('.view-line').nth(1).click();
    await delay(600);
    assert.equal(await completeRequests(), before);
    assert.equal(await window.ghostText(), '');
    await window.press('Control+End');
    await window.press('Control+Z');
    await delay(1500);
    assert.equal(await window.ghostText(), '', 'after undo');
    await window.press('Control+Y');
    await delay(800);
    assert.equal(await window.ghostText(), '', 'after redo');
    assert.equal(await completeRequests(), before);
  });

  await checks.check('accepted word by word the rest stays without the engine; typed along it does not flicker', async () => {
    await window.press('Control+End');
    await window.type('\ncall(');
    await window.ghostTextBecomes('alpha(beta, gamma)');
    await control({ completeDelay_ms: 600_000 });
    const before = await completeRequests();
    await window.press('Control+ArrowRight');
    await window.ghostTextBecomes('(beta, gamma)');
    await window.press('Control+ArrowRight');
    await window.ghostTextBecomes(/^beta, gamma\)|^, gamma\)/);
    for (const key of (await window.ghostText()).slice(0, 5)) {
      await window.press(key === ' ' ? 'Space' : key);
      await delay(30);
      assert.notEqual(await window.ghostText(), '', `after ${key}`);
    }
    assert.equal(await completeRequests(), before, 'all from the cache');
    await control({});
  });

  await checks.check('accepted and deleted it is not offered again at the same letters', async () => {
    await window.press('Escape');
    await window.type('\nret');
    await window.ghostTextBecomes('urn total');
    await window.press('Tab');
    await poll('taken', async () => (await window.text()).endsWith('return total'));
    for (let i = 0; i < 12; i += 1) await window.press('Backspace');
    await window.type('ret');
    await delay(1200);
    assert.equal(await window.ghostText(), '');
  });

  await checks.check('nothing made for one line appears on another (answers late by 800 ms)', async () => {
    await control({ completeDelay_ms: 800 });
    await writeFile(path.join(folder, 'ab.py'), 'a = \nb = ');
    await window.openFile('ab.py');
    await window.goTo(1, 4);
    for (const key of ['Backspace', 'Space', 'ArrowDown', 'Backspace', 'Space']) {
      await window.press(key);
      await delay(100);
    }
    for (let i = 0; i < 20; i += 1) {
      assert.doesNotMatch(await window.ghostText(), /line_one/);
      await delay(100);
    }
    await control({});
  });

  await checks.check('a suggestion that needs less indentation replaces it', async () => {
    await writeFile(path.join(folder, 'even.py'), 'def evens(numbers):\n    found = []\n    for n in numbers:\n        if n % 2 == 0:\n            found.append(n)');
    await window.openFile('even.py');
    await window.press('Control+End');
    await window.type('\n');
    await delay(1500);
    await window.screenshot('ghost-dedent');
    if ((await window.ghostText()) !== '') {
      await window.press('Tab');
      await delay(300);
      assert.match(await window.text(), /\n {4}return found$/);
    }
  });

  await checks.check('off by language, for good; off in commit messages, search editors, ignored and read-only files', async () => {
    await writeFolderSettings(folder, { 'sala.completions.languages': { '*': true, markdown: false } });
    await writeFile(path.join(folder, 'a.md'), '');
    await writeFile(path.join(folder, 'other.py'), '');
    await writeFile(path.join(folder, '.salaignore'), 'private.py\n');
    await writeFile(path.join(folder, 'private.py'), '');
    await mkdir(path.join(folder, 'git'), { recursive: true });
    await writeFile(path.join(folder, 'git/COMMIT_EDITMSG'), '');
    await window.command('SALA: Restart the Engine');
    await poll('restarted', async () => (await requests('load')).length >= 2);
    await window.statusItem('SALA').waitFor();
    for (let i = 0; i < 3; i += 1) {
      await window.openFile('a.md');
      await window.statusItem('off here').waitFor();
      await window.press('Control+End');
      const before = await completeRequests();
      await window.type('\nconst answer =');
      await delay(700);
      assert.equal(await window.ghostText(), '', 'markdown');
      assert.equal(await completeRequests(), before);
      await window.openFile('other.py');
      await window.press('Control+End');
      await window.type('\nconst answer =');
      await window.ghostTextBecomes(' 42;');
      await window.press('Escape');
    }
    for (const file of ['COMMIT_EDITMSG', 'private.py']) {
      await window.openFile(file);
      await window.press('Control+End');
      const before = await completeRequests();
      await window.type('const answer =');
      await delay(900);
      assert.equal(await window.ghostText(), '', file);
      assert.equal(await completeRequests(), before, file);
    }
    await writeFolderSettings(folder, {});
  });

  await checks.check('with the list open: what is offered extends its item, and Tab takes the item once', async () => {
    await writeFolderSettings(folder, { 'editor.quickSuggestions': { other: 'on', comments: 'off', strings: 'off' } });
    await writeFile(path.join(folder, 'w.js'), 'const list = [3, 1, 2];\n');
    await window.openFile('w.js');
    await window.press('Control+End');
    await window.type('list.');
    await window.page.locator('.suggest-widget.visible .monaco-list-row').first().waitFor();
    await window.press('ArrowDown');
    await window.press('ArrowDown');
    await delay(2000);
    const item = await window.page.locator('.suggest-widget.visible .monaco-list-row.focused .label-name').innerText();
    await window.screenshot('list-open');
    await window.press('Tab');
    await poll('taken', async () => (await window.text()).split('\n').at(-1) === `list.${item}`);
    await writeFolderSettings(folder, {});
  });

  // ---- coverage, status ----

  await checks.check('the coverage view shows what is in, what is excluded and by which rule', async () => {
    await window.command('SALA: Show What Has Been Read');
    const row = (text) => window.page.locator('.pane-body .monaco-list-row', { hasText: text }).first();
    await row('In memory').waitFor();
    await row('Excluded').click();
    await row('Lock files').click();
    await row('package.lock').waitFor();
    await row('Secrets').waitFor();
    await row('By an ignore file').waitFor();
    await row('In memory').click();
    await row('src').waitFor();
    await delay(300);
    await window.screenshot('coverage');
  });

  await checks.check('the menu of the status bar item pauses and resumes', async () => {
    await window.statusItem('SALA').click();
    await window.page.locator('.quick-input-list').waitFor();
    await delay(300);
    await window.screenshot('menu');
    await window.pick('Pause reading');
    await poll('paused', async () => (await requests('pause')).at(-1).params.paused === true);
    await window.command('SALA: Resume Reading');
    await poll('resumed', async () => (await requests('pause')).at(-1).params.paused === false);
  });

  // ---- what survives ----

  await checks.check('text, caret, chips and history survive a reload; a question asked just before it is kept as broken off', async () => {
    await openChat();
    await window.chat().locator('.turn').first().waitFor();
    const turns = await window.chat().locator('.turn').count();
    const input = window.chat().locator('textarea');
    await ask('slow: asked right before the reload');
    await delay(80);
    await input.pressSequentially('line one');
    await input.press('Shift+Enter');
    await input.pressSequentially('line two');
    await input.evaluate((e) => e.setSelectionRange(3, 6));
    await delay(400);
    await window.reload();
    await window.chat().locator('body.ready').waitFor();
    await poll('text', async () => (await window.chat().locator('textarea').inputValue()) === 'line one\nline two');
    assert.deepEqual(await window.chat().locator('textarea').evaluate((e) => [e.selectionStart, e.selectionEnd]), [3, 6]);
    assert.equal(await window.chat().locator('.turn').count(), turns + 1);
    await window.chat().locator('.turn').last().getByText('Broken off').waitFor();
    await control({ filesPerSecond: 1000 });
    await window.chat().locator('.turn').last().locator('.icon-button[aria-label="Ask again"]').click();
    await window.chat().locator('.turn.running').waitFor();
    await poll('answered', async () => (await window.chat().locator('.turn.running').count()) === 0);
  });

  await checks.check('an engine that is killed is said to have stopped, and the next question starts another', async () => {
    const pid = (await requests()).at(-1).pid;
    await window.chat().locator('textarea').fill('');
    await ask('crash');
    await window.chat().locator('.turn .notice', { hasText: 'The engine cannot be started or does not answer.' }).waitFor();
    await window.screenshot('chat-crash');
    const turns = await window.chat().locator('.turn').count();
    await ask('Where is `frame_checksum` defined?');
    await poll('answered', async () => (await window.chat().locator('.turn').count()) === turns + 1 && (await window.chat().locator('.turn').last().locator('.source').count()) > 0);
    assert.notEqual((await requests()).at(-1).pid, pid);
  });

  await checks.check('conversation as Markdown, and a new one', async () => {
    await window.command('SALA: Export Conversation as Markdown');
    await poll('document', async () => /# Conversation/.test(await window.text()));
    await window.command('SALA: New Conversation');
    await poll('empty', async () => (await window.chat().locator('.turn').count()) === 0);
    await window.chat().getByText('Ask about this workspace').first().waitFor();
  });

  await checks.check('light theme', async () => {
    await writeFolderSettings(folder, { 'workbench.colorTheme': 'Default Light Modern' });
    await window.page.locator('.monaco-workbench.vs').waitFor();
    await ask('Where is `mean_by_sensor` defined, and `not_there`?');
    await answer();
    await delay(500);
    await window.screenshot('chat-light');
    await window.chat().locator('.banner', { hasText: 'not_there is nowhere in this workspace' }).waitFor();
    await writeFolderSettings(folder, {});
  });

  await checks.check('nothing was asked of the network', async () => assert.deepEqual(window.outside, []));

  await checks.check('closing the window ends the engine', async () => {
    const pid = (await requests()).at(-1).pid;
    await window.close();
    await poll('engine gone', async () => {
      try {
        process.kill(pid, 0);
        return false;
      } catch {
        return true;
      }
    });
  });

  // ---- windows in which nothing can be read ----

  await checks.check('an engine that cannot load its model: one message with what was expected, log and diagnostics', async () => {
    await control({ fail: 'load' });
    window = await Window.open(browser, server, await newWorkspace('broken'));
    await window.openContainer('SALA');
    await window.chat().getByText('The model cannot be used').waitFor();
    await window.chat().getByText('expected 1234 bytes, found 1000').waitFor();
    await window.chat().getByRole('button', { name: 'Show log' }).waitFor();
    await window.screenshot('chat-failed');
    await window.chat().getByRole('button', { name: 'Diagnostics' }).click();
    await poll('diagnostics', async () => /# SALA: diagnostics/.test(await window.text().catch(() => '')));
    await window.statusItem('SALA').waitFor();
    await window.close();
    await control({});
  });

  await checks.check('a window without a folder says that it needs one', async () => {
    const loads = (await requests('load')).length;
    window = await Window.open(browser, server, null);
    await window.openContainer('SALA');
    await window.chat().getByText('Open one to begin').waitFor();
    await ask('hi');
    await delay(500);
    assert.equal(await window.chat().locator('.turn').count(), 0);
    assert.equal((await requests('load')).length, loads);
    await window.screenshot('chat-no-folder');
    await window.close();
  });

  await checks.check('with everything off no engine runs', async () => {
    const loads = (await requests('load')).length;
    const quiet = await newWorkspace('quiet');
    await writeFolderSettings(quiet, { 'sala.completions.enabled': false, 'sala.ingest.enabled': false });
    window = await Window.open(browser, server, quiet);
    await window.statusItem('SALA').waitFor();
    await window.openFile('alerts.ts');
    await window.type('x');
    await delay(2000);
    assert.equal((await requests('load')).length, loads);
    await window.close();
  });
  await checks.check('a workspace that is not trusted is not read, and no engine runs', async () => {
    const loads = (await requests('load')).length;
    const careful = await makeProfile(path.join(scratch, 'careful'), { 'security.workspace.trust.startupPrompt': 'never' });
    await installVsix(careful, vsix);
    const trusting = await startServer(careful, { trust: true, env });
    try {
      window = await Window.open(browser, trusting, await newWorkspace('foreign'));
      await window.openContainer('SALA');
      await window.chat().getByText('This workspace is in Restricted Mode').waitFor();
      await window.chat().getByRole('button', { name: 'Manage trust' }).waitFor();
      await window.screenshot('chat-untrusted');
      await delay(1000);
      assert.equal((await requests('load')).length, loads);
      await window.close();
    } finally {
      await trusting.stop();
    }
  });
} finally {
  await stop();
}
checks.end();
