// How the benchmarks in TypeScript are told what to measure, and say what they measured.

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

export function mib(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(0);
}

/** Whether a part is to run: all of them where none is named. Undefined where the usage was printed instead: asked for, or a name is unknown. */
export function chooser(usage: string, names: readonly string[], named: readonly string[], help = false): ((name: string) => boolean) | undefined {
  if (help || named.some((name) => !names.includes(name))) {
    process.stderr.write(usage);
    process.exitCode = help ? 0 : 2;
    return undefined;
  }
  return (name) => named.length === 0 || named.includes(name);
}
