// The chat page: builds the views, feeds messages through the reducer, draws at most once a frame, and keeps the draft. All
// decisions lie in `state.ts` and with the host; this file only wires.

import type { ActionId, Draft, ToWebview } from '../extension/protocol';
import { keepDraft, keptDraft, onMessage, post } from './api';
import { initialState, reduce, runningTurn, type State } from './state';
import { missingSentence, phaseSentence, uncertainSentence, unsearchedSentence } from '../extension/texts';
import { ComposerView } from './view/composer';
import { h } from './view/dom';
import { StatusView } from './view/status';
import { TurnsView } from './view/turns';

let state: State = { ...initialState, draft: keptDraft() };
let frame = 0;
let revision = state.draft?.revision ?? 0;
let draftTimer: ReturnType<typeof setTimeout> | undefined;

const act = (action: ActionId): void => post({ type: 'action', action });

const status = new StatusView({ act });
const welcome = h(
  'div',
  { class: 'welcome' },
  h('h2', {}, 'Ask about this workspace'),
  h('p', {}, 'SALA reads the whole workspace into the memory of a model on this machine. Nothing leaves it.'),
  h(
    'div',
    { class: 'examples' },
    ...['What does this project do?', 'Where is the entry point?', 'Which file holds the settings?'].map((question) =>
      h('button', { type: 'button', class: 'example', onclick: () => ask(question) }, question),
    ),
  ),
);
const turns = new TurnsView(
  {
    act,
    copy: (text) => post({ type: 'copy', text }),
    insert: (text) => post({ type: 'insert', text }),
    retry: (turn, searchAll = false) => {
      turns.follow();
      post({ type: 'retry', turn, searchAll });
    },
    reveal: (sources) => post({ type: 'reveal', sources }),
    openLink: (href) => post({ type: 'open_link', href }),
    rootName: (root) => (state.surface.roots.length > 1 ? (state.surface.roots.find(({ path }) => path === root)?.name ?? root) : ''),
  },
  welcome,
  () => draftChanged(),
);
const composer = new ComposerView({
  ask,
  stop: stopRunning,
  attachSelection: () => post({ type: 'attach_selection' }),
  detach: () => post({ type: 'detach' }),
  changed: () => draftChanged(),
});

document.body.append(
  turns.element,
  h('footer', { class: 'foot' }, turns.toEnd, status.notice, composer.element, status.line),
  status.spoken,
);

document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || event.isComposing) return;
  event.preventDefault();
  if (!stopRunning()) post({ type: 'focus_editor' });
});
// Coming in by keyboard or command one wants to type.
window.addEventListener('focus', () => {
  if (document.activeElement === document.body) composer.focus();
});
// The last chance before a reload or another view takes this page's place.
window.addEventListener('pagehide', sendDraft);
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'hidden') sendDraft();
});

onMessage((message) => {
  const before = state;
  state = reduce(state, message);
  if (message.type === 'restore' && !before.ready) {
    draw();
    restoreDraft();
    return;
  }
  // The command that asks for it has given the page the focus; if it has gone elsewhere since, it is not taken back.
  if (message.type === 'focus_composer' && document.hasFocus()) composer.focus();
  if (message.type === 'asked') turns.follow();
  speak(message, before);
  if (state !== before) drawSoon();
});
post({ type: 'ready' });

function ask(question: string): void {
  if (!state.surface.canAsk || runningTurn(state) !== undefined) return;
  post({ type: 'ask', question });
}

/** True if something was running. */
function stopRunning(): boolean {
  const running = runningTurn(state);
  if (running !== undefined) post({ type: 'stop', turn: running.turn });
  return running !== undefined;
}

/** Tokens may come faster than frames. A page that is not shown has no frames, and must not fall behind. */
function drawSoon(): void {
  if (frame !== 0) return;
  if (document.visibilityState === 'hidden') draw();
  else frame = requestAnimationFrame(draw);
}

function draw(): void {
  frame = 0;
  document.body.classList.toggle('ready', state.ready);
  welcome.hidden = state.turns.length > 0;
  for (const button of welcome.querySelectorAll('button')) button.disabled = !state.surface.canAsk;
  turns.update(state.turns, state.surface.ingest?.coverage);
  composer.update({ running: runningTurn(state) !== undefined, canAsk: state.surface.canAsk, attachment: state.attachment });
  status.update(state.surface);
}

function speak(message: ToWebview, before: State): void {
  switch (message.type) {
    case 'phase':
      // Once a phase: its numbers are to be seen, not to be heard.
      if (runningTurn(before)?.phase !== message.phase) status.say(phaseSentence(message));
      break;
    case 'answered': {
      const { record } = message;
      const notes = missingSentence(record.missing) ?? (record.uncertain && record.attachment === null ? uncertainSentence : '');
      const left = record.unsearched === undefined ? '' : unsearchedSentence(record.unsearched);
      status.say([record.stop === 'cancelled' ? 'Stopped.' : 'Answer:', notes, record.answer, left].filter((s) => s !== '').join(' '));
      break;
    }
    case 'failed':
      status.say(message.failure.sentence);
      break;
    default:
  }
}

// ---- draft ------------------------------------------------------------------------------------------------------------

function currentDraft(): Draft {
  return { revision, ...composer.draft(), anchor: turns.anchor() };
}

function draftChanged(): void {
  if (!state.ready) return;
  revision += 1;
  keepDraft(currentDraft());
  draftTimer ??= setTimeout(sendDraft, 200);
}

function sendDraft(): void {
  clearTimeout(draftTimer);
  draftTimer = undefined;
  if (state.ready) post({ type: 'draft', draft: currentDraft() });
}

function restoreDraft(): void {
  const { draft } = state;
  if (draft === null) {
    turns.follow();
    return;
  }
  revision = draft.revision;
  composer.restore(draft);
  turns.scrollTo(draft.anchor);
}
