// What goes over the wire of a long answer: the same JSON, written in turns.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeInTurns } from '../../extension/engine/connection';
import { turnsOfOthers } from './others';

const answer = (result: unknown): object => ({ jsonrpc: '2.0', id: 7, result });

test('a message is written as JSON, however long the list in it', async () => {
  const item = (i: number): object => ({ path: `src/"ü\u2028🚀${i}`, tokens: i, ...(i % 3 === 0 && { detail: null }) });
  const messages = [
    ...[0, 1, 999, 1000, 1001, 2000, 5000].map((n) => answer(Array.from({ length: n }, (_, i) => item(i)))),
    answer([undefined, ...Array(1500).fill([])]),
    answer({ files: Array.from({ length: 3000 }, (_, i) => item(i)) }),
    answer(null),
    { jsonrpc: '2.0', method: 'told', params: [1, 2] },
  ];
  for (const message of messages) assert.deepEqual(JSON.parse((await encodeInTurns(message)).toString()), JSON.parse(JSON.stringify(message)));
});

test('others have their turn while a long list is written', async () => {
  const turns = await turnsOfOthers(() => encodeInTurns(answer(Array.from({ length: 200_000 }, (_, i) => i))));
  assert.ok(turns > 15, `${turns} turns`);
});
