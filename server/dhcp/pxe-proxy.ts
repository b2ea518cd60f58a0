// Proxy mode: the router gives the addresses, these replies only say what to boot (PXE 2.1 §2.2).

import { ANY_IPV4, BROADCAST_IPV4, ipv4ToBytes } from '#lib/ipv4.ts'
import type { Endpoint } from '#lib/udp.ts'
import type { DhcpPacket } from '#wire/dhcp4.ts'
import { BOOTP_OP, DHCP_PORT, MESSAGE_TYPE, type MessageType, OPTION } from '#wire/dhcp4-codes.ts'
import { findIp, uint8Bytes } from '#wire/dhcp4-values.ts'

import type { BootClient, Classified } from './classify.ts'
import type { BootContext, BootDecision } from './pxe-decide.ts'
import { type Boot, bootFields } from './pxe-reply.ts'
import { echoed } from './reply.ts'

export interface ProxyArrival {
  readonly decision: BootDecision
  readonly context: BootContext
  /** The port of ours it came to. */
  readonly port: typeof DHCP_PORT.server | typeof DHCP_PORT.pxe
  readonly from: Endpoint
}

export type ProxyReply =
  | { readonly kind: 'reply'; readonly packet: DhcpPacket; readonly to: Endpoint }
  | { readonly kind: 'ignore'; readonly reason: string }

/** Throws DecodeError for a broken option 54. */
export function proxyReply(request: DhcpPacket, classified: Classified, arrival: ProxyArrival): ProxyReply {
  const { decision, context, port, from } = arrival
  const { boot, messageType } = classified
  if (request.op !== BOOTP_OP.request) return { kind: 'ignore', reason: 'it is a reply' }
  if (boot === undefined) return { kind: 'ignore', reason: 'it asks for no network boot' }
  if (decision.kind === 'none') return { kind: 'ignore', reason: decision.reason }

  if (port === DHCP_PORT.server) {
    // REQUESTs on port 67 are for the server whose address the client took; what to boot it knows from the offer.
    if (messageType !== MESSAGE_TYPE.discover) return { kind: 'ignore', reason: 'it is not a DISCOVER' }
    const packet = replyPacket(request, boot, MESSAGE_TYPE.offer, { decision, context })
    return { kind: 'reply', packet, to: offerTarget(request) }
  }
  if (messageType !== MESSAGE_TYPE.request) return { kind: 'ignore', reason: 'it is not a REQUEST' }
  const wanted = findIp(request.options, OPTION.serverId)
  if (wanted !== undefined && wanted !== context.serverIp) {
    return { kind: 'ignore', reason: `it is for the boot server ${wanted}` }
  }
  const packet = replyPacket(request, boot, MESSAGE_TYPE.ack, { decision, context })
  // The client has its address by now and asks from any port (EDK II from 68 or 4011); without one it hears broadcasts.
  return { kind: 'reply', packet, to: from.ip === ANY_IPV4 ? { ...from, ip: BROADCAST_IPV4 } : from }
}

/**
 * To the client's relay, or to everybody: it has no address yet, and we give none. Not to the subnet's own broadcast
 * address, which OVMF 2022.11 does not hear.
 */
function offerTarget(request: DhcpPacket): Endpoint {
  return request.relayIp === ANY_IPV4
    ? { ip: BROADCAST_IPV4, port: DHCP_PORT.client }
    : { ip: request.relayIp, port: DHCP_PORT.server }
}

/** yiaddr zero is what tells a boot server's offer from one with an address (PXE 2.1 §2.2.1). */
function replyPacket(
  request: DhcpPacket,
  client: BootClient,
  messageType: MessageType,
  boot: Boot,
): DhcpPacket {
  const fields = bootFields(request, client, { mode: 'proxy', ...boot })
  return {
    op: BOOTP_OP.reply,
    hardwareType: request.hardwareType,
    hardwareAddress: request.hardwareAddress,
    hops: 0,
    xid: request.xid,
    secs: 0,
    broadcast: request.broadcast || messageType === MESSAGE_TYPE.offer,
    clientIp: request.clientIp,
    yourIp: ANY_IPV4,
    relayIp: request.relayIp,
    ...fields,
    options: new Map([
      [OPTION.messageType, uint8Bytes(messageType)],
      [OPTION.serverId, ipv4ToBytes(boot.context.serverIp)],
      ...echoed(request.options), // before the boot file name, behind which EDK II writes (quirks.ts)
      ...fields.options,
    ]),
  }
}
