// (state, message) → state: what the page shows, as a pure function of what the host has said. No DOM, no clock, no posting.
// Turns keep the order in which they were asked; a turn that no message names stays the same object, so that the view can
// skip it.

import type { Draft, Surface, ToWebview, TurnRecord } from '../extension/protocol';
import type { Attachment } from '../extension/engine/messages';

export interface State {
  /** False until the first `restore`: nothing is drawn before, so that nothing flashes. */
  readonly ready: boolean;
  readonly turns: readonly TurnRecord[];
  readonly draft: Draft | null;
  readonly attachment: Attachment | null;
  readonly surface: Surface;
}

export const initialState: State = {
  ready: false,
  turns: [],
  draft: null,
  attachment: null,
  surface: { notice: null, canAsk: false, starting: null, ingest: null, readsSlowly: false, roots: [] },
};

export function reduce(state: State, message: ToWebview): State {
  switch (message.type) {
    case 'restore':
      return {
        ready: true,
        turns: message.turns,
        draft: newerDraft(state.draft, message.draft),
        attachment: message.attachment,
        surface: message.surface,
      };
    case 'asked':
      return { ...state, turns: [...state.turns.filter((t) => t.turn !== message.replaces), message.record] };
    case 'phase':
      return withTurn(state, message.turn, (t) => ({ ...t, phase: message.phase, coverage: message.coverage, places: message.places }));
    case 'sources':
      return withTurn(state, message.turn, (t) => ({
        ...t,
        sources: message.sources,
        uncertain: message.uncertain,
        missing: message.missing,
      }));
    case 'token':
      // A token that arrives behind its turn's end (the two cross on their way) must not start it anew.
      return withTurn(state, message.turn, (t) => (t.status === 'running' ? { ...t, answer: t.answer + message.text } : t));
    case 'answered':
      return withTurn(state, message.record.turn, () => message.record);
    case 'failed':
      return withTurn(state, message.turn, (t) => ({ ...t, status: 'failed', phase: null, failure: message.failure }));
    case 'cleared':
      return { ...state, turns: [] };
    case 'attachment':
      return { ...state, attachment: message.attachment };
    case 'surface':
      return { ...state, surface: message.surface };
    case 'focus_composer':
      return state;
    default: {
      // The host may be newer than a page that VS Code kept alive over an update.
      const unknown: never = message;
      console.warn('unknown message', (unknown as { type: string }).type);
      return state;
    }
  }
}

/** The turn that is being answered, if any: there is at most one. */
export function runningTurn(state: State): TurnRecord | undefined {
  return state.turns.find((t) => t.status === 'running');
}

export function newerDraft(a: Draft | null, b: Draft | null): Draft | null {
  if (a === null || b === null) return a ?? b;
  return b.revision > a.revision ? b : a;
}

function withTurn(state: State, turn: number, change: (turn: TurnRecord) => TurnRecord): State {
  const index = state.turns.findIndex((t) => t.turn === turn);
  const old = state.turns[index];
  if (old === undefined) return state;
  const next = change(old);
  return next === old ? state : { ...state, turns: state.turns.with(index, next) };
}
