// The readers of archives, manifests and names, on whatever comes.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'

import test from 'ava'
import fc from 'fast-check'

import { KitError } from '#lib/errors.ts'
import { findReference, formatReference } from '#machine/image-reference.ts'
import {
  dockerSaved,
  type Files,
  INDEX,
  MANIFEST,
  oneImage,
  openRegistry,
  tempFolder,
  writeTar,
} from '#testing/oci-archive.ts'

import { describePlatform, parseContent, parseDockerArchive, parseLayoutIndex } from './oci-content.ts'

const PAUSE = 'registry.k8s.io/pause:3.9'
const saved = dockerSaved({ tags: ['a:1'], layers: ['one'] })

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
