// The path line in front of a segment, which names its file to the model. Pure; the form is the model's (sala.json).

import type { Tokenizer } from '../tokenizer';

/**
 * Tokens of the header. `path` is relative to its root, with '/'. A path that would take more than `maxTokens` keeps its end,
 * behind '…'.
 */
export function headerTokens(tokenizer: Tokenizer, template: string, path: string, maxTokens: number): Int32Array {
  let kept = Array.from(safePath(path));
  let tokens = tokenizer.encodeTemplate(template, { path: kept.join('') });
  while (tokens.length > maxTokens && kept.length > 0) {
    kept = kept.slice(Math.ceil(kept.length / 2));
    tokens = tokenizer.encodeTemplate(template, { path: `…${kept.join('')}` });
  }
  return tokens;
}

/**
 * A path that stays on its line: control characters and line separators, which file names may hold, are written as `%` and two
 * hexadecimal digits for each of their UTF-8 bytes. Everything else stays, `%` too: the header is read, never parsed.
 */
export function safePath(path: string): string {
  return path.replace(/[\p{Cc}\u2028\u2029]/gu, (char) =>
    Array.from(Buffer.from(char), (byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`).join(''),
  );
}
