// The update locks of other tools, the clients of FleetLock: taken, given back, and taken from one that never comes back.

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'

import type { Fleet } from './fleet.ts'
import type { EventLog } from './ports.ts'
import type { ReleaseBook } from './release-book.ts'
import type { UpdateLock } from './release-ports.ts'
import type { Rollouts } from './rollouts.ts'

export interface ForeignLocksOptions {
  readonly book: ReleaseBook
  readonly fleet: Fleet
  /** In its queue: two who ask at once must not both get the last one. */
  readonly rollouts: Pick<Rollouts, 'exclusively' | 'settle'>
  readonly events: EventLog
  readonly clock: Clock
}

export class ForeignLocks {
  readonly #options: ForeignLocksOptions

  constructor(options: ForeignLocksOptions) {
    this.#options = options
  }

  /** One that asks again has it still. */
  async take(group: string, id: string): Promise<{ readonly isHeld: boolean; readonly holder?: string }> {
    const { book, fleet, clock, rollouts } = this.#options
    return rollouts.exclusively(async () => {
      const holder = holderOf(id)
      const own = book.lockOf(holder)
      if (own !== undefined) return own.channel === group ? { isHeld: true } : { isHeld: false, holder }
      const locks = book.locksOf(group)
      const { machines, policy } = fleet.rolloutFacts(group)
      const [first] = locks
      if (first !== undefined && locks.length >= policy.atOnce(machines.length)) {
        return { isHeld: false, holder: first.holder }
      }
      await book.lock({ channel: group, holder, sinceMs: clock.nowMs() })
      return { isHeld: true }
    })
  }

  /** The protocol asks for no complaint about one that had none. */
  async giveBack(group: string, id: string): Promise<void> {
    const { book, rollouts } = this.#options
    const holder = holderOf(id)
    await rollouts.exclusively(async () => {
      if (book.lockOf(holder)?.channel === group) await book.unlock(holder)
    })
    await rollouts.settle()
  }

  /** By a person, who may leave out the `fleetlock:`. */
  async release(channel: string, named: string): Promise<void> {
    const { book, rollouts, events } = this.#options
    await rollouts.exclusively(async () => {
      const held = book.locksOf(channel)
      const lock = held.find(({ holder }) => holder === named || holder === holderOf(named))
      if (lock === undefined) throw noSuchLock(channel, named, held)
      if (!isForeign(lock)) throw machinesOwn(lock)
      const message = `the update lock of ${channel} was taken from ${lock.holder} by a person`
      await Promise.all([
        book.unlock(lock.holder),
        events.append({ kind: 'lock-released', message, data: { channel, holder: lock.holder } }),
      ])
    })
    await rollouts.settle()
  }
}

/** Held by another tool, and not for an update of ours. */
export function isForeign({ version }: UpdateLock): boolean {
  return version === undefined
}

function holderOf(id: string): string {
  return `fleetlock:${id}`
}

function noSuchLock(channel: string, named: string, held: readonly UpdateLock[]): KitError {
  const who =
    held.length === 0 ? 'nobody has it' : `it is held by ${held.map(({ holder }) => holder).join(', ')}`
  return new KitError('not-found', `Cannot give back the lock of ${channel} for ${named}: ${who}`, {
    fix: 'kateskit rollout status shows who holds one',
  })
}

function machinesOwn({ channel, holder, version }: UpdateLock): KitError {
  return new KitError(
    'conflict',
    `Cannot give back the lock of ${channel} for ${holder}: the machine is on its way to ${version}`,
    { fix: `it gives it back itself; kateskit rollout pause ${channel} lets no other machine begin` },
  )
}
