// The user's settings as one read-only object, read anew on every change. Package.json declares and describes them; limits that
// are 0 there mean "the default of this machine".

import * as vscode from 'vscode';
import { defaultMaxMemoryBytes } from './engine/memory-limit';
import type { EngineSettings } from './engine/messages';
import type { Globs } from './host/coverage-choice';
import type { BadgesShown } from './host/coverage-words';
import { diskFolders, rootOf } from './host/locate';

export interface Config {
  /** Absolute folder of a model; empty: the embedded one. */
  readonly modelFolder: string;
  readonly threads: number;
  readonly ingest: {
    readonly enabled: boolean;
    readonly pause: boolean;
    readonly onBattery: 'slow' | 'pause' | 'full';
  };
  readonly completions: {
    readonly enabled: boolean;
    /** Language identifier → on or off; '*' stands for all that are not named. */
    readonly languages: Readonly<Record<string, boolean>>;
  };
  readonly explorer: { readonly badges: BadgesShown };
  readonly engine: EngineSettings;
  /** Of each folder of the window, by its root. */
  readonly globs: Readonly<Record<string, Globs>>;
}

const gigabyte = 2 ** 30;

export function readConfig(): Config {
  const sala = vscode.workspace.getConfiguration('sala');
  const memory_gb = sala.get<number>('limits.memory', 0);
  const threads = sala.get<number>('threads', 0);
  const focus = sala.get<number>('chat.focus', 3);
  return {
    modelFolder: sala.get<string>('model.folder', '').trim(),
    threads,
    ingest: {
      enabled: sala.get<boolean>('ingest.enabled', true),
      pause: sala.get<boolean>('ingest.pause', false),
      onBattery: sala.get<'slow' | 'pause' | 'full'>('ingest.onBattery', 'slow'),
    },
    completions: {
      enabled: sala.get<boolean>('completions.enabled', true),
      languages: sala.get<Record<string, boolean>>('completions.languages', {}),
    },
    engine: {
      tokenBudget: sala.get<number>('limits.tokens', 1_000_000),
      maxMemoryBytes: memory_gb > 0 ? Math.round(memory_gb * gigabyte) : defaultMaxMemoryBytes(),
      maxDiskBytes: Math.round(sala.get<number>('limits.disk', 10) * gigabyte),
      threads,
      include: [],
      exclude: unwatched(),
      focusSegments: focus > 0 ? focus : null,
    },
    explorer: { badges: sala.get<BadgesShown>('explorer.badges', 'exceptions') },
    globs: Object.fromEntries(diskFolders().map((folder) => [rootOf(folder), globsOf(folder.uri)])),
  };
}

/** Those of all levels together: a folder's own do not make those of its user void. */
function globsOf(folder: vscode.Uri): Globs {
  const sala = vscode.workspace.getConfiguration('sala', folder);
  const all = (setting: string): readonly string[] => {
    const levels = sala.inspect<string[]>(setting);
    return [...new Set([levels?.globalValue, levels?.workspaceValue, levels?.workspaceFolderValue].flatMap((globs) => globs ?? []))];
  };
  return { include: all('ingest.include'), exclude: all('ingest.exclude') };
}

/** What one click on a file changes: the globs in the folder's own settings. */
export function ownGlobs(folder: vscode.Uri): Globs {
  const sala = vscode.workspace.getConfiguration('sala', folder);
  const own = (setting: string): readonly string[] => sala.inspect<string[]>(setting)?.workspaceFolderValue ?? [];
  return { include: own('ingest.include'), exclude: own('ingest.exclude') };
}

export async function setOwnGlobs(folder: vscode.Uri, globs: Globs): Promise<void> {
  const before = ownGlobs(folder);
  const sala = vscode.workspace.getConfiguration('sala', folder);
  for (const name of ['include', 'exclude'] as const) {
    if (String(before[name]) === String(globs[name])) continue;
    // An empty list is no setting at all.
    await sala.update(`ingest.${name}`, globs[name].length === 0 ? undefined : globs[name], vscode.ConfigurationTarget.WorkspaceFolder);
  }
}

/** Calls back with the new settings after each change that concerns us. */
export function onConfigChange(changed: (config: Config) => void): vscode.Disposable {
  return vscode.workspace.onDidChangeConfiguration((event) => {
    if (event.affectsConfiguration('sala') || event.affectsConfiguration('files.watcherExclude')) changed(readConfig());
  });
}

/** What the editor does not watch would be stale without anybody noticing, so it is left out under the same glob. */
function unwatched(): string[] {
  const globs = vscode.workspace.getConfiguration('files').get<Record<string, boolean>>('watcherExclude', {});
  return Object.entries(globs)
    .filter(([, on]) => on)
    .map(([glob]) => glob);
}
