// The lease engine without a packet: what each message of RFC 2131 does to an address.

import test from 'ava'
import fc from 'fast-check'

import { type Ipv4, parseIpv4 } from '#lib/ipv4.ts'
import {
  brief,
  ip,
  LEASE_SECONDS,
  mac,
  makeLeaseNetwork,
  OTHER_SERVER,
  type Question,
  SERVER,
} from '#testing/lease-network.ts'

import { ExpiryQueue } from './expiry-queue.ts'
import { OFFER_MS } from './lease-offers.ts'
import { grantedSeconds, QUARANTINE_MS } from './lease-times.ts'
import { WorkQueue } from './work-queue.ts'

test('settle() offers two clients two addresses, and a client that asks again the same', async (t) => {
  const network = makeLeaseNetwork()
  t.is(brief(await network.settle(1, { type: 'discover' })), 'offer 10.77.0.10')
  t.is(brief(await network.settle(2, { type: 'discover' })), 'offer 10.77.0.11')
  t.is(brief(await network.settle(1, { type: 'discover' })), 'offer 10.77.0.10')
  const grab = { type: 'request', requestedIp: ip(10), serverId: SERVER } as const
  t.is(brief(await network.settle(2, grab)), 'nak address-taken')
  t.is(network.stored.size, 0)
})

test('settle() offers the address the client asks for when it is free', async (t) => {
  const network = makeLeaseNetwork()
  t.is(brief(await network.settle(1, { type: 'discover', requestedIp: ip(12) })), 'offer 10.77.0.12')
  t.is(brief(await network.settle(2, { type: 'discover', requestedIp: ip(12) })), 'offer 10.77.0.10')
})

test('settle() gives an offered address to others once the offer has lapsed', async (t) => {
  const network = makeLeaseNetwork({ pool: { first: ip(10), last: ip(10) } })
  await network.settle(1, { type: 'discover' })
  t.is(brief(await network.settle(2, { type: 'discover' })), 'silent pool-empty')
  network.pass(OFFER_MS)
  t.is(brief(await network.settle(2, { type: 'discover' })), 'offer 10.77.0.10')
})

test('settle() ends an offer that seems to last for days when the clock was set back', async (t) => {
  const network = makeLeaseNetwork({ pool: { first: ip(10), last: ip(10) } })
  await network.settle(1, { type: 'discover' })
  network.pass(-24 * 60 * 60 * 1000)
  t.is(brief(await network.settle(2, { type: 'discover' })), 'offer 10.77.0.10')
})

test('settle() keeps the offer of a reserved address apart from an earlier one under another identifier', async (t) => {
  const network = makeLeaseNetwork({ pool: { first: ip(10), last: ip(10) } })
  network.reservations.set(mac(1), ip(10))
  await network.settle(1, { type: 'discover', clientKey: 'ff01' })
  await network.settle(1, { type: 'discover', clientKey: 'ff02' })
  await network.settle(1, { type: 'request', clientKey: 'ff01', serverId: OTHER_SERVER }) // takes the first one back
  network.reservations.clear()
  t.is(brief(await network.settle(2, { type: 'discover' })), 'silent pool-empty')
})

test('settle() gives an address to others when its client chose another server', async (t) => {
  const network = makeLeaseNetwork({ pool: { first: ip(10), last: ip(10) } })
  await network.settle(1, { type: 'discover' })
  await network.settle(1, { type: 'request', requestedIp: ip(99), serverId: OTHER_SERVER })
  t.is(brief(await network.settle(2, { type: 'discover' })), 'offer 10.77.0.10')
})

test('settle() reuses the address that expired first, after all never used', async (t) => {
  const network = makeLeaseNetwork()
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
  const network = makeLeaseNetwork()
  await network.obtain(1)
  t.is(await network.obtain(2), ip(11))
  network.pass(2 * LEASE_SECONDS * 1000)
  network.restart()
  t.is(await network.obtain(2), ip(11))
})

test('settle() ends a released lease at once and remembers whose it was', async (t) => {
  const network = makeLeaseNetwork()
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
  const network = makeLeaseNetwork({ pool: { first: ip(10), last: ip(11) } })
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

test('settle() doubts a client that declines address after address, and gives others what it declined', async (t) => {
  const network = makeLeaseNetwork()
  for (const address of [10, 11, 12]) {
    t.is(await network.obtain(1), ip(address))
    await network.settle(1, { type: 'decline', requestedIp: ip(address) })
  }
  t.is(brief(await network.settle(1, { type: 'discover' })), 'silent pool-empty')
  t.is(brief(await network.settle(2, { type: 'discover' })), 'offer 10.77.0.10', 'declined longest ago')
  t.is(brief(await network.settle(3, { type: 'discover' })), 'offer 10.77.0.11')
  t.is(brief(await network.settle(4, { type: 'request', requestedIp: ip(10) })), 'nak address-taken')
  network.reservations.set(mac(9), ip(12))
  t.is(brief(await network.settle(4, { type: 'discover' })), 'silent pool-empty', 'but not what is reserved')
  t.is(await network.obtain(2), ip(10))
  t.like(network.stored.get(ip(10)), { kind: 'leased', mac: mac(2) })
  await network.settle(2, { type: 'decline', requestedIp: ip(10) })
  t.is(
    brief(await network.settle(4, { type: 'discover' })),
    'silent pool-empty',
    'the second one is believed',
  )
})

test('settle() answers INFORM without a lease, on its own network only', async (t) => {
  const network = makeLeaseNetwork()
  t.is(brief(await network.settle(1, { type: 'inform', clientIp: ip(50) })), 'inform-ack')
  t.is(
    brief(await network.settle(1, { type: 'inform', clientIp: parseIpv4('8.8.8.8') })),
    'silent other-subnet',
  )
  t.is(brief(await network.settle(1, { type: 'inform' })), 'silent malformed')
  t.is(network.stored.size, 0)
})

test('settle() moves a client to its reservation by a NAK at renewal', async (t) => {
  const network = makeLeaseNetwork()
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
  const network = makeLeaseNetwork()
  network.reservations.set(mac(9), ip(10))
  t.is(await network.obtain(1), ip(11))
  t.is(brief(await network.settle(1, { type: 'request', requestedIp: ip(10) })), 'nak reserved-for-another')
  t.is(await network.obtain(9), ip(10))
})

test('settle() gives a machine another address while its reserved one is still leased to somebody', async (t) => {
  const network = makeLeaseNetwork()
  await network.obtain(1)
  network.reservations.set(mac(9), ip(10))
  t.is(await network.obtain(9), ip(11))
  const renewal = { type: 'request', clientIp: ip(11), arrived: 'unicast' } as const
  t.is(brief(await network.settle(9, renewal)), 'ack 10.77.0.11')
  t.is(brief(await network.settle(1, { ...renewal, clientIp: ip(10) })), 'nak reserved-for-another')
  network.pass(LEASE_SECONDS * 1000)
  t.is(await network.obtain(9), ip(10))
})

test('settle() leases the address of a DNS server only to the machine it is reserved for', async (t) => {
  const network = makeLeaseNetwork({ takenIps: [ip(10), ip(11)] })
  t.is(await network.obtain(1, { requestedIp: ip(10) }), ip(12))
  network.reservations.set(mac(9), ip(11))
  t.is(await network.obtain(9), ip(11))
})

test('settle() gives reserved addresses only when there is no pool', async (t) => {
  const network = makeLeaseNetwork({}, { hasPool: false })
  t.is(brief(await network.settle(1, { type: 'discover', requestedIp: ip(10) })), 'silent pool-empty')
  network.reservations.set(mac(9), ip(200))
  t.is(await network.obtain(9), ip(200))
})

test('settle() hands the address of the bare MAC on to an identifier of the same MAC, and back', async (t) => {
  const network = makeLeaseNetwork()
  t.is(await network.obtain(1), ip(10))
  t.is(await network.obtain(1, { clientKey: 'ff00aa' }), ip(10))
  t.is(await network.obtain(1), ip(10))
  t.is(await network.obtain(2, { clientKey: 'ff00aa' }), ip(11))
  t.is(network.stored.size, 2)
})

test('settle() takes two identifiers on one MAC for two clients, but for a reservation', async (t) => {
  const network = makeLeaseNetwork()
  t.is(await network.obtain(1, { clientKey: 'ff01' }), ip(10))
  t.is(await network.obtain(1, { clientKey: 'ff02' }), ip(11))
  network.reservations.set(mac(3), ip(100))
  t.is(await network.obtain(3, { clientKey: 'ff03' }), ip(100))
  t.is(await network.obtain(3, { clientKey: 'ff04' }), ip(100))
})

test('settle() forgets what it could not commit', async (t) => {
  const network = makeLeaseNetwork()
  const { put } = network.store
  network.store.put = async () => {
    throw new Error('disk full')
  }
  const select = { type: 'request', requestedIp: ip(10), serverId: SERVER } as const
  await network.settle(1, { type: 'discover' })
  await t.throwsAsync(network.settle(1, select), { message: 'disk full' })
  network.store.put = put
  t.is(brief(await network.settle(2, { type: 'discover' })), 'offer 10.77.0.11', 'the offer stands')
  network.pass(OFFER_MS)
  t.is(brief(await network.settle(3, { type: 'discover', requestedIp: ip(10) })), 'offer 10.77.0.10')
})

test('settle() holds no more offers than it may when made-up clients ask', async (t) => {
  const pool = { first: parseIpv4('10.77.0.10'), last: parseIpv4('10.77.0.250') }
  const network = makeLeaseNetwork({ pool }, { maxOffers: 8 })
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
      const network = makeLeaseNetwork({ pool: { first: ip(10), last: ip(13) } })
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

test('WorkQueue.add() keeps the order of one key, and refuses beyond its limits', async (t) => {
  const queue = new WorkQueue({ total: 3, perKey: 2, keptForFavoured: 0 })
  const done: string[] = []
  const { promise, resolve } = Promise.withResolvers<void>()
  const add = (name: string) =>
    queue.add(name.charAt(0), async () => {
      if (name === 'a1') await promise
      done.push(name)
    })
  t.deepEqual(['a1', 'a2', 'a3', 'b1', 'c1'].map(add), [true, true, false, true, false])
  resolve()
  await queue.idle()
  t.deepEqual(done, ['b1', 'a1', 'a2'])
  t.is(queue.dropped, 2)
  t.deepEqual(['a4', 'a5', 'c2'].map(add), [true, true, true])
  await queue.idle()
})
