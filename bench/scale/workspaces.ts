// Workspaces of many files, made in a moment.

import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const perFolder = 50;

export interface Shape {
  readonly files: number;
  /** Functions a file: some 40 tokens each. */
  readonly functions: number;
}

export function fileName(i: number): string {
  return `src/d${Math.floor(i / perFolder / perFolder)}/e${Math.floor(i / perFolder)}/f${i}.ts`;
}

/** `state` is in every text, so that another one is another content. */
export function fileText(i: number, functions: number, state: string): string {
  let text = `// File ${i}: ${state}.\n`;
  for (let n = 0; n < functions; n++) text += `export function f${i}_${n}(a) {\n  const b = a + ${i * 31 + n};\n  return b * ${n};\n}\n\n`;
  return text;
}

export function writeFiles(dir: string, { files, functions }: Shape, state: string, from = 0): void {
  let made = '';
  for (let i = from; i < files; i++) {
    const file = path.join(dir, fileName(i));
    if (path.dirname(file) !== made) mkdirSync((made = path.dirname(file)), { recursive: true });
    writeFileSync(file, fileText(i, functions, state));
  }
}

/** Small files of the class that enters last: what does not fit any more. */
export function writeData(dir: string, files: number): void {
  for (let i = 0; i < files; i++) {
    const folder = path.join(dir, 'data', `d${Math.floor(i / perFolder)}`);
    if (i % perFolder === 0) mkdirSync(folder, { recursive: true });
    writeFileSync(path.join(folder, `n${i}.csv`), `a,b\n${i},2\n`.repeat(30));
  }
}

/** All in one folder, made in an order of no meaning. */
export function writeFlat(dir: string, files: number): void {
  mkdirSync(path.join(dir, 'many'), { recursive: true });
  // Steps of a large prime come by each of them.
  for (let i = 0; i < files; i++) writeFileSync(path.join(dir, 'many', `n${(i * 7_368_787) % files}.csv`), 'a,b\n');
}

export function git(dir: string, ...args: string[]): void {
  const settings = ['user.name=t', 'user.email=t@localhost', 'gc.auto=0', 'core.autocrlf=false'].flatMap((each) => ['-c', each]);
  execFileSync('git', [...settings, ...args], { cwd: dir, stdio: ['ignore', 'ignore', 'pipe'] });
}

/** A repository with branches `a` and `b` that differ in every file, `a` checked out; `kept` files are the same in both. */
export function writeBranches(dir: string, shape: Shape, kept: Shape): void {
  mkdirSync(dir, { recursive: true });
  git(dir, 'init', '-q', '-b', 'a');
  writeFiles(path.join(dir, 'kept'), kept, 'kept');
  for (const branch of ['a', 'b']) {
    if (branch === 'b') git(dir, 'checkout', '-q', '-b', 'b');
    writeFiles(dir, shape, branch);
    git(dir, 'add', '-A');
    git(dir, 'commit', '-q', '-m', branch);
  }
  git(dir, 'checkout', '-q', 'a');
}
