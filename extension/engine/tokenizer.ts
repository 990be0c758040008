// Text → token ids and back, exact to the byte. Wraps @huggingface/tokenizers in three ways: Unicode normalizers are left out
// (they would change the text), text of the workspace and of users can never become a special token, and very long lines are
// cut before the library sees them. Nothing here knows about segments or prompts.

import { Tokenizer as Library } from '@huggingface/tokenizers';
import { EngineError } from './errors';
import type { JsonObject, ModelFolder } from './model-folder';

export interface LineTokens {
  /** Tokens of all lines, one after the other. */
  readonly tokens: Int32Array;
  /** How many of them each line has. */
  readonly counts: Int32Array;
}

/** Pieces of this many UTF-16 units at most are given to the library: its time grows faster than the length of a word. */
const maxPieceUnits = 2048;
/** At least so many lines are kept with their tokens: an edited file is mostly the file that was. */
const cachedLines = 8192;
/** The same for words, of which a repository repeats most. */
const cachedWords = 16384;
/** Longer lines and words are rarely seen twice. */
const maxCachedUnits = 256;

export class Tokenizer {
  private readonly library: Library;
  private readonly added: ReadonlyMap<string, number>;
  private readonly specialIds: ReadonlySet<number>;
  /** Splits a template into added tokens (odd places) and text. */
  private readonly addedPattern: RegExp;
  /** Bytes of all tokens, one after the other; token `id` is at offsets[id] … offsets[id + 1]. */
  private readonly bytes: Uint8Array;
  private readonly offsets: Uint32Array;
  private readonly lines = new Recent<Int32Array>(cachedLines);
  private readonly words = new Recent<readonly number[]>(cachedWords);

  /** Throws `model_invalid` if the tokenizer does not fit the model or cannot express every byte. */
  constructor(model: Pick<ModelFolder, 'dir' | 'tokenizer' | 'vocabSize'>) {
    const json = model.tokenizer;
    const fail = (expected: string): EngineError =>
      new EngineError('model_invalid', `${model.dir}/tokenizer.json: expected ${expected}`);
    const vocab = checkedVocab(json, fail);
    const added = checkedAdded(json, fail);
    this.added = new Map(added.map(({ content, id }) => [content, id]));
    this.specialIds = new Set(added.filter(({ special }) => special).map(({ id }) => id));
    const contents = [...this.added.keys()].sort((a, b) => b.length - a.length);
    this.addedPattern = contents.length > 0 ? new RegExp(`(${contents.map(escapeRegExp).join('|')})`, 'u') : /($.)/u;

    const family = familyOf(json, fail);
    const pieces: string[] = [];
    for (const [piece, id] of Object.entries(vocab)) pieces[id] = piece;
    const addedIds = new Set<number>();
    for (const [content, id] of this.added) {
      pieces[id] = content;
      addedIds.add(id);
    }
    if (pieces.length > model.vocabSize) {
      throw fail(`ids below the model's vocab_size ${model.vocabSize}, found ${pieces.length - 1}`);
    }
    for (let byte = 0; byte < 256; byte++) {
      if (vocab[family.pieceOf(byte)] === undefined) throw fail(`a token for each byte, found none for ${byte}`);
    }
    // Into one buffer: an array of bytes for each piece costs as much as all else here.
    let units = 0;
    pieces.forEach((piece) => (units += piece.length));
    const bytes = Buffer.alloc(3 * units);
    this.offsets = new Uint32Array(model.vocabSize + 1);
    let end = 0;
    for (let id = 0; id < model.vocabSize; id++) {
      const piece = pieces[id];
      if (piece !== undefined) end = addedIds.has(id) ? end + bytes.write(piece, end) : family.write(piece, bytes, end);
      this.offsets[id + 1] = end;
    }
    this.bytes = new Uint8Array(bytes.subarray(0, end));

    try {
      this.library = new Library(
        {
          ...json,
          added_tokens: [],
          normalizer: withoutRewriting(json['normalizer']),
          pre_tokenizer: withoutPrefixSpace(json['pre_tokenizer']),
          post_processor: null,
          decoder: null,
        },
        {},
      );
    } catch (error) {
      throw fail(`a tokenizer that we implement, found: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  /**
   * Tokens of any text that is not ours. No special token can come of it: `<|im_end|>` becomes ordinary tokens. A lone
   * surrogate, which no byte sequence stands for, becomes U+FFFD.
   */
  encodeText(text: string): Int32Array {
    text = text.replace(/[\ud800-\udfff]/gu, '\ufffd');
    if (text.length <= maxPieceUnits) return this.encodePiece(text);
    const parts: Int32Array[] = [];
    for (let begin = 0; begin < text.length; ) {
      const end = pieceEnd(text, begin);
      parts.push(this.encodePiece(text.slice(begin, end)));
      begin = end;
    }
    return concat(parts);
  }

  /** Each line with its ending is encoded apart, as in training. A line ends behind `\n`. */
  encodeLines(text: string): LineTokens {
    const lines = linesOf(text).map((line) => this.encodeLine(line));
    return { tokens: concat(lines), counts: Int32Array.from(lines, (tokens) => tokens.length) };
  }

  /** Tokens of one line; do not write into the result, it is kept. */
  encodeLine(line: string): Int32Array {
    if (line.length > maxCachedUnits) return this.encodeText(line);
    const known = this.lines.get(line);
    if (known !== undefined) return known;
    return this.lines.set(line, this.encodeText(line));
  }

  /**
   * Tokens of a template of ours or the model's, special tokens included. `{name}` stands for values.name, which is encoded
   * together with the template's text around it, but as text: it can add no special token.
   */
  encodeTemplate(template: string, values: Readonly<Record<string, string>> = {}): Int32Array {
    const parts = template.split(this.addedPattern).map((part, i) => {
      if (i % 2 === 1) return Int32Array.of(this.idOf(part));
      return this.encodeText(part.replace(/\{(\w+)\}/g, (whole, name: string) => values[name] ?? whole));
    });
    return concat(parts);
  }

  /** The text that the tokens stand for; bytes that are not UTF-8 (a character's half) become U+FFFD. */
  decode(ids: ArrayLike<number>): string {
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(this.decodeBytes(ids));
  }

  /** The bytes that the tokens stand for; ids that the vocabulary lacks stand for none. */
  decodeBytes(ids: ArrayLike<number>): Uint8Array {
    let length = 0;
    for (let i = 0; i < ids.length; i++) length += this.byteLength(ids[i] as number);
    const bytes = new Uint8Array(length);
    for (let i = 0, end = 0; i < ids.length; i++) {
      const part = this.bytesOf(ids[i] as number);
      bytes.set(part, end);
      end += part.length;
    }
    return bytes;
  }

  /** A view of one token's bytes. */
  bytesOf(id: number): Uint8Array {
    const begin = this.offsets[id] ?? 0;
    return this.bytes.subarray(begin, begin + this.byteLength(id));
  }

  byteLength(id: number): number {
    const begin = this.offsets[id];
    return begin === undefined ? 0 : (this.offsets[id + 1] ?? begin) - begin;
  }

  /** Id of a special token. Throws `model_invalid` if the vocabulary lacks it. */
  idOf(special: string): number {
    const id = this.added.get(special);
    if (id === undefined) throw new EngineError('model_invalid', `tokenizer.json: expected the added token ${special}, found none`);
    return id;
  }

  /** Special tokens are never shown. */
  isSpecial(id: number): boolean {
    return this.specialIds.has(id);
  }

  private encodePiece(text: string): Int32Array {
    const { normalizer, pre_tokenizer: preTokenizer } = this.library;
    const normal = normalizer === null ? text : normalizer.normalize(text);
    const ids: number[] = [];
    for (const word of preTokenizer === null ? [normal] : preTokenizer.pre_tokenize(normal)) {
      for (const id of this.encodeWord(word)) ids.push(id);
    }
    return Int32Array.from(ids);
  }

  private encodeWord(word: string): readonly number[] {
    const known = this.words.get(word);
    if (known !== undefined) return known;
    // The constructor made sure that there is a model and that every byte, so every word, has tokens.
    const model = this.library.model as NonNullable<Library['model']>;
    const ids = model.encode([word]).map((piece) => model.tokens_to_ids.get(piece) as number);
    return word.length > maxCachedUnits ? ids : this.words.set(word, ids);
  }
}

/**
 * What was asked for lately: what is found in the older half moves into the younger one, and a full younger half replaces the
 * older. A Map whose entries are taken out and put in again at each look-up, the usual way, costs 25 µs of Node's time at 10,000
 * entries, which is more than encoding a word.
 */
class Recent<Value> {
  private young = new Map<string, Value>();
  private old = new Map<string, Value>();

  constructor(private readonly half: number) {}

  get(key: string): Value | undefined {
    const value = this.young.get(key);
    if (value !== undefined) return value;
    const older = this.old.get(key);
    return older === undefined ? undefined : this.set(key, older);
  }

  set(key: string, value: Value): Value {
    if (this.young.size >= this.half) {
      this.old = this.young;
      this.young = new Map();
    }
    this.young.set(copied(key), value);
    return value;
  }
}

/** A part of a string keeps the whole of it alive, and so one new line each version of a large file. A lone surrogate is never found again. */
function copied(part: string): string {
  return Buffer.from(part).toString();
}

/** Lines with their endings; a line ends behind `\n`, and the last one may have no ending. */
export function linesOf(text: string): string[] {
  const lines: string[] = [];
  for (let begin = 0; begin < text.length; ) {
    const end = text.indexOf('\n', begin) + 1 || text.length;
    lines.push(text.slice(begin, end));
    begin = end;
  }
  return lines;
}

export function concat(parts: readonly Int32Array[]): Int32Array {
  const all = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let end = 0;
  for (const part of parts) {
    all.set(part, end);
    end += part.length;
  }
  return all;
}

/**
 * Where a piece of a long text ends. Preferred is the last place in its second half where an ASCII letter or digit is followed
 * by another ASCII character, unless that begins a contraction ('s): there every byte-level pre-tokenizer ends a word anyway, so
 * the cut changes no token. Where there is none (a run of one character, a text without spaces) the piece is full, but no
 * surrogate pair is cut.
 */
function pieceEnd(text: string, begin: number): number {
  const full = begin + maxPieceUnits;
  if (full >= text.length) return text.length;
  for (let end = full; end > begin + maxPieceUnits / 2; end--) {
    const next = text.charCodeAt(end);
    const contraction = next === 0x27 && isLetter(text.charCodeAt(end + 1));
    if (isWord(text.charCodeAt(end - 1)) && next < 0x80 && !isWord(next) && !contraction) return end;
  }
  const inPair = (text.charCodeAt(full) & 0xfc00) === 0xdc00 && (text.charCodeAt(full - 1) & 0xfc00) === 0xd800;
  return inPair ? full - 1 : full;
}

/** ASCII only. */
function isLetter(unit: number): boolean {
  return (unit >= 0x41 && unit <= 0x5a) || (unit >= 0x61 && unit <= 0x7a);
}

function isWord(unit: number): boolean {
  return isLetter(unit) || (unit >= 0x30 && unit <= 0x39);
}

// ---- tokenizer.json ---------------------------------------------------------------------------------------------------

type Fail = (expected: string) => EngineError;

/** How a family of tokenizers writes bytes into the pieces of its vocabulary. */
interface Family {
  /** Writes the bytes of a piece from `at` on, at most three for each unit of it; returns where they end. */
  write(piece: string, into: Buffer, at: number): number;
  /** The piece that stands for one byte. */
  pieceOf(byte: number): string;
}

function familyOf(json: JsonObject, fail: Fail): Family {
  if (typesOf(json['pre_tokenizer'], 'pretokenizers').includes('ByteLevel')) return byteLevel();
  if ((json['model'] as JsonObject)['byte_fallback'] === true) return byteFallback;
  throw fail('byte-level BPE or BPE with byte fallback');
}

/** GPT-2's alphabet: printable Latin-1 characters stand for themselves, the other bytes for U+0100, U+0101, … in order. */
function byteLevel(): Family {
  const pieces: string[] = [];
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    pieces.push(String.fromCharCode(printable ? byte : next++));
  }
  const bytes = new Int16Array(0x200).fill(-1);
  pieces.forEach((piece, byte) => (bytes[piece.charCodeAt(0)] = byte));
  return {
    write(piece, into, at) {
      for (let i = 0; i < piece.length; i++) {
        const byte = bytes[piece.charCodeAt(i)] ?? -1;
        if (byte >= 0) {
          into[at++] = byte;
          continue;
        }
        const char = String.fromCodePoint(piece.codePointAt(i) as number);
        at += into.write(char, at);
        i += char.length - 1;
      }
      return at;
    },
    pieceOf: (byte) => pieces[byte] as string,
  };
}

/** SentencePiece: `▁` is a space and `<0x0A>` a byte. A `▁` of the text itself is read as a space: the one loss of that family. */
const byteFallback: Family = {
  write(piece, into, at) {
    const byte = /^<0x([0-9A-F]{2})>$/.exec(piece)?.[1];
    if (byte === undefined) return at + into.write(piece.replaceAll('▁', ' '), at);
    into[at] = parseInt(byte, 16);
    return at + 1;
  },
  pieceOf: (byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
};

function checkedVocab(json: JsonObject, fail: Fail): Record<string, number> {
  const model = json['model'] as JsonObject | null | undefined;
  if (typeof model !== 'object' || model === null || (model['type'] !== undefined && model['type'] !== 'BPE')) {
    throw fail('a BPE model');
  }
  const vocab = model['vocab'];
  if (typeof vocab !== 'object' || vocab === null || !Object.values(vocab).every(isId)) throw fail('model.vocab to map texts to ids');
  if (!Array.isArray(model['merges'])) throw fail('model.merges to be a list');
  return vocab as Record<string, number>;
}

function checkedAdded(json: JsonObject, fail: Fail): { id: number; content: string; special: boolean }[] {
  const added = json['added_tokens'] ?? [];
  if (!Array.isArray(added)) throw fail('added_tokens to be a list');
  return (added as JsonObject[]).map((token) => {
    const id = token?.['id'];
    const content = token?.['content'];
    if (!isId(id) || typeof content !== 'string' || content === '') throw fail('added_tokens with id and content');
    return { id, content, special: token['special'] === true };
  });
}

function isId(id: unknown): id is number {
  return typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < 1 << 24;
}

function typesOf(node: unknown, listKey: string): unknown[] {
  if (typeof node !== 'object' || node === null) return [];
  const { type, [listKey]: list } = node as JsonObject;
  return type === 'Sequence' && Array.isArray(list) ? list.flatMap((item) => typesOf(item, listKey)) : [type];
}

/** A normalizer that keeps every text as it is: of a Sequence only Replace stays, which writes spaces as `▁`. */
function withoutRewriting(normalizer: unknown): unknown {
  if (typeof normalizer !== 'object' || normalizer === null) return null;
  const { type, normalizers } = normalizer as JsonObject;
  if (type === 'Replace') return normalizer;
  if (type !== 'Sequence' || !Array.isArray(normalizers)) return null;
  const kept = (normalizers as unknown[]).map(withoutRewriting).filter((item) => item !== null);
  return kept.length > 0 ? { type, normalizers: kept } : null;
}

/** Texts are encoded in parts that are put together, so no part may begin with a space of the tokenizer's own. */
function withoutPrefixSpace(preTokenizer: unknown): unknown {
  if (typeof preTokenizer !== 'object' || preTokenizer === null) return null;
  const { type, pretokenizers } = preTokenizer as JsonObject;
  if (type === 'Sequence' && Array.isArray(pretokenizers)) return { type, pretokenizers: (pretokenizers as unknown[]).map(withoutPrefixSpace) };
  if (type === 'ByteLevel') return { ...preTokenizer, add_prefix_space: false };
  return type === 'Metaspace' ? { ...preTokenizer, prepend_scheme: 'never' } : preTokenizer;
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&');
}
