// `sala ask`: one question, or with `-` one a line over one ingest. On a terminal the answer streams; elsewhere it is printed when
// it is whole, with its paths corrected.

import { createInterface } from 'node:readline';
import type { EngineClient } from '../engine/client';
import * as messages from '../engine/messages';
import { AskProgress, type ProgressLine } from './ask-progress';
import { withEngine, type Frame } from './command';
import type { CommonOptions } from './options';
import { abbreviate, count, UsageError, type Output } from './output';

export interface AskOptions extends CommonOptions {
  readonly scope?: readonly string[];
  readonly wait?: number | 'full';
  readonly focus?: number | 'all';
  readonly exact?: boolean;
}

export async function ask(frame: Frame<AskOptions>, question: string): Promise<void> {
  if (question.trim() === '') throw new UsageError('expected a question, found an empty one');
  await withEngine(frame, { watch: 'none', ingest: false }, async (client) => {
    const asker = new Asker(client, frame);
    if (question !== '-') return asker.ask(question);
    for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity, signal: frame.signal })) {
      if (frame.signal.aborted) return;
      if (line.trim() === '') continue;
      try {
        await asker.ask(line);
      } catch (error) {
        // The others are still answered.
        frame.failed();
        frame.output.failure(error);
      }
    }
  });
}

class Asker {
  private nextId = 1;
  private streamed = '';
  private readonly progress = new AskProgress();

  constructor(
    private readonly client: EngineClient,
    private readonly frame: Frame<AskOptions>,
  ) {
    const { output } = frame;
    client.on(messages.askText, ({ text }) => {
      if (!output.isInteractive) return;
      this.streamed += text;
      output.text(text);
    });
    client.on(messages.askPhase, (phase) => this.show(this.progress.phase(phase)));
    client.on(messages.ingestStatus, (status) => this.show(this.progress.status(status)));
  }

  private show(line: ProgressLine | undefined): void {
    if (line && this.streamed === '') this.frame.output.progress(line.message, line.fraction);
  }

  async ask(question: string): Promise<void> {
    const { options, output, signal } = this.frame;
    const { scope, wait, focus, exact } = options;
    this.streamed = '';
    const params: messages.AskParams = {
      id: this.nextId++,
      question,
      ...(scope !== undefined && { scope }),
      ...(wait !== undefined && { wait }),
      ...(focus !== undefined && { focus }),
      ...(exact !== undefined && { exact }),
    };
    const result = await this.client.request(messages.ask, params, signal);
    output.result({ question, ...result }, () => '');
    if (output.json) return;
    if (this.streamed === '') output.text(result.answer);
    output.endLine();
    printAbout(output, result, this.streamed);
  }
}

/** Below the answer: what it rests on. */
function printAbout(output: Output, result: messages.AskResult, streamed: string): void {
  // What has been shown already cannot be corrected in place.
  for (const mark of streamed === '' ? [] : result.marks) {
    if (mark.kind === 'corrected') output.line(`corrected: ${mark.was} → ${result.answer.slice(mark.start, mark.end)}`);
  }
  const unknown = result.marks.filter(({ kind }) => kind === 'unknown').map(({ start, end }) => result.answer.slice(start, end));
  if (unknown.length > 0) output.line(`nowhere in the workspace: ${[...new Set(unknown)].join(', ')}`);
  if (result.uncertain) output.line('uncertain: no place in the workspace has much to do with this question');
  if (result.unsearched !== undefined) output.line(`not searched yet for what the question names: ${count(result.unsearched, 'file')} (--wait full searches all)`);
  if (result.stop !== 'end') output.line(stopTexts[result.stop]);
  if (result.sources.length > 0) output.line('\nSources');
  for (const source of result.sources) {
    output.line(`  ${source.path}:${source.start_line}–${source.end_line}  ${Math.round(source.weight * 100)} %`);
  }
  output.line(`\n${describeCoverage(result.coverage)}`);
}

const stopTexts: Readonly<Record<Exclude<messages.StopReason, 'end'>, string>> = {
  max_tokens: 'stopped: the answer reached its longest length',
  repetition: 'stopped: the answer began to repeat itself',
  cancelled: 'stopped',
  context_full: 'stopped: the conversation reached the longest that the model can hold',
};

/** One line: how much of the workspace an answer could rest on. */
export function describeCoverage({ files, tokens, total_files, total_tokens, estimated }: messages.Coverage): string {
  if (files >= total_files && !estimated) return `All of the workspace was read: ${count(files, 'file')}, ${count(tokens, 'token')}.`;
  const about = estimated ? 'about ' : '';
  return `Read ${abbreviate(files)} of ${count(total_files, 'file')}, ${abbreviate(tokens)} of ${about}${count(total_tokens, 'token')}.`;
}
