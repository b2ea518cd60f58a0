// Which machines are ours: what every listener leaves head-room for when strangers flood it.

import type { Clock } from '#lib/clock.ts'
import type { Ipv4 } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'
import type { Machine } from '#machine/machine.ts'
import type { Profiles } from '#machine/ports.ts'

/** How long an address counts after a machine spoke from it with its certificate. */
const ADDRESS_MS = 24 * 3_600_000
const ADDRESSES_MAX = 16_384

export interface KnownMachinesOptions {
  readonly profiles: Pick<Profiles, 'machines'>
  readonly roster: { known(mac: Mac): Machine | undefined }
  /** A MAC of a machine that has proved who it is. */
  readonly hasIdentity: (mac: Mac) => boolean
  readonly clock: Pick<Clock, 'monotonicMs'>
}

export class KnownMachines {
  readonly #options: KnownMachinesOptions
  #folders: ReadonlySet<Mac> = new Set()
  /** When a machine last proved itself from there; the latest is last. */
  readonly #addresses = new Map<Ipv4, number>()
  #leasedTo: (ip: Ipv4) => Mac | undefined = () => undefined

  constructor(options: KnownMachinesOptions) {
    this.#options = options
  }

  /** Where leases are looked up, once there are any. */
  useLeases(leasedTo: (ip: Ipv4) => Mac | undefined): void {
    this.#leasedTo = leasedTo
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

  /** A machine has shown its certificate from there. */
  noteAddress(ip: Ipv4): void {
    this.#addresses.delete(ip)
    this.#addresses.set(ip, this.#options.clock.monotonicMs())
    const [oldest] = this.#addresses.keys()
    if (this.#addresses.size > ADDRESSES_MAX && oldest !== undefined) this.#addresses.delete(oldest)
  }

  /**
   * Leased to one of them now, or one has proved itself from there lately; what anybody may say of an address counts
   * for nothing. It can be forged all the same, and opens head-room and nothing else. Cheap.
   */
  hasAddress(ip: Ipv4): boolean {
    const provedMs = this.#addresses.get(ip)
    if (provedMs !== undefined && this.#options.clock.monotonicMs() - provedMs < ADDRESS_MS) return true
    const holder = this.#leasedTo(ip)
    return holder !== undefined && this.has(holder)
  }
}
