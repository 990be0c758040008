// One question, from words to an answer with sources: exact search, reading what matters first, read, focus, decode, and what can be
// checked about the answer afterwards. The order of these steps is design section 6; each step's substance lies beside this file.

import type { ClientSessionOver } from '../client-session';
import type { Core } from '../core';
import { withCancel } from '../cancel';
import { EngineError, toEngineError } from '../errors';
import { Indexer } from '../indexer';
import * as messages from '../messages';
import type { FileRecord, Segment } from '../root-index';
import { compileGlobs } from '../workspace/filter';
import { ReadingBudget, type SearchOptions } from '../workspace/search';
import { focusOn, memorySegments, readShares, withoutSegments, type Accepts, type MemorySegment, type RankedSegment } from './focus';
import { answerNames, componentsOf, markAnswer, questionIdentifiers, questionPaths, type FileName } from './identifiers';
import { missingSentence } from './missing';
import { chatTurn, readTurn } from './prompt';
import { quoting } from './quotation';
import { RepetitionGuard } from './repetition';
import { toSources, type RankedRange } from './sources';
import { StreamDecoder } from './stream-decoder';
import { usageAnswer, usageQuestion } from './usage';

const defaultWaitSeconds = 45;
/** Texts in view that the answer's next tokens are looked up in. */
const mostDraftSegments = 8;
const mostDraftTokens = 16_384;
/** Longest answer. */
const maxNewTokens = 512;
/** A question that leaves less than this for its answer is refused. */
const leastNewTokens = 64;
/** Text of the selection and the open file's path in the tail. */
const maxAttachmentTokens = 400;
/** Earlier turns are run again: so many seconds of them at most. */
const historySeconds = 2;
const leastHistoryTokens = 256;
/** So many files are cut for a question while the workspace is not in, and so many of their segments read. */
const candidateFiles = 48;
const candidateSegments = 32;
/** A segment with less of the question's attention is no source. */
const leastShare = 0.01;
/** So many of the best segments are sources at most. */
const mostSources = 64;
/** So many of the files that an answer names are looked into for whether they have the lines that it names. */
const mostCountedFiles = 32;
/**
 * Of files that were never read and are not in memory, the searches before the answer read so many, and those that mark its names
 * some more. What they leave is read on afterwards.
 */
const searched = { files: 12_000, bytes: 64 << 20, ms: 1500 };
const searchedForMarks = { files: 4000, bytes: 16 << 20, ms: 500 };
/** How long words alike are looked for where not even the words themselves were looked for everywhere. */
const similarInHasteMs = 300;
/** What is left of the workspace is read before the answer if it takes no longer than this. */
const smallRestSeconds = 8;

export async function answer(session: ClientSessionOver, params: messages.AskParams, signal: AbortSignal): Promise<messages.AskResult> {
  return new Answer(session, params, signal).run();
}

interface Names {
  readonly identifiers: readonly string[];
  readonly present: readonly string[];
  /** Neither found nor, as names of files that were not searched, said to be nowhere. */
  readonly notFound: readonly string[];
  readonly missing: readonly string[];
  /** What is said of those not found; '' if there are none. */
  readonly sentence: string;
}

type About = Pick<messages.AskResult, 'sources' | 'uncertain' | 'missing'>;

class Answer {
  private readonly core: Core;
  private readonly accepts: Accepts;
  private readonly begin = performance.now();
  private ingested = this.begin;
  private read = this.begin;
  private firstToken: number | undefined;
  private text = '';
  private nTokens = 0;
  private decodeSeconds = 0;
  /** Addresses of the segments that this answer may read. */
  private held: readonly string[] = [];
  /** Segments of candidates, kept while this answer needs them: files may be over the budget, or become so. */
  private readonly borrowed = new Map<FileRecord, readonly Segment[]>();
  /** What the searches before the answer may read; absent: everything. */
  private reading: ReadingBudget | undefined;
  /** What is known of the places so far: it stays when the answer is broken off. */
  private about: About = { sources: [], uncertain: false, missing: [] };

  constructor(
    private readonly session: ClientSessionOver,
    private readonly params: messages.AskParams,
    private readonly signal: AbortSignal,
  ) {
    this.core = session.core;
    const inScope = params.scope === undefined ? undefined : compileGlobs(params.scope);
    this.accepts = ({ root, path }) =>
      (params.roots === undefined || params.roots.includes(root)) && (inScope === undefined || inScope(path) !== undefined);
  }

  async run(): Promise<messages.AskResult> {
    const { question } = this.params;
    try {
      await this.session.refresh();
      this.phase('searching');
      this.reading = this.budget(searched);
      const names = await this.lookUp();
      await this.readWhatMatters().catch((thrown: unknown) => {
        // Answered from what is in, where there is no room for more.
        if (!this.core.indexer.refuse(toEngineError(thrown))) throw thrown;
      });
      this.ingested = performance.now();
      if (names.present.length === 0 && names.notFound.length > 0) return await this.nowhere(names);

      this.phase('focusing');
      const segments = [...memorySegments(this.core, this.session.roots, this.accepts), ...this.borrowedSegments()];
      // A file may change meanwhile: what this answer reads stays in memory until it is done.
      this.held = segments.map(({ segment }) => segment.key);
      this.core.memory.retain(this.held);
      const turn = readTurn(this.core.model, this.core.tokenizer, { question, history: this.params.history ?? [] });
      const ranked = await this.evidence(await readShares(this.core, segments, turn, 'prefill', this.signal));
      this.read = performance.now();
      const uncertain = ranked.length > 0 && (ranked[0]?.share ?? 0) < this.core.model.sala.read.uncertain_below;
      const sources = toSources(ranked.slice(0, mostSources).map(rankedRange), { minShare: leastShare });
      const about = { sources, uncertain, missing: names.missing };
      this.about = about;
      this.session.notify(messages.askSources, { id: this.params.id, ...about });

      const used = names.notFound.length === 0 ? usageQuestion(question, names.identifiers) : undefined;
      if (used !== undefined) {
        const word = componentsOf(used).at(-1) ?? used;
        const search = await this.session.searching();
        const { places } = await search.findWord(word, this.options);
        this.say(usageAnswer(word, places, sources, (this.reading?.passedOver ?? 0) === 0));
        return await this.result('end', about);
      }
      if (names.sentence !== '') this.say(`${names.sentence}\n\n`);
      const stop = this.params.exact ? await this.decodeExactly() : await this.focusAndDecode(ranked);
      return await this.result(stop, about);
    } catch (thrown) {
      const error = toEngineError(thrown);
      if (error.code !== 'cancelled' && !this.signal.aborted) throw error;
      return this.result('cancelled', this.about);
    } finally {
      this.core.memory.release(this.held);
      for (const [record, segments] of this.borrowed) record.root.giveBack(segments);
    }
  }

  private phase(phase: messages.AskPhase, places?: messages.PlacesRead): void {
    const coverage = Indexer.total(this.session.roots);
    this.session.notify(messages.askPhase, { id: this.params.id, phase, coverage, ...(places && { places }) });
  }

  private say(text: string): void {
    if (text === '') return;
    this.firstToken ??= performance.now();
    this.text += text;
    this.session.notify(messages.askText, { id: this.params.id, text });
  }

  // ---- words --------------------------------------------------------------------------------------------------------------

  private get options(): SearchOptions {
    return { accepts: this.accepts, signal: this.signal, ...(this.reading && { reading: this.reading }) };
  }

  /** None for whoever wants everything to be searched, or waits for everything. */
  private budget({ files, bytes, ms }: typeof searched): ReadingBudget | undefined {
    if (this.params.wait === 'full' || this.params.search === 'all') return undefined;
    const { activeFile } = this.params;
    const members = (): FileName[] => this.session.roots.flatMap((root) => root.admitted().map(({ path }) => ({ root: root.dir, path })));
    return new ReadingBudget({ files, bytes }, ms, members, activeFile ? [activeFile] : []);
  }

  /** Which names and paths of the question are in the workspace, by exact search over all files, read or not. */
  private async lookUp(): Promise<Names> {
    const search = await this.session.searching();
    const identifiers = questionIdentifiers(this.params.question);
    const { found, complete } = await search.occurring(identifiers.flatMap(componentsOf), this.options);
    const unsearched = complete ? 0 : (this.reading?.passedOver ?? 0);
    const isThere = (name: string): boolean => componentsOf(name).every((part) => found.has(part));
    const namesNotFound = identifiers.filter((name) => !isThere(name));
    const paths = questionPaths(this.params.question);
    const resolved = await search.resolvePaths(paths);
    const missingPaths = paths.filter((path) => resolved.get(path)?.length === 0);
    const alike = { ...this.options, ...(unsearched > 0 && { budgetMs: similarInHasteMs }) };
    const similar = await Promise.all(
      namesNotFound.map(async (name) => ({ name, similar: await search.similarWords(componentsOf(name).at(-1) ?? name, alike) })),
    );
    return {
      identifiers,
      present: [...identifiers.filter(isThere), ...paths.filter((path) => !missingPaths.includes(path))],
      notFound: [...namesNotFound, ...missingPaths],
      missing: [...(unsearched > 0 ? [] : namesNotFound), ...missingPaths],
      sentence: missingSentence(similar, { paths: missingPaths, complete, goesOn: unsearched > 0 }),
    };
  }

  // ---- reading ------------------------------------------------------------------------------------------------------------

  /** Until the workspace is in, the question decides what is read next. */
  private async readWhatMatters(): Promise<void> {
    const { indexer } = this.core;
    const { wait = defaultWaitSeconds } = this.params;
    const deadline = wait === 'full' ? Infinity : this.begin + wait * 1000;
    if (wait === 'full') {
      await this.session.takeAll();
      await this.readRest(Infinity);
    }
    if (indexer.idle && !this.session.roots.some((root) => root.hasOverBudget)) return;
    const matching = await this.matchingSegments(deadline);
    const wanted = matching.filter(({ segment }) => this.core.memory.handleOf(segment.key) === undefined);
    const tell = (n: number): void => this.phase('reading', { read: matching.length - wanted.length + n, total: matching.length });
    if (wanted.length > 0) tell(0);
    await indexer.readFirst(wanted, deadline, this.signal, tell);
    if (wait === 'full') return;
    // A small rest is read as well: seconds that make the answer certain.
    const { tokens, total_tokens } = Indexer.total(this.session.roots);
    const restSeconds = (total_tokens - tokens) / indexer.tokensPerSecond;
    if (wanted.length > 0 && restSeconds < smallRestSeconds) await this.readRest(Math.min(deadline, performance.now() + 2000 * smallRestSeconds));
  }

  private async readRest(deadline: number): Promise<void> {
    const { indexer } = this.core;
    this.phase('reading');
    indexer.setReading(this, true);
    try {
      await indexer.readAll(deadline, this.signal);
    } finally {
      indexer.setReading(this, false);
    }
  }

  /** Segments that share the question's words, best first. */
  private async matchingSegments(deadline: number): Promise<{ record: FileRecord; segment: Segment }[]> {
    const { roots } = this.session;
    const search = await this.session.searching();
    const left = (): number => Math.min(deadline - performance.now(), 1000 * defaultWaitSeconds);
    const files = await search.rankFiles(this.params.question, this.options);
    const records: FileRecord[] = [];
    const half = performance.now() + left() / 2;
    for (const { root, path } of files.slice(0, candidateFiles)) {
      if (performance.now() > half || this.signal.aborted) break;
      const record = roots.find((r) => r.dir === root)?.records.get(path);
      if (!record) continue;
      await this.core.indexer.prepare(record);
      const segments = await record.root.borrow(record);
      if (!segments) continue;
      this.borrowed.set(record, segments);
      records.push(record);
    }
    const segmentsOf = (record: FileRecord): readonly Segment[] => this.borrowed.get(record) ?? [];
    const best = await search.rankSegments(
      this.params.question,
      records.map((record) => ({
        root: record.root.dir,
        path: record.path,
        segments: segmentsOf(record).map(({ startLine, endLine }) => ({ start_line: startLine, end_line: endLine })),
      })),
      this.options,
    );
    const byFile = new Map(records.map((record) => [`${record.root.dir}\0${record.path}`, record]));
    const wanted = best.flatMap(({ root, path, segmentIndex }) => {
      const record = byFile.get(`${root}\0${path}`);
      const segment = record && segmentsOf(record)[segmentIndex];
      return record && segment ? [{ record, segment }] : [];
    });
    const quotes = await this.quoting(wanted);
    return wanted.filter((place) => !quotes.has(place)).slice(0, candidateSegments);
  }

  /** Those that quote the question, and so draw its words and its attention without answering it. */
  private quoting<T extends { readonly record: FileRecord; readonly segment: Segment }>(places: readonly T[]): Promise<Set<T>> {
    return quoting(
      this.params.question,
      places,
      ({ record, segment }) => ({
        file: { root: record.root.dir, path: record.path },
        lines: { start_line: segment.startLine, end_line: segment.endLine },
      }),
      async (file) => (await this.session.searching()).text(file),
    );
  }

  private async evidence(ranked: readonly RankedSegment[]): Promise<readonly RankedSegment[]> {
    return withoutSegments(ranked, await this.quoting(ranked.slice(0, mostSources)));
  }

  /** Of files over the budget, which are not in memory for anybody else. */
  private borrowedSegments(): MemorySegment[] {
    const list: MemorySegment[] = [];
    for (const [record, segments] of this.borrowed) {
      if (!record.overBudget) continue;
      for (const segment of segments) {
        const handle = this.core.memory.handleOf(segment.key);
        if (handle !== undefined) list.push({ record, segment, handle });
      }
    }
    return list;
  }

  // ---- answering ----------------------------------------------------------------------------------------------------------

  /** Nothing that the question names is anywhere: said so, and nothing invented. */
  private async nowhere({ missing, sentence }: Names): Promise<messages.AskResult> {
    this.read = performance.now();
    const about = { sources: [], uncertain: true, missing };
    this.session.notify(messages.askSources, { id: this.params.id, ...about });
    this.say(sentence);
    return this.result('end', about);
  }

  private async focusAndDecode(ranked: readonly RankedSegment[]): Promise<messages.StopReason> {
    const focus = this.params.focus ?? this.session.current.focusSegments ?? this.core.model.sala.focus.segments;
    let inView = focus === 'all' ? ranked : ranked.slice(0, focus);
    let gaveWay = false;
    // Damage is found one segment at a time, when it is about to be used: as often as there are segments, at most.
    for (let tries = inView.length; ; tries--) {
      try {
        return await this.decodeOver(inView);
      } catch (thrown) {
        const error = toEngineError(thrown);
        if (error.code === 'out_of_memory' && !gaveWay && this.core.giveWay()) {
          gaveWay = true;
          continue;
        }
        if (error.code !== 'store_invalid' || tries <= 0) throw error;
        this.core.log(`store: ${error.message}; read again`);
      }
      inView = await this.readAgain(inView);
    }
  }

  private async decodeOver(inView: readonly RankedSegment[]): Promise<messages.StopReason> {
    const { sala } = this.core.model;
    const { view, hidden } = focusOn(inView, sala.focus.headers);
    const tail = this.core.native.createTail({
      view,
      hidden,
      startsFrom: sala.tail_starts_from,
      denseScopeTokens: sala.dense_scope_tokens,
      maxTokens: sala.tail_tokens,
    });
    try {
      return await this.prefillAndDecode(tail, this.promptTokens(sala.tail_tokens - this.core.prefix.length), this.draftsOf(inView));
    } finally {
      this.core.native.releaseTail(tail);
    }
  }

  /** A damaged segment of the store was dropped: the files in view are read again, and the user only waits. */
  private async readAgain(inView: readonly RankedSegment[]): Promise<RankedSegment[]> {
    const { indexer, memory } = this.core;
    for (const record of new Set(inView.map(({ record }) => record))) {
      record.root.reread(record);
      await indexer.prepare(record);
      const missing = record.root.missing(record).map((segment) => ({ record, segment }));
      await indexer.readFirst(missing, Infinity, this.signal);
    }
    return inView.flatMap((ranked) => {
      const handle = memory.handleOf(ranked.segment.key);
      return handle === undefined ? [] : [{ ...ranked, handle }];
    });
  }

  /** P, all segments of the scope and the turn as one sequence: what composed answers are measured against. Slow. */
  private async decodeExactly(): Promise<messages.StopReason> {
    const parts: Int32Array[] = [this.core.prefix];
    for (const root of this.session.roots) {
      for (const record of root.admitted()) {
        if (this.accepts({ root: root.dir, path: record.path })) parts.push(...(await root.tokens(record)));
      }
    }
    const prompt = this.promptTokens(this.core.model.sala.tail_tokens);
    parts.push(prompt);
    const tokens = Int32Array.from(parts.flatMap((part) => Array.from(part)));
    const tail = this.core.native.createExactTail(tokens.length, tokens.length + maxNewTokens);
    try {
      return await this.prefillAndDecode(tail, tokens);
    } finally {
      this.core.native.releaseTail(tail);
    }
  }

  /** The conversation as far as it fits. Throws `context_full` where not even the question does. */
  private promptTokens(room: number): Int32Array {
    const { question, history = [], attachment, activeFile } = this.params;
    const rate = this.core.indexer.tokensPerSecond;
    const historyTokens = Math.max(leastHistoryTokens, Math.floor(rate * historySeconds));
    for (let first = 0; ; first++) {
      const turns = history.slice(first);
      const { tokens, historyLength } = chatTurn(this.core.model, this.core.tokenizer, {
        question,
        history: turns,
        ...(attachment && { attachment }),
        ...(activeFile && { activePath: activeFile.path }),
        maxAttachmentTokens,
      });
      const fits = tokens.length + leastNewTokens <= room && historyLength <= historyTokens;
      if (fits) return tokens;
      if (turns.length > 0) continue;
      if (tokens.length + leastNewTokens <= room) return tokens;
      throw new EngineError(
        'context_full',
        `expected a question of at most ${room - leastNewTokens} tokens with what is attached, found ${tokens.length}`,
      );
    }
  }

  /** What an answer may quote: the texts in view, cut again while the question is prefilled. None is better than waiting or failing. */
  private async draftsOf(inView: readonly RankedSegment[]): Promise<readonly Int32Array[]> {
    const records = [...new Set(inView.slice(0, mostDraftSegments).map(({ record }) => record))];
    const ofFiles = await Promise.allSettled(records.map(async (record) => record.root.tokens(record)));
    const drafts: Int32Array[] = [];
    let nTokens = 0;
    for (const segments of ofFiles) {
      for (const tokens of segments.status === 'fulfilled' ? segments.value : []) {
        nTokens += tokens.length;
        if (nTokens <= mostDraftTokens) drafts.push(tokens);
      }
    }
    return drafts;
  }

  private async prefillAndDecode(
    tail: number,
    tokens: Int32Array,
    drafted: Promise<readonly Int32Array[]> = Promise.resolve([]),
  ): Promise<messages.StopReason> {
    const { native, model, tokenizer } = this.core;
    let drafts: readonly Int32Array[] = [];
    void drafted.then((ready) => (drafts = ready));
    await withCancel(native.prefill(tail, tokens, { priority: 'prefill' }), this.signal);
    this.phase('answering');
    const stopIds = new Set(native.info.eosTokenIds);
    for (const special of model.sala.fim?.stop ?? []) stopIds.add(tokenizer.idOf(special));
    const decoder = new StreamDecoder(tokenizer);
    const repetition = new RepetitionGuard();
    const most = Math.min(this.params.maxTokens ?? maxNewTokens, maxNewTokens, model.sala.tail_tokens);
    const began = performance.now();
    const job = native.decode(tail, {
      priority: 'decode',
      maxTokens: most,
      stopIds: Int32Array.from(stopIds),
      drafts,
      onToken: (id) => {
        if (stopIds.has(id) || repetition.stopped || this.signal.aborted) return;
        this.nTokens++;
        this.decodeSeconds = (performance.now() - began) / 1000;
        this.say(decoder.push(id));
        if (repetition.push(id)) job.cancel();
      },
    });
    let stop: messages.StopReason;
    try {
      const result = await withCancel(job, this.signal);
      stop = result.stop === 'stop_id' ? 'end' : result.stop;
    } catch (error) {
      if (toEngineError(error).code !== 'cancelled') throw error;
      stop = repetition.stopped ? 'repetition' : 'cancelled';
    }
    this.say(decoder.end());
    return stop;
  }

  /** What can be checked of the answer: its names against the workspace, its paths against the sources. */
  private async marked(sources: readonly messages.Source[]): Promise<{ answer: string; marks: readonly messages.AnswerMark[] }> {
    const search = await this.session.searching();
    const { words, paths } = answerNames(this.text);
    const reading = this.budget(searchedForMarks);
    const options = { accepts: this.accepts, ...(reading && { reading }) };
    const { found, complete } = await search.occurring(words, { ...options, first: sources });
    const asked = questionIdentifiers(this.params.question).flatMap(componentsOf).at(-1);
    const { places } = asked === undefined ? { places: [] } : await search.findWord(asked, { ...options, limit: 200 });
    if (this.reading?.passedOver || reading?.passedOver) void search.readOn();
    const resolved = await search.resolvePaths(paths);
    const lines = await this.lineCounts([...resolved.values()].flat());
    return markAnswer(this.text, {
      // Where a file was not searched, an absent word is only probably absent.
      occurs: (word) => !complete || found.has(word),
      resolve: (mention) => resolved.get(mention) ?? [],
      sources,
      asked: questionPaths(this.params.question),
      lines: ({ root, path }) => lines.get(`${root}\0${path}`),
      lineOf: ({ root, path }) => {
        const inFile = places.filter((place) => place.root === root && place.path === path);
        const source = sources.find((candidate) => candidate.root === root && candidate.path === path);
        const near = inFile.find(({ line }) => source && line >= source.start_line && line <= source.end_line);
        return (near ?? inFile[0])?.line;
      },
    });
  }

  /** Of files that the answer names, where they can be read. */
  private async lineCounts(files: readonly FileName[]): Promise<Map<string, number>> {
    const counts = new Map<string, number>();
    for (const file of files.slice(0, mostCountedFiles)) {
      const text = await (await this.session.searching()).text(file);
      if (text !== undefined) counts.set(`${file.root}\0${file.path}`, text.split('\n').length);
    }
    return counts;
  }

  private async result(
    stop: messages.StopReason,
    about: About,
  ): Promise<messages.AskResult> {
    const end = performance.now();
    const seconds = (from: number, to: number): number => Math.max(0, Math.round(to - from)) / 1000;
    const { answer, marks } = await this.marked(about.sources);
    const unsearched = this.reading?.passedOver ?? 0;
    return {
      ...about,
      answer,
      marks,
      ...(unsearched > 0 && { unsearched }),
      stop,
      coverage: Indexer.total(this.session.roots),
      timings: {
        ingest_s: seconds(this.begin, this.ingested),
        read_s: seconds(this.ingested, this.read),
        first_token_s: seconds(this.ingested, this.firstToken ?? end),
        tokens_per_s: this.decodeSeconds > 0 ? Math.round((10 * this.nTokens) / this.decodeSeconds) / 10 : 0,
        tokens: this.nTokens,
      },
    };
  }
}

function rankedRange({ record, segment, share }: RankedSegment): RankedRange {
  return { root: record.root.dir, path: record.path, start_line: segment.startLine, end_line: segment.endLine, share };
}
