// A clock that a test turns; what is due runs while it is turned.

import type { Clock } from '#lib/clock.ts'

interface Due {
  readonly atMs: number
  readonly action: () => void
}

export class TurnedClock implements Clock {
  /** Wall clock. May be set to anything. */
  ms: number
  #monotonicMs = 5_000
  #due: Due[] = []

  constructor(ms = 1_000_000) {
    this.ms = ms
  }

  nowMs(): number {
    return this.ms
  }

  monotonicMs(): number {
    return this.#monotonicMs
  }

  after(delayMs: number, action: () => void): () => void {
    const due = { atMs: this.#monotonicMs + delayMs, action }
    this.#due.push(due)
    return () => {
      this.#due = this.#due.filter((other) => other !== due)
    }
  }

  /** How many actions wait for their time. */
  get waiting(): number {
    return this.#due.length
  }

  /** Both clocks go on. */
  turn(ms: number): void {
    const endMs = this.#monotonicMs + ms
    for (;;) {
      const next = this.#due
        .filter(({ atMs }) => atMs <= endMs)
        .sort((one, other) => one.atMs - other.atMs)[0]
      if (next === undefined) break
      this.#due = this.#due.filter((other) => other !== next)
      this.ms += next.atMs - this.#monotonicMs
      this.#monotonicMs = next.atMs
      next.action()
    }
    this.ms += endMs - this.#monotonicMs
    this.#monotonicMs = endMs
  }
}
