// Decides once for each packet what it is: which message, of which machine, and whether it asks for a network boot.

import { readUint16 } from '#lib/bytes.ts'
import type { Mac } from '#lib/mac.ts'
import type { Firmware } from '#machine/machine.ts'
import { type DhcpPacket, findPacketMac } from '#wire/dhcp4.ts'
import { type MessageType, OPTION } from '#wire/dhcp4-codes.ts'
import { findMessageType, findText } from '#wire/dhcp4-values.ts'

import { findArchitecture, type Transport } from './pxe-architecture.ts'
import { findIpxe, type IpxeClient } from './pxe-ipxe.ts'

export interface BootClient {
  readonly firmware: Firmware
  /** The number in option 93 that `firmware` comes from; undefined when there is none that can be read. */
  readonly architecture: number | undefined
  readonly transport: Transport
  /** Absent when the firmware itself asks. */
  readonly ipxe?: IpxeClient
}

export interface Classified {
  /** Undefined: plain BOOTP, or a message no DHCP server of ours takes part in. */
  readonly messageType: MessageType | undefined
  /** Undefined for anything but Ethernet: such a machine is not answered, for everything here goes by MAC. */
  readonly mac: Mac | undefined
  /** SMBIOS UUID in text form; absent when it sent none, or one that means none. */
  readonly uuid?: string
  /** Absent when it does not ask for a network boot. */
  readonly boot?: BootClient
}

/** Throws DecodeError for a broken option 53 only: whatever else is broken in a boot request counts as absent. */
export function classify(packet: DhcpPacket): Classified {
  const uuid = findUuid(packet.options.get(OPTION.machineId))
  const boot = findBoot(packet)
  return {
    messageType: findMessageType(packet.options),
    mac: findPacketMac(packet),
    ...(uuid === undefined ? {} : { uuid }),
    ...(boot === undefined ? {} : { boot }),
  }
}

/**
 * Any one of 60, 93 and iPXE's own options makes it a network boot: U-Boot sends 93 with a class of its own, and a ROM
 * may leave 93 out (a must in RFC 4578 §2.1), which is then an architecture nobody knows.
 */
function findBoot(packet: DhcpPacket): BootClient | undefined {
  const vendorClass = findText(packet.options, OPTION.vendorClass) ?? ''
  const isPxe = vendorClass.startsWith('PXEClient')
  const isHttp = vendorClass.startsWith('HTTPClient')
  const ipxe = findIpxe(packet.options)
  const architectures = packet.options.get(OPTION.architecture)
  if (!isPxe && !isHttp && ipxe === undefined && architectures === undefined) return undefined

  const architecture = pickArchitecture(architectures)
  const known = architecture === undefined ? undefined : findArchitecture(architecture)
  // The class says who answers; the number alone decides only where the class is somebody's own.
  const transport = isHttp ? 'http' : isPxe ? 'tftp' : (known?.transport ?? 'tftp')
  return {
    firmware: known?.firmware ?? 'unknown',
    architecture,
    transport,
    ...(ipxe === undefined ? {} : { ipxe }),
  }
}

/** The first number there can be a loader for, of a list in the client's order of preference (RFC 4578 §2.1); else its first. */
function pickArchitecture(option: Uint8Array | undefined): number | undefined {
  if (option === undefined || option.length < 2) return undefined
  const numbers = Array.from({ length: option.length >> 1 }, (_, i) => readUint16(option.subarray(i * 2)))
  return numbers.find((number) => findArchitecture(number) !== undefined) ?? numbers[0]
}

/**
 * Option 97 is a type byte (0) and 16 bytes of UUID (RFC 4578 §2.3). Some ROMs leave the whole option out, some the type
 * byte. All zeros or all ones mean that the board has none (SMBIOS 7.2.1; QEMU without `-uuid` sends zeros). The first three
 * fields are little endian as in SMBIOS: iPXE swaps them to that on purpose [src dhcp_create_request], EDK II copies them.
 */
function findUuid(option: Uint8Array | undefined): string | undefined {
  if (option === undefined) return undefined
  const bytes = option.length === 17 && option[0] === 0 ? option.subarray(1) : option
  if (bytes.length !== 16 || bytes.every((byte) => byte === 0) || bytes.every((byte) => byte === 0xff)) {
    return undefined
  }
  const hex = (...at: readonly number[]) =>
    at.map((i) => (bytes[i] ?? 0).toString(16).padStart(2, '0')).join('')
  return [hex(3, 2, 1, 0), hex(5, 4), hex(7, 6), hex(8, 9), hex(10, 11, 12, 13, 14, 15)].join('-')
}
