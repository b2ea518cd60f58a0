// Work in flight: a keyed queue with limits on how much waits, and a moment at which nothing does.

import { createKeyedQueue } from '#lib/keyed-queue.ts'

export interface WorkLimits {
  readonly total: number
  /** So that one key cannot take the whole queue. */
  readonly perKey: number
  /** Of `total`, only for jobs that are favoured. */
  readonly keptForFavoured: number
}

export class WorkQueue {
  readonly #limits: WorkLimits
  readonly #queue = createKeyedQueue<string>()
  /** Jobs of each key that have not ended; only keys that have some. */
  readonly #jobs = new Map<string, number>()
  #inFlight = 0
  #dropped = 0
  #idle = Promise.withResolvers<void>()

  constructor(limits: WorkLimits) {
    this.#limits = limits
    this.#idle.resolve()
  }

  /** Jobs refused since the start. */
  get dropped(): number {
    return this.#dropped
  }

  /** Runs `job` after the earlier ones of `key`; it must not throw. False: too much waits, and the job is forgotten. */
  add(key: string, job: () => Promise<void>, isFavoured = false): boolean {
    const { total, perKey, keptForFavoured } = this.#limits
    const jobs = (this.#jobs.get(key) ?? 0) + 1
    if (this.#inFlight >= (isFavoured ? total : total - keptForFavoured) || jobs > perKey) {
      this.#dropped++
      return false
    }
    this.#jobs.set(key, jobs)
    if (this.#inFlight++ === 0) this.#idle = Promise.withResolvers()
    this.#queue.run(key, job).then(() => this.#finish(key))
    return true
  }

  /** Resolves when all that was added has run. */
  idle(): Promise<void> {
    return this.#idle.promise
  }

  #finish(key: string): void {
    const left = (this.#jobs.get(key) ?? 1) - 1
    if (left === 0) this.#jobs.delete(key)
    else this.#jobs.set(key, left)
    if (--this.#inFlight === 0) this.#idle.resolve()
  }
}
