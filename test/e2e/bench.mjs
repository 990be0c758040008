// Helpers of the end-to-end tests: VS Code (code-server) as `setup.sh` installed it, in a headless Chromium. A test makes a
// profile, installs a VSIX into it, starts a server and opens windows; `Checks` counts what passed.

import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { homedir, tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const execute = promisify(execFile);

const here = path.dirname(fileURLToPath(import.meta.url));
const cache = process.env['SALA_E2E_DIR'] ?? path.join(process.env['XDG_CACHE_HOME'] ?? path.join(homedir(), '.cache'), 'sala-e2e');
const serverNode = path.join(cache, 'node', 'node_modules', `node-linux-${process.arch}`, 'bin', 'node');
const serverEntry = path.join(cache, 'code-server', 'node_modules', 'code-server', 'out', 'node', 'entry.js');

/** So long a wait is one for something that does not come: a machine that does much else takes half of it for a window. */
export const patience_ms = 60_000;

export const screenshots = path.join(here, 'screenshots');
export const extensionId = 'sala.sala';

/** Ends what was started when the test itself is ended by a signal. */
for (const [signal, number] of Object.entries({ SIGINT: 2, SIGTERM: 15, SIGHUP: 1 })) process.once(signal, () => process.exit(128 + number));

/** Installs what is missing. `browserOnly`: no VS Code. */
export async function setUp({ browserOnly = false } = {}) {
  await execute(path.join(here, 'setup.sh'), browserOnly ? ['--browser-only'] : [], { maxBuffer: 1 << 24 });
}

// ---- profile and server -----------------------------------------------------------------------------------------------

/** Quiet, offline and predictable; a test that needs VS Code's own default sets it back by name. */
const quietSettings = {
  'telemetry.telemetryLevel': 'off',
  'update.mode': 'none',
  'extensions.autoCheckUpdates': false,
  'extensions.autoUpdate': false,
  'extensions.ignoreRecommendations': true,
  'workbench.enableExperiments': false,
  'workbench.startupEditor': 'none',
  'workbench.tips.enabled': false,
  'workbench.secondarySideBar.defaultVisibility': 'hidden',
  'workbench.welcomePage.walkthroughs.openOnInstall': false,
  'chat.disableAIFeatures': true,
  'chat.agentHost.enabled': false,
  'git.openRepositoryInParentFolders': 'never',
  // Otherwise the TypeScript server runs `npm install` for typings when a .js file is opened.
  'js/ts.tsserver.automaticTypeAcquisition.enabled': false,
  'typescript.disableAutomaticTypeAcquisition': true,
  'json.schemaDownload.enable': false,
  'npm.fetchOnlinePackageInfo': false,
  // In a browser VS Code saves by itself after a second.
  'files.autoSave': 'off',
  'editor.quickSuggestions': { other: 'off', comments: 'off', strings: 'off' },
  'editor.autoClosingBrackets': 'never',
  'editor.autoClosingQuotes': 'never',
  'editor.minimap.enabled': false,
  'editor.cursorBlinking': 'solid',
};

/** A private home for a server: settings, extensions, logs. `machine`: settings that only a machine may have. */
export async function makeProfile(dir, settings = {}, machine = {}) {
  const profile = { dir, data: path.join(dir, 'data'), extensions: path.join(dir, 'extensions'), config: path.join(dir, 'config.yaml') };
  await rm(dir, { recursive: true, force: true });
  await mkdir(path.join(profile.data, 'User'), { recursive: true });
  await mkdir(profile.extensions, { recursive: true });
  // An empty one: code-server would write one with a password into the user's home.
  await writeFile(profile.config, '');
  await writeFile(path.join(profile.data, 'User', 'settings.json'), JSON.stringify({ ...quietSettings, ...settings }, null, 2));
  await mkdir(path.join(profile.data, 'Machine'));
  await writeFile(path.join(profile.data, 'Machine', 'settings.json'), JSON.stringify(machine));
  return profile;
}

/** Replaces the settings of a folder; a running window takes them up at once. (It does not, for those of the user.) */
export async function writeFolderSettings(folder, settings) {
  await mkdir(path.join(folder, '.vscode'), { recursive: true });
  await writeFile(path.join(folder, '.vscode', 'settings.json'), JSON.stringify(settings, null, 2));
}

export async function installVsix(profile, vsix) {
  const { stdout, stderr } = await execute(serverNode, [...serverArguments(profile), '--install-extension', vsix, '--force'], {
    env: serverEnvironment(profile),
  });
  if (!/successfully installed/.test(stdout)) throw new Error(`VSIX not installed: ${stdout}${stderr}`);
}

/** Starts a server for a profile. `trust`: workspace trust is on, as a user has it. */
export async function startServer(profile, { env = {}, trust = false, timeout_ms = patience_ms } = {}) {
  const logFile = path.join(profile.dir, 'server.log');
  const log = await open(logFile, 'w');
  // Its sockets lie here; their paths may have 107 characters.
  const sockets = await mkdtemp(path.join(tmpdir(), 'sala-e2e-'));
  const args = [
    ...serverArguments(profile),
    ...['--bind-addr', '127.0.0.1:0', '--auth', 'none', '--disable-telemetry', '--disable-update-check'],
    ...['--disable-getting-started-override', '--ignore-last-opened', '--vscode-option', 'disable-experiments'],
    // An extension host outlives a lost browser by three hours, by default.
    ...['--reconnection-grace-time', '5'],
    ...(trust ? [] : ['--disable-workspace-trust']),
  ];
  // A process group of its own: whatever it starts is ended with it.
  const child = spawn(serverNode, args, {
    env: serverEnvironment(profile, { TMPDIR: sockets, XDG_RUNTIME_DIR: sockets, ...env }),
    stdio: ['ignore', log.fd, log.fd],
    detached: true,
  });
  await log.close();
  let ended = null;
  child.once('exit', (code, signal) => (ended = `code ${code}, signal ${signal}`));
  const kill = (signal) => {
    try {
      process.kill(-child.pid, signal);
    } catch {
      // Already gone.
    }
  };
  const killAtExit = () => kill('SIGKILL');
  process.once('exit', killAtExit);

  const stop = async () => {
    for (const [signal, patience_ms] of Object.entries({ SIGTERM: 5000, SIGKILL: 2000 })) {
      if ((await processes({ pid: child.pid })).length === 0) break;
      kill(signal);
      await poll('server ended', async () => (await processes({ pid: child.pid })).length === 0, patience_ms).catch(() => {});
    }
    process.off('exit', killAtExit);
    await rm(sockets, { recursive: true, force: true });
  };

  try {
    const origin = await poll(
      'server answers',
      async () => {
        const text = await readFile(logFile, 'utf8');
        if (ended !== null) throw new Error(`code-server ended (${ended}):\n${text}`);
        const found = /HTTP server listening on (http:\/\/[^/\s]+)/.exec(text)?.[1];
        return found !== undefined && (await fetch(`${found}/healthz`).then((r) => r.ok, () => false)) ? found : null;
      },
      timeout_ms,
    );
    return { origin, pid: child.pid, profile, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Living processes of a server's group. */
export async function processes({ pid }) {
  const { stdout } = await execute('ps', ['-eo', 'pgid=,pid=,stat=,args=']);
  return stdout
    .split('\n')
    .map((line) => /^\s*(\d+)\s+(\d+)\s+(\S+)\s+(.*)$/.exec(line))
    .filter((m) => m !== null && Number(m[1]) === pid && !m[3].startsWith('Z'))
    .map((m) => ({ pid: Number(m[2]), args: m[4], kind: /--type=(\w+)/.exec(m[4])?.[1] ?? 'other' }));
}

function serverArguments(profile) {
  return [serverEntry, '--config', profile.config, '--user-data-dir', profile.data, '--extensions-dir', profile.extensions];
}

function serverEnvironment(profile, extra = {}) {
  if (!existsSync(serverEntry)) throw new Error(`no VS Code in ${cache}: run test/e2e/setup.sh`);
  const env = { ...process.env, EXTENSIONS_GALLERY: '{}', XDG_DATA_HOME: path.join(profile.dir, 'xdg'), ...extra };
  // A test started in a terminal of VS Code would talk to that one.
  for (const name of Object.keys(env)) if (/^(VSCODE_|CODE_SERVER_)|^(PORT|PASSWORD|NODE_OPTIONS)$/.test(name)) delete env[name];
  return env;
}

// ---- browser ----------------------------------------------------------------------------------------------------------

export async function launchBrowser() {
  const { chromium } = createRequire(path.join(cache, 'tools', 'package.json'))('playwright-core');
  return chromium.launch({
    executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-sync', '--disable-dev-shm-usage'],
  });
}

/** A window of VS Code on a folder or a .code-workspace file. */
export class Window {
  /** What the page asked for outside the server: must stay empty. */
  outside = [];

  constructor(page) {
    this.page = page;
  }

  static async open(browser, server, folder, { viewport = { width: 1280, height: 800 } } = {}) {
    const context = await browser.newContext({ viewport, deviceScaleFactor: 1, permissions: ['clipboard-read', 'clipboard-write'] });
    context.setDefaultTimeout(patience_ms);
    const window = new Window(await context.newPage());
    await context.route((url) => /^https?:$/.test(url.protocol) && url.origin !== server.origin, (route) => {
      window.outside.push(route.request().url());
      return route.abort();
    });
    const url = new URL(server.origin);
    if (folder === null) url.searchParams.set('ew', 'true');
    else url.searchParams.set(folder.endsWith('.code-workspace') ? 'workspace' : 'folder', folder);
    await window.page.goto(url.href, { timeout: patience_ms });
    await window.ready();
    if (folder?.endsWith('.code-workspace')) await window.hasFolders();
    return window;
  }

  /** The layout is restored and the extensions are known; not yet that ours is active. */
  async ready() {
    for (const mark of ['code/didStartWorkbench', 'code/didLoadExtensions']) {
      await this.page.waitForFunction((name) => performance.getEntriesByName(name).length > 0, mark, { timeout: patience_ms, polling: 100 });
    }
    await this.page.locator('.part.statusbar').waitFor();
  }

  /** VS Code that is slow to start opens a workspace file without its folders, one time in eight or so: another start has them. */
  async hasFolders() {
    for (let tries = 1; tries <= 4; tries += 1) {
      const row = this.page.locator('.explorer-folders-view .monaco-list-row').first();
      if (await row.waitFor({ timeout: patience_ms / 3 }).then(() => true, () => false)) return;
      console.log('VS Code has opened none of the folders of the workspace file; once more');
      await this.reload();
    }
    throw new Error('VS Code has opened none of the folders of the workspace file');
  }

  async reload() {
    await this.page.reload();
    await this.ready();
  }

  /** Leaving the page tells the server that the window is gone for good: its extension host ends at once. */
  async close() {
    await this.page.goto('about:blank').catch(() => {});
    await this.page.context().close();
  }

  async press(keys) {
    await this.page.keyboard.press(keys);
  }

  async type(text, delay_ms = 10) {
    await this.page.keyboard.type(text, { delay: delay_ms });
  }

  async quickInput(prefix, text) {
    const input = this.page.locator('.quick-input-widget:visible .quick-input-box input');
    await poll('quick input', async () => {
      await this.press(prefix === '>' ? 'F1' : 'Control+P');
      return input.waitFor({ timeout: 2000 }).then(() => true, () => false);
    });
    await input.fill(prefix + text);
    return this.page.locator('.quick-input-list .monaco-list-row');
  }

  async command(title) {
    const rows = await this.quickInput('>', title);
    await rows.filter({ hasText: title }).first().click();
  }

  /** An entry of an open quick pick. */
  async pick(text) {
    await this.page.locator('.quick-input-list .monaco-list-row', { hasText: text }).first().click();
  }

  /** Where the file dialog stands: VS Code's own, as it is wherever files are not the browser's. */
  filePlace() {
    return this.page.locator('.quick-input-widget:visible .quick-input-box input');
  }

  /** Opens the file dialog of a command, whose place begins with that folder. */
  async fileDialog(command, folder) {
    await this.command(command);
    await poll('the dialog', async () => (await this.filePlace().inputValue().catch(() => '')).startsWith(`${folder}/`));
  }

  /** A file that is there, in the open file dialog. */
  async chooseFile(file) {
    const row = this.page.locator('.quick-input-widget:visible .monaco-list-row.focused', { hasText: path.basename(file) });
    let entered = false;
    await poll('the dialog takes the file', async () => {
      if (entered && !(await this.filePlace().isVisible())) return true;
      // What is typed while the dialog still lists a folder is not looked up: Enter would take another row. Typed anew, it is.
      for (const place of [`${path.dirname(file)}/`, file]) await this.filePlace().fill(place, { timeout: 3000 }).catch(() => {});
      if (!(await row.waitFor({ timeout: 3000 }).then(() => true, () => false))) return false;
      await this.press('Enter');
      entered = true;
      return this.filePlace().waitFor({ state: 'hidden', timeout: 3000 }).then(() => true, () => false);
    });
  }

  async openFile(name) {
    await this.openEditor(name);
    await this.editor().locator('.view-lines').waitFor();
    await this.focusEditor();
  }

  /** Also of other kinds, such as a notebook's. */
  async openEditor(name) {
    const base = path.basename(name);
    // A file that was just made may not be among what the search has found.
    await poll(`${name} is found`, async () => {
      const rows = await this.quickInput('', name);
      return rows.filter({ hasText: base }).first().click({ timeout: 2000 }).then(() => true, () => this.press('Escape'));
    });
    await this.page.locator(`.tab.active[data-resource-name="${base}"]`).waitFor();
  }

  async focusEditor() {
    await this.editor().locator('.view-lines').click({ position: { x: 2, y: 2 } });
    await this.page.locator('.monaco-editor.focused').first().waitFor();
  }

  async goTo(line, column = 1) {
    await this.quickInput('', `:${line}:${column}`);
    await this.press('Enter');
    await this.page.locator('.quick-input-widget').waitFor({ state: 'hidden' });
  }

  async save() {
    await this.press('Control+S');
    await this.page.locator('.editor-group-container.active .tab.active:not(.dirty)').waitFor();
  }

  editor() {
    return this.page.locator('.editor-group-container.active .editor-instance .monaco-editor').first();
  }

  activeTab() {
    return this.page.locator('.editor-group-container.active .tab.active').getAttribute('data-resource-name');
  }

  /** Where the cursor is, from the status bar: 'Ln 3, Col 5'. */
  position() {
    return this.page.locator('#status\\.editor\\.selection').innerText();
  }

  /** Puts the cursor at the end of a cell of the notebook that is open. */
  async focusCell(nth) {
    await this.page.locator('.notebook-editor .cell-editor-container').nth(nth).locator('.view-line').last().click();
    await this.cellEditor().waitFor();
    await this.press('Control+End');
  }

  /** The cell of a notebook that has the focus. */
  cellEditor() {
    return this.page.locator('.notebook-editor .monaco-editor.focused');
  }

  /** The visible lines, without ghost text. */
  text(editor = this.editor()) {
    return editor.evaluate((root) =>
      [...root.querySelectorAll('.lines-content > .view-lines > .view-line')]
        .sort((a, b) => parseFloat(a.style.top) - parseFloat(b.style.top))
        .map((line) => {
          const copy = line.cloneNode(true);
          for (const ghost of copy.querySelectorAll('[class*="ghost-text"]')) ghost.remove();
          return copy.textContent.replace(/\u00a0/g, ' ').replace(/\u200b/g, '');
        })
        .join('\n'),
    );
  }

  ghostText(editor = this.editor()) {
    return editor.evaluate((root) => {
      const clean = (element) => element.textContent.replace(/\u00a0/g, ' ').replace(/\u200b/g, '');
      const first = [...root.querySelectorAll('.view-line [class*="ghost-text-decoration"]')].map(clean).join('');
      const rest = [...root.querySelectorAll('.suggest-preview-text .view-line, .view-zones .ghost-text .view-line')].map(clean);
      return [first, ...rest].filter((line, i) => i === 0 || line !== '').join('\n');
    });
  }

  ghostTextBecomes(expected, editor = this.editor()) {
    return poll(`ghost text ${expected}`, async () => {
      const text = await this.ghostText(editor);
      return (expected instanceof RegExp ? expected.test(text) : text === expected) ? text || ' ' : null;
    });
  }

  statusItem(text) {
    return this.page.locator('.part.statusbar .statusbar-item').filter({ hasText: text });
  }

  notification(text) {
    return this.page.locator(':is(.notifications-toasts, .notifications-center) .notification-list-item').filter({ hasText: text });
  }

  /** The notification, once it is there. VS Code shows no more than three that come within 800 ms: the others are in its list alone. */
  async told(text, timeout_ms = patience_ms) {
    const shown = this.notification(text).first();
    await poll(`notification ${text}`, async () => {
      if (await shown.waitFor({ timeout: 10_000 }).then(() => true, () => false)) return true;
      await this.command('Notifications: Show Notifications');
      return false;
    }, timeout_ms);
    return shown;
  }

  async openContainer(name) {
    const item = this.page.locator('.part.activitybar .action-item', { has: this.page.locator(`[aria-label^="${name}"]`) }).first();
    // What the editor still does while it starts may show another one again; and a click on what is shown hides it.
    await poll(`${name} is shown`, async () => {
      if (await item.evaluate((element) => element.classList.contains('checked'))) return true;
      await item.click();
      await delay(200);
      return false;
    });
  }

  /** A webview lies two frames deep; the outer one's address names its extension. */
  chat() {
    return this.page.frameLocator(`iframe.webview.ready[src*="extensionId=${extensionId}"]`).frameLocator('iframe#active-frame');
  }

  async screenshot(name) {
    await mkdir(screenshots, { recursive: true });
    await this.page.screenshot({ path: path.join(screenshots, `${name}.png`) });
  }
}

// ---- checks -----------------------------------------------------------------------------------------------------------

/** Counts cases; the closing line is what the test runner reads. */
export class Checks {
  passed = 0;
  failed = 0;
  #began = Date.now();
  #onFailure;

  constructor(onFailure = async (_n) => {}) {
    this.#onFailure = onFailure;
  }

  say(text) {
    console.log(`${((Date.now() - this.#began) / 1000).toFixed(1).padStart(6)} s  ${text}`);
  }

  /** Cases that share a window: alone with SALA_E2E_GROUP, as a case is with SALA_E2E_ONLY. */
  async group(title, body) {
    const only = process.env['SALA_E2E_GROUP'];
    if (only !== undefined && !title.includes(only)) return;
    try {
      await body();
    } catch (error) {
      await this.#fails(title, error);
    }
  }

  async check(title, body) {
    const only = process.env['SALA_E2E_ONLY'];
    if (only !== undefined && !title.includes(only)) return;
    try {
      await body();
      this.passed += 1;
      this.say(`ok      ${title}`);
    } catch (error) {
      await this.#fails(title, error);
    }
  }

  async #fails(title, error) {
    this.failed += 1;
    this.say(`NOT OK  ${title}\n${error instanceof Error ? error.stack : error}`);
    await this.#onFailure(this.failed);
  }

  end() {
    console.log(`${this.passed} passed, ${this.failed} failed`);
    process.exitCode = this.failed > 0 ? 1 : 0;
  }
}

export const delay = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The first truthy value of `read`; throws with `what` when it does not come in time. */
export async function poll(what, read, timeout_ms = patience_ms) {
  const end = Date.now() + timeout_ms;
  for (;;) {
    const value = await read();
    if (value) return value;
    if (Date.now() > end) throw new Error(`timed out after ${timeout_ms} ms: ${what}`);
    await delay(50);
  }
}
