// When a figure of bench/compare.mjs counts, and what it is compared with.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { add, best, collected, isDisturbed, judge, median, parameters, parseProcessStat, parseStat, rates, sample, times, type Sample } from '../../bench/measure.mjs';

const ran = (wall_s: number, cpu_s: number, others: number, total = 1000): Sample => ({ wall_s, cpu_s, others, total });

test('processor time of the machine: what other virtual machines took was not ours', () => {
  const stat = 'cpu  100 5 40 800 20 3 2 30 7 0\ncpu0 50 2 20 400 10 1 1 15 3 0\nintr 1\n';
  assert.deepEqual(parseStat(stat), { busy: 180, total: 1000 });
  assert.deepEqual(parseStat('cpu  1 1 1 1 1 1 1\n'), { busy: 5, total: 7 }, 'kernels without steal');
  assert.throws(() => parseStat('cpu0 1 2 3\n'), /seven numbers/);
});

test('processor time of a process whose name has brackets and spaces', () => {
  const stat = '42 (a) b (c)) S 1 42 42 0 -1 4194304 10 0 0 0 120 35 0 0 20 0 3 0 100 1000 10';
  assert.equal(parseProcessStat(stat), 155);
});

test('a sample counts against others what was busy and not ours', () => {
  const before = { busy: 100, total: 1000, own: 40 };
  assert.equal(sample(1, 1, before, { busy: 180, total: 1200, own: 110 }).others, 10);
  assert.equal(sample(1, 1, before, { busy: 180, total: 1200, own: 122 }).others, 0, 'ticks are counted at different moments');
});

test('others may take 5 % and not more; where nothing was counted nothing is known', () => {
  assert.equal(isDisturbed(ran(1, 1, 50)), false);
  assert.equal(isDisturbed(ran(1, 1, 51)), true);
  assert.equal(isDisturbed(ran(1, 1, 0, 0)), true);
  assert.equal(isDisturbed(ran(1, 1, NaN)), true);
  assert.equal(isDisturbed(add(ran(1, 1, 90), ran(9, 9, 0, 9000))), false, 'pieces of one pass count together');
});

test('median', () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
  assert.equal(median([10, 9, 100]), 10, 'by size, not by text');
  assert.ok(Number.isNaN(median([])));
});

test('on the clock only undisturbed rounds count, and it takes half of them', () => {
  const calm = ran(2, 1, 0), disturbed = ran(8, 1, 400);
  assert.deepEqual(rates(100, [calm, calm, disturbed]), { clock: 50, cpu: 100 });
  assert.deepEqual(rates(100, [calm, disturbed]), { clock: 50, cpu: 100 });
  assert.deepEqual(rates(100, [calm, disturbed, disturbed]), { clock: null, cpu: 100 });
});

test("the peer's better setting counts, unless one of them is unknown", () => {
  const on = { two_threads: 40, one_thread_cpu: 20 }, off = { two_threads: 30, one_thread_cpu: 25 };
  assert.deepEqual(best([on, off]), { two_threads: 40, one_thread_cpu: 25 });
  assert.deepEqual(best([on, { ...off, two_threads: null }]), { two_threads: null, one_thread_cpu: 25 });
  assert.deepEqual(best([on, { one_thread_cpu: 25 }]), { two_threads: 40, one_thread_cpu: 25 }, 'not measured is not refused');
  assert.deepEqual(best([]), {});
});

test('two threads are judged; where either side was refused, one thread by processor time', () => {
  const ours = { two_threads: 80, one_thread_cpu: 60 };
  assert.deepEqual(judge(ours, { two_threads: 40, one_thread_cpu: 20 }), { ratio: 2, by: 'two_threads' });
  assert.deepEqual(judge(ours, { two_threads: null, one_thread_cpu: 20 }), { ratio: 3, by: 'one_thread_cpu' });
  assert.deepEqual(judge({ two_threads: null, one_thread_cpu: 60 }, { two_threads: 40, one_thread_cpu: 20 }), { ratio: 3, by: 'one_thread_cpu' });
  assert.equal(judge({ two_threads: null }, { two_threads: 40 }), undefined);
});

test('samples stand for more of the same', () => {
  assert.deepEqual(times(3, ran(2, 1, 10, 100)), ran(6, 3, 30, 300));
});

test("the peer's models have the shapes that they are named after", () => {
  assert.equal(parameters('dense_q4_0'), 494_032_768, 'as Qwen2.5-0.5B');
  assert.equal(parameters('dense_q4_k'), parameters('dense_q4_0'));
});

test('a count of instructions is found, and nothing counted is no count', () => {
  assert.equal(collected('==1== Events    : Ir\n==1== Collected : 248886661\n'), 248_886_661);
  assert.throws(() => collected('==1== Collected : 0\n'), /expected a count/);
  assert.throws(() => collected('valgrind: no such file'), /expected a count/);
});
