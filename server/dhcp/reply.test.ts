// From packet to question and from decision to packet; and what the history is told on the way.

import test from 'ava'

import { type Clock, systemClock } from '#lib/clock.ts'
import { ANY_IPV4, BROADCAST_IPV4, parseIpv4, parseSubnet } from '#lib/ipv4.ts'
import { silentLog } from '#lib/log.ts'
import { parseMac } from '#lib/mac.ts'
import type { NewEvent } from '#machine/event.ts'
import { discover, hex } from '#testing/made-dhcp.ts'
import { decodeDhcp } from '#wire/dhcp4.ts'
import { MESSAGE_TYPE, OPTION } from '#wire/dhcp4-codes.ts'
import { encodeDhcp } from '#wire/dhcp4-encode.ts'
import { findIp, findText, findUint32 } from '#wire/dhcp4-values.ts'

import { findArrival } from './arrival.ts'
import { BootDesk } from './boot-desk.ts'
import { findLeaseAsk } from './lease-ask.ts'
import type { LeaseDecision } from './lease-types.ts'
import { Notices } from './notices.ts'
import { MinuteBudget, Recently } from './recently.ts'
import { leaseReply, replyTarget } from './reply.ts'

const mac = parseMac('52:54:00:77:00:01')
const from = { type: MESSAGE_TYPE.discover, mac, arrived: 'broadcast' } as const
const SERVER = parseIpv4('10.77.0.1')
const CLIENT = parseIpv4('10.77.0.10')
const RELAY = parseIpv4('10.77.0.6')
const PARAMETERS = {
  serverIp: SERVER,
  subnet: parseSubnet('10.77.0.0/24'),
  router: parseIpv4('10.77.0.2'),
  dns: [parseIpv4('10.77.0.53'), parseIpv4('10.77.0.54')],
  domain: 'kit.test',
  hostname: 'node-1',
}
const OFFER: LeaseDecision = { kind: 'offer', ip: CLIENT, leaseSeconds: 3600 }
const NAK: LeaseDecision = { kind: 'nak', reason: 'wrong-subnet', ip: CLIENT }

function turnedByHand() {
  let nowMs = 0
  const clock: Clock = { nowMs: () => nowMs, monotonicMs: () => nowMs, after: () => () => {} }
  return {
    clock,
    pass(ms: number) {
      nowMs += ms
    },
  }
}

for (const { title, id, key } of [
  { title: 'there is none', id: undefined, key: `mac:${mac}` },
  { title: 'it is the MAC', id: [1, 0x52, 0x54, 0, 0x77, 0, 1], key: `mac:${mac}` },
  { title: 'it is too short to be one', id: [1], key: `mac:${mac}` },
  { title: 'it is the MAC of another', id: [1, 0x52, 0x54, 0, 0x77, 0, 2], key: '01525400770002' },
  { title: 'it is a DUID', id: [255, 0, 1, 2], key: 'ff000102' },
]) {
  test(`findLeaseAsk() knows the client by "${key}" when, of option 61, ${title}`, (t) => {
    const packet = discover(id === undefined ? {} : { 61: id })
    t.is(findLeaseAsk(packet, from)?.clientKey, key)
  })
}

test('findLeaseAsk() takes zero addresses and odd host names for absent', (t) => {
  const packet = discover({ 12: 'a b\u0001', 50: [0, 0, 0, 0], 54: [10, 77, 0, 1], 51: [0, 0, 2, 88] })
  t.deepEqual(findLeaseAsk(packet, from), {
    ...{ type: 'discover', clientKey: `mac:${mac}`, mac, arrived: 'broadcast' },
    ...{ serverId: SERVER, leaseSeconds: 600 },
  })
})

test('findLeaseAsk() counts a relayed message as broadcast', (t) => {
  const ask = findLeaseAsk(discover({}, { relayIp: RELAY }), { ...from, arrived: 'unicast' })
  t.like(ask, { arrived: 'broadcast', relayIp: RELAY })
})

test('findArrival() ignores replies, loops of relay agents and group addresses', (t) => {
  const ear = { port: 67, arrived: 'broadcast' } as const
  const peer = { ip: CLIENT, port: 68 }
  const arrive = (packet: ReturnType<typeof discover>) => findArrival(encodeDhcp(packet), ear, peer)
  t.like(arrive(discover({})), { mac, type: MESSAGE_TYPE.discover, port: 67 })
  t.is(arrive(discover({}, { op: 2 })), undefined)
  t.is(arrive(discover({}, { hops: 17 })), undefined)
  t.is(arrive(discover({}, { hardwareAddress: Uint8Array.of(1, 0, 0, 0, 0, 1) })), undefined)
})

test('leaseReply() sends type and server, then the times, then what option 55 asks in its order, and mask, router and DNS anyway', (t) => {
  const reply = leaseReply(discover({ 55: [15, 28, 1, 99, 12] }), OFFER, PARAMETERS)
  t.deepEqual([...(reply?.options.keys() ?? [])], [53, 54, 51, 58, 59, 15, 28, 1, 12, 3, 6])
  const options = reply?.options ?? new Map()
  t.is(findUint32(options, OPTION.leaseSeconds), 3600)
  t.is(findUint32(options, OPTION.renewSeconds), 1800)
  t.is(findUint32(options, OPTION.rebindSeconds), 3150)
  t.is(findIp(options, OPTION.subnetMask), parseIpv4('255.255.255.0'))
  t.is(findIp(options, OPTION.broadcastAddress), parseIpv4('10.77.0.255'))
  t.is(findText(options, OPTION.hostName), 'node-1')
  t.is(hex(options.get(OPTION.dnsServer)), '0a4d00350a4d0036')
})

test('leaseReply() gives all there is when there is no option 55', (t) => {
  const reply = leaseReply(discover({}), OFFER, PARAMETERS)
  t.deepEqual([...(reply?.options.keys() ?? [])], [53, 54, 51, 58, 59, 1, 3, 6, 12, 15, 28])
})

test('leaseReply() answers INFORM without an address and without times', (t) => {
  const reply = leaseReply(discover({}, { clientIp: CLIENT }), { kind: 'inform-ack' }, PARAMETERS)
  t.like(reply, { yourIp: ANY_IPV4, clientIp: CLIENT })
  t.deepEqual([...(reply?.options.keys() ?? [])], [53, 54, 1, 3, 6, 12, 15, 28])
})

test('leaseReply() says nothing but why in a NAK', (t) => {
  const reply = leaseReply(discover({ 61: [255, 1] }, { clientIp: CLIENT }), NAK, PARAMETERS)
  t.like(reply, { yourIp: ANY_IPV4, clientIp: ANY_IPV4 })
  t.deepEqual([...(reply?.options.keys() ?? [])], [53, 54, 56, 61])
})

test('leaseReply() echoes the identifier, and the relay information as the last option on the wire', (t) => {
  const request = discover({ 61: [255, 1, 2], 82: [1, 2, 3, 4], 55: [1] }, { relayIp: RELAY })
  const reply = leaseReply(request, OFFER, PARAMETERS)
  const codes = [...decodeDhcp(encodeDhcp(reply ?? request)).options.keys()]
  t.is(codes[0], OPTION.messageType)
  t.is(codes.at(-1), OPTION.relayAgent)
  t.is(hex(reply?.options.get(OPTION.clientId)), 'ff0102')
})

for (const { title, request, decision, target } of [
  { title: 'an offer', request: {}, decision: OFFER, target: { ip: BROADCAST_IPV4, port: 68 } },
  {
    title: 'an offer to a client that claims an address',
    request: { clientIp: parseIpv4('8.8.8.8') },
    decision: OFFER,
    target: { ip: BROADCAST_IPV4, port: 68 },
  },
  {
    title: 'an offer without the broadcast flag',
    request: { broadcast: false },
    decision: OFFER,
    target: { ip: BROADCAST_IPV4, port: 68 },
  },
  {
    title: 'an offer through a relay agent',
    request: { relayIp: RELAY },
    decision: OFFER,
    target: { ip: RELAY, port: 67 },
  },
  {
    title: 'an answer to a client with an address',
    request: { clientIp: CLIENT },
    decision: { kind: 'inform-ack' },
    target: { ip: CLIENT, port: 68 },
  },
  { title: 'a NAK', request: { clientIp: CLIENT }, decision: NAK, target: { ip: BROADCAST_IPV4, port: 68 } },
  {
    title: 'a NAK through a relay agent',
    request: { relayIp: RELAY },
    decision: NAK,
    target: { ip: RELAY, port: 67 },
  },
] as const) {
  test(`replyTarget() sends ${title} to ${target.ip}:${target.port}`, (t) => {
    const packet = discover({}, request)
    const reply = leaseReply(packet, decision, PARAMETERS)
    if (reply === undefined) return t.fail()
    t.deepEqual(replyTarget(packet, reply), target)
  })
}

test('leaseReply() sets the broadcast flag in a NAK that goes through a relay agent', (t) => {
  const request = discover({}, { relayIp: RELAY, broadcast: false })
  t.true(leaseReply(request, NAK, PARAMETERS)?.broadcast)
  t.false(leaseReply(request, OFFER, PARAMETERS)?.broadcast)
})

test('Recently.isNews() tells a thing once per window, and again when it changes', (t) => {
  const { clock, pass } = turnedByHand()
  const recently = new Recently(clock, { windowMs: 1000, maxKeys: 2 })
  t.deepEqual(
    [recently.isNews('a'), recently.isNews('a'), recently.isNews('a', 'other')],
    [true, false, true],
  )
  pass(1001)
  t.true(recently.isNews('a', 'other'))
  recently.forget('a')
  t.true(recently.isNews('a', 'other'))
  recently.isNews('b')
  recently.isNews('c')
  t.true(recently.isNews('a', 'other'), 'the least recently seen was forgotten')
})

test('MinuteBudget.take() refuses when the minute is spent', (t) => {
  const { clock, pass } = turnedByHand()
  const budget = new MinuteBudget(clock, 2)
  t.deepEqual([budget.take(), budget.take(), budget.take()], [true, true, false])
  pass(60_000)
  t.true(budget.take())
})

test('BootDesk.decide() ends a boot that goes in circles, with one event, until a script is fetched', async (t) => {
  const { clock, pass } = turnedByHand()
  const told: NewEvent[] = []
  const append = async (event: NewEvent) => {
    told.push(event)
    return { data: {}, ...event, id: told.length, atMs: 0 }
  }
  const notices = new Notices({
    events: { append },
    sightings: { seen: async () => {} },
    isKnown: () => true,
    clock,
    log: silentLog,
  })
  const desk = new BootDesk({ serverIp: SERVER, httpBaseUrl: 'http://10.77.0.1:8080' }, { notices, clock })
  const boot = async (xid: number) => {
    const options = { 53: [MESSAGE_TYPE.request], 60: 'PXEClient:Arch:00007:UNDI:003000', 93: [0, 7] }
    const bytes = encodeDhcp(discover(options, { xid }))
    const arrival = findArrival(bytes, { port: 67, arrived: 'broadcast' }, { ip: ANY_IPV4, port: 68 })
    pass(10_000)
    return arrival && (await desk.decide(arrival)).kind
  }
  const kinds = []
  for (let xid = 1; xid <= 7; xid++) kinds.push(await boot(xid))
  t.deepEqual(kinds, ['loader', 'loader', 'loader', 'loader', 'none', 'none', 'none'])
  t.deepEqual(
    told.map(({ kind }) => kind),
    ['boot-loop'],
  )
  desk.scriptFetched(mac)
  t.is(await boot(8), 'loader')
})

test('Notices.tell() never rejects when the history cannot be written', async (t) => {
  const append = async () => {
    throw new Error('disk full')
  }
  const sightings = { seen: append }
  const notices = new Notices({
    events: { append },
    sightings,
    isKnown: () => true,
    clock: systemClock,
    log: silentLog,
  })
  await t.notThrowsAsync(notices.tell({ kind: 'dhcp-leased', message: 'x' }, 'x'))
  await t.notThrowsAsync(notices.saw(mac, {}))
})
