// The image store over real folders, read by the programs that will read what it makes: signify and cpio.

import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'

import test, { type ExecutionContext } from 'ava'

import { type Clock, systemClock } from '#lib/clock.ts'
import { type Log, silentLog } from '#lib/log.ts'
import type { NewEvent } from '#machine/event.ts'
import type { SignedManifest } from '#machine/ports.ts'

import { createImageStore } from './store.ts'

const run = promisify(execFile)
const sha256 = (content: string | Buffer) => createHash('sha256').update(content).digest('hex')

const NAMES = ['vmlinuz', 'initrd.img', 'root.squashfs', 'ipxe/snponly.efi']

function makeFolder(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'kit-images-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** An image's folder; its files hold their own names where nothing else is given. */
function makeImage(
  folder: string,
  version: string,
  contents: Readonly<Record<string, string | Buffer>> = {},
): string {
  const files = Object.entries({ ...Object.fromEntries(NAMES.map((name) => [name, name])), ...contents })
  for (const [name, content] of files) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), content)
  }
  const listed = files.map(([name, content]) => ({
    name,
    sizeBytes: Buffer.byteLength(content),
    sha256: sha256(content),
  }))
  writeManifest(folder, { version, arch: 'amd64', files: listed })
  return folder
}

function writeManifest(folder: string, manifest: Readonly<Record<string, unknown>>): void {
  writeFileSync(join(folder, 'manifest.json'), JSON.stringify(manifest))
}

function changeManifest(folder: string, change: Readonly<Record<string, unknown>>): void {
  const file = join(folder, 'manifest.json')
  writeManifest(folder, { ...JSON.parse(readFileSync(file, 'utf8')), ...change })
}

interface StoreSetting {
  readonly home: string
  readonly importAtStart?: string
  readonly clock?: Clock
  readonly log?: Log
}

async function openStore(t: ExecutionContext, { home, ...options }: StoreSetting) {
  const events: NewEvent[] = []
  const store = createImageStore({
    directory: join(home, 'images'),
    keysDirectory: join(home, 'keys'),
    events: {
      append: async (event) => {
        events.push(event)
        return { id: events.length, atMs: 0, data: {}, ...event }
      },
    },
    clock: systemClock,
    log: silentLog,
    ...options,
  })
  await store.start()
  t.teardown(() => store.stop())
  return Object.assign(store, {
    events,
    kinds: () => events.map(({ kind }) => kind),
    /** An import, to its end. */
    bring: (source: string) => store.importDone(store.startImport(source)),
  })
}

type TestStore = Awaited<ReturnType<typeof openStore>>

const leftIn = (home: string) => readdirSync(join(home, 'images/incoming'))

/** What signify says of a manifest. */
async function signify(
  t: ExecutionContext,
  home: string,
  { text, signature }: SignedManifest,
): Promise<string> {
  const folder = makeFolder(t)
  writeFileSync(join(folder, 'manifest'), text)
  writeFileSync(join(folder, 'manifest.sig'), signature)
  const key = join(home, 'keys/image-signing.pub')
  const { stdout } = await run('signify-openbsd', ['-V', '-p', key, '-m', 'manifest'], { cwd: folder })
  return stdout.trim()
}

function manifestOf(t: ExecutionContext, store: TestStore, version: string): SignedManifest {
  const manifest = store.manifest(version)
  if (manifest === undefined) throw t.fail(`no manifest of ${version}`)
  return manifest
}

test('startImport() brings in a folder, and everything a machine asks for is there', async (t) => {
  const home = makeFolder(t)
  const store = await openStore(t, { home })
  let changes = 0
  store.onChange(() => changes++)
  t.is(store.current(), undefined)
  t.is(await store.bring(makeImage(makeFolder(t), '0.1.0-aaaaaaaa')), '0.1.0-aaaaaaaa')

  const image = store.current()
  t.like(image, { version: '0.1.0-aaaaaaaa', arch: 'amd64', epoch: 0 })
  t.is(store.find('0.1.0-aaaaaaaa'), image)
  t.is(store.find('0.1.0'), undefined)
  t.deepEqual(
    [...(image?.files.keys() ?? [])],
    ['initrd.img', 'ipxe/snponly.efi', 'root.chunks', 'root.squashfs', 'vmlinuz'],
  )
  for (const { file, sizeBytes, sha256: digest } of image?.files.values() ?? []) {
    const content = readFileSync(file)
    t.is(content.length, sizeBytes)
    t.is(sha256(content), digest)
    t.is(file, join(home, 'images/files', digest))
    t.is(statSync(file).mode & 0o777, 0o444)
  }
  t.is(readFileSync(image?.files.get('root.chunks')?.file ?? '', 'utf8'), `13 ${sha256('root.squashfs')}\n`)
  t.deepEqual(leftIn(home), [])
  t.is(changes, 1)
  t.like(store.events[0], { kind: 'image-imported', data: { version: '0.1.0-aaaaaaaa' } })
})

test('manifest() is signed so that signify believes it, and names what machines get', async (t) => {
  const home = makeFolder(t)
  const store = await openStore(t, { home })
  const folder = makeImage(makeFolder(t), '1.0.0', { 'root.verity': 'hashes' })
  changeManifest(folder, { epoch: 3, rootHash: 'ab'.repeat(32) })
  await store.bring(folder)
  const manifest = manifestOf(t, store, '1.0.0')
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
  t.deepEqual(lines.slice(7), [
    ...files.map(({ name, sizeBytes, sha256 }) => `file ${name} ${sizeBytes} ${sha256}`),
    '',
  ])
  t.is(store.manifest('2.0.0'), undefined)
})

test('the key is made once, readable by nobody else, and its public half again when it is missing', async (t) => {
  const home = makeFolder(t)
  const [key, pub] = [join(home, 'keys/image-signing.key'), join(home, 'keys/image-signing.pub')]
  await openStore(t, { home })
  const [secret, open] = [readFileSync(key, 'utf8'), readFileSync(pub, 'utf8')]
  t.is(statSync(key).mode & 0o777, 0o600)
  t.regex(secret, /^-----BEGIN PRIVATE KEY-----/)
  t.regex(open, /^untrusted comment: [^\n]+\nRW[A-Za-z0-9+/]+=*\n$/)
  rmSync(pub)
  await openStore(t, { home })
  t.is(readFileSync(key, 'utf8'), secret)
  t.is(readFileSync(pub, 'utf8'), open)
  writeFileSync(key, 'no key')
  const error = await t.throwsAsync(openStore(t, { home }), { name: 'KitError' })
  t.regex(error?.message ?? '', /^Cannot use the signing key .*image-signing\.key: /)
  t.is(readFileSync(key, 'utf8'), 'no key')
})

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
    const [home, tree] = [makeFolder(t), makeFolder(t)]
    mkdirSync(join(tree, 'lib/kit'), { recursive: true })
    writeFileSync(join(tree, 'init'), '#!/bin/sh\n')
    const archive = join(makeFolder(t), 'initrd.zst')
    const pack = 'find . | cpio --quiet -o -H newc | zstd -q -o "$1"; truncate -s %4 "$1"'
    await run('sh', ['-ec', pack, 'sh', archive], { cwd: tree })
    const built = Buffer.concat([readFileSync(archive), Buffer.from(tail)])
    const store = await openStore(t, { home })
    await store.bring(makeImage(makeFolder(t), '1.0.0', { 'initrd.img': built }))
    const file = store.current()?.files.get('initrd.img')?.file ?? ''
    const start = Math.ceil(built.length / 4) * 4
    const served = readFileSync(file)
    t.deepEqual(served.subarray(0, built.length), built)
    t.is(served.length % 4, 0)
    t.is(served.subarray(start, start + 6).toString(), '070701')
    if (tail !== '') return
    const root = await unpackInitrd(t, file, start)
    t.is(readFileSync(join(root, 'init'), 'utf8'), '#!/bin/sh\n')
    const key = join(root, 'lib/kit/image-key.pub')
    t.is(readFileSync(key, 'utf8'), readFileSync(join(home, 'keys/image-signing.pub'), 'utf8'))
    t.is(statSync(key).mode & 0o777, 0o644)
  })
}
