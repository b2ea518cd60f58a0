// Releases over a real store: channels, rollouts from check-in to check-in, quarantine, locks, and what survives.

import test, { type ExecutionContext } from 'ava'

import type { KitError } from '#lib/errors.ts'
import { type Mac, macToPath, parseMac } from '#lib/mac.ts'
import { findOldImages, type OldImageFacts } from '#machine/old-images.ts'
import {
  bad,
  type FixtureOptions,
  good,
  install,
  type Registry,
  ready,
  running,
  startRegistry,
  treeOf,
  trying,
} from '#testing/registry-fixture.ts'

const [m1, m2, m3] = [1, 2, 3].map((n) => parseMac(`02:00:00:00:00:0${n}`)) as [Mac, Mac, Mac]
const MINUTE = 60_000

/** Three installed machines on image 1, and images 2 and 3 to go on to. */
async function fleet(t: ExecutionContext, options: FixtureOptions = {}) {
  const tree = treeOf({ [m1]: { role: 'worker' }, [m2]: { role: 'worker' }, [m3]: { role: 'worker' } })
  Object.assign(tree, options.tree)
  const registry = await startRegistry(t, { versions: ['1'], ...options, tree })
  const boots = new Map<Mac, string>()
  for (const mac of [m1, m2, m3]) boots.set(mac, await install(registry, mac, '1'))
  registry.shelf.put('2', '3')
  return { ...registry, boots }
}

type Fleet = Registry & { readonly boots: Map<Mac, string> }

const permitOf = async ({ desk }: Fleet, mac: Mac) => {
  const target = await desk.target(mac)
  return [target?.imageVersion, target?.mayStage ? 'stage' : '', target?.mayReboot ? 'reboot' : '']
    .filter((word) => word !== '')
    .join(' ')
}

/** It has written the image into its other slot. */
const stage = ({ desk, boots }: Fleet, mac: Mac, image: string, runs = '1') =>
  desk.checkIn(mac, running(boots.get(mac) ?? '', runs, { a: good(runs), b: ready(image) }))

/** It restarts into the image of slot b, which is good in the end. */
async function succeed({ desk, boots }: Fleet, mac: Mac, image: string, from = '1') {
  const { id } = await desk.nameBoot(mac, 'b')
  boots.set(mac, id)
  await desk.checkIn(mac, { boot: id, phase: 'starting' })
  await desk.checkIn(mac, running(id, image, { a: good(from), b: trying(image) }, 'b'))
  const target = await desk.target(mac, id)
  await desk.checkIn(mac, running(id, image, { a: good(from), b: good(image) }, 'b'))
  return target?.isGood
}

/** It restarts and is back with what it ran before. */
async function fail({ desk, boots }: Fleet, mac: Mac, image: string) {
  const { id } = await desk.nameBoot(mac, 'a')
  boots.set(mac, id)
  await desk.checkIn(mac, running(id, '1', { a: good('1'), b: bad(image, 'kubelet never ready') }))
}

const stateOf = async ({ releases }: Registry, channel = 'stable') =>
  (await releases.rollouts()).find((rollout) => rollout.channel === channel)

test('the first image of a server is promoted to stable, and no later one', async (t) => {
  const registry = await startRegistry(t, { versions: [] })
  t.deepEqual(await registry.releases.channels(), [])
  registry.shelf.put('1')
  await registry.releaseFollower.stop()
  t.like((await registry.releases.channels())[0], { name: 'stable', version: '1' })
  t.deepEqual(await registry.kinds(), ['channel-promoted'])
  registry.shelf.put('2')
  t.like((await registry.releases.channels())[0], { version: '1' })
})

test('the first image of a server is the one it was told to start with, whatever else its store has', async (t) => {
  const { releases } = await startRegistry(t, { versions: ['9', '1-b', '1-a'], named: '1-b' })
  t.like(await releases.channels(), [{ name: 'stable', version: '1-b' }])
})

test('findOldImages() leaves what is used, the newest of the others, what is young and what has just come', (t) => {
  const DAY = 24 * 60 * MINUTE
  const images = ['7', '6', '5', '4', '3', '2', '1'].map((version) => ({ version, importedMs: 0 }))
  const facts = {
    images,
    isUsed: (version: string) => '62'.includes(version),
    nowMs: DAY,
    imported: undefined,
  }
  const cases: readonly [Partial<OldImageFacts>, string][] = [
    [{ keep: 2 }, '4,3,1'],
    [{ keep: 0 }, '7,5,4,3,1'],
    [{ keep: 5 }, ''],
    [{ keep: 2, imported: '3' }, '4,1'],
    [{ keep: 2, nowMs: DAY - 1 }, ''],
    [
      {
        keep: 2,
        images: images.map((image) => ({ ...image, importedMs: Number(image.version) })),
        nowMs: DAY + 3,
      },
      '3,1',
    ],
    [{ keep: 1, images: [] }, ''],
  ]
  for (const [change, old] of cases) {
    t.is(findOldImages({ ...facts, keep: 5, ...change }).join(), old, JSON.stringify(change))
  }
})

test('a rollout names the machines that their cluster keeps from restarting, and why', async (t) => {
  const before = await fleet(t)
  const ofNode = { name: 'one', role: 'worker', index: 1, state: 'joined', version: 'v1.33.1' } as const
  await before.store.clusters.saveNode({ ...ofNode, mac: m1, hasJoined: true, sinceMs: 0 })
  await before.stop()
  const { directory, tree, boots } = before
  const all = { ...(await startRegistry(t, { versions: ['1', '2'], directory, tree })), boots }
  await all.releases.promote('2', 'stable')
  t.is((await stateOf(all))?.held, undefined)
  await stage(all, m1, '2')
  const { updating, held = [] } = (await stateOf(all)) ?? {}
  t.deepEqual(updating, [m1])
  t.deepEqual(
    held.map(({ mac }) => mac),
    [m1],
  )
  t.regex(held[0]?.reason ?? '', /^the cluster cannot be reached/)
  t.is(await permitOf(all, m1), '2 stage')
})

test('images that nobody uses are removed when another comes, and none that somebody needs', async (t) => {
  const all = await fleet(t, { keepImages: 1, named: '6' })
  const { releases, shelf, clock, releaseFollower } = all
  const versions = () => shelf.images.map(({ version }) => version).join()
  shelf.put('4', '5', '6', '7', '8', '9')
  for (const version of ['4', '3', '2', '5']) await releases.promote(version, 'beta')
  await releases.pin(m1, '3')
  await releaseFollower.stop()
  t.is(versions(), '9,8,7,6,5,4,3,2,1', 'all of them are young')
  clock.ms += 24 * 60 * MINUTE
  await releaseFollower.start()
  // 1: stable and the machines; 5, 2, 3: beta; 3: pinned, too; 6: named; 9: the newest of the others
  t.is(versions(), '9,6,5,3,2,1')
  await releases.pin(m1, undefined)
  await stage(all, m1, '2')
  await releases.promote('9', 'beta')
  await releases.promote('6', 'beta')
  shelf.put('10', '11')
  await releaseFollower.stop()
  // Beta has 6, before it 9 and 5, and m1 has 2 in its other slot; nobody needs 3 or 10.
  t.is(versions(), '11,9,6,5,2,1')
})

test('a version in quarantine is nothing to go back to, so the one before it is kept', async (t) => {
  const all = await fleet(t, { keepImages: 0 })
  const { releases, shelf, clock, releaseFollower } = all
  shelf.put('4')
  for (const version of ['4', '3', '2']) await releases.promote(version, 'stable')
  await stage(all, m1, '2')
  await fail(all, m1, '2')
  await releases.promote('1', 'stable')
  clock.ms += 24 * 60 * MINUTE
  await releaseFollower.stop()
  await releaseFollower.start()
  t.deepEqual(
    shelf.images.map(({ version }) => version),
    ['4', '3', '2', '1'],
    'm1 has 2 in a slot; 3 and 4 are what stable would go back to',
  )
})

test('a server whose database is new removes nothing', async (t) => {
  const { shelf } = await startRegistry(t, { versions: ['3', '2', '1'], keepImages: 0 })
  t.is(shelf.images.length, 3)
})

test('removeImage() also removes a damaged one, which is in no list', async (t) => {
  const { releases, shelf } = await startRegistry(t, { versions: ['1'] })
  shelf.damaged = ['2']
  await releases.removeImage('2')
  t.deepEqual(shelf.damaged, [])
  await t.throwsAsync(releases.removeImage('2'), { message: /there is no image 2/ })
})

test('an update goes from machine to machine, one at a time, and each step is told', async (t) => {
  const all = await fleet(t)
  for (const mac of [m1, m2, m3]) t.is(await permitOf(all, mac), '1')
  await all.releases.promote('2', 'stable')
  for (const mac of [m1, m2, m3]) t.is(await permitOf(all, mac), '2 stage')
  await stage(all, m2, '2')
  await stage(all, m1, '2')
  t.is(await permitOf(all, m2), '2 stage reboot')
  t.is(await permitOf(all, m1), '2 stage', 'one at a time')
  t.like(await stateOf(all), { state: 'running', updating: [m2], waiting: [m1, m3], done: [] })
  t.true(await succeed(all, m2, '2'))
  t.is(await permitOf(all, m2), '2')
  t.is(await permitOf(all, m1), '2 stage reboot')
  await succeed(all, m1, '2')
  await stage(all, m3, '2')
  await succeed(all, m3, '2')
  t.like(await stateOf(all), { state: 'done', done: [m1, m2, m3] })
  t.deepEqual((await all.kinds(m2)).slice(-6), [
    ...['slot-good', 'update-started', 'checked-in', 'checked-in', 'slot-good', 'updated'],
  ])
  t.is((await all.kinds()).at(-1), 'rollout-done')
  t.deepEqual(await all.store.releases.locks(), [])
})

test('a rollout over three machines halts at the second failure and says why', async (t) => {
  const all = await fleet(t, { tree: { 'channels/stable': { 'update-halt-after': '2' } } })
  await all.releases.promote('2', 'stable')
  for (const mac of [m1, m2, m3]) await stage(all, mac, '2')
  await fail(all, m1, '2')
  t.is(await permitOf(all, m1), '1', 'what failed on it is not for it any more')
  t.is(await permitOf(all, m2), '2 stage reboot', 'the rollout goes on')
  t.like(await stateOf(all), { state: 'running', failed: [m1], updating: [m2] })
  await fail(all, m2, '2')
  t.is(await permitOf(all, m3), '1')
  const halted = await stateOf(all)
  t.like(halted, { state: 'halted', failed: [m1, m2], waiting: [m3], haltAfter: 2 })
  t.regex(halted?.reason ?? '', /failed on 2 machines.*update-halt-after is 2.*kubelet never ready/)
  await all.powerwashes.request(m1, 'keep')
  const { boot } = await all.desk.offerBoot(m1, {})
  await all.desk.checkIn(m1, { boot: boot.id, phase: 'installing' })
  t.like(await stateOf(all), { state: 'halted', failed: [m1, m2] }, 'a failure is not washed off')
  const kinds = await all.kinds()
  for (const [kind, count] of Object.entries({
    'image-quarantined': 1,
    'update-failed': 2,
    'rollout-halted': 1,
  }))
    t.is(kinds.filter((each) => each === kind).length, count, kind)
})

test('the first failure keeps a version from everybody outside, over a restart and a powerwash, until it is lifted', async (t) => {
  const first = await fleet(t)
  first.tree[`machines/${macToPath(m3)}`] = { role: 'worker', channel: 'beta' }
  await first.releases.promote('1', 'beta')
  await first.releases.promote('2', 'stable')
  await first.releases.promote('2', 'beta')
  await stage(first, m1, '2')
  await fail(first, m1, '2')
  t.like(await stateOf(first, 'stable'), { state: 'halted', failed: [m1], waiting: [m2] })
  t.like(await stateOf(first, 'beta'), { state: 'quarantined', failed: [] })
  await first.stop()

  const again = await startRegistry(t, {
    directory: first.directory,
    tree: first.tree,
    versions: ['3', '2', '1'],
  })
  const all = { ...again, boots: first.boots }
  for (const mac of [m1, m2, m3]) t.is(await permitOf(all, mac), '1')
  await all.powerwashes.request(m1, 'keep')
  const { plan, boot } = await all.desk.offerBoot(m1, {})
  t.like(plan, { kind: 'powerwash', image: { version: '1' } })
  await all.desk.checkIn(m1, { boot: boot.id, phase: 'installing' })
  await all.desk.checkIn(m1, running(boot.id, '1', { a: good('1') }))
  t.is(await permitOf(all, m1), '1', 'it does not forget what failed on it')
  await t.throwsAsync(all.releases.promote('2', 'nightly'), {
    code: 'conflict',
    message: /failed on 02:00:00:00:00:01/,
  })
  await t.throwsAsync(all.releases.pin(m2, '2'), { code: 'conflict' })

  t.like(await all.releases.retry('stable'), { state: 'running', failed: [] })
  t.is(await permitOf(all, m2), '2 stage')
  t.is(await permitOf(all, m1), '2 stage')
  t.is((await all.kinds()).filter((kind) => kind === 'quarantine-lifted').length, 1)
})

test('a version that fails again after a retry is in quarantine again', async (t) => {
  const all = await fleet(t)
  await all.releases.promote('2', 'stable')
  await stage(all, m1, '2')
  await fail(all, m1, '2')
  await all.releases.retry('stable')
  await stage(all, m1, '2')
  await fail(all, m1, '2')
  t.like(await stateOf(all), { state: 'halted', failed: [m1] })
})

test('lift() frees a version that no channel points at', async (t) => {
  const all = await fleet(t)
  const { releases } = all
  await releases.promote('2', 'stable')
  await stage(all, m1, '2')
  await fail(all, m1, '2')
  t.like(await releases.quarantines(), [{ version: '2', mac: m1, channels: ['stable'] }])
  await releases.promote('3', 'stable')
  t.like(await releases.quarantines(), [{ version: '2', channels: [] }])
  await t.throwsAsync(releases.promote('2', 'beta'), { code: 'conflict', message: /kubelet never ready/ })
  const unknown = await t.throwsAsync<KitError>(releases.lift('4'), { code: 'not-found' })
  t.truthy(unknown?.fix)
  await releases.lift('2')
  t.deepEqual(await releases.quarantines(), [])
  t.deepEqual(await all.store.releases.quarantines(), [])
  t.like(await releases.promote('2', 'beta'), { version: '2' })
  await releases.pin(m1, '2')
  t.is(await permitOf(all, m1), '2 stage', 'what failed on it is forgotten')
  t.is((await all.kinds()).filter((kind) => kind === 'quarantine-lifted').length, 1)
})

test('a machine that is silent for an hour with the lock has failed; a server that was off has not heard of anybody', async (t) => {
  const first = await fleet(t)
  await first.releases.promote('2', 'stable')
  await stage(first, m1, '2')
  await stage(first, m2, '2')
  await first.stop()
  const again = await startRegistry(t, { directory: first.directory, tree: first.tree, versions: ['2', '1'] })
  again.clock.ms += 5 * 24 * 60 * MINUTE
  await again.rollouts.settle()
  t.like(await stateOf(again), { state: 'running', updating: [m1] })
  again.clock.turn(59 * MINUTE)
  await again.rollouts.settle()
  t.like(await stateOf(again), { updating: [m1], failed: [] })
  again.clock.turn(MINUTE)
  await again.rollouts.settle()
  t.like(await stateOf(again), { state: 'halted', failed: [m1] })
  t.deepEqual(await again.store.releases.locks(), [])
  t.regex((await stateOf(again))?.reason ?? '', /has not been heard of for 60 minutes/)
})

test('the canary is first, and the others wait for it', async (t) => {
  const tree = { [`machines/${macToPath(m3)}`]: { role: 'worker', canary: 'yes' } }
  const all = await fleet(t, { tree })
  await all.releases.promote('2', 'stable')
  t.is(await permitOf(all, m1), '2')
  await stage(all, m3, '2')
  await succeed(all, m3, '2')
  t.is(await permitOf(all, m1), '2 stage')
})

test('a promotion in the middle of a trial takes nobody back', async (t) => {
  const all = await fleet(t)
  await all.releases.promote('2', 'stable')
  await stage(all, m1, '2')
  const { id } = await all.desk.nameBoot(m1, 'b')
  await all.desk.checkIn(m1, running(id, '2', { a: good('1'), b: trying('2') }, 'b'))
  await all.releases.promote('3', 'stable')
  t.like(await all.desk.target(m1, id), { imageVersion: '3', isGood: true })
  t.deepEqual(await stateOf(all).then((state) => state?.failed), [])
})

test('pause() stops an update and pin() keeps a machine out of it', async (t) => {
  const all = await fleet(t)
  await all.releases.pause('stable', true)
  await all.releases.promote('2', 'stable')
  t.like(await stateOf(all), { state: 'paused' })
  t.is(await permitOf(all, m1), '2')
  await all.releases.pin(m1, '3')
  t.is(await permitOf(all, m1), '3 stage', 'a pin is a word of its own')
  t.like(await all.roster.find(m1), { pin: '3', wantedImage: '3', channel: 'stable' })
  await all.releases.pause('stable', false)
  t.is(await permitOf(all, m2), '2 stage')
  t.like(await stateOf(all), { waiting: [m2, m3] })
  await all.releases.pin(m1, undefined)
  t.like(await all.roster.find(m1), { wantedImage: '2' })
  const kinds = await all.kinds()
  for (const kind of ['channel-paused', 'channel-resumed', 'machine-pinned', 'machine-unpinned'])
    t.true(kinds.includes(kind), kind)
})

test('lock() and the updates share what may restart at a time', async (t) => {
  const all = await fleet(t)
  const { releases } = all
  t.deepEqual(await releases.lock('stable', 'x'), { isHeld: true })
  t.deepEqual(await releases.lock('stable', 'x'), { isHeld: true }, 'asked again')
  t.deepEqual(await releases.lock('stable', 'y'), { isHeld: false, holder: 'fleetlock:x' })
  t.deepEqual(await releases.lock('beta', 'x'), { isHeld: false, holder: 'fleetlock:x' })
  t.deepEqual(await releases.lock('beta', 'y'), { isHeld: true })
  await releases.promote('2', 'stable')
  await stage(all, m1, '2')
  t.is(await permitOf(all, m1), '2 stage')
  t.regex((await stateOf(all))?.reason ?? '', /held by fleetlock:x/)
  await releases.unlock('beta', 'x')
  t.is(await permitOf(all, m1), '2 stage', 'of another group')
  await releases.unlock('stable', 'x')
  t.is(await permitOf(all, m1), '2 stage reboot')
  t.deepEqual(await releases.lock('stable', 'y'), { isHeld: false, holder: 'fleetlock:y' })
  t.deepEqual(await releases.lock('stable', 'z'), { isHeld: false, holder: m1 })
  await Promise.all([releases.unlock('beta', 'y'), succeed(all, m1, '2')])
  const asked = await Promise.all(['a', 'b', 'c'].map((id) => releases.lock('stable', id)))
  t.is(asked.filter(({ isHeld }) => isHeld).length, 1)
  await t.throwsAsync(releases.lock('No such', 'x'), { code: 'invalid-input' })
})

test('releaseLock() takes the lock from another tool, and from no machine', async (t) => {
  const all = await fleet(t)
  const { releases } = all
  await releases.lock('stable', 'x')
  await releases.promote('2', 'stable')
  await stage(all, m1, '2')
  t.like(await releases.locks(), [{ channel: 'stable', holder: 'fleetlock:x', sinceMs: all.clock.ms }])
  await t.throwsAsync(releases.releaseLock('beta', 'x'), { code: 'not-found', message: /nobody has it/ })
  await t.throwsAsync(releases.releaseLock('stable', 'y'), {
    code: 'not-found',
    message: /held by fleetlock:x/,
  })
  await releases.releaseLock('stable', 'fleetlock:x')
  t.is(await permitOf(all, m1), '2 stage reboot')
  await t.throwsAsync(releases.releaseLock('stable', m1), { code: 'conflict', message: /on its way to 2/ })
  await succeed(all, m1, '2')
  await releases.lock('stable', 'x')
  await releases.releaseLock('stable', 'x')
  t.deepEqual(await releases.locks(), [])
  t.is((await all.kinds()).filter((kind) => kind === 'lock-released').length, 2)
})

test('the lock of another tool counts for a day, and that of a machine as long as it lives', async (t) => {
  const all = await fleet(t)
  const { releases, clock, rollouts } = all
  const DAY = 24 * 60 * MINUTE
  await releases.lock('stable', 'gone')
  clock.ms += DAY - 1
  await rollouts.settle()
  t.like(await releases.lock('stable', 'y'), { isHeld: false, holder: 'fleetlock:gone' })
  clock.ms += 1
  await rollouts.settle()
  t.deepEqual(await releases.locks(), [])
  t.is((await all.kinds()).filter((kind) => kind === 'lock-expired').length, 1)
  await releases.promote('2', 'stable')
  await stage(all, m1, '2')
  clock.ms += 2 * DAY
  await rollouts.settle()
  t.like(await releases.locks(), [{ holder: m1, version: '2' }])
})

test('the target changes when a window opens or closes, by the minute', async (t) => {
  const tree = { defaults: { 'update-window': '00:20-00:22 UTC' } }
  const all = await fleet(t, { tree })
  await all.releases.promote('2', 'stable')
  await stage(all, m1, '2')
  t.is(await permitOf(all, m1), '2 stage')
  t.regex((await stateOf(all))?.reason ?? '', /no update window is open/)
  const changed = () =>
    new Promise<void>((resolve) => {
      const stop = all.desk.onTargetChange(() => {
        stop()
        resolve()
      })
    })
  // The clock began at 00:16:40; the machines are heard of now and then.
  const opened = changed()
  all.clock.turn(3 * MINUTE + 20_000)
  await opened
  t.is(await permitOf(all, m1), '2 stage reboot')
  await all.rollouts.settle()
  const closed = changed()
  all.clock.turn(MINUTE)
  await all.rollouts.settle()
  all.clock.turn(MINUTE)
  await closed
  t.is(await permitOf(all, m1), '2 stage')
})

test('a channel without an image holds its machines with what to do', async (t) => {
  const tree = { [`machines/${macToPath(m1)}`]: { role: 'worker', channel: 'beta' }, 'roles/worker': {} }
  const { desk, releases } = await startRegistry(t, { tree })
  t.deepEqual((await desk.offerBoot(m1, {})).plan, {
    kind: 'hold',
    reason: 'channel beta has no image: kateskit channel promote <version> beta',
  })
  const kept = await releases.promote('0.1.0', 'beta')
  t.like(kept, { name: 'beta', version: '0.1.0', machines: [m1], previous: [] })
  t.is((await desk.offerBoot(m1, {})).plan.kind, 'install')
})

test('promote() remembers ten versions before, newest first, each once', async (t) => {
  const versions = Array.from({ length: 13 }, (_, n) => `${n + 1}`)
  const { releases, shelf } = await startRegistry(t, { versions: ['1'] })
  shelf.put(...versions.slice(1))
  for (const version of [...versions, '12']) await releases.promote(version, 'stable')
  const [{ previous, version } = { previous: [], version: '' }] = await releases.channels()
  t.is(version, '12')
  t.deepEqual(previous, ['13', '11', '10', '9', '8', '7', '6', '5', '4', '3'])
})

test('what cannot be done is refused with the way out, and changes nothing', async (t) => {
  const all = await fleet(t)
  const { releases } = all
  const before = await releases.channels()
  const cases: readonly [() => Promise<unknown>, object][] = [
    [() => releases.promote('9', 'stable'), { code: 'not-found', message: /there is no image 9/ }],
    [() => releases.promote('2', 'No'), { code: 'invalid-input' }],
    [() => releases.pause('betta', true), { code: 'not-found', message: /nothing points at it/ }],
    [() => releases.pin(m1, '9'), { code: 'not-found' }],
    [() => releases.retry('beta'), { code: 'not-found', message: /points at no image/ }],
    [() => releases.removeImage('9'), { code: 'not-found' }],
    [
      () => releases.removeImage('1'),
      { code: 'conflict', message: /channel stable points at it, 02:00:00:00:00:01 has it/ },
    ],
  ]
  for (const [work, expected] of cases) {
    const error = await t.throwsAsync<Error & { fix?: string }>(work, expected)
    if ('code' in expected && expected.code !== 'invalid-input') t.truthy(error?.fix, error?.message)
  }
  t.deepEqual(await releases.channels(), before)
  await releases.pin(m1, '3')
  await t.throwsAsync(releases.removeImage('3'), { message: /02:00:00:00:00:01 is pinned to it/ })
  await releases.removeImage('2')
  t.deepEqual(
    (await releases.images()).map(({ version, channels, machines }) => [version, channels, machines]),
    [
      ['3', [], []],
      ['1', ['stable'], [m1, m2, m3]],
    ],
  )
})
