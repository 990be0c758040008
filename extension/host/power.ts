// Whether the machine that reads runs on battery. Linux tells it in a few small files; macOS and Windows through a program, which is
// run seldom, only while something is being read, and waited for by nobody. What cannot be found out changes nothing.

import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';

export interface PowerSource {
  /** It is not asked more often: what it costs to ask. */
  readonly every_ms: number;
  isOnBattery(): Promise<boolean>;
}

/** Remembers what a source said last, and asks again while somebody wants to know. */
export class Power {
  #onBattery = false;
  #wanted = false;
  #disposed = false;
  /** Running: it was asked not long ago. */
  #rest: NodeJS.Timeout | undefined;

  constructor(
    private readonly source: PowerSource,
    private readonly changed: () => void,
  ) {}

  /** False until the source has said otherwise. */
  get onBattery(): boolean {
    return this.#onBattery;
  }

  watch(wanted: boolean): void {
    this.#wanted = wanted;
    if (wanted && this.#rest === undefined && !this.#disposed) void this.#ask();
  }

  dispose(): void {
    this.#disposed = true;
    clearTimeout(this.#rest);
  }

  async #ask(): Promise<void> {
    this.#rest = setTimeout(() => {
      this.#rest = undefined;
      this.watch(this.#wanted);
    }, this.source.every_ms);
    const onBattery = await this.source.isOnBattery().catch(() => this.#onBattery);
    if (this.#disposed || onBattery === this.#onBattery) return;
    this.#onBattery = onBattery;
    this.changed();
  }
}

/** $SALA_POWER_SUPPLY names a folder that takes the place of Linux' own. */
export function powerSource(platform: NodeJS.Platform = process.platform, folder = process.env['SALA_POWER_SUPPLY']): PowerSource {
  if (folder !== undefined || platform === 'linux') {
    return { every_ms: 10_000, isOnBattery: () => supplyOnBattery(folder ?? '/sys/class/power_supply') };
  }
  if (platform === 'darwin') return { every_ms: 60_000, isOnBattery: async () => pmsetOnBattery(await run('/usr/bin/pmset', ['-g', 'batt'])) };
  if (platform === 'win32') return { every_ms: 300_000, isOnBattery: async () => windowsOnBattery(await run(powershell(), windowsQuery)) };
  return { every_ms: 300_000, isOnBattery: async () => false };
}

/** True if a battery is being used up and no mains supply is on. */
export async function supplyOnBattery(folder: string): Promise<boolean> {
  const names = await readdir(folder).catch(() => []);
  const value = (name: string, file: string): Promise<string> => readFile(path.join(folder, name, file), 'utf8').then((text) => text.trim(), () => '');
  const supplies = await Promise.all(
    names.map(async (name) => ({ type: await value(name, 'type'), scope: await value(name, 'scope'), status: await value(name, 'status'), online: await value(name, 'online') })),
  );
  const mains = supplies.some(({ type, online }) => type !== 'Battery' && online === '1');
  // A mouse's battery is no supply of the machine.
  return !mains && supplies.some(({ type, scope, status }) => type === 'Battery' && scope !== 'Device' && status === 'Discharging');
}

/** `Now drawing from 'Battery Power'`, then a line for each battery. */
export function pmsetOnBattery(text: string): boolean {
  return /drawing from 'Battery Power'/i.test(text);
}

const windowsQuery = ['-NoProfile', '-NonInteractive', '-Command', '(Get-CimInstance -ClassName Win32_Battery).BatteryStatus'];

/** A number for each battery: 1 is discharging, 4 low and 5 critical; all others have mains power, and 8 and 9 are charging. */
export function windowsOnBattery(text: string): boolean {
  return text.split(/\s+/).some((status) => ['1', '4', '5'].includes(status));
}

/** By its own path: a workspace's folder may be where programs are looked for. */
function powershell(): string {
  return path.win32.join(process.env['SystemRoot'] ?? 'C:\\Windows', 'System32', 'WindowsPowerShell', 'v1.0', 'powershell.exe');
}

function run(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(program, args, { timeout: 20_000, windowsHide: true }, (error, stdout) => (error === null ? resolve(stdout) : reject(error)));
  });
}
