// A workspace on disk that random edits change as users and their tools do. Every edit returns the paths that a watcher would tell.

import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, linkSync, lstatSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Random } from './random';

/** Files at most: what is compared after every batch is read anew from the beginning. */
const mostFiles = 24;
const mostLines = 160;
const names = ['main', 'ring', 'frame', 'queue', 'with space', 'ünïcode', 'new\nline', '"quoted"', '日本', '-dash', 'a%20b', 'back\\slash'];
const extensions = ['.ts', '.ts', '.py', '.c', '.md', '.txt', '.json', '.ipynb', ''];
const folders = ['', 'src', 'src/net', 'lib', 'docs', 'src/deep/er'];
const folderRules = ['*.ts', '!*.md', 'net/', 'er', '/main*', '!main.ts'];
const ignoreRules = ['lib/', '*.md', 'src/net/', '*.txt', '!keep.txt'];

/** Prints every edit: for what failed. */
const traced = process.env['SALA_TRACE'] !== undefined;

type Edit = (this: EditedWorkspace) => string[];

const mostEarlier = 60;

export class EditedWorkspace {
  /** What the files that were changed last had before, for edits that take one back. Bounded: memory is watched for hours beside it. */
  private readonly earlier = new Map<string, Buffer[]>();
  private readonly branches = ['main'];

  constructor(
    readonly dir: string,
    private readonly random: Random,
  ) {
    mkdirSync(dir, { recursive: true });
    this.git('init', '-q', '-b', 'main');
    for (let i = 0; i < 10; i++) this.create();
    this.git('add', '-A');
    this.git('commit', '-q', '-m', 'first');
  }

  /** One edit; the paths, absolute, that it touched. */
  edit(): string[] {
    for (;;) {
      const kind = this.random.pick(EditedWorkspace.kinds);
      const paths = kind.call(this);
      if (traced && paths.length > 0) console.log(`${kind.name} ${paths.join(' ')}`);
      if (paths.length > 0) return paths.map((file) => path.join(this.dir, file));
    }
  }

  // ---- edits --------------------------------------------------------------------------------------------------------------

  /** Those that happen most are there several times; an edit that does not fit the moment returns nothing. */
  private static readonly kinds: readonly Edit[] = [
    ...repeated(8, EditedWorkspace.prototype.insertLines),
    ...repeated(6, EditedWorkspace.prototype.deleteLines),
    ...repeated(6, EditedWorkspace.prototype.changeLine),
    ...repeated(3, EditedWorkspace.prototype.sameSize),
    ...repeated(3, EditedWorkspace.prototype.swapLines),
    ...repeated(2, EditedWorkspace.prototype.create),
    ...repeated(2, EditedWorkspace.prototype.revert),
    ...repeated(2, EditedWorkspace.prototype.rename),
    ...repeated(2, EditedWorkspace.prototype.saveByRename),
    EditedWorkspace.prototype.deleteFile,
    EditedWorkspace.prototype.copy,
    EditedWorkspace.prototype.swapFiles,
    EditedWorkspace.prototype.changeCase,
    EditedWorkspace.prototype.truncate,
    EditedWorkspace.prototype.empty,
    EditedWorkspace.prototype.makeBinary,
    EditedWorkspace.prototype.notUtf8,
    EditedWorkspace.prototype.longLine,
    EditedWorkspace.prototype.carriageReturns,
    EditedWorkspace.prototype.touch,
    EditedWorkspace.prototype.permissions,
    EditedWorkspace.prototype.symbolicLink,
    EditedWorkspace.prototype.hardLink,
    EditedWorkspace.prototype.renameFolder,
    EditedWorkspace.prototype.deleteFolder,
    EditedWorkspace.prototype.fileBecomesFolder,
    EditedWorkspace.prototype.ignore,
    EditedWorkspace.prototype.ignoreInFolder,
    EditedWorkspace.prototype.switchBranch,
  ];

  private insertLines(): string[] {
    return this.changeText((lines) => lines.toSpliced(this.random.below(lines.length + 1), 0, ...this.lines(1 + this.random.below(8))));
  }

  private deleteLines(): string[] {
    return this.changeText((lines) => lines.toSpliced(this.random.below(lines.length + 1), 1 + this.random.below(8)));
  }

  private changeLine(): string[] {
    return this.changeText((lines) => (lines.length === 0 ? lines : lines.with(this.random.below(lines.length), this.line())));
  }

  /** What neither size nor inode tells. */
  private sameSize(): string[] {
    return this.changeText((lines) => lines.map((line) => line.replace(/\d/, (digit) => String((Number(digit) + 1) % 10))));
  }

  private swapLines(): string[] {
    return this.changeText((lines) => {
      const [from, to] = [this.random.below(lines.length + 1), this.random.below(lines.length + 1)];
      const moved = lines.slice(from, from + 5);
      return lines.toSpliced(from, 5).toSpliced(to, 0, ...moved);
    });
  }

  private create(): string[] {
    const files = this.files();
    if (files.length >= mostFiles) return [];
    const file = this.newName();
    if (this.isTaken(file)) return [];
    this.write(file, this.lines(1 + this.random.below(60)).join(''));
    return [file];
  }

  private revert(): string[] {
    const file = this.file();
    const before = file === undefined ? undefined : this.earlier.get(file);
    if (file === undefined || before === undefined) return [];
    this.write(file, this.random.pick(before));
    return [file];
  }

  private rename(): string[] {
    const [from, to] = [this.file(), this.newName()];
    if (from === undefined || this.isTaken(to)) return [];
    mkdirSync(path.dirname(this.at(to)), { recursive: true });
    renameSync(this.at(from), this.at(to));
    return [from, to];
  }

  /** As editors save. */
  private saveByRename(): string[] {
    const file = this.file();
    if (file === undefined) return [];
    const temporary = `${file}.tmp~`;
    writeFileSync(this.at(temporary), this.lines(1 + this.random.below(40)).join(''));
    renameSync(this.at(temporary), this.at(file));
    return [temporary, file];
  }

  private deleteFile(): string[] {
    const file = this.file();
    if (file === undefined || this.files().length < 5) return [];
    rmSync(this.at(file));
    return [file];
  }

  private copy(): string[] {
    const [from, to] = [this.file(), this.newName()];
    if (from === undefined || this.isTaken(to) || this.files().length >= mostFiles) return [];
    this.write(to, readFileSync(this.at(from)));
    return [to];
  }

  private swapFiles(): string[] {
    const [a, b] = [this.file(), this.file()];
    if (a === undefined || b === undefined || a === b) return [];
    renameSync(this.at(a), this.at(`${a}.swap`));
    renameSync(this.at(b), this.at(a));
    renameSync(this.at(`${a}.swap`), this.at(b));
    return [a, b];
  }

  private changeCase(): string[] {
    const file = this.file();
    if (file === undefined) return [];
    const name = path.basename(file);
    const to = path.join(path.dirname(file), name === name.toUpperCase() ? name.toLowerCase() : name.toUpperCase());
    if (this.isTaken(to)) return [];
    renameSync(this.at(file), this.at(to));
    return [file, to];
  }

  private truncate(): string[] {
    const file = this.file();
    if (file === undefined) return [];
    truncateSync(this.at(file), this.random.below(lstatSync(this.at(file)).size + 1));
    return [file];
  }

  private empty(): string[] {
    return this.changeText(() => []);
  }

  private makeBinary(): string[] {
    return this.overwrite(Buffer.from([0, 1, 2, 255, this.random.below(256)]));
  }

  private notUtf8(): string[] {
    return this.overwrite(Buffer.concat([Buffer.from(this.lines(5).join('')), Buffer.from([0xe9, 0xff, 0x0a])]));
  }

  private longLine(): string[] {
    return this.overwrite(Buffer.from(`${`x${this.random.below(100)} `.repeat(this.random.below(3000))}\n`));
  }

  private carriageReturns(): string[] {
    const file = this.file();
    if (file === undefined) return [];
    this.write(file, readFileSync(this.at(file), 'latin1').replaceAll(/\r?\n/g, '\r\n'), 'latin1');
    return [file];
  }

  /** A clock that goes back, or far ahead; the content stays. */
  private touch(): string[] {
    const file = this.file();
    if (file === undefined) return [];
    const time = this.random.pick([0, 1e9, Date.now() / 1000, 4e9]) + this.random.below(1000);
    utimesSync(this.at(file), time, time);
    return [file];
  }

  private permissions(): string[] {
    const file = this.file();
    if (file === undefined) return [];
    chmodSync(this.at(file), this.random.pick([0o644, 0o755, 0o600]));
    return [file];
  }

  private symbolicLink(): string[] {
    const file = this.newName();
    if (this.isTaken(file)) return [];
    mkdirSync(path.dirname(this.at(file)), { recursive: true });
    symlinkSync(this.random.pick(['main.ts', '../src', '.', 'nowhere', '/etc/hostname', path.basename(file)]), this.at(file));
    return [file];
  }

  private hardLink(): string[] {
    const [from, to] = [this.file(), this.newName()];
    if (from === undefined || this.isTaken(to) || this.files().length >= mostFiles) return [];
    mkdirSync(path.dirname(this.at(to)), { recursive: true });
    linkSync(this.at(from), this.at(to));
    return [to];
  }

  private renameFolder(): string[] {
    const from = this.random.pick(folders.slice(1));
    const to = this.random.pick([...folders.slice(1), 'moved', 'lib/moved']);
    if (!existsSync(this.at(from)) || this.isTaken(to) || to.startsWith(`${from}/`)) return [];
    mkdirSync(path.dirname(this.at(to)), { recursive: true });
    renameSync(this.at(from), this.at(to));
    return [from, to];
  }

  private deleteFolder(): string[] {
    const folder = this.random.pick([...folders.slice(1), 'moved', 'lib/moved']);
    if (!this.random.once(4) || !existsSync(this.at(folder))) return [];
    rmSync(this.at(folder), { recursive: true });
    return [folder];
  }

  private fileBecomesFolder(): string[] {
    const file = this.file();
    if (file === undefined || !this.random.once(3)) return [];
    rmSync(this.at(file));
    this.write(path.join(file, 'inner.ts'), this.lines(4).join(''));
    return [file];
  }

  private ignore(): string[] {
    const rules = ignoreRules.filter(() => this.random.once(3));
    writeFileSync(this.at('.gitignore'), rules.map((rule) => `${rule}\n`).join(''));
    return ['.gitignore'];
  }

  private ignoreInFolder(): string[] {
    const folder = this.random.pick(folders.slice(1));
    if (!lstatSync(this.at(folder), { throwIfNoEntry: false })?.isDirectory()) return [];
    const file = `${folder}/.gitignore`;
    if (existsSync(this.at(file)) && this.random.once(2)) rmSync(this.at(file));
    else writeFileSync(this.at(file), folderRules.filter(() => this.random.once(3)).map((rule) => `${rule}\n`).join(''));
    return [file];
  }

  /** Rare, since it starts processes: whatever is uncommitted goes into the branch that is left. */
  private switchBranch(): string[] {
    if (!this.random.once(5)) return [];
    this.git('add', '-A', '-f');
    this.git('commit', '-q', '--allow-empty', '-m', 'state');
    if (this.branches.length < 4 && this.random.once(2)) {
      this.branches.push(`b${this.branches.length}`);
      this.git('checkout', '-q', '-b', this.branches.at(-1)!);
    }
    const before = this.git('rev-parse', 'HEAD').trim();
    this.git('checkout', '-q', '-f', this.random.pick(this.branches));
    const changed = this.git('diff', '--name-only', '--no-renames', '-z', before, 'HEAD').split('\0').filter((file) => file !== '');
    return ['.git/HEAD', ...changed];
  }

  // ---- parts --------------------------------------------------------------------------------------------------------------

  private at(file: string): string {
    return path.join(this.dir, file);
  }

  private git(...args: string[]): string {
    const identity = ['-c', 'user.name=t', '-c', 'user.email=t@localhost', '-c', 'core.autocrlf=false', '-c', 'gc.auto=0', '-c', 'core.quotePath=false'];
    return execFileSync('git', [...identity, ...args], { cwd: this.dir, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  }

  private isTaken(file: string): boolean {
    // A file on the way to it is in the way as well.
    for (let at = file; at !== '.'; at = path.dirname(at)) {
      const there = lstatSync(this.at(at), { throwIfNoEntry: false });
      if (there !== undefined) return at === file || !there.isDirectory();
    }
    return false;
  }

  /** Regular files, the rules among them left out. */
  private files(): string[] {
    return readdirSync(this.dir, { withFileTypes: true, recursive: true })
      .filter((entry) => entry.isFile())
      .map((entry) => path.relative(this.dir, path.join(entry.parentPath, entry.name)))
      .filter((file) => !file.startsWith('.git') && path.basename(file) !== '.gitignore')
      .sort();
  }

  private file(): string | undefined {
    const files = this.files();
    return files.length === 0 ? undefined : this.random.pick(files);
  }

  private newName(): string {
    return path.join(this.random.pick(folders), `${this.random.pick(names)}${this.random.pick(extensions)}`);
  }

  private line(): string {
    const n = this.random.below(500);
    return this.random.pick([
      `export const name${n} = ${this.random.below(1000)};\n`,
      `function f${n}(a) {\n  return a + ${this.random.below(1000)};\n}\n\n`,
      `# Part ${n}\n\n`,
      '\n',
      `    x${n} = y[${this.random.below(1000)}]  # ünï ${n}\n`,
    ]);
  }

  private lines(n: number): string[] {
    return Array.from({ length: n }, () => this.line());
  }

  private write(file: string, content: string | Uint8Array, encoding: BufferEncoding = 'utf8'): void {
    mkdirSync(path.dirname(this.at(file)), { recursive: true });
    writeFileSync(this.at(file), content, encoding);
  }

  private changeText(change: (lines: string[]) => string[]): string[] {
    const file = this.file();
    if (file === undefined) return [];
    const before = readFileSync(this.at(file));
    const kept = this.earlier.get(file) ?? [];
    this.earlier.delete(file);
    this.earlier.set(file, [...kept.slice(-3), before]);
    for (const oldest of this.earlier.keys()) {
      if (this.earlier.size <= mostEarlier) break;
      this.earlier.delete(oldest);
    }
    const lines = change(before.toString('latin1').split(/(?<=\n)/).filter((line) => line !== ''));
    this.write(file, lines.slice(0, mostLines).join(''), 'latin1');
    return [file];
  }

  private overwrite(content: Uint8Array): string[] {
    const file = this.file();
    if (file === undefined) return [];
    this.write(file, content);
    return [file];
  }
}

function repeated(n: number, edit: Edit): Edit[] {
  return Array<Edit>(n).fill(edit);
}
