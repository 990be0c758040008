// "Read or leave out": what one click on a file or folder changes in the include and exclude globs of its root. The same click takes
// it back. Pure; paths are relative to the root, with '/'.

import type { FileCoverage } from '../engine/messages';

export interface Globs {
  readonly include: readonly string[];
  readonly exclude: readonly string[];
}

export type Choice =
  | { readonly done: 'left_out' | 'brought_in' | 'taken_back'; readonly globs: Globs }
  /** The rule behind it is none that a glob can change. */
  | { readonly done: 'refused' };

/** Left out by these, a path cannot be brought in. */
const fixedFolders = /^built in: (?:our own store|\.git|\.hg|\.svn|\.jj|\.sl|\.bzr|_darcs|CVS)$/;

/** `coverage`: what is known of the path, null of a folder that is read or of a file that nobody has seen yet. */
export function choose({ include, exclude }: Globs, path: string, coverage: FileCoverage | null): Choice {
  const glob = globOf(path);
  const without = (globs: readonly string[]): readonly string[] => globs.filter((other) => other !== glob);
  if (exclude.includes(glob)) return { done: 'taken_back', globs: { include, exclude: without(exclude) } };
  if (include.includes(glob)) return { done: 'taken_back', globs: { include: without(include), exclude } };
  if (coverage?.state !== 'excluded') return { done: 'left_out', globs: { include, exclude: [...exclude, glob] } };
  if (coverage.rule !== 'ignored' || fixedFolders.test(coverage.detail ?? '')) return { done: 'refused' };
  return { done: 'brought_in', globs: { include: [...include, glob], exclude } };
}

/** The glob that takes this very path, and if it is a folder, all below it. */
export function globOf(path: string): string {
  const literal = path.replace(/[\\*?[\]{}()!+@|^$#]/g, '\\$&');
  // White space at the end of a glob does not count.
  return `/${literal}${/\s$/.test(path) ? '/**' : ''}`;
}
