// One window's relation to the engine: which folders it has, whether they are trusted, whether the user agreed to background
// reading, and the engine's state in words. Every surface of the editor asks through it and listens to its one event. It starts
// the engine only when something needs it: a trusted folder with reading or completions on, or a question.

import { existsSync } from 'node:fs';
import path from 'node:path';
import type { NotificationType, NotificationType0, RequestType, RequestType0 } from 'vscode-jsonrpc/node';
import * as vscode from 'vscode';
import { onConfigChange, readConfig, type Config } from '../config';
import { EngineError, toEngineError } from '../engine/errors';
import * as messages from '../engine/messages';
import type { Log } from '../log';
import { EngineClient, type EngineState } from './engine-client';
import { unsupportedSentence } from './error-texts';
import { roots } from './locate';
import { Power, powerSource } from './power';

/** What kind of window this is: only a 'workspace' is read. */
export type Place = 'workspace' | 'no_folder' | 'virtual' | 'untrusted' | 'unsupported';

/** `unknown`: not asked yet, or the question was put aside. */
export type Consent = 'unknown' | 'granted' | 'declined';

const consentKey = 'sala.consent';
const consentAskedKey = 'sala.consentAsked';
const pausedKey = 'sala.paused';
const speedKey = 'sala.tokensPerSecond';

export class Session implements vscode.Disposable {
  readonly #changed = new vscode.EventEmitter<void>();
  /** Anything below has changed. */
  readonly onDidChange = this.#changed.event;

  #config: Config = readConfig();
  #client: EngineClient;
  #opened: Promise<messages.Coverage> | undefined;
  #engine: EngineState = { state: 'stopped' };
  #ingest: messages.IngestStatus | null = null;
  readonly #listeners: { readonly type: NotificationType<never>; readonly listener: (params: never) => void }[] = [];
  readonly #power = new Power(powerSource(), () => this.#powerChanged());
  /** The user resumed what waited for mains power: holds until it is there. */
  #readsOnBattery = false;
  readonly #subscriptions: vscode.Disposable[] = [this.#changed, this.#power, this.onDidChange(() => this.#changedNow())];
  #canResume: boolean | undefined;
  /** As the engine was told last. */
  #oneThread = false;

  constructor(
    private readonly context: vscode.ExtensionContext,
    private readonly log: Log,
  ) {
    this.#client = this.#createClient();
    this.on(messages.ingestStatus, (status) => {
      this.#ingest = status;
      // The next workspace's cost is estimated from it.
      if (status.state === 'reading' && status.tokens_per_s > 0) void this.context.globalState.update(speedKey, status.tokens_per_s);
      this.#changed.fire();
    });
    // Else a pause that this window keeps would come back with its next reload.
    this.on(messages.pauseEnded, () => void this.#keepPaused(false));
    this.#subscriptions.push(
      vscode.workspace.onDidChangeWorkspaceFolders(() => {
        this.#config = readConfig();
        this.#reopen();
      }),
      vscode.workspace.onDidGrantWorkspaceTrust(() => this.startIfWanted()),
      onConfigChange((config) => this.#configure(config)),
    );
  }

  get config(): Config {
    return this.#config;
  }

  get engine(): EngineState {
    return this.#engine;
  }

  get ingest(): messages.IngestStatus | null {
    const status = this.#ingest;
    // The engine knows only that this window wants it so.
    return status?.reason === 'user' && !this.paused && this.#waitsForMains ? { ...status, reason: 'battery' } : status;
  }

  /** As far as it was asked: only while something is being read. */
  get onBattery(): boolean {
    return this.#power.onBattery;
  }

  /** Background reading keeps to one core, to save the battery. */
  get readsSlowly(): boolean {
    return this.#power.onBattery && (this.#config.ingest.onBattery === 'slow' || (this.#config.ingest.onBattery === 'pause' && this.#readsOnBattery));
  }

  get place(): Place {
    const folders = vscode.workspace.workspaceFolders ?? [];
    if (!existsSync(path.join(this.#dist, 'sala.node'))) return 'unsupported';
    if (folders.length === 0) return 'no_folder';
    if (roots().length === 0) return 'virtual';
    return vscode.workspace.isTrusted ? 'workspace' : 'untrusted';
  }

  get roots(): readonly messages.Root[] {
    return roots();
  }

  get consent(): Consent {
    return this.context.workspaceState.get<Consent>(consentKey, 'unknown');
  }

  /** Whether the question for consent was put to the user in this workspace, in this window or an earlier one. */
  get consentAsked(): boolean {
    return this.context.workspaceState.get<boolean>(consentAskedKey, false);
  }

  get paused(): boolean {
    return this.#config.ingest.pause || this.context.workspaceState.get<boolean>(pausedKey, false);
  }

  /** Whether there is anything to resume: a pause of the user's, in another window too, or for want of mains power. */
  get canResume(): boolean {
    return this.#wantsPause || (this.#ingest?.state === 'paused' && this.#ingest.reason === 'user');
  }

  get #wantsPause(): boolean {
    return this.paused || this.#waitsForMains;
  }

  /** Tokens a second that background reading reached here before, or what two cores usually do. */
  get expectedSpeed(): number {
    return this.context.globalState.get<number>(speedKey, 250);
  }

  /** Starts the engine if a feature that works by itself is on. Safe to call at any time. */
  startIfWanted(): void {
    this.#changed.fire();
    const wanted = this.#config.ingest.enabled || this.#config.completions.enabled;
    if (this.place === 'workspace' && wanted) this.open().catch(() => {});
  }

  /** The engine with this window's folders open. Fails with an EngineError, which `engine` tells as well. */
  open(): Promise<messages.Coverage> {
    const { place } = this;
    if (place === 'untrusted') return Promise.reject(new EngineError('untrusted', 'the workspace is in Restricted Mode'));
    if (place === 'unsupported') return Promise.reject(new EngineError('unsupported', unsupportedSentence()));
    if (place !== 'workspace') return Promise.reject(new EngineError('not_a_workspace', 'no folder on disk is open in this window'));
    if (this.#opened === undefined) {
      const opened = this.#open();
      this.#opened = opened;
      opened.catch((error: unknown) => {
        this.log.warn(`open: ${toEngineError(error).code}: ${toEngineError(error).message}`);
        if (this.#opened === opened) this.#opened = undefined;
      });
    }
    return this.#opened;
  }

  async request<P, R>(type: RequestType<P, R, messages.EngineFailure>, params: P, signal?: AbortSignal): Promise<R> {
    await this.open();
    return this.#client.request(type, params, signal);
  }

  /** Dropped while no engine runs. */
  notify<P>(type: NotificationType<P>, params: P): void {
    this.#client.notify(type, params);
  }

  notify0(type: NotificationType0): void {
    this.#client.notify(type);
  }

  on<P>(type: NotificationType<P>, listener: (params: P) => void): void {
    // Kept for the next client: another model folder means another client.
    this.#listeners.push({ type: type as NotificationType<never>, listener: listener as (params: never) => void });
    this.#client.on(type, listener);
  }

  async setConsent(consent: Consent): Promise<void> {
    await this.context.workspaceState.update(consentKey, consent);
    this.#reopen();
  }

  async setConsentAsked(): Promise<void> {
    await this.context.workspaceState.update(consentAskedKey, true);
  }

  async setPaused(paused: boolean): Promise<void> {
    await this.#keepPaused(paused);
    if (this.#opened !== undefined) await this.#pause(true);
    // Reading that was never agreed to is not resumed behind the user's back.
    else if (!paused) this.startIfWanted();
  }

  async #keepPaused(paused: boolean): Promise<void> {
    if (paused) this.#readsOnBattery = false;
    else if (this.#waitsForMains) this.#readsOnBattery = true;
    await this.context.workspaceState.update(pausedKey, paused);
    this.#changed.fire();
  }

  async restart(): Promise<void> {
    await this.#client.restart();
    await this.open();
  }

  async forget(): Promise<{ segments: number; bytes: number }> {
    await this.open();
    const dropped = await this.#client.request(messages.forget as RequestType0<{ segments: number; bytes: number }, messages.EngineFailure>);
    // Otherwise it would be read again at once.
    await this.setConsent('declined');
    return dropped;
  }

  dispose(): void {
    for (const subscription of this.#subscriptions) subscription.dispose();
    this.#client.dispose();
  }

  get #dist(): string {
    return path.join(this.context.extensionPath, 'dist');
  }

  #createClient(): EngineClient {
    const { modelFolder, threads } = this.#config;
    const client = new EngineClient({
      dist: this.#dist,
      args: [...(modelFolder === '' ? [] : ['--model', modelFolder]), ...(threads > 0 ? ['--threads', String(threads)] : [])],
      client: 'editor',
      version: String((this.context.extension.packageJSON as { version: unknown }).version),
      log: (line) => this.log.info(line),
      onState: (state) => {
        if (client !== this.#client && this.#client !== undefined) return;
        if (state.state !== this.#engine.state) this.log.info(`engine: ${state.state}`);
        this.#engine = state;
        if (state.state !== 'ready') this.#ingest = null;
        this.#changed.fire();
      },
    });
    return client;
  }

  async #open(): Promise<messages.Coverage> {
    // Before the folders, so that a paused window reads nothing in between.
    await this.#pause();
    return this.#client.request(messages.open, {
      roots: roots().map((root) => ({ ...root, ...this.#config.globs[root.path] })),
      trusted: true,
      settings: this.#engineSettings(),
      watch: 'client',
      ingest: this.#config.ingest.enabled && this.consent === 'granted',
    });
  }

  /** Folders, trust or consent have changed. */
  #reopen(): void {
    this.#changed.fire();
    if (this.#opened === undefined) this.startIfWanted();
    else {
      this.#opened = undefined;
      this.open().catch(() => {});
    }
  }

  /** `everyone`: the user has asked for it here, so that it goes on wherever it was paused; other windows' pauses are theirs otherwise. */
  async #pause(everyone = false): Promise<void> {
    await this.#client.request(messages.pause, { paused: this.#wantsPause, ...(everyone && { everyone }) });
  }

  #engineSettings(): messages.EngineSettings {
    this.#oneThread = this.#wantsOneThread;
    return this.#oneThread ? { ...this.#config.engine, threads: 1 } : this.#config.engine;
  }

  #configure(config: Config): void {
    const before = this.#config;
    this.#config = config;
    if (before.modelFolder !== config.modelFolder || before.threads !== config.threads) {
      // Another model is another engine; the one that ran ends with its last window.
      this.#client.dispose();
      this.#client = this.#createClient();
      for (const { type, listener } of this.#listeners) this.#client.on(type, listener);
      this.#engine = { state: 'stopped' };
      this.#opened = undefined;
      this.startIfWanted();
      return;
    }
    this.notify(messages.settings, this.#engineSettings());
    const sameGlobs = JSON.stringify(before.globs) === JSON.stringify(config.globs);
    if (before.ingest.enabled !== config.ingest.enabled || !sameGlobs) this.#reopen();
    else if (this.#opened !== undefined) this.#pause().catch(() => {});
    else this.startIfWanted();
    this.#changed.fire();
  }

  get #waitsForMains(): boolean {
    return this.#power.onBattery && this.#config.ingest.onBattery === 'pause' && !this.#readsOnBattery;
  }

  /** The engine's threads are those of answers too: they are fewer only while it reads. */
  get #wantsOneThread(): boolean {
    return this.readsSlowly && (this.#ingest === null || isUnderWay(this.#ingest));
  }

  #changedNow(): void {
    this.#power.watch(this.#caresForPower());
    if (this.#wantsOneThread !== this.#oneThread) this.notify(messages.settings, this.#engineSettings());
    // For the menus: `sala.paused` in their conditions.
    if (this.#canResume === this.canResume) return;
    this.#canResume = this.canResume;
    void vscode.commands.executeCommand('setContext', 'sala.paused', this.#canResume);
  }

  /** Only what is being read is a reason to ask, and what is done otherwise on battery. */
  #caresForPower(): boolean {
    if (this.place !== 'workspace' || this.#engine.state === 'failed' || this.#config.ingest.onBattery === 'full') return false;
    return this.#power.onBattery || this.#ingest === null || isUnderWay(this.#ingest);
  }

  #powerChanged(): void {
    if (!this.#power.onBattery) this.#readsOnBattery = false;
    this.log.info(this.#power.onBattery ? 'power: on battery' : 'power: mains');
    if (this.#opened !== undefined) this.#pause().catch(() => {});
    this.#changed.fire();
  }
}

function isUnderWay({ state }: messages.IngestStatus): boolean {
  return state === 'scanning' || state === 'reading';
}
