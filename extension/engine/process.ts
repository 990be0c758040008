// Entry of the engine process (`dist/engine.cjs`): a detached process that serves every window and the command line of one user,
// for one model and store. Its life is lifecycle.ts, its work core.ts.

import { loadCore } from './core';
import { runEngine } from './lifecycle';

void runEngine(process.argv.slice(2), loadCore);
