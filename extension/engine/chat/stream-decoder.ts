// Generated ids → text as it comes. A character whose bytes are spread over several tokens is held back until it is whole;
// special tokens show nothing.

import type { Tokenizer } from '../tokenizer';

export class StreamDecoder {
  private readonly decoder = new TextDecoder('utf-8', { ignoreBOM: true });

  constructor(private readonly tokenizer: Tokenizer) {}

  /** Text that is complete with this token; may be empty. Bytes that can never become a character show as U+FFFD. */
  push(id: number): string {
    if (this.tokenizer.isSpecial(id)) return '';
    return this.decoder.decode(this.tokenizer.bytesOf(id), { stream: true });
  }

  /** The end: a character that was not finished is dropped, since whoever stopped the answer cut it. Always empty. */
  end(): string {
    this.decoder.decode();
    return '';
  }
}
