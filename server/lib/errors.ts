// The one table of error codes: what a refusal is called, and the HTTP status it becomes at the API.

export const ERROR_STATUS = {
  'invalid-input': 400,
  unauthorized: 401,
  forbidden: 403,
  'identity-needed': 403,
  'identity-refused': 403,
  'wrong-code': 403,
  'wrong-machine': 403,
  'not-found': 404,
  'method-not-allowed': 405,
  conflict: 409,
  'stale-boot': 409,
  'grant-used': 409,
  'too-large': 413,
  'too-many-requests': 429,
  internal: 500,
  unavailable: 503,
  'no-space': 507,
} as const

export type ErrorCode = keyof typeof ERROR_STATUS

/**
 * An error whose message is safe to show to anybody: "Cannot <do> <thing>: <current value>".
 * Secrets and causes go to `cause`, which is logged and never sent.
 */
export class KitError extends Error {
  readonly code: ErrorCode
  /** The command or setting that mends it, where there is one. */
  readonly fix: string | undefined

  constructor(code: ErrorCode, message: string, options: { fix?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'KitError'
    this.code = code
    this.fix = options.fix
  }
}

/** What may be shown of anything thrown. */
export function describeError(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown)
}

/** The `code` of a Node system error (`ENOENT`, `EADDRINUSE`), or undefined. */
export function systemErrorCode(thrown: unknown): string | undefined {
  if (!(thrown instanceof Error) || !('code' in thrown)) return undefined
  return typeof thrown.code === 'string' ? thrown.code : undefined
}
