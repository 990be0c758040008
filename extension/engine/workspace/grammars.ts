// File name → syntax → how deep each line border lies. The only place that knows tree-sitter. Grammars are loaded when a file
// first needs one. A result depends on the text alone: limits are counted in work done, never in time.

import path from 'node:path';
import { Language, Parser, type ParseState, type Tree, type TreeCursor } from 'web-tree-sitter';
import { assetPath } from '../assets';
import { EngineError } from '../errors';

/** What the syntax says about the borders between lines; border i lies between lines i and i + 1, counted from 0. */
export interface Nesting {
  /** How many constructs of more than one line the border cuts through. */
  readonly depth: Uint16Array;
  /** 1 where the border would part an opening or closing line from its construct, or a comment from what it is about. */
  readonly attached: Uint8Array;
}

export interface Grammar {
  readonly name: string;
  /**
   * null: too large or too tangled to parse; cut by lines. `nLines` counts as linesOf does. Throws `internal` where only a parser
   * that has parsed nothing yet can tell; this one is suspect then.
   */
  nesting(text: string, nLines: number): Nesting | null;
}

/**
 * C is parsed as C++: the one grammar reads both well enough to find borders. Two grammars that we could have are left out: INI
 * takes most configuration files for errors, and PowerShell's can take minutes over a text that is none.
 */
const extensions: Readonly<Record<string, readonly string[]>> = {
  'bash': ['sh', 'bash', 'zsh', 'ksh'],
  'c-sharp': ['cs', 'csx'],
  'cpp': ['c', 'h', 'cc', 'cpp', 'cxx', 'c++', 'hh', 'hpp', 'hxx', 'h++', 'inl', 'ipp', 'cu', 'cuh'],
  'css': ['css'],
  'go': ['go'],
  'java': ['java'],
  'javascript': ['js', 'mjs', 'cjs', 'jsx'],
  'php': ['php'],
  'python': ['py', 'pyi', 'pyw'],
  'ruby': ['rb', 'rake', 'gemspec'],
  'rust': ['rs'],
  'tsx': ['tsx'],
  'typescript': ['ts', 'mts', 'cts'],
};
const nameOf = new Map(Object.entries(extensions).flatMap(([name, list]) => list.map((extension) => [extension, name] as const)));

/** UTF-16 units. A tree takes up to 60 times the memory of its text, and what WebAssembly once took it never gives back. */
const maxParsedUnits = 256_000;
/**
 * Text that is not of the language can cost the parser quadratic time in recovery, up to minutes. Both bounds end that within a
 * few seconds; of 1,500 files of system and package folders, C++ headers full of macros among them, none comes near either.
 * Units that the lexer may read for each unit of text (there: at most 5), and for any text.
 */
const maxReads = { perUnit: 8, free: 1 << 16 };
/** Calls of the progress callback, one for 100 actions: bytes (UTF-16) parsed for each (there: at least 130), and calls for any text. */
const maxSteps = { bytesEach: 16, free: 256 };
/** Units handed to the lexer at once; it asks anew whenever it goes back further. */
const readUnits = 1024;

/** Memory of the parser with its grammars, trees included, in pages of 64 KB. Nonsense has been seen to take 1.6 GB for 12 KB of text. */
const memoryPages = { initial: 512, maximum: 2048 };

/** Node has it, but the types of Node as we use them only name it. */
const { Memory } = (globalThis as unknown as { WebAssembly: { Memory: new (pages: typeof memoryPages) => object } }).WebAssembly;

const loaded = new Map<string, Promise<Grammar>>();
let runtime: Promise<void> | undefined;
let used = false;
let suspect = false;

/**
 * True once a parse was given up or failed. Its remains may have overrun WebAssembly's stack while they were freed (seen: an abort
 * some files later), so no more is parsed here: whoever owns the thread ends it and starts another.
 */
export function parserIsSuspect(): boolean {
  return suspect;
}

/** The grammar for a file by its name, null where there is none. Rejects with `internal` if its file cannot be loaded. */
export async function grammarFor(file: string): Promise<Grammar | null> {
  const name = nameOf.get(path.posix.extname(file).slice(1).toLowerCase());
  if (name === undefined) return null;
  let grammar = loaded.get(name);
  if (grammar === undefined) {
    grammar = load(name);
    loaded.set(name, grammar);
  }
  return grammar;
}

async function load(name: string): Promise<Grammar> {
  const file = assetPath('grammars', `tree-sitter-${name}.wasm`);
  try {
    runtime ??= Parser.init({
      locateFile: (wasm: string) => assetPath('grammars', wasm),
      wasmMemory: new Memory(memoryPages),
      printErr: () => {}, // Says "Aborted()" where it then throws the same.
    });
    await runtime;
    const language = await Language.load(file);
    return new TreeSitterGrammar(name, language);
  } catch (error) {
    throw new EngineError('internal', `expected the grammar ${file}, found: ${String(error)}`, { cause: error });
  }
}

/** Type of nodes that the parser could make nothing of (ts_builtin_sym_error). */
const errorType = 0xffff;

class TreeSitterGrammar implements Grammar {
  private readonly parser = new Parser();
  /** Node types that belong to what follows them: comments, attributes. */
  private readonly leading: ReadonlySet<number>;

  constructor(
    readonly name: string,
    language: Language,
  ) {
    this.parser.setLanguage(language);
    const ids = Array.from({ length: language.nodeTypeCount }, (_, id) => id);
    this.leading = new Set(ids.filter((id) => /comment|^attribute_item$|^attribute_list$/.test(language.nodeTypeForId(id) ?? '')));
  }

  nesting(text: string, nLines: number): Nesting | null {
    if (text.length > maxParsedUnits) return null;
    let reads = 0;
    let steps = 0;
    let parsed = 0;
    const mayRead = text.length * maxReads.perUnit + maxReads.free;
    const read = (index: number): string => {
      const part = text.slice(index, index + readUnits);
      reads += part.length;
      return part;
    };
    const tangled = ({ currentOffset }: ParseState): boolean => {
      parsed = Math.max(parsed, currentOffset);
      return reads > mayRead || ++steps > maxSteps.free + parsed / maxSteps.bytesEach;
    };
    const tree = this.parse(read, tangled);
    if (tree === null) return null;
    const cursor = tree.walk();
    try {
      return this.measure(cursor, nLines);
    } finally {
      cursor.delete();
      tree.delete();
    }
  }

  private parse(read: (index: number) => string, tangled: (state: ParseState) => boolean): Tree | null {
    if (suspect) throw givenUp();
    const fresh = !used;
    used = true;
    try {
      const tree = this.parser.parse(read, null, { progressCallback: tangled });
      if (tree === null) suspect = true;
      return tree;
    } catch {
      // Out of memory. Whether that is the text's doing or an earlier one's, only a fresh runtime can tell.
      suspect = true;
      if (!fresh) throw givenUp();
      return null;
    }
  }

  /** Visits the children of every node of more than one line; what lies within one line concerns no border. */
  private measure(cursor: TreeCursor, nLines: number): Nesting {
    const change = new Int32Array(nLines + 1);
    const attached = new Uint8Array(Math.max(0, nLines - 1));
    const attach = (border: number): void => {
      if (border >= 0 && border < attached.length) attached[border] = 1;
    };
    /** First line of the construct around each level of the walk: constructs that begin together count once. */
    const begins = [-1];
    /** Where code was last seen: a comment behind it belongs to it, not to what follows. */
    let codeLine = -1;
    if (!cursor.gotoFirstChild()) return { depth: new Uint16Array(attached.length), attached };
    for (;;) {
      const first = cursor.startPosition.row;
      const end = cursor.endPosition;
      // A node that ends at the start of a line ends with the line before.
      const last = end.column === 0 && end.row > first ? end.row - 1 : end.row;
      const type = cursor.nodeTypeId;
      if (!this.leading.has(type)) codeLine = first;
      else if (first > codeLine) attach(last);
      if (last > first) {
        const around = begins.at(-1) as number;
        const counts = type !== errorType && first !== around;
        if (counts) {
          change[first] = (change[first] ?? 0) + 1;
          change[last] = (change[last] ?? 0) - 1;
        }
        attach(first);
        attach(last - 1);
        if (cursor.gotoFirstChild()) {
          begins.push(counts ? first : around);
          continue;
        }
        codeLine = last;
      }
      while (!cursor.gotoNextSibling()) {
        if (!cursor.gotoParent() || begins.length === 1) return { depth: sums(change, attached.length), attached };
        begins.pop();
      }
    }
  }
}

function givenUp(): EngineError {
  return new EngineError('internal', 'the parser was given up; its thread must be replaced');
}

/** depth[i]: sum of the changes up to line i. */
function sums(change: Int32Array, n: number): Uint16Array {
  const depth = new Uint16Array(n);
  for (let i = 0, sum = 0; i < n; i++) depth[i] = sum += change[i] as number;
  return depth;
}
