// Waiting for something outside this process that cannot tell when it is ready.

import { setTimeout as sleep } from 'node:timers/promises'

import type { KitError } from './errors.ts'

export interface PollOptions {
  readonly everyMs: number
  readonly timeoutMs: number
  /** The error thrown when the time is over. */
  readonly late: () => KitError
}

/** Calls `probe` until it gives something. What `probe` throws ends the waiting. */
export async function pollUntil<T>(probe: () => Promise<T | undefined>, options: PollOptions): Promise<T> {
  const endMs = performance.now() + options.timeoutMs
  for (;;) {
    const found = await probe()
    if (found !== undefined) return found
    if (performance.now() >= endMs) throw options.late()
    await sleep(options.everyMs)
  }
}
