// What surrounds the conversation: notices with their buttons, the line that says how much has been read, and the words for
// screen readers, spoken when something ends rather than at every token.

import type { ActionId, Notice, Surface } from '../../extension/protocol';
import { ingestSentence } from '../../extension/texts';
import { h } from './dom';

export interface NoticeActions {
  readonly act: (action: ActionId) => void;
}

export function noticeView(notice: Notice, actions: NoticeActions): HTMLElement {
  return h(
    'div',
    { class: `notice ${notice.kind}`, role: notice.kind === 'error' ? 'alert' : 'note' },
    h('p', {}, notice.sentence),
    ...(notice.detail === undefined || notice.detail === '' ? [] : [h('p', { class: 'detail' }, notice.detail)]),
    ...(notice.actions.length === 0
      ? []
      : [
          h(
            'div',
            { class: 'notice-actions' },
            ...notice.actions.map(({ id, label }, i) =>
              h('button', { type: 'button', class: i === 0 ? 'primary' : 'secondary', onclick: () => actions.act(id) }, label),
            ),
          ),
        ]),
  );
}

export class StatusView {
  readonly notice = h('div', { class: 'notice-place' });
  readonly line = h('button', { type: 'button', class: 'ingest-line', hidden: true });
  /** Outside the conversation, so that streamed text is not read out token by token. */
  readonly spoken = h('div', { class: 'visually-hidden', role: 'status', 'aria-live': 'polite' });
  readonly #actions: NoticeActions;
  #noticeKey = '';

  constructor(actions: NoticeActions) {
    this.#actions = actions;
    this.line.addEventListener('click', () => actions.act('show_coverage'));
  }

  update(surface: Surface): void {
    // Compared by content: a notice that is drawn anew would take the focus off its buttons.
    const key = JSON.stringify(surface.notice);
    if (key !== this.#noticeKey) {
      this.#noticeKey = key;
      this.notice.replaceChildren(...(surface.notice === null ? [] : [noticeView(surface.notice, this.#actions)]));
    }
    const text = surface.starting ?? (surface.ingest === null ? '' : ingestSentence(surface.ingest, surface.readsSlowly));
    this.line.hidden = text === '';
    if (this.line.textContent === text) return;
    this.line.textContent = text;
    // A narrow view shows its beginning only.
    this.line.title = `${text}\nShow what has been read`;
  }

  say(text: string): void {
    this.spoken.textContent = text;
  }
}
