// The coverage of all files as a tree: root (if there are several) → state → rule (of what is excluded) → folders → files, each
// with its files and tokens added up. Pure; children are made when they are asked for, since a workspace may have 200,000 files.

import type { FileCoverage, FileState } from '../engine/messages';
import { files as filesText, shortCount } from '../texts';
import { ruleLabels, stateLabels } from './coverage-words';

export type CoverageNode =
  | { readonly kind: 'group'; readonly label: string; readonly description: string; readonly state: FileState | null; readonly files: readonly FileCoverage[]; readonly level: 'root' | 'state' | 'rule' }
  | { readonly kind: 'folder'; readonly label: string; readonly description: string; readonly prefix: string; readonly files: readonly FileCoverage[] }
  | { readonly kind: 'file'; readonly label: string; readonly description: string; readonly file: FileCoverage };

export function coverageTree(files: readonly FileCoverage[], rootNames: ReadonlyMap<string, string>): CoverageNode[] {
  if (rootNames.size <= 1) return byState(files);
  return [...rootNames].map(([root, name]) => {
    const own = files.filter((f) => f.root === root);
    return { kind: 'group', level: 'root', label: name, description: summary(own), state: null, files: own };
  });
}

export function childrenOf(node: CoverageNode): CoverageNode[] {
  if (node.kind === 'file') return [];
  if (node.kind === 'folder') return inFolder(node.files, node.prefix);
  if (node.level === 'root') return byState(node.files);
  if (node.level === 'state' && node.state === 'excluded') return byRule(node.files);
  return inFolder(node.files, '');
}

function byState(files: readonly FileCoverage[]): CoverageNode[] {
  const groups = groupBy(files, (f) => f.state);
  return (Object.keys(stateLabels) as FileState[]).flatMap((state) => {
    const own = groups.get(state);
    return own === undefined ? [] : [{ kind: 'group', level: 'state', label: stateLabels[state], description: summary(own), state, files: own }];
  });
}

function byRule(files: readonly FileCoverage[]): CoverageNode[] {
  const groups = groupBy(files, (f) => f.rule);
  return [...groups].map(([rule, own]) => ({
    kind: 'group',
    level: 'rule',
    label: rule === undefined ? 'Without a rule' : ruleLabels[rule],
    description: filesText(own.length),
    state: 'excluded',
    files: own,
  }));
}

/** Folders first. A folder that holds nothing but one folder is shown with it, as the explorer does. */
function inFolder(files: readonly FileCoverage[], prefix: string): CoverageNode[] {
  const folders = new Map<string, FileCoverage[]>();
  const here: CoverageNode[] = [];
  for (const file of files) {
    const rest = file.path.slice(prefix.length);
    const slash = rest.indexOf('/');
    if (slash === -1 || slash === rest.length - 1) here.push({ kind: 'file', label: rest, description: fileNote(file), file });
    else {
      const name = rest.slice(0, slash + 1);
      const list = folders.get(name);
      if (list === undefined) folders.set(name, [file]);
      else list.push(file);
    }
  }
  const nodes = [...folders].map(([name, own]): CoverageNode => {
    const whole = commonFolder(own, prefix + name);
    return { kind: 'folder', label: whole.slice(prefix.length, -1), description: summary(own), prefix: whole, files: own };
  });
  const byLabel = (a: CoverageNode, b: CoverageNode): number => (a.label < b.label ? -1 : 1);
  return [...nodes.sort(byLabel), ...here.sort(byLabel)];
}

function commonFolder(files: readonly FileCoverage[], folder: string): string {
  let common = folder;
  for (;;) {
    const rest = files[0]!.path.slice(common.length);
    const slash = rest.indexOf('/');
    if (slash === -1 || slash === rest.length - 1) return common;
    const deeper = common + rest.slice(0, slash + 1);
    if (!files.every((f) => f.path.startsWith(deeper))) return common;
    common = deeper;
  }
}

function summary(files: readonly FileCoverage[]): string {
  const tokens = files.reduce((sum, f) => sum + f.tokens, 0);
  return tokens === 0 ? filesText(files.length) : `${filesText(files.length)}, ${shortCount(tokens)} tokens`;
}

function fileNote({ state, rule, detail, tokens }: FileCoverage): string {
  if (state === 'excluded') return detail ?? rule ?? '';
  if (state === 'unreadable') return detail ?? '';
  return `${shortCount(tokens)} tokens`;
}

function groupBy<T, K>(items: readonly T[], keyOf: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item));
    if (group === undefined) groups.set(keyOf(item), [item]);
    else group.push(item);
  }
  return groups;
}
