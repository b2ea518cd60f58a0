// Events as a stream of server-sent events (WHATWG HTML §9.2): first what was missed, then each as it happens.

import type { IncomingMessage, ServerResponse } from 'node:http'

import type { Clock } from '#lib/clock.ts'
import type { Log } from '#lib/log.ts'
import type { Event } from '#machine/event.ts'
import type { EventLog } from '#machine/ports.ts'

import { parseEventQuery } from './api-routes.ts'
import { parseWhole } from './page-query.ts'

export interface EventStreamOptions {
  readonly events: EventLog
  readonly clock: Clock
  readonly log: Log
  readonly stopping: AbortSignal
}

const HEARTBEAT_MS = 15_000
/** At most 16 KiB each (machine-door.ts). */
const REPLAY_PAGE = 100
/** A reader that leaves more than this unread is cut off; it comes back with Last-Event-ID and misses nothing. */
const UNREAD_MAX_BYTES = 1024 * 1024

interface StreamRequest {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly query: URLSearchParams
  /** Asked with every heartbeat: a reader whose token was revoked hears no more. */
  readonly mayGoOn: () => Promise<boolean>
}

/**
 * Resolves once the missed events are out; the stream lives on until either side ends it. Starts after
 * `Last-Event-ID`, else after `?after=`, else with the next event.
 */
export async function serveEventStream(
  { request, response, query, mayGoOn }: StreamRequest,
  options: EventStreamOptions,
): Promise<void> {
  const { mac, afterId: asked } = parseEventQuery(query)
  const lastEventId = request.headers['last-event-id']
  const afterId =
    lastEventId === undefined
      ? asked
      : parseWhole('Last-Event-ID', String(lastEventId), Number.MAX_SAFE_INTEGER)
  if (response.destroyed) return // it left while its token was looked up: nobody would ever unsubscribe
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' })
  response.write(': events\n\n') // headers reach the client now, not with the first event

  // Subscribed before the first read: an event in between is in one of the two, and its id tells whether in both.
  let heard = 0
  let deliver = (event: Event) => {
    heard = event.id
  }
  const unsubscribe = options.events.subscribe((event) => {
    if (mac === undefined || event.mac === mac) deliver(event)
  })
  const stopHeartbeat = keepAlive(response, mayGoOn, options)
  const end = () => response.end()
  options.stopping.addEventListener('abort', end)
  response.once('close', () => {
    unsubscribe()
    stopHeartbeat()
    options.stopping.removeEventListener('abort', end)
  })
  let last = -1
  if (afterId !== undefined) {
    last = afterId
    // What happens meanwhile is read as well: a slow reader costs no memory for it.
    do last = await replay(response, options.events, { mac, afterId: last })
    while (last < heard && !isOver(response))
  }
  deliver = (event) => {
    if (event.id > last) send(response, event)
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
    if (isOver(response)) return last
    for (const event of page) response.write(encode(event))
    last = page.at(-1)?.id ?? last
    if (response.writableNeedDrain) await drained(response)
    if (page.length < REPLAY_PAGE) return last
  }
}

/** The client left, or the service stops: a write would be an error that nobody listens for. */
function isOver(response: ServerResponse): boolean {
  return response.destroyed || response.writableEnded
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      response.off('drain', end)
      response.off('close', end)
      resolve()
    }
    response.on('drain', end)
    response.on('close', end)
  })
}

function send(response: ServerResponse, event: Event): void {
  if (isOver(response)) return
  response.write(encode(event))
  if (response.writableLength > UNREAD_MAX_BYTES) response.destroy()
}

function encode(event: Event): string {
  return `id: ${event.id}\nevent: ${event.kind}\ndata: ${JSON.stringify(event)}\n\n`
}

/** Comments that keep proxies and the stall guard from taking a quiet stream for a dead one. */
function keepAlive(
  response: ServerResponse,
  mayGoOn: () => Promise<boolean>,
  { clock, log }: EventStreamOptions,
): () => void {
  let cancel = () => {}
  let isStopped = false
  const beat = async () => {
    if (!(await mayGoOn())) return response.end()
    if (isStopped) return
    if (!response.writableEnded) response.write(': still here\n\n')
    cancel = clock.after(HEARTBEAT_MS, begin)
  }
  const begin = () => {
    beat().catch((error: unknown) => {
      log.error({ err: error }, 'Cannot tell whether a reader of events may go on')
      response.destroy()
    })
  }
  cancel = clock.after(HEARTBEAT_MS, begin)
  return () => {
    isStopped = true
    cancel()
  }
}
