// The long poll of a machine: answered as soon as there is something that it does not have.

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'

import { type Exchange, inSilence } from './exchange.ts'
import type { WaitSeats } from './wait-seats.ts'

const WAIT_MAX_SECONDS = 60

export interface LongPoll<Found> {
  /** Called after any change that may be news; returns what unsubscribes. */
  readonly subscribe: (listener: () => void) => () => void
  readonly clock: Clock
  /** What there is now. */
  readonly look: () => Promise<Found>
  /** Whether the machine does not have this already. */
  readonly isNews: (found: Found) => boolean
  readonly waitSeconds: number
  /** Where it counts, and as whose; one that is ended for a newer one is answered with what there is. */
  readonly seats: WaitSeats
  readonly key: string
}

/** The `wait` of a query. Throws KitError `invalid-input`. */
export function readWaitSeconds(query: URLSearchParams): number {
  const waitSeconds = Number(query.get('wait') ?? 0)
  if (Number.isInteger(waitSeconds) && waitSeconds >= 0 && waitSeconds <= WAIT_MAX_SECONDS) return waitSeconds
  throw new KitError('invalid-input', `Cannot wait: wait is whole seconds, at most ${WAIT_MAX_SECONDS}`)
}

/** Resolves with what there is when it is news, when the time is up, when the client leaves or the service stops. */
export async function waitForNews<Found>(
  { response, stopping }: Pick<Exchange, 'response' | 'stopping'>,
  { subscribe, clock, look, isNews, waitSeconds, seats, key }: LongPoll<Found>,
): Promise<Found> {
  let isOver = waitSeconds === 0 || response.destroyed
  let hasChanged = false
  let wake = () => {}
  const end = () => {
    isOver = true
    wake()
  }
  // Listening begins before the first look: a change in between would go unseen.
  const unsubscribe = subscribe(() => {
    hasChanged = true
    wake()
  })
  const leave = seats.take(key, end)
  const cancelTimer = clock.after(waitSeconds * 1000, end)
  response.once('close', end)
  stopping.addEventListener('abort', end)
  try {
    return await inSilence(response.socket, async () => {
      for (;;) {
        hasChanged = false
        const found = await look()
        if (isOver || stopping.aborted || isNews(found)) return found
        if (!hasChanged) {
          await new Promise<void>((resolve) => {
            wake = resolve
          })
        }
      }
    })
  } finally {
    leave()
    unsubscribe()
    cancelTimer()
    response.off('close', end)
    stopping.removeEventListener('abort', end)
  }
}
