// All writes of the store, one after another: those of one turn of the event loop share a transaction and its fsync.

import type { Kysely } from 'kysely'

import { KitError } from '#lib/errors.ts'

import type { Schema } from './schema.ts'

export type Write<Result> = (trx: Kysely<Schema>) => Promise<Result>

interface Waiting {
  readonly write: Write<unknown>
  readonly resolve: (result: unknown) => void
  readonly reject: (error: unknown) => void
}

/** Keeps one transaction from holding the event loop for long. */
const BATCH_MAX = 256

export class GroupCommit {
  readonly #db: Kysely<Schema>
  #queue: Waiting[] = []
  #closed = false
  #draining: Promise<void> | undefined

  constructor(db: Kysely<Schema>) {
    this.#db = db
  }

  /** Resolves once the write is on disk; writes commit, and their promises resolve, in the order of the calls. */
  async run<Result>(write: Write<Result>): Promise<Result> {
    if (this.#closed) throw new KitError('unavailable', 'Cannot write: the store is closed')
    const { promise, resolve, reject } = Promise.withResolvers<unknown>()
    this.#queue.push({ write, resolve, reject })
    this.#draining ??= this.#drain()
    return (await promise) as Result
  }

  /** Takes no more writes and resolves when those already taken are on disk. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#draining
  }

  async #drain(): Promise<void> {
    while (this.#queue.length > 0) {
      await new Promise(setImmediate) // let the rest of this turn's writes join
      const batch = this.#queue.slice(0, BATCH_MAX)
      this.#queue = this.#queue.slice(BATCH_MAX)
      await this.#commit(batch)
    }
    this.#draining = undefined
  }

  async #commit(batch: readonly Waiting[]): Promise<void> {
    try {
      const results = await this.#db.transaction().execute(async (trx) => {
        const done: unknown[] = []
        for (const { write } of batch) done.push(await write(trx))
        return done
      })
      for (const [index, waiting] of batch.entries()) waiting.resolve(results[index])
    } catch (error) {
      if (batch.length === 1) batch[0]?.reject(error)
      // One bad write must not fail its neighbours: each again by itself.
      else for (const waiting of batch) await this.#commit([waiting])
    }
  }
}
