// An extension that takes keys as Vim emulations do: it has the `type` command, moves the cursor in its normal mode and binds Escape.
// Stands for them in the tests; nothing of it belongs to the product.

import { execFile } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const root = fileURLToPath(new URL('../../', import.meta.url));

const manifest = {
  name: 'vim-keys',
  displayName: 'Vim-like keys',
  publisher: 'test',
  version: '0.0.1',
  engines: { vscode: '^1.90.0' },
  main: './main.js',
  activationEvents: ['onCommand:vimKeys.on'],
  contributes: {
    commands: [
      { command: 'vimKeys.on', title: 'Vim Keys: On' },
      { command: 'vimKeys.off', title: 'Vim Keys: Off' },
    ],
    keybindings: [{ command: 'vimKeys.normal', key: 'escape', when: 'editorTextFocus && vimKeys.isOn' }],
  },
};

const main = `
const vscode = require('vscode');
const moves = { h: 'cursorLeft', j: 'cursorDown', k: 'cursorUp', l: 'cursorRight', u: 'undo' };
let isNormal = true;
let parts = [];
const run = vscode.commands.executeCommand;
const setNormal = (normal) => {
  isNormal = normal;
  vscode.window.activeTextEditor.options = { cursorStyle: normal ? vscode.TextEditorCursorStyle.Block : vscode.TextEditorCursorStyle.Line };
};
/** One key after the other. */
let last = Promise.resolve();
const typed = (key) => (last = last.then(() => handle(key)));
async function handle({ text }) {
  if (!isNormal) return run('default:type', { text });
  if (moves[text]) return run(moves[text]);
  if (text === 'o') await run('editor.action.insertLineAfter');
  if (text === 'A') await run('cursorEnd');
  if ('ioA'.includes(text)) setNormal(false);
}
exports.activate = (context) => {
  const off = () => {
    for (const part of parts.splice(0)) part.dispose();
    return run('setContext', 'vimKeys.isOn', false);
  };
  context.subscriptions.push(
    { dispose: off },
    vscode.commands.registerCommand('vimKeys.off', off),
    vscode.commands.registerCommand('vimKeys.on', async () => {
      await off();
      parts = [
        vscode.commands.registerCommand('type', typed),
        vscode.commands.registerCommand('vimKeys.normal', async () => {
          await run('editor.action.inlineSuggest.hide');
          if (!isNormal) await run('cursorLeft');
          setNormal(true);
        }),
      ];
      setNormal(true);
      await run('setContext', 'vimKeys.isOn', true);
    }),
  );
};
`;

/** Resolves to the VSIX's path within `folder`. */
export async function packageVimKeys(folder) {
  const stage = path.join(folder, 'vim-keys');
  const vsix = path.join(folder, 'vim-keys.vsix');
  await mkdir(stage, { recursive: true });
  await writeFile(path.join(stage, 'package.json'), JSON.stringify(manifest));
  await writeFile(path.join(stage, 'main.js'), main);
  await writeFile(path.join(stage, 'README.md'), '# Vim-like keys, for tests\n');
  const vsce = path.join(root, 'node_modules', '@vscode', 'vsce', 'vsce');
  const args = [vsce, 'package', '--out', vsix, '--no-dependencies', '--allow-missing-repository', '--skip-license'];
  await promisify(execFile)(process.execPath, args, { cwd: stage });
  return vsix;
}
