// Fetching one file over HTTP, on from where an earlier attempt stopped.

import { type FileHandle, open, readFile, rm } from 'node:fs/promises'

import { writeFileAtomically } from './atomic-file.ts'
import type { Clock } from './clock.ts'
import { describeError, KitError, systemErrorCode } from './errors.ts'

export interface DownloadOptions {
  readonly signal: AbortSignal
  readonly clock: Clock
  /** More is an error. */
  readonly maxBytes?: number
  /** Takes nothing that an earlier attempt has left. */
  readonly isAnew?: boolean
  /** Told how much is there, with what was there already. */
  readonly onBytes?: (bytes: number, ofBytes?: number) => void
}

const ATTEMPTS = 5
const RETRY_MS = 500
/** A connection on which nothing comes for so long is given up. */
const STALLED_MS = 30_000

/**
 * Resolves when `file` is what the server has. When it throws KitError `unavailable`, what has come so far lies there, and
 * the next call goes on with it if the server's file is still the same. Throws KitError.
 */
export async function download(url: URL, file: string, options: DownloadOptions): Promise<void> {
  if (options.isAnew === true) await forget(file)
  for (let failures = 0; ; ) {
    const before = await sizeOf(file)
    try {
      await attempt(url, file, options)
      return
    } catch (error) {
      options.signal.throwIfAborted()
      const isOurs = error instanceof KitError || WRITE_ERRORS.includes(systemErrorCode(error) ?? '')
      if (isOurs) throw error
      failures = (await sizeOf(file)) > before ? 1 : failures + 1
      if (failures >= ATTEMPTS) throw cannotFetch(url, reasonOf(error), error)
      await pause(RETRY_MS * 2 ** failures, options)
    }
  }
}

/** Ends early when the signal does, which the next attempt hears. */
function pause(delayMs: number, { clock, signal }: DownloadOptions): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      cancel()
      signal.removeEventListener('abort', end)
      resolve()
    }
    const cancel = clock.after(delayMs, end)
    signal.addEventListener('abort', end)
  })
}

const WRITE_ERRORS = ['ENOSPC', 'EDQUOT', 'EIO', 'EROFS', 'EACCES']

/** One request. Throws anything for what may pass, KitError for what will not. */
async function attempt(url: URL, file: string, options: DownloadOptions): Promise<void> {
  const stalled = new AbortController()
  const stall = () => stalled.abort(new Error(`nothing came for ${STALLED_MS / 1000} s`))
  let timer = setTimeout(stall, STALLED_MS)
  const validator = await validatorOf(file)
  const have = validator === undefined ? 0 : await sizeOf(file)
  try {
    const response = await fetch(plainUrl(url), {
      headers: requestHeaders(url, have, validator),
      signal: AbortSignal.any([options.signal, stalled.signal]),
    })
    const start = await startOf(response, { url, file, have })
    if (start === undefined) return
    const handle = await open(file, start === 0 ? 'w' : 'r+')
    try {
      const ofBytes = lengthOf(response, start)
      for await (const bytes of receive(response, handle, { start, url, ...options })) {
        clearTimeout(timer)
        timer = setTimeout(stall, STALLED_MS)
        options.onBytes?.(bytes, ofBytes)
      }
    } finally {
      await handle.close()
    }
  } finally {
    clearTimeout(timer)
  }
}

function requestHeaders(url: URL, have: number, validator: string | undefined): Record<string, string> {
  // A compressed answer would have other bytes, and other ranges, than the file.
  const headers: Record<string, string> = { 'accept-encoding': 'identity', 'user-agent': 'kateskit' }
  if (have > 0 && validator !== undefined) {
    headers['range'] = `bytes=${have}-`
    headers['if-range'] = validator
  }
  if (url.username !== '') {
    const words = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`
    headers['authorization'] = `Basic ${Buffer.from(words).toString('base64')}`
  }
  return headers
}

/** Where the answer's bytes belong; undefined when the file is complete already. Throws when there is no answer to take. */
async function startOf(
  response: Response,
  { url, file, have }: { url: URL; file: string; have: number },
): Promise<number | undefined> {
  const range = response.headers.get('content-range') ?? ''
  switch (response.status) {
    case 200: {
      await forget(file)
      const validator = strongEtag(response) ?? response.headers.get('last-modified')
      if (validator !== null) await writeFileAtomically(sidecar(file), validator)
      return 0
    }
    case 206:
      if (range.startsWith(`bytes ${have}-`)) return have
      throw cannotFetch(url, `it sends another part than it was asked for (${range})`)
    case 416: {
      await response.body?.cancel()
      if (range === `bytes */${have}`) return undefined
      await forget(file)
      throw new Error('the file has changed on the server')
    }
    default: {
      await response.body?.cancel()
      const status = `${response.status} ${response.statusText}`.trim()
      if (response.status >= 500 || response.status === 429) throw new Error(`the server answers ${status}`)
      const code = [404, 410].includes(response.status) ? 'not-found' : 'invalid-input'
      throw new KitError(code, `Cannot fetch ${shownUrl(url)}: the server answers ${status}`)
    }
  }
}

/** Weak ones may stand for other bytes (RFC 9110 §13.1.5). */
function strongEtag(response: Response): string | null {
  const etag = response.headers.get('etag')
  return etag?.startsWith('"') === true ? etag : null
}

function lengthOf(response: Response, start: number): number | undefined {
  const length = response.headers.get('content-length')
  return length === null ? undefined : start + Number(length)
}

interface Receiving {
  readonly start: number
  readonly url: URL
  readonly maxBytes?: number
}

async function* receive(
  response: Response,
  handle: FileHandle,
  receiving: Receiving,
): AsyncGenerator<number> {
  const { start, url, maxBytes = Number.POSITIVE_INFINITY } = receiving
  let at = start
  for await (const chunk of response.body ?? []) {
    if (at + chunk.length > maxBytes) {
      throw new KitError(
        'invalid-input',
        `Cannot fetch ${shownUrl(url)}: it is larger than ${maxBytes} bytes`,
      )
    }
    await handle.write(chunk, 0, chunk.length, at)
    at += chunk.length
    yield at
  }
}

function sidecar(file: string): string {
  return `${file}.validator`
}

/** What the bytes that are there were; undefined when nothing can be gone on with. */
async function validatorOf(file: string): Promise<string | undefined> {
  return readFile(sidecar(file), 'utf8').catch(() => undefined)
}

async function forget(file: string): Promise<void> {
  await rm(sidecar(file), { force: true })
  await rm(file, { force: true })
}

async function sizeOf(file: string): Promise<number> {
  const handle = await open(file).catch(() => undefined)
  try {
    return (await handle?.stat())?.size ?? 0
  } finally {
    await handle?.close()
  }
}

/** fetch() takes no URL with a password in it. */
function plainUrl(url: URL): URL {
  const plain = new URL(url)
  plain.username = ''
  plain.password = ''
  return plain
}

/** Neither a password nor a signed link's secret. */
function shownUrl(url: URL): string {
  const plain = plainUrl(url)
  plain.search = ''
  return plain.href
}

/** fetch() says "fetch failed" and keeps the reason to itself. */
function reasonOf(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined
  return describeError(cause instanceof Error && cause.message !== '' ? cause : error)
}

function cannotFetch(url: URL, why: string, cause?: unknown): KitError {
  return new KitError('unavailable', `Cannot fetch ${shownUrl(url)}: ${why}`, {
    fix: 'start the import again: it goes on where it has stopped',
    cause,
  })
}
