// What a setting of the server is, and the kinds that several of them share.

import { boolean, ipv4, matching, optional, type Shape } from './config-shapes.ts'

/** What a default may depend on. */
export interface HostFacts {
  readonly hostname: string
  /** `$XDG_CACHE_HOME`, else `~/.cache`. */
  readonly cacheDirectory: string
}

export interface ConfigRule<Value> {
  readonly meaning: string
  /** What the value must be: completes "Cannot use <key> "<value>": it must be …". */
  readonly expected: string
  readonly shape: Shape<Value>
  /** As it would stand in the file; empty for none. */
  readonly fallback: string | ((host: HostFacts) => string)
  /** The default in words, where `fallback` does not say it. */
  readonly fallbackText?: string
  /** A path: relative ones are taken from the working directory, and `~/` is the home directory. */
  readonly isPath?: true
  /** A change is applied while the server runs; all others need a restart. */
  readonly isLive?: true
}

export const rule = <Value>(fields: ConfigRule<Value>) => fields

export const SWITCH = { expected: 'true or false', shape: boolean }
export const ADDRESS = { expected: 'an IPv4 address, or empty', shape: optional(ipv4), fallback: '' }
export const PATH = { expected: 'a path', shape: matching(/^[^\0]+$/), isPath: true } as const
export const OPTIONAL_PATH = {
  ...PATH,
  expected: 'a path, or empty for none',
  shape: optional(PATH.shape),
  fallback: '',
}

/** RFC 1123 §2.1: labels of letters, digits and dashes. */
export const DOMAIN =
  /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/i
