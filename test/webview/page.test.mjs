// The chat page: streaming, scrolling, keyboard, what is posted. Ends with `N passed, N failed`.

import assert from 'node:assert/strict';
import { Checks, delay, poll } from '../e2e/bench.mjs';
import { answered, browser, coverage, longTurns, manyTurns, openPage, paragraph, record, source, stream, surface } from './chat-page.mjs';

const checks = new Checks();

const fenced = ['Here is the file:', '```markdown', '# Demo', '```sh', 'npm start', '```', '## After', '- item', '```', 'Done. `a``b` and ~~~x and <script>alert(1)</script>', ''].join('\n');

await checks.check('a fence in a fence is one block, copied exactly, whatever the pieces', async () => {
  const pictures = [];
  for (const size of [fenced.length, 1, 3, 7]) {
    const it = await openPage();
    await it.send({ type: 'asked', record: record(1), replaces: null });
    await stream(it, 1, fenced, size, 0);
    await it.send({ type: 'answered', record: answered(1, fenced) });
    await it.page.locator('.turn-actions').waitFor();
    // Colours come when a block is seen.
    await delay(100);
    assert.equal(await it.page.locator('.answer pre').count(), 1);
    await it.page.locator('[data-action="copy_code"]').click();
    assert.deepEqual((await it.posted('copy')).at(-1), { type: 'copy', text: '# Demo\n```sh\nnpm start\n```\n## After\n- item' });
    await it.page.getByRole('button', { name: 'Copied' }).waitFor({ timeout: 1000 });
    await it.page.getByRole('button', { name: 'Copy code' }).waitFor();
    assert.equal(await it.page.locator('.answer script').count(), 0);
    pictures.push(await it.page.locator('.answer').innerHTML());
    assert.deepEqual(it.errors, []);
    await it.close();
  }
  for (const picture of pictures) assert.equal(picture, pictures[0]);
});

await checks.check('earlier blocks are not touched while text comes', async () => {
  const it = await openPage();
  await it.send({ type: 'asked', record: record(1), replaces: null });
  await stream(it, 1, 'First paragraph.\n\n```js\nconst a = 1;\n```\n\nThird', 9, 0);
  await poll('third block', () => it.page.evaluate(() => document.querySelectorAll('.answer .block').length === 3));
  await it.page.evaluate(() => {
    window.changes = 0;
    const observer = new MutationObserver((records) => (window.changes += records.length));
    for (const block of [...document.querySelectorAll('.answer .block')].slice(0, 2)) observer.observe(block, { subtree: true, childList: true, characterData: true, attributes: true });
  });
  const more = ' paragraph goes on.\n\n- a\n- b\n\n| a | b |\n|---|---|\n| 1 | 2 |\n';
  await stream(it, 1, more, 3, 0);
  await it.send({ type: 'answered', record: answered(1, `First paragraph.\n\n\`\`\`js\nconst a = 1;\n\`\`\`\n\nThird${more}`) });
  await it.page.locator('.turn-actions').waitFor();
  assert.equal(await it.page.evaluate(() => window.changes), 0);
  await it.close();
});

await checks.check('a line of 200,000 characters grows as one plain text, in place', async () => {
  const it = await openPage();
  await it.send({ type: 'asked', record: record(1), replaces: null });
  await it.send({ type: 'token', turn: 1, text: '```js\nlet' });
  await it.page.locator('.answer code .hljs-keyword').waitFor();
  await it.send({ type: 'token', turn: 1, text: ' x = 12; '.repeat(500) });
  await poll('too long for colours', () => it.page.evaluate(() => document.querySelector('.answer code').children.length === 0));
  await it.page.evaluate(() => {
    const code = document.querySelector('.answer code');
    window.before = code.firstChild;
    window.nodes = 0;
    const count = (records) => records.forEach(({ addedNodes, removedNodes }) => (window.nodes += addedNodes.length + removedNodes.length));
    new MutationObserver(count).observe(document.querySelector('.answer'), { subtree: true, childList: true });
  });
  for (let i = 0; i < 50; i += 1) await it.send({ type: 'token', turn: 1, text: 'let x = 12; '.repeat(334) });
  await poll('all of it', () => it.page.evaluate((length) => document.querySelector('.answer code').textContent.length === length, 3 + 500 * 9 + 50 * 334 * 12));
  assert.deepEqual(await it.page.evaluate(() => [document.querySelector('.answer code').firstChild === window.before, window.nodes]), [true, 0]);
  await it.close();
});

await checks.check('at the end it follows; scrolled up it stays, and a button leads back', async () => {
  const it = await openPage({ restore: { turns: longTurns } });
  const main = it.page.locator('main.turns');
  const gap = () => main.evaluate((e) => e.scrollHeight - e.scrollTop - e.clientHeight);
  assert.ok((await gap()) <= 1);
  await it.send({ type: 'asked', record: record(41), replaces: null });
  await stream(it, 41, paragraph.repeat(20), 40);
  assert.ok((await gap()) <= 1, 'follows');

  await main.hover();
  await it.page.mouse.wheel(0, -300);
  await poll('scrolled', async () => (await gap()) > 200);
  await delay(100);
  const top = () => main.evaluate((e) => {
    const box = e.getBoundingClientRect();
    const element = document.elementsFromPoint(box.left + 40, box.top + 30).find((x) => x.closest('.block, .question'));
    return { text: element.textContent.slice(0, 50), y: element.getBoundingClientRect().top };
  });
  const before = await top();
  for (let i = 0; i < 10; i += 1) {
    await stream(it, 41, paragraph.repeat(3), 30);
    const now = await top();
    assert.equal(now.text, before.text);
    assert.ok(Math.abs(now.y - before.y) <= 1, `moved by ${now.y - before.y}`);
  }
  const button = it.page.getByRole('button', { name: 'To the end' });
  assert.ok(await button.isVisible());
  await main.evaluate((e) => (e.scrollTop = e.scrollHeight - e.clientHeight - 8));
  await stream(it, 41, paragraph.repeat(3), 30);
  assert.ok((await gap()) <= 1, 'follows again from 8 px');
  assert.ok(await button.isHidden());
  await it.page.mouse.wheel(0, -900);
  await button.click();
  await poll('at the end', async () => (await gap()) <= 1);
  await it.close();
});

await checks.check('a selection in an earlier turn stays whole, a narrower view keeps what is on top', async () => {
  const it = await openPage({ restore: { turns: longTurns } });
  const main = it.page.locator('main.turns');
  await it.send({ type: 'asked', record: record(41), replaces: null });
  await main.evaluate((e) => {
    const block = document.querySelectorAll('.turn')[20].querySelector('.block');
    e.scrollTop += block.getBoundingClientRect().top - e.getBoundingClientRect().top - 20;
    getSelection().selectAllChildren(block);
  });
  const selected = await it.page.evaluate(() => String(getSelection()));
  await delay(100);
  const topTurn = () => main.evaluate((e) => [...document.querySelectorAll('.turn')].findIndex((t) => t.getBoundingClientRect().bottom > e.getBoundingClientRect().top));
  const before = await topTurn();
  const streaming = stream(it, 41, paragraph.repeat(30), 20);
  await it.page.setViewportSize({ width: 260, height: 620 });
  await streaming;
  assert.equal(await it.page.evaluate(() => String(getSelection())), selected);
  assert.equal(await topTurn(), before);
  await it.close();
});

await checks.check('a name that several files have is one link that offers them all', async () => {
  const it = await openPage();
  const answer = 'It is in `app.c`.';
  const files = ['first/app.c', 'second/app.c', 'third/app.c'];
  const marks = files.map((path) => ({ start: 10, end: 15, kind: 'link', source: { ...source, path } }));
  await it.send({ type: 'asked', record: answered(1, answer, { marks, sources: [source] }), replaces: null });
  const link = it.page.locator('.answer a');
  await link.first().waitFor();
  assert.equal(await link.count(), 1);
  assert.match(await link.getAttribute('title'), /one of 3 files of this name/);
  await link.click();
  assert.deepEqual((await it.posted('reveal')).map((m) => m.sources.map((s) => s.path)), [files]);
  await it.close();
});

await checks.check('with several folders in the window, places are told with theirs', async () => {
  const roots = [{ path: '/w', name: 'first' }, { path: '/elsewhere/w', name: 'second' }];
  const answer = 'See src/ring.c.';
  const other = { ...source, root: '/elsewhere/w' };
  const turn = answered(1, answer, { marks: [{ start: 4, end: 14, kind: 'link', source: other }], sources: [source, other] });
  const it = await openPage({ restore: { turns: [turn], surface: { ...surface, roots } } });
  await it.page.locator('.source').first().waitFor();
  assert.deepEqual(await it.page.locator('.source-folder').allInnerTexts(), ['first/src/', 'second/src/']);
  assert.match(await it.page.locator('.answer a').getAttribute('title'), /^Open second\/src\/ring\.c,/);
  await it.page.locator('.source').last().click();
  assert.deepEqual((await it.posted('reveal')).map((m) => m.sources[0].root), ['/elsewhere/w']);
  await it.close();
});

await checks.check('marks: checked links open, unknown names and corrected paths say so', async () => {
  const it = await openPage();
  const answer = 'See `ring_push` in src/ring.c and [the ring](lib/ring.c), but not `no_such`. [out](https://example.com/) [in](src/none.c)';
  const at = (text, more) => ({ start: answer.indexOf(text), end: answer.indexOf(text) + text.length, ...more });
  const marks = [
    at('ring_push', { kind: 'link', source }),
    at('src/ring.c', { kind: 'corrected', was: 'ring.c' }),
    at('src/ring.c', { kind: 'link', source }),
    at('lib/ring.c', { kind: 'link', source: { ...source, path: 'lib/ring.c' } }),
    at('no_such', { kind: 'unknown' }),
  ];
  await it.send({ type: 'asked', record: answered(1, answer, { marks, sources: [source] }), replaces: null });
  await it.page.locator('.answer a', { hasText: 'ring_push' }).click();
  await it.page.locator('.answer a', { hasText: 'the ring' }).click();
  await it.page.locator('.source').click();
  assert.deepEqual((await it.posted('reveal')).map((m) => m.sources.map((s) => s.path)), [['src/ring.c'], ['lib/ring.c'], ['src/ring.c']]);
  assert.match(await it.page.locator('.mark.corrected').getAttribute('title'), /the model wrote ring\.c/);
  assert.equal(await it.page.locator('.mark.unknown').innerText(), 'no_such');
  await it.page.locator('.answer a', { hasText: 'out' }).click();
  assert.deepEqual(await it.posted('open_link'), [{ type: 'open_link', href: 'https://example.com/' }]);
  assert.equal(await it.page.locator('.answer a', { hasText: /^in$/ }).count(), 0, 'an unchecked path is no link');
  assert.doesNotMatch(await it.page.locator('.answer').innerText(), /[\uFDD0-\uFDEF]/);
  await it.close();
});

await checks.check('missing, uncertain, cut off, coverage and "ask again when more is in"', async () => {
  const it = await openPage();
  await it.send({ type: 'asked', record: answered(1, 'Perhaps.', { uncertain: true, missing: ['fooBar', 'x_y'], stop: 'max_tokens', coverage }), replaces: null });
  const turn = it.page.locator('.turn').first();
  await turn.getByText('fooBar and x_y are nowhere in this workspace').waitFor();
  assert.equal(await turn.getByText('the answer is probably not here').count(), 0, 'what is missing says more');
  await it.send({ type: 'asked', record: answered(2, 'Perhaps.', { uncertain: true }), replaces: null });
  await it.page.locator('.turn').last().getByText('the answer is probably not here').waitFor();
  await turn.getByText('cut off').waitFor();
  await turn.getByText('Answered after reading 120 of about 900 files.').waitFor();
  assert.equal(await turn.locator('.link-button').count(), 0);
  const ingest = { state: 'reading', coverage: { ...coverage, files: 300, tokens: 150_000 }, encoded_tokens: 1, reused_tokens: 0, tokens_per_s: 200, seconds_left: 1800 };
  await it.send({ type: 'surface', surface: { ...surface, ingest } });
  await turn.locator('.link-button').click();
  assert.deepEqual(await it.posted('retry'), [{ type: 'retry', turn: 1, searchAll: false }]);
  assert.equal(await it.page.locator('.ingest-line').innerText(), 'Reading: 300 of about 900 files, about 30 minutes left');
  await it.close();
});

await checks.check('files that were not searched are said once, with the way to search them', async () => {
  const it = await openPage({ restore: { turns: [answered(1, 'Perhaps.', { unsearched: 12345 }), answered(2, 'Perhaps.', { unsearched: 1 }), answered(3, 'Surely.')] } });
  const turn = it.page.locator('.turn').first();
  await turn.getByText('12,345 files were not searched for what the question names; that goes on in the background.').waitFor();
  await it.page.locator('.turn').nth(1).getByText('1 file was not searched').waitFor();
  assert.equal(await it.page.getByText('not searched').count(), 2);
  await turn.getByRole('button', { name: 'Ask again and search all of them' }).click();
  assert.deepEqual(await it.posted('retry'), [{ type: 'retry', turn: 1, searchAll: true }]);
  await it.close();
});

await checks.check('Enter asks, Shift+Enter breaks the line, Escape stops and then leaves', async () => {
  const it = await openPage();
  const input = it.page.locator('textarea');
  await input.focus();
  await it.page.keyboard.type('one');
  await it.page.keyboard.press('Shift+Enter');
  await it.page.keyboard.type('two');
  await it.page.keyboard.press('Enter');
  assert.deepEqual(await it.posted('ask'), [{ type: 'ask', question: 'one\ntwo' }]);
  assert.equal(await input.inputValue(), '');
  await it.send({ type: 'asked', record: record(7), replaces: null });
  await it.page.getByRole('button', { name: 'Stop' }).waitFor();
  await it.page.keyboard.type('typed meanwhile');
  await it.page.keyboard.press('Enter');
  assert.equal((await it.posted('ask')).length, 1, 'one at a time');
  await it.page.keyboard.press('Escape');
  assert.deepEqual(await it.posted('stop'), [{ type: 'stop', turn: 7 }]);
  await it.send({ type: 'answered', record: answered(7, 'part', { stop: 'cancelled' }) });
  await it.page.getByText('Stopped.', { exact: true }).waitFor();
  await it.page.keyboard.press('Escape');
  assert.equal((await it.posted('focus_editor')).length, 1);
  assert.equal(await input.inputValue(), 'typed meanwhile');
  await it.close();
});

await checks.check('text, caret and scroll position come back', async () => {
  const first = await openPage({ restore: { turns: longTurns } });
  await first.page.locator('textarea').fill('line one\nline two');
  await first.page.locator('textarea').evaluate((e) => e.setSelectionRange(3, 6));
  await first.page.locator('main.turns').evaluate((e) => (e.scrollTop = document.querySelectorAll('.turn')[9].offsetTop - e.offsetTop + 25));
  await delay(300);
  const kept = await first.page.evaluate(() => window.kept);
  assert.deepEqual((await first.posted('draft')).at(-1).draft, kept.draft);
  await first.close();
  // From the page's own state, and from the host's when that is newer.
  for (const it of [await openPage({ kept, restore: { turns: longTurns } }), await openPage({ restore: { turns: longTurns, draft: kept.draft } })]) {
    assert.equal(await it.page.locator('textarea').inputValue(), 'line one\nline two');
    assert.deepEqual(await it.page.locator('textarea').evaluate((e) => [e.selectionStart, e.selectionEnd]), [3, 6]);
    const offset = await it.page.locator('main.turns').evaluate((e) => Math.round(e.getBoundingClientRect().top - document.querySelectorAll('.turn')[9].getBoundingClientRect().top));
    assert.ok(Math.abs(offset - 25) <= 1, `offset ${offset}`);
    await it.close();
  }
});

await checks.check('of 300 long turns only what is near the window is coloured', async () => {
  const it = await openPage({ restore: { turns: manyTurns } });
  const coloured = () => it.page.evaluate(() => [...document.querySelectorAll('.turn')].flatMap((turn, i) => (turn.querySelector('.hljs-keyword') === null ? [] : [i])));
  assert.equal(await it.page.locator('.turn').count(), 300);
  await poll('the last is coloured', async () => (await coloured()).includes(299));
  assert.ok((await coloured()).length < 10, `${(await coloured()).length} turns`);
  await it.page.locator('main.turns').evaluate((e) => e.scrollTo(0, 0));
  await poll('the first is coloured', async () => (await coloured()).includes(0));
  assert.ok((await coloured()).length < 20, `${(await coloured()).length} turns`);
  await it.close();
});

await checks.check('while it reads for a question its places are counted, and spoken of once', async () => {
  const it = await openPage();
  await it.send({ type: 'asked', record: record(1), replaces: null });
  const progress = it.page.locator('.progress');
  await it.send({ type: 'phase', turn: 1, phase: 'reading', coverage });
  await poll('files', async () => (await progress.textContent()) === 'Reading: 120 of about 900 files…');
  await it.page.evaluate(() => {
    window.spoken = [];
    for (const region of document.querySelectorAll('[aria-live], [role=status]')) new MutationObserver(() => window.spoken.push(region.textContent)).observe(region, { childList: true, characterData: true, subtree: true });
  });
  for (const read of [3, 4]) await it.send({ type: 'phase', turn: 1, phase: 'reading', coverage, places: { read, total: 12 } });
  await poll('places', async () => (await progress.textContent()) === 'Reading for the question: 4 of 12 places…');
  await it.send({ type: 'phase', turn: 1, phase: 'focusing', coverage });
  await poll('focus', async () => (await progress.textContent()) === 'Finding the places that matter…');
  await poll('spoken', async () => (await it.page.evaluate(() => window.spoken)).length > 0);
  const spoken = await it.page.evaluate(() => window.spoken);
  assert.ok(spoken.every((text) => !text.includes('places…')), spoken.join('\n'));
  await it.close();
});

await checks.check('every control has a name and is reached by Tab; what ends is spoken', async () => {
  const notice = { kind: 'error', sentence: 'The engine cannot run.', detail: 'd', actions: [{ id: 'show_log', label: 'Show log' }] };
  const attachment = { root: '/w', path: 'a.ts', start_line: 1, end_line: 3, text: 'x' };
  const it = await openPage({ restore: { turns: [answered(1, 'Hello `x`.\n\n```js\n1\n```\n', { sources: [source] })], surface: { ...surface, notice }, attachment } });
  const names = [];
  await it.page.locator('body').click({ position: { x: 1, y: 1 } });
  for (let i = 0; i < 14; i += 1) {
    await it.page.keyboard.press('Tab');
    names.push(await it.page.evaluate(() => {
      const e = document.activeElement;
      return e === document.body ? '' : (e.getAttribute('aria-label') ?? e.textContent.trim()) || e.tagName;
    }));
  }
  for (const name of ['Copy code', 'Insert at cursor', 'Open src/ring.c, lines 10 to 24, 62 % of the attention', 'Copy answer', 'Ask again', 'Show log', 'Remove a.ts:1–3', 'Attach the selection', 'Ask']) {
    assert.ok(names.includes(name), `${name} in ${names.join(' | ')}`);
  }
  assert.ok(names.some((n) => n.startsWith('Question.')));
  await it.page.getByRole('button', { name: 'Show log' }).click();
  assert.deepEqual(await it.posted('action'), [{ type: 'action', action: 'show_log' }]);
  await it.send({ type: 'asked', record: record(2), replaces: null });
  await it.send({ type: 'answered', record: answered(2, 'The end.') });
  await poll('spoken', async () => (await it.page.locator('[role="status"]').textContent()) === 'Answer: The end.');
  await it.close();
});

await checks.check('nothing moves by itself under reduced motion', async () => {
  const it = await openPage({ reducedMotion: 'reduce' });
  await it.send({ type: 'asked', record: record(1), replaces: null });
  await it.page.locator('.progress').waitFor();
  assert.equal(await it.page.locator('.progress').evaluate((e) => getComputedStyle(e, '::before').animationName), 'none');
  await it.close();
});

await browser.close();
checks.end();
