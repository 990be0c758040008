// The result of `compare.mjs` as Markdown: one table for each peer, and under what conditions. Pure.

/** @typedef {import('./measure.mjs').Figure & { ratio?: number, by?: string }} Cell */
/**
 * @typedef {object} Report
 * @property {readonly { name: string, ours: import('./measure.mjs').Figure, peers: Record<string, Cell> }[]} rows
 * @property {Record<string, string | undefined>} peer
 * @property {{ date: string, cpu: string, cores: number, flags: readonly string[], memory_gb: number, system: string, node: string,
 *   compiler: string | undefined, commit: string, load: readonly number[], load_at_end: readonly number[] }} machine
 * @property {number} rounds
 * @property {boolean} avx2
 * @property {boolean} sampled
 */

/** @returns {string} */
export function markdown(/** @type {Report} */ { rows, peer, machine, rounds, avx2, sampled }) {
  const names = Object.keys(rows[0]?.peers ?? {});
  const conditions = [
    `${machine.cpu}, ${machine.cores} cores, ${machine.memory_gb} GB, ${machine.flags.join(' ')}; ${machine.system}; Node ${machine.node}; ${machine.compiler}`,
    `${machine.date}, commit ${machine.commit}; load ${machine.load.join(' ')} before, ${machine.load_at_end.join(' ')} after; ${rounds} rounds`,
    `peer: ${Object.entries(peer).map(([name, version]) => `${name} ${version}`).join(', ')}; the better of flash attention on and off`,
    ...(avx2 ? ["both sides kept to AVX2's instructions"] : []),
    ...(sampled ? ["the peer's prompts beyond 2,048 are sampled: 512 tokens at two depths stand for what each length adds"] : []),
  ];
  return [
    ...conditions.map((line) => `- ${line}`),
    '- tokens/s; *refused*: other processes took more than 5 % of the machine meanwhile, then the ratio is that of processor time on one thread',
    ...names.flatMap((name) => [
      '',
      `| ${name} | ratio | judged by | ours, 2 threads | peer, 2 threads | ours, CPU of 1 thread | peer, CPU of 1 thread |`,
      '| --- | --- | --- | --- | --- | --- | --- |',
      ...rows.map((row) => {
        const cell = row.peers[name];
        const cells = [
          row.name,
          cell?.ratio === undefined ? '–' : `**${cell.ratio.toFixed(2)}×**`,
          cell?.by?.replaceAll('_', ' ') ?? '–',
          ...[row.ours.two_threads, cell?.two_threads, row.ours.one_thread_cpu, cell?.one_thread_cpu].map(rate),
        ];
        return `| ${cells.join(' | ')} |`;
      }),
    ]),
    '',
  ].join('\n');
}

function rate(/** @type {number | null | undefined} */ value) {
  if (value === null) return 'refused';
  return value?.toFixed(1) ?? '–';
}
