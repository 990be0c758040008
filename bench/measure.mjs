// The arithmetic of `compare.mjs`: what a sample is, when a time on the clock counts, medians, ratios; and what other programs print. Pure.

/** Other processes may take at most this share of the machine's processor time, else a time on the clock is refused. */
export const mostOthers = 0.05;

/**
 * Processor time until now, in the kernel's ticks: all of the machine, and what of `busy` was ours.
 * @typedef {{ busy: number, total: number, own: number }} Ticks
 */

/**
 * One timed piece of work; pieces add up.
 * @typedef {{ wall_s: number, cpu_s: number, others: number, total: number }} Sample
 */

/** The first line of /proc/stat. Time that other virtual machines took (steal) is busy: we did not have it. */
export function parseStat(/** @type {string} */ text) {
  const line = /^cpu +(\d[\d ]*)$/m.exec(text)?.[1];
  const [user = NaN, nice = NaN, system = NaN, idle = NaN, iowait = NaN, irq = NaN, softirq = NaN, steal = 0] = line?.split(' ').map(Number) ?? [];
  const busy = user + nice + system + irq + softirq + steal;
  if (!Number.isFinite(busy + idle + iowait)) throw new Error('expected "cpu" with at least seven numbers in /proc/stat, found none');
  return { busy, total: busy + idle + iowait };
}

/** User and system ticks of a process and all its threads, from /proc/PID/stat; its name may hold anything. */
export function parseProcessStat(/** @type {string} */ text) {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

/** @returns {Sample} */
export function sample(/** @type {number} */ wall_s, /** @type {number} */ cpu_s, /** @type {Ticks} */ before, /** @type {Ticks} */ after) {
  const others = Math.max(0, after.busy - before.busy - (after.own - before.own));
  return { wall_s, cpu_s, others, total: after.total - before.total };
}

/** @returns {Sample} */
export function add(/** @type {Sample} */ a, /** @type {Sample} */ b) {
  return { wall_s: a.wall_s + b.wall_s, cpu_s: a.cpu_s + b.cpu_s, others: a.others + b.others, total: a.total + b.total };
}

/** What `factor` such pieces would take. @returns {Sample} */
export function times(/** @type {number} */ factor, /** @type {Sample} */ { wall_s, cpu_s, others, total }) {
  return { wall_s: factor * wall_s, cpu_s: factor * cpu_s, others: factor * others, total: factor * total };
}

export function isDisturbed(/** @type {Sample} */ { others, total }) {
  return !(others <= mostOthers * total) || total === 0;
}

export function median(/** @type {readonly number[]} */ values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return NaN;
  return sorted.length % 2 ? /** @type {number} */ (sorted[middle]) : (/** @type {number} */ (sorted[middle - 1]) + /** @type {number} */ (sorted[middle])) / 2;
}

/**
 * A contestant's figure in one row: the median of its rounds. On the clock only undisturbed rounds count, and it takes half of
 * them; otherwise the figure is refused, which is null.
 * @param {number} n tokens
 * @param {readonly Sample[]} samples
 * @returns {{ clock: number | null, cpu: number }} tokens a second; tokens a second of processor time
 */
export function rates(n, samples) {
  const undisturbed = samples.filter((one) => !isDisturbed(one));
  const enough = undisturbed.length > 0 && 2 * undisturbed.length >= samples.length;
  return {
    clock: enough ? n / median(undisturbed.map(({ wall_s }) => wall_s)) : null,
    cpu: n / median(samples.map(({ cpu_s }) => cpu_s)),
  };
}

/** Tokens a second; null: refused, absent: not measured. @typedef {{ two_threads?: number | null, one_thread_cpu?: number }} Figure */

/** The better of a peer's settings, each way of measuring by itself. @returns {Figure} */
export function best(/** @type {readonly Figure[]} */ figures) {
  const clock = figures.flatMap((figure) => (figure.two_threads === undefined ? [] : [figure.two_threads]));
  const cpu = figures.flatMap((figure) => figure.one_thread_cpu ?? []);
  return {
    // A setting that was refused might have been the better one.
    ...(clock.length > 0 && { two_threads: clock.includes(null) ? null : Math.max(...clock.map(Number)) }),
    ...(cpu.length > 0 && { one_thread_cpu: Math.max(...cpu) }),
  };
}

/**
 * Ours divided by the peer's: on two threads where both were measured undisturbed, else by processor time on one thread.
 * @param {Figure} ours
 * @param {Figure} peer
 * @returns {{ ratio: number, by: 'two_threads' | 'one_thread_cpu' } | undefined}
 */
export function judge(ours, peer) {
  for (const by of /** @type {const} */ (['two_threads', 'one_thread_cpu'])) {
    const mine = ours[by] ?? null, theirs = peer[by] ?? null;
    if (mine !== null && theirs !== null) return { ratio: mine / theirs, by };
  }
  return undefined;
}

/**
 * Parameters of a peer's model (make_gguf.py): a file of another shape would be compared with something else than it says.
 * @returns {number}
 */
export function parameters(/** @type {import('./peer.mjs').PeerModel} */ model) {
  const layers = 24, hidden = 896, kv = 128, head = 64, heads = 14, mlp = 3 * hidden * 4864, norms = 2 * hidden;
  if (model !== 'hybrid_q4_0') {
    const attention = 2 * hidden * hidden + 2 * hidden * kv + hidden + 2 * kv;
    return 151936 * hidden + hidden + layers * (attention + mlp + norms);
  }
  // Queries have their output gate beside them.
  const full = 3 * hidden * hidden + 2 * hidden * kv + 2 * head;
  const linear = 5 * hidden * hidden + 2 * hidden * heads + 3 * hidden * 4 + 2 * heads + head;
  return 32768 * hidden + hidden + (layers / 4) * (full + 3 * linear) + layers * (mlp + norms);
}

/** @returns {number} instructions between entering and leaving the product, from what callgrind prints */
export function collected(/** @type {string} */ text) {
  const count = Number(/Collected : (\d+)/.exec(text)?.[1] ?? NaN);
  // Nothing at all means that the function was not found under that name.
  if (!(count > 0)) throw new Error(`expected a count of instructions from callgrind, found\n${text.slice(-400)}`);
  return count;
}
