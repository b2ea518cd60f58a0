// Which part of a long list is asked for: `?after=<id>&limit=<count>`.

import { KitError } from '#lib/errors.ts'

const PAGE_MAX = 1_000

export interface Page {
  readonly afterId?: number
  readonly limit: number
}

/** Throws KitError `invalid-input`. */
export function parsePage(query: URLSearchParams): Page {
  const afterId = query.get('after')
  return {
    limit: parseWhole('limit', query.get('limit') ?? '100', PAGE_MAX),
    ...(afterId !== null && { afterId: parseWhole('after', afterId, Number.MAX_SAFE_INTEGER) }),
  }
}

/** Throws KitError `invalid-input`. */
export function parseWhole(name: string, text: string, max: number): number {
  const value = Number(text)
  if (/^\d{1,16}$/.test(text) && value <= max) return value
  throw new KitError('invalid-input', `Cannot read ${name}: a whole number up to ${max} was expected`)
}
