// The image store over real folders, read by the programs that will read what it makes: signify and cpio.

import { execFile } from 'node:child_process'
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
import { promisify } from 'node:util'

import test, { type ExecutionContext } from 'ava'

import { type Clock, systemClock } from '#lib/clock.ts'
import { type Log, silentLog } from '#lib/log.ts'
import type { SignedManifest } from '#machine/ports.ts'
import {
  changeManifest,
  makeFolder,
  makeImage,
  manifestOf,
  openImageStore,
  sha256,
  storedNames,
  type TestStore,
} from '#testing/image-folder.ts'

const run = promisify(execFile)

const DAY_MS = 86_400_000

/** What signify says of a manifest. */
async function signify(t: ExecutionContext, home: string, manifest: SignedManifest): Promise<string> {
  const folder = makeFolder(t)
  writeFileSync(join(folder, 'manifest'), manifest.text)
  writeFileSync(join(folder, 'manifest.sig'), manifest.signature)
  const key = join(home, 'keys/image-signing.pub')
  const { stdout } = await run('signify-openbsd', ['-V', '-p', key, '-m', 'manifest'], { cwd: folder })
  return stdout.trim()
}

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
  const names = ['initrd.img', 'ipxe/snponly.efi', 'root.chunks', 'root.squashfs', 'vmlinuz']
  t.deepEqual([...(image?.files.keys() ?? [])], names)
  for (const { file, sizeBytes, sha256: digest } of image?.files.values() ?? []) {
    const content = readFileSync(file)
    t.is(content.length, sizeBytes)
    t.is(sha256(content), digest)
    t.is(file, join(home, 'images/files', digest))
    t.is(statSync(file).mode & 0o777, 0o444)
  }
  t.is(contentOf(store, 'root.chunks'), `13 ${sha256('root.squashfs')}\n`)
  t.deepEqual(storedNames(home, 'incoming'), [])
  t.is(changes, 1)
  t.like(store.events[0], { kind: 'image-imported', data: { version: '0.1.0-aaaaaaaa' } })
})

const fileOf = (store: TestStore, name: string) => store.current()?.files.get(name)?.file ?? ''
const contentOf = (store: TestStore, name: string) => readFileSync(fileOf(store, name), 'utf8')

test('manifest() is signed so that signify believes it, and names what machines get', async (t) => {
  const home = makeFolder(t)
  const store = await openImageStore(t, { home })
  const folder = makeImage(makeFolder(t), '1.0.0', { 'root.verity': 'hashes' })
  changeManifest(folder, () => ({ epoch: 3, rootHash: 'ab'.repeat(32) }))
  await store.bring(folder)
  const manifest = manifestOf(store, '1.0.0')
  t.is(await signify(t, home, manifest), 'Signature Verified')
  await t.throwsAsync(signify(t, home, { ...manifest, text: `${manifest.text}\n` }))

  const lines = manifest.text.split('\n')
  const signed = Number(/^signed (\d+)$/m.exec(manifest.text)?.[1])
  t.true(Math.abs(signed - Date.now() / 1000) < 60)
  t.deepEqual(lines.slice(0, 7), [
    'kateskit-image 1',
    'version 1.0.0',
    'arch amd64',
    'epoch 3',
    `signed ${signed}`,
    `expires ${signed + 90 * 86_400}`,
    `root-hash ${'ab'.repeat(32)}`,
  ])
  const files = [...(store.current()?.files.values() ?? [])]
  const listed = files.map((file) => `file ${file.name} ${file.sizeBytes} ${file.sha256}`)
  t.deepEqual(lines.slice(7), [...listed, ''])
  t.is(store.manifest('2.0.0'), undefined)
})

/** Days since the first signing, by the server's clock; what the manifest is then signed with, in the same days. */
const SIGNINGS: readonly [string, readonly (readonly [number, number])[], number][] = [
  [
    'again when less than 30 of its 90 days are left',
    [
      [0, 0],
      [59, 0],
      [60, 0],
      [61, 61],
      [100, 61],
      [122, 122],
    ],
    0,
  ],
  [
    'with no earlier time when the clock is set back',
    [
      [100, 100],
      [0, 100],
      [99, 100],
      [120, 100],
      [161, 161],
    ],
    1,
  ],
  [
    'once more, and says so once, when the clock comes and goes',
    [
      [50, 50],
      [0, 50],
      [1, 50],
      [50, 50],
      [0, 50],
    ],
    2,
  ],
  [
    'with a time years ahead only for as long as it must',
    [
      [0, 0],
      [4000, 4000],
      [1, 4000],
    ],
    1,
  ],
]
for (const [how, days, warnings] of SIGNINGS) {
  for (const restarts of [false, true]) {
    test(`manifest() is signed ${how}${restarts ? ', also after a restart' : ''}`, async (t) => {
      const home = makeFolder(t)
      const startMs = Date.UTC(2026, 0, 1)
      let nowMs = startMs
      const clock: Clock = { ...systemClock, nowMs: () => nowMs }
      const warned: string[] = []
      const log: Log = { ...silentLog, warn: (_fields, message) => warned.push(message) }
      let store = await openImageStore(t, { home, clock, log })
      await store.bring(makeImage(makeFolder(t), '1.0.0'))
      for (const [day, signedDay] of days) {
        nowMs = startMs + day * DAY_MS
        if (restarts) {
          await store.stop()
          store = await openImageStore(t, { home, clock, log })
        }
        const { text } = manifestOf(store, '1.0.0')
        t.regex(
          text,
          restarts ? /./ : new RegExp(`^signed ${startMs / 1000 + signedDay * 86_400}$`, 'm'),
          `${day}`,
        )
        const expires = Number(/^expires (\d+)$/m.exec(text)?.[1]) * 1000
        t.true(expires >= startMs + (signedDay + 90) * DAY_MS, `${day}`)
        t.is(await signify(t, home, manifestOf(store, '1.0.0')), 'Signature Verified')
      }
      if (!restarts) t.is(warned.filter((line) => line.includes('clock')).length, warnings)
    })
  }
}

test('the key is made once, readable by nobody else, and its public half again when it is missing', async (t) => {
  const home = makeFolder(t)
  const [key, pub] = [join(home, 'keys/image-signing.key'), join(home, 'keys/image-signing.pub')]
  await openImageStore(t, { home })
  const [secret, open] = [readFileSync(key, 'utf8'), readFileSync(pub, 'utf8')]
  t.is(statSync(key).mode & 0o777, 0o600)
  t.regex(secret, /^-----BEGIN PRIVATE KEY-----/)
  t.regex(open, /^untrusted comment: [^\n]+\nRW[A-Za-z0-9+/]+=*\n$/)
  rmSync(pub)
  await openImageStore(t, { home })
  t.is(readFileSync(key, 'utf8'), secret)
  t.is(readFileSync(pub, 'utf8'), open)
  writeFileSync(key, 'no key')
  const error = await t.throwsAsync(openImageStore(t, { home }), { name: 'KitError' })
  t.regex(error?.message ?? '', /^Cannot use the signing key .*image-signing\.key: /)
  t.is(readFileSync(key, 'utf8'), 'no key')
})

/** A real initrd, as the recipe packs it. */
async function makeInitrd(t: ExecutionContext): Promise<Buffer> {
  const [tree, archive] = [makeFolder(t), join(makeFolder(t), 'initrd.zst')]
  mkdirSync(join(tree, 'lib/kit'), { recursive: true })
  writeFileSync(join(tree, 'init'), '#!/bin/sh\n')
  const pack = 'find . | cpio --quiet -o -H newc | zstd -q -o "$1"; truncate -s %4 "$1"'
  await run('sh', ['-ec', pack, 'sh', archive], { cwd: tree })
  return readFileSync(archive)
}

/** Both archives of an initrd, unpacked as the kernel does it: one after the other into the same folder. */
async function unpackInitrd(t: ExecutionContext, file: string, firstBytes: number): Promise<string> {
  const folder = makeFolder(t)
  const script =
    'head -c "$2" "$1" | zstd -dcq | cpio -i --quiet && tail -c +"$(($2 + 1))" "$1" | cpio -i --quiet'
  await run('sh', ['-ec', script, 'sh', file, String(firstBytes)], { cwd: folder })
  return folder
}

for (const tail of ['', 'x', 'xyz']) {
  test(`the served initrd holds the key when the built one is ${tail.length} bytes past a multiple of four`, async (t) => {
    const home = makeFolder(t)
    const built = Buffer.concat([await makeInitrd(t), Buffer.from(tail)])
    const store = await openImageStore(t, { home })
    await store.bring(makeImage(makeFolder(t), '1.0.0', { 'initrd.img': built }))
    const served = readFileSync(fileOf(store, 'initrd.img'))
    const start = Math.ceil(built.length / 4) * 4
    t.deepEqual(served.subarray(0, built.length), built)
    t.is(served.length % 4, 0)
    t.is(served.subarray(start, start + 6).toString(), '070701')
    if (tail !== '') return
    const root = await unpackInitrd(t, fileOf(store, 'initrd.img'), start)
    t.is(readFileSync(join(root, 'init'), 'utf8'), '#!/bin/sh\n')
    const key = join(root, 'lib/kit/image-key.pub')
    t.is(readFileSync(key, 'utf8'), readFileSync(join(home, 'keys/image-signing.pub'), 'utf8'))
    t.is(statSync(key).mode & 0o777, 0o644)
  })
}

test('a new key signs every image and lies in every initrd', async (t) => {
  const home = makeFolder(t)
  const built = await makeInitrd(t)
  const first = await openImageStore(t, { home })
  for (const version of ['1.0.0', '2.0.0']) {
    await first.bring(makeImage(makeFolder(t), version, { 'initrd.img': built, vmlinuz: version }))
  }
  const before = manifestOf(first, '1.0.0')
  rmSync(join(home, 'keys/image-signing.key'))
  const second = await openImageStore(t, { home })
  t.deepEqual(second.versions(), ['2.0.0', '1.0.0'])
  for (const version of second.versions()) {
    t.is(await signify(t, home, manifestOf(second, version)), 'Signature Verified')
    t.deepEqual(await second.verify(version), [])
  }
  await t.throwsAsync(signify(t, home, before))
  const root = await unpackInitrd(t, fileOf(second, 'initrd.img'), built.length)
  const key = readFileSync(join(root, 'lib/kit/image-key.pub'), 'utf8')
  t.is(key, readFileSync(join(home, 'keys/image-signing.pub'), 'utf8'))
  t.is(storedNames(home, 'files').length, 6)
  t.deepEqual(storedNames(home, 'incoming'), [])
})

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
  t.is(storedNames(home, 'files').length, 6)
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
  await store.remove('1.0.0')
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
