// One level of the tree of all files by what became of them: root (if there are several) → state → rule (of what is excluded) →
// folders → files, each with its files and tokens added up. A level at a time and of bounded size, since a workspace may have
// 200,000 files. Pure; words for it are the client's.

import type { CoverageLevel, CoverageNode, CoveragePlace, ExclusionRule, FileCoverage, FileState } from './messages';
import { comparePaths } from './workspace/walk';

/** What stands behind these is counted alone. */
export const mostNodes = 1000;

interface Sum {
  files: number;
  tokens: number;
}

interface FolderSum extends Sum {
  /** The whole path of the innermost folder that all of its files lie in, with '/' behind it. */
  common: string;
}

/** `nRoots`: with a single one its states are the top. */
export class CoverageLevelSum {
  private readonly roots = new Map<string, Sum>();
  private readonly states = new Map<FileState, Sum>();
  private readonly rules = new Map<ExclusionRule, Sum>();
  private readonly folders = new Map<string, FolderSum>();
  /** The first ones by path, as many as may be shown; now and then more of them. */
  private readonly here: FileCoverage[] = [];
  private nHere = 0;
  private readonly prefix: string;

  constructor(
    private readonly place: CoveragePlace,
    private readonly nRoots: number,
  ) {
    this.prefix = place.folder === undefined || place.folder === '' ? '' : `${place.folder}/`;
  }

  add(file: FileCoverage): void {
    const { root, state, rule } = this.place;
    if (root !== undefined && file.root !== root) return;
    if (!file.path.startsWith(this.prefix)) return;
    if (root === undefined && this.nRoots > 1) return addTo(this.roots, file.root, file);
    if (state === undefined) return addTo(this.states, file.state, file);
    if (file.state !== state) return;
    if (state === 'excluded' && rule === undefined && file.rule !== undefined) return addTo(this.rules, file.rule, file);
    if (rule === undefined || file.rule === rule) this.addToFolder(file);
  }

  private addToFolder(file: FileCoverage): void {
    const slash = file.path.indexOf('/', this.prefix.length);
    if (slash === -1 || slash === file.path.length - 1) {
      this.nHere++;
      this.here.push(file);
      // So that a folder of 200,000 files is not sorted in one go.
      if (this.here.length >= 2 * mostNodes) this.keepFirst();
      return;
    }
    const top = file.path.slice(0, slash + 1);
    const sum = this.folders.get(top);
    if (sum) {
      sum.files++;
      sum.tokens += file.tokens;
      while (!file.path.startsWith(sum.common) || file.path.length === sum.common.length) sum.common = parentOf(sum.common);
    } else {
      const last = file.path.lastIndexOf('/', file.path.length - 2);
      this.folders.set(top, { files: 1, tokens: file.tokens, common: file.path.slice(0, last + 1) });
    }
  }

  private keepFirst(): void {
    this.here.sort((a, b) => comparePaths(a.path, b.path)).splice(mostNodes);
  }

  level(): CoverageLevel {
    const { place } = this;
    this.keepFirst();
    const groups = <K>(sums: ReadonlyMap<K, Sum>, placeOf: (key: K) => CoveragePlace): CoverageNode[] =>
      [...sums].map(([key, { files, tokens }]) => ({ kind: 'group', place: placeOf(key), files, tokens }));
    // Folders first. One that holds nothing but one folder is shown with it, as the explorer does.
    const folders = [...this.folders.values()].sort((a, b) => comparePaths(a.common, b.common));
    const nodes: CoverageNode[] = [
      ...groups(this.roots, (root) => ({ ...place, root })),
      ...groups(this.states, (state) => ({ ...place, state })),
      ...groups(this.rules, (rule) => ({ ...place, rule })),
      ...folders.map(({ common, files, tokens }): CoverageNode => ({ kind: 'folder', place: { ...place, folder: common.slice(0, -1) }, files, tokens })),
      ...this.here.map((file): CoverageNode => ({ kind: 'file', file })),
    ];
    const n = nodes.length - this.here.length + this.nHere;
    return { nodes: nodes.slice(0, mostNodes), more: Math.max(0, n - mostNodes) };
  }
}

function addTo<K>(sums: Map<K, Sum>, key: K, { tokens }: FileCoverage): void {
  const sum = sums.get(key);
  if (sum) {
    sum.files++;
    sum.tokens += tokens;
  } else sums.set(key, { files: 1, tokens });
}

/** `a/b/` → `a/`. */
function parentOf(folder: string): string {
  return folder.slice(0, folder.lastIndexOf('/', folder.length - 2) + 1);
}
