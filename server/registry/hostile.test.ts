// Archives of somebody who means harm, or of a disk that failed: refused with one clear error each, and nothing is left of them.

import { execFile } from 'node:child_process'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'

import test from 'ava'

import { KitError } from '#lib/errors.ts'
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
