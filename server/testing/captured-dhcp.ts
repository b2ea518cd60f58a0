// The DHCP requests of real firmware in server/wire/testdata/, and ways to damage them.

import { BOOTP_OP, DHCP_PORT } from '#wire/dhcp4-codes.ts'

import { type CapturedUdp, readUdpCapture } from './pcap.ts'

const TESTDATA = new URL('../wire/testdata/', import.meta.url)

const CAPTURES = [
  'ovmf-http-boot',
  'ovmf-pxe-then-ipxe-efi',
  'ovmf-pxe-then-ipxe2019-efi',
  'ovmf-proxy-mode',
  'ovmf-tftp-without-oack-fails',
  'seabios-ipxe-rom-then-undionly',
] as const

export interface CapturedDhcp extends CapturedUdp {
  /** `ovmf-http-boot #5`: the capture and the frame in it. */
  readonly name: string
}

/** Both directions, in the order of the captures. */
export async function readDhcpCaptures(): Promise<readonly CapturedDhcp[]> {
  const ports: readonly number[] = [DHCP_PORT.server, DHCP_PORT.client, DHCP_PORT.pxe]
  const all = await Promise.all(
    CAPTURES.map(async (capture) => {
      const packets = await readUdpCapture(new URL(`${capture}.pcap`, TESTDATA))
      return packets.map((packet) => ({ ...packet, name: `${capture} #${packet.frame}` }))
    }),
  )
  return all.flat().filter((packet) => ports.includes(packet.targetPort))
}

/** What the clients sent. */
export async function readDhcpRequests(): Promise<readonly CapturedDhcp[]> {
  return (await readDhcpCaptures()).filter(({ payload }) => payload[0] === BOOTP_OP.request)
}

/** Endless damaged copies of the packets, the same for the same seed: changed bytes, cut tails, repeated middles. */
export function* mutations(packets: readonly Uint8Array[], seed: number): Generator<Uint8Array, never> {
  const below = randomBelow(seed)
  for (;;) {
    let bytes = Uint8Array.from(packets[below(packets.length)] ?? [])
    for (let changes = below(6); changes >= 0; changes--) {
      // Half of the changes go into the options, where the lengths are.
      const start = below(2) === 0 ? Math.min(240, bytes.length) : 0
      bytes[start + below(Math.max(bytes.length - start, 1))] = below(256)
    }
    if (below(4) === 0) bytes = bytes.slice(0, below(bytes.length + 1))
    if (below(8) === 0) {
      const at = below(bytes.length + 1)
      bytes = Uint8Array.from([
        ...bytes.subarray(0, at),
        ...bytes.subarray(Math.min(at, 240), at + below(80)),
        ...bytes.subarray(at),
      ])
    }
    yield bytes
  }
}

/** Mulberry32: small, quick, and repeatable where Math.random is not. */
function randomBelow(seed: number): (limit: number) => number {
  let state = seed
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit
  }
}
