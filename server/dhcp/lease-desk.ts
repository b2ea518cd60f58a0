// Carries out lease decisions: the pool in memory at once, the store before anybody is told.

import type { Clock } from '#lib/clock.ts'
import type { Lease, LeaseStore } from '#machine/lease-ports.ts'

import { decideLease } from './lease-decide.ts'
import type { LeaseAsk, LeaseDecision } from './lease-types.ts'
import type { Pool } from './pool.ts'
import { MinuteBudget } from './recently.ts'

/** A hall of a thousand new machines gets through at once; a flood costs no more than this. */
const NEWCOMERS_PER_MINUTE = 1200

const TOO_MUCH: LeaseDecision = { kind: 'silent', reason: 'too-many-newcomers' }

export class LeaseDesk {
  readonly #pool: Pool
  readonly #store: LeaseStore
  readonly #clock: Clock
  readonly #newcomers: MinuteBudget

  constructor(pool: Pool, store: LeaseStore, clock: Clock) {
    this.#pool = pool
    this.#store = store
    this.#clock = clock
    this.#newcomers = new MinuteBudget(clock, NEWCOMERS_PER_MINUTE)
  }

  /** Decides and records; a lease is on disk when it resolves. Throws what the store throws, with nothing changed. */
  async settle(ask: LeaseAsk): Promise<LeaseDecision> {
    const nowMs = this.#clock.nowMs()
    const decision = this.#isTooMuch(ask, nowMs) ? TOO_MUCH : decideLease(ask, this.#pool, nowMs)
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

  #isTooMuch(ask: LeaseAsk, nowMs: number): boolean {
    const asksForAddress = ask.type === 'discover' || ask.type === 'request'
    return asksForAddress && this.#pool.isNewcomer(ask, nowMs) && !this.#newcomers.take()
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
