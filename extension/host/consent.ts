// Asks once in each workspace whether it may be read in the background, with what that costs. A question that is put aside stays
// in the chat view and the status bar's menu; it is not asked again by a toast, nor by one where the chat view is in sight: that asks
// it by itself, and VS Code has no way to take a toast back once it was answered there.

import * as vscode from 'vscode';
import type { Session } from './session';
import { asksConsent, consentNotice } from './surface';

export class ConsentQuestion implements vscode.Disposable {
  readonly #subscription: vscode.Disposable;
  #asking = false;

  constructor(
    private readonly session: Session,
    private readonly isChatVisible: () => boolean,
  ) {
    this.#subscription = session.onDidChange(() => void this.#askOnce());
  }

  dispose(): void {
    this.#subscription.dispose();
  }

  async #askOnce(): Promise<void> {
    const { session } = this;
    // While the folders are being looked through, the cost is not known.
    if (session.consentAsked || this.#asking || !asksConsent(session) || session.ingest?.state === 'scanning') return;
    this.#asking = true;
    await session.setConsentAsked();
    if (this.isChatVisible()) return;
    const { sentence, actions } = consentNotice(session.ingest!.coverage, session);
    const picked = await vscode.window.showInformationMessage(sentence, ...actions.map(({ label }) => label));
    const id = actions.find(({ label }) => label === picked)?.id;
    const consent = id === 'grant_consent' ? 'granted' : 'declined';
    // Of several answers the last one counts.
    if (id !== undefined && session.consent !== consent) await session.setConsent(consent);
  }
}
