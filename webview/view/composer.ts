// Where the question is typed. Enter sends, Shift+Enter breaks the line; Escape undoes one thing at a time: it stops a running
// answer, then gives the focus back to the editor. While an answer runs, the same button stops it and typing goes on.

import type { Attachment } from '../../extension/engine/messages';
import type { Draft } from '../../extension/protocol';
import { h, icon, iconButton } from './dom';

export interface ComposerActions {
  readonly ask: (question: string) => void;
  readonly stop: () => void;
  readonly attachSelection: () => void;
  readonly detach: () => void;
  readonly changed: () => void;
}

export class ComposerView {
  readonly element: HTMLElement;
  readonly #actions: ComposerActions;
  readonly #input: HTMLTextAreaElement;
  readonly #send: HTMLButtonElement;
  readonly #chips = h('div', { class: 'chips' });
  #running = false;
  #canAsk = false;
  #attachment: Attachment | null = null;

  constructor(actions: ComposerActions) {
    this.#actions = actions;
    this.#input = h('textarea', {
      class: 'input',
      rows: 1,
      placeholder: 'Ask about this workspace',
      'aria-label': 'Question. Enter sends, Shift+Enter starts a new line.',
      spellcheck: false,
    });
    this.#send = h('button', { type: 'button', class: 'send', onclick: () => (this.#running ? actions.stop() : this.#ask()) });
    this.element = h(
      'div',
      { class: 'composer', role: 'form', 'aria-label': 'Ask' },
      this.#chips,
      this.#input,
      h('div', { class: 'composer-bar' }, iconButton('attach', 'Attach the selection', actions.attachSelection), this.#send),
    );
    this.#input.addEventListener('input', () => {
      this.#fit();
      this.#updateSend();
      actions.changed();
    });
    this.#input.addEventListener('keydown', (event) => this.#key(event));
    document.addEventListener('selectionchange', () => {
      if (document.activeElement === this.#input) actions.changed();
    });
    // Its height depends on how the text wraps.
    new ResizeObserver(() => this.#fit()).observe(this.element);
    this.#updateSend();
  }

  update(state: { running: boolean; canAsk: boolean; attachment: Attachment | null }): void {
    this.#running = state.running;
    this.#canAsk = state.canAsk;
    if (state.attachment !== this.#attachment) {
      this.#attachment = state.attachment;
      this.#drawChips();
    }
    this.#updateSend();
  }

  draft(): Pick<Draft, 'text' | 'selectionStart' | 'selectionEnd'> {
    return { text: this.#input.value, selectionStart: this.#input.selectionStart, selectionEnd: this.#input.selectionEnd };
  }

  restore(draft: Draft): void {
    this.#input.value = draft.text;
    this.#input.setSelectionRange(draft.selectionStart, draft.selectionEnd);
    this.#fit();
    this.#updateSend();
  }

  focus(): void {
    this.#input.focus();
  }

  #ask(): void {
    const question = this.#input.value.trim();
    if (question === '' || this.#running || !this.#canAsk) return;
    this.#input.value = '';
    this.#fit();
    this.#updateSend();
    this.#actions.ask(question);
    this.#actions.changed();
  }

  #key(event: KeyboardEvent): void {
    // While an input method composes, Enter and Escape are its own.
    if (event.isComposing) return;
    if (event.key === 'Enter' && !event.shiftKey && !event.altKey) {
      event.preventDefault();
      this.#ask();
    }
  }

  #drawChips(): void {
    const attachment = this.#attachment;
    if (attachment === null) {
      this.#chips.replaceChildren();
      return;
    }
    const name = `${attachment.path}:${attachment.start_line}–${attachment.end_line}`;
    this.#chips.replaceChildren(
      h(
        'span',
        { class: 'chip' },
        h('span', { class: 'chip-name', title: attachment.text }, name),
        iconButton('close', `Remove ${name}`, () => {
          this.#actions.detach();
          this.focus();
        }),
      ),
    );
  }

  #updateSend(): void {
    const label = this.#running ? 'Stop' : 'Ask';
    if (this.#send.getAttribute('aria-label') !== label) {
      this.#send.replaceChildren(icon(this.#running ? 'stop' : 'send'));
      this.#send.setAttribute('aria-label', label);
      this.#send.title = this.#running ? 'Stop (Escape)' : 'Ask (Enter)';
    }
    // Not `disabled` while it stops: the focus would be lost.
    this.#send.setAttribute('aria-disabled', String(!this.#running && (!this.#canAsk || this.#input.value.trim() === '')));
  }

  /** As high as its text, to a third of the view. */
  #fit(): void {
    this.#input.style.height = 'auto';
    this.#input.style.height = `${Math.min(this.#input.scrollHeight, Math.max(60, window.innerHeight / 3))}px`;
  }
}
