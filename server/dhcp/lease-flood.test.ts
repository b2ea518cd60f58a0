// Floods of made-up MACs against the lease engine: machines that the server knows get their addresses all the same.

import test from 'ava'
import fc from 'fast-check'

import { ipv4ToNumber } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'
import { brief, ip, mac, makeLeaseNetwork, type Question, SERVER } from '#testing/lease-network.ts'

import { shareOut } from './pool-shares.ts'
import { WorkQueue } from './work-queue.ts'

const KNOWN = [201, 202, 203, 204]
const isKnown = (asked: Mac) => KNOWN.some((who) => mac(who) === asked)

/** Of 16 addresses the last four are kept for the four known machines. */
const POOL = { first: ip(10), last: ip(25) }

function makeNetwork(overrides: Parameters<typeof makeLeaseNetwork>[0] = {}) {
  return makeLeaseNetwork({ pool: POOL, keptPercent: 25, unknownLeaseSeconds: 600, isKnown, ...overrides })
}

for (const { percent, open, kept } of [
  { percent: 25, open: [10, 21], kept: [22, 25] },
  { percent: 0, open: [10, 25], kept: [26, 25] },
  { percent: 90, open: [10, 11], kept: [12, 25] },
]) {
  test(`shareOut() keeps ${percent} percent, rounded down, at the end of the pool`, (t) => {
    const stretch = ([first = 0, last = 0]: readonly number[]) => {
      return { first: ipv4ToNumber(ip(first)), last: ipv4ToNumber(ip(last)) }
    }
    t.deepEqual(shareOut(POOL, percent), { open: stretch(open), kept: stretch(kept) })
  })
}

test('shareOut() keeps nothing of a pool that is not there', (t) => {
  const nothing = { first: 0, last: -1 }
  t.deepEqual(shareOut(undefined, 25), { open: nothing, kept: nothing })
})

test('settle() gives unknown machines short leases, and none from what is kept for known ones', async (t) => {
  const network = makeNetwork()
  for (let who = 1; who <= 12; who++) t.is(await network.obtain(who), ip(9 + who))
  t.is(brief(await network.settle(13, { type: 'discover' })), 'silent pool-empty')
  t.is(brief(await network.settle(13, { type: 'discover', requestedIp: ip(25) })), 'silent pool-empty')
  t.is(brief(await network.settle(13, { type: 'request', requestedIp: ip(25) })), 'nak kept-for-known')
  t.is(network.stored.get(ip(10))?.expiresMs, network.nowMs() + 600_000)
  t.is(await network.obtain(201), ip(22))
  t.is(network.stored.get(ip(22))?.expiresMs, network.nowMs() + 3_600_000)
})

test('settle() gives a known machine the address of the unknown one that was silent longest, when all else is taken', async (t) => {
  const network = makeNetwork({ keptPercent: 0, pool: { first: ip(10), last: ip(12) } })
  for (const who of [1, 2, 3]) {
    await network.obtain(who)
    network.pass(1000)
  }
  const renewal = { type: 'request', clientIp: ip(10), arrived: 'unicast' } as const
  t.is(brief(await network.settle(1, renewal)), 'ack 10.77.0.10')
  t.is(brief(await network.settle(201, { type: 'discover' })), 'offer 10.77.0.11')
  const theirs = { ...renewal, clientIp: ip(11) }
  t.is(brief(await network.settle(2, theirs)), 'nak address-taken', 'it is on offer now')
  t.is(await network.obtain(201), ip(11))
  t.is(await network.obtain(202), ip(12))
  t.is(await network.obtain(203), ip(10))
  t.is(brief(await network.settle(204, { type: 'discover' })), 'silent pool-empty', 'never from a known one')
})

test('settle() gives the old address of a known machine to strangers last', async (t) => {
  const network = makeNetwork({ keptPercent: 0, pool: { first: ip(10), last: ip(12) } })
  t.is(await network.obtain(201, { leaseSeconds: 60 }), ip(10))
  network.pass(60_000)
  t.is(await network.obtain(1), ip(11))
  network.pass(1)
  t.is(await network.obtain(2), ip(12))
  network.pass(600_000)
  t.is(await network.obtain(3), ip(11), 'although the other ended earlier')
  t.is(await network.obtain(201), ip(10))
})

test('settle() gives the MAC of a known machine one kept address, whatever identifiers are made up for it', async (t) => {
  const network = makeNetwork()
  for (let who = 1; who <= 12; who++) await network.obtain(who)
  for (let id = 0; id < 30; id++) t.is(await network.obtain(201, { clientKey: `ff${id}` }), ip(22))
  t.is(await network.obtain(202), ip(23))
})

test('settle() answers so many unknown machines a minute, and every known one', async (t) => {
  const pool = { first: ip(10), last: ip(250) }
  const network = makeNetwork({ pool })
  const ask = (id: number) => network.settle(id % 200, { type: 'discover', clientKey: `made-up ${id}` })
  for (let id = 0; id < 1200; id++) t.not(brief(await ask(id)), 'silent too-many-newcomers')
  t.is(brief(await ask(1200)), 'silent too-many-newcomers')
  t.is(brief(await network.settle(1, { type: 'request', requestedIp: ip(99) })), 'silent too-many-newcomers')
  t.regex(brief(await ask(5)), /^offer/, 'it has an offer already')
  t.regex(brief(await network.settle(201, { type: 'discover' })), /^offer/)
  network.pass(60_000)
  t.regex(brief(await ask(1200)), /^offer/)
})

test('settle() takes no word of unknown machines for it that all addresses are in use', async (t) => {
  const network = makeNetwork({ keptPercent: 0 })
  for (let who = 1; who <= 16; who++) {
    const address = await network.obtain(who)
    await network.settle(who, { type: 'decline', requestedIp: address, serverId: SERVER })
  }
  t.is(brief(await network.settle(50, { type: 'discover' })), 'silent pool-empty')
  t.is(await network.obtain(201), ip(10))
})

const floodStep = fc.tuple(
  fc.record(
    {
      type: fc.constantFrom('discover', 'discover', 'request', 'request', 'decline', 'release'),
      requestedIp: fc.integer({ min: 9, max: 26 }).map(ip),
      clientIp: fc.integer({ min: 9, max: 26 }).map(ip),
      serverId: fc.constant(SERVER),
      arrived: fc.constantFrom('unicast', 'broadcast'),
    },
    { requiredKeys: ['type'] },
  ),
  fc.record({
    /** Mostly made up; sometimes the MAC of a machine that is known, under an identifier that is not. */
    who: fc.oneof({ weight: 8, arbitrary: fc.nat(60) }, { weight: 1, arbitrary: fc.constantFrom(...KNOWN) }),
    id: fc.nat(30),
    passedMs: fc.oneof(fc.constant(0), fc.nat(700_000)),
    /** Takes what it was offered, as a real client would. */
    follows: fc.boolean(),
  }),
)

type Network = ReturnType<typeof makeNetwork>

async function flood(
  network: Network,
  steps: readonly (typeof floodStep extends fc.Arbitrary<infer Step> ? Step : never)[],
) {
  for (const [question, { who, id, passedMs, follows }] of steps) {
    // A forged DECLINE or RELEASE of a known machine's own address hurts that machine: DHCP proves nothing.
    const isForged = KNOWN.includes(who)
    if (isForged && (question.type === 'decline' || question.type === 'release')) continue
    const clientKey = isForged || id > 0 ? `ff${who}${id}` : `mac:${mac(who)}`
    const answer = await network.settle(who, { ...question, clientKey } as Question)
    if (follows && answer.kind === 'offer') {
      await network.settle(who, { type: 'request', clientKey, requestedIp: answer.ip, serverId: SERVER })
    }
    network.pass(passedMs)
  }
}

test('settle() gives each known machine an address of its own after any flood', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(floodStep, { maxLength: 120 }),
      fc.array(floodStep, { maxLength: 20 }),
      async (before, between) => {
        const network = makeNetwork()
        await flood(network, before)
        const given = new Set<string>()
        for (const who of KNOWN) {
          const offer = await network.settle(who, { type: 'discover' })
          if (offer.kind !== 'offer') return false
          // The flood goes on while the machine makes up its mind, but for longer than its offer lasts.
          await flood(
            network,
            between.map(([question, step]) => [question, { ...step, passedMs: 0 }]),
          )
          const select = { type: 'request', requestedIp: offer.ip, serverId: SERVER } as const
          const ack = await network.settle(who, select)
          if (ack.kind !== 'ack') return false
          given.add(ack.lease.ip)
        }
        return given.size === KNOWN.length
      },
    ),
    { numRuns: 400 },
  )
  t.pass()
})

test('settle() renews what a known machine has during any flood', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(floodStep, { maxLength: 120 }), async (steps) => {
      const network = makeNetwork()
      const address = await network.obtain(201)
      await flood(
        network,
        steps.map(([question, step]) => [question, { ...step, passedMs: step.passedMs % 25_000 }]),
      )
      const renewal = { type: 'request', clientIp: address, arrived: 'unicast' } as const
      return brief(await network.settle(201, renewal)) === `ack ${address}`
    }),
    { numRuns: 400 },
  )
  t.pass()
})

test('WorkQueue.add() keeps room for those that are favoured', async (t) => {
  const queue = new WorkQueue({ total: 3, perKey: 2, keptForFavoured: 1 })
  const { promise, resolve } = Promise.withResolvers<void>()
  const add = (key: string, isFavoured: boolean) => queue.add(key, () => promise, isFavoured)
  t.deepEqual([add('a', false), add('b', false), add('c', false)], [true, true, false])
  t.deepEqual([add('d', true), add('e', true)], [true, false])
  resolve()
  await queue.idle()
})
