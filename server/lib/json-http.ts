// A JSON client for the server's own API: over its control socket, or over TCP with a token.

import http from 'node:http'
import https from 'node:https'

import { ERROR_STATUS, type ErrorCode, KitError, systemErrorCode } from './errors.ts'
import { type SseMessage, SseParser } from './sse.ts'

export type Endpoint =
  | { readonly kind: 'socket'; readonly path: string }
  /** `caPem`: what the server's certificate must come from, in place of what this system trusts. */
  | { readonly kind: 'url'; readonly url: string; readonly token?: string; readonly caPem?: string }

export interface RequestOptions {
  /** How long the answer may take: half a minute unless given. */
  readonly timeoutMs?: number
}

export interface JsonHttp {
  /** The parsed answer; undefined for an empty one. Throws KitError: the server's own, or `unavailable` when nothing answers. */
  request(
    method: 'GET' | 'PUT' | 'POST' | 'DELETE',
    path: string,
    body?: unknown,
    options?: RequestOptions,
  ): Promise<unknown>
  /** Messages until the server ends the stream or `signal` aborts; then it returns. Throws as `request` does. */
  stream(path: string, options: { lastEventId?: string; signal: AbortSignal }): AsyncIterable<SseMessage>
}

/** An answer that takes longer than this means a server in trouble, as a rule. Streams are not bound by it. */
const REQUEST_TIMEOUT_MS = 30_000

export function createJsonHttp(endpoint: Endpoint): JsonHttp {
  return {
    async request(method, path, body, { timeoutMs = REQUEST_TIMEOUT_MS } = {}) {
      const text = body === undefined ? undefined : JSON.stringify(body)
      const signal = AbortSignal.timeout(timeoutMs)
      const response = await send(endpoint, { method, path, signal, ...(text === undefined ? {} : { text }) })
      return readAnswer(response)
    },
    async *stream(path, { lastEventId, signal }) {
      const headers = {
        accept: 'text/event-stream',
        ...(lastEventId === undefined ? {} : { 'last-event-id': lastEventId }),
      }
      const response = await send(endpoint, { method: 'GET', path, headers, signal })
      if (response.statusCode !== 200) await readAnswer(response)
      const parser = new SseParser()
      response.setEncoding('utf8')
      try {
        for await (const chunk of response) yield* parser.push(chunk)
      } catch (error) {
        // A server that dies in the middle is an end like any other; the caller resumes by id.
        if (!signal.aborted && !isCut(error)) throw error
      } finally {
        response.destroy()
      }
    },
  }
}

function describeEndpoint(endpoint: Endpoint): string {
  return endpoint.kind === 'socket' ? endpoint.path : endpoint.url
}

interface Outgoing {
  readonly method: string
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly text?: string
  readonly signal: AbortSignal
}

function send(endpoint: Endpoint, outgoing: Outgoing): Promise<http.IncomingMessage> {
  const { method, path, text, signal } = outgoing
  const headers: Record<string, string> = { accept: 'application/json', ...outgoing.headers }
  if (text !== undefined) {
    headers['content-type'] = 'application/json'
    headers['content-length'] = String(Buffer.byteLength(text))
  }
  return new Promise((resolve, reject) => {
    const request =
      endpoint.kind === 'socket'
        ? http.request({ socketPath: endpoint.path, path, method, headers, signal })
        : requestUrl(endpoint, path, { method, headers, signal })
    request.once('response', resolve)
    request.once('error', (error) => reject(cannotReach(endpoint, error)))
    request.end(text)
  })
}

function requestUrl(
  endpoint: Extract<Endpoint, { kind: 'url' }>,
  path: string,
  options: { method: string; headers: Record<string, string>; signal: AbortSignal },
): http.ClientRequest {
  const url = new URL(path, endpoint.url)
  if (endpoint.token !== undefined) options.headers['authorization'] = `Bearer ${endpoint.token}`
  if (url.protocol !== 'https:') return http.request(url, options)
  const trust = endpoint.caPem === undefined ? {} : { ca: endpoint.caPem, allowPartialTrustChain: true }
  return https.request(url, { ...options, ...trust })
}

async function readAnswer(response: http.IncomingMessage): Promise<unknown> {
  let text = ''
  response.setEncoding('utf8')
  for await (const chunk of response) text += chunk
  const status = response.statusCode ?? 0
  const body = parseJson(text)
  if (status >= 200 && status < 300) return body
  throw errorFromAnswer(status, body)
}

function parseJson(text: string): unknown {
  if (text === '') return undefined
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new KitError('internal', `Cannot read the server's answer: ${JSON.stringify(text.slice(0, 80))}`, {
      cause,
    })
  }
}

/** Exported for its tests: the KitError that the API's `{"error": {…}}` stands for. */
export function errorFromAnswer(status: number, body: unknown): KitError {
  const error = (body as { error?: { code?: unknown; message?: unknown; fix?: unknown } } | undefined)?.error
  const code = typeof error?.code === 'string' && error.code in ERROR_STATUS ? error.code : 'internal'
  const message = typeof error?.message === 'string' ? error.message : `The server answered ${status}`
  return new KitError(code as ErrorCode, message, typeof error?.fix === 'string' ? { fix: error.fix } : {})
}

function isCut(error: unknown): boolean {
  return ['ECONNRESET', 'EPIPE', 'ERR_STREAM_PREMATURE_CLOSE'].includes(systemErrorCode(error) ?? '')
}

function cannotReach(endpoint: Endpoint, error: Error): KitError {
  const where = describeEndpoint(endpoint)
  switch (systemErrorCode(error)) {
    case 'EACCES':
      return new KitError('forbidden', `Cannot open the control socket ${where}: permission denied`, {
        fix: 'run the command as root (sudo), or use --url with KATESKIT_TOKEN',
        cause: error,
      })
    case 'ENOENT':
    case 'ECONNREFUSED':
      return new KitError('unavailable', `Cannot reach the server: nothing answers at ${where}`, {
        fix: 'start it with npm start, or name a running one with --url',
        cause: error,
      })
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return new KitError('forbidden', `Cannot trust ${where}: its certificate is for another name`, {
        fix: 'name the server as its certificate does: by its address, or by its mDNS name',
        cause: error,
      })
    default:
      return new KitError('unavailable', `Cannot reach the server at ${where}: ${error.message}`, {
        cause: error,
      })
  }
}
