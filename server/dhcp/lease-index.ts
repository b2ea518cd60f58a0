// What the lease store holds, in memory and by every name it is looked up by. One record per address, expired ones too.

import type { Ipv4 } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'
import type { Lease } from '#machine/lease-ports.ts'

import type { LeaseClient } from './lease-types.ts'

export class LeaseIndex {
  readonly #byIp = new Map<Ipv4, Lease>()
  readonly #byClient = new Map<string, Lease>()
  /** The one recorded last. */
  readonly #byMac = new Map<Mac, Lease>()
  readonly #allOfMac = new Map<Mac, Set<Lease>>()
  readonly #declined = new Set<Lease>()

  get size(): number {
    return this.#byIp.size
  }

  all(): Iterable<Lease> {
    return this.#byIp.values()
  }

  /** The one declined longest ago first, whether or not its time is over. */
  declined(): Iterable<Lease> {
    return this.#declined
  }

  at(ip: Ipv4): Lease | undefined {
    return this.#byIp.get(ip)
  }

  /** The last lease this client had, expired or not. */
  of(client: LeaseClient): Lease | undefined {
    const own = this.#byClient.get(client.clientKey)
    if (own !== undefined) return own
    const ofMac = this.#byMac.get(client.mac)
    return ofMac !== undefined && isHeldBy(ofMac, client) ? ofMac : undefined
  }

  /** Under whatever identifier, and not expired; none that was declined. */
  liveOf(mac: Mac, nowMs: number): readonly Lease[] {
    return [...(this.#allOfMac.get(mac) ?? [])].filter(({ expiresMs }) => expiresMs > nowMs)
  }

  /** Replaces what is known of the address. */
  put(lease: Lease): void {
    this.remove(lease.ip)
    this.#byIp.set(lease.ip, lease)
    if (lease.kind === 'declined') {
      this.#declined.add(lease)
      return
    }
    this.#byClient.set(lease.clientKey, lease)
    this.#byMac.set(lease.mac, lease)
    this.#allOfMac.set(lease.mac, (this.#allOfMac.get(lease.mac) ?? new Set()).add(lease))
  }

  remove(ip: Ipv4): void {
    const lease = this.#byIp.get(ip)
    if (lease === undefined) return
    this.#byIp.delete(ip)
    this.#declined.delete(lease)
    if (this.#byClient.get(lease.clientKey) === lease) this.#byClient.delete(lease.clientKey)
    if (this.#byMac.get(lease.mac) === lease) this.#byMac.delete(lease.mac)
    const ofMac = this.#allOfMac.get(lease.mac)
    ofMac?.delete(lease)
    if (ofMac?.size === 0) this.#allOfMac.delete(lease.mac)
  }
}

/**
 * Firmware, loader and system of one machine name themselves differently: OVMF sends no option 61, systemd-networkd
 * a DUID. A lease under the bare MAC passes to the same MAC under an identifier and back (as dnsmasq does it), so that
 * a netboot takes one address and not three. Two identifiers on one MAC remain two clients (RFC 2131 §2.1).
 */
export function isHeldBy(lease: Lease, client: LeaseClient): boolean {
  if (lease.kind === 'declined') return false
  if (lease.clientKey === client.clientKey) return true
  const bareKey = `mac:${client.mac}`
  return lease.mac === client.mac && (lease.clientKey === bareKey || client.clientKey === bareKey)
}
