// Tests of the profile tree: real folders, real changes, and what stays in force when they are wrong.

import { mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import test from 'ava'

import { systemClock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { silentLog } from '#lib/log.ts'
import { type Mac, parseMac } from '#lib/mac.ts'
import type { NewEvent } from '#machine/event.ts'
import { createOverlays } from '#overlays/overlays.ts'
import { GOOD, mac, own, startTree } from '#testing/profile-tree.ts'

import { createProfileTree } from './tree.ts'

test('createProfileTree() reads the tree and tells nothing when all is well', async (t) => {
  const { tree, told, directory } = await startTree(t, {
    ...GOOD,
    'README.md': '# notes',
    'defaults/boot': 'live',
    'defaults/.hidden': '',
    'defaults/console~': 'a backup',
    'machines/02-4B-69-74-00-02/role': 'gpu',
    [`${own}/root/etc/motd`]: 'hello',
    [`${own}/root.attributes`]: '',
  })
  t.deepEqual(tree.problems(), [])
  t.deepEqual(told, [])
  t.deepEqual(tree.roles(), ['gpu', 'worker'])
  t.deepEqual(tree.machines(), [mac, parseMac('02:4b:69:74:00:02')])
  t.like(tree.profileFor(mac), {
    role: 'worker',
    channel: 'stable',
    layers: ['defaults', 'roles/worker', own],
  })
  t.is(tree.profileFor(parseMac('02:4b:69:74:00:02')).role, 'gpu')
  t.deepEqual(tree.rootsFor(mac), [
    { layer: 'defaults', directory: join(directory, 'defaults') },
    { layer: 'roles/worker', directory: join(directory, 'roles/worker') },
    { layer: own, directory: join(directory, own) },
  ])
  t.is(tree.explain(mac).find(({ key }) => key === 'role')?.source, join(directory, own, 'role'))
})

test('problems() lists everything that is wrong in the tree', async (t) => {
  const { tree, told, directory } = await startTree(t, {
    'role/worker/boot': 'live',
    'roles/Upper/boot': 'live',
    'defaults/bot': 'live',
    'defaults/boot': Uint8Array.of(0xc3, 0x28),
    'defaults/console': 'x'.repeat(70_000),
    'defaults/secret/key': 'the overlay tells of it',
    'defaults/secret.attributes': '/key delete',
    'defaults/files/etc/motd': 'x',
    'machines/laptop/role': 'worker',
    'machines/01-00-5e-00-00-01/role': 'worker',
    [`${own}/role`]: 'gone',
    'machines/02-4b-69-74-00-02/hostname': 'twin',
    'machines/02-4b-69-74-00-03/hostname': 'twin',
    'machines/02-4b-69-74-00-04/boot': 'live',
    'machines/02-4B-69-74-00-04/boot': 'hold',
  })
  const expected: readonly (readonly [string, string, RegExp])[] = [
    ['', 'role', /did you mean roles\?/],
    ['defaults', 'defaults/boot', /not UTF-8/],
    ['defaults', 'defaults/bot', /did you mean boot\?/],
    ['defaults', 'defaults/console', /too large: 70000/],
    ['defaults', 'defaults/files', /two folders, root\/ and secret\//],
    ['machines', 'machines/01-00-5e-00-00-01', /called by its MAC/],
    ['machines', 'machines/laptop', /called by its MAC/],
    [own, `${own}/role`, /there is no folder roles\/gone/],
    ['machines/02-4b-69-74-00-03', 'machines/02-4b-69-74-00-03/hostname', /twin twice/],
    ['machines/02-4b-69-74-00-04', 'machines/02-4b-69-74-00-04', /is the same machine/],
    ['roles', 'roles/Upper', /lower-case/],
  ]
  const found = tree.problems().toSorted((a, b) => (a.file < b.file ? -1 : 1))
  const wanted = expected.toSorted((a, b) => (join(directory, a[1]) < join(directory, b[1]) ? -1 : 1))
  t.deepEqual(
    found.map(({ layer, file }) => [layer, file]),
    wanted.map(([layer, file]) => [layer, join(directory, file)]),
  )
  for (const [index, [, , pattern]] of wanted.entries()) t.regex(found[index]?.message ?? '', pattern)
  t.deepEqual([...new Set(told.map(({ kind }) => kind))], ['profile-broken'])
  t.is(told.length, new Set(expected.map(([layer]) => layer)).size)
})

test('profileFor() is broken, and keeps the role, when a layer was never good', async (t) => {
  const { tree, next, write } = await startTree(t, { ...GOOD, 'roles/worker/boot': 'nonsense' })
  t.regex(tree.profileFor(mac).broken ?? '', /^roles\/worker is in error: Cannot use boot: "nonsense"/)
  t.is(tree.profileFor(mac).role, 'worker')
  const mended = next('profile-mended')
  await write({ 'roles/worker/boot': 'hold' })
  t.like(await mended, { data: { layer: 'roles/worker' } })
  t.is(tree.profileFor(mac).broken, undefined)
  t.is(tree.profileFor(mac).settings.get('boot')?.value, 'hold')
})

test('profileFor() keeps the last good layer while a file is broken', async (t) => {
  const { tree, next, write, told, directory } = await startTree(t, GOOD)
  const broken = next('profile-broken')
  await write({ 'roles/worker/boot': 'nonsense', 'roles/worker/console': 'ttyS1' })
  t.regex((await broken).message, /roles\/worker\/boot: Cannot use boot/)
  t.like(tree.profileFor(mac), { role: 'worker' })
  t.is(tree.profileFor(mac).broken, undefined)
  t.is(tree.profileFor(mac).settings.get('console')?.value, 'ttyS0')

  const changed = next('profile-changed')
  await rm(join(directory, 'roles/worker/boot'))
  t.regex((await changed).message, /^roles\/worker: console changed$/)
  t.is(tree.profileFor(mac).settings.get('console')?.value, 'ttyS1')
  t.deepEqual(
    told.map(({ kind }) => kind),
    ['profile-broken', 'profile-mended', 'profile-changed'],
  )
})

test('profileFor() keeps the old role when the new one has no folder', async (t) => {
  const { tree, next, write } = await startTree(t, GOOD)
  const broken = next('profile-broken')
  await write({ [`${own}/role`]: 'gone' })
  t.like(await broken, { mac, data: { layer: own } })
  t.like(tree.profileFor(mac), { role: 'worker', layers: ['roles/worker', own] })
  const assigned = next('role-assigned')
  await write({ 'roles/gone/boot': 'hold' })
  t.like(await assigned, { mac, data: { role: 'gone' } })
  t.is(tree.profileFor(mac).settings.get('boot')?.value, 'hold')
})

test('profileFor() keeps a role whose folder is removed for as long as a machine has it', async (t) => {
  const { tree, next, write, directory } = await startTree(t, GOOD)
  const broken = next('profile-broken')
  await rm(join(directory, 'roles/worker'), { recursive: true })
  await broken
  t.is(tree.profileFor(mac).settings.get('console')?.value, 'ttyS0')
  t.deepEqual(tree.roles(), ['gpu'])
  const assigned = next('role-assigned')
  await write({ [`${own}/role`]: 'gpu' })
  await assigned
  t.deepEqual(tree.problems(), [])
})

test('profileFor() stays as it was when the tree vanishes or turns empty', async (t) => {
  const { tree, next, home, directory } = await startTree(t, GOOD)
  const before = tree.profileFor(mac)
  for (const isEmpty of [false, true]) {
    const broken = next('profile-broken')
    await rename(directory, join(home, 'away'))
    if (isEmpty) await mkdir(directory)
    t.like(await broken, { data: { layer: '' } })
    t.deepEqual(tree.profileFor(mac), before)
    await t.throwsAsync(tree.assignRole(mac, 'gpu'), { instanceOf: KitError, code: 'unavailable' })
    const mended = next('profile-mended')
    if (isEmpty) await rm(directory, { recursive: true })
    await rename(join(home, 'away'), directory)
    await mended
    t.deepEqual(tree.profileFor(mac), before)
  }
})

test('profileFor() follows links in the tree and none out of it', async (t) => {
  const { tree, next, home, directory, write } = await startTree(t, GOOD)
  await writeFile(join(home, 'outside'), 'hold')
  const broken = next('profile-broken')
  await symlink('../../../outside', join(directory, own, 'boot'))
  t.regex((await broken).message, /boot: it is a link out of the profile tree/)
  const mended = next('profile-mended')
  await rm(join(directory, own, 'boot'))
  await symlink('../../roles/gpu/boot', join(directory, own, 'boot'))
  await mended
  t.is(tree.profileFor(mac).settings.get('boot')?.value, 'hold')
  const linked = next('role-assigned')
  await symlink('gpu', join(directory, 'roles/alias'))
  await write({ [`${own}/role`]: 'alias' })
  await linked
  t.true(tree.roles().includes('alias'))
})

test('assignRole() writes the file and is in force when it resolves', async (t) => {
  const { tree, told, directory, write } = await startTree(t, { 'roles/worker/boot': 'hold' })
  await tree.assignRole(mac, 'worker')
  t.is(tree.profileFor(mac).role, 'worker')
  t.is(await readFile(join(directory, own, 'role'), 'utf8'), 'worker\n')
  t.deepEqual(
    told.filter(({ kind }) => kind === 'role-assigned').map((event) => event.mac),
    [mac],
  )
  await write({ 'roles/fresh/boot': 'hold', 'machines/02-4B-69-74-00-02/boot': 'hold' })
  await tree.assignRole(parseMac('02:4b:69:74:00:02'), 'fresh')
  t.is(await readFile(join(directory, 'machines/02-4B-69-74-00-02/role'), 'utf8'), 'fresh\n')
})

test('assignRole() refuses what would not come into force', async (t) => {
  const { tree, directory } = await startTree(t, { ...GOOD, 'machines/02-4b-69-74-00-02/boot': 'nonsense' })
  const other = parseMac('02:4b:69:74:00:02')
  const rows = [
    [mac, 'gone', 'not-found', /no such role/],
    [mac, '../defaults', 'invalid-input', /lower-case letters/],
    [mac, '', 'invalid-input', /no role/],
    [parseMac('ff:ff:ff:ff:ff:ff'), 'worker', 'invalid-input', /group address/],
    [other, 'worker', 'conflict', /machines\/02-4b-69-74-00-02\/boot: Cannot use boot/],
  ] as const
  for (const [target, role, code, message] of rows) {
    await t.throwsAsync(tree.assignRole(target, role), { instanceOf: KitError, code, message })
  }
  t.is(await readFile(join(directory, own, 'role'), 'utf8'), 'worker\n')
})

test('profileFor() keeps every machine when machines/ cannot be read', async (t) => {
  const { tree, next, home, directory, write } = await startTree(t, GOOD)
  await rename(join(directory, 'machines'), join(home, 'away'))
  const broken = next('profile-broken')
  await write({ machines: 'a file in the place of the folder' })
  t.regex((await broken).message, /Cannot read machines\/: ENOTDIR/)
  t.is(tree.profileFor(mac).role, 'worker')
})

test('the example tree in profiles/ is in order and gives the two machines of the lab different overlays', async (t) => {
  const home = await mkdtemp(join(tmpdir(), 'kit-example-'))
  const events = { append: async (event: NewEvent) => ({ ...event, id: 1, atMs: 0, data: {} }) }
  const directory = fileURLToPath(new URL('../../profiles', import.meta.url))
  const tree = createProfileTree({ directory, events, log: silentLog, clock: systemClock })
  t.teardown(async () => {
    await tree.stop()
    await rm(home, { recursive: true })
  })
  await tree.start()
  t.deepEqual(tree.problems(), [])
  const sources = { layersFor: (of: Mac) => tree.rootsFor(of) }
  const overlays = createOverlays({ directory: home, sources, events, log: silentLog })
  const rows = [
    [mac, 'control-plane', 'uefi', '/usr/local/bin/hello', '0755'],
    [parseMac('02:4b:69:74:00:02'), 'worker', 'bios', '/var/lib/worker', '0750'],
  ] as const
  for (const [machine, role, hostname, path, mode] of rows) {
    const { settings } = tree.profileFor(machine)
    t.is(settings.get('role')?.value, role)
    t.is(settings.get('hostname')?.value, hostname)
    const files = await overlays.explain(machine)
    t.is(files.find((file) => file.path === path)?.mode, mode)
    t.is(files.find((file) => file.path === '/etc/kit/role-hello')?.layer, `roles/${role}`)
    t.is(files.find((file) => file.path === '/etc/motd')?.layer, 'defaults')
  }
})
