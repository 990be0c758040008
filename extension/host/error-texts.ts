// The one place that turns an error code into a sentence for a person and what can be done about it. The program's own message,
// which names file, expected and found, is the notice's detail.

import type { EngineError, EngineErrorCode } from '../engine/errors';
import type { Action, ActionId, Failure, Notice } from '../protocol';

const labels: Record<ActionId, string> = {
  show_log: 'Show log',
  diagnostics: 'Diagnostics',
  restart_engine: 'Restart the engine',
  choose_model: 'Choose another model',
  open_folder: 'Open a folder',
  manage_trust: 'Manage trust',
  open_settings: 'Settings',
  new_conversation: 'New conversation',
  forget_workspace: 'Forget this workspace',
  grant_consent: 'Read in the background',
  decline_consent: 'Only when I ask',
  pause: 'Pause reading',
  resume: 'Resume reading',
  show_coverage: 'Coverage',
};

const texts: Record<EngineErrorCode, { sentence: string; actions: readonly ActionId[] }> = {
  model_not_found: { sentence: 'The model folder was not found.', actions: ['choose_model', 'show_log', 'diagnostics'] },
  model_invalid: { sentence: 'The model cannot be used: a file of it is damaged or does not fit.', actions: ['choose_model', 'show_log', 'diagnostics'] },
  unsupported: { sentence: 'This machine or this model needs something that SALA does not have.', actions: ['show_log', 'diagnostics'] },
  context_full: { sentence: 'The question and the conversation are longer than the model can take.', actions: ['new_conversation'] },
  out_of_memory: { sentence: 'There was not enough memory.', actions: ['open_settings', 'restart_engine', 'diagnostics'] },
  device_lost: { sentence: 'The device that computes went away.', actions: ['restart_engine', 'show_log', 'diagnostics'] },
  store_invalid: { sentence: 'The stored memory of this workspace is damaged; it is read again.', actions: ['show_log', 'diagnostics'] },
  store_newer: { sentence: 'The stored memory was written by a newer version of SALA.', actions: ['show_log', 'diagnostics'] },
  store_full: { sentence: 'The disk, or the share of it that SALA may use, is full.', actions: ['open_settings', 'forget_workspace'] },
  store_unwritable: { sentence: 'The folder for the stored memory cannot be written.', actions: ['show_log', 'diagnostics'] },
  engine_unreachable: { sentence: 'The engine cannot be started or does not answer.', actions: ['show_log', 'diagnostics', 'restart_engine'] },
  not_a_workspace: { sentence: 'SALA reads folders on disk, and none is open.', actions: ['open_folder'] },
  untrusted: { sentence: 'This workspace is not trusted, so nothing of it is read.', actions: ['manage_trust'] },
  invalid_argument: { sentence: 'The engine did not understand the request.', actions: ['show_log', 'diagnostics'] },
  cancelled: { sentence: 'Stopped.', actions: [] },
  internal: { sentence: 'Something in SALA failed.', actions: ['show_log', 'diagnostics', 'restart_engine'] },
};

/** The same codes where it is a pack that they are about, not the workspace's own memory. */
export const packSentences: Partial<Record<EngineErrorCode, string>> = {
  unsupported: 'This file does not fit here: another model or another version of SALA made it.',
  store_invalid: 'This file holds nothing that SALA can import: it is no such file, or is damaged where it says what is in it.',
  store_newer: 'This file was written by a newer version of SALA.',
  store_unwritable: 'The file, or the folder for the stored memory, cannot be written.',
  invalid_argument: 'This file cannot be used.',
};

/** `sentences`: in place of the usual ones. */
export function failureOf(error: EngineError, sentences: typeof packSentences = {}): Failure {
  const { sentence, actions } = texts[error.code];
  return { kind: 'error', code: error.code, sentence: sentences[error.code] ?? sentence, detail: error.message, actions: actions.map(action) };
}

export function notice(kind: Notice['kind'], sentence: string, ...actions: ActionId[]): Notice {
  return { kind, sentence, actions: actions.map(action) };
}

function action(id: ActionId): Action {
  return { id, label: labels[id] };
}

/** For a machine that no engine was built for. */
export function unsupportedSentence(platform = process.platform, arch = process.arch): string {
  return `This build of SALA has no engine for ${platform}-${arch}. In a clone of the repository, "npm run build" makes one.`;
}
