// The status bar item: how far the reading is, whether something is wrong, and whether completions are off in this editor. A
// click opens a menu with what can be done about it.

import * as vscode from 'vscode';
import { ingestSentence, isComplete } from '../texts';
import type { Completions } from './completion';
import type { Session } from './session';
import { asksConsent, surfaceOf } from './surface';

interface MenuItem extends vscode.QuickPickItem {
  readonly command?: string;
}

export class Status implements vscode.Disposable {
  readonly #item: vscode.StatusBarItem;
  readonly #subscriptions: vscode.Disposable[];

  constructor(
    private readonly session: Session,
    private readonly completions: Completions,
  ) {
    this.#item = vscode.window.createStatusBarItem('sala.status', vscode.StatusBarAlignment.Right, 100);
    this.#item.name = 'SALA';
    this.#item.command = 'sala.showMenu';
    this.#subscriptions = [this.#item, session.onDidChange(() => this.#draw()), completions.onDidChangeState(() => this.#draw())];
    this.#draw();
    this.#item.show();
  }

  async showMenu(): Promise<void> {
    const { session } = this;
    const language = vscode.window.activeTextEditor?.document.languageId;
    const entry = (label: string, command: string, description = ''): MenuItem => ({ label, command, description });
    const separator: MenuItem = { label: '', kind: vscode.QuickPickItemKind.Separator };
    const off = this.#offReason();
    const items: MenuItem[] = [
      entry('$(comment-discussion) Ask a question', 'sala.openChat'),
      entry('$(list-tree) Show what has been read', 'sala.showCoverage', session.ingest === null ? '' : ingestSentence(session.ingest, session.readsSlowly)),
      separator,
      ...(asksConsent(session) ? [entry('$(book) Read this workspace in the background', 'sala.readInBackground')] : []),
      session.canResume ? entry('$(play) Resume reading', 'sala.resumeReading') : entry('$(debug-pause) Pause reading', 'sala.pauseReading'),
      entry(session.config.completions.enabled ? '$(circle-slash) Turn completions off' : '$(check) Turn completions on', 'sala.toggleCompletions', off ?? ''),
      ...(language === undefined || !session.config.completions.enabled
        ? []
        : [entry(`$(code) Turn completions ${session.config.completions.languages[language] === false ? 'on' : 'off'} for ${language}`, 'sala.toggleLanguage')]),
      separator,
      entry('$(output) Show log', 'sala.showLog'),
      entry('$(pulse) Diagnostics', 'sala.diagnostics'),
      entry('$(debug-restart) Restart the engine', 'sala.restartEngine'),
      entry('$(trash) Forget this workspace', 'sala.forgetWorkspace'),
      entry('$(gear) Settings', 'sala.openSettings'),
    ];
    const picked = await vscode.window.showQuickPick(items, { title: 'SALA', placeHolder: this.#sentence() });
    if (picked?.command !== undefined) await vscode.commands.executeCommand(picked.command);
  }

  dispose(): void {
    for (const subscription of this.#subscriptions) subscription.dispose();
  }

  #draw(): void {
    const { session } = this;
    const off = this.#offReason();
    const failed = session.place === 'workspace' && session.engine.state === 'failed';
    this.#item.text = [this.#short(), ...(off === null ? [] : ['(off here)'])].join(' ');
    this.#item.tooltip = [this.#sentence(), ...(off === null ? [] : [off])].join('\n');
    this.#item.accessibilityInformation = { label: `SALA: ${this.#sentence()}${off === null ? '' : ` ${off}`}`, role: 'button' };
    this.#item.backgroundColor = failed ? new vscode.ThemeColor('statusBarItem.errorBackground') : undefined;
  }

  #short(): string {
    const { place, engine, ingest } = this.session;
    if (place === 'unsupported' || (place === 'workspace' && engine.state === 'failed')) return '$(error) SALA';
    if (place !== 'workspace') return '$(circle-slash) SALA';
    if (engine.state === 'starting') return '$(loading~spin) SALA';
    if (engine.state !== 'ready' || ingest === null) return '$(book) SALA';
    const { coverage } = ingest;
    const share = coverage.total_tokens === 0 ? 100 : Math.floor((100 * coverage.tokens) / Math.max(coverage.total_tokens, coverage.tokens));
    if (ingest.state === 'paused') return `$(debug-pause) SALA ${share} %`;
    if (isComplete(coverage)) return '$(book) SALA';
    return `${ingest.state === 'idle' ? '$(book)' : '$(sync~spin)'} SALA ${share} %`;
  }

  #sentence(): string {
    const { notice, starting, ingest, readsSlowly } = surfaceOf(this.session);
    if (this.session.engine.state === 'failed' && notice !== null) return notice.sentence;
    if (starting !== null) return starting;
    if (ingest !== null) return `${ingestSentence(ingest, readsSlowly)}.`;
    return notice?.sentence ?? 'The engine starts when it is needed.';
  }

  #offReason(): string | null {
    const editor = vscode.window.activeTextEditor;
    return editor === undefined || this.session.place !== 'workspace' ? null : this.completions.offReasonOf(editor.document);
  }
}
