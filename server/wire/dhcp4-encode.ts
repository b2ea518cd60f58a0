// DHCPv4 messages to bytes: where the options go, and when they spill into the file and sname fields.

import { uint16Bytes, uint32Bytes } from '#lib/bytes.ts'
import { ipv4ToBytes } from '#lib/ipv4.ts'

import { type DhcpPacket, FILE_BYTES, MAGIC_COOKIE, SNAME_BYTES } from './dhcp4.ts'
import { OPTION, OVERLOAD } from './dhcp4-codes.ts'
import { concat, packOptions, splitOption } from './dhcp4-options.ts'
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
  const packed = concat(
    Uint8Array.of(packet.op, packet.hardwareType, packet.hardwareAddress.length, packet.hops),
    uint32Bytes(packet.xid),
    uint16Bytes(packet.secs),
    uint16Bytes(packet.broadcast ? 0x8000 : 0),
    ...[packet.clientIp, packet.yourIp, packet.nextServerIp, packet.relayIp].map(ipv4ToBytes),
    padded(packet.hardwareAddress, 16),
    padded(sname, SNAME_BYTES),
    padded(file, FILE_BYTES),
    uint32Bytes(MAGIC_COOKIE),
    area,
  )
  return padded(packed, MIN_PACKET_BYTES)
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
  const last = relay === undefined ? new Uint8Array() : concat(...splitOption(OPTION.relayAgent, relay))
  const head = overload === 0 ? [] : [[OPTION.overload, Uint8Array.of(overload)] as const]
  const rest = [...options].filter(([code]) => code !== OPTION.relayAgent && code !== OPTION.overload)
  const ordered = new Map([...rest.filter(isMessageType), ...head, ...rest])
  const areas = packOptions(ordered, [
    areaBytes - last.length,
    overload & OVERLOAD.bootFile ? FILE_BYTES : 0,
    overload & OVERLOAD.serverName ? SNAME_BYTES : 0,
  ])
  if (areas === undefined) return undefined
  const [main = last, file = last, sname = last] = areas
  const end = Uint8Array.of(OPTION.end)
  return { area: concat(main, last, end), file: concat(file, end), sname: concat(sname, end) }
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

function isMessageType([code]: readonly [number, Uint8Array]): boolean {
  return code === OPTION.messageType
}

/** A NUL-terminated name (RFC 2131 §2). */
function field(text: string, sizeBytes: number, what: string): Uint8Array {
  if (text.length >= sizeBytes)
    throw new RangeError(`Cannot fit the ${what} into ${sizeBytes} bytes: ${text}`)
  return textBytes(text)
}

function padded(bytes: Uint8Array, length: number): Uint8Array {
  if (bytes.length >= length) return bytes
  const whole = new Uint8Array(length)
  whole.set(bytes)
  return whole
}
