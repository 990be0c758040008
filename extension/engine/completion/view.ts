// Which segments a completion sees: those that the place's last tokens ask for, or, until they have been asked, those that are near:
// of files that this one imports, of this file itself, of other open files. The text around the cursor is in the tail, so the
// segments that hold it are left out.

import path from 'node:path';
import { memorySegments, readShares, type MemorySegment } from '../chat/focus';
import type { ClientSessionOver } from '../client-session';
import type { FileRecord, RootIndex } from '../root-index';
import type { FimTail } from './fim';

/** A file of the workspace, and the part of it that the tail holds. */
export interface Around {
  readonly root: RootIndex;
  readonly path: string;
  readonly text: string;
  readonly offset: number;
  readonly windowStart: number;
}

/** Best first. Addresses, since handles change when a file is read again. */
export interface PlaceView {
  readonly segments: readonly Pick<MemorySegment, 'record' | 'segment'>[];
}

export const noView: PlaceView = { segments: [] };

/** Behind the cursor the tail holds about so many bytes. */
const suffixBytes = 300;
/** Of each imported or open file its first segments, of this file the nearest. */
const importedFiles = 3;
const ownSegments = 2;

/** The view that the tail's span asks for. */
export async function readView(
  session: ClientSessionOver,
  around: Around,
  fim: FimTail,
  priority: 'completion' | 'prefill',
  signal: AbortSignal,
): Promise<PlaceView> {
  const { core, roots } = session;
  const isOutside = outsideTail(around);
  const segments = memorySegments(core, roots, () => true).filter(isOutside);
  // A file may change while its segments are asked: none of them goes before the answer.
  const held = segments.map(({ segment }) => segment.key);
  core.memory.retain(held);
  try {
    const ranked = await readShares(core, segments, fim, priority, signal);
    return viewOf(ranked.slice(0, core.model.sala.completion.segments));
  } finally {
    core.memory.release(held);
  }
}

/** What can be had without asking. `openFiles`: absolute paths. */
export function nearView(session: ClientSessionOver, around: Around, openFiles: readonly string[]): PlaceView {
  const { core, roots } = session;
  const isOutside = outsideTail(around);
  const segmentsOf = (record: FileRecord | undefined): MemorySegment[] =>
    record === undefined ? [] : memorySegments(core, [record.root], (file) => file.path === record.path).filter(isOutside);
  const cursor = Buffer.byteLength(around.text.slice(0, around.offset));
  const distance = ({ segment }: MemorySegment): number => Math.max(segment.startByte - cursor, cursor - segment.endByte);
  const own = segmentsOf(around.root.records.get(around.path)).sort((a, b) => distance(a) - distance(b));
  const imported = importedPaths(around.path, around.text, (file) => around.root.records.has(file)).slice(0, importedFiles);
  const open = openFiles.flatMap((file) => {
    const at = session.locate(file);
    return at === undefined || (at.root === around.root && at.path === around.path) ? [] : [at.root.records.get(at.path)];
  });
  const chosen = [
    ...imported.flatMap((file) => segmentsOf(around.root.records.get(file)).slice(0, 1)),
    ...own.slice(0, ownSegments),
    ...open.slice(0, core.model.sala.completion.segments).flatMap((record) => segmentsOf(record).slice(0, 1)),
  ].filter(({ record }) => roots.includes(record.root));
  const once = chosen.filter(({ segment }, i) => chosen.findIndex((other) => other.segment.key === segment.key) === i);
  return viewOf(once.slice(0, core.model.sala.completion.segments));
}

function viewOf(segments: readonly MemorySegment[]): PlaceView {
  return { segments: segments.map(({ segment, record }) => ({ segment, record })) };
}

/** Segments of other files, and of this one those that hold something that the tail does not. */
function outsideTail({ root, path: own, text, offset, windowStart }: Around): (segment: MemorySegment) => boolean {
  const begin = Buffer.byteLength(text.slice(0, windowStart));
  const cursor = begin + Buffer.byteLength(text.slice(windowStart, offset));
  return ({ record, segment }) => {
    if (record.root !== root || record.path !== own) return true;
    const holdsCursor = segment.startByte <= cursor && cursor <= segment.endByte;
    const isInTail = begin <= segment.startByte && segment.endByte <= cursor + suffixBytes;
    return !holdsCursor && !isInTail;
  };
}

/** What an import's path may leave out. */
const endings = ['', '.ts', '.tsx', '.d.ts', '.js', '.jsx', '.mjs', '.py', '/index.ts', '/index.js', '/__init__.py'];
const importPatterns = [
  /(?:\bfrom|\bimport|\brequire\s*\(|\bimport\s*\(|^\s*#\s*include)\s*["']([^"'\n]+)["']/gm,
  /^\s*from\s+(\.*[\w.]+)\s+import\b/gm,
  /^\s*import\s+([\w.]+)/gm,
];

/** Paths of files that a text imports, as far as they are plain to see; in the order of the text. */
export function importedPaths(own: string, text: string, exists: (file: string) => boolean): string[] {
  const folder = path.posix.dirname(own);
  const found = new Set<string>();
  const names = importPatterns.flatMap((pattern) => [...text.matchAll(pattern)].map((match) => ({ at: match.index, name: match[1]! })));
  for (const { name } of names.sort((a, b) => a.at - b.at)) {
    const bases = [path.posix.join(folder, name), path.posix.normalize(name)];
    const dotted = /^(\.*)(\w+(?:\.\w+)*)$/.exec(name);
    if (dotted) {
      const slashed = dotted[2]!.replaceAll('.', '/');
      const up = '../'.repeat(Math.max(0, dotted[1]!.length - 1));
      bases.push(path.posix.join(folder, up, slashed), slashed);
    }
    // Module names of JavaScript as they are after compiling.
    for (const base of [...bases]) if (/\.m?js$/.test(base)) bases.push(base.replace(/\.m?js$/, ''));
    const file = bases.flatMap((base) => endings.map((ending) => base + ending)).find((candidate) => candidate !== own && exists(candidate));
    if (file !== undefined) found.add(file);
  }
  return [...found];
}
