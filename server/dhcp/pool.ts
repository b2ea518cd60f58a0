// Which addresses can be given to whom: the pool, reservations, leases and offers seen together.

import { type Ipv4, ipv4ToNumber, subnetBroadcast, subnetHas } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'
import type { Lease } from '#machine/lease-ports.ts'

import { isHeldBy, LeaseIndex } from './lease-index.ts'
import { isLapsed, LeaseOffers, type Offer } from './lease-offers.ts'
import type { LeaseClient, LeasePolicy } from './lease-types.ts'
import { PoolPart } from './pool-part.ts'
import { shareOut } from './pool-shares.ts'

/** A client that found this many addresses in use is likelier to be broken than right. */
const DOUBTED_DECLINES = 3

/** Why an address cannot be given to a client. */
export type Obstacle =
  | 'wrong-subnet'
  | 'address-taken'
  | 'outside-pool'
  | 'reserved-for-another'
  | 'kept-for-known'

export class Pool {
  readonly policy: LeasePolicy
  readonly #leases = new LeaseIndex()
  readonly #offers: LeaseOffers
  readonly #neverLeased: ReadonlySet<Ipv4>
  readonly #taken: ReadonlySet<Ipv4>
  readonly #open: PoolPart
  /** For known machines. */
  readonly #kept: PoolPart

  constructor(policy: LeasePolicy, leases: readonly Lease[], maxOffers?: number) {
    const { subnet, pool, serverIp, takenIps, keptPercent } = policy
    this.policy = policy
    this.#offers = new LeaseOffers(maxOffers)
    this.#neverLeased = new Set([subnet.network, subnetBroadcast(subnet), serverIp])
    this.#taken = new Set(takenIps)
    const shares = shareOut(pool, keptPercent)
    this.#open = new PoolPart(shares.open, this.#leases)
    this.#kept = new PoolPart(shares.kept, this.#leases)
    // A client that moved has an old record too: the one that lasts longest is the one it uses.
    for (const lease of leases.toSorted((a, b) => a.expiresMs - b.expiresMs)) this.record(lease)
  }

  leaseAt(ip: Ipv4): Lease | undefined {
    return this.#leases.at(ip)
  }

  /** Whose lease of it has not ended. */
  holderOf(ip: Ipv4, nowMs: number): Mac | undefined {
    const lease = this.#leases.at(ip)
    return lease?.kind === 'leased' && lease.expiresMs > nowMs ? lease.mac : undefined
  }

  leaseOf(client: LeaseClient): Lease | undefined {
    return this.#leases.of(client)
  }

  offerTo(client: LeaseClient): Ipv4 | undefined {
    return this.#offers.of(client)?.ip
  }

  isKnown({ mac }: LeaseClient): boolean {
    return this.policy.isKnown(mac)
  }

  /** True for a client that would cost another address: not for a known machine, nor one that renews or was made an offer. */
  isNewcomer(client: LeaseClient, nowMs: number): boolean {
    const isFirst = () => this.#leases.liveOf(client.mac, nowMs).length === 0
    if (this.isKnown(client) && isFirst()) return false
    const offer = this.#offers.of(client)
    if (offer !== undefined && !isLapsed(offer, nowMs)) return false
    const lease = this.#leases.of(client)
    return lease === undefined || lease.expiresMs <= nowMs
  }

  isInPool(ip: Ipv4): boolean {
    const { pool } = this.policy
    if (pool === undefined) return false
    const value = ipv4ToNumber(ip)
    return ipv4ToNumber(pool.first) <= value && value <= ipv4ToNumber(pool.last)
  }

  /** What speaks against this client having this address; undefined: nothing. */
  obstacleTo(ip: Ipv4, client: LeaseClient, nowMs: number): Obstacle | undefined {
    const forbidden = this.#ruleAgainst(ip, client, nowMs)
    if (forbidden !== undefined) return forbidden
    const lease = this.#leases.at(ip)
    const offer = this.#offerAt(ip, nowMs)
    const isOffered = isOfferTo(offer, client)
    // find() offers what others have or declined as the last resort
    if (isOffered && (lease?.kind === 'declined' || offer?.isFavoured)) return undefined
    if (lease !== undefined && lease.expiresMs > nowMs && !this.#isOwn(lease, client)) return 'address-taken'
    const isReserved = this.policy.reservedTo(ip) !== undefined
    return offer !== undefined && !isOffered && !isReserved ? 'address-taken' : undefined
  }

  /**
   * An address for a client that has none: never used before, else the one whose lease ended longest ago, else one
   * whose DECLINE is in doubt (docs/decisions/declined-addresses.md). A known machine has the kept part besides, and
   * in the end what its MAC has under another identifier, or the address of the unknown client that was silent longest.
   */
  findFree(client: LeaseClient, nowMs: number): Ipv4 | undefined {
    this.#takeBack(this.#offers.expire(nowMs))
    const isKnown = this.isKnown(client)
    const isFree = (ip: Ipv4) => this.obstacleTo(ip, client, nowMs) === undefined
    // The record of a known machine is the last to go: it gets its old address when it comes back.
    const isStrangers = ({ ip, mac }: Lease) => !this.policy.isKnown(mac) && isFree(ip)
    const isAnybodys = ({ ip }: Lease) => isFree(ip)
    return (
      this.#open.findUnused(isFree) ??
      this.#open.findEnding(nowMs, isStrangers) ??
      (isKnown ? this.#findKept(client, nowMs, isFree) : undefined) ??
      this.#open.findEnding(nowMs, isAnybodys) ??
      this.#findDeclined(client, nowMs) ??
      (isKnown ? this.#findToTake(client, nowMs) : undefined)
    )
  }

  holdOffer(ip: Ipv4, client: LeaseClient, nowMs: number): void {
    this.#partOf(ip)?.isOnOffer(ip)
    this.#takeBack(this.#offers.hold(ip, client, { nowMs, isFavoured: this.isKnown(client) }))
  }

  dropOffer(client: LeaseClient): void {
    this.#takeBack(this.#offers.drop(client))
  }

  /** Replaces what is known of the address; returns what was known before. */
  record(lease: Lease): Lease | undefined {
    const before = this.#leases.at(lease.ip)
    this.#leases.put(lease)
    this.#partOf(lease.ip)?.note(lease)
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
  #ruleAgainst(ip: Ipv4, client: LeaseClient, nowMs: number): Obstacle | undefined {
    if (!subnetHas(this.policy.subnet, ip)) return 'wrong-subnet'
    if (this.#neverLeased.has(ip)) return 'address-taken'
    const owner = this.policy.reservedTo(ip)
    if (owner !== undefined) return owner === client.mac ? undefined : 'reserved-for-another'
    if (this.#taken.has(ip)) return 'address-taken'
    if (!this.isInPool(ip)) return 'outside-pool'
    if (!this.#kept.has(ip)) return undefined
    if (!this.isKnown(client)) return 'kept-for-known'
    // One for each MAC: whoever makes identifiers up for the MAC of a known machine takes nothing from the others.
    return this.#keptLeases(client, nowMs).every((lease) => lease.ip === ip) ? undefined : 'address-taken'
  }

  #keptLeases({ mac }: LeaseClient, nowMs: number): readonly Lease[] {
    return this.#leases.liveOf(mac, nowMs).filter(({ ip }) => this.#kept.has(ip))
  }

  /** A reservation, and the kept part, belong to the machine, under whatever identifier one of its systems asks. */
  #isOwn(lease: Lease, client: LeaseClient): boolean {
    if (lease.kind === 'declined') return false
    const isOfItsMac = lease.mac === client.mac
    if (isOfItsMac && (this.policy.reservedTo(lease.ip) === client.mac || this.#kept.has(lease.ip)))
      return true
    return isHeldBy(lease, client)
  }

  #offerAt(ip: Ipv4, nowMs: number): Offer | undefined {
    const offer = this.#offers.at(ip)
    return offer === undefined || isLapsed(offer, nowMs) ? undefined : offer
  }

  #findKept(client: LeaseClient, nowMs: number, isFree: (ip: Ipv4) => boolean): Ipv4 | undefined {
    const own = this.#keptLeases(client, nowMs).find(({ ip }) => isFree(ip))
    return own?.ip ?? this.#kept.findUnused(isFree) ?? this.#kept.findEnding(nowMs, ({ ip }) => isFree(ip))
  }

  /** Of a client that declines one address after the other, and never for that client: it would do so again. */
  #findDeclined(client: LeaseClient, nowMs: number): Ipv4 | undefined {
    const declined = [...this.#leases.declined()]
    const times = new Map<Mac, number>()
    for (const { mac } of declined) times.set(mac, (times.get(mac) ?? 0) + 1)
    const isKnown = this.isKnown(client)
    for (const { ip, mac } of declined) {
      // A flood declines each address under another MAC: a known machine takes the chance.
      const isBelieved = (times.get(mac) ?? 0) < DOUBTED_DECLINES && (!isKnown || this.policy.isKnown(mac))
      if (isBelieved || mac === client.mac || this.#ruleAgainst(ip, client, nowMs) !== undefined) continue
      const offer = this.#offerAt(ip, nowMs)
      if (offer === undefined || isOfferTo(offer, client)) return ip
    }
    return undefined
  }

  /** For a known machine, from whoever is likeliest not to be there: its lease is the one that ends first. */
  #findToTake(client: LeaseClient, nowMs: number): Ipv4 | undefined {
    const isPossible = ({ ip, kind }: Lease) => {
      if (kind === 'declined' || this.#ruleAgainst(ip, client, nowMs) !== undefined) return false
      const offer = this.#offerAt(ip, nowMs)
      return offer === undefined || !offer.isFavoured || isOfferTo(offer, client)
    }
    const own = this.#leases.liveOf(client.mac, nowMs)
    if (own.length > 0) return own.find(isPossible)?.ip
    const isSpare = (lease: Lease) =>
      !this.policy.isKnown(lease.mac) || this.#leases.liveOf(lease.mac, nowMs).length > 1
    const isFound = (lease: Lease) => isPossible(lease) && isSpare(lease)
    for (const part of [this.#open, this.#kept]) {
      const ip = part.findEnding(Number.POSITIVE_INFINITY, isFound)
      if (ip !== undefined) return ip
    }
    return undefined
  }

  #partOf(ip: Ipv4): PoolPart | undefined {
    return [this.#open, this.#kept].find((part) => part.has(ip))
  }

  #takeBack(ips: readonly Ipv4[]): void {
    for (const ip of ips) this.#partOf(ip)?.takeBack(ip)
  }
}

function isOfferTo(offer: Offer | undefined, { clientKey, mac }: LeaseClient): boolean {
  return offer !== undefined && (offer.clientKey === clientKey || (offer.isFavoured && offer.mac === mac))
}
