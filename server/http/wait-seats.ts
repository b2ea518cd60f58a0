// How many requests of one machine may wait at once: each that waits is asked again whenever anything changes.

export class WaitSeats {
  readonly #most: number
  /** By whom it is that waits; what ends each wait, the oldest first. */
  readonly #waits = new Map<string, Set<() => void>>()

  constructor(most: number) {
    this.#most = most
  }

  /** How many wait in all. */
  get size(): number {
    return [...this.#waits.values()].reduce((sum, { size }) => sum + size, 0)
  }

  /** Ends the oldest wait of `key` when this one is one too many. Returns what is called when this one is over. */
  take(key: string, end: () => void): () => void {
    const own = this.#waits.get(key) ?? new Set()
    this.#waits.set(key, own.add(end))
    const [oldest] = own
    if (own.size > this.#most && oldest !== undefined) {
      own.delete(oldest)
      oldest()
    }
    return () => {
      own.delete(end)
      if (own.size === 0 && this.#waits.get(key) === own) this.#waits.delete(key)
    }
  }
}
