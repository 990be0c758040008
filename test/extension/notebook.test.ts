// Text of notebooks: cells only, the same after a run, and lines that lead back to their cells.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { cellAt, lineOfCell, notebookText, textAroundCell, textOfCells, withinCell, type CellSource } from '../../extension/engine/workspace/notebook';

interface Cell {
  cell_type: string;
  source: string | string[];
  [more: string]: unknown;
}

function notebook(cells: Cell[], metadata: object = { language_info: { name: 'python' } }): string {
  return JSON.stringify({ cells, metadata, nbformat: 4, nbformat_minor: 5 });
}

const cells: Cell[] = [
  { cell_type: 'code', source: ['rate_qa17 = 3\n', 'rate_zt42 = 4'], outputs: [], execution_count: 1 },
  { cell_type: 'markdown', source: 'Fibonacci numbers\n\nof *n*' },
  { cell_type: 'code', source: 'def fib(n):\n    ', outputs: [{ data: { 'image/png': 'A'.repeat(2 << 20) } }] },
  { cell_type: 'code', source: [], metadata: {} },
  { cell_type: 'raw', source: 'raw text\r\nsecond\r\n' },
];

test('cells under their marks, Markdown as comments, no outputs', () => {
  const text = notebookText(notebook(cells));
  assert.equal(
    text?.text,
    '# %%\nrate_qa17 = 3\nrate_zt42 = 4\n# %% [markdown]\n# Fibonacci numbers\n#\n# of *n*\n# %%\ndef fib(n):\n    \n# %%\n# %% [raw]\n# raw text\n# second\n',
  );
  assert.deepEqual(text.cells.map(({ kind, start_line, end_line }) => [kind, start_line, end_line]), [
    ['code', 1, 3],
    ['markdown', 4, 7],
    ['code', 8, 10],
    ['code', 11, 11],
    ['raw', 12, 14],
  ]);
  assert.deepEqual([cellAt(text, 3)?.cell.index, cellAt(text, 3)?.line], [0, 2]);
  assert.deepEqual([cellAt(text, 9)?.cell.index, cellAt(text, 9)?.line], [2, 1]);
  assert.equal(cellAt(text, 15), undefined);
  assert.equal(lineOfCell(text, 2, 1), 9);
  assert.equal(lineOfCell(text, 9, 1), undefined);
});

test('a run that changes outputs, counters and metadata changes nothing', () => {
  const run = cells.map((cell, i) => ({ ...cell, execution_count: i + 7, outputs: [{ text: `${i}` }], metadata: { collapsed: true }, id: `x${i}` }));
  assert.equal(notebookText(notebook(run))?.text, notebookText(notebook(cells))?.text);
});

test('other languages, older formats, other files', () => {
  const source = [{ cell_type: 'markdown', source: 'note' }, { cell_type: 'code', source: 'let x = 1' }];
  assert.equal(notebookText(notebook(source, { kernelspec: { language: 'JavaScript' } }))?.text, '// %% [markdown]\n// note\n// %%\nlet x = 1\n');
  assert.equal(notebookText(notebook(source, { language_info: { name: 'sql' } }))?.text.startsWith('-- %%'), true);
  const old = JSON.stringify({ worksheets: [{ cells: [{ cell_type: 'code', input: ['a = 1'] }, { cell_type: 'heading', source: 'H' }] }], nbformat: 3 });
  assert.equal(notebookText(old)?.text, '# %%\na = 1\n# %% [markdown]\n# H\n');
  assert.equal(notebookText(notebook([]))?.text, '');
  for (const other of ['', '{', '[]', '{"a": 1}', 'null', '"text"', '{"cells": 3}']) assert.equal(notebookText(other), undefined, other);
});

const sources: CellSource[] = [
  { kind: 'code', source: 'rate_qa17 = 3\r\nrate_zt42 = 4\n' },
  { kind: 'markdown', source: 'Fibonacci' },
  { kind: 'code', source: 'def fib(n):\n    ' },
  { kind: 'code', source: '' },
  { kind: 'code', source: 'print("done")' },
];

test('a cell within its notebook: as it is, what comes before it and behind it as memory has it', () => {
  const { text, start, mark } = textAroundCell(sources, 2, 'python');
  assert.equal(text, '# %%\nrate_qa17 = 3\nrate_zt42 = 4\n# %% [markdown]\n# Fibonacci\n# %%\ndef fib(n):\n    \n# %%\n# %%\nprint("done")\n');
  assert.equal(text.slice(start), 'def fib(n):\n    \n# %%\n# %%\nprint("done")\n');
  assert.equal(mark, '# %%');
  assert.equal(textAroundCell(sources, 4, 'sql').text.endsWith('-- %%\nprint("done")'), true, 'nothing behind the last one');
});

test('a cursor at the end of a cell stands at the end of a line, whatever the cell', () => {
  fc.assert(
    fc.property(fc.array(fc.stringMatching(/^[ab\n]{0,5}$/), { minLength: 1, maxLength: 4 }), fc.nat(3), (list, at) => {
      const cells = list.map((source): CellSource => ({ kind: 'code', source }));
      const index = at % cells.length;
      const { source } = cells[index]!;
      const { text, start } = textAroundCell(cells, index, 'python');
      assert.equal(text.slice(start, start + source.length), source);
      assert.match(text.slice(start + source.length), /^(\n|$)/);
      assert.equal(text.slice(0, start), `${textOfCells(cells.slice(0, index), 'python').text}# %%\n`);
    }),
  );
});

test('what is generated for a cell ends where the next one would begin', () => {
  assert.equal(withinCell('return n\n\n# %%\nprint(1)', '# %%'), 'return n');
  assert.equal(withinCell('\n# %% [markdown]\n# x', '# %%'), '');
  assert.equal(withinCell('a\n# % b\n', '# %%'), 'a\n# % b\n');
});

test('every line belongs to the cell that it came from', () => {
  const cell = fc.record({ cell_type: fc.constantFrom('code', 'markdown', 'raw'), source: fc.array(fc.stringMatching(/^[a-z #%]{0,8}$/), { maxLength: 5 }) });
  fc.assert(
    fc.property(fc.array(cell, { maxLength: 6 }), (list) => {
      const text = notebookText(notebook(list.map(({ cell_type, source }) => ({ cell_type, source: source.join('\n') }))));
      assert.ok(text);
      const lines = text.text.split('\n').slice(0, -1);
      lines.forEach((line, i) => {
        const at = cellAt(text, i + 1);
        assert.ok(at);
        const original = list[at.cell.index]!;
        if (at.line === 0) return assert.match(line, /^# %%/);
        const source = original.source.join('\n').split('\n')[at.line - 1]!;
        assert.equal(original.cell_type === 'code' ? line : line.replace(/^# ?/, ''), source);
        assert.equal(lineOfCell(text, at.cell.index, at.line), i + 1);
      });
    }),
  );
});
