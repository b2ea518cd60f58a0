// One stretch of the pool: which of its addresses were never leased, and which leases in it ended, without a search per packet.

import { type Ipv4, ipv4FromNumber, ipv4ToNumber } from '#lib/ipv4.ts'
import type { Lease } from '#machine/lease-ports.ts'

import { ExpiryQueue } from './expiry-queue.ts'
import type { LeaseIndex } from './lease-index.ts'

export class PoolPart {
  readonly #leases: LeaseIndex
  readonly #expiries = new ExpiryQueue()
  readonly #first: number
  readonly #last: number
  /** Everything from here to the end has never been looked at. */
  #next: number
  /** Addresses whose offer lapsed, oldest first: offered again after those never looked at. */
  readonly #returned = new Set<Ipv4>()

  /** Both ends belong to it; `last` below `first` makes an empty one. */
  constructor({ first, last }: { readonly first: number; readonly last: number }, leases: LeaseIndex) {
    this.#first = first
    this.#last = last
    this.#next = first
    this.#leases = leases
  }

  has(ip: Ipv4): boolean {
    const value = ipv4ToNumber(ip)
    return this.#first <= value && value <= this.#last
  }

  /** A lease of this part is in the index now. */
  note(lease: Lease): void {
    this.#returned.delete(lease.ip)
    this.#expiries.push(lease)
    // A renewal leaves its old entry in the queue until it comes up; do not let them pile up.
    if (this.#expiries.size > 2 * this.#leases.size + 64) this.#rebuildExpiries()
  }

  isOnOffer(ip: Ipv4): void {
    this.#returned.delete(ip)
  }

  /** The offer of an address is over. Those with a record are found again by its end; the others are kept at hand. */
  takeBack(ip: Ipv4): void {
    if (this.#leases.at(ip) === undefined) this.#returned.add(ip)
  }

  /** An address without a record that `isFree`. */
  findUnused(isFree: (ip: Ipv4) => boolean): Ipv4 | undefined {
    for (; this.#next <= this.#last; this.#next++) {
      const ip = ipv4FromNumber(this.#next)
      if (this.#leases.at(ip) !== undefined) continue
      this.#returned.add(ip) // also when a file or an offer, which may go away, is in its way
      if (!isFree(ip)) continue
      this.#next++
      return ip
    }
    for (const ip of this.#returned) if (isFree(ip)) return ip
    return undefined
  }

  /** The record that ends first, before `untilMs`, of those that `isFree`. */
  findEnding(untilMs: number, isFree: (lease: Lease) => boolean): Ipv4 | undefined {
    const passedOver: Lease[] = []
    let found: Lease | undefined
    while (found === undefined) {
      const entry = this.#expiries.peek()
      if (entry === undefined || entry.expiresMs > untilMs) break
      const lease = this.#leases.at(entry.ip)
      this.#expiries.pop()
      if (lease === undefined || lease.expiresMs !== entry.expiresMs) continue
      passedOver.push(lease)
      if (isFree(lease)) found = lease
    }
    for (const lease of passedOver) this.#expiries.push(lease)
    return found?.ip
  }

  #rebuildExpiries(): void {
    this.#expiries.clear()
    for (const lease of this.#leases.all()) if (this.has(lease.ip)) this.#expiries.push(lease)
  }
}
