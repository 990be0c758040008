// What the window has to tell its user, as a pure function of the session's state: at most one notice, with its actions. The chat
// view, the status bar and the consent question all say what this says.

import type { Config } from '../config';
import type { Coverage, IngestStatus, Root } from '../engine/messages';
import type { Notice, Surface } from '../protocol';
import { count, duration, files, shortCount } from '../texts';
import type { EngineState } from './engine-client';
import { failureOf, notice, unsupportedSentence } from './error-texts';
import type { Consent, Place } from './session';

export interface SurfaceState {
  readonly place: Place;
  readonly engine: EngineState;
  readonly ingest: IngestStatus | null;
  readonly readsSlowly: boolean;
  readonly consent: Consent;
  readonly config: Pick<Config, 'ingest' | 'threads'>;
  readonly expectedSpeed: number;
  readonly roots: readonly Root[];
}

export function surfaceOf(state: SurfaceState): Surface {
  const { engine, ingest } = state;
  return {
    notice: noticeOf(state),
    canAsk: state.place === 'workspace' && engine.state !== 'failed',
    starting: engine.state === 'starting' && state.place === 'workspace' ? sentence(engine.message) : null,
    ingest,
    readsSlowly: state.readsSlowly,
    roots: state.roots,
  };
}

/** What background reading would cost, in words. */
export function consentNotice(coverage: Coverage, state: Pick<SurfaceState, 'engine' | 'expectedSpeed'>): Notice {
  const left = Math.max(0, coverage.total_tokens - coverage.tokens);
  const cores = state.engine.state === 'ready' ? state.engine.hello.threads : 1;
  const about = coverage.estimated ? 'about ' : '';
  return notice(
    'info',
    `SALA can read this workspace in the background: ${files(coverage.total_files)}, ${about}${shortCount(left)} tokens, ` +
      `${duration(left / state.expectedSpeed)} on ${count(cores)} ${cores === 1 ? 'core' : 'cores'} (one while you type). ` +
      'It happens once, stays on this machine and can be paused at any time. Until then a question reads only what it needs.',
    'grant_consent',
    'decline_consent',
  );
}

/** Whether the question for consent is open. */
export function asksConsent(state: SurfaceState): boolean {
  return state.place === 'workspace' && state.consent === 'unknown' && state.config.ingest.enabled && state.ingest !== null && hasUnread(state.ingest.coverage);
}

function noticeOf(state: SurfaceState): Notice | null {
  switch (state.place) {
    case 'unsupported':
      return notice('error', unsupportedSentence(), 'show_log');
    case 'no_folder':
      return notice('info', 'SALA answers questions about a folder. Open one to begin.', 'open_folder');
    case 'virtual':
      return notice('info', 'SALA reads folders on disk; this window has only virtual ones, so nothing can be read.');
    case 'untrusted':
      return notice('warning', 'This workspace is in Restricted Mode: SALA reads nothing of it.', 'manage_trust');
    case 'workspace':
      if (state.engine.state === 'failed') return failureOf(state.engine.error);
      return asksConsent(state) ? consentNotice(state.ingest!.coverage, state) : null;
  }
}

function hasUnread({ total_files, files: read }: Coverage): boolean {
  return total_files > read;
}

function sentence(message: string): string {
  return `${message.charAt(0).toUpperCase()}${message.slice(1)}…`;
}
