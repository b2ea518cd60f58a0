// One request and its answer, as every door of the HTTP service gets them, and the few ways to answer.

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

import { describeError, ERROR_STATUS, type ErrorCode, KitError } from '#lib/errors.ts'
import { findIpv4, type Ipv4 } from '#lib/ipv4.ts'
import type { Log } from '#lib/log.ts'

export type Transport = 'plain' | 'tls' | 'socket'

export interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly url: URL
  /** How it came: `socket` is a unix socket. */
  readonly transport: Transport
  /** Came over a socket whose users are admins by the rights of its file. */
  readonly isTrusted: boolean
  /**
   * sha256 (hex) of the public key (SubjectPublicKeyInfo, DER) of the client's certificate, when our CA signed it and it is
   * within its time. Whose key it is, and whether we still know it, is for the identity desk to say.
   */
  readonly clientKey?: string
  /** Ends when the service stops. The client's own leaving shows as the response's `close`. */
  readonly stopping: AbortSignal
}

export function sendJson(response: ServerResponse, status: number, body: unknown): void {
  sendBody(response, { status, type: 'application/json', text: JSON.stringify(body) })
}

export function sendText(response: ServerResponse, text: string, type = 'text/plain; charset=utf-8'): void {
  sendBody(response, { status: 200, type, text })
}

/** Nothing to give yet; the text says what is waited for. */
export function sendAccepted(response: ServerResponse, text: string): void {
  sendBody(response, { status: 202, type: 'text/plain; charset=utf-8', text })
}

/** What must not lie in anybody's cache. */
export function sendBytes(response: ServerResponse, bytes: Uint8Array, type: string): void {
  sendBody(response, { status: 200, type, text: bytes })
}

export function sendNothing(response: ServerResponse): void {
  response.writeHead(204, { 'Cache-Control': 'no-store' }).end()
}

/** The connection may be silent on purpose while the work goes on; the stall guard counts from the answer on. */
export async function inSilence<Result>(socket: Socket | null, work: () => Promise<Result>): Promise<Result> {
  const stallMs = socket?.timeout
  socket?.setTimeout(0)
  try {
    return await work()
  } finally {
    if (stallMs !== undefined) socket?.setTimeout(stallMs)
  }
}

/** The one form of an error. An answer already under way cannot become one: its connection is cut instead. */
export function sendError(response: ServerResponse, thrown: unknown, log: Log): void {
  const error = toKitError(thrown)
  const status = ERROR_STATUS[error.code]
  if (status >= 500) log.error({ err: thrown, url: response.req.url }, describeError(thrown))
  if (response.headersSent) {
    response.destroy()
    return
  }
  const { code, message, fix } = error
  closeAfter(response, code)
  sendJson(response, status, { error: { code, message, ...(fix !== undefined && { fix }) } })
}

/** What may be shown of anything thrown. */
export function toKitError(thrown: unknown): KitError {
  return thrown instanceof KitError ? thrown : new KitError('internal', 'Cannot do this: an internal error')
}

/** What is left of a body that is too large would be taken for the next request. */
export function closeAfter(response: ServerResponse, code: ErrorCode): void {
  if (code === 'too-large') response.setHeader('Connection', 'close')
}

/** Throws KitError `method-not-allowed`, with the header that RFC 9110 §15.5.6 wants. */
export function requireMethod({ request, response }: Exchange, ...allowed: readonly string[]): void {
  if (allowed.includes(request.method ?? '')) return
  response.setHeader('Allow', allowed.join(', '))
  throw new KitError('method-not-allowed', `Cannot ${request.method} here: only ${allowed.join(', ')}`)
}

/** The client's address; undefined over the control socket and for IPv6. */
export function clientAddress(request: IncomingMessage): Ipv4 | undefined {
  return findIpv4((request.socket.remoteAddress ?? '').replace(/^::ffff:/, ''))
}

interface Body {
  readonly status: number
  readonly type: string
  readonly text: string | Uint8Array
}

function sendBody(response: ServerResponse, { status, type, text }: Body): void {
  const bytes = typeof text === 'string' ? Buffer.from(text) : text
  response.writeHead(status, {
    'Content-Type': type,
    'Content-Length': bytes.length,
    'Cache-Control': 'no-store',
  })
  response.end(response.req.method === 'HEAD' ? undefined : bytes)
}
