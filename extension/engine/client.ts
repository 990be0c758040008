// A client of the engine process, the same for the extension host and the command line: finds a running engine or starts one,
// greets it, and keeps the connection. After a crash it starts again, with growing pauses and at most three times in a row, and
// tells the engine anew what it had been told. Imports nothing of `vscode`. No request is answered from here.

import net from 'node:net';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { MessageConnection, NotificationType, NotificationType0, RequestType, RequestType0 } from 'vscode-jsonrpc/node';
import { connectOver, fromResponseError, isDisconnect, isEnd, tokenOf } from './connection';
import { processStart, tryElection } from './election';
import { accepts, endpointName, endpointPath, removeEndpoint } from './endpoint';
import { EngineError, toEngineError } from './errors';
import { describeLoss, launchEngine, type Launched } from './launch';
import * as messages from './messages';
import { findModel } from './model-folder';
import { parseEngineArgs } from './options';
import { lookUpStoreFolders } from './store-folder';

export type EngineState =
  | { readonly state: 'stopped' }
  /** Finding or starting an engine, loading the model, or pausing before another attempt. */
  | { readonly state: 'starting'; readonly message: string; readonly fraction?: number }
  | { readonly state: 'ready'; readonly hello: messages.HelloResult }
  /** Nothing is tried any more until `restart`. */
  | { readonly state: 'failed'; readonly error: EngineError };

export interface EngineClientOptions {
  /** Folder of the bundles: `engine.cjs` is the engine process. */
  readonly dist: string;
  /** Arguments of the engine process (options.ts): model, store, activations, threads, … */
  readonly args?: readonly string[];
  readonly client?: messages.HelloParams['client'];
  /** Of the extension or program. */
  readonly version?: string;
  readonly log: (line: string) => void;
  readonly onState?: (state: EngineState) => void;
}

interface Live {
  readonly connection: MessageConnection;
  readonly socket: net.Socket;
  readonly hello: messages.HelloResult;
  /** It was lost, and that was taken note of. */
  readonly ended: Promise<void>;
}

const maxStarts = 3;
/** Before the second and third start in a row. */
const pausesMs = [500, 2000];
/** An engine that ran for this long has not failed to start. */
const soundMs = 30_000;
/** Connecting to an engine that is just ending fails; another start follows at once, but not for ever. */
const maxRaces = 20;
/** A stopped process accepts connections and does not answer: after this the user is told. */
const silenceMs = 10_000;
/** A cancelled request is answered within a step of the engine; where it is not, the caller is let go. */
const cancelMs = 3000;
/** What the engine sends is bounded by its largest list: the states of 200,000 files. */
const maxMessageBytes = 256 << 20;
/** Asked twice, they do the same: sent again if the engine was lost meanwhile. */
const idempotent = new Set([messages.open.method, messages.coverage.method, messages.coverageLevel.method, messages.coverageOf.method]);
/** Before they are sent a second and a third time: what ended one engine may end the next one at once, and pass then. */
const againAfterMs = [200, 1000];
/** Longer than an engine takes to end (lifecycle.ts). */
const endMs = 5000;

export class EngineClient {
  private current: EngineState = { state: 'stopped' };
  private live: Promise<Live> | undefined;
  private nStarts = 0;
  private lastReady = -Infinity;
  private failure: EngineError | undefined;
  private lossReason: string | undefined;
  private readonly disposal = new AbortController();
  /** Cut by restart() and dispose(). */
  private socket: net.Socket | undefined;
  private readonly listeners = new Map<string, Set<(params: never) => void>>();
  private readonly told = new Told();

  constructor(private readonly options: EngineClientOptions) {}

  get state(): EngineState {
    return this.current;
  }

  /** Connects if need be. Requests do so by themselves. */
  async start(): Promise<messages.HelloResult> {
    return (await this.connected()).hello;
  }

  request<R>(type: RequestType0<R, messages.EngineFailure>, params?: undefined, signal?: AbortSignal): Promise<R>;
  request<P, R>(type: RequestType<P, R, messages.EngineFailure>, params: P, signal?: AbortSignal): Promise<R>;
  /**
   * Fails with the engine's EngineError; `engine_unreachable` if the engine was lost on the way; `cancelled` after `signal`,
   * unless the message says that it resolves then (ask).
   */
  async request(
    type: { readonly method: string; readonly numberOfParams: number },
    params?: unknown,
    signal?: AbortSignal,
  ): Promise<unknown> {
    this.told.before(type.method);
    for (let tries = 1; ; tries++) {
      const live = await unlessAborted(this.connected(), signal, 'cancelled while the engine was starting', 0);
      try {
        const result = await this.send(live, type, params, signal);
        this.told.after(type.method, params);
        return result;
      } catch (error) {
        const isLost = isDisconnect(error) || isEnd(error);
        const pauseMs = idempotent.has(type.method) ? againAfterMs[tries - 1] : undefined;
        if (!isLost || pauseMs === undefined || signal?.aborted) throw fromResponseError(error, this.describeDisconnect(tries));
        // An engine that says that it ends has a moment for it.
        setTimeout(() => live.socket.destroy(), endMs).unref();
        await unlessAborted(Promise.all([this.pause(pauseMs), live.ended]), signal, `${type.method} was cancelled`, 0);
      }
    }
  }

  notify(type: NotificationType0): void;
  notify<P>(type: NotificationType<P>, params: P): void;
  /** Starts no engine. What must hold later is remembered and told to the next engine; the rest is dropped without one. */
  notify(type: { readonly method: string }, params?: unknown): void {
    const remembered = this.told.notified(type.method, params);
    // While the engine starts, what is remembered goes after it as well: the telling may already have passed it.
    if (this.current.state !== 'ready' && !remembered) return;
    void this.live?.then(({ connection }) =>
      params === undefined ? connection.sendNotification(type.method) : connection.sendNotification(type.method, params),
    ).catch((error: unknown) => this.options.log(`${type.method} was not sent: ${toEngineError(error).message}`));
  }

  /** Listeners stay over restarts of the engine. */
  on<P>(type: NotificationType<P>, listener: (params: P) => void): { dispose(): void } {
    const listeners = this.listeners.get(type.method) ?? new Set();
    this.listeners.set(type.method, listeners.add(listener));
    return { dispose: () => void listeners.delete(listener) };
  }

  /** Ends the running engine, for all its clients, and starts another. The way out of 'failed', too. */
  async restart(): Promise<void> {
    const running = this.current.state === 'ready' ? this.current.hello.pid : undefined;
    this.nStarts = 0;
    this.failure = undefined;
    this.live = undefined;
    this.socket?.destroy();
    this.socket = undefined;
    if (running !== undefined) await endProcess(running);
    await this.connected();
  }

  dispose(): void {
    this.disposal.abort();
    // What was written before is still sent; the engine sees the end of the stream.
    this.socket?.end();
    this.socket?.unref();
    this.setState({ state: 'stopped' });
  }

  // ---- connecting -----------------------------------------------------------------------------------------------------

  private connected(): Promise<Live> {
    if (this.disposal.signal.aborted) return Promise.reject(closed());
    if (this.failure) return Promise.reject(this.failure);
    if (!this.live) {
      const live = this.connectRepeatedly();
      this.live = live;
      live.catch((error: unknown) => {
        if (this.live !== live) return;
        this.live = undefined;
        if (this.disposal.signal.aborted) return;
        this.failure = toEngineError(error);
        this.options.log(`the engine cannot run: ${this.failure.code}: ${this.failure.message}`);
        this.setState({ state: 'failed', error: this.failure });
      });
    }
    return this.live;
  }

  private async connectRepeatedly(): Promise<Live> {
    this.setState({ state: 'starting', message: 'looking for the engine' });
    for (let races = 0; ; ) {
      const startsBefore = this.nStarts;
      try {
        return await this.connectOnce();
      } catch (error) {
        if (this.disposal.signal.aborted) throw closed();
        const failure = toEngineError(error);
        this.options.log(`connecting to the engine: ${failure.code}: ${failure.message}`);
        if (!mayPass(failure)) throw failure;
        if (this.nStarts === startsBefore && ++races < maxRaces) await delay(50);
        else if (this.nStarts >= maxStarts) throw failure;
        else this.setState({ state: 'starting', message: `the engine stopped; starting it again (${failure.message})` });
      }
    }
  }

  private async connectOnce(): Promise<Live> {
    const parsed = parseEngineArgs(this.options.args ?? []);
    const model = parsed.model ?? (await findModel());
    const name = endpointName(parsed.activations);
    for (const store of await lookUpStoreFolders(model, parsed.store)) {
      const socket = endpointPath(store, name);
      if (await accepts(socket)) return this.greet(socket, store, name);
    }
    if (this.nStarts >= maxStarts) {
      throw new EngineError('engine_unreachable', `the engine stopped ${maxStarts} times in a row: ${this.lossReason ?? 'no reason known'}`);
    }
    if (this.nStarts > 0) await delay(pausesMs[this.nStarts - 1] ?? 0, undefined, { signal: this.disposal.signal });
    this.nStarts++;
    this.setState({ state: 'starting', message: 'starting the engine' });
    const launched = launchEngine(
      path.join(this.options.dist, 'engine.cjs'),
      { ...parsed, model },
      (message) => this.setState({ state: 'starting', message }),
      this.disposal.signal,
    );
    const { socket, store } = await launched.listening;
    return this.greet(socket, store, name, launched);
  }

  private async greet(socketPath: string, store: string, name: string, launched?: Launched): Promise<Live> {
    if (this.disposal.signal.aborted) throw closed();
    const socket = net.connect(socketPath);
    this.socket = socket;
    const ended = new Promise<void>((resolve) => socket.on('close', () => resolve()));
    const connection = connectOver(socket, maxMessageBytes, (reason) => this.options.log(`the engine's connection: ${reason}`));
    connection.onNotification((method, params) => this.dispatch(method, params));
    connection.listen();
    const { client = 'editor', version = '' } = this.options;
    const silence = setTimeout(() => {
      if (this.current.state === 'starting') this.setState({ state: 'starting', message: 'waiting for the engine process to answer' });
    }, silenceMs);
    let hello: messages.HelloResult | undefined;
    try {
      hello = await Promise.race([
        connection.sendRequest(messages.hello, { client, version, pid: process.pid }),
        ended.then(() => undefined),
      ]);
      if (!hello) throw await this.reasonOfLoss(store, name, launched, undefined);
      // Told before anybody else's request goes out: requests wait for this promise.
      await this.told.repeat(connection);
    } catch (error) {
      socket.destroy();
      connection.dispose();
      if (error instanceof EngineError) throw error;
      if (isDisconnect(error)) throw await this.reasonOfLoss(store, name, launched, hello?.pid);
      throw fromResponseError(error, '');
    } finally {
      clearTimeout(silence);
    }
    this.lastReady = performance.now();
    const lost = ended.then(() => this.onLost(socket, connection, store, name, launched, hello.pid));
    this.setState({ state: 'ready', hello });
    return { connection, socket, hello, ended: lost };
  }

  private async onLost(
    socket: net.Socket,
    connection: MessageConnection,
    store: string,
    name: string,
    launched: Launched | undefined,
    pid: number,
  ): Promise<void> {
    const asked = this.disposal.signal.aborted || this.socket !== socket;
    if (!asked) {
      this.live = undefined;
      if (performance.now() - this.lastReady >= soundMs) this.nStarts = 0;
      const reason = await this.reasonOfLoss(store, name, launched, pid);
      this.lossReason = reason.message;
      this.options.log(reason.message);
    }
    // Rejects what was in flight.
    connection.dispose();
    if (asked || this.live !== undefined) return;
    this.setState({ state: 'stopped' });
    // Somebody counts on what was opened: background reading, watched files.
    if (this.told.hasOpened) this.connected().catch(() => {});
  }

  private pause(ms: number): Promise<void> {
    return delay(ms, undefined, { signal: this.disposal.signal }).catch(() => {
      throw closed();
    });
  }

  private describeDisconnect(tries: number): string {
    const often = tries === 1 ? '' : `, ${tries} times in a row`;
    return `the engine stopped while it worked on this${often}${this.lossReason === undefined ? '' : `: ${this.lossReason}`}`;
  }

  /** Also takes away what a killed engine left lying about. */
  private async reasonOfLoss(store: string, name: string, launched: Launched | undefined, pid: number | undefined): Promise<EngineError> {
    const ended = await Promise.race([launched?.ended, delay(300)]);
    try {
      const outcome = tryElection(store, name);
      if ('flag' in outcome) {
        removeEndpoint(store, name);
        outcome.flag.lower();
      }
    } catch (error) {
      this.options.log(`looking after the engine: ${toEngineError(error).message}`);
    }
    if (ended) return ended;
    return pid === undefined
      ? new EngineError('engine_unreachable', 'the engine closed the connection while it started')
      : describeLoss(store, pid);
  }

  private async send(
    { connection }: Live,
    type: { readonly method: string; readonly numberOfParams: number },
    params: unknown,
    signal: AbortSignal | undefined,
  ): Promise<unknown> {
    const cancellation = tokenOf(signal);
    try {
      const answer =
        type.numberOfParams === 0
          ? connection.sendRequest(type.method, cancellation.token)
          : connection.sendRequest(type.method, params, cancellation.token);
      return await unlessAborted(answer, signal, `${type.method} was cancelled`, cancelMs);
    } finally {
      cancellation.dispose();
    }
  }

  private dispatch(method: string, params: unknown): void {
    if (method === messages.startProgress.method && this.current.state === 'starting') {
      this.setState({ state: 'starting', ...(params as { message: string; fraction?: number }) });
    }
    this.told.heard(method);
    for (const listener of this.listeners.get(method) ?? []) listener(params as never);
  }

  private setState(state: EngineState): void {
    this.current = state;
    this.options.onState?.(state);
  }
}

/** What the engine of this client must know, whichever process it is: told again after a reconnect. */
class Told {
  private opened: messages.OpenParams | undefined;
  private settings: Partial<messages.EngineSettings> | undefined;
  private paused = false;
  private recent: { paths: readonly string[] } | undefined;
  private readonly documents = new Map<string, string>();

  get hasOpened(): boolean {
    return this.opened !== undefined;
  }

  /** An `open` under way replaces the one before; it is sent by its own request, again if need be. */
  before(method: string): void {
    if (method === messages.open.method) this.opened = undefined;
  }

  after(method: string, params: unknown): void {
    if (method === messages.open.method) this.opened = params as messages.OpenParams;
    if (method === messages.pause.method) this.paused = (params as { paused: boolean }).paused;
  }

  heard(method: string): void {
    if (method === messages.pauseEnded.method) this.paused = false;
  }

  /** True for what is remembered. */
  notified(method: string, params: unknown): boolean {
    switch (method) {
      case messages.settings.method:
        this.settings = { ...this.settings, ...(params as Partial<messages.EngineSettings>) };
        return true;
      case messages.recentFiles.method:
        this.recent = params as { paths: readonly string[] };
        return true;
      case messages.document.method: {
        const { path, text } = params as { path: string; text: string | null };
        if (text === null) this.documents.delete(path);
        else this.documents.set(path, text);
        return true;
      }
      default:
        return false;
    }
  }

  async repeat(connection: MessageConnection): Promise<void> {
    // Paused before it is opened, so that nothing is read in between.
    if (this.paused) await connection.sendRequest(messages.pause, { paused: true });
    if (this.settings) await connection.sendNotification(messages.settings, this.settings);
    if (this.opened) await connection.sendRequest(messages.open, this.opened);
    if (this.recent) await connection.sendNotification(messages.recentFiles, this.recent);
    for (const [path, text] of this.documents) await connection.sendNotification(messages.document, { path, text });
  }
}

/** Another attempt may end differently: not for a model or processor that will still be the same. */
function mayPass({ code }: EngineError): boolean {
  return code === 'engine_unreachable' || code === 'internal';
}

function closed(): EngineError {
  return new EngineError('engine_unreachable', 'this client has been closed');
}

/** Rejects with `cancelled` when `patienceMs` have passed since the abort. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined, message: string, patienceMs: number): Promise<T> {
  if (!signal) return promise;
  let timer: NodeJS.Timeout | undefined;
  let onAbort!: () => void;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => (timer = setTimeout(() => reject(new EngineError('cancelled', message)), patienceMs));
  });
  if (signal.aborted) onAbort();
  else signal.addEventListener('abort', onAbort);
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', onAbort);
  }
}

/** Asks the process to end and, where it does not within three seconds, ends it. */
async function endProcess(pid: number): Promise<void> {
  const start = processStart(pid);
  const lives = (): boolean => start !== undefined && processStart(pid) === start;
  try {
    process.kill(pid, 'SIGTERM');
    for (let i = 0; i < 60 && lives(); i++) await delay(50);
    if (lives()) process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
