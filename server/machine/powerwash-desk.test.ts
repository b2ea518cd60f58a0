// Powerwashes, disk plans and boots from the disk, as machines and people ask for them, over a real store.

import test from 'ava'

import { type Mac, macToPath, parseMac } from '#lib/mac.ts'
import {
  bad,
  good,
  install,
  type Registry,
  running,
  startRegistry,
  type Tree,
  treeOf,
  trying,
} from '#testing/registry-fixture.ts'

import { LABELS } from './disk-layout.ts'
import type { Disk } from './machine.ts'
import type { BootWish } from './ports.ts'

const mac = parseMac('02:00:00:00:00:01')
const other = parseMac('02:00:00:00:00:02')
const OWN = `machines/${macToPath(mac)}`

const vda: Disk = { name: 'vda', sizeBytes: 20e9, removable: false, transport: 'virtio', contents: [] }
const ours: Disk = { ...vda, contents: LABELS.map((label, n) => ({ where: `vda${n + 1}`, label })) }

const withRole = (settings: Record<string, string> = {}): Tree =>
  treeOf({ [mac]: { role: 'worker', ...settings } })

const planOf = async ({ desk }: Registry, wish?: BootWish) => (await desk.offerBoot(mac, {}, wish)).plan.kind

const report = ({ desk }: Registry, boot: string, ...disks: readonly Disk[]) =>
  desk.takeDisks(mac, { boot, firmware: 'uefi', disks })

const isSent = async ({ desk }: Registry, of: Mac = mac) => (await desk.target(of))?.powerwash

test('request() sends a machine that runs to the network once, and its check-in ends that', async (t) => {
  const all = await startRegistry(t, { tree: withRole() })
  const first = await install(all, mac, '0.1.0')
  t.is(await planOf(all), 'local-disk')
  t.false(await isSent(all))
  let woken = 0
  all.desk.onTargetChange(() => {
    woken += 1
  })
  t.like(await all.powerwashes.request(mac, 'keep'), { powerwash: { persistence: 'keep' } })
  t.true(woken > 0)
  t.true(await isSent(all))
  const { boot, plan } = await all.desk.offerBoot(mac, {})
  t.is(plan.kind, 'powerwash')
  await all.desk.checkIn(mac, { boot: boot.id, phase: 'starting' })
  t.is(await planOf(all), 'powerwash', 'cut off before it began')
  const again = (await all.desk.offerBoot(mac, {})).boot.id
  await all.desk.checkIn(mac, { boot: again, phase: 'installing' })
  t.is((await all.roster.find(mac))?.powerwash, undefined)
  t.is(await planOf(all), 'install', 'cut off after it began')
  await all.desk.checkIn(mac, running(again, '0.1.0', { a: trying('0.1.0') }))
  t.is(await planOf(all), 'local-disk')
  t.false(await isSent(all))
  await t.throwsAsync(all.desk.checkIn(mac, running(first, '0.1.0', {})), { code: 'stale-boot' })
  const kinds = await all.kinds(mac)
  for (const kind of ['powerwash-requested', 'powerwash-begun'])
    t.is(kinds.filter((each) => each === kind).length, 1, kind)
})

test('one that wipes goes on wiping until something has started from the disk', async (t) => {
  const all = await startRegistry(t, { tree: withRole() })
  await install(all, mac, '0.1.0')
  await all.powerwashes.request(mac, 'wipe')
  const { boot } = await all.desk.offerBoot(mac, {})
  t.like(await report(all, boot.id, ours), { kind: 'use', table: 'keep', persistence: 'wipe' })
  await all.desk.checkIn(mac, { boot: boot.id, phase: 'installing' })
  const next = await all.desk.offerBoot(mac, {})
  t.is(next.plan.kind, 'powerwash-all')
  t.like(await report(all, next.boot.id, ours), { persistence: 'wipe' })
  const { id } = await all.desk.nameBoot(mac, 'a')
  t.is(await planOf(all), 'powerwash-all', 'a boot that is only named says nothing')
  await all.desk.checkIn(mac, { boot: id, phase: 'starting' })
  t.is(await planOf(all), 'install')
})

test('cancel() takes back what has not begun, also from a machine that is on its way', async (t) => {
  const all = await startRegistry(t, { tree: withRole({ 'netboot-means': 'powerwash' }) })
  await install(all, mac, '0.1.0')
  await t.throwsAsync(all.powerwashes.cancel(mac), { code: 'conflict', message: /none was asked for/ })
  await all.powerwashes.request(mac, 'keep')
  t.true(await isSent(all))
  all.clock.turn(10)
  const { boot } = await all.desk.offerBoot(mac, {})
  all.clock.turn(10)
  t.is((await all.powerwashes.cancel(mac)).powerwash, undefined)
  const refused = await report(all, boot.id, ours)
  t.regex(refused.kind === 'refused' ? refused.lines.join() : '', /it was taken back/)
  t.is(await planOf(all), 'local-disk', 'its netboot was our doing')
  const { id } = await all.desk.nameBoot(mac, 'a')
  await all.desk.checkIn(mac, running(id, '0.1.0', { a: good('0.1.0') }))
  t.is(await planOf(all), 'powerwash', 'this one is not')
  const later = (await all.desk.offerBoot(mac, {})).boot.id
  t.is((await report(all, later, ours)).kind, 'use', 'what was offered after that goes on')
})

test('a new word in the file asks once, and cancel() takes it back', async (t) => {
  const all = await startRegistry(t, { tree: withRole({ powerwash: 'from-before' }) })
  await install(all, mac, '0.1.0')
  t.is(await planOf(all), 'local-disk')
  all.tree[OWN] = { role: 'worker', powerwash: 'again' }
  t.true(await isSent(all))
  const { boot } = await all.desk.offerBoot(mac, {})
  await all.desk.checkIn(mac, { boot: boot.id, phase: 'installing' })
  await all.desk.checkIn(mac, running(boot.id, '0.1.0', { a: good('0.1.0') }))
  t.false(await isSent(all))
  all.tree[OWN] = { role: 'worker' }
  t.false(await isSent(all))
  all.tree[OWN] = { role: 'worker', powerwash: 'third' }
  await all.powerwashes.cancel(mac)
  t.is(await planOf(all), 'local-disk')
})

test('request() refuses what has no disk of ours', async (t) => {
  const all = await startRegistry(t, { tree: withRole({ boot: 'live' }) })
  await t.throwsAsync(all.powerwashes.request(mac, 'keep'), { code: 'not-found' })
  await all.desk.offerBoot(mac, {})
  await t.throwsAsync(all.powerwashes.request(mac, 'keep'), { code: 'conflict', message: /runs in memory/ })
  await all.roster.seen(other, {})
  await t.throwsAsync(all.powerwashes.request(other, 'keep'), { code: 'conflict', message: /has no role/ })
})

test('a machine that runs is not sent into a netboot that would be held or refused', async (t) => {
  const all = await startRegistry(t, { tree: withRole() })
  await install(all, mac, '0.1.0')
  await all.powerwashes.request(mac, 'keep')
  all.tree[OWN] = { role: 'worker', boot: 'hold' }
  t.false(await isSent(all))
  all.tree[OWN] = { role: 'worker' }
  t.true(await isSent(all))
  const { boot } = await all.desk.offerBoot(mac, {})
  await report(all, boot.id, ours, { ...vda, name: 'vdb' })
  t.false(await isSent(all))
  all.tree[OWN] = { role: 'worker', disk: 'size=<=1G' }
  t.false(await isSent(all))
})

test('the menu makes a powerwash of an installed machine only', async (t) => {
  const all = await startRegistry(t, { tree: withRole() })
  t.is((await all.desk.offerBoot(other, {}, 'powerwash')).plan.kind, 'local-disk')
  await install(all, mac, '0.1.0')
  t.is(await planOf(all, 'powerwash'), 'powerwash')
  t.is(await planOf(all), 'local-disk', 'asking for the script changes nothing')
})

test('takeDisks() remembers the disks, decides, and tells a refusal once', async (t) => {
  const all = await startRegistry(t, { tree: withRole({ 'kernel-arguments': 'quiet' }) })
  const { boot } = await all.desk.offerBoot(mac, {})
  const made = await report(all, boot.id, vda)
  t.like(made, { kind: 'use', table: 'make', persistence: 'wipe' })
  t.regex(
    made.kind === 'use' ? made.arguments : '',
    /^kit\.url=http:\/\/10\.77\.0\.1:8080 kit\.tls=\S+ kit\.ca=\S+ kit\.mac=02-00-.* quiet$/,
  )
  t.deepEqual((await all.roster.find(mac))?.disks, [vda])
  for (let asked = 0; asked < 3; asked += 1) t.is((await report(all, boot.id)).kind, 'refused')
  await report(all, boot.id, vda, { ...vda, name: 'vdb' })
  const told = (await all.store.events.list({ limit: 100 })).filter(({ kind }) => kind === 'disk-refused')
  t.is(told.length, 2)
  t.regex(`${told[1]?.data['lines']}`, /There is vda .*There is vdb/s)
  await t.throwsAsync(report(all, 'made-up', vda), { code: 'not-found' })
  await t.throwsAsync(all.desk.takeDisks(other, { boot: boot.id, firmware: 'bios', disks: [] }), {
    code: 'not-found',
  })
  await all.desk.checkIn(mac, { boot: boot.id, phase: 'starting' })
  const later = (await all.desk.offerBoot(mac, {})).boot.id
  await all.desk.checkIn(mac, { boot: later, phase: 'starting' })
  await t.throwsAsync(report(all, boot.id, vda), { code: 'stale-boot' })
})

test('takeDisks() of a live boot refuses nobody aloud', async (t) => {
  const all = await startRegistry(t, { tree: withRole({ boot: 'live' }) })
  const { boot } = await all.desk.offerBoot(mac, {})
  t.is((await report(all, boot.id)).kind, 'refused')
  t.false((await all.kinds()).includes('disk-refused'))
})

test('plan() says what the next netboot would do, before and after the disks are known', async (t) => {
  const all = await startRegistry(t, { tree: withRole() })
  const text = async () => (await all.powerwashes.plan(mac)).lines.join('\n')
  t.like(await all.powerwashes.plan(mac), { plan: 'install', disks: [] })
  t.regex(await text(), /has not reported its disks yet/)
  const { boot } = await all.desk.offerBoot(mac, {})
  await report(all, boot.id, vda, { ...vda, name: 'vdb' })
  t.regex(await text(), /would be refused.*There is vdb/s)
  await report(all, boot.id, vda)
  t.regex(await text(), /new partition table on vda.*loses nothing/s)
  await install(all, mac, '0.1.0')
  const { boot: next } = await all.desk.offerBoot(mac, {})
  await report(all, next.id, ours)
  t.is((await all.powerwashes.plan(mac)).plan, 'local-disk')
  t.regex(await text(), /on to its own disk.*a powerwash:.*keeps kit-persist/s)
  await all.powerwashes.request(mac, 'wipe')
  t.is((await all.powerwashes.plan(mac)).plan, 'powerwash-all')
  t.regex(await text(), /loses kit-persist/)
  await t.throwsAsync(all.powerwashes.plan(parseMac('02:00:00:00:00:77')), { code: 'not-found' })
})

test('a machine that starts from its disk is taken in by a server that has lost its database', async (t) => {
  const all = await startRegistry(t, { tree: withRole({ powerwash: 'long-ago' }) })
  const { id } = await all.desk.nameBoot(mac, 'b')
  await all.desk.checkIn(mac, { boot: id, phase: 'starting' })
  await all.desk.checkIn(mac, running(id, '0.0.9', { a: bad('0.0.8'), b: good('0.0.9') }, 'b'))
  t.like(await all.roster.find(mac), { isInstalled: true, slot: 'b', wantedImage: '0.1.0' })
  t.is(await planOf(all), 'local-disk')
  t.false(await isSent(all), 'the word is from before')
  t.like(await all.desk.target(mac, id), { imageVersion: '0.1.0', mayStage: true, isGood: true })
})

test('a machine that is back from its disk at once has nothing there to start: it is installed', async (t) => {
  const all = await startRegistry(t, { tree: withRole() })
  await install(all, mac, '0.1.0')
  t.is(await planOf(all), 'local-disk')
  all.clock.turn(9_000)
  t.is(await planOf(all), 'install')
  t.is(await planOf(all), 'install', 'also when it did not get that far')
  all.clock.turn(300_000)
  t.is(await planOf(all), 'local-disk', 'that was another day')
  await all.desk.nameBoot(mac, 'a')
  t.is(await planOf(all), 'local-disk', 'its disk has started since')
  await all.powerwashes.request(mac, 'keep')
  t.is(await planOf(all), 'powerwash', 'what a person asked for comes first')
})

test('an image that never comes up after its installation is not written again before somebody lets it', async (t) => {
  const all = await startRegistry(t, { tree: withRole(), versions: ['1'] })
  all.shelf.put('2')
  await all.releases.promote('2', 'stable')
  const slots = { a: bad('2', 'did not come up in 3 tries'), b: { state: 'empty' } } as const
  const begin = async (wish?: BootWish) => {
    const { boot, plan } = await all.desk.offerBoot(mac, {}, wish)
    if (plan.kind !== 'install') return plan
    const image = plan.image.version
    await all.desk.checkIn(mac, { boot: boot.id, phase: 'starting', image })
    const isFirst = wish === undefined
    await all.desk.checkIn(mac, { boot: boot.id, phase: 'installing', image, ...(!isFirst && { slots }) })
    return plan
  }
  t.like(await begin(), { kind: 'install', image: { version: '2' } })
  await t.throwsAsync(begin('recover'), { code: 'conflict', message: /image 2 has failed on this machine/ })
  t.like(await all.roster.find(mac), { state: 'failed', isInstalled: false, slots })
  t.deepEqual((await all.kinds(mac)).slice(-4), [
    ...['checked-in', 'slot-bad', 'update-failed', 'image-quarantined'],
  ])
  t.like(await begin('recover'), { kind: 'install', image: { version: '1' } }, 'the one before')
  await all.releases.retry('stable')
  t.like(await all.desk.offerBoot(mac, {}, 'recover'), { plan: { kind: 'install', image: { version: '2' } } })
})

test('a machine with nothing else to install is held with the reason, and installs when it is let', async (t) => {
  const all = await startRegistry(t, { tree: withRole() })
  const slots = { a: bad('0.1.0'), b: { state: 'empty' } } as const
  const begin = async () => {
    const { boot } = await all.desk.offerBoot(mac, {}, 'recover')
    await all.desk.checkIn(mac, { boot: boot.id, phase: 'installing', image: '0.1.0', slots })
  }
  await t.throwsAsync(begin(), { code: 'conflict' })
  const { plan } = await all.desk.offerBoot(mac, {}, 'recover')
  t.regex(plan.kind === 'hold' ? plan.reason : '', /0\.1\.0, which is in quarantine .*kernel panic/)
  await all.releases.retry('stable')
  await t.notThrowsAsync(begin())
  t.like(await all.roster.find(mac), { state: 'installing', isInstalled: false })
})

test('a machine whose good slot was damaged is installed anew with what its channel has', async (t) => {
  const all = await startRegistry(t, { tree: withRole() })
  await install(all, mac, '0.1.0')
  t.is(await planOf(all), 'local-disk')
  const { boot, plan } = await all.desk.offerBoot(mac, {}, 'recover')
  t.like(plan, { kind: 'install', image: { version: '0.1.0' } })
  const slots = { a: bad('0.1.0', 'dm-verity refuses to read it'), b: { state: 'empty' } } as const
  await all.desk.checkIn(mac, { boot: boot.id, phase: 'installing', image: '0.1.0', slots })
  t.deepEqual((await all.kinds(mac)).slice(-3), ['checked-in', 'powerwash-begun', 'slot-bad'])
  t.deepEqual(await all.store.releases.quarantines(), [])
})

test('nameBoot() leaves no trace of a machine too many', async (t) => {
  const all = await startRegistry(t, { mostMachines: 0 })
  await t.throwsAsync(all.desk.nameBoot(other, 'a'), { code: 'unavailable' })
  t.deepEqual(await all.store.machines.list(), [])
})
