// The list of places that an answer comes from: links that open exactly these lines, with their share of the question's
// attention. Folder names are shown only where two roots would otherwise look alike.

import type { Source } from '../../extension/engine/messages';
import { sourceLines } from '../../extension/texts';
import { h } from './dom';

export function sourcesView(sources: readonly Source[], reveal: (source: Source) => void): HTMLElement {
  const roots = new Set(sources.map((s) => s.root));
  return h(
    'ul',
    { class: 'sources', 'aria-label': 'Sources' },
    ...sources.map((source) => {
      const share = `${Math.round(source.weight * 100)} %`;
      const slash = source.path.lastIndexOf('/') + 1;
      const root = roots.size > 1 ? `${source.root.slice(source.root.lastIndexOf('/') + 1)}/` : '';
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
            onclick: () => reveal(source),
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
