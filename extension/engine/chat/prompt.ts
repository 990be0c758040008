// Conversation → the tail's tokens, through the model's own chat template. Pure. Each content is rendered as a placeholder: what
// the template writes around it is encoded with special tokens, the content without, so no typed text can end a turn. P is what
// the tail continues or what its caller puts in front; it is dropped here.

import { Template } from '@huggingface/jinja';
import path from 'node:path';
import { EngineError } from '../errors';
import type { Attachment, Turn } from '../messages';
import { systemText, type ModelFolder } from '../model-folder';
import { concat, linesOf, type Tokenizer } from '../tokenizer';
import { safePath } from '../workspace/header';

/** An earlier turn. `answerIds`, the ids as they were generated, are kept as they are; without them the text is encoded. */
export interface PastTurn extends Turn {
  readonly answerIds?: Int32Array;
}

export interface ChatTurnInput {
  readonly question: string;
  /** Oldest first. */
  readonly history?: readonly PastTurn[];
  /** What is selected in the editor. */
  readonly attachment?: Omit<Attachment, 'root'>;
  /** File that the editor shows. */
  readonly activePath?: string;
  readonly maxAttachmentTokens?: number;
}

export interface ChatTurn {
  /** Behind P: history, question, and the beginning of the answer. */
  readonly tokens: Int32Array;
  /** [begin, end) of the typed question in `tokens`. */
  readonly span: readonly [number, number];
  /** How many of `tokens` are earlier turns. */
  readonly historyLength: number;
}

type TemplateModel = Pick<ModelFolder, 'dir' | 'sala' | 'chatTemplate' | 'templateTokens'>;

/** The tail of a question. Throws `model_invalid` where the template does not do its part. */
export function chatTurn(model: TemplateModel, tokenizer: Tokenizer, input: ChatTurnInput): ChatTurn {
  const question = tokenizer.encodeText(input.question.trim());
  const preamble = tokenizer.encodeText(preambleOf(tokenizer, input));
  const contents: Content[] = (input.history ?? []).flatMap((turn): Content[] => [
    { role: 'user', tokens: tokenizer.encodeText(turn.question.trim()) },
    { role: 'assistant', tokens: turn.answerIds ?? tokenizer.encodeText(turn.answer) },
  ]);
  const last: Content = { role: 'user', tokens: concat([preamble, question]) };
  const alone = render(model, tokenizer, [last]);
  const { tokens, begin } = contents.length === 0 ? alone : render(model, tokenizer, [...contents, last]);
  const asked = begin + preamble.length;
  return { tokens, span: [asked, asked + question.length], historyLength: begin - alone.begin };
}

/**
 * The turn that ranks the segments: the last question alone, nothing attached. With fewer than four words of its own ("And
 * where is it used?" has more, "Why?" has not) the question before is put in front of it and counts as asked too. Ends with the
 * question: what the template writes behind it cannot change what came before it.
 */
export function readTurn(
  model: TemplateModel,
  tokenizer: Tokenizer,
  { question, history = [] }: Pick<ChatTurnInput, 'question' | 'history'>,
): Pick<ChatTurn, 'tokens' | 'span'> {
  const words = question.split(/\s+/).filter((word) => /[\p{L}\p{N}]/u.test(word)).length;
  const before = words < 4 ? history.at(-1)?.question.trim() : undefined;
  const asked = before === undefined ? question : `${before}\n${question.trim()}`;
  const { tokens, span } = chatTurn(model, tokenizer, { question: asked });
  return { tokens: tokens.slice(0, span[1]), span };
}

// ---- template ---------------------------------------------------------------------------------------------------------

interface Content {
  readonly role: 'user' | 'assistant';
  readonly tokens: Int32Array;
}

/** Private-use characters, which no chat template writes. */
const placeholder = (index: number): string => `\ue000${index}\ue001`;
const placeholders = /\ue000(\d+)\ue001/;

/** Tokens behind P, and where the last content begins in them. */
function render(model: TemplateModel, tokenizer: Tokenizer, contents: readonly Content[]): { tokens: Int32Array; begin: number } {
  const parts: Int32Array[] = [];
  let length = 0;
  let begin = -1;
  afterPrefix(model, contents)
    .split(placeholders)
    .forEach((part, i) => {
      const index = i % 2 === 1 ? Number(part) : -1;
      if (index === contents.length - 1) begin = length;
      const tokens = contents[index]?.tokens ?? tokenizer.encodeTemplate(part);
      parts.push(tokens);
      length += tokens.length;
    });
  if (begin < 0) throw invalid(model, 'to write the last content', 'a text without it');
  return { tokens: concat(parts), begin };
}

/** What the template writes behind P; where it writes no system turn by itself, it is given one. */
function afterPrefix(model: TemplateModel, contents: readonly Content[]): string {
  const turns = contents.map(({ role }, i) => ({ role, content: placeholder(i) }));
  const { prefix } = model.sala;
  const bos = model.templateTokens['bos_token'] ?? '';
  let written = '';
  for (const messages of [turns, [{ role: 'system', content: systemText }, ...turns]]) {
    written = renderMessages(model, messages);
    if (written.startsWith(prefix)) return written.slice(prefix.length);
    // Some templates leave the first token to whoever encodes them.
    if (bos !== '' && `${bos}${written}`.startsWith(prefix)) return written.slice(prefix.length - bos.length);
  }
  throw invalid(model, `to begin with ${JSON.stringify(prefix)}`, JSON.stringify(written.slice(0, 200)));
}

function renderMessages(model: TemplateModel, messages: readonly { role: string; content: string }[]): string {
  try {
    return templateOf(model).render({ ...model.templateTokens, messages, add_generation_prompt: true });
  } catch (error) {
    throw invalid(model, 'to be a Jinja template', error instanceof Error ? error.message : String(error));
  }
}

const parsed = new WeakMap<TemplateModel, Template>();

function templateOf(model: TemplateModel): Template {
  let template = parsed.get(model);
  if (template === undefined) parsed.set(model, (template = new Template(model.chatTemplate)));
  return template;
}

function invalid(model: TemplateModel, expected: string, found: string): EngineError {
  return new EngineError('model_invalid', `${model.dir}: chat_template: expected ${expected}, found ${found}`);
}

// ---- what the editor shows ----------------------------------------------------------------------------------------------

/**
 * Stands in front of the question, since the model remembers best what it read last: the selection as fenced code under its path
 * and lines, or, where the question points at it, the open file's path. Otherwise nothing: a path in the turn that has nothing
 * to do with the question ends up in the answer.
 */
function preambleOf(tokenizer: Tokenizer, { question, attachment, activePath, maxAttachmentTokens = 400 }: ChatTurnInput): string {
  if (attachment !== undefined && attachment.text !== '') return attachmentText(tokenizer, attachment, maxAttachmentTokens);
  const pointed = /\b(this|here|these|current|open|active)\b/i.test(question);
  return activePath !== undefined && pointed ? `Open file: ${safePath(activePath)}\n\n` : '';
}

/** As many of the first lines as fit; of a line that does not fit, its beginning. Empty where not even that fits. */
function attachmentText(tokenizer: Tokenizer, attachment: Omit<Attachment, 'root'>, maxTokens: number): string {
  const lines = linesOf(attachment.text);
  const form = (shown: readonly string[]): string => attachmentForm(attachment, shown);
  const fits = (text: string): boolean => tokenizer.encodeText(text).length <= maxTokens;
  let n = 0;
  for (let sum = tokenizer.encodeText(form([])).length; n < lines.length; n++) {
    sum += tokenizer.encodeLine(lines[n] as string).length;
    if (sum > maxTokens) break;
  }
  // Lines apart have about as many tokens as together; where they have more together, the last ones go.
  for (; n > 0; n--) {
    const text = form(lines.slice(0, n));
    if (fits(text)) return text;
  }
  for (let part = Array.from((lines[0] as string).slice(0, maxTokens * 16)); part.length > 0; part = part.slice(0, part.length >> 1)) {
    const text = form([part.join('')]);
    if (fits(text)) return text;
  }
  return '';
}

function attachmentForm({ path: file, start_line }: Omit<Attachment, 'root'>, lines: readonly string[]): string {
  const code = lines.join('').trimEnd();
  const ticks = Math.max(2, ...Array.from(code.matchAll(/`+/g), ([run]) => run.length));
  const fence = '`'.repeat(ticks + 1);
  const end_line = start_line + Math.max(0, lines.length - 1);
  const where = end_line > start_line ? `lines ${start_line}-${end_line}` : `line ${start_line}`;
  const shown = safePath(file);
  const language = path.posix.extname(shown).slice(1).replace(/[^\w+#-]/g, '');
  return `${shown}, ${where}:\n${fence}${language}\n${code}\n${fence}\n\n`;
}
