// What real firmware and its odd relatives are taken for, what they are offered, and when a machine is left alone.

import test from 'ava'
import fc from 'fast-check'

import { DecodeError } from '#lib/bytes.ts'
import { systemClock } from '#lib/clock.ts'
import { parseIpv4 } from '#lib/ipv4.ts'
import { type Mac, macFromBytes, parseMac } from '#lib/mac.ts'
import { type CapturedDhcp, mutations, readDhcpRequests } from '#testing/captured-dhcp.ts'
import { readGolden } from '#testing/golden.ts'
import { type DhcpPacket, decodeDhcp, maxReplyBytes } from '#wire/dhcp4.ts'
import { BOOTP_OP, MESSAGE_TYPE, OPTION } from '#wire/dhcp4-codes.ts'
import { encodeDhcp } from '#wire/dhcp4-encode.ts'
import { textBytes } from '#wire/dhcp4-values.ts'

import { type BootClient, classify } from './classify.ts'
import { LoopBreaker } from './loop-breaker.ts'
import { type BootContext, decideBoot } from './pxe-decide.ts'
import { type ProxyReply, proxyReply } from './pxe-proxy.ts'
import { withBoot } from './pxe-reply.ts'
import { QUIRKS, replyForm } from './quirks.ts'

const CONTEXT: BootContext = { serverIp: parseIpv4('10.77.0.1'), httpBaseUrl: 'http://10.77.0.1:8080' }
const ANY = { ip: parseIpv4('0.0.0.0'), port: 68 }
const SCRIPT = 'http://10.77.0.1:8080/boot/52-54-00-77-00-01.ipxe'

let requests: readonly CapturedDhcp[]

test.before(async () => {
  requests = await readDhcpRequests()
})

const bytes = (text: string) => Uint8Array.from(Buffer.from(text, 'hex'))

/** A DISCOVER with these options: text is text, an array is bytes. */
function discover(
  options: Readonly<Record<number, string | readonly number[]>>,
  change: Partial<DhcpPacket> = {},
): DhcpPacket {
  const entries = Object.entries(options).map(
    ([code, value]) =>
      [Number(code), typeof value === 'string' ? textBytes(value) : Uint8Array.from(value)] as const,
  )
  return {
    op: BOOTP_OP.request,
    hardwareType: 1,
    hardwareAddress: bytes('525400770001'),
    hops: 0,
    xid: 7,
    secs: 0,
    broadcast: true,
    clientIp: ANY.ip,
    yourIp: ANY.ip,
    nextServerIp: ANY.ip,
    relayIp: ANY.ip,
    serverName: '',
    bootFile: '',
    options: new Map([[OPTION.messageType, Uint8Array.of(MESSAGE_TYPE.discover)], ...entries]),
    ...change,
  }
}

const PXE = 'PXEClient:Arch:00007:UNDI:003000'

/** The reply of proxy mode to a packet from `from` on `port`. */
function answer(packet: DhcpPacket, port: 67 | 4011 = 67, from = ANY): ProxyReply {
  const classified = classify(packet)
  return proxyReply(packet, classified, {
    decision: decideBoot(classified, CONTEXT),
    context: CONTEXT,
    port,
    from,
  })
}

/** The same client asking the boot server on port 4011, with the address it was given. */
function asBootRequest(packet: DhcpPacket): DhcpPacket {
  const options = new Map([
    ...packet.options,
    [OPTION.messageType, Uint8Array.of(MESSAGE_TYPE.request)],
  ] as const)
  options.delete(OPTION.serverId)
  options.delete(OPTION.requestedIp)
  return { ...packet, options, clientIp: parseIpv4('10.77.0.130') }
}

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
    t.is(classified.uuid, undefined, `${name}: QEMU without -uuid`)
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
  const cases: readonly [
    what: string,
    Readonly<Record<number, string | readonly number[]>>,
    speaksHttp?: boolean,
  ][] = [
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
  const wire = [...bytes('33221100554477668899aabbccddeeff')]
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
  const decide = (options: Parameters<typeof discover>[0], change?: Partial<DhcpPacket>) =>
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

test('replyForm() has the evidence for each quirk and a client for each', (t) => {
  const clients: readonly BootClient[] = requests
    .map(({ payload }) => classify(decodeDhcp(payload)).boot)
    .filter((boot) => boot !== undefined)
  for (const { name, evidence, form } of QUIRKS) {
    t.regex(evidence, /^(?:seen on|\[src\]|reported|untested)/, name)
    const applies = clients.some((client) =>
      (['proxy', 'server'] as const).some((mode) => {
        const whole: Readonly<Record<string, boolean>> = { ...replyForm(client, mode) }
        return Object.entries(form).every(([key, value]) => whole[key] === value)
      }),
    )
    t.true(applies, name)
  }
})

test('proxyReply() and withBoot() answer each kind of captured request as recorded', async (t) => {
  const hex = (packet: DhcpPacket, request: DhcpPacket) =>
    Buffer.from(encodeDhcp(packet, { maxBytes: maxReplyBytes(request) })).toString('hex')
  const show = (packet: DhcpPacket, request: DhcpPacket) => ({
    siaddr: packet.nextServerIp,
    sname: packet.serverName,
    file: packet.bootFile,
    options: [...packet.options].map(([code, value]) => {
      const text = [60, 66, 67].includes(code)
        ? JSON.stringify(Buffer.from(value).toString('latin1'))
        : Buffer.from(value).toString('hex')
      return `${code} ${text}`
    }),
    packet: hex(packet, request).match(/.{1,64}/g),
  })
  const proxied = (reply: ProxyReply, request: DhcpPacket) =>
    reply.kind === 'reply' ? { to: `${reply.to.ip}:${reply.to.port}`, ...show(reply.packet, request) } : reply

  const seen = new Set<string>()
  const records = requests.flatMap(({ name, payload }) => {
    const request = decodeDhcp(payload)
    const classified = classify(request)
    const kind = JSON.stringify([classified.messageType, classified.boot, [...request.options.keys()]])
    if (seen.has(kind)) return [] // the same request again
    seen.add(kind)
    const decision = decideBoot(classified, CONTEXT)
    const lease = {
      ...request,
      op: BOOTP_OP.reply,
      yourIp: parseIpv4('10.77.0.130'),
      options: new Map([[OPTION.messageType, Uint8Array.of(MESSAGE_TYPE.offer)]]),
    }
    const bootRequest = asBootRequest(request)
    return [
      {
        request: name,
        proxy: proxied(answer(request), request),
        bootServer: proxied(answer(bootRequest, 4011, { ip: bootRequest.clientIp, port: 4011 }), bootRequest),
        server: show(withBoot(lease, request, { classified, decision, context: CONTEXT }), request),
      },
    ]
  })
  const actual = `${JSON.stringify(records, undefined, 1)}\n`
  t.is(actual, await readGolden(new URL('testdata/boot-replies.json', import.meta.url), actual))
})

test('proxyReply() tells a BIOS ROM to boot from the offer itself, and leaves option 43 out for UEFI', (t) => {
  const options = (request: DhcpPacket) => {
    const reply = answer(request)
    return reply.kind === 'reply' ? reply.packet.options : new Map<number, Uint8Array>()
  }
  const bios = options(discover({ 60: 'PXEClient:Arch:00000:UNDI:002001', 93: [0, 0] }))
  t.deepEqual(bios.get(OPTION.vendorSpecific), bytes('060108ff'))
  t.deepEqual(bios.get(OPTION.vendorClass), textBytes('PXEClient'))
  t.deepEqual(bios.get(OPTION.bootFileName), textBytes('undionly.kpxe\0'))
  t.false(options(discover({ 60: PXE, 93: [0, 7] })).has(OPTION.vendorSpecific))
})

test('proxyReply() ignores what is not its to answer', (t) => {
  const boot = { 60: PXE, 93: [0, 7] }
  const cases: readonly [what: string, ProxyReply, RegExp][] = [
    ['no network boot', answer(discover({})), /no network boot/],
    ['REQUEST to the router', answer(asBootRequest(discover(boot))), /not a DISCOVER/],
    ['DISCOVER on 4011', answer(discover(boot), 4011), /not a REQUEST/],
    ['another boot server', answer(discover({ ...boot, 53: [3], 54: [10, 77, 0, 2] }), 4011), /10\.77\.0\.2/],
    ['a reply', answer(discover(boot, { op: BOOTP_OP.reply })), /is a reply/],
    ['no loader', answer(discover({ 60: PXE, 93: [0, 27] })), /no loader/],
    ['LEASEQUERY', answer(discover({ ...boot, 53: [10] })), /not a DISCOVER/],
  ]
  for (const [what, reply, reason] of cases) {
    if (reply.kind === 'reply') t.fail(what)
    else t.regex(reply.reason, reason, what)
  }
})

test('proxyReply() answers through the relay with its option 82, and a client without an address by broadcast', (t) => {
  const relayed = answer(discover({ 60: PXE, 93: [0, 7], 82: [1, 1, 9] }, { relayIp: parseIpv4('10.9.0.1') }))
  if (relayed.kind !== 'reply') return t.fail(relayed.reason)
  t.deepEqual(relayed.to, { ip: parseIpv4('10.9.0.1'), port: 67 })
  t.is(relayed.packet.relayIp, parseIpv4('10.9.0.1'))
  t.deepEqual([...relayed.packet.options.keys()].at(-1), OPTION.relayAgent)

  const homeless = answer(discover({ 60: PXE, 93: [0, 7], 53: [3] }), 4011, ANY)
  t.like(homeless, { kind: 'reply', to: { ip: parseIpv4('255.255.255.255'), port: 68 } })
})

test('withBoot() leaves a reply as it is when there is nothing to boot', (t) => {
  const request = discover({})
  const reply = discover({ 53: [2] }, { op: BOOTP_OP.reply })
  const classified = classify(request)
  t.is(
    withBoot(reply, request, { classified, decision: decideBoot(classified, CONTEXT), context: CONTEXT }),
    reply,
  )
})

test('withBoot() names a URL too long for the file field in option 67 only, and chains an old iPXE by tftp URL', (t) => {
  const boot = (options: Parameters<typeof discover>[0], context: BootContext) => {
    const request = discover(options)
    const classified = classify(request)
    return withBoot(discover({}), request, { classified, decision: decideBoot(classified, context), context })
  }
  const far = boot(
    { 60: 'HTTPClient', 93: [0, 16] },
    { ...CONTEXT, httpBaseUrl: `http://${'x'.repeat(120)}` },
  )
  t.is(far.bootFile, '')
  t.deepEqual(
    far.options.get(OPTION.bootFileName),
    textBytes(`http://${'x'.repeat(120)}/loaders/snponly.efi\0`),
  )
  t.is(boot({ 60: PXE, 93: [0, 0], 77: 'iPXE' }, CONTEXT).bootFile, 'tftp://10.77.0.1/undionly.kpxe')
})

test('the way from packet to reply throws nothing but DecodeError when real requests are damaged', (t) => {
  const payloads = requests.map(({ payload }) => payload)
  let replies = 0
  fc.assert(
    fc.property(fc.integer(), (seed) => {
      const damaged = mutations(payloads, seed)
      for (let i = 0; i < 1000; i++) {
        try {
          const packet = decodeDhcp(damaged.next().value)
          const reply = answer(packet)
          if (reply.kind === 'reply')
            replies += encodeDhcp(reply.packet, { maxBytes: maxReplyBytes(packet) }) ? 1 : 0
        } catch (error) {
          if (!(error instanceof DecodeError)) throw error
        }
      }
    }),
    { numRuns: 20 },
  )
  t.true(replies > 500, 'some damage does no harm')
})

/** A clock that stands where it is put. */
function standingClock() {
  const clock = { ms: 0, ...systemClock, monotonicMs: () => clock.ms }
  return clock
}

const MAC = parseMac('52:54:00:77:00:01')
const REQUEST = MESSAGE_TYPE.request

test('LoopBreaker refuses a machine after five boots without a script, once with a word, and lets it try again later', (t) => {
  const clock = standingClock()
  const breaker = new LoopBreaker(clock)
  const verdicts = [1, 2, 3, 4, 5, 6].map((xid) => {
    clock.ms += 20_000
    return breaker.check(MAC, { messageType: REQUEST, xid })
  })
  t.deepEqual(verdicts, ['open', 'open', 'open', 'open', 'tripped', 'refused'])
  t.is(breaker.check(MAC, { messageType: MESSAGE_TYPE.discover, xid: 7 }), 'refused')
  t.is(
    breaker.check(parseMac('52:54:00:77:00:02'), { messageType: REQUEST, xid: 7 }),
    'open',
    'another machine',
  )
  clock.ms += 5 * 60_000
  t.is(breaker.check(MAC, { messageType: REQUEST, xid: 8 }), 'open')
})

test('LoopBreaker counts boots, not packets, and only those of the last three minutes', (t) => {
  const cases: readonly [
    what: string,
    stepMs: number,
    packet: (i: number) => { messageType: 1 | 3; xid: number },
  ][] = [
    ['DISCOVERs without end', 10_000, (i) => ({ messageType: MESSAGE_TYPE.discover, xid: i })],
    ['one REQUEST sent again', 8_000, () => ({ messageType: REQUEST, xid: 1 })],
    ['a REQUEST to the router and one to port 4011', 500, (i) => ({ messageType: REQUEST, xid: i })],
    ['a boot each 40 seconds, or 4 in the window', 46_000, (i) => ({ messageType: REQUEST, xid: i })],
  ]
  for (const [what, stepMs, packet] of cases) {
    const clock = standingClock()
    const breaker = new LoopBreaker(clock)
    const verdicts = Array.from({ length: what.startsWith('a REQUEST') ? 6 : 20 }, (_, i) => {
      clock.ms += stepMs
      return breaker.check(MAC, packet(i))
    })
    t.deepEqual([...new Set(verdicts)], ['open'], what)
  }
})

test('LoopBreaker.scriptFetched() forgets what was counted', (t) => {
  const clock = standingClock()
  const breaker = new LoopBreaker(clock)
  for (let xid = 0; xid < 20; xid++) {
    clock.ms += 10_000
    t.is(breaker.check(MAC, { messageType: REQUEST, xid }), 'open')
    if (xid % 4 === 3) breaker.scriptFetched(MAC)
  }
})

test('LoopBreaker forgets the machine not seen for longest when there are too many', (t) => {
  const clock = standingClock()
  const breaker = new LoopBreaker(clock, { boots: 2, machines: 3 })
  const mac = (i: number): Mac => macFromBytes(Uint8Array.of(2, 0, 0, 0, 0, i))
  for (const i of [1, 2, 3, 4]) breaker.check(mac(i), { messageType: REQUEST, xid: 1 })
  clock.ms += 20_000
  t.is(breaker.check(mac(1), { messageType: REQUEST, xid: 2 }), 'open', 'forgotten')
  t.is(breaker.check(mac(4), { messageType: REQUEST, xid: 2 }), 'tripped', 'remembered')
})
