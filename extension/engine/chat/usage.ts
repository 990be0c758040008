// "Where is X used?": answered from the exact search, all places listed, in the order in which the question's attention ranks their
// files. A model that sees three segments cannot know them all. Pure.

import type { Source } from '../messages';
import type { Place } from '../workspace/search';

const listedPlaces = 60;

/** The identifier whose uses a question asks for, or undefined if it asks something else. */
export function usageQuestion(question: string, identifiers: readonly string[]): string | undefined {
  if (identifiers.length !== 1) return undefined;
  const asksUse =
    (/\b(used|called|referenced|imported|invoked|instantiated|usages?|callers?|references|call sites?)\b/i.test(question) &&
      /\b(where|who|which|what|list|find|show|all|every)\b/i.test(question)) ||
    /\b(who|what|which \w+)\s+(calls|uses|imports|invokes|references)\b/i.test(question);
  // "What is X used for" asks for its purpose.
  return asksUse && !/\bused (for|to)\b|\bhow\b|\bdefined\b/i.test(question) ? identifiers[0] : undefined;
}

/** `complete`: all files were searched; where not, it is said beside the answer of how many. */
export function usageAnswer(word: string, places: readonly Place[], sources: readonly Source[], complete = true): string {
  if (places.length === 0) return complete ? `\`${word}\` is used nowhere in this workspace.` : `\`${word}\` was not found so far.`;
  const order = new Map(sources.map(({ root, path }, i) => [`${root}\0${path}`, i]));
  const byFile = new Map<string, Place[]>();
  for (const place of places) {
    const key = `${place.root}\0${place.path}`;
    byFile.set(key, [...(byFile.get(key) ?? []), place]);
  }
  const files = [...byFile].sort(([a], [b]) => (order.get(a) ?? Infinity) - (order.get(b) ?? Infinity) || (a < b ? -1 : 1));
  const lines: string[] = [];
  let listed = 0;
  for (const [, found] of files) {
    if (listed >= listedPlaces) break;
    const shown = found.slice(0, listedPlaces - listed);
    listed += shown.length;
    const excluded = found[0]?.rule === undefined ? '' : ` (not read: ${found[0].rule})`;
    lines.push(`- \`${found[0]?.path}\`: ${shown.length === 1 ? 'line' : 'lines'} ${shown.map(({ line }) => line).join(', ')}${excluded}`);
  }
  const rest = places.length > listed ? `\n- and ${places.length - listed} more places` : '';
  const n = (count: number, one: string): string => `${count} ${one}${count === 1 ? '' : 's'}`;
  return `\`${word}\` occurs in ${n(places.length, 'place')} in ${n(byFile.size, 'file')}${complete ? '' : ' so far'}:\n\n${lines.join('\n')}${rest}`;
}
