/** Numbers that a seed decides (mulberry32): what failed can be run again. */
export class Random {
  constructor(private state: number) {}

  /** An integer in 0 … n − 1. */
  below(n: number): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * n);
  }

  /** One of `from`, which is not empty. */
  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)] as T;
  }

  /** True once in n times. */
  once(n: number): boolean {
    return this.below(n) === 0;
  }
}
