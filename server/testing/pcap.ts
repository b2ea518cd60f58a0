// Reads the frames of a tcpdump capture, and the UDP packets out of them.

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

/** All IPv4 UDP packets of a capture, in order. Throws DecodeError for another kind of file. */
export async function readUdpCapture(file: string | URL): Promise<readonly CapturedUdp[]> {
  const packets: CapturedUdp[] = []
  let frame = 1
  for (const ethernet of readFrames(await readFile(file))) {
    const packet = findUdp(frame++, ethernet)
    if (packet !== undefined) packets.push(packet)
  }
  return packets
}

/**
 * Every frame of a classic little-endian Ethernet capture; one that is cut off at the end of a capture under way is left out.
 * Throws DecodeError for another kind of file.
 */
export function* readFrames(capture: Buffer): Generator<Buffer> {
  if (
    capture.length < 24 ||
    capture.readUInt32LE(0) !== MAGIC_LITTLE_ENDIAN_MICROSECONDS ||
    capture.readUInt32LE(20) !== LINK_ETHERNET
  ) {
    throw new DecodeError('The file is no little-endian Ethernet capture')
  }
  for (let offset = 24; offset + 16 <= capture.length; ) {
    const end = offset + 16 + capture.readUInt32LE(offset + 8)
    if (end > capture.length) return
    yield capture.subarray(offset + 16, end)
    offset = end
  }
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
