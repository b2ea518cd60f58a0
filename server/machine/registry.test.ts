// The roster and the desk over a real store: what becomes known, what is offered, whose word counts.

import test, { type ExecutionContext } from 'ava'

import { KitError } from '#lib/errors.ts'
import { parseMac } from '#lib/mac.ts'
import { type FixtureOptions, startRegistry, type Tree, treeOf } from '#testing/registry-fixture.ts'

const known = parseMac('02:4b:69:74:00:01')
const unknown = parseMac('02:4b:69:74:00:99')

/** One machine with a role, which boots live. */
const LIVE = (): Tree => treeOf({ [known]: { role: 'worker', boot: 'live' } })

const registry = async (t: ExecutionContext, options: FixtureOptions = {}) => {
  const started = await startRegistry(t, { tree: LIVE(), mostMachines: 100, ...options })
  /** Without those of the image that the server began with. */
  const kinds = async () => (await started.kinds()).filter((kind) => kind !== 'channel-promoted')
  return { ...started, kinds }
}

test('seen() takes a new machine in once, however many packets come at once', async (t) => {
  const { roster, kinds } = await registry(t)
  await Promise.all(Array.from({ length: 20 }, () => roster.seen(unknown, { firmware: 'bios' })))
  t.deepEqual(await kinds(), ['machine-discovered'])
  t.like(await roster.find(unknown), {
    state: 'discovered',
    firmware: 'bios',
    channel: 'stable',
    hostname: 'kit-74-00-99',
  })
})

test('seen() writes only what is new, and the time now and then', async (t) => {
  const { roster, clock, store } = await registry(t)
  await roster.seen(known, { firmware: 'uefi-x64' })
  clock.ms += 1
  await roster.seen(known, { firmware: 'uefi-x64' })
  t.is((await store.machines.find(known))?.lastSeenMs, 1_000_000)
  clock.ms += 10_000
  await roster.seen(known, {})
  t.like(await store.machines.find(known), { lastSeenMs: 1_010_001, firmware: 'uefi-x64' })
})

test('seen() takes the time from a clock that was set back', async (t) => {
  const { roster, clock, store } = await registry(t)
  await roster.seen(known, {})
  clock.ms -= 500_000
  await roster.seen(known, {})
  t.is((await store.machines.find(known))?.lastSeenMs, 500_000)
})

test('seen() knows no group addresses', async (t) => {
  const { roster } = await registry(t)
  await roster.seen(parseMac('ff:ff:ff:ff:ff:ff'), {})
  t.deepEqual(await roster.list(), [])
})

test('offerBoot() sends a machine without a role to its disk, and one with a role into the image', async (t) => {
  const { desk, kinds } = await registry(t)
  t.is((await desk.offerBoot(unknown, {})).plan.kind, 'local-disk')
  t.is((await desk.offerBoot(known, {})).plan.kind, 'live')
  t.deepEqual(await kinds(), [
    'machine-discovered',
    'boot-script-sent',
    'machine-discovered',
    'boot-script-sent',
  ])
  t.is(await desk.target(unknown), undefined)
  t.like(await desk.target(known), { imageVersion: '0.1.0', bundleDigest: 'b1' })
})

test('offerBoot() holds a machine whose bundle cannot be made, says why, and tells it once', async (t) => {
  const lines = 'Cannot make the overlay of x:\n  root/null: this is a device\n  root/fifo: this is a FIFO'
  let problem: Error = new KitError('conflict', lines)
  const { desk, kinds, store } = await registry(t, { bundles: { bundleFor: () => Promise.reject(problem) } })
  const reason = 'Cannot make the overlay of x: root/null: this is a device (and 1 more)'
  for (let asked = 0; asked < 3; asked += 1) {
    t.deepEqual((await desk.offerBoot(known, {})).plan, { kind: 'hold', reason })
  }
  t.deepEqual(await kinds(), ['machine-discovered', 'boot-script-sent'])
  problem = new Error('a secret cause')
  const { plan } = await desk.offerBoot(known, {})
  t.deepEqual(plan, { kind: 'hold', reason: "the server cannot make this machine's overlay bundle" })
  t.is(
    (await store.events.list({ limit: 1 }))[0]?.message,
    `boot plan hold: ${plan.kind === 'hold' && plan.reason}`,
  )
})

test('offerBoot() gives profile and bundle of the same moment when the role changes in between', async (t) => {
  const tree: Tree = { ...LIVE(), 'roles/gpu': {} }
  const own = 'machines/02-4b-69-74-00-01'
  const bundles = {
    bundleFor: async () => {
      const digest = `of-${tree[own]?.['role']}`
      tree[own] = { role: 'gpu', boot: 'live' } // after the layers were read
      return { digest, sizeBytes: 1, file: '/b' }
    },
  }
  const { desk } = await registry(t, { tree, bundles })
  const { plan } = await desk.offerBoot(known, {})
  if (plan.kind !== 'live') return t.fail(plan.kind)
  t.is(plan.profile.role, 'gpu')
  t.is(plan.bundle.digest, 'of-gpu')
})

test('a flood of made-up MACs is taken in up to a limit, and leaves nothing beyond it', async (t) => {
  const { desk, roster, store, clock, kinds } = await registry(t, { mostMachines: 3 })
  const made = (n: number) => parseMac(`02:00:00:00:00:0${n}`)
  const boots: string[] = []
  for (let n = 0; n < 6; n += 1) boots.push((await desk.offerBoot(made(n), {})).boot.id)
  t.deepEqual(roster.macs(), [made(0), made(1), made(2)])
  t.is((await kinds()).length, 6)
  const kept = await Promise.all(boots.map((id) => store.machines.findBoot(id)))
  t.deepEqual(
    kept.map((boot) => boot !== undefined),
    [true, true, true, false, false, false],
  )
  await t.throwsAsync(desk.checkIn(made(5), { boot: 'x', phase: 'running' }), { code: 'unavailable' })
  t.is((await desk.offerBoot(known, {})).plan.kind, 'live', 'one with a folder is always taken in')

  clock.ms += 25 * 3_600_000
  await roster.seen(made(0), {})
  t.is((await desk.offerBoot(made(6), {})).plan.kind, 'local-disk')
  t.deepEqual(
    (await store.machines.list()).map(({ mac }) => mac),
    [made(0), made(2), known, made(6)].toSorted(),
  )
  t.is(await store.machines.findBoot(boots[1] ?? ''), undefined)
})

test('offerBoot() does not take in a machine with a role when too many are known, and says so', async (t) => {
  const everybody: Tree = { defaults: { role: 'worker' }, 'roles/worker': {} }
  const { desk } = await registry(t, { tree: everybody, mostMachines: 0 })
  await t.throwsAsync(desk.offerBoot(known, {}), { code: 'unavailable', message: /too many/ })
})

test('target() makes no bundle for a MAC that was never seen', async (t) => {
  const { desk } = await registry(t, { bundles: { bundleFor: () => t.fail() as never } })
  t.is(await desk.target(known), undefined)
})

test('a boot script asked for by somebody else does not silence the running machine', async (t) => {
  const { desk, roster } = await registry(t)
  const { boot } = await desk.offerBoot(known, {})
  await desk.checkIn(known, { boot: boot.id, phase: 'starting' })
  await desk.checkIn(known, { boot: boot.id, phase: 'running', bundle: 'b1' })
  await desk.offerBoot(known, {})
  await desk.checkIn(known, { boot: boot.id, phase: 'running', bundle: 'b1' })
  t.like(await roster.find(known), {
    state: 'running',
    bundleDigest: 'b1',
    wantedBundle: 'b1',
    role: 'worker',
  })
})

test('checkIn() believes a later boot although the clock was set back in between', async (t) => {
  const { desk, roster, clock } = await registry(t)
  const first = await desk.offerBoot(known, {})
  await desk.checkIn(known, { boot: first.boot.id, phase: 'running' })
  clock.ms -= 500_000
  const second = await desk.offerBoot(known, {})
  await desk.checkIn(known, { boot: second.boot.id, phase: 'starting' })
  t.is((await roster.find(known))?.state, 'starting')
  await t.throwsAsync(desk.checkIn(known, { boot: first.boot.id, phase: 'running' }), { code: 'stale-boot' })
})

test('checkIn() refuses an unknown boot, records it once and changes nothing', async (t) => {
  const { desk, roster, kinds } = await registry(t)
  for (const boot of ['made-up', 'made-up', 'another']) {
    await t.throwsAsync(desk.checkIn(unknown, { boot, phase: 'running' }), { code: 'not-found' })
  }
  t.is((await roster.find(unknown))?.state, 'discovered')
  t.deepEqual(await kinds(), ['machine-discovered', 'check-in-refused'])
})

test('report() keeps the progress of a boot and changes no state', async (t) => {
  const { desk, roster, store } = await registry(t)
  const { boot } = await desk.offerBoot(known, {})
  await desk.report(known, {
    boot: boot.id,
    step: '40-image',
    status: 'failed',
    seconds: 1.5,
    log: 'no route',
  })
  t.is((await roster.find(known))?.state, 'discovered')
  t.like((await store.events.list({ limit: 1 }))[0], {
    kind: 'step-failed',
    message: '40-image failed',
    data: { step: '40-image', seconds: 1.5, log: 'no route', boot: boot.id },
  })
  await t.throwsAsync(desk.report(unknown, { boot: boot.id, step: 'x', status: 'done' }), {
    code: 'not-found',
  })
})

test('a new roster over the same store knows the machines of the old one', async (t) => {
  const { desk, directory, stop } = await registry(t)
  const { boot } = await desk.offerBoot(known, {})
  await desk.checkIn(known, { boot: boot.id, phase: 'starting' })
  await stop()
  const next = await registry(t, { directory })
  t.like(await next.roster.find(known), { state: 'starting', bootId: boot.id })
})

test('onTargetChange() is called until it is taken back', async (t) => {
  const { desk } = await registry(t)
  let calls = 0
  const stop = desk.onTargetChange(() => {
    calls += 1
  })
  desk.announceTargetChange()
  stop()
  desk.announceTargetChange()
  t.is(calls, 1)
})
