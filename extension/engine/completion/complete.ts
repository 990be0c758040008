// Inline completion at a place: the view that its last tokens ask for, the text around the cursor as a fill-in-the-middle tail, and
// what the model puts between.

import { withCancel } from '../cancel';
import { focusOn, memorySegments, readShares } from '../chat/focus';
import { StreamDecoder } from '../chat/stream-decoder';
import type { ClientSessionOver } from '../client-session';
import type { CompleteParams, CompleteResult } from '../messages';
import { fimTail } from './fim';

const maxNewTokens = 64;

export class Completer {
  constructor(private readonly session: ClientSessionOver) {}

  async complete(params: CompleteParams, signal: AbortSignal): Promise<CompleteResult> {
    const { core, roots } = this.session;
    const { native, model, tokenizer } = core;
    const begin = performance.now();
    const fim = fimTail(model, tokenizer, { path: params.path, text: params.text, offset: params.offset });
    const segments = memorySegments(core, roots, ({ root, path }) => root !== params.root || path !== params.path);
    const ranked = await readShares(core, segments, fim, 'completion', signal);
    const { view, hidden } = focusOn(ranked.slice(0, model.sala.completion.segments), model.sala.completion.headers);
    const tail = native.createTail({ view, hidden, startsFrom: model.sala.tail_starts_from, maxTokens: model.sala.tail_tokens });
    try {
      await withCancel(native.prefill(tail, fim.tokens, { priority: 'completion' }), signal);
      const first = performance.now();
      const decoder = new StreamDecoder(tokenizer);
      const stopIds = [...native.info.eosTokenIds, ...(model.sala.fim?.stop ?? []).map((stop) => tokenizer.idOf(stop))];
      const { ids } = await withCancel(
        native.decode(tail, { priority: 'completion', maxTokens: maxNewTokens, stopIds: Int32Array.from(stopIds) }),
        signal,
      );
      const completion = Array.from(ids, (id) => decoder.push(id)).join('');
      const seconds = (to: number): number => (to - begin) / 1000;
      return {
        completion,
        start: params.offset,
        end: params.offset,
        timings: { first_token_s: seconds(first), total_s: seconds(performance.now()), tokens: ids.length },
      };
    } finally {
      native.releaseTail(tail);
    }
  }

  place(_params: CompleteParams): void {}

  setOpenFiles(_paths: readonly string[]): void {}

  async close(): Promise<void> {}
}
