// Ranked segments → sources: ranges of files with their share of the question's attention, best first. Pure.

import type { Source } from '../messages';

export interface RankedRange {
  readonly root: string;
  readonly path: string;
  /** From 1, the end included. */
  readonly start_line: number;
  readonly end_line: number;
  /** 0 … 1. */
  readonly share: number;
}

/** Segments considered: beyond these, shares are noise. */
const defaultLimit = 8;

/**
 * The best `limit` ranges, those of one file that touch or overlap merged into one that stands where the better of them stood
 * and has their shares together. The file of the first source is thus always the file of the first segment: it is the one
 * whose path the answer sees.
 */
export function toSources(ranked: readonly RankedRange[], { limit = defaultLimit, minShare = 0 }: { limit?: number; minShare?: number } = {}): Source[] {
  const order = ranked.filter(({ share }) => share >= minShare).map((range, index) => ({ range, index }));
  order.sort((a, b) => b.range.share - a.range.share || a.index - b.index);
  let sources: Source[] = [];
  for (const { range } of order.slice(0, limit)) {
    const { share, ...rest } = range;
    let merged: Source = { ...rest, weight: share };
    let at = sources.length;
    // A range may close the gap between two others: take them all, at the place of the best.
    const kept: Source[] = [];
    for (const source of sources) {
      if (!touches(source, merged)) kept.push(source);
      else {
        at = Math.min(at, kept.length);
        merged = join(source, merged);
      }
    }
    kept.splice(at, 0, merged);
    sources = kept;
  }
  return sources;
}

function touches(a: Source, b: Source): boolean {
  return a.root === b.root && a.path === b.path && a.start_line <= b.end_line + 1 && b.start_line <= a.end_line + 1;
}

function join(a: Source, b: Source): Source {
  return {
    root: a.root,
    path: a.path,
    start_line: Math.min(a.start_line, b.start_line),
    end_line: Math.max(a.end_line, b.end_line),
    weight: Math.min(1, a.weight + b.weight),
  };
}
