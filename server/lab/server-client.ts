// The server's API as the lab uses it: typed, over the control socket, patient with a server that is restarted.

import { setTimeout as sleep } from 'node:timers/promises'

import { KitError } from '#lib/errors.ts'
import { createJsonHttp, type Endpoint } from '#lib/json-http.ts'
import { type Mac, macToPath } from '#lib/mac.ts'
import type { Event } from '#machine/event.ts'
import type { MachineView } from '#machine/ports.ts'

export interface WaitOptions {
  readonly timeoutMs: number
  /** Only later events count; absent means from the first one on. */
  readonly afterId?: number
}

export interface ServerClient {
  isHealthy(): Promise<boolean>
  machines(): Promise<readonly MachineView[]>
  machine(mac: Mac): Promise<MachineView>
  assignRole(mac: Mac, role: string): Promise<void>
  /** Confirms the code on a machine's console. Throws KitError `wrong-code`, `not-found`, `conflict`. */
  pair(mac: Mac, code: string, options?: { readonly replace?: boolean }): Promise<void>
  /** A new admin token; the secret cannot be had again. */
  makeToken(name: string): Promise<string>
  /** The id of the newest event, 0 when there is none. */
  lastEventId(): Promise<number>
  /** Every event after `afterId`, those to come too, until `signal` aborts; goes on where it was when the server is restarted. */
  follow(afterId: number, signal: AbortSignal): AsyncIterable<Event>
  /** Throws KitError with the last events when none matches in time. */
  waitForEvent(matches: (event: Event) => boolean, options: WaitOptions): Promise<Event>
}

/** A restarted server needs about a second to answer again. */
const RECONNECT_MS = 250

const EVENTS_SHOWN = 10

export function createServerClient(endpoint: Endpoint): ServerClient {
  const http = createJsonHttp(endpoint)
  const client: ServerClient = {
    async isHealthy() {
      try {
        await http.request('GET', '/healthz')
        return true
      } catch (error) {
        if (error instanceof KitError && error.code === 'unavailable') return false
        throw error
      }
    },
    async machines() {
      return ((await http.request('GET', '/api/v1/machines')) as { machines: MachineView[] }).machines
    },
    async machine(mac) {
      return (await http.request('GET', `/api/v1/machines/${macToPath(mac)}`)) as MachineView
    },
    async assignRole(mac, role) {
      await http.request('PUT', `/api/v1/machines/${macToPath(mac)}/role`, { role })
    },
    async pair(mac, code, { replace = false } = {}) {
      const body = { code, ...(replace && { replace }) }
      await http.request('POST', `/api/v1/machines/${macToPath(mac)}/pair`, body)
    },
    async makeToken(name) {
      return ((await http.request('POST', '/api/v1/tokens', { name, role: 'admin' })) as { secret: string })
        .secret
    },
    async lastEventId() {
      const answer = (await http.request('GET', '/api/v1/events?limit=1')) as { events: Event[] }
      return answer.events.at(-1)?.id ?? 0
    },
    async *follow(afterId, signal) {
      let lastId = afterId
      while (!signal.aborted) {
        try {
          const messages = http.stream(`/api/v1/events?after=${lastId}`, {
            lastEventId: String(lastId),
            signal,
          })
          for await (const message of messages) {
            const event = JSON.parse(message.data) as Event
            lastId = event.id
            yield event
          }
        } catch (error) {
          if (!signal.aborted && !(error instanceof KitError && error.code === 'unavailable')) throw error
        }
        await sleep(RECONNECT_MS, undefined, { signal }).catch(() => {}) // aborted: the loop sees it
      }
    },
    waitForEvent: (matches, options) => waitForEvent(client, matches, options),
  }
  return client
}

async function waitForEvent(
  client: ServerClient,
  matches: (event: Event) => boolean,
  options: WaitOptions,
): Promise<Event> {
  const seen: Event[] = []
  for await (const event of client.follow(options.afterId ?? 0, AbortSignal.timeout(options.timeoutMs))) {
    if (matches(event)) return event
    seen.push(event)
  }
  const last = seen.slice(-EVENTS_SHOWN).map((event) => `  ${event.kind} ${event.mac ?? ''} ${event.message}`)
  throw new KitError(
    'unavailable',
    `Cannot find the awaited event within ${options.timeoutMs / 1000} s; the last ones were:\n${last.join('\n')}`,
  )
}
