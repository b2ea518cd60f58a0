// Who may begin a transfer: so many in all, so many per address, and what makes way for whom when there is no place left.

import type { Ipv4 } from '#lib/ipv4.ts'

export interface PlaceLimits {
  readonly maxTransfers: number
  /** Of them, only for addresses of known machines. */
  readonly keptForKnown: number
  /** Per client address: with NAT, of all machines behind it. */
  readonly maxTransfersPerClient: number
}

export interface Placed {
  /** Its client was never heard again after it had asked: perhaps it never asked, for the address may be forged. */
  readonly isHalfOpen: boolean
}

/** A client that is there answers within milliseconds; one that asks again does so after a second or more. */
const HALF_OPEN_MS = 1_000

interface Place<Transfer> {
  readonly ip: Ipv4
  readonly transfer: Transfer
  readonly sinceMs: number
}

export class Places<Transfer extends Placed> {
  readonly #limits: PlaceLimits
  /** By `ip:port` of the client, the one that began first is first. */
  readonly #places = new Map<string, Place<Transfer>>()
  readonly #byIp = new Map<Ipv4, Set<string>>()

  constructor(limits: PlaceLimits) {
    this.#limits = limits
  }

  get(key: string): Transfer | undefined {
    return this.#places.get(key)?.transfer
  }

  all(): readonly Transfer[] {
    return [...this.#places.values()].map(({ transfer }) => transfer)
  }

  take(key: string, { ip, transfer, nowMs }: { ip: Ipv4; transfer: Transfer; nowMs: number }): void {
    this.leave(key)
    this.#places.set(key, { ip, transfer, sinceMs: nowMs })
    this.#byIp.set(ip, (this.#byIp.get(ip) ?? new Set()).add(key))
  }

  leave(key: string): void {
    const place = this.#places.get(key)
    if (place === undefined) return
    this.#places.delete(key)
    const ofIp = this.#byIp.get(place.ip)
    ofIp?.delete(key)
    if (ofIp?.size === 0) this.#byIp.delete(place.ip)
  }

  /**
   * `room`: there is a place. Else the key of the transfer that is to make way, or undefined: nobody makes way. Of an
   * address, its own oldest half-open transfer does; for a known machine, anybody's.
   */
  roomFor(
    ip: Ipv4,
    { isKnown, nowMs }: { isKnown: boolean; nowMs: number },
  ): 'room' | { key: string } | undefined {
    const { maxTransfers, keptForKnown, maxTransfersPerClient } = this.#limits
    const own = this.#byIp.get(ip) ?? new Set()
    if (own.size >= maxTransfersPerClient) return this.#oldestHalfOpen(own, nowMs)
    if (this.#places.size < (isKnown ? maxTransfers : maxTransfers - keptForKnown)) return 'room'
    return this.#oldestHalfOpen(isKnown ? this.#places.keys() : own, nowMs)
  }

  #oldestHalfOpen(keys: Iterable<string>, nowMs: number): { key: string } | undefined {
    for (const key of keys) {
      const place = this.#places.get(key)
      if (place === undefined || nowMs - place.sinceMs < HALF_OPEN_MS) continue
      if (place.transfer.isHalfOpen) return { key }
    }
    return undefined
  }
}
