// How long nothing else had its turn on this thread: by the clock, which on a busy machine counts what others did meanwhile, and by
// the thread's own processor time, which does not (Linux; elsewhere it stays unknown). With `where`, what ran in the longest ones.

import { openSync, readSync } from 'node:fs';
import { Session } from 'node:inspector';

const tickMs = 2;
const shownStretches = 5;
const shownFrames = 6;

export interface Stretch {
  readonly clock_ms: number;
  /** NaN: unknown. */
  readonly cpu_ms: number;
  /** Of the monotonic clock, in microseconds. */
  readonly from_us: number;
  readonly to_us: number;
}

/** Nanoseconds that this thread, which is the process's first, has run. */
const schedstat = process.platform === 'linux' ? openSync('/proc/self/schedstat', 'r') : undefined;
const text = Buffer.alloc(128);
function cpuMs(): number {
  if (schedstat === undefined) return NaN;
  return Number(text.toString('latin1', 0, readSync(schedstat, text, 0, text.length, 0)).split(' ')[0]) / 1e6;
}

const nowUs = (): number => Number(process.hrtime.bigint() / 1000n);

export class Stretches {
  private readonly all: Stretch[] = [];
  private timer: NodeJS.Timeout | undefined;
  private last = { us: nowUs(), cpu: cpuMs() };

  start(): void {
    this.last = { us: nowUs(), cpu: cpuMs() };
    this.timer = setInterval(() => this.tick(), tickMs);
  }

  stop(): void {
    clearInterval(this.timer);
    this.tick();
  }

  private tick(): void {
    const now = { us: nowUs(), cpu: cpuMs() };
    this.all.push({ clock_ms: (now.us - this.last.us) / 1000, cpu_ms: now.cpu - this.last.cpu, from_us: this.last.us, to_us: now.us });
    this.last = { us: nowUs(), cpu: cpuMs() };
  }

  /** The longest first, by processor time where that is known. */
  get longest(): readonly Stretch[] {
    const size = ({ clock_ms, cpu_ms }: Stretch): number => (Number.isNaN(cpu_ms) ? clock_ms : cpu_ms);
    return [...this.all].sort((a, b) => size(b) - size(a)).slice(0, shownStretches);
  }
}

interface Frame {
  readonly functionName: string;
  readonly url: string;
  readonly lineNumber: number;
}

/** A profile of this thread, while something is measured. */
export class Where {
  private readonly session = new Session();

  private post(method: string, params: object = {}): unknown {
    let answer: unknown;
    // Of a session of the same thread the answer is there before the call returns.
    this.session.post(method, params, (error, result) => {
      if (error) throw error;
      answer = result;
    });
    return answer;
  }

  start(): void {
    this.session.connect();
    this.post('Profiler.enable');
    this.post('Profiler.setSamplingInterval', { interval: 500 });
    this.post('Profiler.start');
  }

  /** A line a stretch: the functions on the stack most of its time, each with what it called. */
  stop(stretches: readonly Stretch[]): string[] {
    const { profile } = this.post('Profiler.stop') as {
      profile: { nodes: { id: number; callFrame: Frame; children?: number[] }[]; startTime: number; samples: number[]; timeDeltas: number[] };
    };
    this.session.disconnect();
    const nodes = new Map(profile.nodes.map((node) => [node.id, node]));
    const parents = new Map(profile.nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id] as const)));
    return stretches.map(({ clock_ms, cpu_ms, from_us, to_us }) => {
      const us = new Map<string, number>();
      let at = profile.startTime;
      profile.samples.forEach((sample, i) => {
        const delta = profile.timeDeltas[i] ?? 0;
        at += delta;
        if (at < from_us || at > to_us) return;
        const names = new Set<string>();
        for (let id: number | undefined = sample; id !== undefined; id = parents.get(id)) {
          const frame = nodes.get(id)?.callFrame;
          if (frame && frame.functionName !== '(root)') names.add(`${frame.functionName || 'anonymous'}:${frame.lineNumber + 1}`);
        }
        for (const name of names) us.set(name, (us.get(name) ?? 0) + delta);
      });
      const shown = [...us].sort((a, b) => b[1] - a[1]).slice(0, shownFrames);
      return `${clock_ms.toFixed(0)} ms, ${cpu_ms.toFixed(0)} of processor time: ${shown.map(([name, n]) => `${name} ${(n / 1000).toFixed(0)}`).join(', ')}`;
    });
  }
}
