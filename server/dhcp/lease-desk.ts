// Carries out lease decisions: the pool in memory at once, the store before anybody is told.

import type { Clock } from '#lib/clock.ts'
import type { Lease, LeaseStore } from '#machine/ports.ts'

import { decideLease } from './lease-decide.ts'
import type { LeaseAsk, LeaseDecision } from './lease-types.ts'
import type { Pool } from './pool.ts'

export class LeaseDesk {
  readonly #pool: Pool
  readonly #store: LeaseStore
  readonly #clock: Clock

  constructor(pool: Pool, store: LeaseStore, clock: Clock) {
    this.#pool = pool
    this.#store = store
    this.#clock = clock
  }

  /** Decides and records; a lease is on disk when it resolves. Throws what the store throws, with nothing changed. */
  async settle(ask: LeaseAsk): Promise<LeaseDecision> {
    const nowMs = this.#clock.nowMs()
    const decision = decideLease(ask, this.#pool, nowMs)
    switch (decision.kind) {
      case 'offer':
        this.#pool.holdOffer(decision.ip, ask, nowMs)
        break
      case 'ack':
      case 'decline':
      case 'release':
        await this.#commit(decision.lease)
        this.#pool.dropOffer(ask)
        break
      case 'nak':
        this.#pool.dropOffer(ask)
        break
      case 'silent':
        if (decision.reason === 'other-server') this.#pool.dropOffer(ask)
        break
      case 'inform-ack':
        break
      default:
        decision satisfies never
    }
    return decision
  }

  /** In memory first, in the same turn as the decision, so that nobody else is given the address meanwhile. */
  async #commit(lease: Lease): Promise<void> {
    const before = this.#pool.record(lease)
    try {
      await this.#store.put(lease)
    } catch (error) {
      if (this.#pool.leaseAt(lease.ip) === lease) this.#pool.restore(lease.ip, before)
      throw error
    }
  }
}
