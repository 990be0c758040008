// The states of files and the rules that leave them out, in words: labels of the tree, badges of the explorer, and the answer to
// "why is this file not read?". Pure.

import type { ExclusionRule, FileCoverage, FileState } from '../engine/messages';
import { count } from '../texts';

/** In the order of what a user looks for. */
export const stateLabels: Record<FileState, string> = {
  in: 'In memory',
  reading: 'Being read',
  stale: 'Out of date',
  waiting: 'Waiting',
  over_budget: 'Over the budget',
  unreadable: 'Unreadable',
  excluded: 'Excluded',
};

export const ruleLabels: Record<ExclusionRule, string> = {
  ignored: 'By an ignore file',
  binary: 'Binary',
  not_utf8: 'Not UTF-8',
  too_large: 'Larger than 1 MB',
  generated: 'Generated',
  minified: 'Minified',
  lock_file: 'Lock files',
  secret: 'Secrets',
  special: 'No regular files',
  outside: 'Links out of the workspace',
  worktree: 'Worktrees of this repository',
  user: 'By your settings',
  volatile: 'Changing all the time',
};

const reasons: Record<ExclusionRule, string> = {
  ignored: 'an ignore rule leaves it out',
  binary: 'it is binary',
  not_utf8: 'it is not UTF-8',
  too_large: 'it is larger than 1 MB',
  generated: 'it is generated',
  minified: 'it is minified',
  lock_file: 'it is a lock file',
  secret: 'it may hold secrets',
  special: 'it is no regular file',
  outside: 'it is a link out of the workspace',
  worktree: 'it is a worktree of this repository',
  user: 'your settings leave it out',
  volatile: 'it changes all the time',
};

/** What a file's state means, in three lines. */
export function explain(coverage: FileCoverage): string {
  return `${coverage.path}\n${stateLine(coverage)}\n${coverage.state === 'excluded' ? 'Not read' : `${count(coverage.tokens)} tokens`}`;
}

function stateLine({ state, rule, detail }: FileCoverage): string {
  const why = rule === undefined ? '' : `: ${ruleLabels[rule].charAt(0).toLowerCase()}${ruleLabels[rule].slice(1)}`;
  return `${stateLabels[state]}${why}${detail === undefined ? '' : ` (${detail})`}`;
}

/** Whether a path is read, and if not, why, in a sentence. `coverage` may be that of the excluded folder that it lies in. */
export function whySentence(path: string, coverage: FileCoverage): string {
  const { state, rule, detail, tokens } = coverage;
  const note = detail === undefined ? '' : ` (${detail})`;
  switch (state) {
    case 'in':
      return `${path} is in memory: ${count(tokens)} tokens${note}.`;
    case 'stale':
      return `${path} has changed: an older version is in memory, and counts until it is read again.`;
    case 'reading':
      return `${path} is being read.`;
    case 'waiting':
      return `${path} waits to be read: about ${count(tokens)} tokens.`;
    case 'over_budget':
      return `${path} is over the budget: with about ${count(tokens)} tokens it does not fit into what may be in memory. A question that leads to it reads what it needs.`;
    case 'unreadable':
      return `${path} cannot be read${note}.`;
    case 'excluded':
      if (coverage.path !== path) return `${path} is not read: it lies in ${coverage.path}, and ${rule === undefined ? 'that is excluded' : reasons[rule]}${note}.`;
      return `${path} is not read: ${rule === undefined ? 'it is excluded' : reasons[rule]}${note}.`;
  }
}

export type BadgesShown = 'off' | 'exceptions' | 'all';

/** One character in the explorer; '' shows the sentence in the tooltip alone. */
const badges: Record<FileState, string> = { in: '', reading: '', waiting: '', stale: '~', over_budget: '+', unreadable: '!', excluded: '−' };
const allBadges: Record<FileState, string> = { ...badges, in: '•', reading: '◌', waiting: '◌' };

/** Of a path's own entry, or that of the excluded folder that it lies in, which then has the badge. */
export function badgeOf(path: string, coverage: FileCoverage, shown: BadgesShown): { readonly badge: string; readonly tooltip: string } {
  const line = stateLine(coverage);
  if (coverage.path !== path) return { badge: '', tooltip: `SALA: with ${coverage.path}: ${line}` };
  const size = coverage.state === 'in' ? `, ${count(coverage.tokens)} tokens` : '';
  return { badge: (shown === 'all' ? allBadges : badges)[coverage.state], tooltip: `SALA: ${line}${size}` };
}
