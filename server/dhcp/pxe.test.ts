// What network boots are answered, and when a machine is left alone.

import test from 'ava'
import fc from 'fast-check'

import { DecodeError } from '#lib/bytes.ts'
import { systemClock } from '#lib/clock.ts'
import { parseIpv4 } from '#lib/ipv4.ts'
import { type Mac, macFromBytes, parseMac } from '#lib/mac.ts'
import type { Endpoint } from '#lib/udp.ts'
import { type CapturedDhcp, mutations, readDhcpRequests } from '#testing/captured-dhcp.ts'
import { readGolden } from '#testing/golden.ts'
import { discover, type MadeOptions } from '#testing/made-dhcp.ts'
import { type DhcpPacket, decodeDhcp, maxReplyBytes } from '#wire/dhcp4.ts'
import { BOOTP_OP, DHCP_PORT, MESSAGE_TYPE, OPTION } from '#wire/dhcp4-codes.ts'
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

let requests: readonly CapturedDhcp[]

test.before(async () => {
  requests = await readDhcpRequests()
})

const PXE = 'PXEClient:Arch:00007:UNDI:003000'

/** The reply of proxy mode to a packet from `from` on `port`. */
function answer(packet: DhcpPacket, port: number = DHCP_PORT.server, from: Endpoint = ANY): ProxyReply {
  const classified = classify(packet)
  return proxyReply(packet, classified, {
    decision: decideBoot(classified, CONTEXT),
    context: CONTEXT,
    port: port === DHCP_PORT.pxe ? port : DHCP_PORT.server,
    from,
  })
}

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
  const records = requests.flatMap(({ name, payload, sourceIp, sourcePort, targetPort }) => {
    const request = decodeDhcp(payload)
    const classified = classify(request)
    const kind = JSON.stringify([targetPort, classified, [...request.options.keys()]])
    if (seen.has(kind)) return [] // the same request again
    seen.add(kind)
    const decision = decideBoot(classified, CONTEXT)
    const lease = {
      ...request,
      op: BOOTP_OP.reply,
      yourIp: parseIpv4('10.77.0.130'),
      options: new Map([[OPTION.messageType, Uint8Array.of(MESSAGE_TYPE.offer)]]),
    }
    return [
      {
        request: name,
        proxy: proxied(answer(request, targetPort, { ip: sourceIp, port: sourcePort }), request),
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
  t.deepEqual(bios.get(OPTION.vendorSpecific), Uint8Array.of(6, 1, 8, 255))
  t.deepEqual(bios.get(OPTION.vendorClass), textBytes('PXEClient'))
  t.deepEqual(bios.get(OPTION.bootFileName), textBytes('undionly.kpxe\0'))
  t.false(options(discover({ 60: PXE, 93: [0, 7] })).has(OPTION.vendorSpecific))
})

test('proxyReply() ignores what is not its to answer', (t) => {
  const boot = { 60: PXE, 93: [0, 7] }
  const cases: readonly [what: string, ProxyReply, RegExp][] = [
    ['no network boot', answer(discover({})), /no network boot/],
    ['REQUEST to the router', answer(discover({ ...boot, 53: [3] })), /not a DISCOVER/],
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

test('proxyReply() gives the client identifier back (RFC 6842 §3)', (t) => {
  const reply = answer(discover({ 60: PXE, 93: [0, 7], 61: [255, 1, 2] }))
  t.deepEqual(reply.kind === 'reply' && reply.packet.options.get(OPTION.clientId), Uint8Array.of(255, 1, 2))
})

test('proxyReply() answers through the relay with its option 82, and a client without an address by broadcast', (t) => {
  const relayed = answer(discover({ 60: PXE, 93: [0, 7], 82: [1, 1, 9] }, { relayIp: parseIpv4('10.9.0.1') }))
  if (relayed.kind !== 'reply') return t.fail(relayed.reason)
  t.deepEqual(relayed.to, { ip: parseIpv4('10.9.0.1'), port: 67 })
  t.is(relayed.packet.relayIp, parseIpv4('10.9.0.1'))
  t.deepEqual([...decodeDhcp(encodeDhcp(relayed.packet)).options.keys()].slice(-2), [67, OPTION.relayAgent])

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
  const boot = (options: MadeOptions, context: BootContext) => {
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
