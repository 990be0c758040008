// A vscode-jsonrpc connection over a local socket, the same on both ends: framing with a limit, errors that keep their code,
// AbortSignals on both sides of a cancellation token. What arrives is checked for its frame only; its meaning is server.ts's
// and client.ts's business. A peer that breaks the framing loses its connection, nothing else.

import type { Socket } from 'node:net';
import { Transform, type TransformCallback } from 'node:stream';
import {
  CancellationTokenSource,
  ConnectionError,
  createMessageConnection,
  ErrorCodes,
  ResponseError,
  StreamMessageReader,
  StreamMessageWriter,
  type CancellationToken,
  type MessageConnection,
} from 'vscode-jsonrpc/node';
import { EngineError, isErrorCode, toEngineError } from './errors';
import type { EngineFailure } from './messages';
import { Turns } from './turns';

/** Of a long list; written in a millisecond. */
const itemsAtOnce = 1000;
/** Headers are two short lines; more is no client of ours. */
const maxHeaderBytes = 1024;

/**
 * Passes frames through and fails with the first one that is malformed or longer than `maxBodyBytes`, before its body is
 * buffered. The message reader behind it trusts any length.
 */
export class FrameGuard extends Transform {
  private header = '';
  private bodyBytes = 0;

  constructor(private readonly maxBodyBytes: number) {
    super();
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.bodyBytes > 0) {
        const n = Math.min(this.bodyBytes, chunk.length - at);
        this.bodyBytes -= n;
        at += n;
        continue;
      }
      this.header += String.fromCharCode(chunk[at++]!);
      if (this.header.endsWith('\r\n\r\n')) {
        const length = /^content-length: *(\d{1,15}) *$/im.exec(this.header.replaceAll('\r', ''));
        const bytes = length ? Number(length[1]) : NaN;
        if (!(bytes > 0 && bytes <= this.maxBodyBytes)) {
          return done(new Error(`expected a message of 1 to ${this.maxBodyBytes} bytes, found ${length?.[1] ?? 'no length'}`));
        }
        this.header = '';
        this.bodyBytes = bytes;
      } else if (this.header.length >= maxHeaderBytes) {
        return done(new Error(`expected a message header, found ${maxHeaderBytes} bytes without an end`));
      }
    }
    done(null, chunk);
  }
}

/** A connection that is not listening yet. Whatever goes wrong with the stream closes the socket; `onError` says why, once. */
export function connectOver(socket: Socket, maxBodyBytes: number, onError: (reason: string) => void): MessageConnection {
  let broken = false;
  const drop = (error: Error): void => {
    if (broken) return;
    broken = true;
    onError(error.message);
    socket.destroy();
  };
  const guard = new FrameGuard(maxBodyBytes);
  guard.on('error', drop);
  socket.on('error', drop);
  socket.on('close', () => guard.destroy());
  const writer = new StreamMessageWriter(socket, { contentTypeEncoder: { name: 'application/json', encode: encodeInTurns } });
  const connection = createMessageConnection(new StreamMessageReader(socket.pipe(guard)), writer, {
    // The library's own remarks name messages it could not handle; their content must not reach a log.
    error: () => {},
    warn: () => {},
    info: () => {},
    log: () => {},
  });
  connection.onError(([error]) => drop(error));
  return connection;
}

/** A message as JSON. A long list that answers a request is written some items at a time: whoever else is asked something has its turn. */
export async function encodeInTurns(message: object): Promise<Buffer> {
  const { result, ...rest } = message as { readonly result?: unknown };
  if (!Array.isArray(result) || result.length <= itemsAtOnce) return Buffer.from(JSON.stringify(message));
  const parts = [Buffer.from(`${JSON.stringify(rest).slice(0, -1)},"result":`)];
  const turns = new Turns();
  for (let i = 0; i < result.length; i += itemsAtOnce) {
    const items = JSON.stringify(result.slice(i, i + itemsAtOnce)).slice(1, -1);
    parts.push(Buffer.from(`${i === 0 ? '[' : ','}${items}`));
    await turns.due();
  }
  parts.push(Buffer.from(']}'));
  return Buffer.concat(parts);
}

/** What goes over the wire for something thrown; `ends`: the engine with it. */
export function toResponseError(thrown: unknown, ends = false): ResponseError<EngineFailure> {
  const { code, message } = toEngineError(thrown);
  return new ResponseError(ErrorCodes.InternalError, message, { code, message, ...(ends && { ends }) });
}

const connectionCodes: readonly number[] = [
  ErrorCodes.PendingResponseRejected,
  ErrorCodes.ConnectionInactive,
  ErrorCodes.MessageWriteError,
  ErrorCodes.MessageReadError,
];

/** True if `thrown` says that the connection went, not that the engine refused. */
export function isDisconnect(thrown: unknown): boolean {
  if (thrown instanceof ConnectionError) return true;
  // These come from this end of the connection, never from the other.
  if (thrown instanceof ResponseError) return thrown.data === undefined && connectionCodes.includes(thrown.code);
  return ['ERR_STREAM_DESTROYED', 'EPIPE', 'ECONNRESET', 'ERR_STREAM_WRITE_AFTER_END'].includes(
    String((thrown as { code?: unknown } | null)?.code),
  );
}

/** True if `thrown` is the engine's answer to all that it had not done when it failed. */
export function isEnd(thrown: unknown): boolean {
  return (thrown as { data?: Partial<EngineFailure> } | null)?.data?.ends === true;
}

/** What came over the wire, or from the connection itself, as an EngineError. */
export function fromResponseError(thrown: unknown, disconnected: string): EngineError {
  if (isDisconnect(thrown)) return new EngineError('engine_unreachable', disconnected, { cause: thrown });
  const data = (thrown as { data?: Partial<EngineFailure> } | null)?.data;
  if (data && isErrorCode(data.code)) return new EngineError(data.code, String(data.message), { cause: thrown });
  return toEngineError(thrown);
}

/** Runs `work` with a signal that follows the token, and that `abort` can raise as well. */
export async function withSignal<T>(
  token: CancellationToken,
  controller: AbortController,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  if (token.isCancellationRequested) controller.abort();
  const subscription = token.onCancellationRequested(() => controller.abort());
  try {
    return await work(controller.signal);
  } finally {
    subscription.dispose();
  }
}

/** A cancellation token that follows the signal; dispose it when the request is settled. */
export function tokenOf(signal: AbortSignal | undefined): { token: CancellationToken; dispose(): void } {
  const source = new CancellationTokenSource();
  const cancel = (): void => source.cancel();
  if (signal?.aborted) cancel();
  signal?.addEventListener('abort', cancel);
  return {
    token: source.token,
    dispose: () => {
      signal?.removeEventListener('abort', cancel);
      source.dispose();
    },
  };
}
