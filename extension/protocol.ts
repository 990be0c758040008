// Every message between the extension host and the chat's webview. The only place where they are defined; imports types only.
// The host owns the conversation: it numbers the turns, keeps them through reloads and sends them again with `restore`
// whenever the page starts. Each `asked` turn ends in exactly one `answered` or `failed`. Messages are plain data; an unknown
// type is logged and dropped by the receiver.

import type { EngineErrorCode } from './engine/errors';
import type { AnswerMark, AskPhase, Attachment, Coverage, IngestStatus, PlacesRead, Root, Source, StopReason } from './engine/messages';

// ---- data -----------------------------------------------------------------------------------------------------------

/** What a button beside a sentence does; the host maps each to a command. */
export const actionIds = [
  'show_log',
  'diagnostics',
  'restart_engine',
  'choose_model',
  'open_folder',
  'manage_trust',
  'open_settings',
  'new_conversation',
  'forget_workspace',
  'grant_consent',
  'decline_consent',
  'pause',
  'resume',
  'show_coverage',
] as const;
export type ActionId = (typeof actionIds)[number];

export interface Action {
  readonly id: ActionId;
  readonly label: string;
}

/** A sentence for a person, with what can be done about it. `detail` is the program's own message. */
export interface Notice {
  readonly kind: 'info' | 'warning' | 'error';
  readonly sentence: string;
  readonly detail?: string;
  readonly actions: readonly Action[];
}

export interface Failure extends Notice {
  readonly code: EngineErrorCode;
}

/** One question and what came of it, as the host keeps it. */
export interface TurnRecord {
  readonly turn: number;
  readonly question: string;
  readonly attachment: Attachment | null;
  /** `broken_off`: the window or the host went away while it ran; what had come is kept. */
  readonly status: 'running' | 'answered' | 'failed' | 'broken_off';
  readonly phase: AskPhase | null;
  /** While it is read for: of the places that the question leads to. */
  readonly places?: PlacesRead | undefined;
  readonly answer: string;
  readonly sources: readonly Source[];
  readonly marks: readonly AnswerMark[];
  readonly uncertain: boolean;
  readonly missing: readonly string[];
  /** Files that were not searched for what the question names. */
  readonly unsearched?: number | undefined;
  readonly stop: StopReason | null;
  readonly coverage: Coverage | null;
  readonly failure: Failure | null;
}

/** What the composer holds and where the reader is; the higher revision wins when two places kept one. */
export interface Draft {
  readonly revision: number;
  readonly text: string;
  readonly selectionStart: number;
  readonly selectionEnd: number;
  /** The topmost visible turn and how far it is scrolled out, in pixels; null: at the end, following. */
  readonly anchor: { readonly turn: number; readonly offset: number } | null;
}

/** What surrounds the conversation: the engine's state in words, and how much has been read. */
export interface Surface {
  /** Shown above the composer until it no longer holds. */
  readonly notice: Notice | null;
  /** Questions can be asked. */
  readonly canAsk: boolean;
  /** While the engine starts: what it does. */
  readonly starting: string | null;
  readonly ingest: IngestStatus | null;
  /** Background reading keeps to one core, to save the battery. */
  readonly readsSlowly: boolean;
  /** The folders of the window: where there are several, places are told with theirs. */
  readonly roots: readonly Root[];
}

// ---- webview → host ---------------------------------------------------------------------------------------------------

export type ToHost =
  | { readonly type: 'ready' }
  | { readonly type: 'ask'; readonly question: string }
  | { readonly type: 'stop'; readonly turn: number }
  /** `searchAll`: every file is searched for what the question names, however long it takes. */
  | { readonly type: 'retry'; readonly turn: number; readonly searchAll: boolean }
  /** Opens the place; of several that a link may mean, the user chooses. */
  | { readonly type: 'reveal'; readonly sources: readonly Source[] }
  | { readonly type: 'open_link'; readonly href: string }
  | { readonly type: 'copy'; readonly text: string }
  | { readonly type: 'insert'; readonly text: string }
  | { readonly type: 'draft'; readonly draft: Draft }
  | { readonly type: 'attach_selection' }
  | { readonly type: 'detach' }
  | { readonly type: 'export_conversation' }
  | { readonly type: 'focus_editor' }
  | { readonly type: 'action'; readonly action: ActionId };

// ---- host → webview ---------------------------------------------------------------------------------------------------

export type ToWebview =
  | {
      readonly type: 'restore';
      readonly turns: readonly TurnRecord[];
      readonly draft: Draft | null;
      readonly attachment: Attachment | null;
      readonly surface: Surface;
    }
  | { readonly type: 'asked'; readonly record: TurnRecord; readonly replaces: number | null }
  | { readonly type: 'phase'; readonly turn: number; readonly phase: AskPhase; readonly coverage: Coverage; readonly places?: PlacesRead | undefined }
  | {
      readonly type: 'sources';
      readonly turn: number;
      readonly sources: readonly Source[];
      readonly uncertain: boolean;
      readonly missing: readonly string[];
    }
  | { readonly type: 'token'; readonly turn: number; readonly text: string }
  | { readonly type: 'answered'; readonly record: TurnRecord }
  | { readonly type: 'failed'; readonly turn: number; readonly failure: Failure }
  | { readonly type: 'cleared' }
  | { readonly type: 'attachment'; readonly attachment: Attachment | null }
  | { readonly type: 'surface'; readonly surface: Surface }
  | { readonly type: 'focus_composer' };

/** One handler per message type: a missing or misspelled one does not compile. */
export type Handlers<M extends { type: string }> = {
  [T in M['type']]: (message: Extract<M, { type: T }>) => void;
};
