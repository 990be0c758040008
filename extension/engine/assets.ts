// Where the files lie that belong to the program: the bundles' own folder (`dist/`), which holds the addon and the grammars.
// Tests, whose bundles lie elsewhere, name it by SALA_DIST.

import path from 'node:path';

/** Absolute path of a file in `dist/`. */
export function assetPath(...names: string[]): string {
  return path.join(process.env['SALA_DIST'] ?? __dirname, ...names);
}
