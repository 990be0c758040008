// The editor's commands around packs: what is asked, what is sent, what is told; the editor's own parts are stand-ins.

import assert from 'node:assert/strict';
import Module from 'node:module';
import test from 'node:test';
import { EngineError } from '../../extension/engine/errors';
import type { ExportResult, ImportResult, PackProgress } from '../../extension/engine/messages';
import type { Session } from '../../extension/host/session';

const result: ExportResult & ImportResult = { segments: 3, tokens: 1234, bytes: 5 << 20, files: 2, left_out: [], numerics: 'cpu.1.kv8', foreign: false, damaged: 0, findings: [] };

/** What the user chose and saw. */
class Editor {
  readonly told: string[] = [];
  readonly logged: string[] = [];
  readonly sent: string[] = [];
  readonly reported: { message?: string; increment?: number }[] = [];
  cancel = (): void => {};
  changed = (): void => {};
  scheme = 'file';
  private progress: ((progress: PackProgress) => void) | undefined;

  constructor(
    readonly chosen: string | undefined,
    private readonly answer: (signal: AbortSignal, report: (progress: PackProgress) => void) => Promise<object>,
  ) {}

  readonly vscode = {
    ProgressLocation: { Notification: 15 },
    Uri: { joinPath: ({ fsPath }: { fsPath: string }, ...parts: string[]) => ({ fsPath: [fsPath, ...parts].join('/') }) },
    workspace: { workspaceFolders: [{ uri: { scheme: 'file', fsPath: '/w' } }] },
    window: {
      showSaveDialog: async () => (this.chosen === undefined ? undefined : { scheme: this.scheme, fsPath: this.chosen }),
      showOpenDialog: async () => (this.chosen === undefined ? undefined : [{ scheme: this.scheme, fsPath: this.chosen }]),
      showInformationMessage: async (text: string) => void this.told.push(text),
      showWarningMessage: async (text: string) => void this.told.push(`! ${text}`),
      withProgress: async (_: unknown, work: (notification: object, token: object) => Promise<unknown>) =>
        work({ report: (value: object) => this.reported.push(value) }, { onCancellationRequested: (stop: () => void) => (this.cancel = stop) }),
    },
  };

  readonly session = {
    open: async () => {},
    ingest: null,
    readsSlowly: false,
    onDidChange: (listener: () => void) => {
      this.changed = listener;
      return { dispose: () => (this.changed = () => {}) };
    },
    on: (_: unknown, listener: (progress: PackProgress) => void) => (this.progress = listener),
    request: async (type: { method: string }, { file }: { file: string }, signal: AbortSignal) => {
      this.sent.push(`${type.method} ${file}`);
      return this.answer(signal, (progress) => this.progress?.(progress));
    },
  } as unknown as Session;

  async commands() {
    const loader = Module as unknown as { _load(request: string, ...more: unknown[]): unknown };
    const load = loader._load;
    loader._load = (request, ...more) => (request === 'vscode' ? editorNow : load(request, ...more));
    try {
      current = this;
      const { PackCommands } = await import('../../extension/host/pack-commands');
      return new PackCommands(this.session, { warn: (line) => void this.logged.push(line) });
    } finally {
      loader._load = load;
    }
  }
}

/** The module is loaded once, the editor is another one for each case. */
let current: Editor;
const editorNow = {
  get ProgressLocation() { return current.vscode.ProgressLocation; },
  get Uri() { return current.vscode.Uri; },
  get workspace() { return current.vscode.workspace; },
  get window() { return current.vscode.window; },
};

test('export: asks where, shows how far it is, and says what it has written and left out', async () => {
  const editor = new Editor('/to/w.pack', async (_, report) => {
    report({ phase: 'segments', done: 1, total: 4 });
    report({ phase: 'segments', done: 3, total: 4 });
    return { ...result, left_out: [{ root: '/w', path: 'big.ts', reason: 'over_budget' }] };
  });
  await (await editor.commands()).export();
  assert.deepEqual(editor.sent, ['exportPack /to/w.pack']);
  assert.deepEqual(editor.reported.map(({ increment }) => increment), [25, 50]);
  assert.deepEqual(editor.told, ['Exported: 2 files, 1,234 tokens, 5 MB. 1 file left out: over the budget.']);
  const leftOut = (['waiting', 'foreign', 'stale', 'over_budget', 'foreign'] as const).map((reason, i) => ({ root: '/w', path: `${i}.ts`, reason }));
  const several = new Editor('/to/w.pack', async () => ({ ...result, left_out: leftOut }));
  await (await several.commands()).export();
  assert.match(several.told[0]!, / 5 files left out: over the budget; not read; imported from another kind of processor, which is not handed on\.$/);
});

test('export: until there is something to write it says how far the reading is', async () => {
  const coverage = { files: 3, tokens: 9, total_files: 8, total_tokens: 20, estimated: false };
  const ingest = { state: 'reading', coverage, encoded_tokens: 9, reused_tokens: 0, tokens_per_s: 9 };
  const editor: Editor = new Editor('/to/w.pack', async (_, report) => {
    Object.assign(editor.session, { ingest });
    editor.changed();
    report({ phase: 'segments', done: 1, total: 4 << 20 });
    editor.changed();
    return result;
  });
  await (await editor.commands()).export();
  editor.changed();
  assert.deepEqual(editor.reported.map(({ message }) => message), ['Reading: 3 of 8 files', 'writing 4 MB']);
});

test('import: what was taken; what was damaged is a warning, and named in the log', async () => {
  const sound = new Editor('/from/w.pack', async () => result);
  await (await sound.commands()).import();
  assert.deepEqual([sound.sent, sound.told], [['importPack /from/w.pack'], ['Imported: 2 files, 1,234 tokens, 5 MB.']]);
  const foreign = new Editor('/from/w.pack', async () => ({ ...result, foreign: true, numerics: 'cuda.1.kv8' }));
  await (await foreign.commands()).import();
  assert.match(foreign.told[0]!, /^Imported: .* It was made on another kind of processor: it is used as it is, and files that change are read here\.$/);
  const damaged = new Editor('/from/w.pack', async () => ({ ...result, damaged: 1, findings: ['segment 00 of a.ts: damaged'] }));
  await (await damaged.commands()).import();
  assert.match(damaged.told[0]!, /^! Imported: .* Some of it was damaged and is read again/);
  assert.deepEqual(damaged.logged, ['import: segment 00 of a.ts: damaged']);
});

test('nothing happens where nothing is chosen; what is stopped is not told as an error, what fails is', async () => {
  const none = new Editor(undefined, async () => result);
  await (await none.commands()).export();
  await (await none.commands()).import();
  assert.deepEqual([none.sent, none.told], [[], []]);
  const stopped: Editor = new Editor('/to/w.pack', async (signal) => {
    stopped.cancel();
    signal.throwIfAborted();
    return result;
  });
  await (await stopped.commands()).export();
  assert.deepEqual([stopped.sent.length, stopped.told], [1, []]);
  const failing = new Editor('/to/w.pack', async () => Promise.reject(new EngineError('store_invalid', 'no pack')));
  // Another one than that of the workspace's own memory, which has other words.
  await assert.rejects((await failing.commands()).import(), (error: Error) => error.constructor.name === 'PackFailure' && /no pack/.test(error.message));
});

test('what lies on no disk cannot be opened by the engine, and is said so', async () => {
  const editor = new Editor('/elsewhere/w.pack', async () => result);
  editor.scheme = 'vscode-vfs';
  await (await editor.commands()).export();
  await (await editor.commands()).import();
  assert.deepEqual(editor.sent, []);
  assert.deepEqual(editor.told, Array(2).fill('! Choose a place on the disk of the machine that reads.'));
});
