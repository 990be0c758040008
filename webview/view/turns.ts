// The conversation: one element a turn, made once and updated in place. Holds the scroll position: it follows the end only while
// the reader is there, and otherwise leaves what is on top where it is.

import type { Draft, TurnRecord } from '../../extension/protocol';
import type { Coverage, Source } from '../../extension/engine/messages';
import { coverageSentence, missingSentence, moreIsIn, phaseSentence, stopSentence, uncertainSentence, unsearchedSentence } from '../../extension/texts';
import { AnswerView } from './answer';
import { h, icon, iconButton, showDone } from './dom';
import { noticeView, type NoticeActions } from './status';
import { sourcesView } from './sources';

export interface TurnActions extends NoticeActions {
  readonly copy: (text: string) => void;
  readonly insert: (text: string) => void;
  readonly retry: (turn: number, searchAll?: boolean) => void;
  readonly reveal: (sources: readonly Source[]) => void;
  readonly openLink: (href: string) => void;
  /** What tells a place's root from the others, '' where there is only one. */
  readonly rootName: (root: string) => string;
}

/** Nearer to the end than this counts as being there. */
const endMargin_px = 10;

export class TurnsView {
  readonly element: HTMLElement;
  readonly toEnd: HTMLButtonElement;
  readonly #list = h('div', { class: 'turn-list' });
  readonly #actions: TurnActions;
  readonly #views = new Map<number, TurnView>();
  #following = true;
  #lastTop = 0;

  constructor(actions: TurnActions, welcome: HTMLElement, onScroll: () => void) {
    this.#actions = actions;
    this.element = h('main', { class: 'turns', tabindex: '-1', 'aria-label': 'Conversation' }, welcome, this.#list);
    this.toEnd = h(
      'button',
      { type: 'button', class: 'to-end', hidden: true, title: 'To the end', 'aria-label': 'To the end', onclick: () => this.follow() },
      icon('down'),
    );
    this.element.addEventListener('scroll', () => {
      this.#scrolled();
      onScroll();
    });
    // The list grows with tokens, with fonts that arrive and with a narrower view alike.
    new ResizeObserver(() => this.#keepEnd()).observe(this.#list);
    new ResizeObserver(() => this.#keepEnd()).observe(this.element);
  }

  update(turns: readonly TurnRecord[], now: Coverage | undefined): void {
    const present = new Set(turns.map((t) => t.turn));
    for (const [turn, view] of this.#views) {
      if (present.has(turn)) continue;
      view.element.remove();
      this.#views.delete(turn);
    }
    for (const [i, record] of turns.entries()) {
      let view = this.#views.get(record.turn);
      if (view === undefined) {
        view = new TurnView(this.#actions, i + 1);
        this.#views.set(record.turn, view);
        this.#list.append(view.element);
      }
      view.update(record, now);
    }
    this.#keepEnd();
  }

  /** Goes to the end and stays there while the conversation grows. */
  follow(): void {
    this.#following = true;
    this.#keepEnd();
  }

  /** The topmost visible turn and how far it is scrolled out; null while following. */
  anchor(): Draft['anchor'] {
    if (this.#following) return null;
    const top = this.element.getBoundingClientRect().top;
    for (const [turn, { element }] of this.#views) {
      const box = element.getBoundingClientRect();
      if (box.bottom > top) return { turn, offset: Math.round(top - box.top) };
    }
    return null;
  }

  scrollTo(anchor: Draft['anchor']): void {
    const view = anchor === null ? undefined : this.#views.get(anchor.turn);
    if (anchor === null || view === undefined) {
      this.follow();
      return;
    }
    this.#following = false;
    this.element.scrollTop += view.element.getBoundingClientRect().top - this.element.getBoundingClientRect().top + anchor.offset;
    this.#lastTop = this.element.scrollTop;
    this.#showButton();
  }

  #scrolled(): void {
    const { scrollTop } = this.element;
    // Only a movement towards the end may begin to follow: a slow step away from it must not be pulled back.
    if (scrollTop < this.#lastTop - 1) this.#following = false;
    else if (this.#distanceToEnd() <= endMargin_px) this.#following = true;
    this.#lastTop = scrollTop;
    this.#showButton();
  }

  #keepEnd(): void {
    if (this.#following) {
      this.element.scrollTop = this.element.scrollHeight;
      this.#lastTop = this.element.scrollTop;
    }
    this.#showButton();
  }

  #showButton(): void {
    this.toEnd.hidden = this.#following || this.#distanceToEnd() <= endMargin_px;
  }

  #distanceToEnd(): number {
    return this.element.scrollHeight - this.element.scrollTop - this.element.clientHeight;
  }
}

class TurnView {
  readonly element: HTMLElement;
  readonly #actions: TurnActions;
  readonly #question = h('div', { class: 'question-text' });
  readonly #attachment = h('div', { class: 'question-attachment', hidden: true });
  readonly #head = h('div', { class: 'turn-head' });
  readonly #answer: AnswerView;
  readonly #progress = h('div', { class: 'progress', hidden: true });
  readonly #foot = h('div', { class: 'turn-foot' });
  #record: TurnRecord | null = null;
  #offersMore = false;

  constructor(actions: TurnActions, position: number) {
    this.#actions = actions;
    this.#answer = new AnswerView(actions);
    const id = `turn-${position}-${Math.random().toString(36).slice(2, 8)}`;
    this.#question.id = id;
    this.element = h(
      'article',
      { class: 'turn', 'aria-labelledby': id },
      h('div', { class: 'question' }, this.#question, this.#attachment),
      this.#head,
      this.#answer.element,
      this.#progress,
      this.#foot,
    );
  }

  update(record: TurnRecord, now: Coverage | undefined): void {
    const offersMore = record.coverage !== null && record.status === 'answered' && moreIsIn(record.coverage, now);
    if (record === this.#record && offersMore === this.#offersMore) return;
    const before = this.#record;
    this.#record = record;
    this.#offersMore = offersMore;

    if (before === null) {
      this.#question.textContent = record.question;
      if (record.attachment !== null) {
        const { path, start_line, end_line } = record.attachment;
        this.#attachment.hidden = false;
        this.#attachment.textContent = `${path}:${start_line}–${end_line}`;
      }
    }
    const ended = record.status !== 'running';
    this.#answer.update(record.answer, record.marks, ended);
    this.element.classList.toggle('running', !ended);
    this.#progress.hidden = ended;
    if (!ended) this.#progress.textContent = phaseSentence(record);
    if (before?.uncertain !== record.uncertain || before.missing !== record.missing) this.#drawHead(record);
    // Everything below the answer is drawn when something but the text has changed.
    if (before === null || !sameButText(before, record) || offersMore) this.#drawFoot(record, ended);
  }

  #drawHead(record: TurnRecord): void {
    const missing = missingSentence(record.missing);
    this.#head.replaceChildren(
      ...(missing === null ? [] : [h('p', { class: 'banner warning' }, missing)]),
      // A question about a selection has its answer with it.
      ...(record.uncertain && missing === null && record.attachment === null ? [h('p', { class: 'banner' }, uncertainSentence)] : []),
    );
  }

  #drawFoot(record: TurnRecord, ended: boolean): void {
    const stop = record.status === 'broken_off' ? 'Broken off: the window was closed or reloaded.' : stopSentence(record.stop);
    const read = record.coverage === null || !ended ? null : coverageSentence(record.coverage);
    const copy = iconButton('copy', 'Copy answer', () => {
      this.#actions.copy(record.answer);
      showDone(copy, 'copy', 'Copied');
    });
    const again = (label: string, searchAll = false): HTMLElement =>
      h('button', { type: 'button', class: 'link-button', onclick: () => this.#actions.retry(record.turn, searchAll) }, label);

    this.#foot.replaceChildren(
      ...(record.failure === null ? [] : [noticeView(record.failure, this.#actions)]),
      ...(record.sources.length === 0 ? [] : [sourcesView(record.sources, this.#actions)]),
      ...(stop === null ? [] : [h('p', { class: 'note' }, stop)]),
      ...(record.unsearched === undefined || !ended
        ? []
        : [h('p', { class: 'note' }, unsearchedSentence(record.unsearched), ' ', again('Ask again and search all of them', true))]),
      ...(read === null
        ? []
        : [h('p', { class: 'note coverage' }, read, ' ', ...(this.#offersMore ? ['More is in by now. ', again('Ask again')] : []))]),
      ...(ended
        ? [
            h(
              'div',
              { class: 'turn-actions', role: 'toolbar', 'aria-label': 'Answer' },
              ...(record.answer === '' ? [] : [copy]),
              iconButton('retry', 'Ask again', () => this.#actions.retry(record.turn)),
            ),
          ]
        : []),
    );
  }
}

function sameButText(a: TurnRecord, b: TurnRecord): boolean {
  return a.status === b.status && a.sources === b.sources && a.stop === b.stop && a.coverage === b.coverage && a.failure === b.failure;
}
