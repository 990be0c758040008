// What the webview posts is data from a page that showed a model's output: every field is looked at before it is believed.

import { actionIds, type Draft, type ToHost } from '../protocol';
import type { Source } from '../engine/messages';

/** The message, rebuilt from its checked fields; null if it is none of ours. */
export function parseToHost(value: unknown): ToHost | null {
  if (!isObject(value)) return null;
  switch (value['type']) {
    case 'ready':
    case 'attach_selection':
    case 'detach':
    case 'export_conversation':
    case 'focus_editor':
      return { type: value['type'] };
    case 'ask':
      return isText(value['question']) ? { type: 'ask', question: value['question'] } : null;
    case 'stop':
      return isCount(value['turn']) ? { type: 'stop', turn: value['turn'] } : null;
    case 'retry':
      return isCount(value['turn']) ? { type: 'retry', turn: value['turn'], searchAll: value['searchAll'] === true } : null;
    case 'copy':
    case 'insert':
      return isText(value['text']) ? { type: value['type'], text: value['text'] } : null;
    case 'open_link':
      return isText(value['href']) && /^https?:\/\//i.test(value['href']) ? { type: 'open_link', href: value['href'] } : null;
    case 'action': {
      const action = actionIds.find((id) => id === value['action']);
      return action === undefined ? null : { type: 'action', action };
    }
    case 'reveal': {
      const sources = parseSources(value['sources']);
      return sources === null ? null : { type: 'reveal', sources };
    }
    case 'draft': {
      const draft = parseDraft(value['draft']);
      return draft === null ? null : { type: 'draft', draft };
    }
    default:
      return null;
  }
}

/** At least one, and all of them sound. */
function parseSources(value: unknown): readonly Source[] | null {
  if (!Array.isArray(value) || value.length === 0) return null;
  const sources = value.map(parseSource);
  return sources.every((source) => source !== null) ? sources : null;
}

function parseSource(value: unknown): Source | null {
  if (!isObject(value)) return null;
  const { root, path, start_line, end_line, weight } = value;
  if (!isText(root) || !isText(path) || !isCount(start_line) || !isCount(end_line) || typeof weight !== 'number') return null;
  return { root, path, start_line, end_line, weight };
}

function parseDraft(value: unknown): Draft | null {
  if (!isObject(value)) return null;
  const { revision, text, selectionStart, selectionEnd, anchor } = value;
  if (!isCount(revision) || !isText(text) || !isCount(selectionStart) || !isCount(selectionEnd)) return null;
  if (anchor === null) return { revision, text, selectionStart, selectionEnd, anchor };
  if (!isObject(anchor) || !isCount(anchor['turn']) || typeof anchor['offset'] !== 'number') return null;
  return { revision, text, selectionStart, selectionEnd, anchor: { turn: anchor['turn'], offset: anchor['offset'] } };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function isText(value: unknown): value is string {
  return typeof value === 'string';
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
