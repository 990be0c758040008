// Every message between a client (extension host, command line) and the engine process: plain data over vscode-jsonrpc on a
// local socket. The only place where they are defined; imports types only. Errors carry an EngineErrorCode in `data.code`.
// Paths: roots absolute; files relative to their root, with '/', as the file system gives them. Lines count from 1, offsets
// are bytes of the file as read, unless a name says otherwise.

import { NotificationType, NotificationType0, RequestType, RequestType0 } from 'vscode-jsonrpc/node';
import type { EngineErrorCode } from './errors';
import type { Activations } from './addon';

/** Raised when a message changes; the socket's name carries it, so a client never meets an engine of another protocol. */
export const protocolVersion = 6;

// ---- data -----------------------------------------------------------------------------------------------------------

export const fileStates = ['in', 'stale', 'waiting', 'reading', 'excluded', 'over_budget', 'unreadable'] as const;
export type FileState = (typeof fileStates)[number];

export const exclusionRules = [
  'ignored',
  'binary',
  'not_utf8',
  'too_large',
  'generated',
  'minified',
  'lock_file',
  'secret',
  'special',
  'outside',
  'worktree',
  'user',
  'volatile',
] as const;
export type ExclusionRule = (typeof exclusionRules)[number];

export interface FileCoverage {
  readonly root: string;
  readonly path: string;
  readonly state: FileState;
  readonly rule?: ExclusionRule;
  /** File and line of an ignore rule, the error of an unreadable file, the pack that a file's segments are from, … */
  readonly detail?: string;
  /** Tokens in memory; estimated from bytes while `waiting`. */
  readonly tokens: number;
  readonly bytes: number;
}

/** Of bounded size: more than some thousand changes at once are `everything`. */
export interface CoverageChange {
  readonly files: readonly FileCoverage[];
  /** No file of these names is there any more, or none that is not in an excluded folder. */
  readonly gone: readonly { readonly root: string; readonly path: string }[];
  readonly everything: boolean;
}

/** A place in the tree of all files: what lies below it has all of this. */
export interface CoveragePlace {
  readonly root?: string;
  readonly state?: FileState;
  /** Of what is excluded. */
  readonly rule?: ExclusionRule;
  /** Within the root. */
  readonly folder?: string;
}

export type CoverageNode =
  /** A root, a state or a rule: what its place has beside the level's, which is its level's order too. */
  | { readonly kind: 'group'; readonly place: CoveragePlace; readonly files: number; readonly tokens: number }
  | { readonly kind: 'folder'; readonly place: CoveragePlace; readonly files: number; readonly tokens: number }
  | { readonly kind: 'file'; readonly file: FileCoverage };

export interface CoverageLevel {
  readonly nodes: readonly CoverageNode[];
  /** So many were left out. */
  readonly more: number;
}

/** How much of the workspace has been read. Totals are estimated from bytes until everything is tokenized. */
export interface Coverage {
  readonly files: number;
  readonly tokens: number;
  readonly total_files: number;
  readonly total_tokens: number;
  readonly estimated: boolean;
}

export interface Root {
  /** Absolute path. */
  readonly path: string;
  /** Shown where paths of several roots collide. */
  readonly name: string;
  /** Globs of this root alone, beside those of the settings. */
  readonly include?: readonly string[];
  readonly exclude?: readonly string[];
}

export interface Source {
  readonly root: string;
  readonly path: string;
  readonly start_line: number;
  readonly end_line: number;
  /** Share in the question's attention, 0 … 1. */
  readonly weight: number;
}

export interface Turn {
  readonly question: string;
  readonly answer: string;
}

/** What the editor shows, offered to the tail: at most 400 tokens of it are used. */
export interface Attachment {
  readonly root: string;
  readonly path: string;
  readonly start_line: number;
  readonly end_line: number;
  readonly text: string;
}

export type StopReason = 'end' | 'max_tokens' | 'repetition' | 'cancelled' | 'context_full';

export interface PauseParams {
  readonly paused: boolean;
  readonly everyone?: boolean;
}

export interface AskParams {
  /** Chosen by the client, unique in its connection: names the answer in notifications. */
  readonly id: number;
  readonly question: string;
  /** Earlier turns, oldest first. */
  readonly history?: readonly Turn[];
  readonly attachment?: Attachment;
  readonly activeFile?: { readonly root: string; readonly path: string };
  /** Globs over paths within their roots; absent: everything. */
  readonly scope?: readonly string[];
  /** Restrict the scope to these roots. */
  readonly roots?: readonly string[];
  /** Seconds to wait for reading, or 'full': everything is read first. Default 45. */
  readonly wait?: number | 'full';
  /** Every file is searched for what the question names, however long that takes; absent: what a budget allows. */
  readonly search?: 'all';
  /** Segments in view, or 'all'. Default: the model's. */
  readonly focus?: number | 'all';
  readonly exact?: boolean;
  readonly maxTokens?: number;
}

/** A mark on the answer's text: an identifier or path that is nowhere in the workspace, or a path that was corrected. */
export interface AnswerMark {
  /** UTF-16 offsets in `answer`. */
  readonly start: number;
  readonly end: number;
  readonly kind: 'unknown' | 'corrected' | 'link';
  /** kind 'link': where it leads. */
  readonly source?: Source;
  /** kind 'corrected': what the model wrote. */
  readonly was?: string;
}

export interface AskResult {
  readonly answer: string;
  readonly sources: readonly Source[];
  readonly marks: readonly AnswerMark[];
  /** No segment has enough of the question's attention: the answer probably is not here. */
  readonly uncertain: boolean;
  /** Identifiers of the question that an exact search finds nowhere. */
  readonly missing: readonly string[];
  /** Files that the exact search had no time for, where there are any: it is gone on with. */
  readonly unsearched?: number;
  readonly stop: StopReason;
  readonly coverage: Coverage;
  readonly timings: {
    readonly ingest_s: number;
    readonly read_s: number;
    readonly first_token_s: number;
    readonly tokens_per_s: number;
    readonly tokens: number;
  };
}

export type AskPhase = 'searching' | 'reading' | 'focusing' | 'answering';

/** While reading for a question: how many of the places that it leads to are in memory. */
export interface PlacesRead {
  readonly read: number;
  readonly total: number;
}

export interface CompleteParams {
  readonly root: string | null;
  readonly path: string;
  readonly languageId?: string;
  /** The document as the editor has it. */
  readonly text: string;
  /** Cursor: UTF-16 offset in `text`. */
  readonly offset: number;
  /** Text of the selected item of the suggest widget and its range's start: the completion must begin with it. */
  readonly selected?: { readonly text: string; readonly offset: number };
  readonly insertSpaces?: boolean;
  readonly tabSize?: number;
  /** 'automatic' while typing, 'explicit' by command or command line. */
  readonly trigger: 'automatic' | 'explicit';
}

export interface CompleteResult {
  /** Empty: nothing to offer. */
  readonly completion: string;
  /** UTF-16 offsets in `text` of what it replaces; both the cursor's, unless white space before it is replaced. */
  readonly start: number;
  readonly end: number;
  readonly timings: { readonly first_token_s: number; readonly total_s: number; readonly tokens: number };
}

export interface IngestResult {
  readonly files: number;
  readonly tokens: number;
  readonly encoded_tokens: number;
  readonly reused_tokens: number;
  readonly tokens_per_s: number;
}

/** `battery`: a user's, as the window that wants it shows it. */
export type PauseReason = 'user' | 'battery' | 'disk_full' | 'memory_full';

export interface IngestStatus {
  readonly state: 'scanning' | 'reading' | 'idle' | 'paused';
  readonly reason?: PauseReason;
  readonly coverage: Coverage;
  readonly encoded_tokens: number;
  readonly reused_tokens: number;
  readonly tokens_per_s: number;
  /** Estimated time until everything is in; absent while unknown. */
  readonly seconds_left?: number;
  /** Roots whose changes are polled for, with the reason. */
  readonly polling?: string;
}

/** Settings that a client sets for its own window; the engine takes the strictest of all its clients where they share. */
export interface EngineSettings {
  readonly tokenBudget: number;
  readonly maxMemoryBytes: number;
  readonly maxDiskBytes: number;
  readonly threads: number;
  readonly include: readonly string[];
  readonly exclude: readonly string[];
  readonly focusSegments: number | null;
}

export interface HelloParams {
  readonly client: 'editor' | 'cli';
  readonly version: string;
  readonly pid: number;
}

export interface HelloResult {
  readonly version: string;
  readonly pid: number;
  readonly model: { readonly name: string; readonly dir: string; readonly identity: string };
  readonly store: string;
  readonly backend: string;
  readonly activations: Activations;
  readonly threads: number;
  /** For the user: the store, or the usual place of it, could not be used, why, and what is done instead. */
  readonly remark?: string;
}

export interface OpenParams {
  readonly roots: readonly Root[];
  /** Untrusted: nothing is read. */
  readonly trusted: boolean;
  readonly settings: Partial<EngineSettings>;
  /** 'engine': the engine watches the roots itself; 'client': the client sends `filesChanged`; 'none': one look only. */
  readonly watch: 'engine' | 'client' | 'none';
  /** Begin background reading at once. */
  readonly ingest: boolean;
}

export interface StoreCheck {
  /** That were looked at. */
  readonly segments: number;
  readonly files: number;
  readonly bytes: number;
  /** Segments that were damaged. */
  readonly damaged: number;
  /** A line each: what was damaged and dropped, by this look or by earlier ones of this engine. */
  readonly findings: readonly string[];
}

export const packOmissions = ['over_budget', 'unreadable', 'stale', 'waiting', 'reading', 'unsaved', 'foreign'] as const;
/** Why a file that is not excluded is not in a pack: its state, or its text is not that of the disk, or its segments are not ours. */
export type PackOmission = (typeof packOmissions)[number];

export interface ExportResult {
  /** Each counts once, however many files have it. */
  readonly segments: number;
  readonly tokens: number;
  readonly bytes: number;
  readonly files: number;
  /** Excluded files are never in a pack, and not listed. */
  readonly left_out: readonly { readonly root: string; readonly path: string; readonly reason: PackOmission; readonly detail?: string }[];
}

export interface ImportResult {
  /** That are in the store now. */
  readonly segments: number;
  readonly tokens: number;
  /** Of the pack. */
  readonly bytes: number;
  /** Whose bytes need not be read again, wherever they turn up. */
  readonly files: number;
  /** What made its segments, `<family>.<revision>.<form>`; `foreign`: another family than this engine's. */
  readonly numerics: string;
  readonly foreign: boolean;
  /** Segments that were damaged or not what they say. */
  readonly damaged: number;
  /** A line each: what was damaged, and what is read again for it. */
  readonly findings: readonly string[];
}

export interface PackProgress {
  /** Bytes of a pack that were written or taken in; then, of one that is taken in, files that were checked. */
  readonly phase: 'segments' | 'files';
  readonly done: number;
  readonly total: number;
}

export interface EngineFailure {
  readonly code: EngineErrorCode;
  readonly message: string;
  /** The engine process ends with it: not this request need be the cause. */
  readonly ends?: true;
}

// ---- client → engine ---------------------------------------------------------------------------------------------------

/** First message of a connection. Answered once the model is loaded; fails with the loader's error. */
export const hello = new RequestType<HelloParams, HelloResult, EngineFailure>('hello');
/** Sets or replaces the roots of this client. */
export const open = new RequestType<OpenParams, Coverage, EngineFailure>('open');
/** One answer. Cancellation of the request stops it and still resolves, with stop 'cancelled' and what had come. */
export const ask = new RequestType<AskParams, AskResult, EngineFailure>('ask');
export const complete = new RequestType<CompleteParams, CompleteResult, EngineFailure>('complete');
/** The cursor came to rest here: read the view of the place ahead. */
export const place = new NotificationType<CompleteParams>('place');
/** Reads everything; resolves when the client's roots are in. */
export const ingest = new RequestType0<IngestResult, EngineFailure>('ingest');
/** State of every file of the client's roots, or of one. */
export const coverage = new RequestType<{ path?: string }, readonly FileCoverage[], EngineFailure>('coverage');
/** What stands right below a place; `{}` is the top. */
export const coverageLevel = new RequestType<CoveragePlace, CoverageLevel, EngineFailure>('coverageLevel');
/** Of each of these absolute paths: its state, that of the excluded folder it lies in, or null where none is known. */
export const coverageOf = new RequestType<{ paths: readonly string[] }, readonly (FileCoverage | null)[], EngineFailure>('coverageOf');
/** Reading pauses while any client wants it to. `everyone`: what others wanted holds no more either, since somebody asked for it to go on. */
export const pause = new RequestType<PauseParams, null, EngineFailure>('pause');
export const settings = new NotificationType<Partial<EngineSettings>>('settings');
/** The user is typing: background reading keeps to one core for some seconds. */
export const typing = new NotificationType0('typing');
/**
 * Changes seen by the client's own watcher, as absolute paths; empty: look at everything again. With `missed` none was seen, and some may
 * have been missed: they are looked for as far as it costs little, the rest by and by.
 */
export const filesChanged = new NotificationType<{ paths: readonly string[]; missed?: boolean }>('filesChanged');
/** Open and recently used files: read first. */
export const recentFiles = new NotificationType<{ paths: readonly string[] }>('recentFiles');
/** Text of an unsaved document that shadows the file; null when it is saved or closed. */
export const document = new NotificationType<{ path: string; text: string | null }>('document');
/** Looks at every byte of the store, of whatever roots; what is damaged is dropped, to be read again. */
export const verify = new RequestType0<StoreCheck, EngineFailure>('verify');
/** Reads everything, then writes the memory of the client's roots into one file (absolute path), which is replaced when it is whole. */
export const exportPack = new RequestType<{ file: string }, ExportResult, EngineFailure>('exportPack');
/** Takes such a file into the store; needs no roots. */
export const importPack = new RequestType<{ file: string }, ImportResult, EngineFailure>('importPack');
/** Drops what is stored of the client's roots. */
export const forget = new RequestType0<{ segments: number; bytes: number }, EngineFailure>('forget');

// ---- engine → client ---------------------------------------------------------------------------------------------------

export const askPhase = new NotificationType<{ id: number; phase: AskPhase; coverage: Coverage; places?: PlacesRead }>('askPhase');
export const askSources = new NotificationType<{ id: number; sources: readonly Source[]; uncertain: boolean; missing: readonly string[] }>(
  'askSources',
);
/** Text to append to the answer, whole characters only. */
export const askText = new NotificationType<{ id: number; text: string }>('askText');
export const ingestStatus = new NotificationType<IngestStatus>('ingestStatus');
/** This client wanted reading to pause, and another one asked for it to go on for everyone: its pause holds no more, wherever it is kept. */
export const pauseEnded = new NotificationType<object>('pauseEnded');
/** While a pack is written or taken in. */
export const packProgress = new NotificationType<PackProgress>('packProgress');
/** What is different by now; `everything`: the folders were looked through, ask again for whatever is shown. */
export const coverageChanged = new NotificationType<CoverageChange>('coverageChanged');
/** Loading the model, migrating a store, …: shown while `hello` is not answered. */
export const startProgress = new NotificationType<{ message: string; fraction?: number }>('startProgress');
