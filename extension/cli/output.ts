// What a command says and where: results on standard output (exactly one JSON document with --json, or one a line where a command
// gives several), progress and remarks on standard error. Commands never write to a stream themselves.

import type { SingleBar } from 'cli-progress';
import { EngineError, toEngineError } from '../engine/errors';

/** A wrong call, noticed before anything was done: exit code 2. */
export class UsageError extends EngineError {
  constructor(message: string) {
    super('invalid_argument', message);
  }
}

/** Between lines of progress where standard error is no terminal. */
const plainIntervalMs = 5000;

export class Output {
  private bar: SingleBar | undefined;
  private lastPlainMs = -Infinity;
  private lastPlain = '';
  private isWithinLine = false;

  constructor(readonly json: boolean) {}

  /** Answers may be streamed where somebody watches. */
  get isInteractive(): boolean {
    return !this.json && process.stdout.isTTY === true;
  }

  /** For people; nothing with --json. */
  text(text: string): void {
    if (this.json || text === '') return;
    this.endProgress();
    this.isWithinLine = !text.endsWith('\n');
    process.stdout.write(text);
  }

  line(text: string): void {
    this.endLine();
    this.text(`${text}\n`);
  }

  /** After text that may have ended anywhere. */
  endLine(): void {
    if (this.isWithinLine) this.text('\n');
  }

  /** One JSON document with --json, `text` otherwise. */
  result(document: unknown, text: () => string): void {
    this.endProgress();
    if (this.json) process.stdout.write(`${JSON.stringify(document)}\n`);
    else this.text(text());
  }

  note(text: string): void {
    this.endProgress();
    process.stderr.write(`sala: ${text}\n`);
  }

  /** A bar on a terminal, a line now and then elsewhere. Without `fraction` the bar shows the text only. */
  progress(message: string, fraction?: number): void {
    const percent = fraction === undefined ? undefined : Math.max(0, Math.min(100, Math.floor(fraction * 100)));
    if (process.stderr.isTTY) {
      this.bar ??= startBar();
      this.bar.update(percent ?? 0, { message });
      return;
    }
    // A new phase is told at once, the same with other numbers now and then.
    const plain = message.replace(/[\d.]+/g, '');
    const now = performance.now();
    if (plain === this.lastPlain && now - this.lastPlainMs < plainIntervalMs) return;
    this.lastPlain = plain;
    this.lastPlainMs = now;
    process.stderr.write(`sala: ${message}${percent === undefined ? '' : ` (${percent} %)`}\n`);
  }

  endProgress(): void {
    this.bar?.stop();
    this.bar = undefined;
  }

  /** The code is part of the message: scripts look for it, people may look it up. */
  failure(thrown: unknown): void {
    const { code, message } = toEngineError(thrown);
    this.endProgress();
    process.stderr.write(`sala: ${message} (${code})\n`);
    if (this.json) process.stdout.write(`${JSON.stringify({ error: { code, message } })}\n`);
  }
}

/** Loaded when the first bar is shown: usage text must not wait for it. */
function startBar(): SingleBar {
  const { SingleBar } = require('cli-progress') as typeof import('cli-progress');
  const bar = new SingleBar({
    format: '{bar} {percentage} % {message}',
    barCompleteChar: '█',
    barIncompleteChar: '░',
    barsize: 24,
    clearOnComplete: true,
    hideCursor: true,
    stream: process.stderr,
  });
  bar.start(100, 0, { message: '' });
  return bar;
}

export function count(n: number, one: string, many = `${one}s`): string {
  return `${abbreviate(n)} ${n === 1 ? one : many}`;
}

/** 999, 12.3K, 4.5M */
export function abbreviate(n: number): string {
  if (n < 1000) return String(Math.round(n));
  if (n < 999_950) return `${(n / 1000).toFixed(n < 99_950 ? 1 : 0)}K`;
  return `${(n / 1e6).toFixed(1)}M`;
}

/** 12 KB, 345 MB, 6.7 GB */
export function formatBytes(n: number): string {
  if (n < 2 ** 20) return `${Math.ceil(n / 2 ** 10)} KB`;
  return n >= 2 ** 30 ? `${(n / 2 ** 30).toFixed(1)} GB` : `${Math.round(n / 2 ** 20)} MB`;
}
