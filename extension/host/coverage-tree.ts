// The levels of the coverage tree (engine/coverage-tree.ts) in words: labels and descriptions of its rows, in the order in which they
// are shown. Pure.

import type { CoverageLevel, CoverageNode as Row, CoveragePlace, FileCoverage, FileState } from '../engine/messages';
import { files as filesText, shortCount } from '../texts';
import { ruleLabels, stateLabels } from './coverage-words';

export type CoverageNode =
  | { readonly kind: 'group'; readonly label: string; readonly description: string; readonly place: CoveragePlace; readonly level: 'root' | 'state' | 'rule' }
  | { readonly kind: 'folder'; readonly label: string; readonly description: string; readonly place: CoveragePlace }
  | { readonly kind: 'file'; readonly label: string; readonly description: string; readonly file: FileCoverage }
  /** What a level holds beside its rows. */
  | { readonly kind: 'more'; readonly label: string; readonly description: string };

/** `place`: where the level stands; `rootNames`: of the window's folders, by root. */
export function nodesOf({ nodes, more }: CoverageLevel, place: CoveragePlace, rootNames: ReadonlyMap<string, string>): CoverageNode[] {
  const prefix = place.folder === undefined ? '' : `${place.folder}/`;
  const shown = nodes.map((row) => nodeOf(row, place, prefix, rootNames));
  if (nodes.some(({ kind }) => kind === 'group')) shown.sort((a, b) => rankOf(a, rootNames) - rankOf(b, rootNames));
  return more === 0 ? shown : [...shown, { kind: 'more', label: `${filesText(more)} or folders more`, description: 'not shown' }];
}

function nodeOf(row: Row, level: CoveragePlace, prefix: string, rootNames: ReadonlyMap<string, string>): CoverageNode {
  if (row.kind === 'file') return { kind: 'file', label: row.file.path.slice(prefix.length), description: fileNote(row.file), file: row.file };
  const { place } = row;
  if (row.kind === 'folder') return { kind: 'folder', label: (place.folder ?? '').slice(prefix.length), description: summary(row), place };
  if (place.rule !== undefined) return { kind: 'group', level: 'rule', label: ruleLabels[place.rule], description: filesText(row.files), place };
  if (place.state !== undefined) return { kind: 'group', level: 'state', label: stateLabels[place.state], description: summary(row), place };
  const root = place.root ?? level.root ?? '';
  return { kind: 'group', level: 'root', label: rootNames.get(root) ?? root, description: summary(row), place };
}

const stateOrder = Object.keys(stateLabels) as FileState[];

/** Roots as the window has them, states in the order of what a user looks for; rules stay as they come. */
function rankOf(node: CoverageNode, rootNames: ReadonlyMap<string, string>): number {
  if (node.kind !== 'group') return 0;
  if (node.level === 'root') return [...rootNames.keys()].indexOf(node.place.root ?? '');
  return node.level === 'state' && node.place.state !== undefined ? stateOrder.indexOf(node.place.state) : 0;
}

function summary({ files, tokens }: { readonly files: number; readonly tokens: number }): string {
  return tokens === 0 ? filesText(files) : `${filesText(files)}, ${shortCount(tokens)} tokens`;
}

function fileNote({ state, rule, detail, tokens }: FileCoverage): string {
  if (state === 'excluded') return detail ?? rule ?? '';
  if (state === 'unreadable') return detail ?? '';
  return `${shortCount(tokens)} tokens`;
}
