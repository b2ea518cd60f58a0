// The option areas of a DHCPv4 message: reading them into one map, and packing a map into as few of them as it needs.

import { ByteReader } from '#lib/bytes.ts'

import { OPTION } from './dhcp4-codes.ts'
import type { DhcpOptions } from './dhcp4-values.ts'

/** The longest value one option can carry; a longer one is split (RFC 3396). */
const MAX_PART_BYTES = 255

/**
 * Adds what `area` holds to `options`; a code met again is appended to (RFC 3396 §7). Throws DecodeError.
 * Leniencies: END may be missing (old ROMs end with the packet), and what follows END is not looked at (pad, or garbage
 * left in a ROM's buffer). A value cut off by the end of the packet is an error: half an address is worse than none.
 */
export function readOptions(area: Uint8Array, options: Map<number, Uint8Array>): void {
  for (const [code, parts] of readParts(area)) {
    const before = options.get(code)
    const all = before === undefined ? parts : [before, ...parts]
    options.set(code, all.length === 1 ? (all[0] ?? area) : concat(...all))
  }
}

/** Joined only at the end: a datagram of 64 KiB has room for 20,000 parts of one option. */
function readParts(area: Uint8Array): ReadonlyMap<number, Uint8Array[]> {
  const parts = new Map<number, Uint8Array[]>()
  const reader = new ByteReader(area)
  while (reader.remaining > 0) {
    const code = reader.uint8('option code')
    if (code === OPTION.end) break
    if (code === OPTION.pad) continue
    const length = reader.uint8(`length of option ${code}`)
    const value = reader.take(length, `option ${code}`)
    const before = parts.get(code)
    if (before === undefined) parts.set(code, [value])
    else before.push(value)
  }
  return parts
}

/** The options inside an option (RFC 2132 §8.4): vendor options 43, iPXE's 175, relay agent's 82. Throws DecodeError. */
export function decodeEncapsulated(bytes: Uint8Array): DhcpOptions {
  const options = new Map<number, Uint8Array>()
  readOptions(bytes, options)
  return options
}

/** One option as it stands in a packet; the value is at most 255 bytes. */
export interface OptionPart {
  readonly code: number
  readonly value: Uint8Array
}

/** `end`: whether to close with code 255, which PXE's option 43 wants (PXE 2.1 §2.2.3) and others need not have. */
export function encodeEncapsulated(options: DhcpOptions, { end = false } = {}): Uint8Array {
  return joinParts(
    [...options].flatMap(([code, value]) => splitOption(code, value)),
    { end },
  )
}

/** The parts an option is sent in: several when it is long (RFC 3396 §5). Throws RangeError for a code that is none. */
export function splitOption(code: number, value: Uint8Array): readonly OptionPart[] {
  if (!Number.isInteger(code) || code <= OPTION.pad || code >= OPTION.end) {
    throw new RangeError(`Cannot encode an option with code ${code}`)
  }
  if (value.length <= MAX_PART_BYTES) return [{ code, value }]
  return Array.from({ length: Math.ceil(value.length / MAX_PART_BYTES) }, (_, i) => ({
    code,
    value: value.subarray(i * MAX_PART_BYTES, (i + 1) * MAX_PART_BYTES),
  }))
}

/** The bytes `parts` take, without END. */
export function sizeOfParts(parts: readonly OptionPart[]): number {
  return parts.reduce((sum, { value }) => sum + 2 + value.length, 0)
}

export function joinParts(parts: readonly OptionPart[], { end }: { readonly end: boolean }): Uint8Array {
  const bytes = new Uint8Array(sizeOfParts(parts) + (end ? 1 : 0))
  let offset = 0
  for (const { code, value } of parts) {
    bytes[offset] = code
    bytes[offset + 1] = value.length
    bytes.set(value, offset + 2)
    offset += 2 + value.length
  }
  if (end) bytes[offset] = OPTION.end
  return bytes
}

/**
 * Packs options in order into areas of the given sizes (each with its END counted in). Undefined when they do not fit.
 * A value that fits one option is never split to fill a gap, as clients without RFC 3396 could not read it; the parts of a
 * long one go into areas in the order in which receivers join them: options, file, sname (RFC 3396 §5).
 */
export function packOptions(
  options: DhcpOptions,
  areaBytes: readonly number[],
): readonly (readonly OptionPart[])[] | undefined {
  const areas = areaBytes.map((bytes) => ({ free: bytes - 1, parts: [] as OptionPart[] }))
  for (const [code, value] of options) {
    let first = 0
    for (const part of splitOption(code, value)) {
      const size = sizeOfParts([part])
      const index = areas.findIndex((area, i) => i >= first && area.free >= size)
      const area = areas[index]
      if (area === undefined) return undefined
      area.parts.push(part)
      area.free -= size
      first = index
    }
  }
  return areas.map(({ parts }) => parts)
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let offset = 0
  for (const part of parts) {
    joined.set(part, offset)
    offset += part.length
  }
  return joined
}
