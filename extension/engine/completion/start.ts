// How a completion may begin. A small model forgets now and then that it stands within a line and begins a new one, or takes the
// wrong depth: so the first token is the best one that the place allows, and indentation that is known is not left to it. Pure.

import type { Place } from './place';

/** More refused tokens than this, and the model has nothing to say that fits. */
const mostRefused = 64;

/**
 * The indentation of a blank line, where the block leaves no choice: what the model's text begins with. Without its last
 * character, which tokenizers join to the word behind it.
 */
export function knownStart(place: Place): string {
  const depth = knownDepth(place);
  return depth === null ? '' : place.unit.repeat(depth).slice(0, -1);
}

function knownDepth({ blank, chosen, least, most }: Place): number | null {
  if (!blank) return null;
  return chosen ?? (least === most ? most : null);
}

/** Whether the first token may read so; '' is that of a special token, the model's own end. */
export function mayBegin(place: Place, text: string): boolean {
  const { blank, before, after, colonBlocks } = place;
  const opensComment = (colonBlocks ? /^\s*#/ : /^\s*(?:\/\/|\/\*)/).test(text);
  if (isUnfinished(place)) {
    // A statement that is plainly not over is no place for the model's own end; a new line goes on only with a list or a call. Nor is
    // it one for a comment, which is left open as often as not, and then nothing of it is kept.
    if (text === '' || opensComment || (/^\s*\n/.test(text) && !/(?:[([,]|=>)\s*$/.test(before))) return false;
  }
  if (blank) return knownDepth(place) === null || !/^(?:[ \t]{2}|\s*\n)/.test(text);
  // Indentation within a line.
  if (/^[ \t]{2}/.test(text)) return false;
  if (/\s$/.test(before) && before.trim() !== '' && /^[ \t]/.test(text)) return false;
  // It would take in what stands behind the cursor.
  return after.trim() === '' || !opensComment;
}

/** An operator, an opening bracket or a word stands in front that nothing but more text can follow. */
function isUnfinished({ blank, before, after, singleLine }: Place): boolean {
  if (blank || singleLine || after.trim() !== '') return false;
  return /(?:[=+*&|,([<.]|=>|[^-]-|\b(?:await|new|const|let|var|typeof|throw|in|of|import|from|not|and|or))\s*$/.test(before);
}

/** The best id that may begin; undefined if that is the best of all (nothing has to be done), null if none of the best may. */
export function bestStart(logits: Float32Array, accepts: (id: number) => boolean): number | undefined | null {
  const refused = new Set<number>();
  while (refused.size <= mostRefused) {
    let best = -1;
    for (let id = 0; id < logits.length; id++) if (!refused.has(id) && (best < 0 || logits[id]! > logits[best]!)) best = id;
    if (best < 0) return null;
    if (accepts(best)) return refused.size === 0 ? undefined : best;
    refused.add(best);
  }
  return null;
}
