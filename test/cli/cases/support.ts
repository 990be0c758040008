// A fresh workspace and store for a case, `sala` on it as a user calls it, and eyes for what is left behind. Bundles, addon and
// grammars are those of SALA_DIST. What a case started is ended with it, whatever way it ends: the processes are known by a mark
// in their environment, which the engine inherits from the command line that starts it.

import assert from 'node:assert/strict';
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../extension/fake-dist';
import type { AskResult, Coverage, FileCoverage, IngestResult } from '../../../extension/engine/messages';

export { delay, eventually };

const dist = path.resolve(process.env['SALA_DIST'] ?? 'dist');
export const tinyModel = path.resolve('test/fixtures/tiny');
/** The command line finds it by itself. */
export const embeddedModel = 'embedded';
/** Clock ticks a second of /proc/PID/stat; the same on all Linux systems that Node runs on. */
const ticksPerSecond = 100;

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  stdout(): string;
  stderr(): string;
  /** Documents that have come so far, one a line. */
  documents<T>(): T[];
}

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly input?: string;
  /** Words in front of the command: unshare, setpriv, sh -c … */
  readonly through?: readonly string[];
}

export type Answer = AskResult & { readonly question: string };
export interface CoverageOutput {
  readonly files: readonly FileCoverage[];
  readonly total: Coverage;
}

export class Case {
  readonly dir = mkdtempSync(path.join(os.tmpdir(), 'sc-'));
  readonly workspace = path.join(this.dir, 'W');
  readonly store = path.join(this.dir, 'store');
  private readonly afterwards: (() => void | Promise<void>)[] = [];

  constructor(readonly model: string) {
    mkdirSync(this.workspace);
  }

  /** Writes files of the workspace; names are paths within it. */
  write(files: Readonly<Record<string, string | Buffer>>): void {
    for (const [name, text] of Object.entries(files)) {
      const file = path.join(this.workspace, name);
      mkdirSync(path.dirname(file), { recursive: true });
      writeFileSync(file, text);
    }
  }

  /** `n` small files, `perFolder` a folder. */
  writeMany(n: number, perFolder = 100): void {
    for (let i = 0; i < n; i++) {
      if (i % perFolder === 0) mkdirSync(path.join(this.workspace, `d${i / perFolder}`));
      writeFileSync(path.join(this.workspace, `d${Math.floor(i / perFolder)}`, `f${i}.ts`), `export const v${i} = ${i};\n`);
    }
  }

  path(...names: readonly string[]): string {
    return path.join(this.workspace, ...names);
  }

  /** For what a test made beside the case: mounts, folders without permission. Run in reverse order. */
  afterwardsDo(work: () => void | Promise<void>): void {
    this.afterwards.push(work);
  }

  /** Puts the store on a disk of its own, of such a size (mount(8)); false: none can be mounted here. */
  mountStore(size: string): boolean {
    mkdirSync(this.store);
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', this.store], { stdio: 'ignore' });
    } catch {
      return false;
    }
    this.afterwardsDo(() => void execFileSync('umount', ['-l', this.store]));
    return true;
  }

  start(args: readonly string[], options: RunOptions = {}): Running {
    const given = (name: string): boolean => args.some((arg) => arg === name);
    const words = [
      ...(options.through ?? []),
      process.execPath,
      path.join(dist, 'cli.cjs'),
      args[0] ?? '--help',
      // In front of what may begin with a dash.
      ...(this.model === embeddedModel || given('--model') ? [] : ['--model', this.model]),
      ...(given('--store') || options.env?.['HOME'] !== undefined ? [] : ['--store', this.store]),
      ...args.slice(1),
    ];
    const child = spawn(words[0]!, words.slice(1), {
      cwd: options.cwd ?? this.workspace,
      env: { ...process.env, SALA_DIST: dist, SALA_CASE: this.dir, ...options.env },
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (part: string) => (stdout += part));
    child.stderr.setEncoding('utf8').on('data', (part: string) => (stderr += part));
    if (options.input !== undefined) child.stdin.end(options.input);
    else if (!args.includes('-')) child.stdin.end();
    const ended = new Promise<Ended>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
    });
    return {
      child,
      ended,
      stdout: () => stdout,
      stderr: () => stderr,
      documents: <T>() => stdout.split('\n').slice(0, -1).map((line) => JSON.parse(line) as T),
    };
  }

  run(...args: readonly string[]): Promise<Ended> {
    return this.start(args).ended;
  }

  /** The document of a command that must succeed. */
  async json<T>(args: readonly string[], options: RunOptions = {}): Promise<T> {
    const { code, signal, stdout, stderr } = await this.start([args[0]!, '--json', ...args.slice(1)], options).ended;
    assert.equal(code, 0, `sala ${args.join(' ')}: ended with ${signal ?? code}: ${stderr}${stdout}`);
    return JSON.parse(stdout) as T;
  }

  ask(question: string, ...args: readonly string[]): Promise<Answer> {
    return this.json<Answer>(['ask', question, ...args]);
  }

  ingest(...args: readonly string[]): Promise<IngestResult> {
    return this.json<IngestResult>(['ingest', ...args]);
  }

  coverage(...args: readonly string[]): Promise<CoverageOutput> {
    return this.json<CoverageOutput>(['coverage', ...args]);
  }

  /** A watch that has read everything. */
  async watch(options: RunOptions = {}): Promise<Running> {
    const running = this.start(['ingest', '--watch', '--json'], options);
    await Promise.race([
      eventually('everything is in', () => running.documents().length > 0, 30_000),
      running.ended.then(({ code, stderr }) => assert.fail(`ingest --watch ended with ${code}: ${stderr}`)),
    ]);
    return running;
  }

  // ---- processes --------------------------------------------------------------------------------------------------------------

  /** All processes of the case; those that the command line started in the background with `only`. */
  processes(only: 'all' | 'engines' = 'all'): number[] {
    return readdirSync('/proc').flatMap((name) => {
      if (!/^\d+$/.test(name)) return [];
      try {
        if (!readFileSync(`/proc/${name}/environ`, 'latin1').includes(`SALA_CASE=${this.dir}\0`)) return [];
        const words = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0');
        return only === 'all' || words.some((word) => word.endsWith('engine.cjs')) ? [Number(name)] : [];
      } catch {
        return [];
      }
    });
  }

  /** What the engines of this store have logged. */
  log(): string {
    if (!existsSync(this.store)) return '';
    const names = readdirSync(this.store, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('engine.log'));
    return names.map((name) => readFileSync(path.join(this.store, name), 'utf8')).join('');
  }

  async engine(): Promise<number> {
    return eventually('an engine runs', () => this.processes('engines')[0] ?? 0);
  }

  /** The store folder of the case's model. */
  storeFolder(): string {
    return path.join(this.store, readdirSync(this.store).find((name) => /^[0-9a-f]{64}$/.test(name))!);
  }

  /** Sockets, flags and temporary files of the store; its own files are what should be there. */
  leftovers(store = this.store): string[] {
    const names = readdirSync(store, { recursive: true, encoding: 'utf8' });
    return names.filter((name) => !/(^|\/)(models\.json|CACHEDIR\.TAG|engine\.log(\.\d)?|[0-9a-f]{64}|LOCK|CURRENT|(MANIFEST|wal)-\d+|seg-\d+\.kv)$/.test(name));
  }

  /** Nothing of us is left, five seconds after the last command. */
  async nothingIsLeft(withinMs = 5000): Promise<void> {
    await eventually('no process is left', () => this.processes().length === 0, withinMs);
    assert.deepEqual(this.leftovers(), []);
  }

  async dispose(): Promise<void> {
    for (const pid of this.processes()) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It ended by itself.
      }
    }
    await eventually('all processes are gone', () => this.processes().length === 0);
    for (const work of this.afterwards.reverse()) await work();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** Runs a test on a case that is freed afterwards. */
export async function withCase(model: string, work: (c: Case) => Promise<void>): Promise<void> {
  const c = new Case(model);
  try {
    await work(c);
  } finally {
    await c.dispose();
  }
}

/** A segment's record in a file of the store, as native/store/segment_record.cpp lays it out. */
export interface StoredRecord {
  readonly key: string;
  readonly file: string;
  readonly offset: number;
  readonly bytes: Buffer;
}

/** All records in the segment files of a store folder, found by the format alone: what was removed and not yet copied away from too. */
export function storedRecords(folder: string): StoredRecord[] {
  const [headerBytes, border, magic] = [4096, 64, 'SALASEG\n'];
  return segmentFiles(folder).flatMap((file) => {
    const bytes = readFileSync(file);
    const records: StoredRecord[] = [];
    for (let at = headerBytes; at + 128 <= bytes.length && bytes.toString('latin1', at, at + 8) === magic; ) {
      const end = at + Number(bytes.readBigUInt64LE(at + 40));
      if (end > bytes.length) break;
      records.push({ key: bytes.toString('hex', at + 48, at + 80), file, offset: at, bytes: bytes.subarray(at, end) });
      at = Math.ceil(end / border) * border;
    }
    return records;
  });
}

export function segmentFiles(folder: string): string[] {
  const names = readdirSync(folder).filter((name) => /^seg-\d+\.kv$/.test(name));
  return names.sort((a, b) => parseInt(a.slice(4)) - parseInt(b.slice(4))).map((name) => path.join(folder, name));
}

/** Seconds of processor time that a process has used. */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

export const statesOf = ({ files }: CoverageOutput): Record<string, string> =>
  Object.fromEntries(files.map(({ path: file, state, rule }) => [file, rule ?? state]));

/** The one error of a command that failed as it should: exit code, one document, one line, never a signal. */
export function failureOf({ code, signal, stdout, stderr }: Ended): { code: string; message: string } {
  assert.equal(signal, null, `ended by ${signal}: ${stderr}`);
  assert.equal(code, 1, `${stdout}${stderr}`);
  const { error } = JSON.parse(stdout) as { error: { code: string; message: string } };
  assert.ok(error, stdout);
  assert.ok(!error.message.includes('\n'), error.message);
  return error;
}

/** As root: the words that run a command as nobody; the case's folder is opened for it. */
export function asNobody(c: Case): readonly string[] {
  chmodSync(c.dir, 0o777);
  chmodSync(c.workspace, 0o777);
  return ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--'];
}

export const isRoot = process.getuid?.() === 0;
