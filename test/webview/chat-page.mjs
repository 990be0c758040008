// The chat page in a real browser, under the extension's own policy and with a stand-in for the host: what its tests and its
// benchmark have in common.

import path from 'node:path';
import { fileURLToPath } from 'node:url';
import * as esbuild from 'esbuild';
import { delay, launchBrowser, poll, setUp } from '../e2e/bench.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));
const built = await esbuild.build({
  absWorkingDir: root,
  entryPoints: { main: 'webview/main.ts', style: 'webview/style.css' },
  bundle: true,
  platform: 'browser',
  format: 'iife',
  write: false,
  outdir: 'out',
});
const served = Object.fromEntries(built.outputFiles.map((file) => [path.basename(file.path), file.text]));
const { chatPage } = await importTypeScript('extension/host/chat-page.ts');

await setUp({ browserOnly: true });
export const browser = await launchBrowser();

/** A page with the host's stand-in: `posted` collects what it sends, `send` is the host speaking, `kept` is VS Code's state. */
export async function openPage({ kept = null, restore = {}, size = { width: 380, height: 620 }, reducedMotion = 'no-preference' } = {}) {
  const context = await browser.newContext({ viewport: size, reducedMotion });
  const page = await context.newPage();
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
  await page.addInitScript((state) => {
    window.posted = [];
    window.kept = state;
    window.acquireVsCodeApi = () => ({
      postMessage: (message) => window.posted.push(message),
      getState: () => window.kept,
      setState: (next) => (window.kept = next),
    });
  }, kept);
  await page.route('http://sala.test/**', (route) => {
    const name = path.basename(new URL(route.request().url()).pathname);
    if (name === 'page') {
      const body = chatPage({ script: 'http://sala.test/main.js', style: 'http://sala.test/style.css', source: 'http://sala.test', nonce: 'n1' });
      return route.fulfill({ contentType: 'text/html', body });
    }
    return served[name] === undefined ? route.fulfill({ status: 404 }) : route.fulfill({ contentType: name.endsWith('.js') ? 'text/javascript' : 'text/css', body: served[name] });
  });
  await page.goto('http://sala.test/page');
  const send = (message) => page.evaluate((m) => window.postMessage(m, '*'), message);
  const posted = (type) => page.evaluate((t) => window.posted.filter((m) => m.type === t), type);
  await poll('page asks for its state', async () => (await posted('ready')).length > 0);
  await send({ type: 'restore', turns: [], draft: null, attachment: null, surface, ...restore });
  await page.locator('body.ready').waitFor();
  return { page, send, posted, errors, close: () => context.close() };
}

export const coverage = { files: 120, tokens: 60_000, total_files: 900, total_tokens: 500_000, estimated: true };
export const surface = { notice: null, canAsk: true, starting: null, ingest: null, readsSlowly: false, roots: [{ path: '/w', name: 'w' }] };
export const source = { root: '/w', path: 'src/ring.c', start_line: 10, end_line: 24, weight: 0.62 };

export function record(turn, more = {}) {
  return {
    turn, question: `Question ${turn}`, attachment: null, status: 'running', phase: null, answer: '', sources: [], marks: [],
    uncertain: false, missing: [], stop: null, coverage: null, failure: null, ...more,
  };
}

export function answered(turn, answer, more = {}) {
  return record(turn, { status: 'answered', stop: 'end', answer, coverage: { ...coverage, files: 900 }, ...more });
}

export const paragraph = 'The ring buffer keeps its items in one array and wraps around at the end of it. ';
export const longTurns = Array.from({ length: 40 }, (_, i) => answered(i + 1, `${paragraph.repeat(6)}\n\n\`\`\`js\nconst turn = ${i + 1};\n\`\`\`\n\nEnd of ${i + 1}.`));

const code = 'export const value = compute(1, "two");\n'.repeat(40);
export const manyTurns = Array.from({ length: 300 }, (_, i) => answered(i + 1, `${paragraph.repeat(4)}\n\n\`\`\`ts\n${code}\`\`\`\n`, { sources: [source, source, source] }));

export async function stream({ send }, turn, text, size = 12, pause_ms = 4) {
  for (let i = 0; i < text.length; i += size) {
    await send({ type: 'token', turn, text: text.slice(i, i + size) });
    if (pause_ms > 0) await delay(pause_ms);
  }
}

async function importTypeScript(file) {
  const { outputFiles } = await esbuild.build({ absWorkingDir: root, entryPoints: [file], bundle: true, format: 'esm', write: false });
  return import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString('base64')}`);
}
