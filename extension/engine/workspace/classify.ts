// What a file is: its class (code, doc, data), which orders admission, and whether its name or its bytes keep it out of memory
// (secrets, lock files, generated and minified code, binaries, other encodings). Pure: the caller reads the bytes. Where a file
// lies and who ignores it is filter.ts's business. Every verdict names a rule of the closed list and a detail that a person
// understands, because coverage shows both.

import { isBinaryFileSync } from 'isbinaryfile';
import type { ExclusionRule } from '../messages';

export type FileClass = 'code' | 'doc' | 'data';

export interface Verdict {
  readonly rule: ExclusionRule;
  readonly detail: string;
}

/** Larger files are not read (rule `too_large`). */
export const maxFileBytes = 1 << 20;
/** A notebook is measured by the text of its cells; its file may carry pictures of any size up to this. */
export const maxNotebookBytes = 64 << 20;

/** How large a file may be on disk before it is left out unread. */
export function maxBytesOf(path: string): number {
  return isNotebook(path) ? maxNotebookBytes : maxFileBytes;
}

export function isNotebook(path: string): boolean {
  return extensionOf(path) === 'ipynb';
}

// ---- class --------------------------------------------------------------------------------------------------------------

const docExtensions = new Set(
  (
    'md markdown mdx rst adoc asciidoc txt text tex bib org wiki textile pod rdoc man 1 2 3 4 5 6 7 8 ' +
    'json jsonc json5 yaml yml toml ini cfg conf config properties env editorconfig xml xsd xsl xslt plist ' +
    'csproj vbproj fsproj sln props targets desktop service mailmap'
  ).split(' '),
);
const dataExtensions = new Set(
  (
    'csv tsv psv jsonl ndjson geojson topojson svg log out dat data po pot srt vtt sub ics vcf gpx kml lst dic aff ' +
    'arff fasta fa fastq pdb obj stl ply mtl gcode dxf eps ps snap golden expected hex patch diff har sum'
  ).split(' '),
);
const docNames = new Set(
  'readme license licence copying authors contributors changelog changes notice todo news install history codeowners maintainers'.split(' '),
);

/**
 * Code is what is neither documents and configuration nor data: an unknown extension or none counts as code, so that a
 * language that we have never heard of is read early rather than late.
 */
export function classOf(path: string): FileClass {
  const name = baseName(path).toLowerCase();
  const extension = extensionOf(path);
  if (dataExtensions.has(extension)) return 'data';
  if (docExtensions.has(extension)) return 'doc';
  return docNames.has(extension === '' ? name : name.slice(0, -extension.length - 1)) ? 'doc' : 'code';
}

// ---- by name --------------------------------------------------------------------------------------------------------------

const lockNames = new Set(
  (
    'package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml bun.lock bun.lockb deno.lock cargo.lock gemfile.lock ' +
    'poetry.lock uv.lock pdm.lock pixi.lock pipfile.lock conda-lock.yml composer.lock go.sum go.work.sum flake.lock ' +
    'podfile.lock cartfile.resolved package.resolved mix.lock rebar.lock pubspec.lock packages.lock.json gradle.lockfile ' +
    'buildscript-gradle.lockfile conan.lock vcpkg-lock.json .terraform.lock.hcl chart.lock renv.lock packrat.lock ' +
    'stack.yaml.lock cabal.project.freeze shard.lock module.bazel.lock paket.lock project.assets.json'
  ).split(' '),
);

const secretNames = new Set(
  (
    '.netrc _netrc .pgpass .my.cnf .htpasswd .git-credentials .dockercfg .envrc .s3cfg .boto .vault-token .secrets ' +
    'id_rsa id_dsa id_ecdsa id_ecdsa_sk id_ed25519 id_ed25519_sk credentials credentials.json .credentials.json ' +
    'secrets.json secrets.yml secrets.yaml secrets.toml secrets.ini secrets.env application_default_credentials.json ' +
    'kubeconfig wp-config.local.php'
  ).split(' '),
);
const secretExtensions = new Set(
  'pem key p12 pfx p8 jks keystore kdbx crt cer der p7b p7c csr ppk gpg pgp ovpn tfstate keytab mobileprovision'.split(' '),
);
const secretPatterns = [
  /^\.env(?!\.(?:example|sample|template|dist|defaults|schema)$)(?:\.|$)/,
  /\.env$/,
  /^client_secret.*\.json$/,
  /^service[-_]?account.*\.json$/,
  /\.tfstate\.backup$/,
  /^secring\./,
];
/** Environment files without values are documentation of the settings, and wanted. */
const harmlessEnvironment = /^\.?(?:example|sample|template|dist|defaults)\.env$/;

const generatedPatterns = [
  /\.pb\.(?:go|cc|h|c|hpp|dart|swift|rs)$/,
  /\.pb\.gw\.go$/,
  /_pb2(?:_grpc)?\.pyi?$/,
  /_pb\.(?:js|d\.ts|rb)$/,
  /\.(?:g|freezed|gr|mocks)\.dart$/,
  /\.(?:designer|g|g\.i|generated)\.(?:cs|vb)$/,
  /\.generated\.[a-z]+$/,
  /^zz_generated\b.*\.go$/,
  /\.(?:js|mjs|cjs|css|ts)\.map$/,
  /\.tsbuildinfo$/,
];

/** Formats that are never text: known without reading, so that they count for nothing while the workspace is not in. */
const binaryExtensions = new Set(
  (
    'safetensors gguf onnx pt pth ckpt npy npz pkl h5 hdf5 parquet arrow feather tflite mlmodel node wasm o obj a lib so dylib dll exe ' +
    'bin dat class jar war pyc pyo whl egg png jpg jpeg gif bmp ico icns webp avif tif tiff psd heic mp3 mp4 m4a m4v mov avi mkv webm ' +
    'ogg oga ogv flac wav aac pdf doc docx xls xlsx ppt pptx odt ods odp zip gz tgz bz2 xz zst lz4 7z rar tar iso dmg img vsix woff ' +
    'woff2 ttf otf eot sqlite sqlite3 db mdb pcap ds_store'
  ).split(' '),
);

/** What the name alone decides, before a byte is read; undefined: nothing. */
export function classifyName(path: string): Verdict | undefined {
  const name = baseName(path).toLowerCase();
  if (lockNames.has(name)) return { rule: 'lock_file', detail: `${name} is written by a package manager` };
  if (isSecretName(name)) return { rule: 'secret', detail: `files named ${name} hold keys or passwords` };
  if (/[.-]min\.(?:js|mjs|cjs|css)$/.test(name)) return { rule: 'minified', detail: 'named as minified' };
  const generated = generatedPatterns.find((pattern) => pattern.test(name));
  if (generated) return { rule: 'generated', detail: 'named as the output of a generator' };
  const extension = extensionOf(name);
  if (binaryExtensions.has(extension)) return { rule: 'binary', detail: `.${extension} files are not text` };
  return undefined;
}

function isSecretName(name: string): boolean {
  if (harmlessEnvironment.test(name)) return false;
  return (
    secretNames.has(name) || secretExtensions.has(extensionOf(name)) || secretPatterns.some((pattern) => pattern.test(name))
  );
}

// ---- by content -------------------------------------------------------------------------------------------------------------

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export type Classified = { readonly text: string } | Verdict;

/**
 * What the whole content decides: the text of a file that may enter, a byte order mark and CRLF kept, or the verdict that
 * keeps it out. For a notebook the caller applies the size limit to the text of its cells.
 */
export function classifyContent(path: string, bytes: Uint8Array): Classified {
  const limit = maxBytesOf(path);
  if (bytes.byteLength > limit) return tooLarge(bytes.byteLength, limit);
  const binary = binaryVerdict(bytes);
  if (binary) return binary;
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch {
    return { rule: 'not_utf8', detail: encodingOf(bytes) };
  }
  // One NUL far from the start passes the look at the first bytes, and no text has one.
  const nul = text.indexOf('\0');
  if (nul >= 0) return { rule: 'binary', detail: `a NUL character at offset ${nul}` };
  return secretVerdict(path, text) ?? generatedVerdict(path, text) ?? minifiedVerdict(path, text) ?? { text };
}

export function isVerdict(classified: Classified): classified is Verdict {
  return 'rule' in classified;
}

export function tooLarge(bytes: number, limit: number): Verdict {
  return { rule: 'too_large', detail: `${megabytes(bytes)}, and at most ${megabytes(limit)} are read` };
}

/** Whether the first bytes of a file are not text; UTF-16 and other encodings are `not_utf8`, not binary. */
export function binaryVerdict(bytes: Uint8Array): Verdict | undefined {
  if (bytes.byteLength === 0 || hasForeignMark(bytes)) return undefined;
  if (!looksLikeText(bytes) && isBinaryFileSync(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), bytes.byteLength)) {
    return { rule: 'binary', detail: 'its first bytes are not text' };
  }
  if (startsWith(bytes, '%PDF-')) return { rule: 'binary', detail: 'a PDF document' };
  return undefined;
}

/**
 * isbinaryfile counts every byte above 127 that is not UTF-8 as suspicious, so that a text in Latin-1 or KOI8 looks binary to
 * it, and may take a short text for a Protocol Buffers message. Without a NUL, UTF-8 is text whatever it holds, and bytes
 * without control characters are text in some encoding: `not_utf8` tells its author more.
 */
function looksLikeText(bytes: Uint8Array): boolean {
  const start = bytes.subarray(0, 4096);
  if (start.includes(0)) return false;
  if (!start.some((byte) => byte < 7 || (byte > 13 && byte < 32 && byte !== 27) || byte === 127)) return true;
  try {
    // `stream` accepts a character that the 4,096th byte cuts in two.
    new TextDecoder('utf-8', { fatal: true }).decode(start, { stream: true });
    return true;
  } catch {
    return false;
  }
}

function hasForeignMark(bytes: Uint8Array): boolean {
  return (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff);
}

function encodingOf(bytes: Uint8Array): string {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return 'UTF-16 little-endian';
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return 'UTF-16 big-endian';
  return `byte ${firstInvalidByte(bytes)} is not UTF-8`;
}

/** Bisects, since a decoder tells only that it failed. */
function firstInvalidByte(bytes: Uint8Array): number {
  let valid = 0;
  let invalid = bytes.byteLength;
  while (invalid - valid > 1) {
    const middle = (valid + invalid) >> 1;
    try {
      new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, middle), { stream: true });
      valid = middle;
    } catch {
      invalid = middle;
    }
  }
  return valid;
}

// A private key with its first line of Base64, as a file or inside JSON ("\n" written out); a document that merely mentions
// the marker has no such line.
const privateKey =
  /-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?:\\r|\\n|\s)+(?:[A-Za-z-]+: [^\n]{1,200}\n\s*){0,4}[A-Za-z0-9+/=]{32}/;

function secretVerdict(path: string, text: string): Verdict | undefined {
  const name = baseName(path).toLowerCase();
  const token =
    (name === '.npmrc' && /(?:_authToken|_password|_auth)\s*=\s*[^\s$]/.test(text)) ||
    (name === '.yarnrc.yml' && /npmAuth(?:Token|Ident)\s*:\s*["']?[^\s"'$]/.test(text)) ||
    (name === '.pypirc' && /^\s*password\s*[:=]\s*\S/m.test(text));
  if (token) return { rule: 'secret', detail: `${name} holds a token or password` };
  // Keys in code are test data more often than not, and the code around them is wanted.
  if (classOf(path) !== 'code' || extensionOf(path) === '') {
    if (privateKey.test(text)) return { rule: 'secret', detail: 'holds a private key' };
  }
  return undefined;
}

/** Lines of the opening comment that are looked at for a generator's mark. */
const maxHeaderLines = 40;
const generatedMarks = [
  /(?<![\w`'"])@generated\b/,
  /(?<![`'"])\bDO NOT (?:EDIT|MODIFY)\b/,
  /\bgenerated\b.*\bdo not (?:edit|modify|change)\b/i,
  /<auto-?generated\b/i,
  /^\W*(?:this (?:file|code|module|source) (?:is|was|has been) )?(?:auto-?|automatically )generated\b/i,
  /\bthis (?:file|code|module|source) (?:is|was|has been) (?:auto-?|automatically )?generated (?:by|from|with|using)\b/i,
];

function generatedVerdict(path: string, text: string): Verdict | undefined {
  let line = 0;
  for (const comment of openingComment(text, prose.has(extensionOf(path)))) {
    line++;
    if (generatedMarks.some((mark) => mark.test(comment))) {
      return { rule: 'generated', detail: `line ${line}: ${comment.trim().slice(0, 80)}` };
    }
  }
  return undefined;
}

/** What a document says about generators is its subject; only a comment hidden in it speaks of the document itself. */
const prose = new Set('md markdown mdx rst adoc asciidoc txt text tex org wiki textile ipynb'.split(' '));

const lineComment = /^\s*(?:\/\/|#|--|;|%|'|rem\b|dnl\b|\.\\"|<\?|<!doctype|["']use strict["'])/i;
const blockStarts: readonly (readonly [RegExp, RegExp])[] = [
  [/^\s*\/\*/, /\*\//],
  [/^\s*<!--/, /-->/],
  [/^\s*\(\*/, /\*\)/],
  [/^\s*\{-/, /-\}/],
  [/^\s*[rbu]?"""/i, /"""/],
  [/^\s*[rbu]?'''/i, /'''/],
  [/^\s*=begin/, /^=end/],
];

const htmlComment = blockStarts.filter(([opens]) => opens.test('<!--'));

/** The lines in front of the first line of code: comments, blank lines, a shebang. */
function* openingComment(text: string, isProse: boolean): Generator<string> {
  let start = text.charCodeAt(0) === 0xfeff ? 1 : 0;
  let blockEnd: RegExp | undefined;
  for (let n = 0; n < maxHeaderLines && start < text.length; n++) {
    const newline = text.indexOf('\n', start);
    const end = newline < 0 ? text.length : newline;
    const line = text.slice(start, Math.min(end, start + 500));
    start = end + 1;
    if (blockEnd) {
      if (blockEnd.test(line)) blockEnd = undefined;
    } else {
      const block = (isProse ? htmlComment : blockStarts).find(([opens]) => opens.test(line));
      if (block) {
        if (!block[1].test(line.replace(block[0], ''))) blockEnd = block[1];
      } else if (line.trim() !== '' && (isProse || !lineComment.test(line))) return;
    }
    yield line;
  }
}

const minifiable = new Set('js mjs cjs jsx css html htm svg'.split(' '));
const longLine = 500;

/** Nearly everything in very long lines with hardly any white space; tables of numbers and prose have more of it. */
function minifiedVerdict(path: string, text: string): Verdict | undefined {
  if (text.length < 2000 || !minifiable.has(extensionOf(path))) return undefined;
  let long = 0;
  let blanks = 0;
  for (let start = 0; start < text.length; ) {
    const newline = text.indexOf('\n', start);
    const end = newline < 0 ? text.length : newline;
    if (end - start >= longLine) {
      long += end - start;
      for (let i = start; i < end; i++) if (text.charCodeAt(i) === 32 || text.charCodeAt(i) === 9) blanks++;
    }
    start = end + 1;
  }
  if (long < 0.8 * text.length || blanks > 0.12 * long) return undefined;
  return { rule: 'minified', detail: 'its text stands in very long lines without white space' };
}

// ---- names ------------------------------------------------------------------------------------------------------------------

export function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** Lower case, without the dot; '' where there is none (`.gitignore`, `Makefile`). */
export function extensionOf(path: string): string {
  const name = baseName(path);
  const dot = name.lastIndexOf('.');
  return dot <= 0 ? '' : name.slice(dot + 1).toLowerCase();
}

function startsWith(bytes: Uint8Array, ascii: string): boolean {
  for (let i = 0; i < ascii.length; i++) if (bytes[i] !== ascii.charCodeAt(i)) return false;
  return true;
}

function megabytes(bytes: number): string {
  return bytes >= 100_000 ? `${(bytes / (1 << 20)).toFixed(1)} MB` : `${Math.ceil(bytes / 1024)} KB`;
}
