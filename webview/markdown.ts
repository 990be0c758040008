// Markdown that is still arriving, as a list of top-level blocks of HTML. No DOM here: `view/answer.ts` sanitises and draws.
// A block is settled as soon as a later block has begun on a complete line; settled blocks are parsed once and keep their
// identity, so that what stands above never changes. For that, reference definitions are off: `[a]: b` at the end of a text
// could change its beginning. The finished list is the same for every way in which the text was cut into pieces.

import createMarkdownIt, { type MarkdownIt, type Token } from 'markdown-it';
import { nestedFence } from './fence';
import { markIn, withoutMarks } from './marks';

export interface Block {
  /** Where the block's first line starts in the text: unique within an answer. */
  readonly offset: number;
  readonly html: string;
}

const md = createMarkdown();

export class MarkdownStream {
  #text = '';
  /** A carriage return whose line feed may come with the next piece. */
  #heldReturn = false;
  #settled: Block[] = [];
  #settledEnd = 0;
  /** How much of the text has been looked through for blocks that are settled. */
  #scannedEnd = 0;

  push(piece: string): void {
    let text = this.#heldReturn ? `\r${piece}` : piece;
    this.#heldReturn = text.endsWith('\r');
    if (this.#heldReturn) text = text.slice(0, -1);
    this.#text += text.replace(/\r\n?/g, '\n');
  }

  /** The blocks of what has arrived. With `ended`, the last line is taken as it is; otherwise a line of markers alone waits. */
  blocks(ended: boolean): readonly Block[] {
    if (ended && this.#heldReturn) {
      this.#text += '\n';
      this.#heldReturn = false;
    }
    const linesEnd = this.#text.lastIndexOf('\n') + 1;
    if (linesEnd > this.#scannedEnd) {
      const blocks = parse(this.#text.slice(this.#settledEnd, linesEnd), this.#settledEnd);
      this.#scannedEnd = linesEnd;
      const open = blocks.pop();
      this.#settled.push(...blocks);
      if (open !== undefined) this.#settledEnd = open.offset;
    }
    const lastLine = this.#text.slice(linesEnd);
    const end = !ended && markersOnly.test(lastLine) ? linesEnd : this.#text.length;
    return [...this.#settled, ...parse(this.#text.slice(this.#settledEnd, end), this.#settledEnd)];
  }
}

/** Could become a heading's underline, a rule, a list item or the end of a fence: drawn too early, the text above would hop. */
const markersOnly = /^[\s>]*([-=*_+#|:`~]+|\d{1,9}[.)]?)?\s*$/;

/** The blocks of a whole text. */
export function renderMarkdown(text: string): readonly Block[] {
  const stream = new MarkdownStream();
  stream.push(text);
  return stream.blocks(true);
}

function parse(text: string, offset: number): Block[] {
  if (text === '') return [];
  const tokens = md.parse(text, {});
  const lineStarts = [0];
  for (let i = text.indexOf('\n'); i !== -1; i = text.indexOf('\n', i + 1)) lineStarts.push(i + 1);

  const blocks: Block[] = [];
  let first = 0;
  let depth = 0;
  for (const [i, token] of tokens.entries()) {
    depth += token.nesting;
    if (depth !== 0) continue;
    const group = tokens.slice(first, i + 1);
    first = i + 1;
    blocks.push({ offset: offset + (lineStarts[group[0]!.map?.[0] ?? 0] ?? 0), html: md.renderer.render(group, md.options, {}) });
  }
  return blocks;
}

function createMarkdown(): MarkdownIt {
  const it = createMarkdownIt({ html: false, linkify: false, typographer: false, maxNesting: 40 });
  // No image is ever loaded: its address would tell someone that the answer was read.
  it.disable(['reference', 'image']);
  it.block.ruler.at('fence', nestedFence, { alt: ['paragraph', 'blockquote', 'list'] });

  it.renderer.rules.fence = (tokens, i) => codeBlock(tokens[i]!.content, tokens[i]!.info);
  it.renderer.rules.code_block = (tokens, i) => codeBlock(tokens[i]!.content, '');

  // An address is only followed if it leads out over http(s); a path is a link only where the host has checked it (a mark).
  const opened: string[] = [];
  it.renderer.rules.link_open = (tokens: Token[], i: number) => {
    const href = decode(String(tokens[i]!.attrGet('href') ?? ''));
    const mark = markIn(href);
    if (mark !== null) {
      opened.push('a');
      return `<a data-mark="${mark}">`;
    }
    const external = /^https?:\/\//i.test(href);
    opened.push(external ? 'a' : 'span');
    return external ? `<a href="${it.utils.escapeHtml(href)}">` : '<span class="plain-link">';
  };
  it.renderer.rules.link_close = () => `</${opened.pop() ?? 'span'}>`;
  return it;
}

function codeBlock(content: string, info: string): string {
  const language = withoutMarks(info).trim().split(/\s+/, 1)[0] ?? '';
  const { escapeHtml } = md.utils;
  // The line feed before a closing fence belongs to the fence.
  const text = withoutMarks(content).replace(/\n$/, '');
  return `<pre><code data-language="${escapeHtml(language)}">${escapeHtml(text)}</code></pre>`;
}

function decode(href: string): string {
  try {
    return decodeURI(href);
  } catch {
    return href;
  }
}
