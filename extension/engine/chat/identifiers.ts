// Names in questions and answers: which words of a question are identifiers or paths, and which of an answer are nowhere in the
// workspace, are paths to link, or paths to correct. Pure: the caller looks the names up (workspace/search.ts) in between.
// Code inside fences is never touched, since new code introduces new names; in inline code and prose identifiers are marked and
// paths linked or corrected. The same text and facts give the same marks, so a streamed answer can be marked at any length.

import type { AnswerMark, Source } from '../messages';
import { classOf, extensionOf } from '../workspace/classify';

// ---- names ----------------------------------------------------------------------------------------------------------------

const word = '[\\p{L}_$][\\p{L}\\p{N}_$]*';
/** `a`, `a.b`, `a::b`, `a->b`, `A#b`, each perhaps called. */
const identifierPattern = new RegExp(`(?<![\\p{L}\\p{N}_$.@/-])${word}(?:(?:\\.|::|->|#)${word})*(?:\\(\\))?(?![\\p{L}\\p{N}_$])`, 'gu');
/** Something with a folder or an extension; whether it is a path is asked afterwards. */
const pathPattern =
  /(?<![\p{L}\p{N}_@:/\\.~+-])(?:\.{1,2}[/\\]|[/\\])?(?:[\p{L}\p{N}_.@+~-]+[/\\])*[\p{L}\p{N}_.@+~-]*[\p{L}\p{N}_+~-](?![/\\\p{L}\p{N}_(])/gu;
const urlPattern = /\b[a-z][a-z0-9+.-]*:\/\/[^\s<>)\]`"']+|\bwww\.[^\s<>)\]`"']+/gi;

/** Abbreviations and products that look like a path or a member. */
const notNames = new Set(
  (
    'e.g i.e a.k.a etc vs p.s a.m p.m u.s cf al node.js vue.js next.js nuxt.js express.js react.js angular.js three.js d3.js ' +
    'backbone.js ember.js socket.io asp.net vb.net ml.net'
  ).split(' '),
);

const codeExtensions = new Set(
  (
    'c h cc cpp cxx hpp hh hxx inl ipp cu cuh m mm ts tsx mts cts js jsx mjs cjs py pyi pyx ipynb rb rs go java kt kts scala ' +
    'groovy gradle cs fs vb swift dart lua pl pm php r jl hs lhs ml mli ex exs erl hrl clj cljs cljc edn el lisp scm rkt zig nim v ' +
    'sv svh vhd vhdl asm s sh bash zsh fish ps1 bat cmd sql graphql gql proto thrift cmake mk make bzl bazel html htm css scss ' +
    'sass less vue svelte astro tf hcl nix gd glsl hlsl wgsl vert frag metal f f90 f95 for cob pas d cr sol move tcl awk sed vim ' +
    'lock env gitignore dockerfile'
  ).split(' '),
);

function hasKnownExtension(path: string): boolean {
  const extension = extensionOf(path.replaceAll('\\', '/'));
  return extension !== '' && (codeExtensions.has(extension) || (classOf(path) !== 'code' && !/^\d+$/.test(extension)));
}

/** A name that cannot be a word of prose: with `_`, `$`, a digit, an inner capital, `.`, `::`, `->`, `#` or `()`. */
function looksLikeIdentifier(name: string): boolean {
  if (notNames.has(name.toLowerCase())) return false;
  if (/[_$\d]|::|->|\(\)$|[.#]/.test(name)) return true;
  // camelCase, PascalCase, HTTPServer; not APIs, which is a plural, nor API, which is a word.
  return /[\p{Ll}][\p{Lu}]/u.test(name) || /^\p{Lu}{2,}\p{Ll}{2,}/u.test(name);
}

/** The words that must all stand in the workspace for a name to be there: `Ring::push()` → Ring, push. */
export function componentsOf(name: string): string[] {
  return name.replace(/\(\)$/, '').split(/\.|::|->|#/).filter((part) => part !== '');
}

// ---- questions ---------------------------------------------------------------------------------------------------------------

/** Identifiers of a question in the order of their first mention, without `()`; paths are not among them. */
export function questionIdentifiers(question: string): string[] {
  const found = new Set<string>();
  for (const { name, quoted } of namesIn(question)) {
    if (quoted || looksLikeIdentifier(name)) found.add(name.replace(/\(\)$/, ''));
  }
  return [...found];
}

/** Paths and file names of a question, in the order of their first mention, with '/'. */
export function questionPaths(question: string): string[] {
  return [...new Set(pathsIn(question).filter(({ path }) => hasKnownExtension(path)).map(({ path }) => path))];
}

// ---- answers -----------------------------------------------------------------------------------------------------------------

export interface FileName {
  readonly root: string;
  readonly path: string;
}

export interface AnswerFacts {
  /** Whether a word stands anywhere in the workspace; asked only for `answerNames(answer).words`. */
  readonly occurs: (word: string) => boolean;
  /** The files that a mention may mean: the very path, or all whose path ends in it. */
  readonly resolve: (mention: string) => readonly FileName[];
  readonly sources: readonly Source[];
  /** Paths that the question names: one that is nowhere stays as it is, since the answer speaks about it. */
  readonly asked?: readonly string[];
  /** Number of lines of a file, where it is known: a mention of a later line is marked. */
  readonly lines?: (file: FileName) => number | undefined;
  /** A line of the file that holds the name asked for, where there is one. */
  readonly lineOf?: (file: FileName) => number | undefined;
}

export interface MarkedAnswer {
  readonly answer: string;
  readonly marks: readonly AnswerMark[];
}

/** What has to be looked up before an answer can be marked. */
export function answerNames(answer: string): { readonly words: readonly string[]; readonly paths: readonly string[] } {
  const words = new Set<string>();
  const paths = new Set<string>();
  for (const piece of piecesOf(answer)) {
    for (const { path } of pathsIn(piece.text)) paths.add(path);
    for (const name of checkedNames(piece)) componentsOf(name.name).forEach((part) => words.add(part));
    // A member access may look like a file; its parts decide.
    for (const { path } of pathsIn(piece.text)) if (!path.includes('/')) componentsOf(path).forEach((part) => words.add(part));
  }
  return { words: [...words], paths: [...paths] };
}

/**
 * The answer with corrected paths, and its marks in order. A path that is in the workspace gets a link for each file that it
 * may mean; one that is not is replaced by the source's path that it abbreviates, else by the first source's. With
 * `complete: false` a name that touches the end is left alone, for it may go on.
 */
export function markAnswer(answer: string, facts: AnswerFacts, { complete = true }: { complete?: boolean } = {}): MarkedAnswer {
  const changes: Change[] = [];
  for (const piece of piecesOf(answer)) {
    const taken: [number, number][] = [];
    for (const mention of pathsIn(piece.text)) {
      const change = changeOfPath(answer, mention, piece.start, facts);
      if (!change) continue;
      taken.push([mention.start, mention.end]);
      if (change.marks.length > 0 || change.text !== undefined) changes.push(change);
    }
    for (const { name, start } of checkedNames(piece)) {
      if (taken.some(([from, to]) => start < to && start + name.length > from)) continue;
      if (componentsOf(name).every((part) => facts.occurs(part))) continue;
      changes.push({ start: piece.start + start, end: piece.start + start + name.length, marks: [{ kind: 'unknown' }] });
    }
  }
  changes.sort((a, b) => a.start - b.start);
  return apply(answer, complete ? changes : changes.filter(({ end }) => end < answer.length));
}

interface Change {
  readonly start: number;
  readonly end: number;
  readonly text?: string;
  readonly marks: readonly Omit<AnswerMark, 'start' | 'end'>[];
}

function apply(answer: string, changes: readonly Change[]): MarkedAnswer {
  let text = '';
  let done = 0;
  const marks: AnswerMark[] = [];
  for (const change of changes) {
    text += answer.slice(done, change.start);
    const start = text.length;
    text += change.text ?? answer.slice(change.start, change.end);
    for (const mark of change.marks) marks.push({ start, end: text.length, ...mark });
    done = change.end;
  }
  return { answer: text + answer.slice(done), marks };
}

// ---- paths of an answer ----------------------------------------------------------------------------------------------------

/** Files offered where a bare name may mean many. */
const maxChoices = 10;

/** What becomes of a path; undefined: it is no path at all, perhaps an identifier. */
function changeOfPath(answer: string, mention: PathMention, offset: number, facts: AnswerFacts): Change | undefined {
  const { path, written } = mention;
  const start = offset + mention.start;
  const end = offset + mention.end;
  const line = lineAfter(answer, end);
  const files = facts.resolve(path);
  if (files.length === 0) {
    if (!hasKnownExtension(path)) return undefined;
    if (!path.includes('/') && componentsOf(path).every((part) => facts.occurs(part))) return undefined;
    const [first] = facts.sources;
    if (first === undefined || facts.asked?.some((asked) => samePath(asked, path))) return { start, end, marks: [{ kind: 'unknown' }] };
    return corrected(start, end, written, first, facts, undefined);
  }
  const fromSources = files.filter((file) => facts.sources.some((source) => isSame(source, file)));
  const possible = fromSources.length > 0 ? fromSources : files;
  // Of several files of one name, those that hold the name asked for are meant.
  const holding = possible.filter((file) => facts.lineOf?.(file) !== undefined);
  const choices = (holding.length > 0 ? holding : possible).slice(0, maxChoices);
  const [only] = choices;
  if (line !== undefined && choices.every((file) => line > (facts.lines?.(file) ?? Infinity))) {
    return { start, end, marks: [{ kind: 'unknown' }] };
  }
  if (only && choices.length === 1 && fromSources.some((file) => isSame(file, only)) && only.path !== path) {
    return corrected(start, end, written, only, facts, line);
  }
  return { start, end, marks: choices.map((file) => ({ kind: 'link', source: placeIn(file, line, facts) })) };
}

function corrected(start: number, end: number, was: string, file: FileName, facts: AnswerFacts, line: number | undefined): Change {
  const marks: Change['marks'] = [
    { kind: 'corrected', was },
    { kind: 'link', source: placeIn(file, line, facts) },
  ];
  return { start, end, text: file.path, marks };
}

/** The line that the text names, else one with the name asked for, else the source's lines. */
function placeIn(file: FileName, line: number | undefined, facts: AnswerFacts): Source {
  const source = facts.sources.find((candidate) => isSame(candidate, file));
  const at = line !== undefined && line >= 1 ? line : facts.lineOf?.(file);
  const range = at === undefined ? { start_line: source?.start_line ?? 1, end_line: source?.end_line ?? 1 } : { start_line: at, end_line: at };
  return { root: file.root, path: file.path, ...range, weight: source?.weight ?? 0 };
}

/** `:12`, `#L12`, `(line 12`, `, line 12`, ` at line 12`, possibly behind a closing backtick. */
function lineAfter(answer: string, end: number): number | undefined {
  const match = /^(?::|#L)(\d{1,7})\b|^`?(?:,| at| on| \()? ?\(?lines? (\d{1,7})\b/.exec(answer.slice(end, end + 40));
  const digits = match?.[1] ?? match?.[2];
  return digits === undefined ? undefined : Number(digits);
}

function isSame(a: FileName, b: FileName): boolean {
  return a.root === b.root && a.path === b.path;
}

function samePath(asked: string, path: string): boolean {
  return asked === path || asked.endsWith(`/${path}`) || path.endsWith(`/${asked}`);
}

// ---- reading text --------------------------------------------------------------------------------------------------------------

interface Piece {
  readonly text: string;
  readonly start: number;
  readonly kind: 'prose' | 'code';
}

/**
 * Prose and inline code of Markdown; fenced blocks left out, an unclosed one to the end, its fences recognised inside lists and
 * quotations too (CommonMark 4.5 without its limit of three spaces).
 */
function* piecesOf(markdown: string): Generator<Piece> {
  let fence: string | undefined;
  let proseStart = 0;
  for (let at = 0; at < markdown.length; ) {
    const newline = markdown.indexOf('\n', at);
    const end = newline < 0 ? markdown.length : newline + 1;
    const marker = /^[ \t>]*(?:(?:[-*+]|\d+[.)])[ \t]+)?(`{3,}(?!.*`)|~{3,})(.*)/.exec(markdown.slice(at, end).replace(/\r?\n$/, ''));
    if (fence === undefined && marker) {
      yield* inlinePieces(markdown.slice(proseStart, at), proseStart);
      fence = marker[1];
    } else if (fence !== undefined && marker?.[1] !== undefined && marker[2]?.trim() === '' && marker[1].startsWith(fence)) {
      fence = undefined;
      proseStart = end;
    }
    at = end;
  }
  if (fence === undefined) yield* inlinePieces(markdown.slice(proseStart), proseStart);
}

/** A run of backticks opens code that ends at the next run of the same length; without one it is text. */
function* inlinePieces(text: string, offset: number): Generator<Piece> {
  let done = 0;
  for (const opening of text.matchAll(/`+/g)) {
    if (opening.index < done) continue;
    const start = opening.index + opening[0].length;
    const closing = new RegExp(`(?<!\`)\`{${opening[0].length}}(?!\`)`, 'g');
    closing.lastIndex = start;
    const end = closing.exec(text)?.index;
    if (end === undefined) continue;
    yield { text: text.slice(done, opening.index), start: offset + done, kind: 'prose' };
    yield { text: text.slice(start, end), start: offset + start, kind: 'code' };
    done = end + opening[0].length;
  }
  yield { text: text.slice(done), start: offset + done, kind: 'prose' };
}

interface Name {
  readonly name: string;
  readonly start: number;
  /** It is all that a pair of backticks holds. */
  readonly quoted: boolean;
}

function* namesIn(markdown: string): Generator<Name> {
  for (const piece of piecesOf(markdown)) yield* pieceNames(piece);
}

function* pieceNames({ text, kind }: Piece): Generator<Name> {
  const free = blank(text, urlPattern);
  const paths = pathsIn(text).filter(({ path }) => hasKnownExtension(path));
  for (const match of free.matchAll(identifierPattern)) {
    const { index: start, 0: name } = match;
    if (paths.some((path) => start < path.end && start + name.length > path.start)) continue;
    yield { name, start, quoted: kind === 'code' && name === text.trim() };
  }
}

/** Words of every language, which an answer may quote without their standing in the workspace. */
const commonWords = new Set(
  (
    'true false null nil none undefined int float double bool boolean string str char void if else for while do return break ' +
    'continue switch case default class struct enum interface function func def let const var static public private protected ' +
    'async await try catch except finally throw raise import export from new this self super with yield lambda in is not and or'
  ).split(' '),
);

/** Names of an answer that must be somewhere: all that look like identifiers, and single words in backticks. */
function* checkedNames(piece: Piece): Generator<Name> {
  for (const name of pieceNames(piece)) {
    if (looksLikeIdentifier(name.name) || (name.quoted && !commonWords.has(name.name.toLowerCase()))) yield name;
  }
}

interface PathMention {
  /** With '/', without a leading './'. */
  readonly path: string;
  readonly written: string;
  readonly start: number;
  readonly end: number;
}

function pathsIn(text: string): PathMention[] {
  const found: PathMention[] = [];
  for (const match of blank(text, urlPattern).matchAll(pathPattern)) {
    const written = match[0];
    if (!/[/\\.]/.test(written) || notNames.has(written.toLowerCase())) continue;
    const path = written.replaceAll('\\', '/').replace(/^(?:\.\/)+/, '');
    // `2.5` and `foo.bar` are no paths; `and/or` is none either, but `src/Makefile` may be: whether it is there decides.
    if (!hasKnownExtension(path) && !path.includes('/')) continue;
    found.push({ path, written, start: match.index, end: match.index + written.length });
  }
  return found;
}

/** The same text with each match replaced by spaces, so that offsets stay. */
function blank(text: string, pattern: RegExp): string {
  return text.replace(pattern, (match) => ' '.repeat(match.length));
}
