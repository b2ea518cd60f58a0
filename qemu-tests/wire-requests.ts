// What clients said over plain TCP to one address, out of a capture: each connection's bytes in order.

import { readFrames } from '#testing/pcap.ts'

interface Segment {
  /** `<address>:<port>` of the client. */
  readonly from: string
  readonly sequence: number
  readonly isFirst: boolean
  readonly payload: Buffer
}

const ETHERNET_BYTES = 14
const SYN = 0x02

/**
 * `capture` holds nothing but TCP over IPv4 to the server. In order of the connections' beginnings; those whose beginning is not
 * there are left out.
 */
export function readClientStreams(capture: Buffer): readonly Buffer[] {
  const streams = new Map<string, Map<number, Buffer>>()
  const latest = new Map<string, { key: string; start: number }>()
  for (const frame of readFrames(capture)) {
    const { from, sequence, isFirst, payload } = readSegment(frame.subarray(ETHERNET_BYTES))
    if (isFirst) latest.set(from, { key: `${from} ${sequence}`, start: (sequence + 1) >>> 0 })
    const stream = latest.get(from)
    if (stream === undefined || payload.length === 0) continue
    const pieces = streams.get(stream.key) ?? new Map<number, Buffer>()
    streams.set(stream.key, pieces)
    const offset = (sequence - stream.start) >>> 0
    if (payload.length > (pieces.get(offset)?.length ?? 0)) pieces.set(offset, payload)
  }
  return [...streams.values()].map(joinPieces)
}

/** What was sent again overlaps; what is missing ends the stream. */
function joinPieces(pieces: ReadonlyMap<number, Buffer>): Buffer {
  const joined: Buffer[] = []
  let at = 0
  for (const [offset, payload] of [...pieces].sort(([a], [b]) => a - b)) {
    if (offset > at) break
    const rest = payload.subarray(at - offset)
    joined.push(rest)
    at += rest.length
  }
  return Buffer.concat(joined)
}

/** RFC 791 §3.1, RFC 9293 §3.1. */
function readSegment(packet: Buffer): Segment {
  const tcp = packet.subarray((packet.readUInt8(0) & 0x0f) * 4, packet.readUInt16BE(2))
  return {
    from: `${packet.subarray(12, 16).join('.')}:${tcp.readUInt16BE(0)}`,
    sequence: tcp.readUInt32BE(4),
    isFirst: (tcp.readUInt8(13) & SYN) !== 0,
    payload: tcp.subarray((tcp.readUInt8(12) >> 4) * 4),
  }
}
