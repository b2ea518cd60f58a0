// One packet as it came in, decoded and classified.

import { isGroupMac, type Mac } from '#lib/mac.ts'
import type { Endpoint } from '#lib/udp.ts'
import { type DhcpPacket, decodeDhcp } from '#wire/dhcp4.ts'
import { BOOTP_OP, type MessageType } from '#wire/dhcp4-codes.ts'

import { type Classified, classify } from './classify.ts'

/** Where a packet was heard. */
export interface Ear {
  readonly port: 67 | 4011
  /** dgram does not tell a packet's target: one socket hears what is sent to our address, another the broadcasts. */
  readonly arrived: 'unicast' | 'broadcast'
}

export interface Arrival extends Ear {
  readonly packet: DhcpPacket
  readonly classified: Classified
  readonly type: MessageType
  readonly mac: Mac
  readonly from: Endpoint
}

/** RFC 1542 §4.1.1: more relay agents than this are a loop. */
const MAX_HOPS = 16

/** Undefined for what is no client's message to a server. Throws DecodeError for anything broken. */
export function findArrival(bytes: Uint8Array, ear: Ear, from: Endpoint): Arrival | undefined {
  const packet = decodeDhcp(bytes)
  if (packet.op !== BOOTP_OP.request || packet.hops > MAX_HOPS) return undefined
  const classified = classify(packet)
  const { messageType: type, mac } = classified
  if (type === undefined || mac === undefined || isGroupMac(mac)) return undefined
  return { ...ear, packet, classified, type, mac, from }
}
