// Time as something handed in, so that tests can turn it.

export interface Clock {
  /** Milliseconds since 1970, as people and the database see it. May jump. */
  nowMs(): number
  /** Milliseconds that only ever grow, for measuring. */
  monotonicMs(): number
  /** Runs `action` once after `delayMs`; the returned function cancels it. */
  after(delayMs: number, action: () => void): () => void
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, action) {
    const timer = setTimeout(action, delayMs)
    return () => clearTimeout(timer)
  },
}
