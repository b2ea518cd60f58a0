// The values of DHCPv4 options as types. `find…` gives undefined for an absent option and throws DecodeError for a broken one.

import { DecodeError, latin1, readUint16, readUint32 } from '#lib/bytes.ts'
import { type Ipv4, ipv4FromBytes, ipv4ToBytes } from '#lib/ipv4.ts'

import { MESSAGE_TYPE, type MessageType, OPTION } from './dhcp4-codes.ts'

export type DhcpOptions = ReadonlyMap<number, Uint8Array>

export function findUint8(options: DhcpOptions, code: number): number | undefined {
  return findFixed(options, code, 1)?.[0]
}

export function findUint16(options: DhcpOptions, code: number): number | undefined {
  const bytes = findFixed(options, code, 2)
  return bytes && readUint16(bytes)
}

export function findUint32(options: DhcpOptions, code: number): number | undefined {
  const bytes = findFixed(options, code, 4)
  return bytes && readUint32(bytes)
}

export function findIp(options: DhcpOptions, code: number): Ipv4 | undefined {
  const bytes = findFixed(options, code, 4)
  return bytes && ipv4FromBytes(bytes)
}

/** One address or more (RFC 2132 §3.5: "length MUST always be a multiple of 4", minimum 4). */
export function findIpList(options: DhcpOptions, code: number): readonly Ipv4[] | undefined {
  const bytes = options.get(code)
  if (bytes === undefined) return undefined
  if (bytes.length === 0 || bytes.length % 4 !== 0) throw wrongLength(code, bytes, 'a multiple of 4')
  return Array.from({ length: bytes.length / 4 }, (_, i) => ipv4FromBytes(bytes.subarray(i * 4, i * 4 + 4)))
}

/** Text without the trailing NULs that clients may append and receivers must delete (RFC 2132 §2). */
export function findText(options: DhcpOptions, code: number): string | undefined {
  const bytes = options.get(code)
  return bytes && latin1(bytes).replace(/\0+$/, '')
}

/** Undefined without option 53 (plain BOOTP) and for the types no server of ours takes part in (RFC 4388 and later). */
export function findMessageType(options: DhcpOptions): MessageType | undefined {
  const value = findUint8(options, OPTION.messageType)
  return Object.values(MESSAGE_TYPE).find((type) => type === value)
}

export function uint8Bytes(value: number): Uint8Array {
  return Uint8Array.of(value)
}

export function ipListBytes(ips: readonly Ipv4[]): Uint8Array {
  return Uint8Array.from(ips.flatMap((ip) => [...ipv4ToBytes(ip)]))
}

/** One byte a character and no NUL behind it (RFC 2132 §2). Throws RangeError for what latin1 does not have. */
export function textBytes(text: string): Uint8Array {
  const bytes = Uint8Array.from(Buffer.from(text, 'latin1'))
  if (latin1(bytes) !== text)
    throw new RangeError(`Cannot send as one byte a character: ${JSON.stringify(text)}`)
  return bytes
}

function findFixed(options: DhcpOptions, code: number, length: number): Uint8Array | undefined {
  const bytes = options.get(code)
  if (bytes !== undefined && bytes.length !== length) throw wrongLength(code, bytes, `${length}`)
  return bytes
}

function wrongLength(code: number, bytes: Uint8Array, wanted: string): DecodeError {
  return new DecodeError(`option ${code}: length ${bytes.length}, not ${wanted}`)
}
