// The engine's side of the socket: one jsonrpc connection and one ClientSession per client. Maps messages to session calls,
// cancellation to AbortSignals and thrown errors to codes; checks the shape of what arrives. What the calls do is session.ts's
// business. A client that breaks the rules, stops reading or dies costs nobody else anything.

import net from 'node:net';
import type { CancellationToken, MessageConnection, NotificationType, NotificationType0, RequestType, RequestType0 } from 'vscode-jsonrpc/node';
import path from 'node:path';
import { connectOver, toResponseError, withSignal } from './connection';
import { EngineError, toEngineError } from './errors';
import * as messages from './messages';
import type { ClientSession, EngineCore } from './session';

/** A document of the editor at most; nothing that a client sends is longer. */
const maxMessageBytes = 64 << 20;
/** Notifications that may wait for a client that does not read (a stopped window); beyond it the connection is closed. */
const maxWaitingNotifications = 20_000;

export interface ServerOptions {
  /** Settled once the model is loaded, or could not be. */
  readonly core: Promise<EngineCore>;
  /** Called whenever a client came or went. */
  onClients(n: number): void;
  log(line: string): void;
  /** Goes to every client with the answer to `hello`. */
  readonly remark?: string;
}

export class EngineServer {
  readonly listener = net.createServer((socket) => this.accept(socket));
  private readonly clients = new Set<Client>();
  private lastProgress: { message: string; fraction?: number } | undefined;
  private fatal: EngineError | undefined;

  constructor(private readonly options: ServerOptions) {}

  /** Told to everybody who waits for `hello`. */
  progress(message: string, fraction?: number): void {
    this.lastProgress = { message, ...(fraction !== undefined && { fraction }) };
    for (const client of this.clients) client.progress(this.lastProgress);
  }

  /** Answers every request in flight with this error; the process is about to end. */
  fail(error: EngineError): void {
    this.fatal = error;
    for (const client of this.clients) client.fail(error);
  }

  /** No client any more, from now on. Resolves when the sessions have let go. */
  async close(): Promise<void> {
    this.listener.close();
    await Promise.allSettled([...this.clients].map((client) => client.close()));
  }

  private accept(socket: net.Socket): void {
    const client = new Client(socket, this.options);
    this.clients.add(client);
    this.options.onClients(this.clients.size);
    socket.on('close', () => {
      this.clients.delete(client);
      void client.close();
      this.options.onClients(this.clients.size);
    });
    if (this.lastProgress) client.progress(this.lastProgress);
    if (this.fatal) client.fail(this.fatal);
  }
}

class Client {
  private readonly connection: MessageConnection;
  private session: ClientSession | undefined;
  private greeted = false;
  private closing: Promise<void> | undefined;
  private nWaiting = 0;
  /** One for each request in flight: aborted when the client goes. */
  private readonly requests = new Set<AbortController>();
  /** Rejects all of them. */
  fail!: (error: EngineError) => void;
  private readonly failed = new Promise<never>((_, reject) => {
    this.fail = (error) => {
      this.failure = error;
      reject(error);
    };
  });
  private failure: EngineError | undefined;

  constructor(
    private readonly socket: net.Socket,
    private readonly options: ServerOptions,
  ) {
    this.failed.catch(() => {});
    this.connection = connectOver(socket, maxMessageBytes, (reason) => options.log(`a client's connection was closed: ${reason}`));
    this.registerHandlers();
    this.connection.listen();
  }

  progress(progress: { message: string; fraction?: number }): void {
    if (!this.session) this.notify(messages.startProgress, progress);
  }

  close(): Promise<void> {
    return (this.closing ??= (async () => {
      for (const request of this.requests) request.abort();
      this.connection.dispose();
      this.socket.destroy();
      await this.session?.close();
    })().catch((error: unknown) => this.options.log(`closing a session: ${toEngineError(error).message}`)));
  }

  private registerHandlers(): void {
    this.request(messages.hello, checkHello, (params) => this.hello(params));
    this.inSession(messages.open, checkOpen, (session, params) => session.open(params));
    this.inSession(messages.ask, checkAsk, (session, params, signal) => session.ask(params, signal));
    this.inSession(messages.complete, checkComplete, (session, params, signal) => session.complete(params, signal));
    this.inSession(messages.coverage, checkCoverage, (session, params) => session.coverage(params));
    this.inSession(messages.coverageLevel, checkPlace, (session, params) => session.coverageLevel(params));
    this.inSession(messages.coverageOf, checkPaths, (session, params) => session.coverageOf(params));
    this.inSession(messages.pause, checkPause, async (session, params) => {
      session.pause(params);
      return null;
    });
    this.inSession(messages.exportPack, checkPack, (session, params, signal) => session.exportPack(params, signal));
    this.inSession(messages.importPack, checkPack, (session, params, signal) => session.importPack(params, signal));
    this.inSession0(messages.ingest, (session, signal) => session.ingest(signal));
    this.inSession0(messages.forget, (session) => session.forget());
    this.inSession0(messages.verify, (session) => session.verify());
    this.on(messages.place, checkComplete, (session, params) => session.place(params));
    this.on(messages.settings, checkSettings, (session, params) => session.settings(params));
    this.on(messages.filesChanged, checkChanges, (session, params) => session.filesChanged(params));
    this.on(messages.recentFiles, checkPaths, (session, params) => session.recentFiles(params));
    this.on(messages.document, checkDocument, (session, params) => session.document(params));
    this.on0(messages.typing, (session) => session.typing());
  }

  private async hello(params: messages.HelloParams): Promise<messages.HelloResult> {
    if (this.greeted) throw new EngineError('invalid_argument', 'hello: expected once in a connection, found twice');
    this.greeted = true;
    const core = await this.options.core;
    if (this.closing) throw new EngineError('cancelled', 'hello: the client is gone');
    this.session = core.createSession({ kind: params.client, notify: (type, params) => this.notify(type, params) });
    const hello = core.hello();
    const remarks = [this.options.remark, hello.remark].filter((remark) => remark !== undefined);
    return { ...hello, ...(remarks.length > 0 && { remark: remarks.join('; ') }) };
  }

  private notify<P>(type: NotificationType<P>, params: P): void {
    if (this.closing) return;
    if (++this.nWaiting > maxWaitingNotifications) {
      this.options.log(`a client's connection was closed: it does not read (${this.nWaiting} notifications are waiting)`);
      this.socket.destroy();
      return;
    }
    this.connection
      .sendNotification(type, params as never)
      .catch(() => this.socket.destroy())
      .finally(() => this.nWaiting--);
  }

  // ---- registration: shape checks, session, signal and errors in one place --------------------------------------------

  private request<P, R>(
    type: RequestType<P, R, messages.EngineFailure>,
    check: (params: P) => void,
    work: (params: P, signal: AbortSignal) => Promise<R>,
  ): void {
    this.answer(type.method, async (params, signal) => {
      requireObject(type.method, params);
      check(params as P);
      return work(params as P, signal);
    });
  }

  private inSession<P, R>(
    type: RequestType<P, R, messages.EngineFailure>,
    check: (params: P) => void,
    work: (session: ClientSession, params: P, signal: AbortSignal) => Promise<R>,
  ): void {
    this.request(type, check, (params, signal) => work(this.requireSession(type.method), params, signal));
  }

  private inSession0<R>(
    type: RequestType0<R, messages.EngineFailure>,
    work: (session: ClientSession, signal: AbortSignal) => Promise<R>,
  ): void {
    this.answer(type.method, async (_, signal) => work(this.requireSession(type.method), signal));
  }

  private on<P>(type: NotificationType<P>, check: (params: P) => void, work: (session: ClientSession, params: P) => void): void {
    this.connection.onNotification(type.method, (params: P) =>
      this.observe(type.method, () => {
        requireObject(type.method, params);
        check(params);
        work(this.requireSession(type.method), params);
      }),
    );
  }

  private on0(type: NotificationType0, work: (session: ClientSession) => void): void {
    this.connection.onNotification(type.method, () => this.observe(type.method, () => work(this.requireSession(type.method))));
  }

  /** Registered by name, not by type: the library answers a wrong number of parameters with a code that is not ours. */
  private answer(method: string, work: (params: unknown, signal: AbortSignal) => Promise<unknown>): void {
    this.connection.onRequest(method, async (...args: unknown[]) => {
      const token = args.at(-1) as CancellationToken;
      const params = args.length > 1 ? args[0] : undefined;
      const controller = new AbortController();
      this.requests.add(controller);
      try {
        return await Promise.race([withSignal(token, controller, (signal) => work(params, signal)), this.failed]);
      } catch (error) {
        const failure = toEngineError(error);
        if (failure.code === 'internal') this.options.log(`${method}: ${error instanceof Error ? error.stack : failure.message}`);
        throw toResponseError(error, error === this.failure);
      } finally {
        this.requests.delete(controller);
      }
    });
  }

  private observe(method: string, work: () => void): void {
    try {
      work();
    } catch (error) {
      this.options.log(`${method}: ${toEngineError(error).code}: ${toEngineError(error).message}`);
    }
  }

  private requireSession(method: string): ClientSession {
    if (this.session) return this.session;
    throw new EngineError('invalid_argument', `${method}: expected after hello was answered, found before`);
  }
}

// ---- shapes -----------------------------------------------------------------------------------------------------------
// What arrives is JSON from a process of the same user, perhaps of another version: the fields that would do harm if they were
// something else are looked at, so that the session may trust their types.

function checkHello(p: messages.HelloParams): void {
  if (p.client !== 'editor' && p.client !== 'cli') mismatch('hello.client', "'editor' or 'cli'", p.client);
}

function checkOpen(p: messages.OpenParams): void {
  if (!Array.isArray(p.roots)) mismatch('open.roots', 'a list', p.roots);
  for (const root of p.roots) {
    requireObject('open.roots', root);
    requireAbsolute('open.roots.path', root.path);
    requireType('open.roots.name', 'string', root.name);
    if (root.include !== undefined) requireStrings('open.roots.include', root.include);
    if (root.exclude !== undefined) requireStrings('open.roots.exclude', root.exclude);
  }
  requireType('open.trusted', 'boolean', p.trusted);
  requireType('open.ingest', 'boolean', p.ingest);
  if (!['engine', 'client', 'none'].includes(p.watch)) mismatch('open.watch', "'engine', 'client' or 'none'", p.watch);
  requireObject('open.settings', p.settings);
  checkSettings(p.settings);
}

function checkSettings(p: Partial<messages.EngineSettings>): void {
  for (const name of ['tokenBudget', 'maxMemoryBytes', 'maxDiskBytes', 'threads'] as const) {
    const value = p[name];
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 0)) mismatch(`settings.${name}`, 'a whole number', value);
  }
  if (p.include !== undefined) requireStrings('settings.include', p.include);
  if (p.exclude !== undefined) requireStrings('settings.exclude', p.exclude);
}

function checkAsk(p: messages.AskParams): void {
  requireType('ask.id', 'number', p.id);
  requireType('ask.question', 'string', p.question);
  if (p.scope !== undefined) requireStrings('ask.scope', p.scope);
  if (p.roots !== undefined) requireStrings('ask.roots', p.roots);
  if (p.history !== undefined && !Array.isArray(p.history)) mismatch('ask.history', 'a list', p.history);
  if (p.search !== undefined && p.search !== 'all') mismatch('ask.search', "'all'", p.search);
}

function checkComplete(p: messages.CompleteParams): void {
  requireType('complete.path', 'string', p.path);
  requireType('complete.text', 'string', p.text);
  if (!(Number.isSafeInteger(p.offset) && p.offset >= 0 && p.offset <= p.text.length)) {
    mismatch('complete.offset', `0 to ${p.text.length}`, p.offset);
  }
}

function checkCoverage(p: { path?: string }): void {
  if (p.path !== undefined) requireType('coverage.path', 'string', p.path);
}

function checkPlace(p: messages.CoveragePlace): void {
  for (const name of ['root', 'state', 'rule', 'folder'] as const) if (p[name] !== undefined) requireType(`coverageLevel.${name}`, 'string', p[name]);
}

function checkPause(p: messages.PauseParams): void {
  requireType('pause.paused', 'boolean', p.paused);
  if (p.everyone !== undefined) requireType('pause.everyone', 'boolean', p.everyone);
}

function checkPaths(p: { paths: readonly string[] }): void {
  requireStrings('paths', p.paths);
  for (const file of p.paths) requireAbsolute('paths', file);
}

function checkChanges(p: { paths: readonly string[]; missed?: boolean }): void {
  checkPaths(p);
  if (p.missed !== undefined) requireType('missed', 'boolean', p.missed);
}

function checkPack(p: { file: string }): void {
  requireAbsolute('file', p.file);
}

function checkDocument(p: { path: string; text: string | null }): void {
  requireAbsolute('document.path', p.path);
  if (p.text !== null) requireType('document.text', 'string', p.text);
}

function requireObject(name: string, value: unknown): void {
  if (typeof value !== 'object' || value === null) mismatch(name, 'an object', value);
}

function requireType(name: string, type: 'string' | 'number' | 'boolean', value: unknown): void {
  if (typeof value !== type) mismatch(name, `a ${type}`, value);
}

function requireStrings(name: string, value: unknown): void {
  if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) mismatch(name, 'a list of strings', value);
}

function requireAbsolute(name: string, value: unknown): void {
  if (typeof value !== 'string' || !path.isAbsolute(value)) mismatch(name, 'an absolute path', value);
}

/** Names the type found, not the value, which may be text of the workspace. */
function mismatch(name: string, expected: string, found: unknown): never {
  throw new EngineError('invalid_argument', `${name}: expected ${expected}, found ${found === null ? 'null' : typeof found}`);
}
