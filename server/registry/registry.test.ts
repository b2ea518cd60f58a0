// The registry over its folder: what comes in, under which names, what goes, and what is left when something fails.

import { execFile } from 'node:child_process'
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'

import test from 'ava'

import { KitError } from '#lib/errors.ts'
import { silentLog } from '#lib/log.ts'
import {
  digestOf,
  dockerSaved,
  Layout,
  oneImage,
  openRegistry,
  tempFolder,
  writeFolder,
  writeTar,
} from '#testing/oci-archive.ts'
import { serveFolder } from '#testing/web-folder.ts'

const run = promisify(execFile)
const PAUSE = 'registry.k8s.io/pause:3.9'

for (const name of ['x.tar', 'x.tar.gz', 'x.tar.zst']) {
  test(`startImport() takes an OCI layout out of ${name}`, async (t) => {
    const registry = await openRegistry(t)
    const file = await writeTar(tempFolder(t), name, oneImage(PAUSE, 'one', 'two'))
    t.deepEqual(await registry.bring(file), [PAUSE])
    t.like(registry.list()[0], { reference: PAUSE, platforms: ['linux/amd64'] })
    t.is(registry.stored('blobs').length, 4)
    t.deepEqual(registry.stored('incoming'), [])
    t.deepEqual(await registry.verify(), [{ reference: PAUSE, problems: [] }])
  })

  test(`startImport() takes what docker save wrote out of ${name}`, async (t) => {
    const registry = await openRegistry(t)
    const saved = dockerSaved(
      { tags: ['nginx:1.25', 'nginx'], layers: ['base', 'nginx'] },
      {
        tags: ['localhost:5000/a/b:v1'],
        layers: ['base', gzipSync('zipped')],
        diffIds: [digestOf('base'), digestOf('zipped')],
      },
    )
    t.deepEqual(await registry.bring(await writeTar(tempFolder(t), name, saved)), [
      'docker.io/library/nginx:1.25',
      'docker.io/library/nginx:latest',
      'localhost:5000/a/b:v1',
    ])
    // Two manifests, two configs, three layers.
    t.is(registry.stored('blobs').length, 7)
    t.deepEqual(
      registry.list().map(({ platforms }) => platforms),
      [['linux/amd64'], ['linux/amd64'], ['linux/amd64']],
    )
  })
}

test('startImport() takes a folder, and a tar of one with its name before every file', async (t) => {
  const registry = await openRegistry(t)
  const folder = join(tempFolder(t), 'layout')
  t.deepEqual(await registry.bring(writeFolder(folder, oneImage(PAUSE, 'one'))), [PAUSE])
  const file = join(tempFolder(t), 'x.tar')
  await run('tar', ['-cf', file, '-C', join(folder, '..'), 'layout'])
  t.deepEqual(await registry.bring(file), [PAUSE])
  t.is(registry.stored('blobs').length, 3)
})

test('startImport() fetches a URL, and goes on where it was cut', async (t) => {
  const registry = await openRegistry(t)
  const folder = tempFolder(t)
  await writeTar(folder, 'x.tar', oneImage(PAUSE, 'x'.repeat(500_000)))
  const web = await serveFolder(t, folder)
  web.cutAfter(200_000)
  t.deepEqual(await registry.bring(`${web.url}/x.tar`), [PAUSE])
  t.is(web.asked.length, 2)
  t.deepEqual(registry.stored('incoming'), [])
})

test('startImport() keeps of a multi-platform image what is there, and adds what comes later', async (t) => {
  const make = () => {
    const layout = new Layout()
    const images = { amd64: layout.image(['a'], 'amd64'), arm64: layout.image(['b'], 'arm64') }
    const index = layout.index(images)
    return { layout, images, index }
  }
  const registry = await openRegistry(t)
  const bring = async (without: 'amd64' | 'arm64') => {
    const { layout, images, index } = make()
    layout.without(images[without])
    await registry.bring(writeFolder(tempFolder(t), layout.name(index, PAUSE).build()))
  }
  await bring('arm64')
  t.deepEqual(registry.list()[0]?.platforms, ['linux/amd64'])
  await bring('amd64')
  t.deepEqual(registry.list()[0]?.platforms, ['linux/amd64', 'linux/arm64'])
  const { layout, images, index } = make()
  layout.without(images.amd64).without(images.arm64).name(index, PAUSE)
  await t.throwsAsync(registry.bring(writeFolder(tempFolder(t), layout.build())), { message: /is missing/ })
})

const NAMES: Record<
  string,
  [names: (string | undefined)[], asked: string | undefined, expected: string[] | RegExp]
> = {
  'a whole name': [['registry.k8s.io/pause:3.9'], undefined, ['registry.k8s.io/pause:3.9']],
  'a short one': [['busybox:1'], undefined, ['docker.io/library/busybox:1']],
  'a tag only': [['3.9'], undefined, /have no names/],
  'a tag, and whose it is': [['3.9'], 'registry.k8s.io/pause', ['registry.k8s.io/pause:3.9']],
  'two tags of one': [['1', '2'], 'example.com/x', ['example.com/x:1', 'example.com/x:2']],
  'no name': [[undefined], undefined, /have no names/],
  'no name, and one asked for': [[undefined], 'quay.io/a/b', ['quay.io/a/b:latest']],
  'another name': [['registry.k8s.io/pause:3.9'], 'my.host:5000/p:1', ['my.host:5000/p:1']],
  'one name for two': [['a:1', 'b:2'], 'quay.io/c:1', /several images/],
  'one that was named beside one that was not': [['a:1', undefined], undefined, ['docker.io/library/a:1']],
  'two of one name': [['a:1', 'a:1'], undefined, /two images that are called/],
  'a name that is none': [[undefined], '../../etc/passwd', /Cannot use ".*" as the name/],
  'another digest': [[undefined], `quay.io/c@sha256:${'0'.repeat(64)}`, /is sha256:.*, not sha256:0/],
}

for (const [what, [names, asked, expected]] of Object.entries(NAMES)) {
  test(`startImport() of ${what}`, async (t) => {
    const registry = await openRegistry(t)
    const layout = new Layout()
    for (const [index, name] of names.entries()) layout.name(layout.image([`layer ${index}`]), name)
    const work = registry.bring(writeFolder(tempFolder(t), layout.build()), asked)
    if (Array.isArray(expected)) t.deepEqual(await work, expected)
    else {
      await t.throwsAsync(work, { instanceOf: KitError, code: 'invalid-input', message: expected })
      t.deepEqual(
        [registry.stored('blobs'), registry.stored('references'), registry.stored('incoming')],
        [[], [], []],
      )
    }
  })
}

test('startImport() by a digest keeps the image under it', async (t) => {
  const registry = await openRegistry(t)
  const layout = new Layout()
  const image = layout.image(['x'])
  const folder = writeFolder(tempFolder(t), layout.name(image).build())
  const name = `registry.k8s.io/pause@${image.digest}`
  t.deepEqual(await registry.bring(folder, name), [name])
  t.truthy(registry.repository('registry.k8s.io/pause')?.manifests.get(image.digest.slice(7)))
})

test('remove() takes away what nothing needs any more, and nothing else', async (t) => {
  const registry = await openRegistry(t)
  await registry.bring(writeFolder(tempFolder(t), oneImage('a.io/one:1', 'shared', 'one')))
  await registry.bring(writeFolder(tempFolder(t), oneImage('a.io/two:1', 'shared', 'two')))
  t.is(registry.stored('blobs').length, 6) // two manifests, one config, three layers
  await registry.remove('a.io/one:1')
  t.is(registry.stored('blobs').length, 4)
  t.deepEqual(await registry.verify(), [{ reference: 'a.io/two:1', problems: [] }])
  await t.throwsAsync(registry.remove('a.io/one:1'), { code: 'not-found' })
  await t.throwsAsync(registry.remove('::'), { code: 'invalid-input' })
  await registry.remove('a.io/two:1')
  t.deepEqual(registry.stored('blobs'), [])
})

test('a name that is imported again is what came last, and what it was before goes', async (t) => {
  const registry = await openRegistry(t)
  await registry.bring(writeFolder(tempFolder(t), oneImage(PAUSE, 'old')))
  const [old] = registry.list()
  await registry.bring(writeFolder(tempFolder(t), oneImage(PAUSE, 'new')))
  t.is(registry.list().length, 1)
  t.not(registry.list()[0]?.digest, old?.digest)
  t.is(registry.stored('blobs').length, 3)
})

test('a damaged blob is found by verify() or at start, is not served, and the next import mends it', async (t) => {
  const registry = await openRegistry(t)
  const source = writeFolder(tempFolder(t), oneImage(PAUSE, 'layer of some length'))
  await registry.bring(source)
  await registry.bring(writeFolder(tempFolder(t), oneImage('a.io/other:1', 'another')))
  const blob = join(registry.directory, 'blobs', digestOf('layer of some length'))
  chmodSync(blob, 0o644)
  writeFileSync(blob, 'layer of same length')
  const [other, damaged] = await registry.verify()
  t.like(other, { reference: 'a.io/other:1', problems: [] })
  t.regex(damaged?.problems.join() ?? '', /^blob sha256:[0-9a-f]{12}… is damaged$/)
  writeFileSync(blob, 'short')
  const again = await openRegistry(t, { directory: registry.directory })
  t.regex(again.list()[1]?.problem ?? '', /has 5 bytes, not the 20/)
  t.is(again.repository('registry.k8s.io/pause'), undefined)
  t.truthy(again.repository('a.io/other'))
  await again.bring(source)
  t.is(again.list()[1]?.problem, undefined)
  t.truthy(again.repository('registry.k8s.io/pause'))
  t.deepEqual((await again.verify(PAUSE))[0]?.problems, [])
})

test('a record that cannot be read keeps every blob, and the others are served', async (t) => {
  const registry = await openRegistry(t)
  await registry.bring(writeFolder(tempFolder(t), oneImage(PAUSE, 'one')))
  const [record = ''] = registry.stored('references')
  await registry.bring(writeFolder(tempFolder(t), oneImage('a.io/other:1', 'another')))
  writeFileSync(join(registry.directory, 'references', record), '{')
  const again = await openRegistry(t, { directory: registry.directory })
  t.deepEqual(again.names(), ['a.io/other:1'])
  t.is(again.stored('blobs').length, 5)
})

test('start() imports what a folder holds, once, and goes on after one that is broken', async (t) => {
  const [importFrom, directory] = [tempFolder(t), join(tempFolder(t), 'registry')]
  await writeTar(importFrom, 'a.tar', oneImage(PAUSE, 'one'))
  writeFileSync(join(importFrom, 'b.tar'), 'no tar')
  writeFolder(join(importFrom, 'layout'), oneImage('a.io/b:1', 'two'))
  writeFileSync(join(importFrom, 'README'), 'not an image')
  const errors: string[] = []
  const log = {
    debug() {},
    info() {},
    warn() {},
    error: (_fields: unknown, text: string) => void errors.push(text),
  }
  const registry = await openRegistry(t, { directory, importFrom, log })
  t.deepEqual(registry.names(), ['a.io/b:1', PAUSE])
  t.is(errors.length, 1)
  t.regex(errors[0] ?? '', /b\.tar: it is no whole tar archive/)
  const times = () => registry.stored('blobs').map((name) => statSync(join(directory, 'blobs', name)).ino)
  const before = times()
  await registry.remove('a.io/b:1')
  const again = await openRegistry(t, { directory, importFrom })
  t.deepEqual(again.names(), [PAUSE]) // neither anew, nor against the will of a person
  t.true(times().every((ino) => before.includes(ino)))
  await writeTar(importFrom, 'a.tar', oneImage(PAUSE, 'another one'))
  const third = await openRegistry(t, { directory, importFrom })
  t.not(third.list()[0]?.digest, again.list()[0]?.digest)
})

test('start() does without a folder to import from that is not there, and takes nothing away that is not its own', async (t) => {
  const directory = tempFolder(t)
  writeFolder(directory, oneImage(PAUSE, 'one')) // blobs/ of somebody else
  const errors: string[] = []
  const log = { ...silentLog, error: (_fields: unknown, text: string) => void errors.push(text) }
  const registry = await openRegistry(t, { directory, importFrom: join(directory, 'none'), log })
  t.regex(errors.join(), /^Cannot read .*none: ENOENT/)
  t.deepEqual(registry.stored('blobs'), ['sha256'])
  t.deepEqual(await registry.bring(directory), [PAUSE])
  t.is(registry.stored('blobs').length, 4)
})

test('start() says which folder cannot be used', async (t) => {
  const directory = join(tempFolder(t), 'file')
  writeFileSync(directory, '')
  await t.throwsAsync(openRegistry(t, { directory }), { code: 'unavailable', message: /registry's folder/ })
})

test('what skopeo and umoci make is taken, and is the same image', async (t) => {
  const [folder, registry] = [tempFolder(t), await openRegistry(t)]
  const layout = join(folder, 'layout')
  mkdirSync(join(folder, 'root'))
  await run('umoci', ['init', '--layout', layout])
  await run('umoci', ['new', '--image', `${layout}:v1`])
  writeFileSync(join(folder, 'hello'), 'hello world\n')
  await run('umoci', ['insert', '--image', `${layout}:v1`, join(folder, 'hello'), '/hello'])
  t.deepEqual(await registry.bring(layout, 'example.com/umoci'), ['example.com/umoci:v1'])
  const inspect = JSON.parse((await run('skopeo', ['inspect', `oci:${layout}:v1`])).stdout) as {
    Digest: string
  }
  t.is(registry.list()[0]?.digest, inspect.Digest)
  const archives = [
    `oci-archive:${folder}/a.tar:example.com/x:oci`,
    `docker-archive:${folder}/b.tar:example.com/x:docker`,
  ]
  for (const archive of archives)
    await run('skopeo', ['copy', '--insecure-policy', `oci:${layout}:v1`, archive])
  t.deepEqual(await registry.bring(join(folder, 'a.tar')), ['example.com/x:oci'])
  t.deepEqual(await registry.bring(join(folder, 'b.tar')), ['example.com/x:docker'])
  t.is(registry.list().find(({ reference }) => reference.endsWith(':oci'))?.digest, inspect.Digest)
  t.is(readFileSync(join(folder, 'hello'), 'utf8'), 'hello world\n')
})
