// "Why is this file not read?" and "Read or leave out", for what was clicked in the explorer, a tab or the coverage view, or for the
// file at hand.

import path from 'node:path';
import * as vscode from 'vscode';
import { ownGlobs, setOwnGlobs } from '../config';
import * as messages from '../engine/messages';
import { files as filesText } from '../texts';
import { choose, type Choice } from './coverage-choice';
import { whySentence } from './coverage-words';
import type { CoverageNode } from './coverage-tree';
import { diskFolders, fileOf, fileUriOf, locate, locationsOf, pathOf, pathWithin, rootOf, roots, type Location } from './locate';
import type { Session } from './session';

/** Files and folders that a command was called for: what is selected, where several are. */
export function urisOf([clicked, selected]: readonly unknown[]): vscode.Uri[] {
  const list = Array.isArray(selected) && selected.length > 0 ? selected : [clicked];
  const uris = list.flatMap((item) => (item instanceof vscode.Uri ? [item] : isNode(item) ? uriOfNode(item) : []));
  if (uris.length > 0) return uris;
  const editor = vscode.window.activeTextEditor;
  return editor === undefined ? [] : [fileUriOf(editor.document)];
}

function isNode(item: unknown): item is CoverageNode {
  return typeof item === 'object' && item !== null && 'kind' in item;
}

function uriOfNode(node: CoverageNode): vscode.Uri[] {
  const location = node.kind === 'file' ? node.file : node.kind === 'folder' ? locationOf(node.place) : null;
  const uri = location === null ? null : fileOf(location);
  return uri === null ? [] : [uri];
}

/** A window with a single folder has no row for it. */
function locationOf({ root = roots()[0]?.path, folder }: messages.CoveragePlace): Location | null {
  return root === undefined || folder === undefined ? null : { root, path: folder };
}

// ---- why --------------------------------------------------------------------------------------------------------------

const readOrLeaveOut = 'Read or leave out';
const openRule = 'Open the rule';
const openSettings = 'Open settings';

export async function explainCoverage(session: Session, uri: vscode.Uri | undefined): Promise<void> {
  if (uri === undefined) return inform('Open a file first, or choose one in the explorer.');
  const folder = diskFolders().find((candidate) => candidate.uri.toString() === uri.toString());
  if (folder !== undefined) return explainFolder(session, uri, { root: rootOf(folder), path: '' }, folder.name);
  const location = locate(uri);
  if (location === null) return inform(`${path.basename(uri.path) || uri.toString()} is not read: it lies in no folder on disk that is open in this window.`);
  const [coverage = null] = await session.request(messages.coverageOf, { paths: [pathOf(location)] });
  if (coverage === null) return explainUnknown(session, uri, location);
  const { state, rule, detail } = coverage;
  const place = rule === 'ignored' ? rulePlace(coverage) : null;
  const actions = [
    ...(place === null ? [] : [openRule]),
    ...(state === 'over_budget' || rule === 'user' ? [openSettings] : []),
    ...(choose(ownGlobs(uri), location.path, coverage).done === 'refused' ? [] : [readOrLeaveOut]),
  ];
  const sentence = whySentence(pathWithin(coverage.root, location), coverage);
  const picked = await vscode.window.showInformationMessage(sentence, ...actions);
  if (picked === openRule) await vscode.window.showTextDocument(place!.uri, { selection: new vscode.Range(place!.line, 0, place!.line, 0) });
  if (picked === openSettings) await vscode.commands.executeCommand('workbench.action.openSettings', detail?.startsWith('exclude: ') ? 'exclude' : 'sala.limits');
  if (picked === readOrLeaveOut) await toggleReading(session, [uri]);
}

/** A folder that is read has no state of its own; a file may be too new to have one. */
async function explainUnknown(session: Session, uri: vscode.Uri, location: Location): Promise<void> {
  const type = await Promise.resolve(vscode.workspace.fs.stat(uri)).then((stat) => stat.type, () => vscode.FileType.Unknown);
  if ((type & vscode.FileType.Directory) === 0) return inform(`${location.path} has not been seen yet, or is not there any more.`);
  return explainFolder(session, uri, location, location.path);
}

async function explainFolder(session: Session, uri: vscode.Uri, location: Location, name: string): Promise<void> {
  // A root within another one may be none to the engine; each file counts in one of them.
  const levels = await Promise.all(locationsOf(location).map((place) => session.request(messages.coverageLevel, { root: place.root, folder: place.path })));
  const nodes = levels.flatMap((level) => level.nodes);
  const of = (...states: messages.FileState[]): number =>
    nodes.reduce((sum, node) => (node.kind === 'group' && node.place.state !== undefined && states.includes(node.place.state) ? sum + node.files : sum), 0);
  const parts = [
    [of('in', 'stale'), 'in memory'],
    [of('waiting', 'reading'), 'waiting'],
    [of('over_budget'), 'over the budget'],
    [of('excluded'), 'excluded'],
    [of('unreadable'), 'unreadable'],
  ] as const;
  const named = parts.filter(([n]) => n > 0).map(([n, what]) => `${filesText(n)} ${what}`);
  const actions = ['Show coverage', ...(location.path === '' ? [] : [readOrLeaveOut])];
  const picked = await vscode.window.showInformationMessage(`${name}: ${named.join(', ') || 'no files'}.`, ...actions);
  if (picked === 'Show coverage') await vscode.commands.executeCommand('sala.showCoverage');
  if (picked === readOrLeaveOut) await toggleReading(session, [uri]);
}

/** `.gitignore:3: dist` → that line of that file. */
function rulePlace({ root, detail }: messages.FileCoverage): { readonly uri: vscode.Uri; readonly line: number } | null {
  const match = /^(.+?):(\d+): /.exec(detail ?? '');
  return match === null ? null : { uri: vscode.Uri.file(path.join(root, match[1]!)), line: Number(match[2]) - 1 };
}

// ---- read or leave out --------------------------------------------------------------------------------------------------

/** Changes the globs of the folders' own settings; the same for the same files takes it back. */
export async function toggleReading(session: Session, uris: readonly vscode.Uri[]): Promise<void> {
  const places = uris.flatMap((uri) => {
    const location = locate(uri);
    return location === null ? [] : [{ uri, ...location }];
  });
  if (places.length === 0) return inform('Choose files or folders within the folders of this window; a whole folder of the window is removed from it instead.');
  const known = await session.request(messages.coverageOf, { paths: places.map(pathOf) });
  const changed: { readonly uri: vscode.Uri; readonly path: string; readonly done: Choice['done'] }[] = [];
  for (const root of new Set(places.map((place) => place.root))) {
    const folder = places.find((place) => place.root === root)!.uri;
    let globs = ownGlobs(folder);
    for (const [i, { uri, path: file }] of places.entries()) {
      if (places[i]!.root !== root) continue;
      const choice = choose(globs, file, known[i] ?? null);
      if (choice.done === 'refused') void vscode.window.showWarningMessage(`${whySentence(pathWithin(known[i]!.root, places[i]!), known[i]!)} That rule cannot be lifted here.`);
      else {
        globs = choice.globs;
        changed.push({ uri, path: file, done: choice.done });
      }
    }
    await setOwnGlobs(folder, globs);
  }
  if (changed.length === 0) return;
  const picked = await vscode.window.showInformationMessage(toggledSentence(changed), 'Undo');
  if (picked === 'Undo') await toggleReading(session, changed.map(({ uri }) => uri));
}

const doneTexts = {
  left_out: 'left out of what is read',
  brought_in: 'read from now on',
  taken_back: 'treated as before',
  refused: '',
} as const satisfies Record<Choice['done'], string>;

function toggledSentence(changed: readonly { readonly path: string; readonly done: Choice['done'] }[]): string {
  const [first] = changed;
  const same = changed.every(({ done }) => done === first!.done);
  const subject = changed.length === 1 ? `${first!.path} is` : `${changed.length} files and folders are`;
  return `${subject} ${same ? doneTexts[first!.done] : 'set anew'} (settings of the folder).`;
}

function inform(sentence: string): void {
  void vscode.window.showInformationMessage(sentence);
}
