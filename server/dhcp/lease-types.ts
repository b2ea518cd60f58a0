// What the lease engine is asked and what it answers: no packets, no sockets.

import type { Ipv4, Subnet } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'
import type { Lease } from '#machine/lease-ports.ts'

/** Who asks. */
export interface LeaseClient {
  /** As in `Lease`: option 61 in hex, or `mac:<mac>`. */
  readonly clientKey: string
  readonly mac: Mac
}

/** One client message, reduced to what a decision about an address needs (RFC 2131 §4.3). */
export interface LeaseAsk extends LeaseClient {
  readonly type: 'discover' | 'request' | 'decline' | 'release' | 'inform'
  /** Option 50. */
  readonly requestedIp?: Ipv4
  /** Option 54: the server the client speaks to. */
  readonly serverId?: Ipv4
  /** "ciaddr": the address the client already uses. */
  readonly clientIp?: Ipv4
  /** "giaddr": the relay agent's address on the client's network. */
  readonly relayIp?: Ipv4
  /** How it came: what tells RENEWING from REBINDING. Relayed messages count as broadcast, for the client sent one. */
  readonly arrived: 'unicast' | 'broadcast'
  readonly hostname?: string
  /** Option 51. */
  readonly leaseSeconds?: number
}

export interface AddressRange {
  readonly first: Ipv4
  /** The last one belongs to the range. */
  readonly last: Ipv4
}

/** What a lease may be. */
export interface LeasePolicy {
  readonly serverIp: Ipv4
  readonly subnet: Subnet
  /** Absent: only machines with a reservation get an address. */
  readonly pool?: AddressRange
  /** In use by hosts that ask for no address, such as router and DNS servers: leased to nobody without a reservation. */
  readonly takenIps: readonly Ipv4[]
  readonly leaseSeconds: number
  /** For machines that are not known. */
  readonly unknownLeaseSeconds: number
  /** How much of the pool is kept for known machines, in percent. */
  readonly keptPercent: number
  /** A machine with a folder in the profile tree, or one that has proved who it is. Asked per packet: no search. */
  readonly isKnown: (mac: Mac) => boolean
  /** The address `machines/<mac>/ip` gives; asked anew each time, for the file may have changed. */
  readonly reservationFor: (mac: Mac) => Ipv4 | undefined
  readonly reservedTo: (ip: Ipv4) => Mac | undefined
}

/** Why there is no answer. */
export type SilenceReason =
  | 'other-server' // the client chose another server's offer
  | 'other-subnet' // a relay agent or an address of a network that has no pool here
  | 'not-its-address' // DECLINE or RELEASE of an address the client does not hold
  | 'malformed' // a field that the message must have is missing
  | 'pool-empty'
  | 'too-many-newcomers' // the rate of leases for unknown machines

export type NakReason =
  | 'wrong-subnet'
  | 'address-taken'
  | 'outside-pool'
  | 'reserved-for-another'
  | 'reservation-changed'
  | 'has-another'
  | 'kept-for-known'

export type LeaseDecision =
  | { readonly kind: 'offer'; readonly ip: Ipv4; readonly leaseSeconds: number }
  /** `lease` is committed before the ACK leaves. */
  | { readonly kind: 'ack'; readonly lease: Lease; readonly leaseSeconds: number; readonly isFirst: boolean }
  | { readonly kind: 'nak'; readonly reason: NakReason; readonly ip: Ipv4 }
  /** The answer to INFORM: parameters, no address and no lease (RFC 2131 §4.3.5). */
  | { readonly kind: 'inform-ack' }
  /** No answer, but `lease` (a quarantine) is committed. */
  | { readonly kind: 'decline'; readonly lease: Lease }
  /** No answer, but `lease` (now expired) is committed. */
  | { readonly kind: 'release'; readonly lease: Lease }
  | { readonly kind: 'silent'; readonly reason: SilenceReason }
