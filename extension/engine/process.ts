// Entry of the engine process (`dist/engine.cjs`): a detached process that serves every window and the command line of one user,
// for one model and store. Its life is lifecycle.ts, its work session.ts.

import { loadAddon } from './addon';
import { runEngine } from './lifecycle';
import { loadCore } from './core';

void runEngine(process.argv.slice(2), async (options) => {
  const core = await loadCore(options);
  // Whoever waits for an answer would rather wait for it than for the editor.
  loadAddon().setBackground(true);
  return core;
});
