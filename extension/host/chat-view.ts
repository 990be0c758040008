// The chat: a webview view that shows the conversation and asks the engine. The host owns the conversation; the page is told what
// changes and, whenever it starts, everything. An answer goes on while the view is hidden, and is complete when it is shown again.

import { randomBytes } from 'node:crypto';
import * as vscode from 'vscode';
import * as messages from '../engine/messages';
import { EngineError, toEngineError } from '../engine/errors';
import type { Log } from '../log';
import type { ActionId, Draft, Handlers, ToHost, ToWebview } from '../protocol';
import { chatPage } from './chat-page';
import { Conversation } from './conversation';
import { failureOf } from './error-texts';
import { fitBlock } from './indent';
import { parseToHost } from './parse-message';
import { reveal } from './reveal';
import { activeFile, selectionOf } from './selection';
import type { Session } from './session';
import { surfaceOf } from './surface';

export const chatViewId = 'sala.chat';
const draftKey = 'sala.draft';
const attachmentKey = 'sala.attachment';

interface Running {
  readonly turn: number;
  /** Names the answer in the engine's notifications. */
  readonly id: number;
  readonly abort: AbortController;
}

export class ChatView implements vscode.WebviewViewProvider, vscode.Disposable {
  #view: vscode.WebviewView | undefined;
  #pageReady = false;
  #focusWanted = false;
  #running: Running | undefined;
  #nextId = 1;
  #attachment: messages.Attachment | null;
  readonly #conversation: Conversation;
  readonly #subscriptions: vscode.Disposable[];
  readonly #handlers: Handlers<ToHost>;

  constructor(
    private readonly context: vscode.ExtensionContext,
    private readonly session: Session,
    private readonly log: Log,
    act: (action: ActionId) => void,
  ) {
    this.#conversation = new Conversation(context.storageUri?.fsPath, log);
    this.#attachment = context.workspaceState.get<messages.Attachment | null>(attachmentKey, null);
    this.#handlers = {
      ready: () => this.#restore(),
      ask: ({ question }) => this.ask(question, this.#attachment),
      stop: ({ turn }) => this.stop(turn),
      retry: ({ turn, searchAll }) => this.#retry(turn, searchAll),
      reveal: ({ sources }) => void reveal(sources),
      open_link: ({ href }) => void vscode.env.openExternal(vscode.Uri.parse(href, true)),
      copy: ({ text }) => void vscode.env.clipboard.writeText(text),
      insert: ({ text }) => void this.#insert(text),
      draft: ({ draft }) => void context.workspaceState.update(draftKey, draft),
      attach_selection: () => this.attachSelection(),
      detach: () => this.#attach(null),
      export_conversation: () => void this.exportConversation(),
      focus_editor: () => void vscode.commands.executeCommand('workbench.action.focusActiveEditorGroup'),
      action: ({ action }) => act(action),
    };
    session.on(messages.askPhase, ({ id, phase, coverage, places }) => this.#during(id, (turn) => {
      this.#conversation.update(turn, { phase, coverage, places });
      this.#post({ type: 'phase', turn, phase, coverage, places });
    }));
    session.on(messages.askSources, ({ id, sources, uncertain, missing }) => this.#during(id, (turn) => {
      this.#conversation.update(turn, { sources, uncertain, missing });
      this.#post({ type: 'sources', turn, sources, uncertain, missing });
    }));
    session.on(messages.askText, ({ id, text }) => this.#during(id, (turn) => {
      const answer = this.#conversation.turns.find((t) => t.turn === turn)?.answer ?? '';
      this.#conversation.update(turn, { answer: answer + text });
      this.#post({ type: 'token', turn, text });
    }));
    this.#subscriptions = [
      vscode.window.registerWebviewViewProvider(chatViewId, this, { webviewOptions: { retainContextWhenHidden: true } }),
      session.onDidChange(() => this.#post({ type: 'surface', surface: surfaceOf(session) })),
    ];
  }

  get isVisible(): boolean {
    return this.#view?.visible ?? false;
  }

  resolveWebviewView(view: vscode.WebviewView): void {
    const dist = vscode.Uri.joinPath(this.context.extensionUri, 'dist', 'webview');
    this.#view = view;
    this.#pageReady = false;
    view.webview.options = { enableScripts: true, localResourceRoots: [dist] };
    view.webview.onDidReceiveMessage((value: unknown) => {
      const message = parseToHost(value);
      if (message === null) this.log.warn('an unknown message of the chat page was dropped');
      else (this.#handlers[message.type] as (message: ToHost) => void)(message);
    });
    view.onDidDispose(() => {
      if (this.#view === view) this.#view = undefined;
    });
    view.webview.html = chatPage({
      script: view.webview.asWebviewUri(vscode.Uri.joinPath(dist, 'main.js')).toString(),
      style: view.webview.asWebviewUri(vscode.Uri.joinPath(dist, 'style.css')).toString(),
      source: view.webview.cspSource,
      nonce: randomBytes(16).toString('base64url'),
    });
  }

  /** Shows the view with the focus in the composer. */
  async focus(): Promise<void> {
    this.#focusWanted = true;
    await vscode.commands.executeCommand(`${chatViewId}.focus`);
    this.#post({ type: 'focus_composer' });
    if (this.#pageReady) this.#focusWanted = false;
  }

  /** Asks, unless an answer is running: there is one at a time. Ends in exactly one `answered` or `failed`. */
  ask(question: string, attachment: messages.Attachment | null, replaces: number | null = null, searchAll = false): void {
    if (this.#running !== undefined) return;
    const record = this.#conversation.begin(question, attachment, replaces);
    this.#post({ type: 'asked', record, replaces });
    if (attachment !== null && attachment === this.#attachment) this.#attach(null);
    const running = { turn: record.turn, id: this.#nextId++, abort: new AbortController() };
    this.#running = running;
    void this.#answer(running, question, attachment, searchAll).finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
  }

  stop(turn: number | undefined = this.#running?.turn): void {
    if (this.#running !== undefined && this.#running.turn === turn) this.#running.abort.abort();
  }

  attachSelection(): boolean {
    const selection = selectionOf(vscode.window.activeTextEditor);
    if (selection === null) void vscode.window.showInformationMessage('Select code in a file of this workspace first.');
    else this.#attach(selection);
    return selection !== null;
  }

  newConversation(): void {
    this.stop();
    this.#running = undefined;
    this.#conversation.clear();
    this.#post({ type: 'cleared' });
  }

  async exportConversation(): Promise<void> {
    const document = await vscode.workspace.openTextDocument({ language: 'markdown', content: this.#conversation.toMarkdown() });
    await vscode.window.showTextDocument(document);
  }

  dispose(): void {
    this.#conversation.write();
    for (const subscription of this.#subscriptions) subscription.dispose();
  }

  async #answer({ turn, id, abort }: Running, question: string, attachment: messages.Attachment | null, searchAll: boolean): Promise<void> {
    try {
      const file = activeFile();
      const result = await this.session.request(
        messages.ask,
        {
          id,
          question,
          history: this.#conversation.historyBefore(turn),
          ...(attachment === null ? {} : { attachment }),
          ...(file === null ? {} : { activeFile: file }),
          ...(searchAll && { search: 'all' }),
        },
        abort.signal,
      );
      const { answer, sources, marks, uncertain, missing, unsearched, stop, coverage } = result;
      this.#end(turn, { answer, sources, marks, uncertain, missing, unsearched, stop, coverage });
    } catch (thrown) {
      const error = toEngineError(thrown);
      // Stopped before the engine took it up: a result all the same, with what had come.
      if (error.code === 'cancelled') this.#end(turn, { stop: 'cancelled' });
      else this.#fail(turn, error);
    }
  }

  #end(turn: number, result: Partial<Parameters<Conversation['update']>[1]>): void {
    const record = this.#conversation.update(turn, { ...result, status: 'answered', phase: null });
    if (record !== null) this.#post({ type: 'answered', record });
  }

  #fail(turn: number, error: EngineError): void {
    this.log.error(`ask: ${error.code}: ${error.message}`);
    const failure = failureOf(error);
    if (this.#conversation.update(turn, { status: 'failed', phase: null, failure }) !== null) this.#post({ type: 'failed', turn, failure });
  }

  /** The last turn is asked again in its place; an earlier one, at the end. */
  #retry(turn: number, searchAll: boolean): void {
    const record = this.#conversation.turns.find((t) => t.turn === turn);
    if (record === undefined) return;
    const isLast = record === this.#conversation.turns.at(-1);
    this.ask(record.question, record.attachment, isLast ? turn : null, searchAll);
  }

  #during(id: number, handle: (turn: number) => void): void {
    // What comes of an answer after its end, or of another window's, is nobody's.
    if (this.#running?.id === id) handle(this.#running.turn);
  }

  #attach(attachment: messages.Attachment | null): void {
    this.#attachment = attachment;
    void this.context.workspaceState.update(attachmentKey, attachment);
    this.#post({ type: 'attachment', attachment });
  }

  async #insert(text: string): Promise<void> {
    const editor = vscode.window.activeTextEditor ?? vscode.window.visibleTextEditors[0];
    if (editor === undefined) {
      void vscode.window.showInformationMessage('Open the file into which the code should go, and put the cursor there.');
      return;
    }
    const { selection, document, options } = editor;
    const before = document.lineAt(selection.start.line).text.slice(0, selection.start.character);
    const unit = options.insertSpaces === false ? '\t' : ' '.repeat(typeof options.tabSize === 'number' ? options.tabSize : 4);
    const block = fitBlock(text, { indentation: /^[ \t]*/.exec(before)![0], unit });
    await vscode.window.showTextDocument(document, { viewColumn: editor.viewColumn ?? vscode.ViewColumn.Active });
    const done = await editor.edit((edit) => edit.replace(selection, block));
    if (!done) void vscode.window.showWarningMessage('The code could not be inserted: the file changed meanwhile, or is read-only.');
  }

  #restore(): void {
    this.#pageReady = true;
    this.#post({
      type: 'restore',
      turns: this.#conversation.turns,
      draft: this.context.workspaceState.get<Draft | null>(draftKey, null),
      attachment: this.#attachment,
      surface: surfaceOf(this.session),
    });
    if (this.#focusWanted) this.#post({ type: 'focus_composer' });
    this.#focusWanted = false;
  }

  /** Dropped while no page listens: it is told everything when it starts. */
  #post(message: ToWebview): void {
    if (this.#pageReady) void this.#view?.webview.postMessage(message);
  }
}
