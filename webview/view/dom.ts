// Small helpers over the DOM: elements with attributes and listeners in one expression, icons drawn here (no icon font, so the
// page loads nothing), and `morph`, which turns one tree into another by changing only what differs.

type Attributes = Record<string, string | boolean | number | ((event: Event) => void)>;
type Child = Node | string | null;

/** `h('button', { class: 'x', onclick: f }, 'text')`. `true` sets an empty attribute, `false` leaves it out. */
export function h<K extends keyof HTMLElementTagNameMap>(tag: K, attributes: Attributes = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((c) => c !== null));
  return element;
}

/** Paths in a 16 × 16 box, drawn with the current colour. */
const icons = {
  send: 'M2 2.5 14 8 2 13.5 3.8 8z M3.8 8H8.5',
  stop: 'M4.5 4.5h7v7h-7z',
  copy: 'M5.5 5.5h7v8h-7z M3.5 10.5v-8h7',
  insert: 'M8 2.5v8 M4.8 7.3 8 10.5l3.2-3.2 M3 13.5h10',
  retry: 'M12.8 6A5 5 0 1 0 13 9 M13 2.8V6H9.8',
  close: 'M4 4l8 8 M12 4l-8 8',
  attach: 'M3.5 2.5h6l3 3v8h-9z M9.5 2.5v3h3',
  down: 'M8 3v9.5 M4 8.8l4 4 4-4',
  check: 'M3 8.5 6.5 12 13 4.5',
} as const;
export type Icon = keyof typeof icons;

export function icon(name: Icon): SVGSVGElement {
  const ns = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(ns, 'svg');
  svg.setAttribute('viewBox', '0 0 16 16');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(ns, 'path');
  path.setAttribute('d', icons[name]);
  svg.append(path);
  return svg;
}

export function iconButton(name: Icon, label: string, onclick: (event: Event) => void): HTMLButtonElement {
  return h('button', { type: 'button', class: 'icon-button', title: label, 'aria-label': label, onclick }, icon(name));
}

/** A tick in a button's place for a moment: copying has no other visible effect. */
export function showDone(button: HTMLElement, name: Icon, done: string): void {
  const label = button.getAttribute('aria-label') ?? '';
  if (label === done) return;
  button.replaceChildren(icon('check'));
  button.setAttribute('aria-label', done);
  setTimeout(() => {
    button.replaceChildren(icon(name));
    button.setAttribute('aria-label', label);
  }, 1500);
}

/**
 * Makes `live` equal to `wanted`, keeping every node that need not change: a selection within them stays, and text that only
 * grows is appended to. `wanted` is used up.
 */
export function morph(live: Node, wanted: Node): void {
  let child = live.firstChild;
  for (const next of [...wanted.childNodes]) {
    if (child === null) {
      live.appendChild(next);
      continue;
    }
    const after: ChildNode | null = child.nextSibling;
    if (child instanceof Text && next instanceof Text) {
      if (child.data !== next.data) {
        if (next.data.startsWith(child.data)) child.appendData(next.data.slice(child.length));
        else child.data = next.data;
      }
    } else if (child instanceof Element && next instanceof Element && sameShell(child, next)) {
      morph(child, next);
    } else {
      child.replaceWith(next);
    }
    child = after;
  }
  while (child !== null) {
    const after: ChildNode | null = child.nextSibling;
    child.remove();
    child = after;
  }
}

function sameShell(a: Element, b: Element): boolean {
  return (
    a.tagName === b.tagName &&
    a.attributes.length === b.attributes.length &&
    [...a.attributes].every((attribute) => b.getAttribute(attribute.name) === attribute.value)
  );
}
