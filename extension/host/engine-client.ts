// The extension host's door to the engine process: the command line's client, unchanged, under the name by which the parts of the
// host know it. Nothing of the engine itself is reached from here; every message is in engine/messages.ts.

export { EngineClient, type EngineClientOptions, type EngineState } from '../engine/client';
