// DHCP requests made field by field, for clients nobody has a capture of; and packets in a form to compare.

import { ANY_IPV4 } from '#lib/ipv4.ts'
import type { DhcpPacket } from '#wire/dhcp4.ts'
import { BOOTP_OP, MESSAGE_TYPE, OPTION } from '#wire/dhcp4-codes.ts'
import { textBytes } from '#wire/dhcp4-values.ts'

export type MadeOptions = Readonly<Record<number, string | readonly number[]>>

/** A DISCOVER of 52:54:00:77:00:01 with these options: text is text, an array is bytes. */
export function discover(options: MadeOptions, change: Partial<DhcpPacket> = {}): DhcpPacket {
  const entries = Object.entries(options).map(
    ([code, value]) =>
      [Number(code), typeof value === 'string' ? textBytes(value) : Uint8Array.from(value)] as const,
  )
  return {
    op: BOOTP_OP.request,
    hardwareType: 1,
    hardwareAddress: Uint8Array.of(0x52, 0x54, 0, 0x77, 0, 1),
    hops: 0,
    xid: 7,
    secs: 0,
    broadcast: true,
    clientIp: ANY_IPV4,
    yourIp: ANY_IPV4,
    nextServerIp: ANY_IPV4,
    relayIp: ANY_IPV4,
    serverName: '',
    bootFile: '',
    options: new Map([[OPTION.messageType, Uint8Array.of(MESSAGE_TYPE.discover)], ...entries]),
    ...change,
  }
}

export function hex(bytes: Uint8Array | undefined): string | undefined {
  return bytes && Buffer.from(bytes).toString('hex')
}

/** The packet in a form in which two are equal when they say the same: the order of options says nothing. */
export function sayings(packet: DhcpPacket): unknown {
  const options = [...packet.options].map(([code, value]) => [code, hex(value)] as const)
  return {
    ...packet,
    hardwareAddress: hex(packet.hardwareAddress),
    options: Object.fromEntries(options),
  }
}
