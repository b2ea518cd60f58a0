// The DHCPv4 codec against any packet and against noise.

import test from 'ava'
import fc from 'fast-check'

import { DecodeError } from '#lib/bytes.ts'
import { parseIpv4 } from '#lib/ipv4.ts'
import { mutations, readDhcpCaptures } from '#testing/captured-dhcp.ts'
import { hex, sayings } from '#testing/made-dhcp.ts'

import { type DhcpPacket, decodeDhcp } from './dhcp4.ts'
import { BOOTP_OP, OPTION } from './dhcp4-codes.ts'
import { encodeDhcp } from './dhcp4-encode.ts'

const address = fc.ipV4().map(parseIpv4)
const name = (maxLength: number) =>
  fc.string({ unit: fc.integer({ min: 1, max: 255 }).map((code) => String.fromCharCode(code)), maxLength })
const optionMap = fc
  .array(fc.tuple(fc.integer({ min: 1, max: 254 }), fc.uint8Array({ maxLength: 300 })), { maxLength: 12 })
  .map((entries) => new Map(entries.filter(([code]) => code !== OPTION.overload)))
const anyPacket: fc.Arbitrary<DhcpPacket> = fc.record({
  op: fc.constantFrom(BOOTP_OP.request, BOOTP_OP.reply),
  hardwareType: fc.nat(255),
  hardwareAddress: fc.uint8Array({ maxLength: 16 }),
  hops: fc.nat(255),
  xid: fc.nat(0xffffffff),
  secs: fc.nat(0xffff),
  broadcast: fc.boolean(),
  clientIp: address,
  yourIp: address,
  nextServerIp: address,
  relayIp: address,
  serverName: name(63),
  bootFile: name(127),
  options: optionMap,
})

test('decodeDhcp() gives back any packet that encodeDhcp() wrote', (t) => {
  fc.assert(
    fc.property(anyPacket, (packet) => {
      t.deepEqual(sayings(decodeDhcp(encodeDhcp(packet, { maxBytes: 4096 }))), sayings(packet))
    }),
    { numRuns: 500 },
  )
  t.pass()
})

test('encodeDhcp() loses nothing and keeps to maxBytes, however tight', (t) => {
  let overloaded = 0
  fc.assert(
    fc.property(anyPacket, fc.integer({ min: 300, max: 1472 }), (packet, maxBytes) => {
      let bytes: Uint8Array
      try {
        bytes = encodeDhcp(packet, { maxBytes })
      } catch (error) {
        return error instanceof RangeError
      }
      const back = decodeDhcp(bytes)
      if (back.bootFile !== packet.bootFile || back.serverName !== packet.serverName) overloaded++
      const kept = [...packet.options].every(([code, value]) => hex(back.options.get(code)) === hex(value))
      return bytes.length <= maxBytes && kept
    }),
    { numRuns: 2000 },
  )
  t.true(overloaded > 20, 'the generator reaches overloading')
})

test('decodeDhcp() throws nothing but DecodeError for arbitrary bytes', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 700 }), (bytes) => {
      decodesOrRefuses(bytes)
    }),
    { numRuns: 3000 },
  )
  t.pass()
})

test('decodeDhcp() throws nothing but DecodeError for 100,000 damaged packets of real firmware', async (t) => {
  const payloads = (await readDhcpCaptures()).map(({ payload }) => payload)
  let refused = 0
  fc.assert(
    fc.property(fc.integer(), (seed) => {
      const damaged = mutations(payloads, seed)
      for (let i = 0; i < 1000; i++) {
        const bytes = damaged.next().value
        if (!decodesOrRefuses(bytes)) refused++
      }
    }),
    { numRuns: 100 },
  )
  t.log(`${refused} of 100000 refused`)
  t.true(refused > 10_000 && refused < 90_000, 'the damage is neither nothing nor everything')
})

/** True when it decodes, false when refused as it should be. Throws anything else. */
function decodesOrRefuses(bytes: Uint8Array): boolean {
  try {
    decodeDhcp(bytes)
    return true
  } catch (error) {
    if (error instanceof DecodeError) return false
    throw error
  }
}
