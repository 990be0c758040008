// How the benchmarks in TypeScript say what they measured.

import os from 'node:os';

/** Percentiles of milliseconds or counts, rounded. */
export function spread(values: readonly number[]): string {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number): string => (sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN).toFixed(0);
  return `p50 ${at(0.5)}, p95 ${at(0.95)}, at most ${at(1)}`;
}

/** A title with the machine's load, and lines below it. */
export function say(title: string, lines: readonly string[]): void {
  console.log([`${title} (load ${os.loadavg()[0]!.toFixed(1)})`, ...lines.map((line) => `  ${line}`)].join('\n'));
}
