// The image store over real folders: what it keeps, in which order, and what a start makes of what it finds.

import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'

import test from 'ava'

import { type Clock, systemClock } from '#lib/clock.ts'
import { type Log, silentLog } from '#lib/log.ts'
import {
  makeFolder,
  makeImage,
  openImageStore,
  sha256,
  storedNames,
  type TestStore,
} from '#testing/image-folder.ts'

const DAY_MS = 86_400_000

test('startImport() brings in a folder, and everything a machine asks for is there', async (t) => {
  const home = makeFolder(t)
  const store = await openImageStore(t, { home })
  let changes = 0
  store.onChange(() => changes++)
  t.is(store.current(), undefined)
  t.is(await store.bring(makeImage(makeFolder(t), '0.1.0-aaaaaaaa')), '0.1.0-aaaaaaaa')

  const [image] = store.list()
  t.like(image, { version: '0.1.0-aaaaaaaa', arch: 'amd64', epoch: 0 })
  t.is(store.find('0.1.0-aaaaaaaa'), image)
  t.is(store.current()?.version, image?.version)
  t.is(store.find('0.1.0'), undefined)
  const names = ['initrd.chunks', 'initrd.img', 'ipxe/snponly.efi', 'root.chunks', 'root.squashfs', 'vmlinuz']
  t.deepEqual([...(image?.files.keys() ?? [])], names)
  for (const { file, sizeBytes, sha256: digest } of image?.files.values() ?? []) {
    const content = readFileSync(file)
    t.is(content.length, sizeBytes)
    t.is(sha256(content), digest)
    t.is(file, join(home, 'images/files', digest))
    t.is(statSync(file).mode & 0o777, 0o444)
  }
  t.is(contentOf(store, 'root.chunks'), `13 ${sha256('root.squashfs')}\n`)
  // Of what is served, not of what was built: the key is in it.
  const initrd = readFileSync(fileOf(store, 'initrd.img'))
  t.is(contentOf(store, 'initrd.chunks'), `${initrd.length} ${sha256(initrd)}\n`)
  t.deepEqual(storedNames(home, 'incoming'), [])
  t.is(changes, 1)
  t.like(store.events[0], { kind: 'image-imported', data: { version: '0.1.0-aaaaaaaa' } })
})

const fileOf = (store: TestStore, name: string) => store.current()?.files.get(name)?.file ?? ''
const contentOf = (store: TestStore, name: string) => readFileSync(fileOf(store, name), 'utf8')

const ORDERS: readonly [string, readonly string[], readonly string[]][] = [
  ['release numbers differ', ['0.10.0-aaaaaaaa', '0.9.0-ffffffff'], ['0.10.0-aaaaaaaa', '0.9.0-ffffffff']],
  ['a release number is longer', ['1.0.1-aaaaaaaa', '1.0-aaaaaaaa'], ['1.0.1-aaaaaaaa', '1.0-aaaaaaaa']],
  [
    'builds of one release came one after another',
    ['0.1.0-ffffffff', '0.1.0-aaaaaaaa'],
    ['0.1.0-aaaaaaaa', '0.1.0-ffffffff'],
  ],
]
for (const [when, imported, expected] of ORDERS) {
  test(`list() has the newest first when ${when}`, async (t) => {
    const home = makeFolder(t)
    let nowMs = 1000
    const clock: Clock = { ...systemClock, nowMs: () => nowMs }
    const store = await openImageStore(t, { home, clock })
    for (const version of imported) {
      nowMs += 1000
      await store.bring(makeImage(makeFolder(t), version))
    }
    t.deepEqual(store.versions(), expected)
    t.is(store.current()?.version, expected[0])
    t.deepEqual((await openImageStore(t, { home, clock })).versions(), expected)
  })
}

test('remove() deletes what no other version has, and who reads a file reads on', async (t) => {
  const home = makeFolder(t)
  const store = await openImageStore(t, { home })
  await store.bring(makeImage(makeFolder(t), '1.0.0'))
  await store.bring(makeImage(makeFolder(t), '2.0.0', { vmlinuz: 'new kernel' }))
  t.is(storedNames(home, 'files').length, 7)
  const file = fileOf(store, 'vmlinuz')
  const open = openSync(file, 'r')
  let changes = 0
  store.onChange(() => changes++)
  await store.remove('2.0.0')
  t.deepEqual([store.versions(), changes], [['1.0.0'], 1])
  t.is(store.manifest('2.0.0'), undefined)
  t.false(existsSync(file))
  t.is(readSync(open, Buffer.alloc(20)), 10)
  t.deepEqual(await store.verify('1.0.0'), [])
  t.deepEqual(storedNames(home, 'versions'), ['1.0.0.json'])
  t.is(store.kinds().at(-1), 'image-removed')
  await t.throwsAsync(store.remove('2.0.0'), { name: 'KitError', code: 'not-found' })
  await t.throwsAsync(store.verify('../1.0.0'), { name: 'KitError', code: 'not-found' })
  await store.remove('1.0.0', 'nobody uses it')
  t.is(store.events.at(-1)?.message, 'image 1.0.0 was removed: nobody uses it')
  t.deepEqual(storedNames(home, 'files'), [])
  t.deepEqual((await openImageStore(t, { home })).list(), [])
})

const DAMAGES: readonly [string, (file: string) => void, string][] = [
  ['a byte is another one', (file) => writeFileSync(file, 'VmlinuZ'), 'vmlinuz is damaged'],
  ['a file has lost its end', (file) => truncateSync(file, 2), 'vmlinuz is damaged'],
  ['a file is gone', (file) => rmSync(file), 'vmlinuz is missing'],
]
for (const [when, damage, problem] of DAMAGES) {
  test(`verify() says so when ${when}, and importing again mends it`, async (t) => {
    const home = makeFolder(t)
    const store = await openImageStore(t, { home })
    const source = makeImage(makeFolder(t), '1.0.0')
    await store.bring(source)
    const file = fileOf(store, 'vmlinuz')
    chmodSync(file, 0o644)
    damage(file)
    t.deepEqual(await store.verify('1.0.0'), [problem])
    t.like(store.events.at(-1), { kind: 'image-damaged', data: { version: '1.0.0', problems: problem } })
    t.is(await store.bring(source), '1.0.0')
    t.deepEqual(await store.verify('1.0.0'), [])
    t.is(readFileSync(file, 'utf8'), 'vmlinuz')
  })
}

test('start() passes over an image that is not whole, tells it, and keeps the others', async (t) => {
  const home = makeFolder(t)
  const first = await openImageStore(t, { home })
  const source = makeImage(makeFolder(t), '2.0.0', { vmlinuz: 'new kernel' })
  await first.bring(makeImage(makeFolder(t), '1.0.0'))
  await first.bring(source)
  rmSync(fileOf(first, 'vmlinuz'))
  const second = await openImageStore(t, { home })
  t.deepEqual([second.versions(), second.kinds()], [['1.0.0'], ['image-damaged']])
  t.is(second.manifest('2.0.0'), undefined)
  await second.bring(source)
  t.deepEqual(second.versions(), ['2.0.0', '1.0.0'])

  writeFileSync(join(home, 'images/versions/2.0.0.json'), '{')
  const before = storedNames(home, 'files')
  const third = await openImageStore(t, { home })
  t.deepEqual([third.versions(), third.kinds()], [['1.0.0'], ['image-damaged']])
  t.deepEqual(storedNames(home, 'files'), before)
  await third.bring(source)
  t.deepEqual(third.versions(), ['2.0.0', '1.0.0'])
  t.deepEqual(storedNames(home, 'files'), before)
})

test('start() removes what belongs to no image, and of interrupted imports what is older than a week', async (t) => {
  const home = makeFolder(t)
  await (await openImageStore(t, { home })).bring(makeImage(makeFolder(t), '1.0.0'))
  const before = storedNames(home, 'files')
  writeFileSync(join(home, 'images/files', '0'.repeat(64)), 'x')
  writeFileSync(join(home, 'images/versions/.tmp-0123456789abcdef'), '{')
  for (const [name, days] of [
    ['old', 8],
    ['young', 6],
  ] as const) {
    mkdirSync(join(home, 'images/incoming', name))
    const seconds = (Date.now() - days * DAY_MS) / 1000
    utimesSync(join(home, 'images/incoming', name), seconds, seconds)
  }
  t.deepEqual((await openImageStore(t, { home })).versions(), ['1.0.0'])
  t.deepEqual(storedNames(home, 'files'), before)
  t.deepEqual(storedNames(home, 'versions'), ['1.0.0.json'])
  t.deepEqual(storedNames(home, 'incoming'), ['young'])
})

test('start() imports the newest image of a folder of images, and passes over what is none', async (t) => {
  const [home, built] = [makeFolder(t), makeFolder(t)]
  makeImage(join(built, 'a'), '0.9.0')
  makeImage(join(built, 'b'), '0.10.0')
  makeImage(join(built, 'c.new.x1y2z3'), '0.11.0')
  makeImage(join(built, 'd'), '0.12.0')
  writeFileSync(join(built, 'd/manifest.json'), '{')
  const store = await openImageStore(t, { home, importAtStart: built })
  t.deepEqual(store.versions(), ['0.10.0'])
  const again = await openImageStore(t, { home, importAtStart: built })
  t.deepEqual([again.versions(), again.kinds()], [['0.10.0'], []])
})

test('named() is what images/import names, also when the store has newer ones, and nothing when it is not here', async (t) => {
  const home = makeFolder(t)
  const store = await openImageStore(t, { home })
  t.is(store.named(), undefined)
  await store.bring(makeImage(makeFolder(t), '2.0.0'))
  const built = makeImage(makeFolder(t), '1.0.0')
  for (const when of ['it comes', 'it is here already']) {
    const again = await openImageStore(t, { home, importAtStart: built })
    t.is(again.named()?.version, '1.0.0', when)
    t.is(again.current()?.version, '2.0.0')
  }
  const broken = makeImage(makeFolder(t), '3.0.0', { vmlinuz: 'of its own' })
  rmSync(join(broken, 'vmlinuz'))
  t.is((await openImageStore(t, { home, importAtStart: broken })).named(), undefined)
})

test('start() starts without the image it cannot import', async (t) => {
  const [home, built] = [makeFolder(t), makeImage(makeFolder(t), '1.0.0')]
  appendFileSync(join(built, 'vmlinuz'), 'x')
  const told: string[] = []
  const log: Log = { ...silentLog, error: (_fields, message) => told.push(message) }
  const store = await openImageStore(t, { home, importAtStart: built, log })
  t.deepEqual(store.list(), [])
  t.regex(told.join(), /vmlinuz: it has 8 bytes, not the 7/)
  t.deepEqual((await openImageStore(t, { home, importAtStart: join(home, 'none') })).list(), [])
})

test('start() makes an older build of a release the newest when it is named again', async (t) => {
  const home = makeFolder(t)
  const [first, second] = [makeImage(makeFolder(t), '0.1.0-a'), makeImage(makeFolder(t), '0.1.0-b')]
  const current = async (importAtStart: string) =>
    (await openImageStore(t, { home, importAtStart })).current()?.version
  t.is(await current(first), '0.1.0-a')
  t.is(await current(second), '0.1.0-b')
  t.is(await current(first), '0.1.0-a')
  // What a person has imported since is not put behind by a restart.
  await (await openImageStore(t, { home })).bring(makeImage(makeFolder(t), '0.1.0-c'))
  t.is(await current(first), '0.1.0-c')
})
