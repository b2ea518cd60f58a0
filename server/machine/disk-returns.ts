// Machines that were sent to their own disk and are back from the network's boot at once: there is nothing to start on it.

import type { Clock } from '#lib/clock.ts'
import type { Mac } from '#lib/mac.ts'

import type { BootPlan } from './boot-plan.ts'
import type { BootWish } from './ports.ts'

/** Firmware may try some other boot options in between, each with its own patience. */
const BACK_WITHIN_MS = 5 * 60_000

/** In memory: a server that has just started sends a machine to its disk once more. */
export class DiskReturns {
  readonly #clock: Clock
  readonly #sentMs = new Map<Mac, number>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Safe to be wrong: what recovers starts a slot that is good after all, and touches none that is. */
  wishOf(mac: Mac): BootWish | undefined {
    const sentMs = this.#sentMs.get(mac)
    if (sentMs === undefined || this.#clock.monotonicMs() - sentMs > BACK_WITHIN_MS) return undefined
    return 'recover'
  }

  offered(mac: Mac, plan: BootPlan): void {
    if (plan.kind === 'local-disk' && plan.menu) this.#sentMs.set(mac, this.#clock.monotonicMs())
  }

  /** A system runs there. */
  forget(mac: Mac): void {
    this.#sentMs.delete(mac)
  }
}
