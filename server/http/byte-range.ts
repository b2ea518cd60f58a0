// Which bytes of a file a request is about, and whether it needs them at all (RFC 9110 §13 and §14).

import type { IncomingHttpHeaders } from 'node:http'

/** `last` is inclusive, as on the wire. */
export type Selection =
  | { readonly kind: 'whole' }
  | { readonly kind: 'part'; readonly first: number; readonly last: number }
  /** Everything from there on, as an answer of its own: `?from=`. May be nothing. */
  | { readonly kind: 'rest'; readonly first: number }
  | { readonly kind: 'unsatisfiable' }
  | { readonly kind: 'not-modified' }

/** A header that is malformed, or asks for several ranges, is ignored: §14.2 lets a server send everything then. */
const ONE_RANGE = /^bytes=(?<first>\d{0,15})-(?<last>\d{0,15})$/i

export interface Wanted {
  readonly method: string
  readonly etag: string
  readonly sizeBytes: number
  /** For clients that cannot take a 206; a Range beside it means nothing. */
  readonly from?: number
}

export function selectBytes(headers: IncomingHttpHeaders, wanted: Wanted): Selection {
  const { method, etag, sizeBytes, from } = wanted
  if (headers['if-none-match'] !== undefined && listsTag(headers['if-none-match'], etag)) {
    return { kind: 'not-modified' }
  }
  // At the very end there is nothing left to send, which is no mistake of a client that has it all.
  if (from !== undefined) return from > sizeBytes ? { kind: 'unsatisfiable' } : { kind: 'rest', first: from }
  const range = headers.range
  if (method !== 'GET' || range === undefined) return { kind: 'whole' } // §14.2: Range means nothing but for GET
  // §13.1.5: strong comparison; a date can never match, as no Last-Modified is ever sent
  if (headers['if-range'] !== undefined && headers['if-range'] !== etag) return { kind: 'whole' }
  return parseRange(range, sizeBytes)
}

function parseRange(range: string, sizeBytes: number): Selection {
  const { first = '', last = '' } = ONE_RANGE.exec(range.replaceAll(' ', ''))?.groups ?? {}
  if (first === '' && last === '') return { kind: 'whole' }
  if (first === '') {
    const length = Math.min(Number(last), sizeBytes) // a suffix: the last so many bytes
    if (length === 0) return { kind: 'unsatisfiable' }
    return { kind: 'part', first: sizeBytes - length, last: sizeBytes - 1 }
  }
  if (last !== '' && Number(last) < Number(first)) return { kind: 'whole' } // §14.1.1: invalid
  if (Number(first) >= sizeBytes) return { kind: 'unsatisfiable' }
  const end = last === '' ? sizeBytes - 1 : Math.min(Number(last), sizeBytes - 1)
  return { kind: 'part', first: Number(first), last: end }
}

/** §13.1.2: the weak comparison. */
function listsTag(header: string, etag: string): boolean {
  return header.split(',').some((tag) => ['*', etag].includes(tag.trim().replace(/^W\//, '')))
}
