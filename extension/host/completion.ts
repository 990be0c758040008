// Inline completions. A request is made only for what was typed: not for a mere movement of the cursor, an undo or a file that is
// shown. What the cache knows is answered at once; everything else waits a moment for the next key, and an answer for a text that
// has changed meanwhile is dropped. While the list of suggestions is open, an offer extends its selected item or is none.

import * as vscode from 'vscode';
import { CompletionCache, type Offer } from '../engine/completion/cache';
import { toEngineError } from '../engine/errors';
import * as messages from '../engine/messages';
import { withinCell } from '../engine/workspace/notebook';
import type { Log } from '../log';
import { offReason } from './completion-policy';
import { fileUriOf, locate, pathOf } from './locate';
import { cellOf, textAround } from './notebook-cells';
import type { Session } from './session';

/** Keys of a fast typist come closer than this. */
const debounce_ms = 90;
/** The cursor has come to rest: the view of the place is read ahead. */
const rest_ms = 350;

/**
 * The last edit of a document, and whether a person typed it. The cursor stands somewhere in what it brought: before a bracket that
 * the editor closed by itself, or on the line that it opened between two. Where, the next movement of the cursor tells.
 */
interface Edit {
  readonly version: number;
  readonly start: number;
  readonly end: number;
  readonly typed: boolean;
  cursor: number | null;
}

type Replacement = Pick<messages.CompleteResult, 'completion' | 'start' | 'end'>;

interface Asked {
  readonly params: messages.CompleteParams;
  /** The engine's answer, in offsets of the editor's document. */
  readonly own: (result: Replacement) => Replacement;
}

export class Completions implements vscode.InlineCompletionItemProvider, vscode.Disposable {
  readonly #cache = new CompletionCache();
  readonly #edits = new Map<string, Edit>();
  /** Documents whose cursor was moved by hand after the last edit. */
  readonly #moved = new Set<string>();
  /** Paths that the engine leaves out by a rule of the user's: nothing is offered there. */
  readonly #excluded = new Map<string, Promise<boolean>>();
  readonly #readOnly = new Map<string, boolean>();
  readonly #subscriptions: vscode.Disposable[];
  readonly #stateChanged = new vscode.EventEmitter<void>();
  /** The answer of `offReasonOf` may have changed. */
  readonly onDidChangeState = this.#stateChanged.event;
  #current: AbortController | undefined;
  #restTimer: NodeJS.Timeout | undefined;
  #lastPlace = '';

  constructor(
    private readonly session: Session,
    private readonly log: Log,
  ) {
    session.on(messages.coverageChanged, ({ files, everything }) => {
      if (everything) this.#excluded.clear();
      for (const file of files) this.#excluded.delete(pathOf(file));
    });
    this.#subscriptions = [
      vscode.languages.registerInlineCompletionItemProvider({ pattern: '**' }, this),
      vscode.workspace.onDidChangeTextDocument((event) => this.#edited(event)),
      vscode.workspace.onDidCloseTextDocument((document) => this.#forget(document)),
      vscode.window.onDidChangeTextEditorSelection((event) => this.#selectionChanged(event)),
      vscode.window.onDidChangeActiveTextEditor((editor) => {
        this.#current?.abort();
        if (editor !== undefined) void this.#learnReadOnly(editor.document);
        this.#stateChanged.fire();
      }),
      this.#stateChanged,
    ];
    if (vscode.window.activeTextEditor !== undefined) void this.#learnReadOnly(vscode.window.activeTextEditor.document);
  }

  /** Why nothing is offered in a document, or null. */
  offReasonOf(document: vscode.TextDocument): string | null {
    const { scheme, path } = document.uri;
    return offReason(
      { scheme, path, languageId: document.languageId, length: document.getText().length, readOnly: this.#readOnly.get(document.uri.toString()) ?? false },
      this.session.config.completions,
    );
  }

  async provideInlineCompletionItems(
    document: vscode.TextDocument,
    position: vscode.Position,
    context: vscode.InlineCompletionContext,
    token: vscode.CancellationToken,
  ): Promise<vscode.InlineCompletionItem[]> {
    const explicit = context.triggerKind === vscode.InlineCompletionTriggerKind.Invoke;
    const off = this.offReasonOf(document);
    if (off !== null) {
      if (explicit) vscode.window.setStatusBarMessage(`SALA: ${off}`, 4000);
      return [];
    }
    const key = document.uri.toString();
    const text = document.getText();
    const offset = document.offsetAt(position);
    const selected = context.selectedCompletionInfo;
    const listed = selected === undefined ? undefined : { text: selected.text, offset: document.offsetAt(selected.range.start) };

    if (explicit) this.#cache.allow(key);
    const cached = this.#cache.find(key, text, offset);
    if (cached !== null && !explicit) return this.#items(document, position, selected, cached);
    if (!explicit && selected === undefined && !this.#followsTyping(key, document.version, offset)) return [];

    // A newer request replaces the older one, even of another document: there is one cursor.
    this.#current?.abort();
    const abort = new AbortController();
    this.#current = abort;
    token.onCancellationRequested(() => abort.abort());
    if (!explicit) await new Promise((resolve) => setTimeout(resolve, debounce_ms));
    if (abort.signal.aborted || token.isCancellationRequested || (await this.#isExcluded(document))) return [];

    const { version } = document;
    try {
      const { params, own } = this.#asked(document, offset, explicit, listed);
      const answered = await this.session.request(messages.complete, params, abort.signal);
      const result = own(answered);
      const inTime = !abort.signal.aborted && document.version === version && vscode.window.activeTextEditor?.document === document;
      if (!inTime || result.completion.trim() === '') return [];
      const offer = { start: result.start, text: result.completion };
      if (this.#cache.isRefused(key, text, offset, offer)) return [];
      // An offer that belongs to an item of the list holds only while that is selected.
      if (listed === undefined && result.end === offset) {
        this.#cache.put({ document: key, before: text.slice(0, offset), after: text.slice(offset), replaced: offset - result.start, text: result.completion });
      }
      return this.#items(document, position, selected, offer, result.end);
    } catch (thrown) {
      const error = toEngineError(thrown);
      if (error.code !== 'cancelled') this.log.debug(`complete: ${error.code}: ${error.message}`);
      return [];
    }
  }

  dispose(): void {
    clearTimeout(this.#restTimer);
    this.#current?.abort();
    for (const subscription of this.#subscriptions) subscription.dispose();
  }

  #items(
    document: vscode.TextDocument,
    position: vscode.Position,
    selected: vscode.SelectedCompletionInfo | undefined,
    offer: Offer,
    end = document.offsetAt(position),
  ): vscode.InlineCompletionItem[] {
    const range = new vscode.Range(document.positionAt(offer.start), document.positionAt(end));
    if (selected === undefined) return [new vscode.InlineCompletionItem(offer.text, range)];
    // The same range as the item, and a text that begins with the item's, or nothing: the editor would hide the list's preview.
    const before = document.getText(new vscode.Range(selected.range.start, range.start));
    const text = range.start.isBefore(selected.range.start) ? null : before + offer.text;
    if (text === null || !text.startsWith(selected.text) || text === selected.text) return [];
    return [new vscode.InlineCompletionItem(text, new vscode.Range(selected.range.start, range.end))];
  }

  /**
   * What the engine is asked for a place in a document, and how its answer is led back to that document: a cell is asked for within
   * its notebook, in the cell's language, and what would go on in the next cell ends where that begins.
   */
  #asked(document: vscode.TextDocument, offset: number, explicit: boolean, listed?: { text: string; offset: number }): Asked {
    const uri = fileUriOf(document);
    const location = locate(uri);
    const cell = cellOf(document);
    const around = cell === null ? { text: document.getText(), start: 0, mark: null } : textAround(cell);
    const options = vscode.window.visibleTextEditors.find((editor) => editor.document === document)?.options;
    const params: messages.CompleteParams = {
      root: location?.root ?? null,
      path: location?.path ?? uri.path.replace(/^.*\//, ''),
      languageId: document.languageId,
      text: around.text,
      offset: around.start + offset,
      ...(listed === undefined ? {} : { selected: { ...listed, offset: around.start + listed.offset } }),
      ...(typeof options?.insertSpaces === 'boolean' ? { insertSpaces: options.insertSpaces } : {}),
      ...(typeof options?.tabSize === 'number' ? { tabSize: options.tabSize } : {}),
      trigger: explicit ? 'explicit' : 'automatic',
    };
    return {
      params,
      own: ({ completion, start, end }) => ({ completion: around.mark === null ? completion : withinCell(completion, around.mark), start: start - around.start, end: end - around.start }),
    };
  }

  /** The cursor stands where the last edit left it, and a person typed that. */
  #followsTyping(key: string, version: number, offset: number): boolean {
    const edit = this.#edits.get(key);
    return edit !== undefined && edit.typed && edit.version === version && standsBehind(edit, offset) && !this.#moved.has(key);
  }

  #edited({ document, contentChanges, reason }: vscode.TextDocumentChangeEvent): void {
    const last = contentChanges.at(-1);
    // An event without changes tells of the dirty mark only.
    if (last === undefined) return;
    const key = document.uri.toString();
    const offset = last.rangeOffset + last.text.length;
    const active = vscode.window.activeTextEditor?.document === document;
    // An edit in several places (a rename, a format) is not typing.
    const typed = active && reason === undefined && contentChanges.length === 1;
    this.#edits.set(key, { version: document.version, start: last.rangeOffset, end: offset, typed, cursor: null });
    this.#moved.delete(key);
    const text = document.getText();
    if (contentChanges.length === 1) this.#cache.edited(key, text, offset, last.text);
    else this.#cache.forget(key);
  }

  #selectionChanged({ textEditor: { document }, selections, kind }: vscode.TextEditorSelectionChangeEvent): void {
    const [selection] = selections;
    if (selection === undefined) return;
    const key = document.uri.toString();
    const offset = document.offsetAt(selection.active);
    const edit = this.#edits.get(key);
    // Typing moves the cursor too: to where the edit left it. The line's new indentation may come in the same step.
    const byEdit = edit !== undefined && edit.version === document.version && standsBehind(edit, offset);
    if (byEdit) edit.cursor = offset;
    if (!byEdit && kind !== undefined && kind !== vscode.TextEditorSelectionChangeKind.Command) this.#moved.add(key);
    clearTimeout(this.#restTimer);
    this.#restTimer = setTimeout(() => this.#rest(document, offset, selection.active.line), rest_ms);
  }

  /** Tells the engine where the cursor is, once for each line and document. */
  #rest(document: vscode.TextDocument, offset: number, line: number): void {
    const place = `${document.uri.toString()}:${line}`;
    if (document.isClosed || place === this.#lastPlace || this.offReasonOf(document) !== null) return;
    this.#lastPlace = place;
    this.session.notify(messages.place, this.#asked(document, Math.min(offset, document.getText().length), false).params);
  }

  /** Left out by the user's own rules, or a secret: not read for this completion either. */
  #isExcluded(document: vscode.TextDocument): Promise<boolean> {
    const location = locate(fileUriOf(document));
    if (location === null) return Promise.resolve(false);
    const key = pathOf(location);
    let excluded = this.#excluded.get(key);
    if (excluded === undefined) {
      excluded = this.session
        .request(messages.coverageOf, { paths: [key] })
        .then(([file]) => file !== null && file !== undefined && isUsersRule(file))
        .catch(() => {
          // Not known for now: asked again with the next request.
          this.#excluded.delete(key);
          return false;
        });
      this.#excluded.set(key, excluded);
    }
    return excluded;
  }

  async #learnReadOnly(document: vscode.TextDocument): Promise<void> {
    const uri = fileUriOf(document);
    if (uri.scheme !== 'file') return;
    const readOnly = await Promise.resolve(vscode.workspace.fs.stat(uri)).then(
      (stat) => ((stat.permissions ?? 0) & vscode.FilePermission.Readonly) !== 0,
      () => false,
    );
    this.#readOnly.set(document.uri.toString(), readOnly);
    if (readOnly) this.#stateChanged.fire();
  }

  #forget(document: vscode.TextDocument): void {
    const key = document.uri.toString();
    this.#cache.forget(key);
    this.#edits.delete(key);
    this.#moved.delete(key);
    this.#readOnly.delete(key);
  }
}

function standsBehind({ start, end, cursor }: Edit, offset: number): boolean {
  return cursor === null ? start <= offset && offset <= end : offset === cursor;
}

function isUsersRule({ state, rule }: messages.FileCoverage): boolean {
  return state === 'excluded' && (rule === 'ignored' || rule === 'user' || rule === 'secret');
}
