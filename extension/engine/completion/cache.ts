// Suggestions that can be answered without the engine: the same place again, typing along with a suggestion, and the rest of one
// that is being accepted word by word. A suggestion holds exactly as long as everything around it is what it was made for; any
// other edit drops it. One whose accepted text was deleted past its beginning is not offered again until more of it is typed.
// Pure; offsets are UTF-16.

export interface Suggestion {
  readonly document: string;
  /** The document when it was made, as the text before and after the cursor. */
  readonly before: string;
  readonly after: string;
  /** How much white space before the cursor it replaces. */
  readonly replaced: number;
  /** In place of what it replaces. */
  readonly text: string;
}

/** What is still to come of a suggestion at a cursor. */
export interface Offer {
  /** Offset in the document where `text` begins to replace; the end is the cursor. */
  readonly start: number;
  readonly text: string;
}

interface Refused {
  readonly document: string;
  /** Everything up to the end of the refused text. */
  readonly whole: string;
  /** Where the suggestion began. */
  readonly start: number;
}

/** How much more than the first time must be typed before a deleted suggestion is offered again. */
const moreTyped = 4;

export class CompletionCache {
  /** Newest first. */
  #suggestions: (Suggestion & { taken: boolean })[] = [];
  #refused: Refused[] = [];

  constructor(private readonly capacity = 32) {}

  put(suggestion: Suggestion): void {
    if (suggestion.text === '') return;
    this.#suggestions = [{ ...suggestion, taken: false }, ...this.#suggestions].slice(0, this.capacity);
  }

  /** The newest suggestion that fits, less what has been typed of it. */
  find(document: string, text: string, offset: number): Offer | null {
    for (const suggestion of this.#suggestions) {
      if (suggestion.document !== document) continue;
      const typed = typedOf(suggestion, text, offset);
      if (typed === null) continue;
      const offer = offerOf(suggestion, typed, offset);
      if (offer.text !== '' && !this.isRefused(document, text, offset, offer)) return offer;
    }
    return null;
  }

  /** Whether an offer, cached or new, would bring back what has just been deleted. */
  isRefused(document: string, text: string, offset: number, offer: Offer): boolean {
    return this.#refused.some(
      (r) => r.document === document && offset < r.start + moreTyped && text.slice(0, offer.start) + offer.text === r.whole,
    );
  }

  /**
   * To be called after every edit with the document as it is now and the cursor behind the edit; `inserted` is the text it
   * brought. Notices what was taken of a suggestion, and what was taken and deleted again.
   */
  edited(document: string, text: string, offset: number, inserted: string): void {
    this.#suggestions = this.#suggestions.filter((suggestion) => {
      if (suggestion.document !== document) return true;
      const start = suggestion.before.length - suggestion.replaced;
      const typed = typedOf(suggestion, text, offset);
      if (typed !== null) {
        // More than a key brings at once: accepted, whole or by the word.
        if (inserted.length > 1 && typed.endsWith(inserted)) suggestion.taken = true;
        // Back at the beginning, or taken back by undo, nothing of it is left.
        if (!suggestion.taken || typed !== '') return true;
      } else {
        const deleting = inserted === '' && offset <= suggestion.before.length && text === suggestion.before.slice(0, offset) + suggestion.after;
        if (!deleting) return false;
        if (!suggestion.taken) return true;
      }
      this.#refused = [{ document, whole: suggestion.before.slice(0, start) + suggestion.text, start: suggestion.before.length }, ...this.#refused].slice(0, this.capacity);
      return false;
    });
  }

  /** The user asked by command: what was refused may be offered again. */
  allow(document: string): void {
    this.#refused = this.#refused.filter((r) => r.document !== document);
  }

  forget(document: string): void {
    this.#suggestions = this.#suggestions.filter((s) => s.document !== document);
    this.allow(document);
  }
}

/** What has been typed of a suggestion since it was made; null where the document is another one by now. */
function typedOf({ before, after, replaced, text }: Suggestion, now: string, offset: number): string | null {
  if (offset < before.length || now.length - offset !== after.length || !now.endsWith(after)) {
    return takenWithIndentation({ before, after, replaced, text }, now, offset);
  }
  const typed = now.slice(before.length, offset);
  // With white space to replace nothing can be typed along: the suggestion is no continuation of the line.
  const continuation = replaced === 0 ? text : text.startsWith(before.slice(before.length - replaced)) ? text.slice(replaced) : null;
  if (continuation === null ? typed !== '' : !continuation.startsWith(typed)) {
    return takenWithIndentation({ before, after, replaced, text }, now, offset);
  }
  return now.startsWith(before) ? typed : null;
}

/** A suggestion that replaced indentation, taken whole. */
function takenWithIndentation({ before, after, replaced, text }: Pick<Suggestion, 'before' | 'after' | 'replaced' | 'text'>, now: string, offset: number): string | null {
  if (replaced === 0) return null;
  const whole = before.slice(0, before.length - replaced) + text;
  return offset === whole.length && now === whole + after ? text : null;
}

function offerOf({ before, replaced, text }: Suggestion, typed: string, offset: number): Offer {
  if (typed === text && replaced > 0) return { start: offset, text: '' };
  // The part that replaces stays until something of it is typed, so that its range stays the same.
  const start = before.length - replaced;
  return typed === '' ? { start, text } : { start: offset, text: text.slice(offset - start) };
}
