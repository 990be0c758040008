// Markdown of an answer: a fence within a fence is one block, and cutting the text into pieces changes neither the final
// picture nor any block that has settled.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MarkdownStream, renderMarkdown, type Block } from '../../webview/markdown';

const nested = ['# Demo', '```sh', 'npm start', '```', '## After', '- item'].join('\n');
const inner = nested.replaceAll('```', '~~~');

function codeBlocks(text: string): string[] {
  return renderMarkdown(text).flatMap((block) =>
    [...block.html.matchAll(/<pre><code[^>]*>([^]*?)<\/code><\/pre>/g)].map((m) => unescape(m[1]!)),
  );
}

function unescape(html: string): string {
  return html.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&quot;', '"').replaceAll('&amp;', '&');
}

function check(name: string, text: string, expected: string[]): void {
  test(name, () => {
    assert.deepEqual(codeBlocks(text), expected);
    for (const size of [1, 3, 7]) {
      const stream = new MarkdownStream();
      for (let i = 0; i < text.length; i += size) {
        stream.push(text.slice(i, i + size));
        stream.blocks(false);
      }
      assert.deepEqual(stream.blocks(true), renderMarkdown(text), `pieces of ${size}`);
    }
  });
}

const around = (block: string): string => `Here is the file:\n${block}\nDone. \`a\`\`b\` and ~~~x and <script>alert(1)</script>\n`;

check('a fence in a fence', around(`\`\`\`markdown\n${nested}\n\`\`\``), [nested]);
check('an outer fence of four', around(`\`\`\`\`markdown\n${nested}\n\`\`\`\``), [nested]);
check('an outer fence of tildes', around(`~~~markdown\n${nested}\n~~~`), [nested]);
check('tildes in tildes', around(`~~~markdown\n${inner}\n~~~`), [inner]);
check('a longer fence inside', around('```md\n````js\n```\n````\nafter\n```'), ['````js\n```\n````\nafter']);
check('three deep', around('```md\n```md\n```js\nx\n```\n```\ny\n```'), ['```md\n```js\nx\n```\n```\ny']);
check('an unclosed fence is a block to the end', `Text\n\`\`\`js\nconst a = 1;\n\nconst b = 2;`, ['const a = 1;\n\nconst b = 2;']);
check('an unclosed fence within', `\`\`\`md\n\`\`\`js\nx`, ['```js\nx']);
check('carriage returns', around(`\`\`\`markdown\n${nested}\n\`\`\``).replaceAll('\n', '\r\n'), [nested]);
check('a list item that holds a fence', '- one\n\n  ```js\n  x\n    y\n  ```\n\n- two\n', ['x\n  y']);
check('a list item that holds a fence with a fence', '- one\n  ```md\n  ```js\n  x\n  ```\n  ```\n- two\n', ['```js\nx\n```']);
check('a fence that ends with its list item', '- one\n  ```js\n  x\nafter\n', ['x']);
check('two fences are two', '```js\na\n```\ntext\n```js\nb\n```\n', ['a', 'b']);
check('two fences without a language', '```\na\n```\n\n```\nb\n```\n', ['a', 'b']);
check('backticks in an info string are inline code', '``` a`b ``` text\n', []);
check('blank lines at the end of a fence are kept', '```\na\n\n\n```\n', ['a\n\n']);

test('no HTML of the text gets through', () => {
  const html = renderMarkdown('<script>alert(1)</script> <img src=x onerror=alert(1)> [x](javascript:alert(1)) ![i](http://e/x.png)')
    .map((b) => b.html)
    .join('');
  assert.doesNotMatch(html, /<script|<img|href="javascript/i);
});

test('only addresses that lead out over http are links', () => {
  const html = renderMarkdown('[a](https://example.com/x) [b](src/missing.c) [c](file:///etc/passwd) [d](command:x)').map((b) => b.html).join('');
  assert.deepEqual([...html.matchAll(/<a href="([^"]*)"/g)].map((m) => m[1]), ['https://example.com/x']);
});

/** Markdown from pieces that are likely to interact. */
const markdown = fc
  .array(
    fc.constantFrom(
      '\n', '\n\n', '\r\n', '\r', 'word', ' ', '  ', '    ', '```', '```js', '````', '~~~', '~~~md', '- ', '1. ', '> ', '# ', '---', '===',
      '-', '=', '| a | b |\n|---|---|\n| 1 | 2 |', '|', '**', '*', '`', '[a](b)', '[a]: b', '\t', '🚀', '<b>', '&amp;', '\\', '\n- x\n  ```\n',
    ),
    { maxLength: 40 },
  )
  .map((parts) => parts.join(''));

test('any cutting gives the same blocks, and settled blocks stay', () => {
  fc.assert(
    fc.property(markdown, fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 20 }), (text, sizes) => {
      const stream = new MarkdownStream();
      let settled: readonly Block[] = [];
      for (let i = 0, n = 0; i < text.length; n += 1) {
        const size = sizes[n % sizes.length]!;
        stream.push(text.slice(i, i + size));
        i += size;
        const before = settled;
        // Blocks that keep their identity from one call to the next are the settled ones.
        const first = stream.blocks(false);
        const second = stream.blocks(false);
        settled = first.filter((block, at) => block === second[at]);
        before.forEach((block, at) => assert.equal(settled[at], block));
      }
      const final = stream.blocks(true);
      settled.forEach((block, at) => assert.equal(final[at], block));
      assert.deepEqual(final, renderMarkdown(text));
    }),
    { numRuns: 3000, verbose: true },
  );
});
