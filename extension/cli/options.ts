// Options that every command takes (design section 8), their text → value rules, and what follows from them: folders and the
// arguments of an engine. A value that cannot be is refused here, before anything is started.

import { realpathSync, statSync } from 'node:fs';
import path from 'node:path';
import { InvalidArgumentError, Option, type Command } from 'commander';
import type { Activations } from '../engine/addon';
import { EngineError } from '../engine/errors';
import type { EngineSettings, Root } from '../engine/messages';
import { findModel } from '../engine/model-folder';
import { formatEngineArgs, parseSize } from '../engine/options';

export interface CommonOptions {
  readonly model?: string;
  /** As given; several are the roots of one workspace. */
  readonly workspace?: readonly string[];
  readonly json?: boolean;
  readonly store?: string;
  readonly activations: Activations;
  readonly threads?: number;
  readonly maxTokens?: number;
  readonly maxMemory?: number;
  readonly maxDisk?: number;
}

export function addCommonOptions(command: Command): Command {
  return command
    .option('--model <dir>', 'model folder (default: the embedded model)')
    .addOption(new Option('--workspace <dir>', 'folder to read; may be repeated (default: the current one)').argParser(collect))
    .option('--json', 'one JSON document on standard output')
    .option('--store <dir>', "where what was read is kept (default: the system's cache folder)")
    .addOption(new Option('--activations <kind>', 'fp32 is exact and slow').choices(['int8', 'fp32']).default('int8'))
    .option('--threads <n>', 'threads of the engine (default: physical cores)', atLeast(1))
    .option('--max-tokens <n>', 'tokens of the workspace to hold at most (default: 1000000)', atLeast(1))
    .option('--max-memory <size>', 'memory of the engine at most (default: a quarter)', bytes)
    .option('--max-disk <size>', 'size of the store at most (default: 10G)', bytes);
}

/** A whole number of at least `least`. */
export function atLeast(least: number): (text: string) => number {
  return (text) => {
    const n = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
    if (n >= least) return n;
    throw new InvalidArgumentError(`expected a whole number of at least ${least}, found ${text}.`);
  };
}

/** '512,2048' → [512, 2048] */
export function numbers(least: number): (text: string) => number[] {
  return (text) => text.split(',').map((part) => atLeast(least)(part.trim()));
}

export function collect(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value];
}

function bytes(text: string): number {
  const size = parseSize(text);
  if (size !== undefined && size > 0) return size;
  throw new InvalidArgumentError(`expected a size such as 200MB or 2G, found ${text}.`);
}

/** Absolute folder of the model that the command is about. */
export async function modelDir(options: CommonOptions): Promise<string> {
  return options.model === undefined ? findModel() : path.resolve(options.model);
}

/** Command line of an engine process that fits the options; see engine/options.ts. */
export function engineArgs(model: string, options: CommonOptions): string[] {
  const { store, activations, threads, maxMemory, maxDisk } = options;
  return formatEngineArgs({
    model,
    activations,
    ...(store !== undefined && { store: path.resolve(store) }),
    ...(threads !== undefined && { threads }),
    ...(maxMemory !== undefined && { maxMemoryBytes: maxMemory }),
    ...(maxDisk !== undefined && { maxDiskBytes: maxDisk }),
  });
}

/** The same for an engine that runs already. */
export function engineSettings(options: CommonOptions): Partial<EngineSettings> {
  const { threads, maxTokens, maxMemory, maxDisk } = options;
  return {
    ...(threads !== undefined && { threads }),
    ...(maxTokens !== undefined && { tokenBudget: maxTokens }),
    ...(maxMemory !== undefined && { maxMemoryBytes: maxMemory }),
    ...(maxDisk !== undefined && { maxDiskBytes: maxDisk }),
  };
}

/** Links are followed, so that a workspace is the same one by whatever way it is named. Throws `not_a_workspace`. */
export function roots(options: CommonOptions): Root[] {
  return (options.workspace ?? ['.']).map((given) => {
    try {
      const dir = realpathSync(given);
      if (statSync(dir).isDirectory()) return { path: dir, name: path.basename(dir) || dir };
    } catch (error) {
      throw new EngineError('not_a_workspace', `expected a folder in ${given}, found: ${(error as Error).message}`, { cause: error });
    }
    throw new EngineError('not_a_workspace', `expected a folder in ${given}, found something else`);
  });
}

/** The root that holds `file` (as seen from the current folder) and its path within it, with '/'; the innermost of several. */
export function withinRoots(file: string, roots: readonly Root[]): { root: Root; path: string } | undefined {
  const absolute = absolutePath(file);
  return roots
    .flatMap((root) => {
      const relative = path.relative(root.path, absolute);
      const inside = relative !== '..' && !relative.startsWith(`..${path.sep}`) && !path.isAbsolute(relative);
      return inside ? [{ root, path: relative.split(path.sep).join('/') }] : [];
    })
    .sort((a, b) => a.path.length - b.path.length)[0];
}

/** With the links of its folder followed but not its own: a link has a state of its own. */
export function absolutePath(file: string): string {
  const absolute = path.resolve(file);
  try {
    return path.join(realpathSync(path.dirname(absolute)), path.basename(absolute));
  } catch {
    return absolute;
  }
}
