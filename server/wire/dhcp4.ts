// DHCPv4 messages as values (RFC 2131 §2): decoding, the packet itself, and what may be asked of it.

import { ByteReader, DecodeError, latin1, readUint32 } from '#lib/bytes.ts'
import { type Ipv4, ipv4FromBytes } from '#lib/ipv4.ts'
import { type Mac, macFromBytes } from '#lib/mac.ts'

import { BOOTP_OP, type BootpOp, HARDWARE_ETHERNET, OPTION, OVERLOAD } from './dhcp4-codes.ts'
import { readOptions } from './dhcp4-options.ts'
import { type DhcpOptions, findUint8, findUint16 } from './dhcp4-values.ts'

export interface DhcpPacket {
  readonly op: BootpOp
  /** htype, IANA "Hardware Types". */
  readonly hardwareType: number
  /** chaddr cut to hlen, at most 16 bytes; empty on InfiniBand (RFC 4390 §2.1). */
  readonly hardwareAddress: Uint8Array
  readonly hops: number
  readonly xid: number
  /** Seconds since the client began. Some clients send garbage here; decide nothing by it. */
  readonly secs: number
  /** The one flag there is: the client cannot take unicast before it has an address (RFC 2131 §4.1). */
  readonly broadcast: boolean
  /** ciaddr: the address the client has and answers ARP for. */
  readonly clientIp: Ipv4
  /** yiaddr: the address it is given. */
  readonly yourIp: Ipv4
  /** siaddr: where it fetches its boot file by TFTP. */
  readonly nextServerIp: Ipv4
  /** giaddr: the relay agent the packet came through. */
  readonly relayIp: Ipv4
  /** sname; empty when overloaded. At most 63 characters when sent. */
  readonly serverName: string
  /** file; empty when overloaded. At most 127 characters when sent. */
  readonly bootFile: string
  /** By code, split ones joined (RFC 3396), overloaded areas merged; never 52, pad or end. The order is the sender's. */
  readonly options: DhcpOptions
}

/** Length of sname and file, and where the options begin. */
export const SNAME_BYTES = 64
export const FILE_BYTES = 128
export const MAGIC_COOKIE = 0x63825363

/** A datagram every client must take (RFC 2131 §2: 312 option bytes), and the most an Ethernet carries in one piece. */
const MIN_DATAGRAM_BYTES = 576
const MAX_DATAGRAM_BYTES = 1500
const IP_AND_UDP_HEADER_BYTES = 28

/**
 * Throws DecodeError and nothing else, on any input. Values are views of `bytes`: they are good for as long as the caller
 * leaves that memory alone.
 */
export function decodeDhcp(bytes: Uint8Array): DhcpPacket {
  // dgram hands in Buffers, whose slice() shares where a Uint8Array's copies: readers get the plain kind.
  const reader = new ByteReader(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength))
  const op = reader.uint8('op')
  if (op !== BOOTP_OP.request && op !== BOOTP_OP.reply) throw new DecodeError(`op ${op} is neither 1 nor 2`)
  const hardwareType = reader.uint8('htype')
  const hardwareLength = reader.uint8('hlen')
  if (hardwareLength > 16) throw new DecodeError(`hlen ${hardwareLength} is more than chaddr holds`)
  const hops = reader.uint8('hops')
  const xid = reader.uint32('xid')
  const secs = reader.uint16('secs')
  const broadcast = (reader.uint16('flags') & 0x8000) !== 0 // the other bits "MUST be ignored" (RFC 2131 §2)
  const clientIp = ipv4FromBytes(reader.take(4, 'ciaddr'))
  const yourIp = ipv4FromBytes(reader.take(4, 'yiaddr'))
  const nextServerIp = ipv4FromBytes(reader.take(4, 'siaddr'))
  const relayIp = ipv4FromBytes(reader.take(4, 'giaddr'))
  const hardwareAddress = reader.take(16, 'chaddr').subarray(0, hardwareLength)
  const sname = reader.take(SNAME_BYTES, 'sname')
  const file = reader.take(FILE_BYTES, 'file')
  if (readUint32(reader.take(4, 'magic cookie')) !== MAGIC_COOKIE) {
    throw new DecodeError('no magic cookie: plain BOOTP or something else')
  }
  const { options, overload } = decodeAreas(reader.rest(), file, sname)
  return {
    ...{ op, hardwareType, hardwareAddress, hops, xid, secs, broadcast },
    ...{ clientIp, yourIp, nextServerIp, relayIp },
    serverName: overload & OVERLOAD.serverName ? '' : untilNul(sname),
    bootFile: overload & OVERLOAD.bootFile ? '' : untilNul(file),
    options,
  }
}

/** The hardware address where it is an Ethernet address of the right length; undefined for anything else. */
export function findPacketMac(packet: DhcpPacket): Mac | undefined {
  if (packet.hardwareType !== HARDWARE_ETHERNET || packet.hardwareAddress.length !== 6) return undefined
  return macFromBytes(packet.hardwareAddress)
}

/**
 * How many bytes of UDP payload a reply to `request` may have: `maxBytes` of `encodeDhcp`. Option 57 counts IP and UDP
 * headers or not depending on whom one asks; we count them, which is safe either way. Never more than fits an Ethernet
 * frame: OVMF 2022.11's REQUEST says 0xff00. Less than 576 is not allowed (RFC 2132 §9.10) and taken as 576. Throws DecodeError.
 */
export function maxReplyBytes(request: DhcpPacket): number {
  const asked = findUint16(request.options, OPTION.maxMessageBytes) ?? MIN_DATAGRAM_BYTES
  return Math.min(Math.max(asked, MIN_DATAGRAM_BYTES), MAX_DATAGRAM_BYTES) - IP_AND_UDP_HEADER_BYTES
}

/** Reads the option area and those it points at, in the order RFC 3396 §5 joins them: options, file, sname. */
function decodeAreas(
  area: Uint8Array,
  file: Uint8Array,
  sname: Uint8Array,
): { options: DhcpOptions; overload: number } {
  const options = new Map<number, Uint8Array>()
  readOptions(area, options)
  const overload = findUint8(options, OPTION.overload) ?? 0
  if (overload > 3) throw new DecodeError(`option overload ${overload} names no field`)
  if (overload & OVERLOAD.bootFile) readOptions(file, options)
  if (overload & OVERLOAD.serverName) readOptions(sname, options)
  options.delete(OPTION.overload) // it speaks of the packet's form, which is undone; one in file or sname means nothing
  return { options, overload }
}

function untilNul(field: Uint8Array): string {
  const end = field.indexOf(0)
  return latin1(end < 0 ? field : field.subarray(0, end))
}
