// Folders for tests of processes: one that stands for `dist/`, with the fake engine in it, and a model folder that is only looked
// at from outside. And eyes for what processes leave behind.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

export interface FakeDist {
  readonly dir: string;
  readonly dist: string;
  readonly model: string;
  readonly store: string;
  /** Arguments of an engine that uses them and ends soon after its last client. */
  readonly args: readonly string[];
  /** How the next engine loads; see fake-engine.ts. */
  script(script: object): void;
  /** Process ids of engines of this folder that run now. */
  engines(): number[];
  /** Files in the store folders but the log. */
  leftovers(): string[];
  dispose(): void;
}

/** Run from the repository's root, as all tests are. */
export function makeFakeDist(): FakeDist {
  const dir = mkdtempSync(path.join(os.tmpdir(), 's-'));
  const dist = path.join(dir, 'dist');
  const model = path.join(dir, 'model');
  const store = path.join(dir, 's');
  mkdirSync(model, { recursive: true });
  for (const name of ['config.json', 'tokenizer.json', 'model.safetensors']) writeFileSync(path.join(model, name), `{"name":"${name}"}`);
  bundle('test/extension/fake-engine.ts', path.join(dist, 'engine.cjs'));
  const engines = (): number[] =>
    readdirSync('/proc').flatMap((name) => {
      if (!/^\d+$/.test(name)) return [];
      try {
        const words = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0');
        return words.includes(path.join(dist, 'engine.cjs')) ? [Number(name)] : [];
      } catch {
        return [];
      }
    });
  return {
    dir,
    dist,
    model,
    store,
    args: ['--model', model, '--store', store, '--grace-ms', '300'],
    script: (script) => writeFileSync(path.join(dist, 'script.json'), JSON.stringify(script)),
    engines,
    leftovers: () => readdirSync(store, { recursive: true, encoding: 'utf8' }).filter((name) => /\.(sock|lock|where|\d+)$/.test(name)),
    dispose: () => {
      for (const pid of engines()) process.kill(pid, 'SIGKILL');
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

export function bundle(source: string, outfile: string): void {
  const options = ['--bundle', '--platform=node', '--format=cjs', '--external:*.wasm', '--log-level=error', `--outfile=${outfile}`];
  execFileSync(process.execPath, [path.resolve('node_modules/esbuild/bin/esbuild'), source, ...options]);
}

/** Polls until `value` gives something true; fails with the last value after `timeoutMs`. */
export async function eventually<T>(what: string, value: () => T, timeoutMs = 8000): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const found = value();
    if (found) return found;
    if (performance.now() > deadline) throw new Error(`${what}: expected within ${timeoutMs} ms, found ${JSON.stringify(found)}`);
    await delay(20);
  }
}
