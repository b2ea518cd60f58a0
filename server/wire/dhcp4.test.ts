// The DHCPv4 codec against real firmware's packets and packets made field by field.

import test from 'ava'

import { DecodeError } from '#lib/bytes.ts'
import { parseIpv4 } from '#lib/ipv4.ts'
import { parseMac } from '#lib/mac.ts'
import { type CapturedDhcp, readDhcpCaptures } from '#testing/captured-dhcp.ts'

import { discover, hex, sayings } from '#testing/made-dhcp.ts'

import { type DhcpPacket, decodeDhcp, findPacketMac, maxReplyBytes } from './dhcp4.ts'
import { OPTION } from './dhcp4-codes.ts'
import { encodeDhcp } from './dhcp4-encode.ts'
import { concat, decodeEncapsulated, encodeEncapsulated } from './dhcp4-options.ts'
import {
  type DhcpOptions,
  findIp,
  findIpList,
  findMessageType,
  findText,
  findUint8,
  findUint16,
  findUint32,
  ipListBytes,
  textBytes,
} from './dhcp4-values.ts'

let captured: readonly CapturedDhcp[]

test.before(async () => {
  captured = await readDhcpCaptures()
})

/** Like OVMF's first DISCOVER, but for its options. */
const PLAIN = discover({}, { xid: 0x330848bd, secs: 4 })

const MESSAGE: readonly [number, Uint8Array] = [OPTION.messageType, Uint8Array.of(2)]

/** A packet of these bytes: header with cookie, sname and file filled as given, then the option area as it is. */
function raw(
  area: readonly number[],
  fields: { sname?: readonly number[]; file?: readonly number[] } = {},
): Uint8Array {
  const bytes = concat(encodeDhcp({ ...PLAIN, options: new Map() }).subarray(0, 240), Uint8Array.from(area))
  bytes.set(fields.sname ?? [], 44)
  bytes.set(fields.file ?? [], 108)
  return bytes
}

test('decodeDhcp() reads every field of OVMF’s first DISCOVER', (t) => {
  const packet = decodeDhcp(
    captured.find(({ name }) => name === 'ovmf-pxe-then-ipxe-efi #1')?.payload ?? new Uint8Array(),
  )
  t.deepEqual({ ...packet, options: PLAIN.options }, { ...PLAIN, secs: 0 })
  t.is(findPacketMac(packet), parseMac('52:54:00:77:00:01'))
  t.deepEqual([...packet.options.keys()], [53, 57, 55, 97, 94, 93, 60])
  t.is(findMessageType(packet.options), 1)
  t.is(findUint16(packet.options, OPTION.maxMessageBytes), 0x5c0)
  t.is(findText(packet.options, OPTION.vendorClass), 'PXEClient:Arch:00007:UNDI:003000')
})

test('encodeDhcp() gives back what decodeDhcp() read, for each captured packet', (t) => {
  t.is(captured.length, 62)
  for (const { name, payload } of captured) {
    const packet = decodeDhcp(payload)
    const bytes = encodeDhcp(packet)
    t.deepEqual(sayings(decodeDhcp(bytes)), sayings(packet), name)
    t.true(bytes.length >= 300, name)
  }
})

test('decodeDhcp() throws DecodeError and says why when the packet is broken', (t) => {
  const whole = encodeDhcp(PLAIN)
  const changed = (offset: number, value: number) => whole.with(offset, value)
  const cases: readonly [string, Uint8Array, RegExp][] = [
    ['nothing', new Uint8Array(), /^op: /],
    ['op 3', changed(0, 3), /op 3/],
    ['hlen 17', changed(2, 17), /hlen 17/],
    ['cut before the cookie', whole.subarray(0, 238), /magic cookie: /],
    ['another cookie', changed(236, 0), /plain BOOTP/],
    ['a length past the end', raw([54, 4, 10, 77]), /option 54: 4 bytes wanted/],
    ['a code and no length', raw([54]), /length of option 54/],
    ['overload 4', raw([52, 1, 4, 255]), /overload 4/],
    ['overload of two bytes', raw([52, 2, 1, 1, 255]), /option 52: length 2/],
    ['overloaded file cut short', raw([52, 1, 1, 255], { file: new Array(128).fill(12) }), /option 12/],
  ]
  for (const [what, bytes, message] of cases)
    t.throws(() => decodeDhcp(bytes), { instanceOf: DecodeError, message }, what)
})

test('decodeDhcp() is lenient when END is missing, pad follows, garbage follows END, or a name has no NUL', (t) => {
  const expected = { 53: '01' }
  const cases: readonly [string, Uint8Array][] = [
    ['no END', raw([53, 1, 1])],
    ['pad before and after', raw([0, 0, 53, 1, 1, 0, 255, 0, 0])],
    ['garbage after END', raw([53, 1, 1, 255, 54, 4, 1])],
  ]
  for (const [what, bytes] of cases) t.like(sayings(decodeDhcp(bytes)), { options: expected }, what)
  t.is(decodeDhcp(raw([255], { file: new Array(128).fill(0x61) })).bootFile, 'a'.repeat(128))
})

test('decodeDhcp() merges options, file and sname in that order when option 52 says so', (t) => {
  const bytes = raw([53, 1, 2, 52, 1, 3, 67, 2, 0x61, 0x62, 255], {
    file: [67, 2, 0x63, 0x64, 12, 1, 0x68, 255],
    sname: [0, 67, 1, 0x65, 255],
  })
  const packet = decodeDhcp(bytes)
  t.deepEqual([...packet.options.keys()], [53, 67, 12])
  t.is(findText(packet.options, OPTION.bootFileName), 'abcde')
  t.is(packet.bootFile, '')
  t.is(packet.serverName, '')
})

test('decodeDhcp() joins as many parts of an option as a datagram holds', (t) => {
  const parts = Array.from({ length: 20_000 }, (_, i) => [200, 1, i & 0xff])
  const value = decodeDhcp(raw(parts.flat())).options.get(200)
  t.is(value?.length, 20_000)
  t.is(hex(value?.subarray(-2)), '1e1f')
})

test('decodeDhcp() hands out plain Uint8Arrays when it is given a Buffer', (t) => {
  const value = decodeDhcp(Buffer.from(encodeDhcp(PLAIN))).options.get(OPTION.messageType)
  t.false(Buffer.isBuffer(value))
})

test('encodeDhcp() puts 53 first and 82 last, ends with END and pads to 300 bytes', (t) => {
  const options = new Map([
    [OPTION.relayAgent, Uint8Array.of(1, 1, 7)],
    [OPTION.router, Uint8Array.of(10, 0, 0, 1)],
    MESSAGE,
  ])
  const bytes = encodeDhcp({ ...PLAIN, options })
  t.is(hex(bytes.subarray(240, 256)), '350102' + '03040a000001' + '5203010107' + 'ff' + '00')
  t.is(bytes.length, 300)
})

test('encodeDhcp() splits a value longer than 255 bytes, and decodeDhcp() joins it', (t) => {
  const long = Uint8Array.from({ length: 600 }, (_, i) => i & 0xff)
  const bytes = encodeDhcp(
    { ...PLAIN, options: new Map([MESSAGE, [OPTION.classlessRoutes, long]]) },
    { maxBytes: 1472 },
  )
  t.deepEqual(
    [bytes[243], bytes[244], bytes[500], bytes[501], bytes[757], bytes[758]],
    [121, 255, 121, 255, 121, 90],
  )
  t.deepEqual(decodeDhcp(bytes).options.get(OPTION.classlessRoutes), long)
})

test('encodeDhcp() overloads file, then sname, then both, only when the options do not fit otherwise', (t) => {
  const filler = (length: number): [number, Uint8Array] => [
    OPTION.domainSearch,
    new Uint8Array(length).fill(0x61),
  ]
  const names = { bootFile: 'snponly.efi', serverName: '10.77.0.1' }
  const relay: [number, Uint8Array] = [OPTION.relayAgent, new Uint8Array(40).fill(1)]
  const cases = [
    {
      what: 'fits to the byte',
      options: [filler(200), [OPTION.hostName, new Uint8Array(100)]],
      overload: undefined,
    },
    {
      what: 'one more than fits',
      options: [filler(200), [OPTION.hostName, new Uint8Array(101)]],
      overload: 1,
    },
    {
      what: 'file too small',
      options: [filler(255), [OPTION.hostName, new Uint8Array(120)], [15, new Uint8Array(50)]],
      overload: 3,
    },
    {
      what: 'file taken by a long name',
      options: [filler(250), [OPTION.hostName, new Uint8Array(60)]],
      bootFile: 'x'.repeat(100),
      overload: 2,
    },
    {
      what: 'with option 82',
      options: [relay, filler(200), [OPTION.hostName, new Uint8Array(60)]],
      overload: 1,
    },
  ] as const
  for (const { what, options, overload, ...field } of cases) {
    const packet = { ...PLAIN, ...names, ...field, options: new Map([MESSAGE, ...options]) }
    const bytes = encodeDhcp(packet)
    t.true(bytes.length <= 548, what)
    t.deepEqual(
      [...bytes.subarray(243, 246)],
      overload ? [52, 1, overload] : [...bytes.subarray(243, 246)],
      what,
    )
    const back = decodeDhcp(bytes)
    for (const [code, value] of packet.options) t.deepEqual(back.options.get(code), value, what)
    t.is(back.bootFile || findText(back.options, OPTION.bootFileName), packet.bootFile, what)
    if (packet.options.has(OPTION.relayAgent))
      t.is(hex(bytes)?.slice(-4, -2), '01', 'option 82 ends the option area')
  }
})

test('encodeDhcp() throws RangeError when something cannot be sent', (t) => {
  const cases: readonly [DhcpPacket, RegExp][] = [
    [{ ...PLAIN, bootFile: 'x'.repeat(128) }, /boot file/],
    [{ ...PLAIN, serverName: 'x'.repeat(64) }, /server name/],
    [{ ...PLAIN, bootFile: 'ключ' }, /one byte a character/],
    [{ ...PLAIN, hardwareAddress: new Uint8Array(17) }, /17 bytes/],
    [{ ...PLAIN, options: new Map([[255, new Uint8Array()]]) }, /code 255/],
    [{ ...PLAIN, options: new Map([[43, new Uint8Array(800)]]) }, /into 548 bytes/],
  ]
  for (const [packet, message] of cases)
    t.throws(() => encodeDhcp(packet), { instanceOf: RangeError, message })
})

test('maxReplyBytes() goes by option 57 within what every client takes and an Ethernet carries', (t) => {
  const asking = (value?: readonly number[]) => ({
    ...PLAIN,
    options: new Map(value ? [[OPTION.maxMessageBytes, Uint8Array.from(value)]] : []),
  })
  t.is(maxReplyBytes(asking()), 548)
  t.is(maxReplyBytes(asking([0x00, 0x40])), 548)
  t.is(maxReplyBytes(asking([0x05, 0xc0])), 1444)
  t.is(maxReplyBytes(asking([0xff, 0x00])), 1472)
  t.throws(() => maxReplyBytes(asking([1])), { instanceOf: DecodeError })
})

test('find…() give undefined for an absent option and throw DecodeError for a broken one', (t) => {
  const readers: readonly ((options: DhcpOptions, code: number) => unknown)[] = [
    findUint8,
    findUint16,
    findUint32,
    findIp,
    findIpList,
  ]
  for (const read of readers) {
    t.is(read(new Map(), 3), undefined, read.name)
    t.throws(() => read(new Map([[3, new Uint8Array(7)]]), 3), { instanceOf: DecodeError }, read.name)
  }
  const two = [parseIpv4('10.77.0.1'), parseIpv4('10.77.0.2')]
  t.deepEqual(findIpList(new Map([[6, ipListBytes(two)]]), 6), two)
  t.is(findUint32(new Map([[51, Uint8Array.of(0xff, 0xff, 0xff, 0xff)]]), 51), 0xffffffff)
  t.is(findText(new Map([[67, textBytes('a\0b\0\0')]]), 67), 'a\0b')
  t.is(findMessageType(new Map([[53, Uint8Array.of(10)]])), undefined, 'LEASEQUERY is none of ours')
})

test('decodeEncapsulated() reads what encodeEncapsulated() wrote, with END and without', (t) => {
  const options = new Map([
    [6, Uint8Array.of(8)],
    [0xb0, Uint8Array.of(1)],
  ])
  t.is(hex(encodeEncapsulated(options, { end: true })), '060108' + 'b00101' + 'ff')
  for (const end of [true, false])
    t.deepEqual(decodeEncapsulated(encodeEncapsulated(options, { end })), options)
})
