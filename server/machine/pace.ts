// How often somebody may do something: a few at once, then one after another.

import type { Clock } from '#lib/clock.ts'

export interface PaceOptions {
  readonly atOnce: number
  readonly oneEveryMs: number
  /** When so many are remembered, whoever came longest ago is forgotten. */
  readonly mostKeys?: number
}

interface Account {
  /** How many were taken and have not come back; a fraction while one is on its way. */
  readonly taken: number
  readonly atMs: number
}

export class Pace {
  readonly #clock: Clock
  readonly #options: PaceOptions
  /** Whoever came last is last. */
  readonly #accounts = new Map<string, Account>()

  constructor(clock: Clock, options: PaceOptions) {
    this.#clock = clock
    this.#options = options
  }

  /** Takes one; false when none is left. */
  take(key = ''): boolean {
    const { atOnce, mostKeys = 10_000 } = this.#options
    const taken = this.#taken(key) + 1
    if (taken > atOnce) return false
    this.#accounts.delete(key)
    this.#accounts.set(key, { taken, atMs: this.#clock.monotonicMs() })
    const [oldest] = this.#accounts.keys()
    if (this.#accounts.size > mostKeys && oldest !== undefined) this.#accounts.delete(oldest)
    return true
  }

  #taken(key: string): number {
    const account = this.#accounts.get(key)
    if (account === undefined) return 0
    const back = (this.#clock.monotonicMs() - account.atMs) / this.#options.oneEveryMs
    return Math.max(0, account.taken - back)
  }
}
