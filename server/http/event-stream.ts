// Events as a stream of server-sent events (WHATWG HTML §9.2): first what was missed, then each as it happens.

import type { IncomingMessage, ServerResponse } from 'node:http'

import type { Clock } from '#lib/clock.ts'
import type { Log } from '#lib/log.ts'
import type { Event } from '#machine/event.ts'
import type { EventLog } from '#machine/ports.ts'

import { parseEventQuery, parseWhole } from './api-routes.ts'

export interface EventStreamOptions {
  readonly events: EventLog
  readonly clock: Clock
  readonly log: Log
  readonly stopping: AbortSignal
}

const HEARTBEAT_MS = 15_000
const REPLAY_PAGE = 500
/** A reader that leaves more than this unread is cut off; it comes back with Last-Event-ID and misses nothing. */
const UNREAD_MAX_BYTES = 1024 * 1024

interface StreamRequest {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly query: URLSearchParams
}

/**
 * Resolves once the missed events are out; the stream lives on until either side ends it. Starts after
 * `Last-Event-ID`, else after `?after=`, else with the next event.
 */
export async function serveEventStream(
  { request, response, query }: StreamRequest,
  options: EventStreamOptions,
): Promise<void> {
  const { mac, afterId: asked } = parseEventQuery(query)
  const lastEventId = request.headers['last-event-id']
  const afterId =
    lastEventId === undefined
      ? asked
      : parseWhole('Last-Event-ID', String(lastEventId), Number.MAX_SAFE_INTEGER)
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' })
  response.write(': events\n\n') // headers reach the client now, not with the first event

  // Subscribed before the first read: an event in between is in one of the two, and its id tells whether in both.
  const early: Event[] = []
  let deliver = (event: Event) => {
    early.push(event)
  }
  const unsubscribe = options.events.subscribe((event) => {
    if (mac === undefined || event.mac === mac) deliver(event)
  })
  const stopHeartbeat = keepAlive(response, options.clock)
  const end = () => response.end()
  options.stopping.addEventListener('abort', end)
  response.once('close', () => {
    unsubscribe()
    stopHeartbeat()
    options.stopping.removeEventListener('abort', end)
  })
  const replayed = afterId === undefined ? -1 : await replay(response, options.events, { mac, afterId })
  for (const event of early) if (event.id > replayed) send(response, event)
  deliver = (event) => {
    if (event.id > replayed) send(response, event)
  }
}

/** Resolves with the id of the last event sent, or the one it began after. Waits for a slow reader. */
async function replay(
  response: ServerResponse,
  events: EventLog,
  { mac, afterId }: { mac: Event['mac']; afterId: number },
): Promise<number> {
  let last = afterId
  for (;;) {
    const page = await events.list({ afterId: last, limit: REPLAY_PAGE, ...(mac !== undefined && { mac }) })
    for (const event of page) response.write(encode(event))
    last = page.at(-1)?.id ?? last
    if (page.length < REPLAY_PAGE || response.destroyed) return last
    if (response.writableNeedDrain) await drained(response)
  }
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    response.once('drain', resolve)
    response.once('close', resolve)
  })
}

function send(response: ServerResponse, event: Event): void {
  if (response.destroyed || response.writableEnded) return
  response.write(encode(event))
  if (response.writableLength > UNREAD_MAX_BYTES) response.destroy()
}

function encode(event: Event): string {
  return `id: ${event.id}\nevent: ${event.kind}\ndata: ${JSON.stringify(event)}\n\n`
}

/** Comments that keep proxies and the stall guard from taking a quiet stream for a dead one. */
function keepAlive(response: ServerResponse, clock: Clock): () => void {
  let cancel = () => {}
  const beat = () => {
    if (!response.writableEnded) response.write(': still here\n\n')
    cancel = clock.after(HEARTBEAT_MS, beat)
  }
  cancel = clock.after(HEARTBEAT_MS, beat)
  return () => cancel()
}
