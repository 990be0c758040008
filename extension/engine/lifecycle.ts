// The life of an engine process: elected or not, listening before the model is loaded, ended when its last client has gone. What
// it leaves behind is its log and the store, whatever way it ends but SIGKILL; what that leaves is removed by the next process
// or client that looks (election.ts). The handlers behind the socket are server.ts and session.ts.

import { setTimeout as delay } from 'node:timers/promises';
import net from 'node:net';
import { tryElection, type Flag } from './election';
import { accepts, endpointName, endpointPath, listenAt, removeEndpoint } from './endpoint';
import { EngineError, toEngineError } from './errors';
import { LogFile } from './log-file';
import type { EngineFailure } from './messages';
import { findModel } from './model-folder';
import { parseEngineArgs, type EngineOptions } from './options';
import { EngineServer } from './server';
import type { EngineCore, LoadCore } from './session';
import { openStoreFolder, type StoreFolder } from './store-folder';

/** What a starting process tells the one that launched it, one JSON document a line. `listening` and `failure` are the last. */
export type StartReport =
  | { readonly progress: string }
  | { readonly listening: string; readonly store: string; readonly name: string }
  | { readonly failure: EngineFailure };

/** A process that was launched has a client at once; this covers a busy machine. */
const firstClientMs = 5000;
/** Longest wait for another candidate, or for an engine that is ending. */
const electionMs = 15_000;
/** Time for the last answers to leave the process. */
const answerMs = 300;
/** A core that does not close by then is left to the system: the process ends in any case. */
const closeMs = 1500;

/** Runs until the process ends. Never throws: failures are reported, logged and told by the exit code. */
export async function runEngine(argv: readonly string[], loadCore: LoadCore): Promise<void> {
  // Whatever is created from here on is the owner's alone.
  process.umask(0o077);
  // The launcher reads these only until its own end.
  process.stdout.on('error', () => {});
  process.stderr.on('error', () => {});
  const launcher = new Launcher();
  try {
    const options = parseEngineArgs(argv);
    launcher.attach(options.reportFd);
    const model = options.model ?? (await findModel());
    launcher.tell({ progress: 'looking at the model' });
    const store = await openStoreFolder(model, options.store);
    const name = endpointName(options.activations);
    const flag = await elect(store.dir, name);
    if (!flag) {
      await launcher.finish({ listening: endpointPath(store.dir, name), store: store.dir, name });
      process.exit(0);
    }
    await new EngineProcess(options, model, store, name, flag, launcher).run(loadCore);
  } catch (error) {
    const { code, message } = toEngineError(error);
    console.error(error);
    await launcher.finish({ failure: { code, message } });
    process.exit(1);
  }
}

/** The process's own flag if it is the engine now; undefined once another one accepts clients. */
async function elect(dir: string, name: string): Promise<Flag | undefined> {
  const deadline = performance.now() + electionMs;
  for (;;) {
    if (await accepts(endpointPath(dir, name))) return undefined;
    const outcome = tryElection(dir, name);
    if ('flag' in outcome) return outcome.flag;
    if (performance.now() > deadline) {
      throw new EngineError(
        'engine_unreachable',
        `expected the engine process ${outcome.heldBy} to answer or to end, found neither within ${electionMs / 1000} s (store: ${dir})`,
      );
    }
    // Random, so that candidates who saw each other do not meet again.
    await delay(10 + Math.random() * 50);
  }
}

class EngineProcess {
  private readonly log: LogFile;
  private readonly server: EngineServer;
  private readonly core = deferred<EngineCore>();
  private readonly firstClient = deferred<void>();
  private loaded: EngineCore | undefined;
  private idle: NodeJS.Timeout | undefined;
  private ending = false;
  private cleanedUp = false;

  constructor(
    private readonly options: EngineOptions,
    private readonly model: string,
    private readonly store: StoreFolder,
    private readonly name: string,
    private readonly flag: Flag,
    private readonly launcher: Launcher,
  ) {
    this.log = new LogFile(store.dir);
    this.server = new EngineServer({
      core: this.core.promise,
      onClients: (n) => this.onClients(n),
      log: (line) => this.log.write(line),
      ...(store.replaced !== undefined && { remark: store.replaced }),
    });
  }

  async run(loadCore: LoadCore): Promise<void> {
    process.on('uncaughtException', (error) => void this.crash(error));
    process.on('unhandledRejection', (error) => void this.crash(error));
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => void this.end(`${signal}`, 0));
    process.on('exit', () => this.cleanUp());
    // A launcher that is gone before it could connect has no use for this process.
    this.launcher.onGone(() => void this.end('the launching process is gone', 0));
    const { dir, replaced } = this.store;
    try {
      const socket = await listenAt(this.server.listener, dir, this.name);
      this.log.write(`started: model ${this.model}, activations ${this.options.activations}, socket ${socket}`);
      if (replaced !== undefined) this.log.write(replaced);
      this.idle = setTimeout(() => void this.end('no client came', 0), firstClientMs);
      await this.launcher.finish({ listening: socket, store: dir, name: this.name });
    } catch (error) {
      this.cleanUp();
      throw new EngineError('store_unwritable', `expected to listen for clients in ${dir}, found: ${toEngineError(error).message}`, {
        cause: error,
      });
    }
    await this.load(loadCore);
  }

  private async load(loadCore: LoadCore): Promise<void> {
    const { activations, threads, maxMemoryBytes, maxDiskBytes } = this.options;
    const started = performance.now();
    try {
      this.loaded = await loadCore({
        modelDir: this.model,
        store: this.store.dir,
        activations,
        ...(threads !== undefined && { threads }),
        ...(maxMemoryBytes !== undefined && { maxMemoryBytes }),
        ...(maxDiskBytes !== undefined && { maxDiskBytes }),
        onProgress: (message, fraction) => this.server.progress(message, fraction),
        log: (line) => this.log.write(line),
      });
      this.log.write(`loaded in ${Math.round(performance.now() - started)} ms`);
      this.core.resolve(this.loaded);
    } catch (error) {
      const failure = toEngineError(error);
      this.log.write(`not loaded: ${failure.code}: ${failure.message}`);
      this.core.reject(failure);
      // The launching client may only just have learnt where to connect: without the reason it would try again in vain.
      await Promise.race([this.firstClient.promise, delay(firstClientMs)]);
      // Those who wait are told why; nobody else is served, so that another attempt starts another process.
      removeEndpoint(this.store.dir, this.name);
      this.server.listener.close();
      setTimeout(() => void this.end('not loaded', 1), answerMs);
    }
  }

  private onClients(n: number): void {
    clearTimeout(this.idle);
    if (n > 0) this.firstClient.resolve();
    if (n === 0 && !this.ending) this.idle = setTimeout(() => void this.end('the last client is gone', 0), this.options.graceMs);
  }

  private async crash(error: unknown): Promise<void> {
    const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.log.write(`uncaught: ${message}`);
    console.error(message);
    this.server.fail(new EngineError('internal', `the engine failed: ${toEngineError(error).message} (log: ${this.log.file})`));
    await delay(answerMs);
    await this.end('uncaught error', 70);
  }

  /** Out of reach first, so that who comes now starts another process, which waits for the flag; then let go; then end. */
  private async end(reason: string, exitCode: number): Promise<void> {
    if (this.ending) return;
    this.ending = true;
    clearTimeout(this.idle);
    this.log.write(`ending: ${reason}`);
    removeEndpoint(this.store.dir, this.name);
    await Promise.race([
      this.server.close().then(() => this.loaded?.close()),
      delay(closeMs).then(() => this.log.write('ending without waiting for the core')),
    ]).catch((error: unknown) => this.log.write(`closing: ${toEngineError(error).message}`));
    this.cleanUp();
    process.exit(exitCode);
  }

  /** Once only: with the flag down, the next engine's socket may lie where ours did. */
  private cleanUp(): void {
    if (this.cleanedUp) return;
    this.cleanedUp = true;
    removeEndpoint(this.store.dir, this.name);
    this.flag.lower();
  }
}

/** The process that launched this one, as long as it listens on the report descriptor. */
class Launcher {
  private pipe: net.Socket | undefined;

  attach(fd: number | undefined): void {
    if (fd === undefined) return;
    this.pipe = new net.Socket({ fd, readable: true, writable: true });
    this.pipe.on('error', () => {});
    this.pipe.resume();
    this.pipe.unref();
  }

  onGone(gone: () => void): void {
    const pipe = this.pipe;
    if (pipe?.destroyed) gone();
    pipe?.on('close', () => {
      if (this.pipe) gone();
    });
  }

  tell(report: StartReport): void {
    this.pipe?.write(`${JSON.stringify(report)}\n`);
  }

  async finish(report: StartReport): Promise<void> {
    const pipe = this.pipe;
    this.pipe = undefined;
    if (!pipe || pipe.destroyed) return;
    await new Promise<void>((resolve) => {
      pipe.on('close', () => resolve());
      pipe.end(`${JSON.stringify(report)}\n`, () => pipe.destroy());
    });
  }
}

function deferred<T>(): { promise: Promise<T>; resolve(value: T): void; reject(error: unknown): void } {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((onValue, onError) => {
    resolve = onValue;
    reject = onError;
  });
  // Awaited by clients only; there may be none.
  promise.catch(() => {});
  return { promise, resolve, reject };
}
