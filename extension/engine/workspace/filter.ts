// Which places of a workspace count: .gitignore as git reads it (each folder's own file, .git/info/exclude, nested repositories
// under their own), .salaignore in the same syntax above all of them, the user's globs, and linked worktrees. What a file *is*
// (secret, binary, …) is classify.ts's business. One filter serves one pass: it remembers the ignore files that it read, so a
// changed rule is seen by the next pass. Unlike git it does not ask the index: a tracked file that matches a rule is ignored.

import { constants } from 'node:fs';
import { access, readFile, realpath } from 'node:fs/promises';
import type { Dirent } from 'node:fs';
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';
import ignore, { type Ignore } from 'ignore';
import picomatch from 'picomatch';
import { EngineError } from '../errors';
import type { Root } from '../messages';
import type { Verdict } from './classify';
import { entriesOf } from './folder-entries';

export interface FilterSettings {
  /** Files and folders that match one of these enter although an ignore file, or a rule of ours about folders, leaves them out. */
  readonly include: readonly string[];
  /** Files and folders that match one of these stay out (rule `user`). */
  readonly exclude: readonly string[];
}

export const noSettings: FilterSettings = { include: [], exclude: [] };

export interface FilterOptions {
  /** Absolute path of the root folder. */
  readonly root: string;
  readonly settings?: FilterSettings;
  /** Absolute paths that are ours, such as a store inside the workspace: never read, never watched. */
  readonly ownPaths?: readonly string[];
}

// ---- globs ------------------------------------------------------------------------------------------------------------------

/**
 * Compiles globs over paths within a root; the result names the first glob that takes a path, or undefined. A glob that takes
 * a folder takes all below it (`src/net`, `src/net/` and `src/net/**` are the same), and one without a slash takes that
 * name anywhere (`*.sql`; `/a.sql` is that of the root alone). One of them may be excepted. Serves settings and `--scope` alike.
 */
export function compileGlobs(globs: readonly string[]): (path: string, except?: string) => string | undefined {
  const options = { dot: true, nocase: process.platform === 'win32' };
  const matchers = globs.map((glob) => {
    let pattern = patternOf(glob);
    if (pattern === '' || pattern === '**') return { glob, matches: () => true };
    if (!isAnchored(glob, pattern)) pattern = `**/${pattern}`;
    return { glob, matches: picomatch([pattern, `${pattern}/**`], options) };
  });
  return (path, except) => matchers.find(({ glob, matches }) => glob !== except && matches(path))?.glob;
}

function patternOf(glob: string): string {
  return glob.trim().replace(/^(?:\.?\/)+/, '').replace(/\/+$/, '').replace(/(?:\/\*\*)+$/, '');
}

function isAnchored(glob: string, pattern: string): boolean {
  return pattern.includes('/') || glob.trim().startsWith('/');
}

/**
 * Whether files that an include glob takes may lie in a folder that stays out itself, so that it is walked for them. Only of globs
 * that begin with the name of a folder: for `*.sql` every installed package would be walked.
 */
function compileIncludeFolders(globs: readonly string[]): (folder: string, except: string | undefined) => boolean {
  const bases = globs.flatMap((glob) => {
    const pattern = patternOf(glob);
    const base = isAnchored(glob, pattern) ? picomatch.scan(pattern).base.replace(/\\(.)/g, '$1') : '';
    return base === '' ? [] : [{ glob, base }];
  });
  return (folder, except) => bases.some(({ glob, base }) => glob !== except && (isWithin(base, folder) || isWithin(folder, base)));
}

/** `path` is `folder` or lies below it; both with '/', relative to the same root. */
export function isWithin(path: string, folder: string): boolean {
  return folder === '' || path === folder || path.startsWith(`${folder}/`);
}

// ---- ignore files -----------------------------------------------------------------------------------------------------------

const ignorecase = process.platform === 'win32' || process.platform === 'darwin';

/**
 * git matches bytes: `?` and `[!a]` take one byte of a character that has several. Strings of one unit per byte give the same;
 * where case does not count they would fold bytes as if they were letters.
 */
function asBytes(text: string): string {
  return ignorecase || /^[\0-\x7f]*$/.test(text) ? text : Buffer.from(text, 'utf8').toString('latin1');
}

type Match = { readonly ignored: boolean; readonly detail: string };

/** One ignore file, or a part of it seen from a folder that a later rule brought back in. */
class IgnoreFile {
  private constructor(
    /** How it is shown: its path from the root. */
    private readonly label: string,
    /** Path from the ignore file's folder to the root ('' or 'a/b/') where it lies above, … */
    private readonly above: string,
    /** … or the length of the path from the root to its folder where it lies below. */
    private readonly skip: number,
    private readonly lines: readonly string[],
    private readonly matcher: Ignore,
  ) {}

  static parse(label: string, above: string, folder: string, text: string): IgnoreFile {
    const lines = text.replace(/^\ufeff/, '').split(/\r?\n/);
    const matcher = ignore({ ignorecase }).add(lines.map((pattern, index) => ({ pattern: asBytes(pattern), mark: String(index + 1) })));
    return new IgnoreFile(label, above, folder === '' ? 0 : folder.length + 1, lines, matcher);
  }

  /** What the last matching line says of this very path (folders end in '/'), or undefined. */
  match(path: string): Match | undefined {
    const own = asBytes(this.above + path.slice(this.skip));
    const result = this.matcher.test(own);
    if (result.ignored) return { ignored: true, detail: this.describe(Number(result.rule?.mark)) };
    return result.unignored ? { ignored: false, detail: this.describe(this.negationOf(own)) } : undefined;
  }

  /**
   * The same rules for what lies below a folder that these rules ignore and others brought back. `ignore` answers for a path
   * as git does for a whole tree – below an ignored folder all is ignored – while the walk has decided about the folder
   * already; taking it back as a last rule leaves just the rules that match the path itself.
   */
  enter(folder: string): IgnoreFile {
    const own = asBytes(this.above + folder.slice(this.skip));
    if (!this.matcher.test(`${own}/`).ignored) return this;
    const literal = own.replace(/[\\*?[\]]/g, '\\$&');
    const matcher = ignore({ ignorecase }).add(this.matcher).add([`!/${literal}/`]);
    return new IgnoreFile(this.label, this.above, this.skip, this.lines, matcher);
  }

  private describe(line: number): string {
    return line > 0 ? `${this.label}:${line}: ${this.lines[line - 1]}` : this.label;
  }

  /** `ignore` does not name the rule that brought a path in: the last negation whose pattern takes it. */
  private negationOf(own: string): number {
    for (let index = this.lines.length - 1; index >= 0; index--) {
      const line = this.lines[index] ?? '';
      if (line.startsWith('!') && ignore({ ignorecase }).add([asBytes(line.slice(1))]).ignores(own)) return index + 1;
    }
    return 0;
  }
}

function firstMatch(files: readonly IgnoreFile[], path: string): Match | undefined {
  for (const file of files) {
    const match = file.match(path);
    if (match) return match;
  }
  return undefined;
}

/**
 * What a changed path may change beyond itself: the folder whose rules a file holds (an ignore file, a mark of what the folder is),
 * '' where a repository begins or ends, which may make another place its second checkout. Else the path.
 */
export function reachOf(path: string): string {
  const slash = path.lastIndexOf('/');
  const name = path.slice(slash + 1);
  if (name === '.git' || `/${path}`.endsWith('/.git/info/exclude')) return '';
  return rulesFiles.has(name) ? path.slice(0, Math.max(slash, 0)) : path;
}

const rulesFiles = new Set(['.gitignore', '.salaignore', 'CACHEDIR.TAG', 'pyvenv.cfg']);

// ---- what is never walked ------------------------------------------------------------------------------------------------------

/** A version control system's own files: not even .salaignore brings them in. */
const versionControl = new Set(['.git', '.hg', '.svn', '.jj', '.sl', '.bzr', '_darcs', 'CVS']);
/** Installed packages and caches, which repositories ignore when they have an ignore file at all. */
const installed = new Set(
  (
    'node_modules bower_components jspm_packages .yarn .pnpm-store __pycache__ .mypy_cache .pytest_cache .ruff_cache .tox .nox ' +
    '.eggs .ipynb_checkpoints .gradle .m2 .bundle .terraform .dart_tool .next .nuxt .svelte-kit .parcel-cache .turbo .cache ' +
    '.vscode-test .idea .vs DerivedData .ccls-cache .clangd .Trash .local'
  ).split(' '),
);
const installedFiles = new Set(['.DS_Store', 'Thumbs.db', 'desktop.ini']);

function builtInRule(name: string, isFolder: boolean): string | undefined {
  if (isFolder ? installed.has(name) : installedFiles.has(name)) return `built in: ${name}`;
  return undefined;
}

/** Folders that tell by their content that they hold nothing of the user's. */
async function builtInContent(absolute: string, entries: readonly Dirent[]): Promise<string | undefined> {
  for (const entry of entries) {
    if (entry.name === 'pyvenv.cfg') return 'built in: a Python environment';
    // https://bford.info/cachedir/: the tag counts only with its signature.
    if (entry.name !== 'CACHEDIR.TAG' || !entry.isFile()) continue;
    const tag = await readOptional(join(absolute, entry.name));
    if (tag?.startsWith('Signature: 8a477f597d28d172789f06886806bc55')) return 'built in: a cache (CACHEDIR.TAG)';
  }
  return undefined;
}

// ---- repositories -------------------------------------------------------------------------------------------------------------

interface Repository {
  /** What all worktrees of one repository share: where objects, refs and info/exclude lie. */
  readonly commonDir: string;
  readonly linked: boolean;
}

/** The repository whose checkout a folder is, or undefined: `.git` as git reads it (gitrepository-layout(5)). */
async function repositoryAt(folder: string): Promise<Repository | undefined> {
  let gitDir = join(folder, '.git');
  const pointer = await readOptional(gitDir);
  if (pointer !== undefined) {
    const target = /^gitdir: (.+?)\s*$/m.exec(pointer)?.[1];
    if (target === undefined) return undefined;
    gitDir = resolve(folder, target);
  }
  if (!(await exists(join(gitDir, 'HEAD')))) return undefined;
  const common = await readOptional(join(gitDir, 'commondir'));
  const commonDir = await canonical(common === undefined ? gitDir : resolve(gitDir, common.trim()));
  return { commonDir, linked: common !== undefined };
}

function hasGit(entries: readonly Dirent[]): boolean {
  // Anything else of that name, a pipe say, must not even be opened.
  return entries.some((entry) => entry.name === '.git' && (entry.isDirectory() || entry.isFile() || entry.isSymbolicLink()));
}

/** A bare repository has no checkout of its own, so none of its worktrees is a second copy of one. */
async function isBare(commonDir: string): Promise<boolean> {
  return /^\s*bare\s*=\s*true\s*$/im.test((await readOptional(join(commonDir, 'config'))) ?? '');
}

// ---- the filter -----------------------------------------------------------------------------------------------------------------

/** What the rules say about one entry of a folder. */
export interface Decision {
  readonly verdict?: Verdict;
  /** The .salaignore rule or include glob that brought it in. */
  readonly broughtIn?: string;
  /** The include glob that brought in the entry, or a folder around it. */
  readonly include?: string;
  /** A folder that stays out, and is walked for what an include glob brings in from it. */
  readonly barred?: Verdict;
}

/** So many entries of a folder are looked for one by one. */
const searchedFor = 8;

/** A folder that is walked: its entries and the rules that hold in it. */
export class Folder {
  private byName: ReadonlyMap<string, Dirent> | undefined;
  private asked = 0;

  constructor(
    private readonly filter: WorkspaceFilter,
    /** Within the root, '' for the root itself. */
    readonly path: string,
    readonly entries: readonly Dirent[],
    /** Deepest first. */
    readonly gitFiles: readonly IgnoreFile[],
    readonly salaFiles: readonly IgnoreFile[],
    /** Common directories of the checkouts that this folder lies in. */
    readonly checkouts: readonly string[],
    /** What the folder's own entry was decided to be. */
    private readonly own: Decision,
  ) {}

  pathOf(name: string): string {
    return this.path === '' ? name : `${this.path}/${name}`;
  }

  entryOf(name: string): Dirent | undefined {
    // A map of very many takes as long as looking for some of them.
    if (!this.byName && this.asked++ < searchedFor) return this.entries.find((entry) => entry.name === name);
    this.byName ??= new Map(this.entries.map((entry) => [entry.name, entry]));
    return this.byName.get(name);
  }

  decide(name: string, isFolder: boolean): Decision {
    const path = this.pathOf(name);
    if (versionControl.has(name)) return ignored(`built in: ${name}`);
    if (this.filter.isOwn(path)) return ignored('built in: our own store');
    const exclude = this.filter.excludeGlob(path);
    if (exclude !== undefined) return { verdict: { rule: 'user', detail: `exclude: ${exclude}` } };
    const decision = this.own.barred ? { verdict: this.own.barred } : this.byRules(path, name, isFolder);
    if (!decision.verdict) return decision;
    return this.filter.unlessIncluded(decision.verdict, path, isFolder, this.own.include);
  }

  /** By ignore files and our own list of folders. */
  private byRules(path: string, name: string, isFolder: boolean): Decision {
    const entry = isFolder ? `${path}/` : path;
    const sala = firstMatch(this.salaFiles, entry);
    if (sala?.ignored) return ignored(sala.detail);
    if (!sala) {
      const builtIn = builtInRule(name, isFolder);
      if (builtIn !== undefined) return ignored(builtIn);
      const git = firstMatch(this.gitFiles, entry);
      if (git?.ignored) return ignored(git.detail);
    }
    // A negation that takes back a rule of .salaignore itself, or nothing, brings in what would be in anyway.
    const rescued = sala && (builtInRule(name, isFolder) ?? firstMatch(this.gitFiles, entry)?.ignored) ? sala.detail : undefined;
    const broughtIn = rescued ?? this.own.broughtIn;
    const { include } = this.own;
    return { ...(broughtIn !== undefined && { broughtIn }), ...(include !== undefined && { include }) };
  }
}

function ignored(detail: string): Decision {
  return { verdict: { rule: 'ignored', detail } };
}

/** A folder that stays out, with the reason. */
export interface Barred {
  readonly path: string;
  readonly verdict: Verdict;
}

export class WorkspaceFilter {
  readonly excludeGlob: (path: string) => string | undefined;
  private readonly includeGlob: (path: string, except?: string) => string | undefined;
  private readonly holdsIncluded: (folder: string, except: string | undefined) => boolean;
  private readonly ownPaths: readonly string[];
  private readonly descended = new Map<string, Promise<Folder | Barred>>();

  private constructor(
    /** Absolute, links resolved. */
    readonly root: string,
    options: FilterOptions,
  ) {
    const settings = options.settings ?? noSettings;
    this.excludeGlob = compileGlobs(settings.exclude);
    this.includeGlob = compileGlobs(settings.include);
    this.holdsIncluded = compileIncludeFolders(settings.include);
    this.ownPaths = (options.ownPaths ?? []).map((path) => this.relative(path)).filter((path) => path !== undefined);
  }

  /**
   * What becomes of a path that a rule leaves out. A folder that was brought in keeps the rules that hold within it: its glob,
   * `outer`, counts no second time.
   */
  unlessIncluded(verdict: Verdict, path: string, isFolder: boolean, outer: string | undefined): Decision {
    const include = this.includeGlob(path, outer);
    if (include !== undefined) return { include, broughtIn: `include: ${include}` };
    if (!isFolder || !this.holdsIncluded(path, outer)) return { verdict };
    return { barred: verdict, ...(outer !== undefined && { include: outer }) };
  }

  /** Throws `not_a_workspace` where the root is no folder that can be read. */
  static async open(options: FilterOptions): Promise<WorkspaceFilter> {
    try {
      const ownPaths = await Promise.all((options.ownPaths ?? []).map(canonical));
      return new WorkspaceFilter(await realpath(options.root), { ...options, ownPaths });
    } catch (error) {
      throw notAWorkspace(options.root, error);
    }
  }

  /** Path within the root with '/', '' for the root itself, undefined for a path outside. */
  relative(absolute: string): string | undefined {
    const path = relative(this.root, absolute);
    if (path === '..' || path.startsWith(`..${sep}`) || isAbsolute(path)) return undefined;
    return sep === '/' ? path : path.replaceAll(sep, '/');
  }

  absolute(path: string): string {
    return path === '' ? this.root : join(this.root, path);
  }

  isOwn(path: string): boolean {
    return this.ownPaths.includes(path);
  }

  /** The root with its rules, those of a repository around it included. Throws `not_a_workspace`. */
  async openRoot(): Promise<Folder> {
    let entries: Dirent[];
    try {
      entries = await entriesOf(this.root);
    } catch (error) {
      throw notAWorkspace(this.root, error);
    }
    const own = hasGit(entries) ? await repositoryAt(this.root) : undefined;
    const around = own ? await this.checkout(own, '') : await this.enclosing();
    return this.fold('', entries, around.gitFiles, [], around.checkouts, {});
  }

  /**
   * Opens a folder whose entry its parent has decided to walk, or says why its content keeps it out. Throws what reading the
   * folder throws.
   */
  async enter(parent: Folder, name: string, decision: Decision): Promise<Folder | Verdict> {
    const path = parent.pathOf(name);
    const absolute = this.absolute(path);
    const entries = await entriesOf(absolute);
    if (decision.broughtIn === undefined && !decision.barred) {
      const builtIn = await builtInContent(absolute, entries);
      if (builtIn !== undefined) decision = this.unlessIncluded({ rule: 'ignored', detail: builtIn }, path, true, decision.include);
      if (decision.verdict) return decision.verdict;
    }
    const salaFiles = parent.salaFiles.map((file) => file.enter(path));
    const nested = hasGit(entries) ? await repositoryAt(absolute) : undefined;
    if (!nested) {
      const gitFiles = parent.gitFiles.map((file) => file.enter(path));
      return this.fold(path, entries, gitFiles, salaFiles, parent.checkouts, decision);
    }
    if (nested.linked && (await this.isSecondCheckout(nested, parent))) {
      return { rule: 'worktree', detail: 'worktree of this repository' };
    }
    const { gitFiles, checkouts } = await this.checkout(nested, path);
    return this.fold(path, entries, gitFiles, salaFiles, [...parent.checkouts, ...checkouts], decision);
  }

  /** The folder at `path` – or the first one on the way down to it that stays out. Remembered, since changes come in groups. */
  descend(path: string): Promise<Folder | Barred> {
    let folder = this.descended.get(path);
    if (!folder) {
      folder = path === '' ? this.openRoot() : this.descendFrom(path);
      this.descended.set(path, folder);
    }
    return folder;
  }

  private async descendFrom(path: string): Promise<Folder | Barred> {
    const slash = path.lastIndexOf('/');
    const name = path.slice(slash + 1);
    const parent = await this.descend(path.slice(0, Math.max(slash, 0)));
    if (!(parent instanceof Folder)) return parent;
    const decision = parent.decide(name, true);
    const next = decision.verdict ?? (await this.enter(parent, name, decision));
    return next instanceof Folder ? next : { path, verdict: next };
  }

  /** Adds the folder's own ignore files in front. A link is not followed, as git does not. */
  private async fold(
    path: string,
    entries: readonly Dirent[],
    gitFiles: readonly IgnoreFile[],
    salaFiles: readonly IgnoreFile[],
    checkouts: readonly string[],
    decision: Decision,
  ): Promise<Folder> {
    const own = async (name: string, above: readonly IgnoreFile[]): Promise<readonly IgnoreFile[]> => {
      if (!entries.some((entry) => entry.name === name && entry.isFile())) return above;
      const label = path === '' ? name : `${path}/${name}`;
      const text = await readOptional(this.absolute(label));
      return text === undefined ? above : [IgnoreFile.parse(label, '', path, text), ...above];
    };
    return new Folder(this, path, entries, await own('.gitignore', gitFiles), await own('.salaignore', salaFiles), checkouts, decision);
  }

  private async checkout(repository: Repository, path: string): Promise<{ gitFiles: IgnoreFile[]; checkouts: string[] }> {
    const file = join(repository.commonDir, 'info', 'exclude');
    const text = await readOptional(file);
    return {
      gitFiles: text === undefined ? [] : [IgnoreFile.parse(this.label(file), '', path, text)],
      checkouts: (await isBare(repository.commonDir)) && !repository.linked ? [] : [repository.commonDir],
    };
  }

  /** The same repository is checked out around the folder, or at its own home elsewhere in the root. */
  private async isSecondCheckout(repository: Repository, parent: Folder): Promise<boolean> {
    if (parent.checkouts.includes(repository.commonDir)) return true;
    const home = dirname(repository.commonDir);
    return basename(repository.commonDir) === '.git' && this.relative(home) !== undefined && !(await isBare(repository.commonDir));
  }

  /**
   * Rules of the repository that the root is a folder of, from the root's parent up. Where they ignore the root itself, its
   * owner has opened it all the same, and they say nothing about what is in it.
   */
  private async enclosing(): Promise<{ gitFiles: IgnoreFile[]; checkouts: string[] }> {
    const none = { gitFiles: [], checkouts: [] };
    const above: string[] = [];
    let repository: Repository | undefined;
    for (let folder = dirname(this.root); !repository; folder = dirname(folder)) {
      above.push(folder);
      repository = await repositoryAt(folder);
      if (!repository && dirname(folder) === folder) return none;
    }
    const gitFiles: IgnoreFile[] = [];
    for (const folder of above) {
      const text = await readOptional(join(folder, '.gitignore'));
      if (text !== undefined) gitFiles.push(IgnoreFile.parse(this.label(join(folder, '.gitignore')), this.from(folder), '', text));
    }
    const top = above[above.length - 1] ?? this.root;
    const exclude = join(repository.commonDir, 'info', 'exclude');
    const text = await readOptional(exclude);
    if (text !== undefined) gitFiles.push(IgnoreFile.parse(this.label(exclude), this.from(top), '', text));
    // '' stands for the root itself; a file's own rules answer for its parent folders too.
    if (gitFiles.some((file) => file.match('')?.ignored)) return none;
    return { gitFiles, checkouts: [repository.commonDir] };
  }

  /** 'a/b/': the way from a folder above down to the root. */
  private from(above: string): string {
    return `${relative(above, this.root).replaceAll(sep, '/')}/`;
  }

  private label(absolute: string): string {
    return relative(this.root, absolute).replaceAll(sep, '/');
  }
}

// ---- roots ------------------------------------------------------------------------------------------------------------------------

/**
 * Each file counts once: a root that is another one by another name (a link), or lies in a part of another that is walked, is
 * dropped; one that lies in an excluded part (a linked worktree, an ignored folder) stays a root of its own. The outer root
 * stays because a path within its root is part of what is encoded: opening a folder of a workspace must not change it.
 * What a dropped root has globs for, the one that stays has them for. A root that cannot be read stays, so that its failure is
 * reported. The order of the others is kept; `path` becomes real.
 */
export async function dedupeRoots(roots: readonly Root[], settings: FilterSettings = noSettings): Promise<Root[]> {
  const real = await Promise.all(roots.map(async (root) => ({ ...root, path: await canonical(root.path) })));
  /** Each with those that it takes in. Their globs are not those by which that is decided: else it would depend on the order. */
  const kept = new Map<Root, Root[]>();
  for (const root of [...real].sort((a, b) => a.path.length - b.path.length)) {
    let isKept = true;
    for (const [outer, inner] of kept) {
      const path = await pathWithin(outer, root.path, settings);
      if (path === undefined) continue;
      inner.push({ ...root, path });
      isKept = false;
      break;
    }
    if (isKept) kept.set(root, []);
  }
  return real.flatMap((root) => {
    const inner = kept.get(root);
    return inner === undefined ? [] : [inner.reduce(withGlobsOf, root)];
  });
}

/** `inner.path` is that within the root. */
function withGlobsOf(root: Root, inner: Root): Root {
  const both = (own: readonly string[] = [], others: readonly string[] = []): string[] => [...new Set([...own, ...others.map((glob) => globBelow(glob, inner.path))])];
  return { ...root, include: both(root.include, inner.include), exclude: both(root.exclude, inner.exclude) };
}

/** Where in a root another one lies, if it lies in a part of it that is walked. */
async function pathWithin({ path: outer, include = [], exclude = [] }: Root, inner: string, settings: FilterSettings): Promise<string | undefined> {
  if (outer === inner) return '';
  if (!inner.startsWith(outer.endsWith(sep) ? outer : outer + sep)) return undefined;
  try {
    const own = { include: [...settings.include, ...include], exclude: [...settings.exclude, ...exclude] };
    const filter = await WorkspaceFilter.open({ root: outer, settings: own });
    const path = filter.relative(inner);
    return path !== undefined && (await filter.descend(path)) instanceof Folder ? path : undefined;
  } catch {
    // Neither is readable from here: each reports its own failure.
    return undefined;
  }
}

/** A glob of a folder, as a glob of the root that the folder lies in. */
function globBelow(glob: string, folder: string): string {
  if (folder === '') return glob;
  const pattern = patternOf(glob);
  const literal = folder.replace(/[\\*?[\]{}()!+@|^$#]/g, '\\$&');
  const below = pattern === '' || pattern === '**' ? '' : isAnchored(glob, pattern) ? `/${pattern}` : `/**/${pattern}`;
  // White space at the end of a glob does not count.
  return `/${literal}${below}${/\s$/.test(below || folder) ? '/**' : ''}`;
}

// ---- files ------------------------------------------------------------------------------------------------------------------------

function notAWorkspace(root: string, error: unknown): EngineError {
  const code = (error as NodeJS.ErrnoException).code ?? String(error);
  const found = code === 'ENOENT' ? 'it does not exist' : code === 'ENOTDIR' ? 'it is a file' : code;
  return new EngineError('not_a_workspace', `${root}: expected a folder that can be read, found: ${found}`, { cause: error });
}

/** The text of a small file of rules, or undefined where there is none that can be read. */
async function readOptional(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch {
    return undefined;
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path, constants.F_OK).then(
    () => true,
    () => false,
  );
}

async function canonical(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch {
    return resolve(path);
  }
}
