// Sentences that depend on numbers, as pure functions: the chat page, the status bar and the coverage view say the same thing in
// the same words. English throughout; imports types only.

import type { Coverage, IngestStatus, PauseReason, Source, StopReason } from './engine/messages';
import type { TurnRecord } from './protocol';

export function files(n: number): string {
  return n === 1 ? '1 file' : `${count(n)} files`;
}

/** 1234 → 1,234 */
export function count(n: number): string {
  return n.toLocaleString('en-US');
}

export function shortCount(n: number): string {
  if (n < 1000) return String(n);
  if (n < 999_500) return `${(n / 1000).toFixed(n < 9950 ? 1 : 0)} K`;
  return `${(n / 1_000_000).toFixed(1)} M`;
}

export function duration(seconds: number): string {
  if (seconds < 60) return 'less than a minute';
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return minutes === 1 ? 'about a minute' : `about ${minutes} minutes`;
  const hours = Math.round(minutes / 6) / 10;
  return hours === 1 ? 'about an hour' : `about ${hours} hours`;
}

export function isComplete(coverage: Coverage): boolean {
  return coverage.files >= coverage.total_files;
}

/** How much had been read when the answer was given. Null when that was everything. */
export function coverageSentence(coverage: Coverage): string | null {
  if (isComplete(coverage)) return null;
  return `Answered after reading ${count(coverage.files)} of ${coverage.estimated ? 'about ' : ''}${files(coverage.total_files)}.`;
}

/** Whether asking again can see more than the answer did. */
export function moreIsIn(then: Coverage, now: Coverage | undefined): boolean {
  return now !== undefined && now.tokens > then.tokens && !isComplete(then);
}

/** Reading for a question counts the question's places, where they are known; the share of all files would say that nothing happens. */
export function phaseSentence({ phase, coverage, places }: Pick<TurnRecord, 'phase' | 'coverage' | 'places'>): string {
  switch (phase) {
    case 'searching':
      return 'Searching the workspace for what to read first…';
    case 'reading':
      if (places) return `Reading for the question: ${count(places.read)} of ${places.total === 1 ? '1 place' : `${count(places.total)} places`}…`;
      return coverage === null || isComplete(coverage)
        ? 'Reading…'
        : `Reading: ${count(coverage.files)} of ${coverage.estimated ? 'about ' : ''}${files(coverage.total_files)}…`;
    case 'focusing':
      return 'Finding the places that matter…';
    case 'answering':
      return 'Answering…';
    case null:
      return 'Waiting for the engine…';
  }
}

/** Why an answer ended, where it did not simply end. */
export function stopSentence(stop: StopReason | null): string | null {
  switch (stop) {
    case 'max_tokens':
      return 'The answer reached its longest length and was cut off.';
    case 'repetition':
      return 'The answer began to repeat itself and was stopped.';
    case 'cancelled':
      return 'Stopped.';
    case 'context_full':
      return 'The answer was cut off: the conversation fills the whole context.';
    case 'end':
    case null:
      return null;
  }
}

export function missingSentence(missing: readonly string[]): string | null {
  if (missing.length === 0) return null;
  const names = missing.length === 1 ? missing[0]! : `${missing.slice(0, -1).join(', ')} and ${missing.at(-1)!}`;
  return `${names} ${missing.length === 1 ? 'is' : 'are'} nowhere in this workspace (exact search).`;
}

/** Of files that a search for the question's names had no time for. */
export function unsearchedSentence(n: number): string {
  return `${files(n)} ${n === 1 ? 'was' : 'were'} not searched for what the question names; that goes on in the background.`;
}

export const uncertainSentence = 'No part of the workspace stands out for this question: the answer is probably not here.';

export function sourceLines(source: Source): string {
  return source.start_line === source.end_line ? `line ${source.start_line}` : `lines ${source.start_line} to ${source.end_line}`;
}

const pauseReasons: Record<PauseReason, string> = {
  user: 'paused',
  battery: 'paused on battery',
  disk_full: 'paused: the disk is full',
  memory_full: 'paused: the memory limit is reached',
};

/** One line under the composer: how far the reading is. `slowly`: it keeps to one core, to save the battery. */
export function ingestSentence(status: IngestStatus, slowly: boolean): string {
  const { coverage } = status;
  const share = `${count(coverage.files)} of ${coverage.estimated ? 'about ' : ''}${files(coverage.total_files)}`;
  const read = isComplete(coverage) ? `${files(coverage.files)} read, ${shortCount(coverage.tokens)} tokens` : `${share} read`;
  switch (status.state) {
    case 'scanning':
      return 'Looking through the folders…';
    case 'reading':
      if (isComplete(coverage)) return `Reading what has changed; ${read}`;
      return `Reading${slowly ? ' slowly, on battery' : ''}: ${share}${status.seconds_left === undefined ? '' : `, ${duration(status.seconds_left)} left`}`;
    case 'paused':
      return `${read}; reading is ${pauseReasons[status.reason ?? 'user']}`;
    case 'idle':
      return read;
  }
}
