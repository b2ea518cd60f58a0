// What the front doors need of a UDP socket; server/sockets/ opens real ones.

import type { Socket } from 'node:dgram'

import type { Ipv4 } from './ipv4.ts'

/** Where a datagram comes from or goes to. */
export interface Endpoint {
  readonly ip: Ipv4
  readonly port: number
}

export interface UdpOptions {
  /** 0 picks a free one. */
  readonly port: number
  /** The local address; absent means any. */
  readonly address?: Ipv4
  /** Only packets of this network interface arrive, and packets leave only through it (SO_BINDTODEVICE). */
  readonly networkInterface?: string
  readonly broadcast?: boolean
  /** Asked for beyond `rmem_max` where the process may (SO_RCVBUFFORCE). */
  readonly receiveBufferBytes?: number
}

/** Resolves with a bound socket, which the caller closes. Throws KitError `conflict` for a port in use, `forbidden` without the right to open it. */
export type OpenUdp = (options: UdpOptions) => Promise<Socket>
