// TFTP packets of real firmware, round trips, and bytes nobody meant.

import test from 'ava'
import fc from 'fast-check'

import { DecodeError } from '#lib/bytes.ts'
import { readUdpCapture } from '#testing/pcap.ts'

import { decodeTftp, encodeTftp, type TftpPacket, type TftpRequest } from './tftp.ts'
import { negotiateTftp } from './tftp-options.ts'

const capture = (name: string) => readUdpCapture(new URL(`testdata/${name}`, import.meta.url))

const bytes = (...parts: readonly (string | number)[]) =>
  Buffer.concat(
    parts.map((part) => (typeof part === 'number' ? Buffer.of(part) : Buffer.from(part, 'latin1'))),
  )

/** Data as a Uint8Array proper, so that it compares equal to one: what is decoded is a view of the kind it came in. */
const plain = (packet: TftpPacket): TftpPacket =>
  packet.kind === 'data' ? { ...packet, bytes: new Uint8Array(packet.bytes) } : packet

const read = (name: string, options: Readonly<Record<string, string>>): TftpRequest => ({
  kind: 'read',
  name,
  mode: 'octet',
  options: new Map(Object.entries(options)),
})

const OVMF_PROBE = read('snponly.efi', { tsize: '0', blksize: '1468', windowsize: '4' })
const OVMF_READ = read('snponly.efi', { blksize: '1468', windowsize: '4' })

const firmware: readonly (readonly [file: string, requests: readonly TftpRequest[]])[] = [
  [
    'ovmf-pxe-then-ipxe-efi.pcap',
    [OVMF_PROBE, OVMF_READ, read('autoexec.ipxe', { blksize: '1432', tsize: '0' })],
  ],
  ['ovmf-pxe-then-ipxe2019-efi.pcap', [OVMF_PROBE, OVMF_READ]],
  ['seabios-ipxe-rom-then-undionly.pcap', [read('undionly.kpxe', { blksize: '1432', tsize: '0' })]],
]

for (const [file, requests] of firmware) {
  test(`decodeTftp() reads what firmware asked when given ${file}`, async (t) => {
    const asked = (await capture(file)).filter(({ targetPort }) => targetPort === 69)
    t.deepEqual(
      asked.map(({ payload }) => decodeTftp(payload)),
      requests,
    )
    // Options keep their order, so that the very same bytes come out again.
    for (const { payload } of asked)
      t.deepEqual(Buffer.from(encodeTftp(decodeTftp(payload))), Buffer.from(payload))
  })
}

test('decodeTftp() reads how OVMF ends a size probe and how it gives up', async (t) => {
  const answers = async (file: string) =>
    (await capture(file))
      .filter(({ sourcePort, targetPort }) => sourcePort > 1024 && targetPort > 4011)
      .map(({ payload }) => decodeTftp(payload))
  t.deepEqual(await answers('ovmf-pxe-then-ipxe2019-efi.pcap'), [
    { kind: 'error', code: 8, message: 'User aborted the transfer' },
  ])
  t.deepEqual(await answers('ovmf-tftp-without-oack-fails.pcap'), [
    { kind: 'error', code: 4, message: 'User aborted download' },
  ])
})

const decoded: readonly (readonly [what: string, packet: Uint8Array, expected: TftpPacket])[] = [
  [
    'a request without options (RFC 1350 §5)',
    bytes(0, 1, 'a', 0, 'OCTET', 0),
    { kind: 'read', name: 'a', mode: 'octet', options: new Map() },
  ],
  [
    'option names in any case, the first of two counts',
    bytes(0, 1, 'a', 0, 'octet', 0, 'BlkSize', 0, '1024', 0, 'blksize', 0, '8', 0),
    { kind: 'read', name: 'a', mode: 'octet', options: new Map([['blksize', '1024']]) },
  ],
  ['an ACK with bytes behind it', bytes(0, 4, 0xff, 0xff, 0), { kind: 'ack', block: 65_535 }],
  ['an ERROR whose text does not end', bytes(0, 5, 0, 8, 'no'), { kind: 'error', code: 8, message: 'no' }],
  ['an ERROR without text', bytes(0, 5, 0, 0), { kind: 'error', code: 0, message: '' }],
  ['an empty DATA', bytes(0, 3, 0, 1), { kind: 'data', block: 1, bytes: new Uint8Array() }],
]

for (const [what, packet, expected] of decoded) {
  test(`decodeTftp() accepts ${what}`, (t) => {
    t.deepEqual(plain(decodeTftp(packet)), expected)
  })
}

const broken: readonly (readonly [what: string, packet: Uint8Array])[] = [
  ['nothing', bytes()],
  ['half an opcode', bytes(0)],
  ['an unknown opcode', bytes(0, 7, 0, 0)],
  ['an ACK without a block', bytes(0, 4, 0)],
  ['a request without a mode', bytes(0, 1, 'name', 0)],
  ['a name that does not end', bytes(0, 1, 'name')],
  ['an option without a value', bytes(0, 1, 'a', 0, 'octet', 0, 'blksize', 0)],
]

for (const [what, packet] of broken) {
  test(`decodeTftp() throws DecodeError when given ${what}`, (t) => {
    t.throws(() => decodeTftp(packet), { instanceOf: DecodeError })
  })
}

const latin1Text = fc.string({
  unit: fc.integer({ min: 1, max: 255 }).map((code) => String.fromCharCode(code)),
})
const uint16 = fc.integer({ min: 0, max: 65_535 })
const options = fc
  .array(fc.tuple(latin1Text, latin1Text))
  .map((pairs) => new Map(pairs.map(([name, value]) => [name.toLowerCase(), value])))

const packets: fc.Arbitrary<TftpPacket> = fc.oneof(
  fc.record({
    kind: fc.constantFrom('read', 'write'),
    name: latin1Text,
    mode: fc.constantFrom('octet', 'netascii', 'mail'),
    options,
  }),
  fc.record({ kind: fc.constant('data'), block: uint16, bytes: fc.uint8Array() }),
  fc.record({ kind: fc.constant('ack'), block: uint16 }),
  fc.record({ kind: fc.constant('error'), code: uint16, message: latin1Text }),
  fc.record({ kind: fc.constant('oack'), options }),
)

test('decodeTftp() gives back what encodeTftp() was given', (t) => {
  fc.assert(fc.property(packets, (packet) => t.deepEqual(plain(decodeTftp(encodeTftp(packet))), packet)))
})

test('decodeTftp() throws only DecodeError when given any bytes', (t) => {
  const mutated = fc
    .tuple(packets, fc.array(fc.tuple(fc.nat(600), fc.integer({ min: 0, max: 255 }))), fc.nat(600))
    .map(([packet, changes, length]) => {
      const image = Buffer.from(encodeTftp(packet))
      for (const [at, value] of changes) image[at % image.length] = value
      return image.subarray(0, length)
    })
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 600 }), mutated), (input) => {
      try {
        decodeTftp(input)
      } catch (error) {
        if (!(error instanceof DecodeError)) throw error
      }
    }),
    { numRuns: 5000 },
  )
  t.pass()
})

test('encodeTftp() refuses text that the wire cannot carry', (t) => {
  for (const message of ['a\0b', 'żółw']) {
    t.throws(() => encodeTftp({ kind: 'error', code: 0, message }), { instanceOf: RangeError })
  }
})

const LIMITS = { maxBlockBytes: 1468, maxWindowBlocks: 16 }

const negotiations: readonly (readonly [
  what: string,
  asked: Record<string, string>,
  granted: Record<string, string>,
])[] = [
  ['nothing when nothing is asked', {}, {}],
  [
    "OVMF's size probe",
    { tsize: '0', blksize: '1468', windowsize: '4' },
    { blksize: '1468', windowsize: '4', tsize: '284672' },
  ],
  ["iPXE's options", { blksize: '1432', tsize: '0' }, { blksize: '1432', tsize: '284672' }],
  [
    'less than asked when that is too much',
    { blksize: '65464', windowsize: '65535' },
    { blksize: '1468', windowsize: '16' },
  ],
  [
    'the smallest values',
    { blksize: '8', windowsize: '1', timeout: '1' },
    { blksize: '8', windowsize: '1', timeout: '1' },
  ],
  ['nothing below the range', { blksize: '7', windowsize: '0', timeout: '0' }, {}],
  ['nothing above the range', { blksize: '65465', windowsize: '65536', timeout: '11' }, {}],
  ['nothing that is no number', { blksize: '0x400', windowsize: '-4', timeout: '' }, {}],
  ['nothing it does not know', { multicast: '', 'x-custom': '1' }, {}],
]

for (const [what, asked, granted] of negotiations) {
  test(`negotiateTftp() grants ${what}`, (t) => {
    const result = negotiateTftp(new Map(Object.entries(asked)), 284_672, LIMITS)
    t.deepEqual(Object.fromEntries(result.granted), granted)
    t.is(String(result.parameters.blockBytes), granted['blksize'] ?? '512')
    t.is(String(result.parameters.windowBlocks), granted['windowsize'] ?? '1')
  })
}
