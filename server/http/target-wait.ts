// The long poll of a machine for its target: answered as soon as that differs from what the machine has.

import type { Clock } from '#lib/clock.ts'
import type { MachineDesk, Target } from '#machine/ports.ts'

import { type Exchange, inSilence } from './exchange.ts'

export const WAIT_MAX_SECONDS = 60

export interface TargetWait {
  readonly desk: Pick<MachineDesk, 'onTargetChange'>
  readonly clock: Clock
  /** The target as it is now. */
  readonly look: () => Promise<Target | undefined>
  /** Whether the machine does not have this already. */
  readonly isNews: (target: Target) => boolean
  readonly waitSeconds: number
}

/** Resolves with the target as it is when it differs, when the time is up, when the client leaves or the service stops. */
export async function waitForTarget(
  { response, stopping }: Pick<Exchange, 'response' | 'stopping'>,
  { desk, clock, look, isNews, waitSeconds }: TargetWait,
): Promise<Target | undefined> {
  let isOver = waitSeconds === 0 || response.destroyed
  let hasChanged = false
  let wake = () => {}
  const end = () => {
    isOver = true
    wake()
  }
  // Listening begins before the first look: a change in between would go unseen.
  const unsubscribe = desk.onTargetChange(() => {
    hasChanged = true
    wake()
  })
  const cancelTimer = clock.after(waitSeconds * 1000, end)
  response.once('close', end)
  stopping.addEventListener('abort', end)
  try {
    return await inSilence(response.socket, async () => {
      for (;;) {
        hasChanged = false
        const target = await look()
        if (isOver || stopping.aborted || (target !== undefined && isNews(target))) return target
        if (!hasChanged) {
          await new Promise<void>((resolve) => {
            wake = resolve
          })
        }
      }
    })
  } finally {
    unsubscribe()
    cancelTimer()
    response.off('close', end)
    stopping.removeEventListener('abort', end)
  }
}
