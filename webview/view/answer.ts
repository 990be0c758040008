// Draws one answer: blocks of HTML from the Markdown stream, sanitised, with coloured code and the engine's marks. A block whose
// HTML is the same is not touched, and the one that grows is changed in place, so text above never moves and a selection stays.

import DOMPurify from 'dompurify';
import type { AnswerMark, Source } from '../../extension/engine/messages';
import { MarkdownStream, type Block } from '../markdown';
import { markedRanges, splitMarks, withMarks, withoutMarks, type MarkedRange } from '../marks';
import { files, sourceLines } from '../../extension/texts';
import { h, icon, morph, showDone, type Icon } from './dom';
import { highlight } from './highlight';

export interface AnswerActions {
  readonly copy: (text: string) => void;
  readonly insert: (text: string) => void;
  /** Several: the link's text fits them all, and the user is asked. */
  readonly reveal: (sources: readonly Source[]) => void;
  readonly openLink: (href: string) => void;
  readonly rootName: (root: string) => string;
}

interface Drawn {
  readonly html: string;
  readonly element: HTMLElement;
}

const purify = {
  ALLOWED_TAGS: [
    'a', 'blockquote', 'br', 'code', 'del', 'em', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'hr', 'li', 'ol', 'p', 'pre', 's', 'span', 'strong',
    'table', 'tbody', 'td', 'th', 'thead', 'tr', 'ul',
  ],
  ALLOWED_ATTR: ['class', 'data-language', 'data-mark', 'href', 'start'],
  ALLOWED_URI_REGEXP: /^https?:\/\//i,
  RETURN_DOM_FRAGMENT: true as const,
};

/** Code outside the window is coloured when it comes near it: a long conversation shows at once after a reload. */
const colourWhenNear = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      colourWhenNear.unobserve(target);
      colour(target);
    }
  },
  { rootMargin: '600px' },
);

export class AnswerView {
  readonly element = h('div', { class: 'answer' });
  readonly #actions: AnswerActions;
  #stream = new MarkdownStream();
  #streamed = '';
  #ranges: readonly MarkedRange[] = [];
  #drawn: Drawn[] = [];

  constructor(actions: AnswerActions) {
    this.#actions = actions;
    // One listener for all that is pressed in the answer: its nodes come and go while it streams.
    this.element.addEventListener('click', (event) => this.#click(event));
  }

  /** Draws the answer as it is now. With `ended` its marks are drawn too. */
  update(answer: string, marks: readonly AnswerMark[], ended: boolean): void {
    this.#ranges = ended ? markedRanges(answer, marks) : [];
    const text = this.#ranges.length > 0 ? withMarks(answer, this.#ranges) : withoutMarks(answer);
    if (!text.startsWith(this.#streamed)) {
      this.#stream = new MarkdownStream();
      this.#streamed = '';
    }
    this.#stream.push(text.slice(this.#streamed.length));
    this.#streamed = text;
    this.#draw(this.#stream.blocks(ended), ended);
  }

  #draw(blocks: readonly Block[], ended: boolean): void {
    for (const [i, block] of blocks.entries()) {
      const drawn = this.#drawn[i];
      if (drawn?.html === block.html) continue;
      if (drawn === undefined) {
        const element = this.#build(block, !ended);
        this.element.append(element);
        this.#drawn[i] = { html: block.html, element };
      } else {
        morph(drawn.element, this.#build(block, true));
        this.#drawn[i] = { html: block.html, element: drawn.element };
      }
    }
    for (const { element } of this.#drawn.splice(blocks.length)) element.remove();
    for (const code of this.element.querySelectorAll('code[data-language]:not([data-coloured])')) colourWhenNear.observe(code);
  }

  /** `colourNow`: code in a block that changes while it is looked at has its colours from the start. */
  #build(block: Block, colourNow: boolean): HTMLElement {
    const element = h('div', { class: 'block' });
    element.append(DOMPurify.sanitize(block.html, purify));
    this.#applyMarks(element);
    for (const pre of element.querySelectorAll('pre')) {
      // Focusable, so that a long line can be scrolled with the arrow keys.
      pre.tabIndex = 0;
      const code = pre.querySelector('code');
      if (colourNow && code !== null) colour(code);
      const box = h('div', { class: 'code' });
      pre.replaceWith(box);
      box.append(codeBar(code?.dataset['language'] ?? ''), pre);
    }
    return element;
  }

  #click(event: Event): void {
    if (!(event.target instanceof Element)) return;
    const button = event.target.closest<HTMLElement>('button[data-action]');
    const code = button?.closest('.code')?.querySelector('code')?.textContent;
    if (button !== null && code !== undefined && code !== null) {
      if (button.dataset['action'] === 'insert_code') this.#actions.insert(code);
      else {
        this.#actions.copy(code);
        showDone(button, 'copy', 'Copied');
      }
    }
    const link = event.target.closest('a');
    if (link === null) return;
    event.preventDefault();
    const range = this.#ranges[Number(link.dataset['mark'] ?? NaN)];
    const sources = range === undefined ? [] : sourcesOf(range);
    if (sources.length > 0) this.#actions.reveal(sources);
    else if (link.protocol === 'http:' || link.protocol === 'https:') this.#actions.openLink(link.href);
  }

  /** Takes the wrapping characters out of the text and puts elements in their place. */
  #applyMarks(root: HTMLElement): void {
    for (const link of root.querySelectorAll<HTMLElement>('a[data-mark]')) {
      const range = this.#ranges[Number(link.dataset['mark'])];
      if (range === undefined) continue;
      const wrapped = markElement(range, Number(link.dataset['mark']), this.#actions.rootName);
      wrapped.append(...link.childNodes);
      link.replaceWith(wrapped);
    }
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    const texts: Text[] = [];
    while (walker.nextNode()) texts.push(walker.currentNode as Text);
    let open: number | null = null;
    for (const text of texts) {
      const split: ReturnType<typeof splitMarks> = splitMarks(text.data, open);
      open = split.open;
      if (split.pieces.length === 1 && split.pieces[0]!.text === text.data && split.pieces[0]!.mark === null) continue;
      const pieces = split.pieces.map(({ text: piece, mark }) => {
        const range = mark === null ? undefined : this.#ranges[mark];
        if (range === undefined) return new Text(piece);
        const element = markElement(range, mark!, this.#actions.rootName);
        element.textContent = piece;
        return element;
      });
      // By class, since `:has` in the style sheet costs a long conversation a third of its time.
      if (text.parentElement?.tagName === 'CODE' && pieces.some((piece) => piece instanceof HTMLAnchorElement)) text.parentElement.classList.add('linked');
      text.replaceWith(...pieces);
    }
  }
}

function codeBar(language: string): HTMLElement {
  const button = (action: string, name: Icon, label: string): HTMLElement =>
    h('button', { type: 'button', class: 'icon-button', 'data-action': action, title: label, 'aria-label': label }, icon(name));
  return h(
    'div',
    { class: 'code-bar' },
    h('span', { class: 'language' }, language),
    button('copy_code', 'copy', 'Copy code'),
    button('insert_code', 'insert', 'Insert at cursor'),
  );
}

function sourcesOf({ marks }: MarkedRange): Source[] {
  return marks.flatMap(({ source }) => (source === undefined ? [] : [source]));
}

function markElement(range: MarkedRange, index: number, nameOf: (root: string) => string): HTMLElement {
  const { marks } = range;
  const [source, ...others] = sourcesOf(range);
  const rootName = source === undefined ? '' : nameOf(source.root);
  const corrected = marks.find((m) => m.kind === 'corrected');
  const unknown = marks.some((m) => m.kind === 'unknown');
  const notes = [
    ...(corrected?.was === undefined ? [] : [`Corrected: the model wrote ${corrected.was}`]),
    ...(unknown ? ['Nowhere in this workspace'] : []),
  ];
  const classes = ['mark', ...(unknown ? ['unknown'] : []), ...(corrected ? ['corrected'] : [])].join(' ');
  if (source === undefined) return h('span', { class: classes, title: notes.join('. '), 'aria-description': notes.join('. ') });
  const target = others.length > 0 ? `one of ${files(others.length + 1)} of this name` : `${rootName === '' ? '' : `${rootName}/`}${source.path}, ${sourceLines(source)}`;
  return h('a', {
    class: `${classes} link`,
    href: '#',
    'data-mark': index,
    title: [`Open ${target}`, ...notes].join('. '),
    ...(notes.length === 0 ? {} : { 'aria-description': notes.join('. ') }),
  });
}

function colour(code: Element): void {
  const text = code.textContent ?? '';
  const html = highlight(text, (code as HTMLElement).dataset['language'] ?? '');
  code.setAttribute('data-coloured', '');
  if (html === null) return;
  const fragment = DOMPurify.sanitize(html, { ALLOWED_TAGS: ['span'], ALLOWED_ATTR: ['class'], RETURN_DOM_FRAGMENT: true });
  code.replaceChildren(fragment);
}
