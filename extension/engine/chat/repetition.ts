// Ends an answer that goes round in circles: greedy decoding of a small model does so now and then. Pure.

/** An answer that says the same sixteen tokens twice says nothing new. */
const window = 16;

export class RepetitionGuard {
  private readonly recent: number[] = [];
  private readonly seen = new Set<string>();
  private over = false;

  /** True once the last sixteen tokens have been said before. */
  push(id: number): boolean {
    this.recent.push(id);
    if (this.recent.length < window) return false;
    if (this.recent.length > window) this.recent.shift();
    const gram = this.recent.join(' ');
    this.over ||= this.seen.has(gram);
    this.seen.add(gram);
    return this.over;
  }

  get stopped(): boolean {
    return this.over;
  }
}
