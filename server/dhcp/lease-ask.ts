// From a packet to what the lease engine is asked.

import { DecodeError, latin1 } from '#lib/bytes.ts'
import { ANY_IPV4, type Ipv4 } from '#lib/ipv4.ts'
import { type Mac, macToBytes } from '#lib/mac.ts'
import type { DhcpPacket } from '#wire/dhcp4.ts'
import { HARDWARE_ETHERNET, MESSAGE_TYPE, type MessageType, OPTION } from '#wire/dhcp4-codes.ts'
import { findIp, findUint32 } from '#wire/dhcp4-values.ts'

import type { LeaseAsk } from './lease-types.ts'

const TYPES: ReadonlyMap<MessageType, LeaseAsk['type']> = new Map([
  [MESSAGE_TYPE.discover, 'discover'],
  [MESSAGE_TYPE.request, 'request'],
  [MESSAGE_TYPE.decline, 'decline'],
  [MESSAGE_TYPE.release, 'release'],
  [MESSAGE_TYPE.inform, 'inform'],
])

/** A DUID is at most 130 bytes (RFC 8415 §11.1) and follows five of its own (RFC 4361); nobody needs more than one option holds. */
const MAX_CLIENT_ID_BYTES = 255

const HOSTNAME = /^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62})$/

/** Undefined for a message that only servers send. Throws DecodeError for a broken option. */
export function findLeaseAsk(
  packet: DhcpPacket,
  from: { readonly type: MessageType; readonly mac: Mac; readonly arrived: LeaseAsk['arrived'] },
): LeaseAsk | undefined {
  const type = TYPES.get(from.type)
  if (type === undefined) return undefined
  const { options } = packet
  const relayIp = given(packet.relayIp)
  const requestedIp = given(findIp(options, OPTION.requestedIp))
  const serverId = given(findIp(options, OPTION.serverId))
  const clientIp = given(packet.clientIp)
  const hostname = findHostname(packet)
  const leaseSeconds = findUint32(options, OPTION.leaseSeconds)
  return {
    type,
    clientKey: clientKey(packet, from.mac),
    mac: from.mac,
    arrived: relayIp === undefined ? from.arrived : 'broadcast',
    ...(relayIp && { relayIp }),
    ...(requestedIp && { requestedIp }),
    ...(serverId && { serverId }),
    ...(clientIp && { clientIp }),
    ...(hostname && { hostname }),
    ...(leaseSeconds !== undefined && { leaseSeconds }),
  }
}

/**
 * Option 61 is opaque, with one exception: 01 and the MAC (iPXE, udhcpc) says no more than chaddr does, so it counts
 * as none. Firmware without the option and the loader it starts are one client then.
 */
function clientKey(packet: DhcpPacket, mac: Mac): string {
  const id = packet.options.get(OPTION.clientId)
  // RFC 2132 §9.14: at least two bytes. Shorter ones are seen from devices that mean none.
  if (id === undefined || id.length < 2) return `mac:${mac}`
  if (id.length > MAX_CLIENT_ID_BYTES) throw new DecodeError(`option 61: ${id.length} bytes`)
  const isMac = Buffer.from(id).equals(Buffer.from([HARDWARE_ETHERNET, ...macToBytes(mac)]))
  return isMac ? `mac:${mac}` : Buffer.from(id).toString('hex')
}

/** Shown to people and stored, so only what a host name may be; anything else is as good as none. */
function findHostname(packet: DhcpPacket): string | undefined {
  const bytes = packet.options.get(OPTION.hostName)
  if (bytes === undefined) return undefined
  const text = latin1(bytes).replace(/\0+$/, '')
  return HOSTNAME.test(text) ? text : undefined
}

/** All zeros in an address field mean that there is none. */
function given(ip: Ipv4 | undefined): Ipv4 | undefined {
  return ip === ANY_IPV4 ? undefined : ip
}
