// What is said first when a question names what is nowhere in the workspace. Pure: search.ts finds out, here it becomes words.

export interface MissingName {
  readonly name: string;
  /** Names of the workspace that may be meant (`WorkspaceSearch.similarWords`), nearest first. */
  readonly similar?: readonly string[];
}

/**
 * '' where nothing is missing. Names that could not be looked for everywhere are only said not to have been found; `goesOn`: for want of
 * time, and it is said beside the answer of how many files.
 */
export function missingSentence(
  names: readonly MissingName[],
  { paths = [], complete = true, goesOn = false }: { readonly paths?: readonly string[]; readonly complete?: boolean; readonly goesOn?: boolean } = {},
): string {
  const sentences: string[] = [];
  if (names.length > 0) {
    const list = enumerate(names.map(({ name }) => name));
    const verb = names.length === 1 ? ['does not occur', 'was not found'] : ['do not occur', 'were not found'];
    const where = goesOn ? 'so far' : 'in the files that could be searched';
    sentences.push(complete ? `${list} ${verb[0]} in this workspace.` : `${list} ${verb[1]} ${where}.`);
  }
  if (paths.length > 0) sentences.push(`${enumerate(paths)} ${paths.length === 1 ? 'is' : 'are'} not in this workspace.`);
  for (const { name, similar = [] } of names) {
    if (similar.length === 0) continue;
    const choices = enumerate(similar.slice(0, 3), 'or');
    sentences.push(names.length === 1 ? `Did you mean ${choices}?` : `For ${quote(name)}, did you mean ${choices}?`);
  }
  return sentences.join(' ');
}

function enumerate(names: readonly string[], conjunction = 'and'): string {
  const quoted = names.map(quote);
  if (quoted.length <= 1) return quoted.join('');
  return `${quoted.slice(0, -1).join(', ')} ${conjunction} ${quoted[quoted.length - 1]}`;
}

/** As inline code, with a fence longer than any run of backticks inside. */
function quote(name: string): string {
  const longest = Math.max(0, ...[...name.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = '`'.repeat(longest + 1);
  return longest > 0 ? `${fence} ${name} ${fence}` : `${fence}${name}${fence}`;
}
