// Where completions are offered at all, and where not: a reason in words for the status bar, or null. Message boxes, consoles,
// output, search editors and the read-only side of a comparison have schemes of their own and are off unless switched on by name.

import path from 'node:path';

export interface PolicyDocument {
  readonly scheme: string;
  readonly languageId: string;
  /** Path of the address, with '/'. */
  readonly path: string;
  readonly length: number;
  readonly readOnly: boolean;
}

/** Files, what will become files, and the cells of notebooks. */
const offeredSchemes = ['file', 'untitled', 'vscode-notebook-cell'];
/** Off unless named: a model trained on code has nothing to say there. */
const offByDefault = ['git-commit', 'git-rebase', 'scminput', 'search-result', 'log', 'Log', 'code-text-binary'];
const messageFiles = ['COMMIT_EDITMSG', 'MERGE_MSG', 'TAG_EDITMSG', 'EDIT_DESCRIPTION', 'git-rebase-todo'];
/** Sent with every request; a document larger than this is data. */
const maxCharacters = 2_000_000;

export function offReason(document: PolicyDocument, settings: { enabled: boolean; languages: Readonly<Record<string, boolean>> }): string | null {
  const { scheme, languageId } = document;
  if (!settings.enabled) return 'Completions are off.';
  const named = settings.languages[languageId];
  if (named === false) return `Completions are off for ${languageId}.`;
  if (named === undefined && settings.languages['*'] === false) return 'Completions are off for languages that are not named in the settings.';
  if (named !== true) {
    if (!offeredSchemes.includes(scheme) || offByDefault.includes(languageId)) return 'Completions are off in this kind of editor.';
    if (messageFiles.includes(path.posix.basename(document.path))) return 'Completions are off in commit messages.';
  }
  if (document.readOnly) return 'Completions are off in read-only files.';
  if (document.length > maxCharacters) return 'Completions are off in files of this size.';
  return null;
}
