// What real firmware and its odd relatives are taken for, and what they are to load.

import test from 'ava'

import { parseIpv4 } from '#lib/ipv4.ts'
import { parseMac } from '#lib/mac.ts'
import { type CapturedDhcp, readDhcpRequests } from '#testing/captured-dhcp.ts'
import { discover, type MadeOptions } from '#testing/made-dhcp.ts'
import { type DhcpPacket, decodeDhcp } from '#wire/dhcp4.ts'

import { type BootClient, classify } from './classify.ts'
import { type BootContext, decideBoot } from './pxe-decide.ts'

const CONTEXT: BootContext = { serverIp: parseIpv4('10.77.0.1'), httpBaseUrl: 'http://10.77.0.1:8080' }
const SCRIPT = 'http://10.77.0.1:8080/boot/52-54-00-77-00-01.ipxe'
const PXE = 'PXEClient:Arch:00007:UNDI:003000'

let requests: readonly CapturedDhcp[]

test.before(async () => {
  requests = await readDhcpRequests()
})

test('classify() tells firmware from iPXE, BIOS from UEFI and TFTP from HTTP in each captured request', (t) => {
  const firmware = (
    firmware: BootClient['firmware'],
    architecture: number,
    transport: BootClient['transport'],
  ) => ({
    firmware,
    architecture,
    transport,
  })
  const ovmf = firmware('uefi-x64', 7, 'tftp')
  const ovmfHttp = firmware('uefi-x64', 16, 'http')
  const ipxeUefi = { ...ovmf, ipxe: { speaksHttp: true } }
  const ipxeBios = { ...firmware('bios', 0, 'tftp'), ipxe: { speaksHttp: true } }
  const expected: Readonly<Record<string, readonly [frames: readonly number[], boot: BootClient][]>> = {
    'ovmf-http-boot': [
      [[1, 2, 3, 4], ovmf],
      [[5, 7], ovmfHttp],
      [[9, 11, 13], ipxeUefi],
    ],
    'ovmf-pxe-then-ipxe-efi': [
      [[1, 3], ovmf],
      [[10, 12, 14], ipxeUefi],
    ],
    'ovmf-pxe-then-ipxe2019-efi': [
      [[1, 3], ovmf],
      [[10, 12, 14], ipxeUefi],
    ],
    'ovmf-proxy-mode': [
      [[1, 4, 6], ovmf],
      [[11, 14], ipxeUefi],
    ],
    'ovmf-tftp-without-oack-fails': [[[1, 3], ovmf]],
    'seabios-ipxe-rom-then-undionly': [[[1, 3, 5, 9, 11, 13], ipxeBios]], // the ROM of 2019, then 1.21.1
  }
  const table = new Map<string, BootClient>(
    Object.entries(expected).flatMap(([capture, rows]) =>
      rows.flatMap(([frames, boot]) => frames.map((frame) => [`${capture} #${frame}`, boot] as const)),
    ),
  )
  t.deepEqual(
    requests.map(({ name }) => name),
    [...table.keys()],
  )
  for (const { name, payload } of requests) {
    const classified = classify(decodeDhcp(payload))
    t.deepEqual(classified.boot, table.get(name), name)
    t.is(classified.mac, parseMac('52:54:00:77:00:01'), name)
    const uuid = name.startsWith('ovmf-proxy-mode') ? '00112233-4455-6677-8899-aabbccddeeff' : undefined
    t.is(classified.uuid, uuid, name)
  }
})

test('classify() finds the architecture when it is listed, mixed up, unknown or missing', (t) => {
  const cases: readonly [
    what: string,
    architecture: readonly number[] | undefined,
    BootClient['firmware'],
    number?,
  ][] = [
    ['BIOS', [0, 0], 'bios', 0],
    ['32-bit UEFI', [0, 6], 'uefi-ia32', 6],
    ['x64 by the registry', [0, 7], 'uefi-x64', 7],
    ['x64 by RFC 4578 before its erratum', [0, 9], 'uefi-x64', 9],
    ['ARM64', [0, 11], 'uefi-arm64', 11],
    ['RISC-V, then x64', [0, 27, 0, 7], 'uefi-x64', 7],
    ['RISC-V', [0, 27], 'unknown', 27],
    ['an odd byte behind', [0, 7, 0], 'uefi-x64', 7],
    ['one byte only', [7], 'unknown'],
    ['left out', undefined, 'unknown'],
  ]
  for (const [what, architecture, firmware, number] of cases) {
    const { boot } = classify(discover({ 60: PXE, ...(architecture ? { 93: architecture } : {}) }))
    t.deepEqual(boot, { firmware, architecture: number, transport: 'tftp' }, what)
  }
})

test('classify() takes the transport from the class, and from the architecture only where the class says nothing', (t) => {
  const cases: readonly [
    vendorClass: string | undefined,
    architecture: number,
    transport: BootClient['transport'],
  ][] = [
    ['PXEClient:Arch:00016', 16, 'tftp'],
    ['HTTPClient:Arch:00007', 7, 'http'],
    ['U-Boot.armv8', 19, 'http'],
    [undefined, 15, 'http'],
    [undefined, 22, 'tftp'],
  ]
  for (const [vendorClass, architecture, transport] of cases) {
    const { boot } = classify(
      discover({ ...(vendorClass ? { 60: vendorClass } : {}), 93: [0, architecture] }),
    )
    t.is(boot?.transport, transport, `${vendorClass} ${architecture}`)
  }
  t.is(classify(discover({ 60: 'MSFT 5.0' })).boot, undefined)
  t.is(classify(discover({})).boot, undefined)
})

test('classify() knows iPXE by either of its options, in either form, and whether it speaks HTTP', (t) => {
  const http = [0x13, 1, 1]
  const version = [0xeb, 3, 1, 0, 0]
  const cases: readonly [what: string, MadeOptions, speaksHttp?: boolean][] = [
    ['bare name and features', { 77: 'iPXE', 175: [...version, ...http] }, true],
    ['a user class of its own', { 77: 'lab', 175: [...version, ...http] }, true],
    ['features without HTTP', { 77: 'iPXE', 175: [...version, 0x15, 1, 1] }, false],
    ['name alone', { 77: 'iPXE' }, false],
    ['gPXE', { 77: 'gPXE', 175: http }, true],
    ['RFC 3004 list', { 77: [3, 0x6c, 0x61, 0x62, 4, 0x69, 0x50, 0x58, 0x45] }, false],
    ['another name', { 77: 'iPXEish' }],
    ["somebody else's 175", { 175: [1, 1, 1] }],
    ['a broken 175', { 175: [0x13, 9, 1] }],
  ]
  for (const [what, options, speaksHttp] of cases) {
    const { boot } = classify(discover({ 60: PXE, 93: [0, 7], ...options }))
    t.deepEqual(boot?.ipxe, speaksHttp === undefined ? undefined : { speaksHttp }, what)
  }
})

test('classify() reads the UUID with and without its type byte, and none from zeros, ones or another length', (t) => {
  const wire = [...Buffer.from('33221100554477668899aabbccddeeff', 'hex')]
  const text = '00112233-4455-6677-8899-aabbccddeeff'
  const cases: readonly [readonly number[], string | undefined][] = [
    [[0, ...wire], text],
    [wire, text],
    [[1, ...wire], undefined],
    [[0, ...new Array(16).fill(0)], undefined],
    [[0, ...new Array(16).fill(0xff)], undefined],
    [wire.slice(1), undefined],
  ]
  for (const [option, uuid] of cases) t.is(classify(discover({ 60: PXE, 97: option })).uuid, uuid)
})

test('decideBoot() gives firmware its loader, iPXE its script, and says why there is nothing', (t) => {
  const decide = (options: MadeOptions, change?: Partial<DhcpPacket>) =>
    decideBoot(classify(discover(options, change)), CONTEXT)
  const loader = (fileName: string) => ({
    kind: 'loader',
    fileName,
    url: `http://10.77.0.1:8080/loaders/${fileName}`,
  })
  t.deepEqual(decide({ 60: PXE, 93: [0, 0] }), loader('undionly.kpxe'))
  t.deepEqual(decide({ 60: PXE, 93: [0, 9] }), loader('snponly.efi'))
  t.deepEqual(decide({ 60: 'HTTPClient', 93: [0, 19] }), loader('snponly-arm64.efi'))
  t.deepEqual(decide({ 60: PXE, 93: [0, 0], 175: [0x13, 1, 1] }), { kind: 'script', url: SCRIPT })
  t.deepEqual(
    decide({ 60: PXE, 93: [0, 27], 175: [0x13, 1, 1] }),
    { kind: 'script', url: SCRIPT },
    'iPXE is there: any architecture',
  )
  t.deepEqual(
    decide({ 60: PXE, 93: [0, 0], 77: 'iPXE' }),
    loader('undionly.kpxe'),
    'an iPXE that cannot fetch its script',
  )
  const event = 'unknown-architecture'
  t.like(decide({ 60: PXE, 93: [0, 27] }), {
    kind: 'none',
    reason: 'there is no loader for architecture 27',
    event,
  })
  t.like(decide({ 60: PXE, 93: [0, 6] }), {
    kind: 'none',
    reason: 'there is no loader for architecture 6 (uefi-ia32)',
    event,
  })
  t.like(decide({ 60: PXE }), { kind: 'none', event })
  t.deepEqual(decide({}), { kind: 'none', reason: 'it asks for no network boot' })
  t.like(decide({ 60: PXE, 93: [0, 7] }, { hardwareType: 32, hardwareAddress: new Uint8Array() }), {
    kind: 'none',
  })
})
