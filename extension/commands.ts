// Command → what it does, one row each; package.json declares the same list. Also the map from a notice's action to its command.

import * as vscode from 'vscode';
import { toEngineError } from './engine/errors';
import { chatViewId, type ChatView } from './host/chat-view';
import { explainCoverage, toggleReading, urisOf } from './host/coverage-commands';
import { coverageViewId, type CoverageView } from './host/coverage-view';
import { showDiagnostics } from './host/diagnostics';
import { failureOf, packSentences } from './host/error-texts';
import { PackCommands, PackFailure } from './host/pack-commands';
import { selectionOf } from './host/selection';
import type { Session } from './host/session';
import type { Status } from './host/status';
import type { Log } from './log';
import type { ActionId } from './protocol';

export interface Parts {
  readonly context: vscode.ExtensionContext;
  readonly log: Log;
  readonly session: Session;
  readonly chat: ChatView;
  readonly coverage: CoverageView;
  readonly status: Status;
}

/** What a notice's button runs. */
export const actionCommands: Record<ActionId, string> = {
  show_log: 'sala.showLog',
  diagnostics: 'sala.diagnostics',
  restart_engine: 'sala.restartEngine',
  choose_model: 'sala.chooseModel',
  open_folder: 'workbench.action.files.openFolder',
  manage_trust: 'workbench.trust.manage',
  open_settings: 'sala.openSettings',
  new_conversation: 'sala.newConversation',
  forget_workspace: 'sala.forgetWorkspace',
  grant_consent: 'sala.readInBackground',
  decline_consent: 'sala.readOnlyWhenAsked',
  pause: 'sala.pauseReading',
  resume: 'sala.resumeReading',
  show_coverage: 'sala.showCoverage',
};

export function registerCommands(parts: Parts): vscode.Disposable {
  const { context, log, session, chat, coverage, status } = parts;
  const packs = new PackCommands(session, log);
  const table: Record<string, (...clicked: readonly unknown[]) => unknown> = {
    'sala.openChat': () => chat.focus(),
    'sala.newConversation': () => chat.newConversation(),
    'sala.exportConversation': () => chat.exportConversation(),
    'sala.stopAnswer': () => chat.stop(),
    'sala.explainSelection': () => askAboutSelection(chat, 'Explain this code.'),
    'sala.fixSelection': () => askAboutSelection(chat, 'What is wrong with this code? Show it corrected.'),
    'sala.testSelection': () => askAboutSelection(chat, 'Write a test for this code.'),
    'sala.askAboutSelection': () => chat.attachSelection() && chat.focus(),
    'sala.readInBackground': () => session.setConsent('granted'),
    'sala.readOnlyWhenAsked': () => session.setConsent('declined'),
    'sala.pauseReading': () => session.setPaused(true),
    'sala.resumeReading': () => resume(session),
    'sala.showCoverage': () => vscode.commands.executeCommand(`${coverageViewId}.focus`),
    'sala.refreshCoverage': () => coverage.refresh(),
    'sala.explainCoverage': (...clicked) => explainCoverage(session, urisOf(clicked)[0]),
    'sala.toggleReading': (...clicked) => toggleReading(session, urisOf(clicked)),
    'sala.toggleCompletions': () => update('completions.enabled', !session.config.completions.enabled),
    'sala.toggleLanguage': () => toggleLanguage(session),
    'sala.showMenu': () => status.showMenu(),
    'sala.showLog': () => log.show(),
    'sala.diagnostics': () => showDiagnostics(context, session),
    'sala.restartEngine': () => session.restart(),
    'sala.chooseModel': () => chooseModel(),
    'sala.exportMemory': () => packs.export(),
    'sala.importMemory': () => packs.import(),
    'sala.forgetWorkspace': () => forget(session),
    'sala.openSettings': () => vscode.commands.executeCommand('workbench.action.openSettings', `@ext:${context.extension.id}`),
    'sala.firstSteps': () => vscode.commands.executeCommand('workbench.action.openWalkthrough', `${context.extension.id}#firstSteps`, false),
  };
  return vscode.Disposable.from(
    ...Object.entries(table).map(([command, run]) =>
      vscode.commands.registerCommand(command, async (...clicked: readonly unknown[]) => {
        try {
          await run(...clicked);
        } catch (thrown) {
          showFailure(thrown, log);
        }
      }),
    ),
  );
}

function showFailure(thrown: unknown, log: Log): void {
  const error = toEngineError(thrown);
  log.error(`${error.code}: ${error.message}`);
  const { sentence, detail, actions } = failureOf(error, thrown instanceof PackFailure ? packSentences : {});
  void vscode.window.showErrorMessage(`${sentence} ${detail ?? ''}`.trim(), ...actions.map(({ label }) => label)).then((picked) => {
    const action = actions.find(({ label }) => label === picked);
    if (action !== undefined) void vscode.commands.executeCommand(actionCommands[action.id]);
  });
}

async function askAboutSelection(chat: ChatView, question: string): Promise<void> {
  const selection = selectionOf(vscode.window.activeTextEditor);
  if (selection === null) {
    void vscode.window.showInformationMessage('Select code in a file of this workspace first.');
    return;
  }
  // The view is shown, and the focus stays in the editor.
  await vscode.commands.executeCommand(`${chatViewId}.focus`, { preserveFocus: true });
  chat.ask(question, selection);
}

async function resume(session: Session): Promise<void> {
  if (session.config.ingest.pause) await update('ingest.pause', false);
  await session.setPaused(false);
}

async function toggleLanguage(session: Session): Promise<void> {
  const language = vscode.window.activeTextEditor?.document.languageId;
  if (language === undefined) return;
  const { languages } = session.config.completions;
  await update('completions.languages', { ...languages, [language]: languages[language] === false });
}

async function chooseModel(): Promise<void> {
  const picked = await vscode.window.showOpenDialog({ canSelectFolders: true, canSelectFiles: false, canSelectMany: false, title: 'The folder of a model', openLabel: 'Use this model' });
  if (picked?.[0] !== undefined) await update('model.folder', picked[0].fsPath);
}

async function forget(session: Session): Promise<void> {
  // Where nothing is read it fails with the reason, and nothing is asked.
  if (session.place !== 'workspace') await session.open();
  const yes = 'Forget';
  const picked = await vscode.window.showWarningMessage(
    'Forget what was read of this workspace? Reading it again takes as long as the first time.',
    { modal: true },
    yes,
  );
  if (picked !== yes) return;
  const { segments, bytes } = await session.forget();
  void vscode.window.showInformationMessage(`Forgotten: ${segments.toLocaleString('en-US')} segments, ${(bytes / 2 ** 20).toFixed(0)} MB.`);
}

function update(setting: string, value: unknown): Thenable<void> {
  return vscode.workspace.getConfiguration('sala').update(setting, value, vscode.ConfigurationTarget.Global);
}
