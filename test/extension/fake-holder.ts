// A client in a process of its own, to be killed: connects, says so, and holds on. Arguments: the dist folder, then the engine's.

import { EngineClient } from '../../extension/engine/client';

const [dist, ...args] = process.argv.slice(2);
const client = new EngineClient({ dist: dist!, args, log: () => {} });
void client.start().then(() => process.stdout.write('connected\n'));
