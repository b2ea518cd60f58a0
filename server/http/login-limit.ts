// Slows down whoever guesses tokens: each address has a few failures, which come back with time.

import type { Clock } from '#lib/clock.ts'

const FAILURES_MAX = 10
const ONE_BACK_AFTER_MS = 6_000
/** Beyond so many addresses the one that failed longest ago is forgotten. */
const ADDRESSES_MAX = 10_000

interface Account {
  readonly failures: number
  readonly atMs: number
}

export class LoginLimit {
  readonly #clock: Clock
  /** The one that failed last is last. */
  readonly #accounts = new Map<string, Account>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** How many seconds the address has to wait before its next try; 0 when it need not. */
  waitSeconds(address: string): number {
    const excess = this.#failures(address) - (FAILURES_MAX - 1)
    return excess <= 0 ? 0 : Math.ceil((excess * ONE_BACK_AFTER_MS) / 1000)
  }

  failed(address: string): void {
    const failures = this.#failures(address) + 1
    this.#accounts.delete(address)
    this.#accounts.set(address, { failures, atMs: this.#clock.monotonicMs() })
    const [oldest] = this.#accounts.keys()
    if (this.#accounts.size > ADDRESSES_MAX && oldest !== undefined) this.#accounts.delete(oldest)
  }

  /** Those not yet given back; a fraction while one is on its way. */
  #failures(address: string): number {
    const account = this.#accounts.get(address)
    if (account === undefined) return 0
    return Math.max(0, account.failures - (this.#clock.monotonicMs() - account.atMs) / ONE_BACK_AFTER_MS)
  }
}
