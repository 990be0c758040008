// Whether long work leaves the thread to others.

/** How often somebody else had a turn during `work`, by a clock on which each look takes a millisecond: how fast the machine is does not matter. */
export async function turnsOfOthers(work: () => Promise<unknown>): Promise<number> {
  const { now } = performance;
  let ms = performance.now();
  performance.now = () => ms++;
  let turns = 0;
  const count = (): void => {
    turns++;
    again = setImmediate(count);
  };
  let again = setImmediate(count);
  try {
    await work();
    return turns;
  } finally {
    clearImmediate(again);
    performance.now = now;
  }
}
