// Addresses on offer: kept in memory for a short time, so that two clients are not offered the same one.

import type { Ipv4 } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'

import type { LeaseClient } from './lease-types.ts'

/** Long enough for OVMF, which collects offers for up to 32 s, and short enough that a flood does not keep the pool. */
export const OFFER_MS = 40_000
const MAX_OFFERS = 2048

export interface Offer {
  readonly ip: Ipv4
  readonly clientKey: string
  readonly mac: Mac
  readonly untilMs: number
  /** To a known machine: there is one for each MAC, under whatever identifier it asks, and no flood pushes it out. */
  readonly isFavoured: boolean
}

/** More than a whole term left means that the clock was set back since: nobody waits for that offer any more. */
export function isLapsed({ untilMs }: Offer, nowMs: number): boolean {
  return untilMs <= nowMs || untilMs > nowMs + OFFER_MS
}

export interface HoldOptions {
  readonly nowMs: number
  readonly isFavoured: boolean
}

export class LeaseOffers {
  readonly #maxOffers: number
  /** Both in the order in which the offers were made. */
  readonly #byIp = new Map<Ipv4, Offer>()
  readonly #byClient = new Map<string, Offer>()
  readonly #favoured = new Map<Mac, Offer>()

  constructor(maxOffers: number = MAX_OFFERS) {
    this.#maxOffers = maxOffers
  }

  get size(): number {
    return this.#byIp.size
  }

  at(ip: Ipv4): Offer | undefined {
    return this.#byIp.get(ip)
  }

  of(client: LeaseClient): Offer | undefined {
    return this.#byClient.get(client.clientKey) ?? this.#favoured.get(client.mac)
  }

  /** Returns the addresses that this offer pushed out: the client's earlier one, and the oldest when the table is full. */
  hold(ip: Ipv4, client: LeaseClient, { nowMs, isFavoured }: HoldOptions): readonly Ipv4[] {
    const freed = this.drop(client)
    const former = isFavoured ? this.#favoured.get(client.mac) : undefined
    const rival = this.#byIp.get(ip) // a machine asks for its reserved address under another identifier
    for (const other of [former, rival]) {
      if (other === undefined) continue
      this.#forget(other)
      freed.push(other.ip)
    }
    const oldest = this.#byIp.size >= this.#maxOffers ? this.#oldest() : undefined
    if (oldest !== undefined) {
      this.#forget(oldest)
      freed.push(oldest.ip)
    }
    const { clientKey, mac } = client
    const offer = { ip, clientKey, mac, untilMs: nowMs + OFFER_MS, isFavoured }
    this.#byIp.set(ip, offer)
    this.#byClient.set(clientKey, offer)
    if (isFavoured) this.#favoured.set(mac, offer)
    return freed.filter((earlier) => earlier !== ip)
  }

  /** To an unknown machine where there is one. */
  #oldest(): Offer | undefined {
    for (const offer of this.#byIp.values()) if (!offer.isFavoured) return offer
    return this.#byIp.values().next().value
  }

  /** Ends the client's offer; returns its address, if there was one. */
  drop(client: LeaseClient): Ipv4[] {
    const offer = this.#byClient.get(client.clientKey)
    if (offer === undefined) return []
    this.#forget(offer)
    return [offer.ip]
  }

  /** Ends offers nobody took; returns their addresses. */
  expire(nowMs: number): readonly Ipv4[] {
    const freed: Ipv4[] = []
    for (const offer of this.#byIp.values()) {
      if (!isLapsed(offer, nowMs)) break
      this.#forget(offer)
      freed.push(offer.ip)
    }
    return freed
  }

  #forget(offer: Offer): void {
    this.#byIp.delete(offer.ip)
    this.#byClient.delete(offer.clientKey)
    if (this.#favoured.get(offer.mac) === offer) this.#favoured.delete(offer.mac)
  }
}
