// Reads the UDP packets out of a tcpdump capture, for tests against real firmware.

import { readFile } from 'node:fs/promises'

import { ByteReader, DecodeError, readUint16 } from '#lib/bytes.ts'
import { type Ipv4, ipv4FromBytes } from '#lib/ipv4.ts'

export interface CapturedUdp {
  /** Counted from 1 over all frames of the capture, as tcpdump and Wireshark do. */
  readonly frame: number
  readonly sourceIp: Ipv4
  readonly sourcePort: number
  readonly targetIp: Ipv4
  readonly targetPort: number
  readonly payload: Uint8Array
}

const MAGIC_LITTLE_ENDIAN_MICROSECONDS = 0xa1b2c3d4
const LINK_ETHERNET = 1
const ETHERTYPE_IPV4 = 0x0800
const PROTOCOL_UDP = 17

/** All IPv4 UDP packets of a classic little-endian Ethernet capture, in order. Throws DecodeError for any other kind of file. */
export async function readUdpCapture(file: string | URL): Promise<readonly CapturedUdp[]> {
  const bytes = await readFile(file)
  if (
    bytes.readUInt32LE(0) !== MAGIC_LITTLE_ENDIAN_MICROSECONDS ||
    bytes.readUInt32LE(20) !== LINK_ETHERNET
  ) {
    throw new DecodeError(`${file} is no little-endian Ethernet capture`)
  }
  const packets: CapturedUdp[] = []
  for (let offset = 24, frame = 1; offset < bytes.length; frame++) {
    const capturedBytes = bytes.readUInt32LE(offset + 8)
    const packet = findUdp(frame, bytes.subarray(offset + 16, offset + 16 + capturedBytes))
    if (packet !== undefined) packets.push(packet)
    offset += 16 + capturedBytes
  }
  return packets
}

function findUdp(frame: number, ethernet: Uint8Array): CapturedUdp | undefined {
  if (readUint16(ethernet.subarray(12)) !== ETHERTYPE_IPV4) return undefined
  const ip = ethernet.subarray(14)
  if (ip[9] !== PROTOCOL_UDP) return undefined
  const headerBytes = ((ip[0] ?? 0) & 0x0f) * 4
  const udp = new ByteReader(ip.subarray(headerBytes, readUint16(ip.subarray(2))))
  const sourcePort = udp.uint16('source port')
  const targetPort = udp.uint16('target port')
  udp.take(4, 'length and checksum')
  return {
    frame,
    sourceIp: ipv4FromBytes(ip.subarray(12, 16)),
    sourcePort,
    targetIp: ipv4FromBytes(ip.subarray(16, 20)),
    targetPort,
    payload: udp.rest(),
  }
}
