// How much memory the engine may have where nobody says. A container's limit counts as the machine's memory.

import os from 'node:os';

export function machineMemoryBytes(): number {
  return Math.min(os.totalmem(), process.constrainedMemory() || Infinity);
}

/** A quarter of it; never so little that the weights do not fit. */
export function defaultMaxMemoryBytes(): number {
  return Math.max(2 ** 30, Math.floor(machineMemoryBytes() / 4));
}
