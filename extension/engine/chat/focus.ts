// Read and focus (design section 6): the segments that a request may read, their shares in the question's attention, and the view
// made of the best of them.

import type { ReadInput } from '../addon';
import type { Core } from '../core';
import type { HeadersInView } from '../model-folder';
import type { FileRecord, RootIndex, Segment } from '../root-index';
import { withCancel } from '../cancel';

export interface MemorySegment {
  readonly record: FileRecord;
  readonly segment: Segment;
  readonly handle: number;
}

export interface RankedSegment extends MemorySegment {
  /** 0 … 1, all of them together 1. */
  readonly share: number;
}

export type Accepts = (file: { readonly root: string; readonly path: string }) => boolean;

/** All segments in memory that a request may read, in the order of roots and paths; equal ones of two roots count once. */
export function memorySegments(core: Core, roots: Iterable<RootIndex>, accepts: Accepts): MemorySegment[] {
  const list: MemorySegment[] = [];
  const seen = new Set<string>();
  for (const root of roots) {
    for (const record of root.records.values()) {
      // Most of a large workspace, perhaps.
      if (!record.current && !record.next) continue;
      if (!accepts({ root: root.dir, path: record.path })) continue;
      for (const segment of root.readable(record)) {
        const handle = core.memory.handleOf(segment.key);
        if (handle === undefined || seen.has(segment.key)) continue;
        seen.add(segment.key);
        list.push({ record, segment, handle });
      }
    }
  }
  return list;
}

/** Ranks segments by the attention of the tokens of `span` within `tail`; best first. */
export async function readShares(
  core: Core,
  segments: readonly MemorySegment[],
  turn: { readonly tokens: Int32Array; readonly span: readonly [number, number] },
  priority: NonNullable<ReadInput['priority']>,
  signal: AbortSignal,
): Promise<RankedSegment[]> {
  if (segments.length === 0 || turn.span[0] === turn.span[1]) return [];
  const { layer, heads } = core.model.sala.read;
  const job = core.native.read({
    tail: turn.tokens,
    span: turn.span,
    segments: Int32Array.from(segments, ({ handle }) => handle),
    layer,
    heads,
    startsFrom: core.model.sala.tail_starts_from,
    priority,
  });
  const shares = await withCancel(job, signal);
  return segments
    .map((segment, i) => ({ ...segment, share: shares[i] as number }))
    .sort((a, b) => b.share - a.share);
}

/** Without these, among which attention went to no evidence; but where nothing else is left, they stay. */
export function withoutSegments(ranked: readonly RankedSegment[], left: ReadonlySet<RankedSegment>): readonly RankedSegment[] {
  const kept = ranked.filter((segment) => !left.has(segment));
  const share = kept.reduce((sum, segment) => sum + segment.share, 0);
  if (left.size === 0 || kept.length === 0 || share === 0) return ranked;
  return kept.map((segment) => ({ ...segment, share: segment.share / share }));
}

/** The view of the best segments, and how many leading tokens of each are hidden. */
export function focusOn(ranked: readonly MemorySegment[], headers: HeadersInView): { view: Int32Array; hidden: Int32Array } {
  const first = ranked[0]?.record;
  return {
    view: Int32Array.from(ranked, ({ handle }) => handle),
    hidden: Int32Array.from(ranked, ({ record, segment }) => (headers === 'shown' || record === first ? 0 : segment.headerTokens)),
  };
}
