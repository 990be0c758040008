// The repository that the quality questions are about: the fixture workspace beside parts of packages that the lock file pins, so
// that it is the same everywhere and nothing of others is copied into ours. About 30 K tokens in four languages.

import { cpSync, mkdirSync } from 'node:fs';
import path from 'node:path';

const packages = [
  'cli-progress/lib',
  'isbinaryfile/lib/index.js',
  ...['constants', 'picomatch', 'scan', 'utils'].map((name) => `picomatch/lib/${name}.js`),
  ...['argument', 'error', 'help', 'option', 'suggestSimilar'].map((name) => `commander/lib/${name}.js`),
];

/** Fills `folder`; `root` is the clone's. */
export function makeWorkspace(root: string, folder: string): void {
  cpSync(path.join(root, 'test/fixtures/workspace'), folder, { recursive: true });
  for (const part of packages) {
    mkdirSync(path.dirname(path.join(folder, part)), { recursive: true });
    cpSync(path.join(root, 'node_modules', part), path.join(folder, part), { recursive: true });
  }
}
