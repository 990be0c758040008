// Whether the machine runs on battery. Linux tells it in a few small files; elsewhere the answer is no.

import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

const supplies = '/sys/class/power_supply';

/** True if a battery is being used up and no mains supply is on. `dir` is for tests. */
export function isOnBattery(dir = supplies): boolean {
  let names: string[];
  try {
    names = readdirSync(dir);
  } catch {
    return false;
  }
  const value = (name: string, file: string): string => {
    try {
      return readFileSync(path.join(dir, name, file), 'utf8').trim();
    } catch {
      return '';
    }
  };
  const mains = names.some((name) => value(name, 'type') !== 'Battery' && value(name, 'online') === '1');
  // A mouse's battery is no supply of the machine.
  const discharging = names.some(
    (name) => value(name, 'type') === 'Battery' && value(name, 'scope') !== 'Device' && value(name, 'status') === 'Discharging',
  );
  return discharging && !mains;
}
