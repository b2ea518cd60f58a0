// Work in flight: one job at a time per key, in order of arrival, and a limit on how much waits.

export class WorkQueue {
  readonly #limit: number
  readonly #tails = new Map<string, Promise<void>>()
  #inFlight = 0
  #dropped = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Jobs refused since the start. */
  get dropped(): number {
    return this.#dropped
  }

  /** Runs `job` after the earlier ones of `key`; it must not throw. False: the queue is full, and the job is forgotten. */
  add(key: string, job: () => Promise<void>): boolean {
    if (this.#inFlight >= this.#limit) {
      this.#dropped++
      return false
    }
    this.#inFlight++
    const before = this.#tails.get(key)
    const tail = (before === undefined ? job() : before.then(job)).then(() => {
      this.#inFlight--
      if (this.#tails.get(key) === tail) this.#tails.delete(key)
    })
    this.#tails.set(key, tail)
    return true
  }

  /** Resolves when all that was added has run. */
  async idle(): Promise<void> {
    while (this.#tails.size > 0) await Promise.all(this.#tails.values())
  }
}
