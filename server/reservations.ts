// The addresses that `machines/<mac>/ip` reserves, looked up both ways.

import { findIpv4, type Ipv4 } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'
import type { Profiles } from '#machine/ports.ts'

export class Reservations {
  readonly #profiles: Profiles
  #byIp: ReadonlyMap<Ipv4, Mac> = new Map()

  constructor(profiles: Profiles) {
    this.#profiles = profiles
  }

  /** Called after any change of the profile tree. The lower MAC keeps an address that two machines want. */
  refresh(): void {
    const byIp = new Map<Ipv4, Mac>()
    for (const mac of [...this.#profiles.machines()].sort()) {
      const ip = this.#wanted(mac)
      if (ip !== undefined && !byIp.has(ip)) byIp.set(ip, mac)
    }
    this.#byIp = byIp
  }

  reservationFor(mac: Mac): Ipv4 | undefined {
    const ip = this.#wanted(mac)
    return ip !== undefined && this.#byIp.get(ip) === mac ? ip : undefined
  }

  reservedTo(ip: Ipv4): Mac | undefined {
    return this.#byIp.get(ip)
  }

  #wanted(mac: Mac): Ipv4 | undefined {
    return findIpv4(this.#profiles.profileFor(mac).settings.get('ip')?.value ?? '')
  }
}
