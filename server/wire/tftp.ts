// TFTP on the wire (RFC 1350) with options (RFC 2347): packets to values and back.

import { ByteReader, DecodeError, latin1, uint16Bytes } from '#lib/bytes.ts'

/** RFC 1350 §5 and RFC 2347. */
const OPCODE = { read: 1, write: 2, data: 3, ack: 4, error: 5, oack: 6 } as const

/** RFC 1350 appendix, and RFC 2347 for the last. */
export const TFTP_ERROR = {
  other: 0,
  'not-found': 1,
  'access-violation': 2,
  'disk-full': 3,
  'illegal-operation': 4,
  'unknown-transfer': 5,
  'already-exists': 6,
  'no-such-user': 7,
  'options-refused': 8,
} as const

/** Values as the peer wrote them, by name in lower case: names are case insensitive (RFC 2347). In the order of the packet. */
export type TftpOptions = ReadonlyMap<string, string>

export interface TftpRequest {
  readonly kind: 'read' | 'write'
  readonly name: string
  /** In lower case: `octet`, `netascii`, or whatever was sent. */
  readonly mode: string
  readonly options: TftpOptions
}

export type TftpPacket =
  | TftpRequest
  | { readonly kind: 'data'; readonly block: number; readonly bytes: Uint8Array }
  | { readonly kind: 'ack'; readonly block: number }
  | { readonly kind: 'error'; readonly code: number; readonly message: string }
  | { readonly kind: 'oack'; readonly options: TftpOptions }

/** Throws DecodeError. `bytes` of a data packet share the input's memory. */
export function decodeTftp(packet: Uint8Array): TftpPacket {
  const reader = new ByteReader(packet)
  const opcode = reader.uint16('opcode')
  switch (opcode) {
    case OPCODE.read:
      return decodeRequest('read', reader)
    case OPCODE.write:
      return decodeRequest('write', reader)
    case OPCODE.data:
      return { kind: 'data', block: reader.uint16('block'), bytes: reader.rest() }
    case OPCODE.ack:
      // Bytes behind the block number are left alone, as dnsmasq and tftp-hpa do.
      return { kind: 'ack', block: reader.uint16('block') }
    case OPCODE.error:
      return { kind: 'error', code: reader.uint16('error code'), message: lenientText(reader.rest()) }
    case OPCODE.oack:
      return { kind: 'oack', options: decodeOptions(splitStrings(reader.rest())) }
    default:
      throw new DecodeError(`opcode ${opcode} is none of TFTP's`)
  }
}

function decodeRequest(kind: 'read' | 'write', reader: ByteReader): TftpRequest {
  const [name, mode, ...options] = splitStrings(reader.rest())
  if (name === undefined || mode === undefined) throw new DecodeError('a request without a name or a mode')
  return { kind, name, mode: mode.toLowerCase(), options: decodeOptions(options) }
}

/** Name, value, name, value. Of an option sent twice, which RFC 2347 forbids, the first counts. */
function decodeOptions(strings: readonly string[]): TftpOptions {
  if (strings.length % 2 !== 0) throw new DecodeError('an option without a value')
  const options = new Map<string, string>()
  for (let index = 0; index < strings.length; index += 2) {
    const name = (strings[index] ?? '').toLowerCase()
    if (!options.has(name)) options.set(name, strings[index + 1] ?? '')
  }
  return options
}

/** Every string ends with a zero byte, the last one too (RFC 1350 §5). */
function splitStrings(bytes: Uint8Array): readonly string[] {
  if (bytes.length === 0) return []
  if (bytes.at(-1) !== 0) throw new DecodeError('a string that does not end')
  return latin1(bytes.subarray(0, -1)).split('\0')
}

/** Only ever logged, and the transfer is over whatever it says: an end without the zero byte is fine. */
function lenientText(bytes: Uint8Array): string {
  return latin1(bytes).split('\0', 1)[0] ?? ''
}

/** Throws RangeError for text that cannot be sent: zero bytes, or characters beyond Latin-1. */
export function encodeTftp(packet: TftpPacket): Uint8Array {
  switch (packet.kind) {
    case 'read':
    case 'write': {
      const { kind, name, mode, options } = packet
      return Buffer.concat([uint16Bytes(OPCODE[kind]), text(name), text(mode), encodeOptions(options)])
    }
    case 'data':
      return Buffer.concat([encodeDataHeader(packet.block), packet.bytes])
    case 'ack':
      return Buffer.concat([uint16Bytes(OPCODE.ack), uint16Bytes(packet.block)])
    case 'error':
      return Buffer.concat([uint16Bytes(OPCODE.error), uint16Bytes(packet.code), text(packet.message)])
    case 'oack':
      return Buffer.concat([uint16Bytes(OPCODE.oack), encodeOptions(packet.options)])
    default:
      return packet satisfies never
  }
}

/** What stands before the content in a data packet, for senders that do not want the content copied. */
export function encodeDataHeader(block: number): Uint8Array {
  return Uint8Array.of(0, OPCODE.data, (block >>> 8) & 0xff, block & 0xff)
}

function encodeOptions(options: TftpOptions): Uint8Array {
  return Buffer.concat([...options].flatMap(([name, value]) => [text(name), text(value)]))
}

function text(value: string): Uint8Array {
  const bytes = Buffer.from(`${value}\0`, 'latin1')
  if (value.includes('\0') || latin1(bytes) !== `${value}\0`) {
    throw new RangeError(`Cannot send text: ${JSON.stringify(value)}`)
  }
  return bytes
}
