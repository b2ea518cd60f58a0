// Which addresses can be given to whom: the pool, reservations, leases and offers seen together.

import type { Ipv4 } from '#lib/ipv4.ts'
import { ipv4FromNumber, ipv4ToNumber, subnetBroadcast, subnetHas } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'
import type { Lease } from '#machine/ports.ts'

import { ExpiryQueue } from './expiry-queue.ts'
import { isHeldBy, LeaseIndex } from './lease-index.ts'
import { isLapsed, LeaseOffers, type Offer } from './lease-offers.ts'
import type { LeaseClient, LeasePolicy } from './lease-types.ts'

/** A client that found this many addresses in use is likelier to be broken than right. */
const DOUBTED_DECLINES = 3

/** Why an address cannot be given to a client. */
export type Obstacle = 'wrong-subnet' | 'address-taken' | 'outside-pool' | 'reserved-for-another'

export class Pool {
  readonly policy: LeasePolicy
  readonly #leases = new LeaseIndex()
  readonly #offers: LeaseOffers
  readonly #expiries = new ExpiryQueue()
  readonly #neverLeased: ReadonlySet<Ipv4>
  readonly #taken: ReadonlySet<Ipv4>
  /** Everything from here to the end of the range has never been looked at. */
  #next: number
  readonly #last: number
  /** Addresses whose offer lapsed, oldest first: offered again after those never looked at. */
  readonly #returned = new Set<Ipv4>()

  constructor(policy: LeasePolicy, leases: readonly Lease[], maxOffers?: number) {
    const { subnet, pool, serverIp, takenIps } = policy
    this.policy = policy
    this.#offers = new LeaseOffers(maxOffers)
    this.#neverLeased = new Set([subnet.network, subnetBroadcast(subnet), serverIp])
    this.#taken = new Set(takenIps)
    this.#next = pool === undefined ? 0 : ipv4ToNumber(pool.first)
    this.#last = pool === undefined ? -1 : ipv4ToNumber(pool.last)
    // A client that moved has an old record too: the one that lasts longest is the one it uses.
    for (const lease of leases.toSorted((a, b) => a.expiresMs - b.expiresMs)) this.record(lease)
  }

  leaseAt(ip: Ipv4): Lease | undefined {
    return this.#leases.at(ip)
  }

  leaseOf(client: LeaseClient): Lease | undefined {
    return this.#leases.of(client)
  }

  offerTo(client: LeaseClient): Ipv4 | undefined {
    return this.#offers.of(client)?.ip
  }

  isInPool(ip: Ipv4): boolean {
    const { pool } = this.policy
    if (pool === undefined) return false
    const value = ipv4ToNumber(ip)
    return ipv4ToNumber(pool.first) <= value && value <= ipv4ToNumber(pool.last)
  }

  /** What speaks against this client having this address; undefined: nothing. */
  obstacleTo(ip: Ipv4, client: LeaseClient, nowMs: number): Obstacle | undefined {
    const forbidden = this.#ruleAgainst(ip, client)
    if (forbidden !== undefined) return forbidden
    const lease = this.#leases.at(ip)
    const offer = this.#offerAt(ip, nowMs)
    const isOffered = offer?.clientKey === client.clientKey
    if (lease?.kind === 'declined' && isOffered) return undefined // findFree() offers it as the last resort
    const owner = this.policy.reservedTo(ip)
    // A reservation belongs to the machine, under whatever identifier one of its systems took the address.
    const isOwn = lease?.kind === 'leased' && (isHeldBy(lease, client) || owner === lease.mac)
    if (lease !== undefined && lease.expiresMs > nowMs && !isOwn) return 'address-taken'
    return offer !== undefined && !isOffered && owner === undefined ? 'address-taken' : undefined
  }

  /**
   * An address for a client that has none: never used before, else the one whose lease ended longest ago, else one
   * whose DECLINE is in doubt (docs/decisions/declined-addresses.md).
   */
  findFree(client: LeaseClient, nowMs: number): Ipv4 | undefined {
    this.#takeBack(this.#offers.expire(nowMs))
    return (
      this.#findUnused(client, nowMs) ?? this.#findExpired(client, nowMs) ?? this.#findDeclined(client, nowMs)
    )
  }

  holdOffer(ip: Ipv4, client: LeaseClient, nowMs: number): void {
    this.#returned.delete(ip)
    this.#takeBack(this.#offers.hold(ip, client, nowMs))
  }

  dropOffer(client: LeaseClient): void {
    this.#takeBack(this.#offers.drop(client))
  }

  /** Replaces what is known of the address; returns what was known before. */
  record(lease: Lease): Lease | undefined {
    const before = this.#leases.at(lease.ip)
    this.#leases.put(lease)
    this.#returned.delete(lease.ip)
    this.#expiries.push(lease)
    // A renewal leaves its old entry in the queue until it comes up; do not let them pile up.
    if (this.#expiries.size > 2 * this.#leases.size + 64) this.#rebuildExpiries()
    return before
  }

  /** Takes a `record` back that could not be committed. */
  restore(ip: Ipv4, before: Lease | undefined): void {
    if (before !== undefined) {
      this.record(before)
      return
    }
    this.#leases.remove(ip)
    this.#takeBack([ip])
  }

  /** What the configuration says against it, whoever uses the address now. */
  #ruleAgainst(ip: Ipv4, client: LeaseClient): Obstacle | undefined {
    if (!subnetHas(this.policy.subnet, ip)) return 'wrong-subnet'
    if (this.#neverLeased.has(ip)) return 'address-taken'
    const owner = this.policy.reservedTo(ip)
    if (owner !== undefined) return owner === client.mac ? undefined : 'reserved-for-another'
    if (this.#taken.has(ip)) return 'address-taken'
    return this.isInPool(ip) ? undefined : 'outside-pool'
  }

  #offerAt(ip: Ipv4, nowMs: number): Offer | undefined {
    const offer = this.#offers.at(ip)
    return offer === undefined || isLapsed(offer, nowMs) ? undefined : offer
  }

  #findUnused(client: LeaseClient, nowMs: number): Ipv4 | undefined {
    for (; this.#next <= this.#last; this.#next++) {
      const ip = ipv4FromNumber(this.#next)
      const isUnused = this.#leases.at(ip) === undefined
      if (isUnused && this.obstacleTo(ip, client, nowMs) === undefined) {
        this.#next++
        this.#returned.add(ip) // until it is offered, so that asking alone uses nothing up
        return ip
      }
      // Passed over because of a file or an offer, which may go away: look again later.
      if (isUnused && !this.#neverLeased.has(ip)) this.#returned.add(ip)
    }
    for (const ip of this.#returned) {
      if (this.obstacleTo(ip, client, nowMs) === undefined) return ip
    }
    return undefined
  }

  #findExpired(client: LeaseClient, nowMs: number): Ipv4 | undefined {
    const passedOver: Lease[] = []
    let found: Ipv4 | undefined
    while (found === undefined) {
      const entry = this.#expiries.peek()
      if (entry === undefined || entry.expiresMs > nowMs) break
      const lease = this.#leases.at(entry.ip)
      const isStale = lease === undefined || lease.expiresMs !== entry.expiresMs
      if (!isStale && this.obstacleTo(lease.ip, client, nowMs) === undefined) {
        found = lease.ip
        break
      }
      this.#expiries.pop()
      if (!isStale) passedOver.push(lease) // on offer to another, or reserved: not now
    }
    for (const lease of passedOver) this.#expiries.push(lease)
    return found
  }

  /** Of a client that declines one address after the other, and never for that client: it would do so again. */
  #findDeclined(client: LeaseClient, nowMs: number): Ipv4 | undefined {
    const declined = [...this.#leases.declined()]
    const times = new Map<Mac, number>()
    for (const { mac } of declined) times.set(mac, (times.get(mac) ?? 0) + 1)
    for (const { ip, mac } of declined) {
      const isBelieved = (times.get(mac) ?? 0) < DOUBTED_DECLINES
      if (isBelieved || mac === client.mac || this.#ruleAgainst(ip, client) !== undefined) continue
      const offer = this.#offerAt(ip, nowMs)
      if (offer === undefined || offer.clientKey === client.clientKey) return ip
    }
    return undefined
  }

  /** Addresses with a record are found again by its expiry; the others are kept at hand. */
  #takeBack(ips: readonly Ipv4[]): void {
    for (const ip of ips) {
      if (this.#leases.at(ip) === undefined && this.isInPool(ip)) this.#returned.add(ip)
    }
  }

  #rebuildExpiries(): void {
    this.#expiries.clear()
    for (const lease of this.#leases.all()) this.#expiries.push(lease)
  }
}
