// What the chat page computes, in milliseconds of its own thread (a busy machine's other work does not count): the longest step while
// one line grows to 200,000 characters, and showing 300 long turns after a reload, beside the bare text of them.

import { browser, manyTurns, openPage, record, surface } from '../test/webview/chat-page.mjs';

/** The time that the page's thread has computed, in ms. */
async function busyTime(page) {
  const session = await page.context().newCDPSession(page);
  await session.send('Performance.enable', { timeDomain: 'threadTicks' });
  return async () => {
    const { metrics } = await session.send('Performance.getMetrics');
    return metrics.find(({ name }) => name === 'TaskDuration').value * 1000;
  };
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

async function longLine() {
  const it = await openPage();
  await it.send({ type: 'asked', record: record(1), replaces: null });
  await it.send({ type: 'token', turn: 1, text: '```js\n' });
  const busy = await busyTime(it.page);
  const steps = [];
  for (let i = 0; i < 50; i += 1) {
    const before = await busy();
    await it.page.evaluate(() => {
      window.postMessage({ type: 'token', turn: 1, text: 'let x = 12; '.repeat(334) }, '*');
      return new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(resolve))));
    });
    steps.push((await busy()) - before);
  }
  await it.close();
  return { median: median(steps), longest: Math.max(...steps) };
}

async function reload() {
  const it = await openPage();
  const busy = await busyTime(it.page);
  const cost = async (work, argument) => {
    const before = await busy();
    await it.page.evaluate(work, argument);
    return (await busy()) - before;
  };
  const bare = await cost(async (texts) => {
    const plain = document.createElement('div');
    for (const text of texts) {
      const pre = document.createElement('pre');
      pre.textContent = text;
      plain.append(pre);
    }
    document.querySelector('main').append(plain);
    for (let i = 0; i < 3; i += 1) await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
    plain.remove();
  }, manyTurns.map(({ answer }) => answer));
  const turns = await cost(async (message) => {
    window.postMessage(message, '*');
    while (document.querySelectorAll('.turn').length < message.turns.length) await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  }, { type: 'restore', turns: manyTurns, draft: null, attachment: null, surface });
  await it.close();
  return { turns, bare };
}

const lines = [], reloads = [];
for (let round = 0; round < 5; round += 1) {
  lines.push(await longLine());
  reloads.push(await reload());
}
const ms = (values) => `${median(values).toFixed(0)} ms (${values.map((value) => value.toFixed(0)).join(', ')})`;
console.log(`a line of 200,000 characters, longest step: ${ms(lines.map(({ longest }) => longest))}`);
console.log(`                                 median step: ${ms(lines.map(({ median }) => median))}`);
console.log(`300 long turns after a reload:               ${ms(reloads.map(({ turns }) => turns))}`);
console.log(`the bare text of them:                       ${ms(reloads.map(({ bare }) => bare))}`);
await browser.close();
