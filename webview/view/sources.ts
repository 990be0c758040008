// The list of places that an answer comes from: links that open exactly these lines, with their share of the question's
// attention, and with the name of their root where the window has several.

import type { Source } from '../../extension/engine/messages';
import { sourceLines } from '../../extension/texts';
import { h } from './dom';

/** What an answer is made from comes first; the rest of the ranking is there for whoever looks for it. */
const shownAtOnce = 4;

export interface SourceActions {
  readonly reveal: (sources: readonly Source[]) => void;
  readonly rootName: (root: string) => string;
}

export function sourcesView(sources: readonly Source[], actions: SourceActions): HTMLElement {
  const rest = sources.slice(shownAtOnce);
  return h(
    'div',
    { class: 'sources', role: 'group', 'aria-label': 'Sources' },
    list(sources.slice(0, shownAtOnce), actions),
    rest.length === 0 ? null : h('details', {}, h('summary', {}, `${rest.length} more`), list(rest, actions)),
  );
}

function list(sources: readonly Source[], { reveal, rootName }: SourceActions): HTMLElement {
  return h(
    'ul',
    {},
    ...sources.map((source) => {
      const share = `${Math.round(source.weight * 100)} %`;
      const slash = source.path.lastIndexOf('/') + 1;
      const name = rootName(source.root);
      const root = name === '' ? '' : `${name}/`;
      const lines = source.start_line === source.end_line ? String(source.start_line) : `${source.start_line}–${source.end_line}`;
      return h(
        'li',
        {},
        h(
          'button',
          {
            type: 'button',
            class: 'source',
            title: `${root}${source.path}, ${sourceLines(source)} (${share} of the attention)`,
            'aria-label': `Open ${root}${source.path}, ${sourceLines(source)}, ${share} of the attention`,
            onclick: () => reveal([source]),
          },
          h('span', { class: 'source-name' }, source.path.slice(slash)),
          h('span', { class: 'source-lines' }, `:${lines}`),
          h('span', { class: 'source-folder' }, `${root}${source.path.slice(0, slash)}`),
          h('span', { class: 'source-share' }, share),
        ),
      );
    }),
  );
}
