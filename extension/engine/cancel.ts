// A job of the engine under an AbortSignal.

import type { Job } from './addon';

/** Waits for a job; aborting cancels it within one step, and it rejects with code 'cancelled' then. */
export async function withCancel<T>(job: Job<T>, signal: AbortSignal): Promise<T> {
  const cancel = (): void => job.cancel();
  if (signal.aborted) cancel();
  signal.addEventListener('abort', cancel, { once: true });
  try {
    return await job.done;
  } finally {
    signal.removeEventListener('abort', cancel);
  }
}
