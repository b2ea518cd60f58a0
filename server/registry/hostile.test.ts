// Archives of somebody who means harm, or of a disk that failed: refused with one clear error each, and nothing is left of them.

import { execFile } from 'node:child_process'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'

import test from 'ava'
import fc from 'fast-check'

import { KitError } from '#lib/errors.ts'
import { findReference, formatReference } from '#machine/image-reference.ts'
import {
  blobName,
  dockerSaved,
  type Files,
  INDEX,
  Layout,
  MANIFEST,
  oneImage,
  openRegistry,
  tempFolder,
  writeFolder,
  writeTar,
} from '#testing/oci-archive.ts'

import { describePlatform, parseContent, parseDockerArchive, parseLayoutIndex } from './oci-content.ts'

const run = promisify(execFile)
const PAUSE = 'registry.k8s.io/pause:3.9'

/** A layout to which something is done. */
function spoiled(spoil: (layout: Layout) => void): Files {
  const layout = new Layout()
  spoil(layout)
  return layout.build()
}

function withoutBlob(which: 'config' | 'layer'): Files {
  return spoiled((layout) => {
    const image = layout.image(['one'])
    const text = layout.files[blobName(image.digest)]?.toString() ?? ''
    const { config, layers } = JSON.parse(text) as {
      config: { digest: string }
      layers: { digest: string }[]
    }
    delete layout.files[blobName(which === 'config' ? config.digest : (layers[0]?.digest ?? ''))]
    layout.name(image, PAUSE)
  })
}

const saved = dockerSaved({ tags: ['a:1'], layers: ['one'] })
const savedManifest = (change: Record<string, unknown>) => {
  const [manifest] = JSON.parse(String(saved['manifest.json'])) as Record<string, unknown>[]
  return { ...saved, 'manifest.json': JSON.stringify([{ ...manifest, ...change }]) }
}
const [layerName = ''] = Object.keys(saved).filter((name) => name.endsWith('layer.tar'))
const [configName = ''] = Object.keys(saved).filter((name) => /^[0-9a-f]{64}\.json$/.test(name))

const HOSTILE: Record<string, [files: Files, message: RegExp]> = {
  'a path that climbs': [
    { ...oneImage(PAUSE, 'x'), '../../etc/cron.d/x': 'x' },
    /"\.\.\/\.\.\/etc.* leads out of it/,
  ],
  'a path that climbs in the middle': [{ 'blobs/../../x': 'x', ...oneImage(PAUSE, 'x') }, /leads out of it/],
  'an absolute path': [{ ...oneImage(PAUSE, 'x'), '/etc/x': 'x' }, /leads out of it/],
  'a link to a file of the server': [
    { ...oneImage(PAUSE, 'x'), 'blobs/sha256/x': { symlink: '/etc/shadow' } },
    /is a link that leads out of it/,
  ],
  'a link that climbs': [
    { ...oneImage(PAUSE, 'x'), 'blobs/x': { symlink: '../../etc/shadow' } },
    /is a link that/,
  ],
  'a hard link that climbs': [
    { ...oneImage(PAUSE, 'x'), 'blobs/x': { link: '../etc/shadow' } },
    /is a link that/,
  ],
  'links in a circle': [
    { 'index.json': { symlink: 'a' }, a: { symlink: 'index.json' }, 'x/index.json': '' },
    /JSON|circle/,
  ],
  'a layer that is a link in a circle': [
    { ...saved, [layerName]: { symlink: 'layer.tar' } },
    /go in circles/,
  ],
  'a wrong digest': [
    spoiled((layout) => {
      const image = layout.name(layout.image(['one']), PAUSE)
      const [name = ''] = Object.keys(image.files).filter((each) => image.files[each] === 'one')
      image.files[name] = 'two'
    }),
    /its blob sha256:[0-9a-f]{12}… is damaged/,
  ],
  'a wrong size': [
    spoiled((layout) => void layout.name({ ...layout.image(['one']), size: 17 }, PAUSE)),
    /bytes, not the 17 that were said/,
  ],
  'a missing layer': [withoutBlob('layer'), /its blob sha256:[0-9a-f]{12}… is missing/],
  'a missing config': [withoutBlob('config'), /its blob sha256:[0-9a-f]{12}… is missing/],
  'a missing manifest': [
    spoiled((layout) => {
      const image = layout.image(['one'])
      layout.without(image).name(image, PAUSE)
    }),
    /is missing/,
  ],
  'a huge manifest': [
    spoiled((layout) => {
      const image = layout.json({ schemaVersion: 2, padding: 'x'.repeat(5_000_000) }, MANIFEST)
      layout.name(image, PAUSE)
    }),
    /too many for a manifest/,
  ],
  'a huge index.json': [{ 'index.json': `[${' '.repeat(5_000_000)}]` }, /too many for a manifest/],
  'a manifest that is also an index': [
    spoiled((layout) => {
      const image = layout.image(['one'])
      const both = { ...JSON.parse(String(layout.files[blobName(image.digest)])), manifests: [] }
      layout.name(layout.json(both, MANIFEST), PAUSE)
    }),
    /neither an image nor an index/,
  ],
  'a manifest of another type than was said': [
    spoiled((layout) => void layout.name({ ...layout.image(['one']), mediaType: INDEX }, PAUSE)),
    /not application\/vnd\.oci\.image\.index/,
  ],
  'a media type that would end a header': [
    spoiled((layout) => {
      layout.name({ ...layout.image(['one']), mediaType: 'text/html\r\nX: y' }, PAUSE)
    }),
    /mediaType/,
  ],
  'a digest of another kind': [
    spoiled(
      (layout) => void layout.name({ ...layout.image(['one']), digest: `sha512:${'0'.repeat(128)}` }, PAUSE),
    ),
    /only sha256/,
  ],
  'a digest that is a path': [
    spoiled(
      (layout) => void layout.name({ ...layout.image(['one']), digest: 'sha256:../../../etc/passwd' }, PAUSE),
    ),
    /only sha256/,
  ],
  'indexes in indexes': [
    spoiled((layout) => {
      let index = layout.index({ amd64: layout.image(['one']) })
      for (let depth = 0; depth < 6; depth++) index = layout.index({ amd64: index })
      layout.name(index, PAUSE)
    }),
    /its indexes lie 5 deep/,
  ],
  'indexes that name each other a million times': [
    spoiled((layout) => {
      let index = layout.image(['one'])
      for (let depth = 0; depth < 3; depth++) {
        const manifests = Array.from({ length: 100 }, () => index)
        index = layout.json({ schemaVersion: 2, mediaType: INDEX, manifests }, INDEX)
      }
      layout.name(index, PAUSE)
    }),
    /more than 500 manifests/,
  ],
  'an index of nothing': [spoiled((layout) => void layout.name(layout.index({}), PAUSE)), /names no image/],
  'no image': [new Layout().build(), /it has no images/],
  'no archive of images': [{ 'README.md': 'hello' }, /no OCI image layout/],
  'an index.json that is no JSON': [{ 'index.json': '{' }, /it is not JSON/],
  'an index.json of another shape': [{ 'index.json': '[]' }, /Cannot use index\.json/],
  'a name that is none': [
    { ...savedManifest({ RepoTags: ['../../x'] }) },
    /Cannot use "..\/..\/x" as the name/,
  ],
  'a layer by a path': [savedManifest({ Layers: ['../../../etc/shadow'] }), /is missing in it/],
  'a layer more than the image has': [
    savedManifest({ Layers: [layerName, layerName] }),
    /2 layers, not the 1/,
  ],
  'a layer that is not the one of the image': [{ ...saved, [layerName]: 'two' }, /layer\.tar" is damaged/],
  'a compressed layer that is cut': [
    { ...saved, [layerName]: gzipSync('one').subarray(0, 12) },
    /layer\.tar" is damaged/,
  ],
  'a config that is not the one of its name': [
    { ...saved, [configName]: `${saved[configName]} ` },
    /\.json" is damaged/,
  ],
  'a manifest of skopeo dir': [{ 'manifest.json': '{"schemaVersion":2}' }, /Cannot use manifest\.json/],
}

for (const [what, [files, message]] of Object.entries(HOSTILE)) {
  test(`startImport() refuses ${what}`, async (t) => {
    const registry = await openRegistry(t)
    const sources = [await writeTar(tempFolder(t), 'x.tar.gz', files)]
    const isPlain = Object.entries(files).every(
      ([name, content]) =>
        !/\.\.|^\//.test(name) && (typeof content === 'string' || Buffer.isBuffer(content)),
    )
    if (isPlain) sources.push(writeFolder(tempFolder(t), files))
    for (const source of sources) {
      const error = await t.throwsAsync(registry.bring(source), {
        instanceOf: KitError,
        code: 'invalid-input',
      })
      if (source === sources[0] || what !== 'a layer by a path') t.regex(error.message, message)
      t.deepEqual(
        [registry.stored('blobs'), registry.stored('references'), registry.stored('incoming')],
        [[], [], []],
      )
    }
  })
}

test('startImport() refuses devices, and tars that end too early or are none', async (t) => {
  const registry = await openRegistry(t)
  const folder = tempFolder(t)
  const device = { name: 'null', type: 'character-device', devmajor: 1, devminor: 3 } as const
  const sources: [file: string, message: RegExp][] = [
    [await writeTar(folder, 'device.tar', oneImage(PAUSE, 'x'), [device]), /"null" is a character-device/],
  ]
  for (const name of ['whole.tar', 'whole.tar.gz', 'whole.tar.zst']) {
    const whole = readFileSync(await writeTar(folder, name, oneImage(PAUSE, 'x'.repeat(100_000))))
    const cut = join(folder, name.replace('whole', 'cut'))
    writeFileSync(cut, whole.subarray(0, name === 'whole.tar' ? 5_000 : whole.length - 20))
    sources.push([cut, /it is no whole tar archive|has no index\.json|is missing/])
  }
  writeFileSync(join(folder, 'empty'), '')
  writeFileSync(join(folder, 'noise'), Buffer.alloc(100_000, 'noise'))
  sources.push(
    [join(folder, 'empty'), /no OCI image layout/],
    [join(folder, 'noise'), /no whole tar archive/],
  )
  for (const [file, message] of sources) {
    await t.throwsAsync(registry.bring(file), { instanceOf: KitError, code: 'invalid-input', message }, file)
    t.deepEqual([registry.stored('blobs'), registry.stored('incoming')], [[], []], file)
  }
})

test('startImport() of a folder follows no link out of it, and waits for no pipe', async (t) => {
  const registry = await openRegistry(t)
  const folder = writeFolder(join(tempFolder(t), 'layout'), saved)
  const outside = join(folder, '../secret')
  writeFileSync(outside, 'one')
  await run('rm', [join(folder, layerName)])
  symlinkSync(outside, join(folder, layerName))
  await t.throwsAsync(registry.bring(folder), { code: 'invalid-input', message: /leads out of it/ })
  await run('rm', [join(folder, layerName)])
  await run('mkfifo', [join(folder, layerName)])
  await t.throwsAsync(registry.bring(folder), { code: 'invalid-input', message: /is no file/ })
  await run('rm', [join(folder, layerName)])
  mkdirSync(join(folder, layerName))
  await t.throwsAsync(registry.bring(folder), { code: 'invalid-input', message: /is no file/ })
  t.deepEqual([registry.stored('blobs'), registry.stored('incoming')], [[], []])
})

test('links inside of an archive are followed by name', async (t) => {
  const registry = await openRegistry(t)
  const twice = dockerSaved({ tags: ['a:1'], layers: ['one'] })
  const files = { ...twice, 'other/layer.tar': 'one', [layerName]: { symlink: '../other/layer.tar' } }
  t.deepEqual(await registry.bring(await writeTar(tempFolder(t), 'x.tar', files)), ['docker.io/library/a:1'])
  const layout = oneImage('b:1', 'one')
  const linked = { ...layout, 'first.json': layout['index.json'] ?? '', 'index.json': { link: 'first.json' } }
  const file = await writeTar(tempFolder(t), 'y.tar', linked)
  t.deepEqual(await registry.bring(file), ['docker.io/library/b:1'])
})

test('no archive by chance brings down the reader, leaves anything, or counts without its blobs', async (t) => {
  const registry = await openRegistry(t)
  const good = oneImage(PAUSE, 'one', 'two')
  const name = fc.constantFrom(
    ...Object.keys(good),
    ...Object.keys(saved),
    'x',
    './index.json',
    'a/index.json',
  )
  const content = fc.oneof(
    fc.constantFrom(...Object.values(good), ...Object.values(saved)),
    fc.json(),
    fc.record({ symlink: name }),
  )
  const files = fc.dictionary(name, content, { maxKeys: 8 }) as fc.Arbitrary<Files>
  const folder = tempFolder(t)
  await fc.assert(
    fc.asyncProperty(files, fc.constantFrom('f.tar', 'f.tar.gz'), async (some, file) => {
      await registry.bring(await writeTar(folder, file, some)).catch((error: unknown) => {
        t.true(error instanceof KitError && error.code === 'invalid-input', `${error}`)
      })
      t.deepEqual(registry.stored('incoming'), [])
    }),
    { numRuns: 60 },
  )
  for (const { problems } of await registry.verify()) t.deepEqual(problems, [])
})

test('a damaged tar by chance is refused or whole', async (t) => {
  const registry = await openRegistry(t)
  const folder = tempFolder(t)
  const whole = readFileSync(await writeTar(folder, 'x.tar', oneImage(PAUSE, 'one', 'two')))
  const spot = fc.record({ at: fc.nat(whole.length - 1), byte: fc.nat(255) })
  await fc.assert(
    fc.asyncProperty(
      fc.array(spot, { minLength: 1, maxLength: 5 }),
      fc.boolean(),
      async (spots, isZipped) => {
        const bytes = Buffer.from(isZipped ? gzipSync(whole) : whole)
        for (const { at, byte } of spots) bytes[at % bytes.length] = byte
        const file = join(folder, 'damaged')
        writeFileSync(file, bytes)
        await registry.bring(file).catch((error: unknown) => {
          t.true(error instanceof KitError && error.code === 'invalid-input', `${error}`)
        })
      },
    ),
    { numRuns: 100 },
  )
  for (const { problems } of await registry.verify()) t.deepEqual(problems, [])
})

test('the readers of manifests throw KitError and nothing else', (t) => {
  const descriptor = fc.record(
    {
      mediaType: fc.oneof(fc.constantFrom(MANIFEST, INDEX), fc.string()),
      digest: fc.oneof(fc.constant(`sha256:${'a'.repeat(64)}`), fc.string()),
      size: fc.oneof(fc.nat(), fc.double(), fc.string()),
      platform: fc.anything(),
    },
    { requiredKeys: [] },
  )
  const near = fc.record(
    {
      schemaVersion: fc.constantFrom(2, 1, '2'),
      mediaType: fc.oneof(fc.constantFrom(MANIFEST, INDEX), fc.string()),
      config: descriptor,
      layers: fc.array(descriptor),
      manifests: fc.array(descriptor),
    },
    { requiredKeys: [] },
  )
  const text = fc.oneof(
    near.map((value) => JSON.stringify(value)),
    fc.json(),
    fc.string(),
  )
  fc.assert(
    fc.property(text, (each) => {
      const bytes = Buffer.from(each)
      for (const read of [
        () => parseContent(bytes, MANIFEST, 'x'),
        () => parseLayoutIndex(bytes, 'x'),
        () => parseDockerArchive(bytes, 'x'),
      ]) {
        try {
          read()
        } catch (error) {
          if (!(error instanceof KitError)) throw error
        }
      }
    }),
    { numRuns: 500 },
  )
  t.is(describePlatform({ os: 'linux', architecture: 'arm', variant: 'v7' }), 'linux/arm/v7')
})

const REFERENCES: Record<string, string | undefined> = {
  nginx: 'docker.io/library/nginx',
  'nginx:1.25': 'docker.io/library/nginx:1.25',
  'bitnami/nginx': 'docker.io/bitnami/nginx',
  'index.docker.io/nginx': 'docker.io/library/nginx',
  'docker.io/library/nginx': 'docker.io/library/nginx',
  'localhost/x:1': 'localhost/x:1',
  'localhost:5000/x:1': 'localhost:5000/x:1',
  'Example.com/x': 'Example.com/x',
  'registry.k8s.io/coredns/coredns:v1.11.1': 'registry.k8s.io/coredns/coredns:v1.11.1',
  'a.io/b__c-d.e:A_b.c-d': 'a.io/b__c-d.e:A_b.c-d',
  [`a.io/b:1@sha256:${'0'.repeat(64)}`]: 'a.io/b:1',
  [`a.io/b@sha256:${'0'.repeat(64)}`]: `a.io/b@sha256:${'0'.repeat(64)}`,
  ...Object.fromEntries(
    [
      '',
      ':',
      '/',
      'a/',
      '/a',
      'A',
      'a.io/B',
      'a..b',
      'a.io//b',
      'a.io/../b',
      'a.io/b:',
      'a.io/b:.x',
      'a b',
      'a.io/b@x',
    ]
      .concat([
        'a.io/b:1:2',
        'a.io:99999999/b',
        `a.io/${'a'.repeat(300)}`,
        'a.io/b\n',
        'http://a.io/b',
        'a%2fb',
        '-a.io/b',
      ])
      .map((text) => [text, undefined]),
  ),
}

test('findReference() makes names canonical, and knows what is none', (t) => {
  for (const [text, expected] of Object.entries(REFERENCES)) {
    const found = findReference(text)
    t.is(found === undefined ? undefined : formatReference(found), expected, text)
  }
  fc.assert(
    fc.property(fc.string(), (text) => {
      const found = findReference(text)
      if (found === undefined) return
      const name = formatReference(found)
      t.is(formatReference(findReference(name) ?? { repository: '' }), name)
    }),
    { numRuns: 500 },
  )
})
