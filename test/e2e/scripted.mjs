// VS Code with the scripted engine (fake-engine.ts) in it: one server and one browser for all the windows of a test, what the engine
// was told, and how it is told to behave.

import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { installVsix, launchBrowser, makeProfile, poll, setUp, startServer } from './bench.mjs';
import { packageWithFakeEngine } from './fake-vsix.mjs';

const fixtures = fileURLToPath(new URL('../fixtures/workspace', import.meta.url));

/** @param {string} name of the test, for its scratch folder */
export async function startScripted(name, { settings = {}, extensions = async (_folder) => [] } = {}) {
  await setUp();
  const scratch = await mkdtemp(path.join(tmpdir(), `sala-e2e-${name}-`));
  const fake = path.join(scratch, 'fake');
  await mkdir(fake);
  const vsix = await packageWithFakeEngine(path.join(scratch, 'vsix'));
  const profile = await makeProfile(path.join(scratch, 'profile'), { 'workbench.colorTheme': 'Default Dark Modern', ...settings });
  await installVsix(profile, vsix);
  for (const other of await extensions(scratch)) await installVsix(profile, other);
  // The machine that tests may run on battery itself.
  const power = path.join(scratch, 'power');
  await mkdir(power);
  const env = { SALA_FAKE_DIR: fake, SALA_POWER_SUPPLY: power, XDG_CACHE_HOME: path.join(scratch, 'cache') };
  const server = await startServer(profile, { env });
  const browser = await launchBrowser();
  return {
    scratch,
    vsix,
    env,
    server,
    browser,

    /** What the engine was told, oldest first. */
    async requests(type) {
      const text = await readFile(path.join(fake, 'requests.jsonl'), 'utf8').catch(() => '');
      return text.split('\n').filter(Boolean).map((line) => JSON.parse(line)).filter((r) => type === undefined || r.type === type);
    },

    control(values) {
      return writeFile(path.join(fake, 'control.json'), JSON.stringify(values));
    },

    /** Unplugs the machine, or plugs it in. */
    async battery(on) {
      const values = { BAT0: { type: 'Battery', status: on ? 'Discharging' : 'Charging' }, AC: { type: 'Mains', online: on ? '0' : '1' } };
      for (const [name, files] of Object.entries(values)) {
        await mkdir(path.join(power, name), { recursive: true });
        for (const [file, value] of Object.entries(files)) await writeFile(path.join(power, name, file), `${value}\n`);
      }
    },

    /** A copy of the fixture, or an empty folder. */
    async newWorkspace(folderName, { empty = false } = {}) {
      const folder = path.join(scratch, folderName);
      if (empty) await mkdir(folder, { recursive: true });
      else await cp(fixtures, folder, { recursive: true });
      return folder;
    },

    async stop() {
      await browser.close();
      await server.stop();
      await rm(scratch, { recursive: true, force: true });
    },
  };
}

export async function askIn(window, question) {
  const input = window.chat().locator('textarea');
  await input.fill(question);
  await input.press('Enter');
}

/** VS Code gives a view the focus a while after its command: on a busy machine, after the next click elsewhere. */
export async function openChatIn(window) {
  await window.command('SALA: Ask a Question');
  const focused = () => window.chat().locator('textarea').evaluate((input) => document.hasFocus() && document.activeElement === input);
  await poll('the composer has the focus', focused);
}

/** More than `nth` answers have ended. */
export async function answerIn(window, nth = 0) {
  await poll('answered', async () => (await window.chat().locator('.turn-actions').count()) > nth);
}
