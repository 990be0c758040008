// The user's settings as one read-only object, read anew on every change. Package.json declares and describes them; limits that
// are 0 there mean "the default of this machine".

import os from 'node:os';
import * as vscode from 'vscode';
import type { EngineSettings } from './engine/messages';

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
  readonly engine: EngineSettings;
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
      maxMemoryBytes: memory_gb > 0 ? Math.round(memory_gb * gigabyte) : Math.floor(os.totalmem() / 4),
      maxDiskBytes: Math.round(sala.get<number>('limits.disk', 10) * gigabyte),
      threads,
      include: sala.get<string[]>('ingest.include', []),
      exclude: [...sala.get<string[]>('ingest.exclude', []), ...unwatched()],
      focusSegments: focus > 0 ? focus : null,
    },
  };
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
