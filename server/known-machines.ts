// Which machines are ours: what every listener leaves head-room for when strangers flood it.

import type { Clock } from '#lib/clock.ts'
import type { Ipv4 } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'
import type { Machine } from '#machine/machine.ts'
import type { Profiles } from '#machine/ports.ts'

/** A machine that was given an address just now is known by it this much later at most. */
const ADDRESSES_MS = 1_000

export interface KnownMachinesOptions {
  readonly profiles: Pick<Profiles, 'machines'>
  readonly roster: { known(mac: Mac): Machine | undefined; all(): readonly Machine[] }
  /** A MAC of a machine that has proved who it is. */
  readonly hasIdentity: (mac: Mac) => boolean
  readonly clock: Clock
}

export class KnownMachines {
  readonly #options: KnownMachinesOptions
  #folders: ReadonlySet<Mac> = new Set()
  #addresses: ReadonlySet<Ipv4> = new Set()
  #addressesMs = Number.NEGATIVE_INFINITY

  constructor(options: KnownMachinesOptions) {
    this.#options = options
  }

  /** Called after any change of the profile tree. */
  refresh(): void {
    this.#folders = new Set(this.#options.profiles.machines())
  }

  /** With a folder in the profile tree, or an identity, or a check-in from before there were identities. Cheap. */
  has(mac: Mac): boolean {
    const { hasIdentity, roster } = this.#options
    return this.#folders.has(mac) || hasIdentity(mac) || roster.known(mac)?.lastCheckInMs !== undefined
  }

  /** The address that one of them had last. An address can be forged: it opens head-room and nothing else. Cheap. */
  hasAddress(ip: Ipv4): boolean {
    const { clock, roster } = this.#options
    const nowMs = clock.monotonicMs()
    if (nowMs - this.#addressesMs >= ADDRESSES_MS) {
      this.#addressesMs = nowMs
      this.#addresses = new Set(
        roster.all().flatMap(({ mac, address }) => (address && this.has(mac) ? [address] : [])),
      )
    }
    return this.#addresses.has(ip)
  }
}
