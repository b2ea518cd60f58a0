// What a test waits for: events of its server, each time from a moment on.

import type { ServerClient } from '#lab/server-client.ts'
import { KitError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'
import { pollUntil } from '#lib/retry.ts'
import type { Event, EventKind } from '#machine/event.ts'
import type { MachineView } from '#machine/ports.ts'

/** One boot takes one to three minutes on two busy, emulated cores; this is for the slowest machine that is not broken. */
export const BOOT_TIMEOUT_MS = 15 * 60_000

export interface EventWatch {
  /** Later events only count for the watch that is returned. */
  fromNow(): Promise<EventWatch>
  waitFor(kind: EventKind, mac: Mac, matches?: (event: Event) => boolean): Promise<Event>
  /** Resolves when the machine's own check-in says that it runs. */
  untilRunning(mac: Mac): Promise<MachineView>
  /** Resolves when what the server knows of the machine is so; throws with what it is after the watch's patience. */
  untilView(mac: Mac, matches: (view: MachineView) => boolean): Promise<MachineView>
  /** Those that there are by now. */
  events(kind: EventKind, mac: Mac): Promise<readonly Event[]>
}

export interface WatchOptions {
  /** Only later events count. */
  readonly afterId?: number
  /** For each wait. */
  readonly timeoutMs?: number
}

export function watchEvents(
  client: ServerClient,
  { afterId = 0, timeoutMs = BOOT_TIMEOUT_MS }: WatchOptions = {},
): EventWatch {
  const waitFor: EventWatch['waitFor'] = (kind, mac, matches = () => true) =>
    client.waitForEvent((event) => event.kind === kind && event.mac === mac && matches(event), {
      timeoutMs,
      afterId,
    })
  return {
    fromNow: async () => watchEvents(client, { afterId: await client.lastEventId(), timeoutMs }),
    waitFor,
    async untilRunning(mac) {
      await waitFor('checked-in', mac, (event) => event.data['to'] === 'running')
      return client.machine(mac)
    },
    untilView: (mac, matches) => untilView(client, mac, { matches, timeoutMs }),
    async events(kind, mac) {
      const found: Event[] = []
      const lastId = await client.lastEventId()
      if (lastId <= afterId) return found
      for await (const event of client.follow(afterId, AbortSignal.timeout(timeoutMs))) {
        if (event.kind === kind && event.mac === mac) found.push(event)
        if (event.id >= lastId) break
      }
      return found
    },
  }
}

async function untilView(
  client: ServerClient,
  mac: Mac,
  { matches, timeoutMs }: { matches: (view: MachineView) => boolean; timeoutMs: number },
): Promise<MachineView> {
  let last = ''
  return pollUntil(
    async () => {
      const view = await client.machine(mac)
      last = JSON.stringify(view)
      return matches(view) ? view : undefined
    },
    {
      everyMs: 1_000,
      timeoutMs,
      late: () => new KitError('unavailable', `Cannot see ${mac} as it should be; it is ${last}`),
    },
  )
}
