// An engine process without a model: the real shell (lifecycle, server, socket) around handlers that a test steers by what it
// asks. Bundled by fake-dist.ts as the `engine.cjs` of a folder that stands for `dist/`.

import { appendFileSync, existsSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { EngineError } from '../../extension/engine/errors';
import { runEngine } from '../../extension/engine/lifecycle';
import * as messages from '../../extension/engine/messages';
import type { ClientSession, CoreOptions, EngineCore, SessionClient } from '../../extension/engine/session';

/** What a test has written beside the bundle: how loading goes. */
interface Script {
  readonly loadMs?: number;
  readonly failure?: { code: 'model_invalid' | 'internal'; message: string };
  readonly signal?: NodeJS.Signals;
}

const coverage: messages.Coverage = { files: 2, tokens: 10, total_files: 4, total_tokens: 20, estimated: true };

void runEngine(process.argv.slice(2), async (options: CoreOptions): Promise<EngineCore> => {
  const file = path.join(__dirname, 'script.json');
  const script = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Script) : {};
  options.onProgress('loading nothing', 0.5);
  await delay(script.loadMs ?? 0);
  if (script.signal) process.kill(process.pid, script.signal);
  if (script.failure) throw new EngineError(script.failure.code, script.failure.message);
  return {
    hello: () => ({
      version: 'fake',
      pid: process.pid,
      model: { name: 'fake', dir: options.modelDir!, identity: 'fake' },
      store: options.store!,
      backend: 'fake',
      activations: options.activations,
      threads: 1,
    }),
    createSession: (client) => new FakeSession(client),
    close: async () => {},
  };
});

/** Of all engines of this folder. */
function timesAsked(what: string): number {
  const file = path.join(__dirname, what);
  appendFileSync(file, '.');
  return statSync(file).size;
}

class FakeSession implements ClientSession {
  /** What this connection was told, in order: read back by coverage. */
  private readonly told: string[] = [];

  constructor(private readonly client: SessionClient) {}

  async open(params: messages.OpenParams): Promise<messages.Coverage> {
    this.told.push(`open ${params.roots.map(({ name }) => name).join()} ${JSON.stringify(params.settings)}`);
    return coverage;
  }

  async ask({ id, question }: messages.AskParams, signal: AbortSignal): Promise<messages.AskResult> {
    if (question === 'crash') setImmediate(() => { throw new Error('asked to crash'); });
    if (question === 'refuse') throw new EngineError('context_full', 'expected at most 1 token, found 2');
    if (question === 'bug') throw new TypeError('no code');
    this.client.notify(messages.askText, { id, text: 'an ' });
    if (question === 'long' || question === 'crash') await delay(60_000, undefined, { signal }).catch(() => {});
    this.client.notify(messages.askText, { id, text: 'answer' });
    return {
      answer: signal.aborted ? 'an ' : 'an answer',
      sources: [{ root: '/w', path: 'src/a.ts', start_line: 10, end_line: 20, weight: 0.62 }],
      marks: [],
      uncertain: question === 'unsure',
      missing: [],
      stop: signal.aborted ? 'cancelled' : 'end',
      coverage,
      timings: { ingest_s: 1, read_s: 0.1, first_token_s: 2, tokens_per_s: 30, tokens: 2 },
    };
  }

  async complete({ text, offset }: messages.CompleteParams): Promise<messages.CompleteResult> {
    return { completion: `after ${text.slice(0, offset)}`, start: offset, end: offset, timings: { first_token_s: 0, total_s: 0, tokens: 1 } };
  }

  async ingest(): Promise<messages.IngestResult> {
    return { files: 2, tokens: 10, encoded_tokens: 6, reused_tokens: 4, tokens_per_s: 100 };
  }

  async coverage({ path }: { path?: string }): Promise<readonly messages.FileCoverage[]> {
    if (path === 'crash' || (path === 'crash twice' && timesAsked('crashes') <= 2)) process.kill(process.pid, 'SIGKILL');
    if (path === 'fail once' && timesAsked('failures') === 1) {
      setImmediate(() => { throw new Error('asked to fail'); });
      await delay(60_000);
    }
    if (path === 'told') return this.told.map((line) => ({ root: '/w', path: line, state: 'in', tokens: 0, bytes: 0 }));
    const files: messages.FileCoverage[] = [
      { root: '/w', path: 'a.ts', state: 'in', tokens: 10, bytes: 30 },
      { root: '/w', path: 'b.lock', state: 'excluded', rule: 'lock_file', tokens: 0, bytes: 30 },
    ];
    return path === undefined ? files : files.filter((file) => file.path === path);
  }

  async coverageLevel(): Promise<messages.CoverageLevel> {
    return { nodes: [], more: 0 };
  }

  async coverageOf({ paths }: { paths: readonly string[] }): Promise<readonly (messages.FileCoverage | null)[]> {
    return paths.map(() => null);
  }

  async verify(): Promise<messages.StoreCheck> {
    return { segments: 0, files: 0, bytes: 0, damaged: 0, findings: [] };
  }

  async exportPack({ file }: { file: string }): Promise<messages.ExportResult> {
    this.told.push(`export ${file}`);
    this.client.notify(messages.packProgress, { phase: 'segments', done: 1, total: 2 });
    return { segments: 3, tokens: 1234, bytes: 5 << 20, files: 2, left_out: [{ root: '/w', path: 'big.ts', reason: 'over_budget' }] };
  }

  async importPack({ file }: { file: string }): Promise<messages.ImportResult> {
    const isDamaged = file.endsWith('damaged.pack');
    const findings = isDamaged ? ['segment 00 of a.ts: checksum of run 1 differs; it is read again'] : [];
    return { segments: 3, tokens: 1234, bytes: 5 << 20, files: 2, numerics: 'cuda.1.kv8', foreign: true, damaged: findings.length, findings };
  }

  async forget(): Promise<{ segments: number; bytes: number }> {
    return { segments: 0, bytes: 0 };
  }

  pause = ({ paused, everyone }: messages.PauseParams): void => {
    this.told.push(`pause ${paused}`);
    // Once it is answered, as where another client asks for it.
    if (everyone) setImmediate(() => this.client.notify(messages.pauseEnded, {}));
  };
  settings = (params: Partial<messages.EngineSettings>): void => void this.told.push(`settings ${JSON.stringify(params)}`);
  document = ({ path, text }: { path: string; text: string | null }): void => void this.told.push(`document ${path} ${text}`);
  recentFiles = ({ paths }: { paths: readonly string[] }): void => void this.told.push(`recent ${paths.join()}`);
  filesChanged = ({ paths }: { paths: readonly string[] }): void => void this.told.push(`changed ${paths.join()}`);
  place = (): void => {};
  typing = (): void => void this.told.push('typing');
  close = async (): Promise<void> => {};
}
