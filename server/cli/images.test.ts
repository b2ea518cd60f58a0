// `kateskit image` against a served store: building, importing, and what of it a person sees.

import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'

import test, { type ExecutionContext } from 'ava'

import { parseMac } from '#lib/mac.ts'
import type { ImageView } from '#machine/release-ports.ts'
import { cli } from '#testing/cli-fixture.ts'
import { FakeReleases } from '#testing/fake-releases.ts'
import { startHttp } from '#testing/http-fixture.ts'
import { makeFolder, makeImage, openImageStore } from '#testing/image-folder.ts'
import { oneImage, openRegistry, tempFolder, writeFolder } from '#testing/oci-archive.ts'
import { serveFolder } from '#testing/web-folder.ts'

import { Interrupted } from './cli-io.ts'
import { renderImages } from './render-images.ts'
import { runCommandLine } from './run.ts'

async function withStore(t: ExecutionContext, signal = new AbortController().signal) {
  const store = await openImageStore(t, { home: makeFolder(t) })
  const releases = new FakeReleases()
  const registry = await openRegistry(t)
  const { socketFile } = await startHttp(t, { imageStore: store, releases, registry })
  return { store, releases, registry, ...cli({ KATESKIT_HTTP_CONTROL_SOCKET: socketFile }, { signal }) }
}

const viewOf = (version: string, more: Partial<ImageView> = {}): ImageView => ({
  ...{ version, arch: 'amd64', sizeBytes: 105_000_001, importedMs: 0, epoch: 3, channels: [], machines: [] },
  ...more,
})

test('image import brings in what is named, by a path of the person or a URL', async (t) => {
  const { store, run } = await withStore(t)
  const folder = makeImage(makeFolder(t), '1.0.0')
  t.like(await run('image', 'import', relative(process.cwd(), folder)), {
    code: 0,
    out: 'Image 1.0.0 is here\n',
  })
  const web = await serveFolder(t, makeImage(makeFolder(t), '2.0.0'))
  const { code, err } = await run('image', 'import', `${web.url}/manifest.json`)
  t.is(code, 0)
  t.regex(err, /^Importing the image …\n(.*\n)*Importing the image: done in \d+ s\n$/)
  t.deepEqual(store.versions(), ['2.0.0', '1.0.0'])
})

test('image import points a channel at the image', async (t) => {
  const { releases, run } = await withStore(t)
  const folder = makeImage(makeFolder(t), '1.0.0')
  releases.versions.push(viewOf('1.0.0'))
  const { code, out } = await run('image', 'import', folder, '--channel', 'beta')
  t.like({ code, out }, { code: 0, out: 'Image 1.0.0 is here, and beta points at it\n' })
  t.deepEqual(releases.calls, [['promote', '1.0.0', 'beta']])
})

test('image import tells why not, with the words of the server', async (t) => {
  const { run } = await withStore(t)
  const folder = makeImage(makeFolder(t), '1.0.0')
  rmSync(join(folder, 'vmlinuz'))
  const { code, err } = await run('image', 'import', folder)
  t.is(code, 1)
  t.regex(err, /error: Cannot import .*vmlinuz: it is missing\n$/)
})

test('image import leaves the import to the server when it is interrupted', async (t) => {
  const controller = new AbortController()
  const { store, run } = await withStore(t, controller.signal)
  const web = await serveFolder(t, makeImage(makeFolder(t), '1.0.0'))
  web.onRequest = () => controller.abort(new Interrupted('SIGINT'))
  const { code, err } = await run('image', 'import', `${web.url}/`)
  t.is(code, 130)
  t.regex(err, /The server goes on with the import/)
  await store.importDone(store.startImport(`${web.url}/`))
  t.deepEqual(store.versions(), ['1.0.0'])
})

test('image verify tells of every image, and fails when one is damaged', async (t) => {
  const { store, releases, run } = await withStore(t)
  for (const version of ['2.0.0', '1.0.0']) {
    await store.bring(makeImage(makeFolder(t), version, { vmlinuz: version }))
    releases.versions.push(viewOf(version))
  }
  t.like(await run('image', 'verify'), { code: 0, out: '2.0.0: whole\n1.0.0: whole\n' })
  const file = store.find('1.0.0')?.files.get('vmlinuz')?.file ?? ''
  chmodSync(file, 0o644)
  writeFileSync(file, '9.0.0')
  t.like(await run('image', 'verify', '2.0.0'), { code: 0, out: '2.0.0: whole\n' })
  const { code, out, err } = await run('image', 'verify')
  t.is(code, 1)
  t.is(out, '2.0.0: whole\n1.0.0: vmlinuz is damaged\n')
  t.regex(err, /error: Cannot vouch for 1\.0\.0: /)
  t.like(await run('image', 'verify', '3.0.0'), { code: 1 })
})

test('image remove asks the server, which knows who uses an image', async (t) => {
  const { releases, run } = await withStore(t)
  releases.versions.push(viewOf('1.0.0'))
  t.like(await run('image', 'remove', '1.0.0'), { code: 0, out: 'Image 1.0.0 is removed\n' })
  t.deepEqual(releases.calls, [['removeImage', '1.0.0']])
  t.like(await run('image', 'remove', '../1'), { code: 1 })
})

test('image list prints a table, or the JSON of the API', async (t) => {
  const { releases, run } = await withStore(t)
  t.regex((await run('image', 'list')).out, /^There is no image yet\. kateskit image build makes one\.\n$/)
  releases.versions.push(viewOf('1.0.0'))
  t.regex((await run('image', 'list')).out, /^VERSION .*\n1\.0\.0 +amd64 +106 MB +3 /)
  t.deepEqual(JSON.parse((await run('image', 'list', '--json')).out), { images: [viewOf('1.0.0')] })
})

test('renderImages() says who has an image and why it is in quarantine', (t) => {
  const mac = parseMac('52:54:00:12:34:56')
  const quarantine = { version: '1.1.0', mac, reason: 'kernel panic', sinceMs: 0 }
  const images = [
    viewOf('1.1.0', { quarantine, machines: [mac] }),
    viewOf('1.0.0', { channels: ['rc', 'stable'], importedMs: 60_000 }),
  ]
  t.deepEqual(renderImages(images, 120_000), [
    'VERSION  ARCH   SIZE    EPOCH  IMPORTED   CHANNELS    MACHINES  STATE',
    '1.1.0    amd64  106 MB  3      2 min ago  -           1         quarantined',
    '    failed on 52:54:00:12:34:56: kernel panic',
    '1.0.0    amd64  106 MB  3      60 s ago   rc, stable  0         -',
  ])
})

/** A checkout whose recipe takes no minutes. */
function makeCheckout(t: ExecutionContext, image: string): string {
  const project = makeFolder(t)
  writeScript(join(project, 'assets/image/build.sh'), [
    `echo "$@" "$KATESKIT_KUBERNETES_SOURCE" >"${project}/arguments"`,
    'echo "progress 50 half" >&3',
    `echo ${image}`,
  ])
  return project
}

function writeScript(file: string, lines: readonly string[]): void {
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, `#!/bin/sh\n${lines.join('\n')}\n`)
  chmodSync(file, 0o755)
}

test('image build runs the recipe and brings its image in', async (t) => {
  const { store, releases, io, printed } = await withStore(t)
  releases.versions.push(viewOf('1.4.2'))
  const project = makeCheckout(t, makeImage(makeFolder(t), '1.4.2'))
  const env = {
    ...{ ...io.env, PATH: process.env['PATH'], XDG_CACHE_HOME: join(project, 'cache') },
    KATESKIT_KUBERNETES_SOURCE: 'none',
  }
  const as = (userId: number) => ({ ...io, env, userId, projectFolder: project })
  const args = ['image', 'build', '--version', '1.4.2', '--add', 'extra', '--channel', 'nightly']
  t.is(await runCommandLine(args, as(1000)), 1)
  t.regex(printed.err, /must be run as root.*\n {2}fix: sudo kateskit image build/)
  t.is(await runCommandLine(args, as(0)), 0, printed.err)
  t.is(printed.out, 'Image 1.4.2 is here, and nightly points at it\n')
  t.is(
    readFileSync(join(project, 'arguments'), 'utf8'),
    `--version 1.4.2 --add ${join(process.cwd(), 'extra')} none\n`,
  )
  t.deepEqual(store.versions(), ['1.4.2'])
})

test('image build with Kubernetes brings its container images in first', async (t) => {
  const { store, registry, io, printed } = await withStore(t)
  const project = makeCheckout(t, makeImage(makeFolder(t), '1.4.2'))
  const made = tempFolder(t)
  const pause = 'registry.k8s.io/pause:3.9'
  const archive = relative(made, writeFolder(tempFolder(t), oneImage(pause, 'one')))
  const images = [{ reference: pause, file: archive }]
  writeFileSync(join(made, 'kubernetes.json'), JSON.stringify({ version: 'v1.33.1', images }))
  writeScript(join(project, 'assets/kubernetes/build.sh'), [`echo ${made}`])
  const env = {
    ...{ ...io.env, PATH: process.env['PATH'], XDG_CACHE_HOME: join(project, 'cache') },
    ...{ KATESKIT_KUBERNETES_SOURCE: 'directory', KATESKIT_KUBERNETES_DIRECTORY: made },
  }
  const as = { ...io, env, userId: 0, projectFolder: project }
  t.is(await runCommandLine(['image', 'build'], as), 0, printed.err)
  t.is(printed.out, `${pause} is here\nImage 1.4.2 is here\n`)
  t.is(readFileSync(join(project, 'arguments'), 'utf8'), 'directory\n')
  t.deepEqual(registry.names(), [pause])
  t.deepEqual(store.versions(), ['1.4.2'])
})
