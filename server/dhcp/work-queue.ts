// Work in flight: one job at a time per key, in order of arrival, and limits on how much waits.

export interface WorkLimits {
  readonly total: number
  /** So that one key cannot take the whole queue. */
  readonly perKey: number
}

interface Line {
  readonly tail: Promise<void>
  readonly length: number
}

export class WorkQueue {
  readonly #limits: WorkLimits
  readonly #lines = new Map<string, Line>()
  #inFlight = 0
  #dropped = 0

  constructor(limits: WorkLimits) {
    this.#limits = limits
  }

  /** Jobs refused since the start. */
  get dropped(): number {
    return this.#dropped
  }

  /** Runs `job` after the earlier ones of `key`; it must not throw. False: too much waits, and the job is forgotten. */
  add(key: string, job: () => Promise<void>): boolean {
    const line = this.#lines.get(key)
    const length = (line?.length ?? 0) + 1
    if (this.#inFlight >= this.#limits.total || length > this.#limits.perKey) {
      this.#dropped++
      return false
    }
    this.#inFlight++
    const tail = (line === undefined ? job() : line.tail.then(job)).then(() => this.#finish(key))
    this.#lines.set(key, { tail, length })
    return true
  }

  /** Resolves when all that was added has run. */
  async idle(): Promise<void> {
    while (this.#lines.size > 0) await Promise.all([...this.#lines.values()].map(({ tail }) => tail))
  }

  #finish(key: string): void {
    this.#inFlight--
    const line = this.#lines.get(key)
    if (line === undefined || line.length === 1) this.#lines.delete(key)
    else this.#lines.set(key, { ...line, length: line.length - 1 })
  }
}
