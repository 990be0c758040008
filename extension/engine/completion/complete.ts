// Inline completions of one client: the view of the place, the text around the cursor as a tail, what the model puts between until
// a construct is complete, and its shape at the place. A newer request replaces the older one, which then has nothing to say.
//
// While the user types on, the tail is extended, not rebuilt: the start of the text window, the text behind the cursor and the view
// stay for as long as they serve, and snapshots keep what was run. The text window is what the machine reads in 0.8 s.

import { realpath } from 'node:fs/promises';
import path from 'node:path';
import type { PrefillOptions, PrefillResult } from '../addon';
import { withCancel } from '../cancel';
import { focusOn } from '../chat/focus';
import { StreamDecoder } from '../chat/stream-decoder';
import type { ClientSessionOver } from '../client-session';
import type { Core } from '../core';
import { EngineError, toEngineError } from '../errors';
import type { CompleteParams, CompleteResult, ExclusionRule } from '../messages';
import type { RootIndex } from '../root-index';
import { concat } from '../tokenizer';
import { headerTokens } from '../workspace/header';
import { fimTail, type FimTail } from './fim';
import { placeOf, promptText, type Place } from './place';
import { shape } from './shape';
import { bestStart, knownStart, mayBegin } from './start';
import { StopRules } from './stop';
import { TailCache, type Snapshot } from './tail-cache';
import { nearView, noView, readView, type Around, type PlaceView } from './view';

const maxNewTokens = 64;
/** UTF-16 units of text on either side of the cursor that the next tokens are looked up in. */
const draftUnits = 6_000;
/** The window of text is what is run in this time, but no less than so many tokens. */
const windowSeconds = 0.8;
const leastWindowTokens = 64;
/** Until a prefill was measured: two cores of a laptop. */
const guessedRate = 300;
/** Less says more about the overhead of a call than about the rate. */
const leastMeasuredTokens = 32;
/** A new window leaves room for what will be typed, so that it need not be moved with the next line. */
const newWindowShare = 0.75;
/** Run at a time: what is cancelled in between is kept. */
const pieceTokens = 128;
/** The last tokens before the cursor change as a word is typed on: no snapshot holds them. */
const unsettledTokens = 4;
/** Up to so many tokens are run again rather than kept in a snapshot of their own. */
const restTokens = 24;
/** A view is that of its place until so much was typed. */
const typedTokens = 64;
/** Indentation of a line that is as deep as lines are. */
const mostStartTokens = 32;
/** Rules that the user made, or that protect: nothing is offered there unasked. */
const silentRules: readonly ExclusionRule[] = ['ignored', 'user', 'secret'];

/** What all clients of a loaded model share: snapshots, the measured rate, and two places to work at. */
interface Shared {
  readonly tails: TailCache;
  readonly giveWay: () => number;
  /** Prefilled tokens a second. */
  rate: number;
  running: number;
  readonly waiting: Set<() => void>;
  users: number;
}

const sharedOf = new WeakMap<Core, Shared>();
const mostRunning = 2;

/** A request's text as the model is shown it. */
interface Prompt {
  readonly document: string;
  readonly place: Place;
  readonly fim: FimTail;
  readonly path: string;
  /** The workspace's part in it; null: the document is none of the workspace's. */
  readonly around: Around | null;
}

/** Kept from request to request, so that the next tail begins as the last one did. */
interface TextWindow {
  readonly document: string;
  readonly start: number;
  /** What begins there: told apart from an edit above. */
  readonly begin: string;
  readonly suffix: string;
  readonly prefixTokens: number;
  readonly suffixTokens: number;
}

interface ReadPlace {
  readonly document: string;
  readonly line: number;
  readonly offset: number;
  readonly view: PlaceView;
}

export class Completer {
  private readonly shared: Shared;
  private readonly middleTokens: number;
  private newest: AbortController | undefined;
  private readonly running = new Set<Promise<unknown>>();
  private window: TextWindow | undefined;
  /** The place whose view was read last. */
  private lastRead: ReadPlace | undefined;
  /** The view in use, which serves at the next place until its own is read. */
  private inUse: { readonly document: string; readonly view: PlaceView } | undefined;
  private ahead: { readonly document: string; readonly line: number; readonly abort: AbortController } | undefined;
  /** The document up to the end of what was offered last: once it reads so, the offer was taken. */
  private offered = '';
  private openFiles: readonly string[] = [];
  private closed = false;

  constructor(private readonly session: ClientSessionOver) {
    const { core } = session;
    let shared = sharedOf.get(core);
    if (!shared) {
      const tails = new TailCache(core.native);
      shared = { tails, giveWay: () => tails.clear(), rate: guessedRate, running: 0, waiting: new Set(), users: 0 };
      sharedOf.set(core, shared);
      core.caches.add(shared.giveWay);
    }
    shared.users++;
    this.shared = shared;
    const { fim } = core.model.sala;
    this.middleTokens = fim === null ? 0 : core.tokenizer.encodeTemplate(fim.middle).length;
  }

  /** Throws `unsupported` if the model cannot fill in the middle. Cancelled, or replaced by a newer request: empty. */
  async complete(params: CompleteParams, signal: AbortSignal): Promise<CompleteResult> {
    this.newest?.abort();
    const abort = new AbortController();
    this.newest = abort;
    const either = AbortSignal.any([signal, abort.signal]);
    const work = this.tracked(this.answer(params, either));
    try {
      const result = await work;
      return either.aborted ? nothingAt(params.offset) : result;
    } catch (thrown) {
      const error = toEngineError(thrown);
      if (error.code === 'cancelled' || either.aborted) return nothingAt(params.offset);
      throw error;
    }
  }

  /** The cursor rests: the view of the place is read, off the path of any request. */
  place(params: CompleteParams): void {
    if (this.closed || this.session.core.model.sala.fim === null) return;
    void this.tracked(this.prompt(params, params.offset).then((prompt) => this.readAhead(prompt))).catch((thrown) => this.report(thrown));
  }

  /** Absolute paths. */
  setOpenFiles(paths: readonly string[]): void {
    this.openFiles = paths;
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    this.newest?.abort();
    this.ahead?.abort.abort();
    await Promise.allSettled(this.running);
    if (--this.shared.users > 0) return;
    this.shared.tails.clear();
    this.session.core.caches.delete(this.shared.giveWay);
    sharedOf.delete(this.session.core);
  }

  // ---- one request --------------------------------------------------------------------------------------------------------

  private async answer(params: CompleteParams, signal: AbortSignal): Promise<CompleteResult> {
    const begin = performance.now();
    const { selected } = params;
    // The list's item is put in place, as if it had been taken, and the completion goes on behind it.
    const chosen = selected !== undefined && selected.offset <= params.offset ? selected : undefined;
    const text = chosen ? params.text.slice(0, chosen.offset) + chosen.text + params.text.slice(params.offset) : params.text;
    const offset = chosen ? chosen.offset + chosen.text.length : params.offset;
    const release = await this.enter(signal);
    const { memory } = this.session.core;
    let held: readonly string[] = [];
    try {
      const prompt = await this.prompt({ ...params, text }, offset);
      const nothing = nothingAt(chosen ? params.offset : prompt.place.offset);
      const { around } = prompt;
      const rule = around?.root.ruleOf(around.path);
      if (params.trigger === 'automatic' && rule !== undefined && silentRules.includes(rule)) return nothing;

      const view = await this.viewFor(prompt, params.trigger, signal);
      // A file may change meanwhile: what is in view stays in memory until the request is done.
      held = view.segments.map(({ segment }) => segment.key);
      memory.retain(held);
      const generated = await this.generate(prompt, view, signal);
      const shaped = shape(prompt.place, generated.text);
      if (params.trigger === 'automatic' && around && !this.isRead(prompt)) {
        void this.tracked(this.readAhead(prompt)).catch((thrown) => this.report(thrown));
      }
      if (shaped.text === '' || (chosen && shaped.start !== offset)) return nothing;
      this.offered = text.slice(0, shaped.start) + shaped.text;
      const seconds = (to: number): number => Math.round(to - begin) / 1000;
      return {
        completion: chosen ? chosen.text + shaped.text : shaped.text,
        start: chosen ? chosen.offset : shaped.start,
        end: nothing.end,
        timings: { first_token_s: seconds(generated.first), total_s: seconds(performance.now()), tokens: generated.tokens },
      };
    } finally {
      memory.release(held);
      release();
    }
  }

  /** At most two completions are at work in the engine, of whatever client. */
  private async enter(signal: AbortSignal): Promise<() => void> {
    const { shared } = this;
    while (shared.running >= mostRunning) {
      await new Promise<void>((resolve) => {
        shared.waiting.add(resolve);
        signal.addEventListener('abort', () => resolve(), { once: true });
      });
      if (signal.aborted) throw new EngineError('cancelled', 'replaced by a newer request');
    }
    shared.running++;
    return () => {
      shared.running--;
      // All look again; those that are cancelled meanwhile just go.
      for (const wake of shared.waiting) wake();
      shared.waiting.clear();
    };
  }

  /** Generated text, as far as it is kept. A damaged segment of the view is read again; this completion does without any. */
  private async generate(prompt: Prompt, view: PlaceView, signal: AbortSignal): Promise<{ text: string; tokens: number; first: number }> {
    try {
      return await this.generateOver(prompt, view, signal);
    } catch (thrown) {
      const { code } = toEngineError(thrown);
      // Snapshots of other places go before a completion does.
      if (code === 'out_of_memory' && this.session.core.giveWay()) return this.generateOver(prompt, view, signal);
      if (code !== 'store_invalid' || view.segments.length === 0) throw thrown;
      for (const { record } of view.segments) record.root.reread(record);
      this.lastRead = undefined;
      this.inUse = undefined;
      return this.generateOver(prompt, noView, signal);
    }
  }

  private async generateOver(prompt: Prompt, view: PlaceView, signal: AbortSignal): Promise<{ text: string; tokens: number; first: number }> {
    const { native, model, tokenizer } = this.session.core;
    const { tokens } = prompt.fim;
    await this.grow(prompt, view, 'completion', signal);
    const base = this.shared.tails.longest(this.viewName(view), tokens);
    const tail = base ? native.forkTail(base.tail) : this.createTail(prompt, view);
    try {
      const known = tokenizer.encodeText(knownStart(prompt.place));
      const start = known.length <= mostStartTokens ? known : new Int32Array();
      const rest = concat([tokens.subarray(base?.tokens.length ?? 0), start]);
      const prefilled = this.prefill(tail, rest, { priority: 'completion', logits: 1 }, signal);
      const drafts = draftsAround(prompt.place, (text) => tokenizer.encodeText(text));
      const { logits } = await prefilled;
      const stopIds = new Set([...native.info.eosTokenIds, ...(model.sala.fim?.stop ?? []).map((stop) => tokenizer.idOf(stop))]);
      const rules = new StopRules(prompt.place);
      const decoder = new StreamDecoder(tokenizer);
      for (const id of start) rules.push(id, decoder.push(id));
      const textOf = (id: number): string => (tokenizer.isSpecial(id) ? '' : tokenizer.decode([id]));
      const best = bestStart(logits, (id) => mayBegin(prompt.place, textOf(id)));
      if (best === null) return { text: '', tokens: 0, first: performance.now() };
      if (best !== undefined) {
        if (stopIds.has(best)) return { text: '', tokens: 0, first: performance.now() };
        rules.push(best, decoder.push(best));
        await this.prefill(tail, Int32Array.of(best), { priority: 'completion' }, signal);
      }
      let [first, nTokens, enough, ended] = [0, best === undefined ? 0 : 1, false, false];
      const job = native.decode(tail, {
        priority: 'completion',
        maxTokens: maxNewTokens,
        stopIds: Int32Array.from(stopIds),
        drafts,
        onToken: (id) => {
          if (enough || signal.aborted) return;
          first ||= performance.now();
          if (stopIds.has(id)) return;
          nTokens++;
          enough = rules.push(id, decoder.push(id));
          if (enough) job.cancel();
        },
      });
      try {
        ended = (await withCancel(job, signal)).stop === 'stop_id';
      } catch (thrown) {
        if (!enough || signal.aborted || toEngineError(thrown).code !== 'cancelled') throw thrown;
      }
      return { text: rules.finish(ended), tokens: nTokens, first: first || performance.now() };
    } finally {
      native.releaseTail(tail);
    }
  }

  // ---- tails --------------------------------------------------------------------------------------------------------------

  /** Runs a tail up to shortly before the cursor, and keeps it. What was run in whole pieces stays, even when cancelled. */
  private async grow(prompt: Prompt, view: PlaceView, priority: 'completion' | 'prefill', signal: AbortSignal): Promise<void> {
    const { native } = this.session.core;
    const { tails } = this.shared;
    const { tokens } = prompt.fim;
    const name = this.viewName(view);
    const end = tokens.length - this.middleTokens - unsettledTokens;
    const known = tails.longest(name, tokens);
    let base: Snapshot | undefined = known;
    while (end - (base?.tokens.length ?? 0) > restTokens) {
      const from = base?.tokens.length ?? 0;
      const to = Math.min(from + pieceTokens, end);
      const tail = base ? native.forkTail(base.tail) : this.createTail(prompt, view);
      try {
        await this.prefill(tail, tokens.subarray(from, to), { priority }, signal);
      } catch (thrown) {
        native.releaseTail(tail);
        throw thrown;
      }
      tails.put({ tail, view: name, tokens: tokens.slice(0, to) }, base === known ? undefined : base);
      // Another request may have come further meanwhile.
      base = tails.longest(name, tokens);
    }
  }

  private createTail({ path: file }: Prompt, view: PlaceView): number {
    const { native, model, tokenizer, prefix, memory } = this.session.core;
    const { sala } = model;
    const ranked = view.segments.flatMap((inView) => {
      const handle = memory.handleOf(inView.segment.key);
      return handle === undefined ? [] : [{ ...inView, handle }];
    });
    const header = sala.fim === null ? 0 : headerTokens(tokenizer, sala.fim.header, file, Math.floor(sala.tail_tokens / 4)).length;
    const special = sala.fim === null ? 0 : tokenizer.encodeTemplate(sala.fim.suffix + sala.fim.prefix + sala.fim.middle).length;
    const text = sala.completion.suffix_tokens + sala.completion.prefix_tokens;
    return native.createTail({
      ...focusOn(ranked, sala.completion.headers),
      startsFrom: sala.tail_starts_from,
      denseScopeTokens: sala.dense_scope_tokens,
      // Reserved at once, for a snapshot too: no more than a window and a start can take.
      maxTokens: prefix.length + header + special + text + maxNewTokens + mostStartTokens,
    });
  }

  private async prefill(tail: number, tokens: Int32Array, options: PrefillOptions, signal: AbortSignal): Promise<PrefillResult> {
    const result = await withCancel(this.session.core.native.prefill(tail, tokens, options), signal);
    // Work of a lower priority is made to wait.
    if (options.priority === 'completion' && tokens.length >= leastMeasuredTokens && result.seconds > 0) {
      this.shared.rate += 0.3 * (tokens.length / result.seconds - this.shared.rate);
    }
    return result;
  }

  // ---- views --------------------------------------------------------------------------------------------------------------

  private async viewFor(prompt: Prompt, trigger: CompleteParams['trigger'], signal: AbortSignal): Promise<PlaceView> {
    const { around, document } = prompt;
    if (around === null) return noView;
    let view: PlaceView;
    if (this.isRead(prompt)) {
      view = this.lastRead!.view;
    } else if (trigger === 'explicit') {
      this.ahead?.abort.abort();
      view = await readView(this.session, around, prompt.fim, 'completion', signal);
      this.setRead(prompt, view);
    } else if (this.inUse?.document === document && this.viewName(this.inUse.view) !== '') {
      // That of the line before: its tail can be extended.
      view = this.inUse.view;
    } else {
      view = nearView(this.session, around, this.openFiles);
    }
    this.inUse = { document, view };
    return view;
  }

  /** Reads the view of a place, and runs the tail over it where the user types in this document: only then is it of use. */
  private async readAhead(prompt: Prompt): Promise<void> {
    const { around, document, place } = prompt;
    const line = lineOf(place);
    if (this.closed || around === null || this.isRead(prompt)) return;
    if (this.ahead?.document === document && this.ahead.line === line) return;
    this.ahead?.abort.abort();
    const abort = new AbortController();
    const own = { document, line, abort };
    this.ahead = own;
    try {
      const view = await readView(this.session, around, prompt.fim, 'prefill', abort.signal);
      if (this.inUse?.document === document) await this.grow(prompt, view, 'prefill', abort.signal);
      if (!abort.signal.aborted) this.setRead(prompt, view);
    } finally {
      if (this.ahead === own) this.ahead = undefined;
    }
  }

  private setRead({ document, place }: Prompt, view: PlaceView): void {
    this.lastRead = { document, line: lineOf(place), offset: place.offset, view };
  }

  /** Whether the view that was read last is still this place's. */
  private isRead({ document, place }: Prompt): boolean {
    const read = this.lastRead;
    if (read?.document !== document || read.line !== lineOf(place)) return false;
    if (read.view.segments.some(({ segment: { key } }) => this.session.core.memory.handleOf(key) === undefined)) return false;
    const typed = place.text.slice(Math.min(read.offset, place.offset), place.offset);
    if (typed.length > typedTokens && this.session.core.tokenizer.encodeText(typed).length > typedTokens) return false;
    const taken = this.offered !== '' && read.offset < this.offered.length && this.offered.length <= place.offset && place.text.startsWith(this.offered);
    return !taken;
  }

  /** Segments that are in memory, by address: what is the same under the same name. */
  private viewName(view: PlaceView): string {
    return view.segments.flatMap(({ segment: { key } }) => (this.session.core.memory.handleOf(key) === undefined ? [] : [key])).join(' ');
  }

  // ---- text ---------------------------------------------------------------------------------------------------------------

  private async prompt(params: CompleteParams, offset: number): Promise<Prompt> {
    const { model, tokenizer } = this.session.core;
    const at = await this.rootOf(params);
    const file = at?.path ?? params.path;
    const document = `${at?.root.dir ?? params.root ?? ''}\0${file}`;
    const place = placeOf({ ...params, path: file, offset });
    const shown = promptText(place);
    const before = shown.text.slice(0, shown.offset);
    const window = this.fittingWindow(document, before, shown.text.slice(shown.offset));
    const limits = window ?? this.newLimits();
    const suffix = window?.suffix ?? shown.text.slice(shown.offset);
    const input = { path: file, text: before + suffix, offset: before.length, suffixTokens: limits.suffixTokens };
    let fim = window && fimTail(model, tokenizer, { ...input, prefixTokens: limits.prefixTokens, windowStart: window.start });
    if (fim === undefined || fim.windowStart !== window?.start) {
      fim = fimTail(model, tokenizer, { ...input, prefixTokens: Math.max(1, Math.floor(newWindowShare * limits.prefixTokens)) });
    }
    const { windowStart } = fim;
    this.window = { ...limits, document, start: windowStart, begin: before.slice(windowStart, windowStart + 40), suffix };
    const around = at && { root: at.root, path: file, text: place.text, offset: place.offset, windowStart };
    return { document, place, fim, path: file, around: around ?? null };
  }

  /**
   * The last window, where it is of the same text. What stands behind the cursor stays as it was while only the editor's closing
   * brackets were added to it: it comes first in the tail, and everything would have to be run again.
   */
  private fittingWindow(document: string, before: string, after: string): TextWindow | undefined {
    const { window } = this;
    if (window?.document !== document || !before.startsWith(window.begin, window.start)) return undefined;
    const added = after.length - window.suffix.length;
    if (added < 0 || added > 4 || !after.endsWith(window.suffix)) return undefined;
    return /^[)\]}"'`;]*$/.test(after.slice(0, added)) ? window : undefined;
  }

  private newLimits(): { prefixTokens: number; suffixTokens: number } {
    const { prefix_tokens, suffix_tokens } = this.session.core.model.sala.completion;
    const budget = Math.max(leastWindowTokens, Math.floor(windowSeconds * this.shared.rate));
    const suffixTokens = Math.min(suffix_tokens, Math.floor(budget / 4));
    return { suffixTokens, prefixTokens: Math.min(prefix_tokens, budget - suffixTokens) };
  }

  /** The workspace's root and the path in it; a document outside all of them sees nothing of the workspace. */
  private async rootOf({ root, path: file }: CompleteParams): Promise<{ root: RootIndex; path: string } | undefined> {
    if (root === null) return undefined;
    const known = this.session.roots.find(({ dir }) => dir === root);
    if (known) return { root: known, path: file };
    // A root by another name, or within another root.
    const real = await realpath(root).catch(() => root);
    return this.session.locate(path.join(real, file));
  }

  private async tracked<T>(work: Promise<T>): Promise<T> {
    this.running.add(work);
    try {
      return await work;
    } finally {
      this.running.delete(work);
    }
  }

  private report(thrown: unknown): void {
    const error = toEngineError(thrown);
    if (error.code !== 'cancelled') this.session.core.log(`reading ahead for a completion: ${error.code}: ${error.message}`);
  }
}

function nothingAt(offset: number): CompleteResult {
  return { completion: '', start: offset, end: offset, timings: { first_token_s: 0, total_s: 0, tokens: 0 } };
}

function lineOf({ text, lineStart }: Place): number {
  let line = 0;
  for (let at = text.indexOf('\n'); at >= 0 && at < lineStart; at = text.indexOf('\n', at + 1)) line++;
  return line;
}

/** Whole lines around the place, tokenised: more of the file than a tail holds, for what is written like its neighbours. */
function draftsAround({ text, lineStart }: Place, tokensOf: (text: string) => Int32Array): readonly Int32Array[] {
  const from = lineStart <= draftUnits ? 0 : text.indexOf('\n', lineStart - draftUnits) + 1;
  const lineEnd = text.indexOf('\n', lineStart) + 1;
  const to = lineEnd === 0 ? lineStart : text.lastIndexOf('\n', lineEnd + draftUnits) + 1;
  return [tokensOf(text.slice(from, lineStart)), tokensOf(text.slice(lineEnd || lineStart, Math.max(to, lineEnd)))];
}
