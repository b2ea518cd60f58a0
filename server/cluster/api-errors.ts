// What went wrong at the API, as the errors of this server.

import { describeError, type ErrorCode, KitError } from '#lib/errors.ts'

/** `404` and the like; undefined when nothing answered. */
export function statusOf(thrown: unknown): number | undefined {
  if (!(thrown instanceof Error)) return undefined
  // client-node: `code` of its ApiException, `statusCode` of what its Watch throws.
  const { code, statusCode } = thrown as { code?: unknown; statusCode?: unknown }
  // A DOMException has a `code` too: 23, for one whose time is over.
  return [code, statusCode].filter((status) => typeof status === 'number').find((status) => status >= 100)
}

/** `doing` completes "Cannot …". KitErrors stay as they are. */
export function asKitError(doing: string, thrown: unknown): KitError {
  if (thrown instanceof KitError) return thrown
  const status = statusOf(thrown)
  const { code, fix } = status === undefined ? NO_ANSWER : kindOf(status)
  const message = `Cannot ${doing}: ${status === undefined ? whyUnreachable(thrown) : whatItSaid(status, thrown)}`
  return new KitError(code, message, { cause: thrown, ...(fix === undefined ? {} : { fix }) })
}

interface ErrorKind {
  readonly code: ErrorCode
  readonly fix?: string
}

const NO_ANSWER: ErrorKind = { code: 'unavailable' }

function kindOf(status: number): ErrorKind {
  switch (status) {
    // Its CA is another one now, or the kubeconfig's token was deleted: nobody can be reached this way.
    case 401:
      return { code: 'unavailable', fix: 'adopt the cluster again with a new kubeconfig' }
    case 403:
      return { code: 'forbidden', fix: 'give the account what `kateskit cluster role` prints' }
    case 404:
      return { code: 'not-found' }
    case 409:
      return { code: 'conflict' }
    case 400:
    case 422:
      return { code: 'invalid-input' }
    default:
      return NO_ANSWER
  }
}

/** The API's own words for people: `message` of its Status. */
function whatItSaid(status: number, thrown: unknown): string {
  const { body } = thrown as { body?: unknown }
  const parsed = typeof body === 'string' ? parseJson(body) : body
  const message = (parsed as { message?: unknown } | undefined)?.message
  return typeof message === 'string'
    ? `the cluster says: ${message.slice(0, 300)}`
    : `the cluster answered ${status}`
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** `fetch failed` says nothing; its causes do. */
function whyUnreachable(thrown: unknown): string {
  let deepest = thrown
  while (deepest instanceof Error && deepest.cause instanceof Error) deepest = deepest.cause
  if (deepest instanceof AggregateError && deepest.errors.length > 0) deepest = deepest.errors[0]
  const text = describeError(deepest)
  return text === '' ? 'the cluster does not answer' : text
}
