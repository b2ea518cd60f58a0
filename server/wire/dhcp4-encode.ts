// DHCPv4 messages to bytes: where the options go, and when they spill into the file and sname fields.

import { ANY_IPV4, ipv4ToBytes } from '#lib/ipv4.ts'

import { type DhcpPacket, FILE_BYTES, MAGIC_COOKIE, SNAME_BYTES } from './dhcp4.ts'
import { OPTION, OVERLOAD } from './dhcp4-codes.ts'
import { joinParts, packOptions, sizeOfParts, splitOption } from './dhcp4-options.ts'
import { type DhcpOptions, textBytes } from './dhcp4-values.ts'

/** Shorter packets are dropped by old ROMs and by relays that go by RFC 1542 §2.1. */
const MIN_PACKET_BYTES = 300
/** Everything before the options, the magic cookie included. */
const HEADER_BYTES = 240
/** 576 bytes of datagram without IP and UDP headers: what a client takes that has not said more (RFC 2131 §2). */
const DEFAULT_MAX_BYTES = 548

interface Layout {
  readonly area: Uint8Array
  readonly file: Uint8Array
  readonly sname: Uint8Array
}

/**
 * `maxBytes` is the UDP payload the receiver takes (`maxReplyBytes`). Option 53 is sent first, 82 last (RFC 3046 §2.1), the
 * rest in the order of the map; file and sname carry options only when they must, and then a boot file or server name
 * in them moves to option 67 or 66. Throws RangeError when it does not fit even so, or a field is out of range.
 */
export function encodeDhcp(packet: DhcpPacket, { maxBytes = DEFAULT_MAX_BYTES } = {}): Uint8Array {
  const { area, file, sname } = layOut(packet, Math.max(maxBytes, MIN_PACKET_BYTES) - HEADER_BYTES)
  if (packet.hardwareAddress.length > 16) {
    throw new RangeError(`Cannot encode a hardware address of ${packet.hardwareAddress.length} bytes`)
  }
  const bytes = new Uint8Array(Math.max(HEADER_BYTES + area.length, MIN_PACKET_BYTES))
  const view = new DataView(bytes.buffer)
  bytes.set([packet.op, packet.hardwareType, packet.hardwareAddress.length, packet.hops])
  view.setUint32(4, packet.xid)
  view.setUint16(8, packet.secs)
  view.setUint16(10, packet.broadcast ? 0x8000 : 0)
  for (const [i, ip] of [packet.clientIp, packet.yourIp, packet.nextServerIp, packet.relayIp].entries()) {
    if (ip !== ANY_IPV4) bytes.set(ipv4ToBytes(ip), 12 + i * 4) // most are zero, which the buffer is already
  }
  bytes.set(packet.hardwareAddress, 28)
  bytes.set(sname, 44)
  bytes.set(file, 108)
  view.setUint32(236, MAGIC_COOKIE)
  bytes.set(area, HEADER_BYTES)
  return bytes
}

/** As it is when the options fit; else over file, then over sname, then over both. */
function layOut(packet: DhcpPacket, areaBytes: number): Layout {
  const plainFile = field(packet.bootFile, FILE_BYTES, 'boot file')
  const plainSname = field(packet.serverName, SNAME_BYTES, 'server name')
  const plain = pack(packet.options, areaBytes, 0)
  if (plain !== undefined) return { area: plain.area, file: plainFile, sname: plainSname }
  for (const overload of [OVERLOAD.bootFile, OVERLOAD.serverName, OVERLOAD.bootFile | OVERLOAD.serverName]) {
    const layout = pack(movedOptions(packet, overload), areaBytes, overload)
    if (layout === undefined) continue
    return {
      area: layout.area,
      file: overload & OVERLOAD.bootFile ? layout.file : plainFile,
      sname: overload & OVERLOAD.serverName ? layout.sname : plainSname,
    }
  }
  throw new RangeError(`Cannot fit ${packet.options.size} options into ${areaBytes + HEADER_BYTES} bytes`)
}

/** Undefined when the options do not fit. Option 82 stays in the option area: relays look nowhere else. */
function pack(options: DhcpOptions, areaBytes: number, overload: number): Layout | undefined {
  const relay = options.get(OPTION.relayAgent)
  const last = relay === undefined ? [] : splitOption(OPTION.relayAgent, relay)
  const areas = packOptions(inOrder(options, overload), [
    areaBytes - sizeOfParts(last),
    overload & OVERLOAD.bootFile ? FILE_BYTES : 0,
    overload & OVERLOAD.serverName ? SNAME_BYTES : 0,
  ])
  if (areas === undefined) return undefined
  const [area = [], file = [], sname = []] = areas
  return {
    area: joinParts([...area, ...last], { end: true }),
    file: joinParts(file, { end: true }),
    sname: joinParts(sname, { end: true }),
  }
}

/** 53, then 52 if any, then the others but 82. */
function inOrder(options: DhcpOptions, overload: number): DhcpOptions {
  const ordered = new Map<number, Uint8Array>()
  const messageType = options.get(OPTION.messageType)
  if (messageType !== undefined) ordered.set(OPTION.messageType, messageType)
  if (overload !== 0) ordered.set(OPTION.overload, Uint8Array.of(overload))
  for (const [code, value] of options) {
    if (code !== OPTION.relayAgent && code !== OPTION.overload) ordered.set(code, value)
  }
  return ordered
}

/** The options with what stood in the fields now taken (RFC 2132 §9.4, §9.5), unless they say it already. */
function movedOptions(packet: DhcpPacket, overload: number): DhcpOptions {
  const moved = new Map(packet.options)
  if (overload & OVERLOAD.bootFile && packet.bootFile !== '' && !moved.has(OPTION.bootFileName)) {
    moved.set(OPTION.bootFileName, textBytes(packet.bootFile))
  }
  if (overload & OVERLOAD.serverName && packet.serverName !== '' && !moved.has(OPTION.tftpServerName)) {
    moved.set(OPTION.tftpServerName, textBytes(packet.serverName))
  }
  return moved
}

/** A NUL-terminated name (RFC 2131 §2). */
function field(text: string, sizeBytes: number, what: string): Uint8Array {
  if (text.length >= sizeBytes)
    throw new RangeError(`Cannot fit the ${what} into ${sizeBytes} bytes: ${text}`)
  return textBytes(text)
}
