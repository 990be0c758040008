// The page's door to the extension host: typed messages out, messages in, and the small state that VS Code keeps for the page
// itself. The only file that touches `acquireVsCodeApi`.

import type { Draft, ToHost, ToWebview } from '../extension/protocol';

interface VsCodeApi {
  postMessage(message: ToHost): void;
  getState(): unknown;
  setState(state: unknown): void;
}

declare function acquireVsCodeApi(): VsCodeApi;

const vscode = acquireVsCodeApi();

export function post(message: ToHost): void {
  vscode.postMessage(message);
}

export function onMessage(handle: (message: ToWebview) => void): void {
  window.addEventListener('message', (event: MessageEvent<unknown>) => {
    const { data } = event;
    // Other frames may post here as well; ours always carry a type.
    if (typeof data === 'object' && data !== null && typeof (data as { type?: unknown }).type === 'string') handle(data as ToWebview);
  });
}

/** The draft as this page last kept it: newer than the host's when the window was closed in the middle of typing. */
export function keptDraft(): Draft | null {
  const state = vscode.getState();
  return typeof state === 'object' && state !== null && 'draft' in state ? (state as { draft: Draft }).draft : null;
}

export function keepDraft(draft: Draft): void {
  vscode.setState({ draft });
}
