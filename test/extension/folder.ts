// Real folders for tests that are about files.

import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';

/** Removed after the test. */
export function folder(t: TestContext): string {
  const path = realpathSync(mkdtempSync(join(tmpdir(), 'sala-test-')));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Files of `root` by their paths within it. */
export function write(root: string, files: Readonly<Record<string, string | Uint8Array>>): void {
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content);
  }
}
