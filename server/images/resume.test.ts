// Imports that are interrupted: by the network, by a stop, by a kill, and going on from there.

import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { statSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { promisify } from 'node:util'

import test, { type ExecutionContext } from 'ava'

import { type Clock, systemClock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { onLines } from '#lib/process.ts'
import {
  changeManifest,
  makeFolder,
  makeImage,
  openImageStore,
  sha256,
  storedNames,
} from '#testing/image-folder.ts'
import { serveFolder } from '#testing/web-folder.ts'

const run = promisify(execFile)

/** Makes a tar, or a web server, of an image's folder, and says how it is called. */
type MakeSource = (t: ExecutionContext, folder: string) => Promise<string>

const tarred =
  (name: string, ...args: string[]): MakeSource =>
  async (t, folder) => {
    const file = join(makeFolder(t), name)
    await run('tar', ['-c', '-f', file, ...args.map((arg) => arg.replace('DIR', folder))])
    return file
  }

const BIG = Buffer.alloc(2_000_000, 'some root image ')
/** What a whole import of it moves, without the manifest. */
const BIG_BYTES = BIG.length + 'vmlinuzinitrd.imgipxe/snponly.efi'.length

for (const what of ['folder', 'tar'] as const) {
  test(`startImport() goes on where a connection was cut when the source is the URL of a ${what}`, async (t) => {
    const home = makeFolder(t)
    const store = await openImageStore(t, { home })
    const folder = makeImage(makeFolder(t), '1.0.0', { 'root.squashfs': BIG })
    const archive = await tarred('image.tar', '-C', 'DIR', '.')(t, folder)
    const web = await serveFolder(t, what === 'tar' ? dirname(archive) : folder)
    const big = what === 'tar' ? '/image.tar' : '/root.squashfs'
    web.onRequest = (path) => {
      if (path === big && web.asked.every((line) => !line.includes(big))) web.cutAfter(1_500_000)
    }
    t.is(await store.bring(`${web.url}/${what === 'tar' ? 'image.tar' : ''}`), '1.0.0')
    t.deepEqual(await store.verify('1.0.0'), [])
    const [first, second, ...more] = web.asked.filter((line) => line.includes(big))
    t.deepEqual([first, more], [`GET ${big}`, []])
    t.regex(second ?? '', /bytes=1\d{6}-$/) // what was on its way when the connection was cut may be lost
  })
}

test('startImport() takes a file anew when the server ignores ranges or has another one by now', async (t) => {
  for (const change of ['ranges', 'file'] as const) {
    const store = await openImageStore(t, { home: makeFolder(t) })
    const folder = makeImage(makeFolder(t), '1.0.0', { 'root.squashfs': Buffer.alloc(BIG.length) })
    if (change === 'ranges') makeImage(folder, '1.0.0', { 'root.squashfs': BIG })
    const web = await serveFolder(t, folder)
    let isFirst = true
    web.onRequest = (path) => {
      if (path !== '/root.squashfs') return
      if (isFirst) {
        isFirst = false
        web.cutAfter(1_500_000)
      } else if (change === 'ranges') web.ignoresRanges = true
      else writeFileSync(join(folder, 'root.squashfs'), BIG)
    }
    if (change === 'file') {
      changeManifest(folder, ({ files }) => ({
        files: files.map((file) => (file.name === 'root.squashfs' ? { ...file, sha256: sha256(BIG) } : file)),
      }))
    }
    t.is(await store.bring(`${web.url}/manifest.json`), '1.0.0', change)
    t.deepEqual(await store.verify('1.0.0'), [])
  }
})

test('startImport() of a later server fetches only what an interrupted one had not', async (t) => {
  const home = makeFolder(t)
  const folder = makeImage(makeFolder(t), '1.0.0', { 'root.squashfs': BIG })
  const web = await serveFolder(t, folder)
  const first = await openImageStore(t, { home })
  // The server is stopped while the second half is under way.
  web.onRequest = (path) => {
    if (path !== '/root.squashfs') return
    if (web.asked.includes('GET /root.squashfs')) void first.stop()
    else web.cutAfter(1_500_000)
  }
  const error = await t.throwsAsync(first.bring(`${web.url}/`), { instanceOf: KitError, code: 'unavailable' })
  t.regex(error.message, /the server was asked to stop/)
  t.is(storedNames(home, 'incoming').length, 1)
  t.deepEqual(storedNames(home, 'files'), [])
  const part = join(home, 'images/incoming', storedNames(home, 'incoming')[0] ?? '', `${sha256(BIG)}.part`)
  const have = statSync(part).size
  t.true(have > 1_000_000)
  const before = web.sentBytes()
  web.onRequest = () => {}
  const second = await openImageStore(t, { home })
  t.is(await second.bring(`${web.url}/`), '1.0.0')
  t.deepEqual(await second.verify('1.0.0'), [])
  const manifestBytes = statSync(join(folder, 'manifest.json')).size
  t.true(web.sentBytes() - before <= BIG_BYTES - have + manifestBytes, `${web.sentBytes() - before}`)
  t.deepEqual(storedNames(home, 'incoming'), [])
})

test('startImport() does not fetch what another version has brought', async (t) => {
  const store = await openImageStore(t, { home: makeFolder(t) })
  await store.bring(makeImage(makeFolder(t), '1.0.0', { 'root.squashfs': BIG }))
  const web = await serveFolder(
    t,
    makeImage(makeFolder(t), '1.1.0', { 'root.squashfs': BIG, vmlinuz: 'new' }),
  )
  t.is(await store.bring(`${web.url}/`), '1.1.0')
  t.deepEqual(web.asked, ['GET /manifest.json', 'GET /vmlinuz'])
  t.deepEqual(store.versions(), ['1.1.0', '1.0.0'])
})

test('startImport() gives up a server that goes away, and keeps what has come', async (t) => {
  const pauses: number[] = []
  const after: Clock['after'] = (delayMs, action) => {
    pauses.push(delayMs)
    return systemClock.after(0, action)
  }
  const store = await openImageStore(t, { home: makeFolder(t), clock: { ...systemClock, after } })
  const web = await serveFolder(t, makeImage(makeFolder(t), '1.0.0'))
  await web.stop()
  const error = await t.throwsAsync(store.bring(`${web.url}/`), { instanceOf: KitError, code: 'unavailable' })
  t.regex(error.message, /^Cannot fetch http:.*manifest\.json: connect ECONNREFUSED/)
  t.regex(error.fix ?? '', /goes on where it has stopped/)
  t.deepEqual(store.list(), [])
  t.deepEqual(pauses, [1000, 2000, 4000, 8000])
})

/** Where `#images/…` means the same for a program on the command line. */
const PROJECT = join(import.meta.dirname, '../..')

/** A server of its own, which tells how far its import is and is killed there. */
const CHILD = `
import { createImageStore } from '#images/store.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLog } from '#lib/log.ts'
const [home, source] = process.argv.slice(1)
const store = createImageStore({ directory: home + '/images', keysDirectory: home + '/keys', clock: systemClock,
  log: silentLog, events: { append: async (event) => ({ id: 1, atMs: 0, data: {}, ...event }) } })
await store.start()
const id = store.startImport(source)
for (let told = ''; ; await new Promise(setImmediate)) {
  const { state, text } = store.importProgress(id)
  if (text !== told) process.stdout.write((told = text) + '\\n')
  if (state !== 'running') break
}
await new Promise((resolve) => setTimeout(resolve, 10_000))
`

test('a server that is killed leaves whole images only, and the next one goes on', async (t) => {
  const home = makeFolder(t)
  const folder = makeImage(makeFolder(t), '1.0.0', { 'root.squashfs': BIG })
  const web = await serveFolder(t, folder)
  for (const at of [
    'vmlinuz',
    'root.squashfs',
    'cutting the image into chunks',
    'writing to the disk',
    'image 1.0.0',
  ]) {
    for (const source of [folder, `${web.url}/`]) {
      const args = ['--input-type=module', '--eval', CHILD, home, source]
      const child = spawn(process.execPath, args, { cwd: PROJECT, stdio: ['ignore', 'pipe', 'inherit'] })
      onLines(child.stdout, (line) => line === at && child.kill('SIGKILL'))
      const [, signal] = await once(child, 'exit')
      t.is(signal, 'SIGKILL', at)
      const store = await openImageStore(t, { home })
      for (const version of store.versions()) t.deepEqual(await store.verify(version), [], `${at} ${source}`)
      const stored = store
        .list()
        .flatMap(({ files }) => [...files.values()].map((file) => basename(file.file)))
      t.deepEqual(storedNames(home, 'files').toSorted(), [...new Set(stored)].sort())
      t.is(await store.bring(source), '1.0.0')
      t.deepEqual(await store.verify('1.0.0'), [])
      if (at !== 'image 1.0.0') await store.remove('1.0.0')
      await store.stop()
    }
  }
})
