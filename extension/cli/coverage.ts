// `sala coverage [PATH]`: the state of every file of the workspace, or why one is in or out.

import { EngineError } from '../engine/errors';
import * as messages from '../engine/messages';
import { withEngine, type Frame } from './command';
import { withinRoots } from './options';
import { abbreviate, count } from './output';

export async function coverage(frame: Frame, file: string | undefined): Promise<void> {
  await withEngine(frame, { watch: 'none', ingest: false }, async (client, total, roots) => {
    const within = file === undefined ? undefined : withinRoots(file, roots);
    if (file !== undefined && within === undefined) {
      throw new EngineError('invalid_argument', `expected a path within ${roots.map((root) => root.path).join(' or ')}, found ${file}`);
    }
    const files = (await client.request(messages.coverage, within ? { path: within.path } : {}, frame.signal)).filter(
      ({ root }) => within === undefined || root === within.root.path || roots.length === 1,
    );
    if (within && files.length === 0) {
      throw new EngineError('invalid_argument', `expected a file of the workspace, found none: ${within.path}`);
    }
    frame.output.result({ files, total }, () => table(files, roots.length > 1) + (within ? '' : summary(files)));
  });
}

function table(files: readonly messages.FileCoverage[], withRoots: boolean): string {
  return files
    .map(({ root, path, state, rule, detail, tokens }) => {
      const why = [rule, detail].filter((text) => text !== undefined).join(': ');
      const name = withRoots ? `${root}/${path}` : path;
      return `${state.padEnd(11)} ${abbreviate(tokens).padStart(6)}  ${name}${why === '' ? '' : `  (${why})`}\n`;
    })
    .join('');
}

function summary(files: readonly messages.FileCoverage[]): string {
  const parts = messages.fileStates.flatMap((state) => {
    const those = files.filter((file) => file.state === state);
    const tokens = those.reduce((sum, file) => sum + file.tokens, 0);
    return those.length === 0 ? [] : [`${state}: ${count(those.length, 'file')}${tokens > 0 ? `, ${count(tokens, 'token')}` : ''}`];
  });
  return `\n${parts.join('; ') || 'no files'}\n`;
}
