// The lease engine without a packet: what each message of RFC 2131 does to an address.

import test from 'ava'
import fc from 'fast-check'

import type { Clock } from '#lib/clock.ts'
import { type Ipv4, parseIpv4, parseSubnet } from '#lib/ipv4.ts'
import { type Mac, parseMac } from '#lib/mac.ts'
import type { Lease, LeaseStore } from '#machine/ports.ts'

import { ExpiryQueue } from './expiry-queue.ts'
import { LeaseDesk } from './lease-desk.ts'
import { OFFER_MS } from './lease-offers.ts'
import { requestState } from './lease-request.ts'
import { grantedSeconds, QUARANTINE_MS } from './lease-times.ts'
import type { LeaseAsk, LeaseDecision, LeasePolicy } from './lease-types.ts'
import { Pool } from './pool.ts'
import { WorkQueue } from './work-queue.ts'

const SERVER = parseIpv4('10.77.0.1')
const ROUTER = parseIpv4('10.77.0.2')
const OTHER_SERVER = parseIpv4('10.77.0.3')
const LEASE_SECONDS = 3600
const ip = (last: number) => parseIpv4(`10.77.0.${last}`)
const mac = (last: number) => parseMac(`52:54:00:00:00:${last.toString(16).padStart(2, '0')}`)

type Question = Partial<LeaseAsk> & Pick<LeaseAsk, 'type'>

/** A network 10.77.0.0/24 with the pool .10–.12 and a clock that is turned by hand. */
function makeNetwork(
  overrides: Partial<LeasePolicy> = {},
  options: { maxOffers?: number; hasPool?: boolean } = {},
) {
  let nowMs = 1_000_000
  const stored = new Map<Ipv4, Lease>()
  const reservations = new Map<Mac, Ipv4>()
  const store: LeaseStore = {
    list: async () => [...stored.values()],
    put: async (lease) => void stored.set(lease.ip, lease),
    remove: async (address) => void stored.delete(address),
  }
  const policy: LeasePolicy = {
    serverIp: SERVER,
    subnet: parseSubnet('10.77.0.0/24'),
    ...(options.hasPool !== false && { pool: { first: ip(10), last: ip(12) } }),
    takenIps: [ROUTER],
    leaseSeconds: LEASE_SECONDS,
    reservationFor: (owner) => reservations.get(owner),
    reservedTo: (address) => [...reservations].find(([, reserved]) => reserved === address)?.[0],
    ...overrides,
  }
  const clock = { nowMs: () => nowMs, monotonicMs: () => nowMs, after: () => () => {} } satisfies Clock
  const open = () => new LeaseDesk(new Pool(policy, [...stored.values()], options.maxOffers), store, clock)
  let desk = open()
  const settle = (who: number, question: Question): Promise<LeaseDecision> =>
    desk.settle({ clientKey: `mac:${mac(who)}`, mac: mac(who), arrived: 'broadcast', ...question })
  return {
    settle,
    stored,
    reservations,
    store,
    /** DISCOVER and REQUEST; the address. */
    async obtain(who: number, question: Partial<LeaseAsk> = {}): Promise<Ipv4> {
      const offer = await settle(who, { ...question, type: 'discover' })
      if (offer.kind !== 'offer') throw new Error(`no offer: ${JSON.stringify(offer)}`)
      const select = { ...question, type: 'request', requestedIp: offer.ip, serverId: SERVER } as const
      const ack = await settle(who, select)
      if (ack.kind !== 'ack') throw new Error(`no ACK: ${JSON.stringify(ack)}`)
      return ack.lease.ip
    },
    pass(ms: number) {
      nowMs += ms
    },
    /** What a restarted server does: all it knows is in the store. */
    restart() {
      desk = open()
    },
  }
}

/** The parts of a decision worth comparing. */
function brief(decision: LeaseDecision): string {
  switch (decision.kind) {
    case 'offer':
      return `offer ${decision.ip}`
    case 'ack':
      return `ack ${decision.lease.ip}`
    case 'nak':
    case 'silent':
      return `${decision.kind} ${decision.reason}`
    default:
      return decision.kind
  }
}

for (const { title, ask, state } of [
  { title: 'SELECTING', ask: { requestedIp: ip(10), serverId: SERVER }, state: 'selecting' },
  { title: 'INIT-REBOOT', ask: { requestedIp: ip(10) }, state: 'init-reboot' },
  { title: 'RENEWING', ask: { clientIp: ip(10), arrived: 'unicast' }, state: 'renewing' },
  { title: 'REBINDING', ask: { clientIp: ip(10), arrived: 'broadcast' }, state: 'rebinding' },
  {
    title: 'RENEWING with options 50 and 54',
    ask: { clientIp: ip(10), requestedIp: ip(10), serverId: SERVER, arrived: 'unicast' },
    state: 'renewing',
  },
  { title: 'no address at all', ask: { serverId: SERVER }, state: 'malformed' },
] as const) {
  test(`requestState() tells ${title}`, (t) => {
    const base = { type: 'request', clientKey: 'k', mac: mac(1), arrived: 'broadcast' } as const
    t.is(requestState({ ...base, ...ask }).kind, state)
  })
}

// Client 1 has the lease of .10, client 2 that of .11; 12 is free, 100 is reserved for client 9, 50 is outside the pool.
for (const { title, who = 1, ask, answer } of [
  { title: 'renews by unicast', ask: { clientIp: ip(10), arrived: 'unicast' }, answer: 'ack 10.77.0.10' },
  { title: 'rebinds by broadcast', ask: { clientIp: ip(10) }, answer: 'ack 10.77.0.10' },
  { title: 'reboots and asks for its address', ask: { requestedIp: ip(10) }, answer: 'ack 10.77.0.10' },
  {
    title: 'reboots and asks for the address of another',
    ask: { requestedIp: ip(11) },
    answer: 'nak address-taken',
  },
  {
    title: 'reboots on another network',
    ask: { requestedIp: parseIpv4('192.168.1.5') },
    answer: 'nak wrong-subnet',
  },
  {
    title: 'rebinds on another network',
    ask: { clientIp: parseIpv4('192.168.1.5') },
    answer: 'nak wrong-subnet',
  },
  {
    title: 'renews from beyond a router',
    ask: { clientIp: parseIpv4('192.168.1.5'), arrived: 'unicast' },
    answer: 'silent other-subnet',
  },
  {
    title: 'chose another server',
    ask: { requestedIp: ip(10), serverId: OTHER_SERVER },
    answer: 'silent other-server',
  },
  { title: 'names no address', ask: { serverId: SERVER }, answer: 'silent malformed' },
  {
    title: 'asks through a relay agent on another network',
    ask: { requestedIp: ip(10), relayIp: parseIpv4('10.78.0.1') },
    answer: 'silent other-subnet',
  },
  {
    title: 'asks through a relay agent on our network',
    ask: { requestedIp: ip(10), relayIp: ip(5) },
    answer: 'ack 10.77.0.10',
  },
  {
    title: 'is unknown and its address is free',
    who: 3,
    ask: { requestedIp: ip(12) },
    answer: 'ack 10.77.0.12',
  },
  {
    title: 'is unknown and renews a free address',
    who: 3,
    ask: { clientIp: ip(12), arrived: 'unicast' },
    answer: 'ack 10.77.0.12',
  },
  {
    title: 'is unknown and its address is not in the pool',
    who: 3,
    ask: { requestedIp: ip(50) },
    answer: 'nak outside-pool',
  },
  {
    title: "asks for the server's own address",
    who: 3,
    ask: { requestedIp: SERVER },
    answer: 'nak address-taken',
  },
  {
    title: "asks for the router's address",
    who: 3,
    ask: { requestedIp: ROUTER },
    answer: 'nak address-taken',
  },
  {
    title: 'asks for the broadcast address',
    who: 3,
    ask: { requestedIp: ip(255) },
    answer: 'nak address-taken',
  },
  {
    title: 'asks for what is reserved for another',
    who: 3,
    ask: { requestedIp: ip(100) },
    answer: 'nak reserved-for-another',
  },
  {
    title: 'asks for its reservation outside the pool',
    who: 9,
    ask: { requestedIp: ip(100) },
    answer: 'ack 10.77.0.100',
  },
  {
    title: 'has a reservation and asks for another address',
    who: 9,
    ask: { requestedIp: ip(12) },
    answer: 'nak reservation-changed',
  },
] as const satisfies readonly { title: string; who?: number; ask: Partial<LeaseAsk>; answer: string }[]) {
  test(`settle() answers REQUEST with "${answer}" when the client ${title}`, async (t) => {
    const network = makeNetwork()
    t.is(await network.obtain(1), ip(10))
    t.is(await network.obtain(2), ip(11))
    network.reservations.set(mac(9), ip(100))
    t.is(brief(await network.settle(who, { type: 'request', ...ask })), answer)
  })
}

test('settle() offers two clients two addresses, and a client that asks again the same', async (t) => {
  const network = makeNetwork()
  t.is(brief(await network.settle(1, { type: 'discover' })), 'offer 10.77.0.10')
  t.is(brief(await network.settle(2, { type: 'discover' })), 'offer 10.77.0.11')
  t.is(brief(await network.settle(1, { type: 'discover' })), 'offer 10.77.0.10')
  const grab = { type: 'request', requestedIp: ip(10), serverId: SERVER } as const
  t.is(brief(await network.settle(2, grab)), 'nak address-taken')
  t.is(network.stored.size, 0)
})

test('settle() offers the address the client asks for when it is free', async (t) => {
  const network = makeNetwork()
  t.is(brief(await network.settle(1, { type: 'discover', requestedIp: ip(12) })), 'offer 10.77.0.12')
  t.is(brief(await network.settle(2, { type: 'discover', requestedIp: ip(12) })), 'offer 10.77.0.10')
})

test('settle() gives an offered address to others once the offer has lapsed', async (t) => {
  const network = makeNetwork({ pool: { first: ip(10), last: ip(10) } })
  await network.settle(1, { type: 'discover' })
  t.is(brief(await network.settle(2, { type: 'discover' })), 'silent pool-empty')
  network.pass(OFFER_MS)
  t.is(brief(await network.settle(2, { type: 'discover' })), 'offer 10.77.0.10')
})

test('settle() gives an address to others when its client chose another server', async (t) => {
  const network = makeNetwork({ pool: { first: ip(10), last: ip(10) } })
  await network.settle(1, { type: 'discover' })
  await network.settle(1, { type: 'request', requestedIp: ip(99), serverId: OTHER_SERVER })
  t.is(brief(await network.settle(2, { type: 'discover' })), 'offer 10.77.0.10')
})

test('settle() reuses the address that expired first, after all never used', async (t) => {
  const network = makeNetwork()
  await network.obtain(1)
  network.pass(1000)
  await network.obtain(2)
  network.pass(LEASE_SECONDS * 1000)
  t.is(await network.obtain(3), ip(12))
  t.is(await network.obtain(4), ip(10))
  t.is(await network.obtain(5), ip(11))
  t.is(brief(await network.settle(6, { type: 'discover' })), 'silent pool-empty')
})

test('settle() gives a client its old address back after its lease expired', async (t) => {
  const network = makeNetwork()
  await network.obtain(1)
  t.is(await network.obtain(2), ip(11))
  network.pass(2 * LEASE_SECONDS * 1000)
  network.restart()
  t.is(await network.obtain(2), ip(11))
})

test('settle() ends a released lease at once and remembers whose it was', async (t) => {
  const network = makeNetwork()
  await network.obtain(1)
  const release = { type: 'release', clientIp: ip(10), serverId: SERVER, arrived: 'unicast' } as const
  t.is(brief(await network.settle(2, release)), 'silent not-its-address')
  t.is(brief(await network.settle(1, { ...release, serverId: OTHER_SERVER })), 'silent other-server')
  t.is(brief(await network.settle(1, release)), 'release')
  t.is(network.stored.get(ip(10))?.expiresMs, 1_000_000)
  t.is(await network.obtain(2), ip(11))
  t.is(await network.obtain(1), ip(10))
})

test('settle() keeps a declined address from everybody for some hours', async (t) => {
  const network = makeNetwork({ pool: { first: ip(10), last: ip(11) } })
  await network.obtain(1)
  const decline = { type: 'decline', requestedIp: ip(10), serverId: SERVER } as const
  t.is(brief(await network.settle(2, decline)), 'silent not-its-address')
  t.is(brief(await network.settle(1, decline)), 'decline')
  t.like(network.stored.get(ip(10)), { kind: 'declined', expiresMs: 1_000_000 + QUARANTINE_MS })
  t.is(brief(await network.settle(1, { type: 'request', requestedIp: ip(10) })), 'nak address-taken')
  t.is(await network.obtain(1), ip(11))
  network.restart()
  t.is(brief(await network.settle(2, { type: 'discover' })), 'silent pool-empty')
  network.pass(QUARANTINE_MS)
  t.is(await network.obtain(2, { requestedIp: ip(10) }), ip(10))
})

test('settle() answers INFORM without a lease, on its own network only', async (t) => {
  const network = makeNetwork()
  t.is(brief(await network.settle(1, { type: 'inform', clientIp: ip(50) })), 'inform-ack')
  t.is(
    brief(await network.settle(1, { type: 'inform', clientIp: parseIpv4('8.8.8.8') })),
    'silent other-subnet',
  )
  t.is(brief(await network.settle(1, { type: 'inform' })), 'silent malformed')
  t.is(network.stored.size, 0)
})

test('settle() moves a client to its reservation by a NAK at renewal', async (t) => {
  const network = makeNetwork()
  await network.obtain(1)
  network.reservations.set(mac(1), ip(100))
  const renewal = { type: 'request', clientIp: ip(10), arrived: 'unicast' } as const
  t.is(brief(await network.settle(1, renewal)), 'nak reservation-changed')
  t.is(await network.obtain(1), ip(100))
  network.reservations.set(mac(1), ip(101))
  t.is(brief(await network.settle(1, { ...renewal, clientIp: ip(100) })), 'nak outside-pool')
  t.is(await network.obtain(1), ip(101))
})

test('settle() keeps a reserved address in the pool from others', async (t) => {
  const network = makeNetwork()
  network.reservations.set(mac(9), ip(10))
  t.is(await network.obtain(1), ip(11))
  t.is(brief(await network.settle(1, { type: 'request', requestedIp: ip(10) })), 'nak reserved-for-another')
  t.is(await network.obtain(9), ip(10))
})

test('settle() gives a machine another address while its reserved one is still leased to somebody', async (t) => {
  const network = makeNetwork()
  await network.obtain(1)
  network.reservations.set(mac(9), ip(10))
  t.is(await network.obtain(9), ip(11))
  const renewal = { type: 'request', clientIp: ip(11), arrived: 'unicast' } as const
  t.is(brief(await network.settle(9, renewal)), 'ack 10.77.0.11')
  t.is(brief(await network.settle(1, { ...renewal, clientIp: ip(10) })), 'nak reserved-for-another')
  network.pass(LEASE_SECONDS * 1000)
  t.is(await network.obtain(9), ip(10))
})

test('settle() gives reserved addresses only when there is no pool', async (t) => {
  const network = makeNetwork({}, { hasPool: false })
  t.is(brief(await network.settle(1, { type: 'discover', requestedIp: ip(10) })), 'silent pool-empty')
  network.reservations.set(mac(9), ip(200))
  t.is(await network.obtain(9), ip(200))
})

test('settle() hands the address of the bare MAC on to an identifier of the same MAC, and back', async (t) => {
  const network = makeNetwork()
  t.is(await network.obtain(1), ip(10))
  t.is(await network.obtain(1, { clientKey: 'ff00aa' }), ip(10))
  t.is(await network.obtain(1), ip(10))
  t.is(await network.obtain(2, { clientKey: 'ff00aa' }), ip(11))
  t.is(network.stored.size, 2)
})

test('settle() takes two identifiers on one MAC for two clients, but for a reservation', async (t) => {
  const network = makeNetwork()
  t.is(await network.obtain(1, { clientKey: 'ff01' }), ip(10))
  t.is(await network.obtain(1, { clientKey: 'ff02' }), ip(11))
  network.reservations.set(mac(3), ip(100))
  t.is(await network.obtain(3, { clientKey: 'ff03' }), ip(100))
  t.is(await network.obtain(3, { clientKey: 'ff04' }), ip(100))
})

test('settle() forgets what it could not commit', async (t) => {
  const network = makeNetwork()
  const { put } = network.store
  network.store.put = async () => {
    throw new Error('disk full')
  }
  const select = { type: 'request', requestedIp: ip(10), serverId: SERVER } as const
  await network.settle(1, { type: 'discover' })
  await t.throwsAsync(network.settle(1, select), { message: 'disk full' })
  network.store.put = put
  t.is(brief(await network.settle(2, { type: 'discover', requestedIp: ip(10) })), 'offer 10.77.0.10')
})

test('settle() holds no more offers than it may when made-up clients ask', async (t) => {
  const pool = { first: parseIpv4('10.77.0.10'), last: parseIpv4('10.77.0.250') }
  const network = makeNetwork({ pool }, { maxOffers: 8 })
  const offered = new Set<string>()
  for (let who = 0; who < 2000; who++) {
    const clientKey = `made-up ${who}`
    offered.add(brief(await network.settle(who % 256, { type: 'discover', clientKey })))
  }
  t.false(offered.has('silent pool-empty'))
  t.is(network.stored.size, 0)
})

for (const { asked, granted } of [
  { asked: undefined, granted: 3600 },
  { asked: 600, granted: 600 },
  { asked: 1, granted: 60 },
  { asked: 0xffffffff, granted: 3600 },
]) {
  test(`grantedSeconds() grants ${granted} when ${asked} is asked of 3600`, (t) => {
    t.is(grantedSeconds(asked, 3600), granted)
  })
}

test('settle() never leases one address to two clients, whatever they ask', async (t) => {
  const address = fc.integer({ min: 0, max: 16 }).map(ip)
  const question = fc.record(
    {
      type: fc.constantFrom('discover', 'request', 'decline', 'release', 'inform'),
      requestedIp: address,
      clientIp: address,
      serverId: fc.constantFrom(SERVER, OTHER_SERVER),
      arrived: fc.constantFrom('unicast', 'broadcast'),
    },
    { requiredKeys: ['type'] },
  )
  const steps = fc.array(fc.tuple(fc.integer({ min: 1, max: 5 }), question, fc.nat(2_000_000)), {
    maxLength: 60,
  })
  await fc.assert(
    fc.asyncProperty(steps, async (script) => {
      const network = makeNetwork({ pool: { first: ip(10), last: ip(13) } })
      network.reservations.set(mac(5), ip(13))
      let nowMs = 1_000_000
      const holders = new Map<Ipv4, { who: number; untilMs: number }>()
      for (const [who, ask, ms] of script) {
        const decision = await network.settle(who, ask as Question)
        if (decision.kind === 'release' || decision.kind === 'decline') holders.delete(decision.lease.ip)
        if (decision.kind === 'ack') {
          const holder = holders.get(decision.lease.ip)
          if (holder !== undefined && holder.who !== who && holder.untilMs > nowMs) return false
          holders.set(decision.lease.ip, { who, untilMs: decision.lease.expiresMs })
          const last = Number(decision.lease.ip.split('.')[3])
          if (last < 10 || last > 13 || (last === 13 && who !== 5)) return false
        }
        network.pass(ms)
        nowMs += ms
      }
      return true
    }),
    { numRuns: 300 },
  )
  t.pass()
})

test('ExpiryQueue.pop() gives entries in the order of their time', (t) => {
  fc.assert(
    fc.property(fc.array(fc.nat(1000)), (times) => {
      const queue = new ExpiryQueue()
      for (const expiresMs of times) queue.push({ ip: SERVER, expiresMs })
      const popped = times.map(() => queue.pop()?.expiresMs)
      t.deepEqual(
        popped,
        times.toSorted((a, b) => a - b),
      )
      t.is(queue.pop(), undefined)
    }),
  )
})

test('WorkQueue.add() keeps the order of one key, and refuses beyond its limit', async (t) => {
  const queue = new WorkQueue(3)
  const done: string[] = []
  const { promise, resolve } = Promise.withResolvers<void>()
  t.true(
    queue.add('a', async () => {
      await promise
      done.push('a1')
    }),
  )
  t.true(queue.add('a', async () => void done.push('a2')))
  t.true(queue.add('b', async () => void done.push('b1')))
  t.false(queue.add('c', async () => void done.push('c1')))
  resolve()
  await queue.idle()
  t.deepEqual(done, ['b1', 'a1', 'a2'])
  t.is(queue.dropped, 1)
  t.true(queue.add('c', async () => void done.push('c2')))
})
