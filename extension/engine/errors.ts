// The closed list of error codes (kernels/error.h has the same; a test compares them) and the one error type that crosses
// every boundary of the program: addon → engine process → client → user interface.

export const errorCodes = [
  'model_not_found',
  'model_invalid',
  'unsupported',
  'context_full',
  'out_of_memory',
  'device_lost',
  'store_invalid',
  'store_newer',
  'store_full',
  'store_unwritable',
  'engine_unreachable',
  'not_a_workspace',
  'untrusted',
  'invalid_argument',
  'cancelled',
  'internal',
] as const;

export type EngineErrorCode = (typeof errorCodes)[number];

/** A message says what was expected, what was found, and where. */
export class EngineError extends Error {
  override readonly name = 'EngineError';
  constructor(
    readonly code: EngineErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

export function isErrorCode(code: unknown): code is EngineErrorCode {
  return typeof code === 'string' && (errorCodes as readonly string[]).includes(code);
}

/** Whatever was thrown, as an EngineError: ours keep their code, anything else is `internal`. */
export function toEngineError(thrown: unknown): EngineError {
  if (thrown instanceof EngineError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  // What a raised AbortSignal throws; its own code is a number.
  if (thrown instanceof Error && thrown.name === 'AbortError') return new EngineError('cancelled', message, { cause: thrown });
  const code = (thrown as { code?: unknown } | null)?.code;
  return new EngineError(isErrorCode(code) ? code : 'internal', message, { cause: thrown });
}
