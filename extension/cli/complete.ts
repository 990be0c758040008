// `sala complete FILE:LINE:COLUMN`: what the editor would offer at a position. Lines and columns count from 1, columns in UTF-16
// units, as the editor shows them.

import { readFileSync } from 'node:fs';
import * as messages from '../engine/messages';
import { EngineError } from '../engine/errors';
import { isNotebook } from '../engine/workspace/classify';
import { notebookText } from '../engine/workspace/notebook';
import { withEngine, type Frame } from './command';
import { absolutePath, withinRoots } from './options';
import { UsageError } from './output';

export async function complete(frame: Frame, place: string): Promise<void> {
  const { file, line, column } = parsePlace(place);
  const text = textOf(file);
  const offset = offsetAt(text, line, column);
  await withEngine(frame, { watch: 'none', ingest: false }, async (client, _, roots) => {
    const within = withinRoots(file, roots);
    const params: messages.CompleteParams = {
      root: within?.root.path ?? null,
      path: within?.path ?? absolutePath(file),
      text,
      offset,
      trigger: 'explicit',
    };
    const result = await client.request(messages.complete, params, frame.signal);
    frame.output.result(result, () => (result.completion === '' ? '' : `${result.completion}\n`));
  });
}

/** The file's name may itself hold colons. */
export function parsePlace(place: string): { file: string; line: number; column: number } {
  const match = /^(.+):([1-9]\d{0,8}):([1-9]\d{0,8})$/.exec(place);
  if (!match) throw new UsageError(`expected FILE:LINE:COLUMN, each counted from 1, found ${place}`);
  return { file: match[1]!, line: Number(match[2]), column: Number(match[3]) };
}

/** A notebook's lines are those of its cells' text, as in sources. */
function textOf(file: string): string {
  const text = readText(file);
  return isNotebook(file) ? (notebookText(text)?.text ?? text) : text;
}

/** As an editor has it: UTF-8, without its byte order mark. */
function readText(file: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    throw new UsageError(`expected a file in ${file}, found: ${(error as Error).message}`);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw new EngineError('unsupported', `expected UTF-8 in ${file}, found other bytes`, { cause: error });
  }
}

/** UTF-16 offset of a position; within a surrogate pair: its beginning. */
export function offsetAt(text: string, line: number, column: number): number {
  let start = 0;
  for (let at = 1; at < line; at++) {
    const next = text.indexOf('\n', start);
    if (next < 0) throw new UsageError(`expected a line from 1 to ${at}, found ${line}`);
    start = next + 1;
  }
  const newline = text.indexOf('\n', start);
  let end = newline < 0 ? text.length : newline;
  if (end > start && text[end - 1] === '\r') end--;
  const offset = start + column - 1;
  if (offset > end) throw new UsageError(`expected a column from 1 to ${end - start + 1} in line ${line}, found ${column}`);
  const isInsidePair = /[\ud800-\udbff]/.test(text[offset - 1] ?? '') && /[\udc00-\udfff]/.test(text[offset] ?? '');
  return isInsidePair && offset > start ? offset - 1 : offset;
}
