// What `sala ask` says while it works: of the last seconds, and of what is being done. Reading for a question counts the question's
// places; the share of the whole workspace would say that nothing happens.

import type { AskPhase, Coverage, IngestStatus, PlacesRead } from '../engine/messages';
import { abbreviate, count } from './output';

export interface ProgressLine {
  readonly message: string;
  readonly fraction?: number;
}

const phaseTexts: Readonly<Record<Exclude<AskPhase, 'reading'>, string>> = {
  searching: 'searching',
  focusing: 'finding the places',
  answering: 'answering',
};

export class AskProgress {
  private current: AskPhase | undefined;
  private coverage: Coverage | undefined;
  private places: PlacesRead | undefined;
  private tokensPerSecond = 0;

  phase({ phase, coverage, places }: { phase: AskPhase; coverage: Coverage; places?: PlacesRead }): ProgressLine {
    this.current = phase;
    this.coverage = coverage;
    this.places = places;
    return this.line();
  }

  /** Undefined where it is about nothing that is shown. */
  status({ state, coverage, tokens_per_s }: Pick<IngestStatus, 'state' | 'coverage' | 'tokens_per_s'>): ProgressLine | undefined {
    this.tokensPerSecond = tokens_per_s;
    this.coverage = coverage;
    if (this.current === 'reading') return this.line();
    return this.current === undefined && state === 'scanning' ? { message: 'looking at the files' } : undefined;
  }

  private line(): ProgressLine {
    if (this.current === undefined) return { message: '' };
    if (this.current !== 'reading') return { message: phaseTexts[this.current] };
    const speed = this.tokensPerSecond > 0 ? `, ${abbreviate(this.tokensPerSecond)} tokens/s` : '';
    if (this.places) {
      const { read, total } = this.places;
      return { message: `reading for the question, ${read} of ${count(total, 'place')} in${speed}`, fraction: read / Math.max(1, total) };
    }
    const { tokens = 0, total_tokens = 0 } = this.coverage ?? {};
    return { message: `reading the workspace${speed}`, ...(total_tokens > 0 && { fraction: tokens / total_tokens }) };
  }
}
