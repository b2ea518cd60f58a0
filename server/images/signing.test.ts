// What machines believe: manifests and keys, read by the programs that will read them: signify and cpio.

import { execFile } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
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

const fileOf = (store: TestStore, name: string) => store.current()?.files.get(name)?.file ?? ''

/** What signify says of a manifest. */
async function signify(t: ExecutionContext, home: string, manifest: SignedManifest): Promise<string> {
  const folder = makeFolder(t)
  writeFileSync(join(folder, 'manifest'), manifest.text)
  writeFileSync(join(folder, 'manifest.sig'), manifest.signature)
  const key = join(home, 'keys/image-signing.pub')
  const { stdout } = await run('signify-openbsd', ['-V', '-p', key, '-m', 'manifest'], { cwd: folder })
  return stdout.trim()
}

test('manifest() is signed so that signify believes it, and names what machines get', async (t) => {
  const home = makeFolder(t)
  const store = await openImageStore(t, { home })
  const folder = makeImage(makeFolder(t), '1.0.0', { 'root.verity': 'hashes' })
  const kubernetes = { version: 'v1.33.4', cri: 'containerd', ociRuntime: 'runc' }
  changeManifest(folder, () => ({ epoch: 3, rootHash: 'ab'.repeat(32), kubernetes }))
  await store.bring(folder)
  const manifest = manifestOf(store, '1.0.0')
  t.is(store.find('1.0.0')?.kubernetes, 'v1.33.4')
  t.is(await signify(t, home, manifest), 'Signature Verified')
  await t.throwsAsync(signify(t, home, { ...manifest, text: `${manifest.text}\n` }))

  const lines = manifest.text.split('\n')
  const signed = Number(/^signed (\d+)$/m.exec(manifest.text)?.[1])
  t.true(Math.abs(signed - Date.now() / 1000) < 60)
  t.deepEqual(lines.slice(0, 8), [
    'kateskit-image 1',
    'version 1.0.0',
    'arch amd64',
    'epoch 3',
    `signed ${signed}`,
    `expires ${signed + 90 * 86_400}`,
    `root-hash ${'ab'.repeat(32)}`,
    'kubernetes v1.33.4',
  ])
  const files = [...(store.current()?.files.values() ?? [])]
  const listed = files.map((file) => `file ${file.name} ${file.sizeBytes} ${file.sha256}`)
  t.deepEqual(lines.slice(8), [...listed, ''])
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
        t.deepEqual(manifestOf(store, '1.0.0'), manifestOf(store, '1.0.0'))
        t.regex(text, new RegExp(`^signed ${startMs / 1000 + signedDay * 86_400}$`, 'm'), `${day}`)
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
  const initrd = readFileSync(fileOf(second, 'initrd.img'))
  t.is(readFileSync(fileOf(second, 'initrd.chunks'), 'utf8'), `${initrd.length} ${sha256(initrd)}\n`)
  t.is(storedNames(home, 'files').length, 7)
  t.deepEqual(storedNames(home, 'incoming'), [])
})
