// The frame around a command: signals, exit codes, errors, a connection to the engine where it needs one. A command is a function
// of its options and this frame; it returns when it is done and throws EngineErrors.

import { EngineClient, type EngineClientOptions } from '../engine/client';
import { assetPath } from '../engine/assets';
import * as messages from '../engine/messages';
import { engineArgs, engineSettings, modelDir, roots, type CommonOptions } from './options';
import { Output, UsageError } from './output';
import { version } from '../../package.json';

export const exitCodes = { done: 0, failed: 1, usage: 2, interrupted: 130, terminated: 143 } as const;

export interface Frame<Options extends CommonOptions = CommonOptions> {
  readonly options: Options;
  readonly output: Output;
  /** Raised by Ctrl-C and SIGTERM. */
  readonly signal: AbortSignal;
  /** Ends with exit code 1 although nothing was thrown: a check that failed, one question of many. */
  failed(): void;
}

/** Runs a command and ends the process. */
export async function runCommand<Options extends CommonOptions>(
  options: Options,
  work: (frame: Frame<Options>) => Promise<void>,
): Promise<never> {
  const output = new Output(options.json ?? false);
  const controller = new AbortController();
  let exitCode: number = exitCodes.done;
  for (const [name, code] of [['SIGINT', exitCodes.interrupted], ['SIGTERM', exitCodes.terminated]] as const) {
    process.on(name, () => {
      // The second time there is no waiting for what is under way.
      if (controller.signal.aborted) process.exit(code);
      exitCode = code;
      controller.abort();
    });
  }
  // A reader that has seen enough (`| head`) ends the command, as it ends others.
  process.stdout.on('error', () => process.exit(exitCodes.failed));
  try {
    await work({
      options,
      output,
      signal: controller.signal,
      failed: () => (exitCode ||= exitCodes.failed),
    });
  } catch (error) {
    exitCode ||= error instanceof UsageError ? exitCodes.usage : exitCodes.failed;
    output.failure(error);
  }
  output.endProgress();
  await new Promise<void>((resolve) => process.stdout.write('', () => resolve()));
  process.exit(exitCode);
}

/** A connection with the workspace opened, closed after `work`. */
export async function withEngine<T>(
  frame: Frame,
  open: Pick<messages.OpenParams, 'watch' | 'ingest'>,
  work: (client: EngineClient, opened: messages.Coverage, roots: readonly messages.Root[]) => Promise<T>,
): Promise<T> {
  const { options, signal } = frame;
  // What can be wrong with the arguments is told before an engine is started.
  const workspace = roots(options);
  return withClient(frame, async (client) => {
    const params = { ...open, roots: workspace, trusted: true, settings: engineSettings(options) };
    return work(client, await client.request(messages.open, params, signal), workspace);
  });
}

/** A connection without a workspace, closed after `work`. */
export async function withClient<T>({ options, output }: Frame, work: (client: EngineClient) => Promise<T>): Promise<T> {
  const clientOptions: EngineClientOptions = {
    dist: assetPath(),
    args: engineArgs(await modelDir(options), options),
    client: 'cli',
    version,
    log: (line) => {
      if (process.env['SALA_DEBUG']) output.note(line);
    },
    onState: (state) => {
      if (state.state === 'starting') output.progress(state.message, state.fraction);
      else output.endProgress();
    },
  };
  const client = new EngineClient(clientOptions);
  try {
    const { remark } = await client.start();
    if (remark !== undefined) output.note(remark);
    return await work(client);
  } finally {
    client.dispose();
  }
}
