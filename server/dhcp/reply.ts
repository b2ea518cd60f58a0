// Server mode: from a lease decision to the packet that tells the client, and where that packet goes.

import { ANY_IPV4, BROADCAST_IPV4, type Ipv4, ipv4ToBytes } from '#lib/ipv4.ts'
import type { Endpoint } from '#lib/udp.ts'
import type { DhcpPacket } from '#wire/dhcp4.ts'
import { BOOTP_OP, DHCP_PORT, MESSAGE_TYPE, type MessageType, OPTION } from '#wire/dhcp4-codes.ts'
import { type DhcpOptions, textBytes, uint8Bytes } from '#wire/dhcp4-values.ts'

import type { LeaseDecision, NakReason } from './lease-types.ts'
import { leaseTimeOptions, type NetworkParameters, networkOptions } from './reply-options.ts'

export interface ReplyParameters extends NetworkParameters {
  readonly serverIp: Ipv4
  /** What the machine is called in its profile; option 12. */
  readonly hostname: string | undefined
}

const NAK_MESSAGES: Readonly<Record<NakReason, string>> = {
  'wrong-subnet': 'address is not on this network',
  'address-taken': 'address is in use by another client',
  'outside-pool': 'address is not in the pool',
  'reserved-for-another': 'address is reserved for another machine',
  'reservation-changed': 'another address is reserved for this machine',
  'has-another': 'this client has another address',
  'kept-for-known': 'address is kept for known machines',
}

/** The columns of RFC 2131 table 3. Undefined for a decision that is not answered. */
export function leaseReply(
  request: DhcpPacket,
  decision: LeaseDecision,
  parameters: ReplyParameters,
): DhcpPacket | undefined {
  const network = () => networkOptions(request.options, parameters, parameters.hostname)
  const reply = (type: MessageType, yourIp: Ipv4, ...options: readonly DhcpOptions[]) =>
    replyPacket(request, { type, yourIp, serverIp: parameters.serverIp, options })
  switch (decision.kind) {
    case 'offer':
      return reply(MESSAGE_TYPE.offer, decision.ip, leaseTimeOptions(decision.leaseSeconds), network())
    case 'ack':
      return reply(MESSAGE_TYPE.ack, decision.lease.ip, leaseTimeOptions(decision.leaseSeconds), network())
    case 'inform-ack':
      return reply(MESSAGE_TYPE.ack, ANY_IPV4, network())
    case 'nak':
      return reply(
        MESSAGE_TYPE.nak,
        ANY_IPV4,
        new Map([[OPTION.message, textBytes(NAK_MESSAGES[decision.reason])]]),
      )
    case 'decline':
    case 'release':
    case 'silent':
      return undefined
    default:
      return decision satisfies never
  }
}

function replyPacket(
  request: DhcpPacket,
  reply: {
    readonly type: MessageType
    readonly yourIp: Ipv4
    readonly serverIp: Ipv4
    readonly options: readonly DhcpOptions[]
  },
): DhcpPacket {
  const isNak = reply.type === MESSAGE_TYPE.nak
  return {
    ...request,
    op: BOOTP_OP.reply,
    hops: 0,
    secs: 0,
    // A relay agent must not send a NAK to an address that is just being taken away (RFC 2131 §4.3.2).
    broadcast: request.broadcast || (isNak && request.relayIp !== ANY_IPV4),
    clientIp: reply.type === MESSAGE_TYPE.ack ? request.clientIp : ANY_IPV4,
    yourIp: reply.yourIp,
    nextServerIp: ANY_IPV4,
    serverName: '',
    bootFile: '',
    options: new Map([
      [OPTION.messageType, uint8Bytes(reply.type)],
      [OPTION.serverId, ipv4ToBytes(reply.serverIp)],
      ...reply.options.flatMap((options) => [...options]),
      ...echoed(request.options),
    ]),
  }
}

/** The client's identifier goes back to it (RFC 6842 §3), the relay agent's information to the agent (RFC 3046 §2.2). */
export function echoed(options: DhcpOptions): [number, Uint8Array][] {
  return [OPTION.clientId, OPTION.relayAgent].flatMap((code) => {
    const value = options.get(code)
    return value === undefined ? [] : [[code, value] as [number, Uint8Array]]
  })
}

/**
 * RFC 2131 §4.1: to the relay agent; else an ACK to the address the client has; else by broadcast. A client without an
 * address gets a broadcast whatever its flag says: unicast to it would need an ARP entry made by hand, which the RFC
 * leaves to servers that can. A DISCOVER has no "ciaddr" (table 5): one that does could send our offers anywhere.
 * 255.255.255.255 and not the subnet's broadcast address, which OVMF ignores.
 */
export function replyTarget(request: DhcpPacket, reply: DhcpPacket): Endpoint {
  if (request.relayIp !== ANY_IPV4) return { ip: request.relayIp, port: DHCP_PORT.server }
  // An ACK has "ciaddr" only where the lease engine has found it to be in our subnet.
  const ip = reply.clientIp === ANY_IPV4 ? BROADCAST_IPV4 : reply.clientIp
  return { ip, port: DHCP_PORT.client }
}
