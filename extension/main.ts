// Entry of the extension: builds the parts and connects them. No logic lives here.

import * as vscode from 'vscode';
import { actionCommands, registerCommands } from './commands';
import { ChatView } from './host/chat-view';
import { Completions } from './host/completion';
import { ConsentQuestion } from './host/consent';
import { CoverageView } from './host/coverage-view';
import { Documents } from './host/documents';
import { ExplorerBadges } from './host/explorer-badges';
import { noteOtherProviders } from './host/other-providers';
import { Session } from './host/session';
import { Status } from './host/status';
import { createLog } from './log';

export function activate(context: vscode.ExtensionContext): void {
  const log = createLog();
  const session = new Session(context, log);
  const chat = new ChatView(context, session, log, (action) => void vscode.commands.executeCommand(actionCommands[action]));
  const coverage = new CoverageView(session, log);
  const completions = new Completions(session, log);
  const status = new Status(session, completions);
  context.subscriptions.push(
    log,
    chat,
    coverage,
    completions,
    status,
    new Documents(session),
    new ExplorerBadges(session, log),
    new ConsentQuestion(session, () => chat.isVisible),
    registerCommands({ context, log, session, chat, coverage, status }),
    // Last, so that whoever listens to it is gone when it ends.
    session,
  );
  session.startIfWanted();
  void noteOtherProviders(context, session.config.completions.enabled);
}

/** VS Code disposes of the subscriptions. */
export function deactivate(): void {}
