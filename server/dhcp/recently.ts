// What happened a short while ago, in bounded memory: so that one thing is told once, and a flood hardly at all.

import type { Clock } from '#lib/clock.ts'

export class Recently {
  readonly #clock: Clock
  readonly #limits: { readonly windowMs: number; readonly maxKeys: number }
  /** The least recently seen first. */
  readonly #seen = new Map<string, { readonly value: string; readonly atMs: number }>()

  constructor(clock: Clock, limits: { readonly windowMs: number; readonly maxKeys: number }) {
    this.#clock = clock
    this.#limits = limits
  }

  /** True when `key` last had another value, or was not seen within the window, which each call starts anew. */
  isNews(key: string, value = ''): boolean {
    const nowMs = this.#clock.monotonicMs()
    const last = this.#seen.get(key)
    this.#seen.delete(key)
    this.#seen.set(key, { value, atMs: nowMs })
    const oldest = this.#seen.keys().next().value
    if (this.#seen.size > this.#limits.maxKeys && oldest !== undefined) this.#seen.delete(oldest)
    return last === undefined || last.value !== value || nowMs - last.atMs > this.#limits.windowMs
  }

  forget(key: string): void {
    this.#seen.delete(key)
  }
}

/** At most so many of something per minute. */
export class MinuteBudget {
  readonly #clock: Clock
  readonly #perMinute: number
  #minute = -1
  #spent = 0

  constructor(clock: Clock, perMinute: number) {
    this.#clock = clock
    this.#perMinute = perMinute
  }

  /** False: this minute's are spent. */
  take(): boolean {
    const minute = Math.floor(this.#clock.monotonicMs() / 60_000)
    if (minute !== this.#minute) {
      this.#minute = minute
      this.#spent = 0
    }
    this.#spent++
    return this.#spent <= this.#perMinute
  }
}
