// The image catalog over real folders with small made files.

import { createHash } from 'node:crypto'
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'

import { systemClock } from '#lib/clock.ts'
import { type Log, silentLog } from '#lib/log.ts'

import { createImageCatalog } from './catalog.ts'

const FILES = ['vmlinuz', 'initrd.img', 'root.squashfs', 'ipxe/snponly.efi']

function makeFolder(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'kit-images-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

function makeManifest(version: string, names: readonly string[] = FILES) {
  const files = names.map((name) => ({
    name,
    sizeBytes: name.length,
    sha256: createHash('sha256').update(name).digest('hex'),
  }))
  return {
    version,
    arch: 'amd64',
    recipeDigest: '0'.repeat(64),
    sourceDateEpoch: 1,
    kernel: '6.12',
    files,
    packages: [],
  }
}

/** An image whose files hold their own names. */
function makeImage(folder: string, version: string, builtSeconds = 1000): void {
  for (const name of FILES) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), name)
  }
  const manifest = join(folder, 'manifest.json')
  writeFileSync(manifest, JSON.stringify(makeManifest(version)))
  utimesSync(manifest, builtSeconds, builtSeconds)
}

test('createImageCatalog() finds the image when its folder is given', (t) => {
  const directory = makeFolder(t)
  makeImage(directory, '0.1.0-aaaaaaaa')
  const images = createImageCatalog({ directory, log: silentLog })
  const image = images.current()
  t.is(image?.version, '0.1.0-aaaaaaaa')
  t.is(image?.arch, 'amd64')
  t.deepEqual([...(image?.files.keys() ?? [])], FILES)
  t.deepEqual(image?.files.get('ipxe/snponly.efi'), {
    name: 'ipxe/snponly.efi',
    sizeBytes: 16,
    sha256: createHash('sha256').update('ipxe/snponly.efi').digest('hex'),
    file: join(directory, 'ipxe/snponly.efi'),
  })
  t.is(images.find('0.1.0-aaaaaaaa'), image)
  t.is(images.find('0.1.0'), undefined)
})

const newest: readonly [string, readonly [string, number][], string][] = [
  [
    'release numbers differ',
    [
      ['0.9.0-ffffffff', 9],
      ['0.10.0-aaaaaaaa', 1],
    ],
    '0.10.0-aaaaaaaa',
  ],
  [
    'a release number is longer',
    [
      ['1.0-aaaaaaaa', 9],
      ['1.0.1-aaaaaaaa', 1],
    ],
    '1.0.1-aaaaaaaa',
  ],
  [
    'builds of one release differ in age',
    [
      ['0.1.0-aaaaaaaa', 9],
      ['0.1.0-ffffffff', 1],
    ],
    '0.1.0-aaaaaaaa',
  ],
]
for (const [when, images, expected] of newest) {
  test(`current() is the newest when ${when}`, (t) => {
    const directory = makeFolder(t)
    for (const [version, built] of images) makeImage(join(directory, version), version, built)
    const catalog = createImageCatalog({ directory, log: silentLog })
    t.is(catalog.current()?.version, expected)
    for (const [version] of images) t.is(catalog.find(version)?.version, version)
  })
}

test('current() is undefined when the folder is missing or empty', (t) => {
  const directory = makeFolder(t)
  const warnings: string[] = []
  const log: Log = { ...silentLog, warn: (_fields, message) => warnings.push(message) }
  t.is(createImageCatalog({ directory, log }).current(), undefined)
  t.is(createImageCatalog({ directory: join(directory, 'none'), log }).current(), undefined)
  t.is(warnings.length, 2)
})

test('current() sees an image that was built meanwhile and passes over one still being written', (t) => {
  const directory = makeFolder(t)
  const images = createImageCatalog({ directory, log: silentLog })
  makeImage(join(directory, 'abc.new.x1y2z3'), '0.2.0-aaaaaaaa')
  utimesSync(directory, 1, 1)
  t.is(images.current(), undefined)
  renameSync(join(directory, 'abc.new.x1y2z3'), join(directory, 'abc'))
  t.is(images.current()?.version, '0.2.0-aaaaaaaa')
  rmSync(join(directory, 'abc'), { recursive: true })
  t.is(images.find('0.2.0-aaaaaaaa'), undefined)
})

test('current() sees an image that is copied file by file, and logs once what is missing on the way', (t) => {
  const [source, directory] = [makeFolder(t), makeFolder(t)]
  makeImage(source, '0.2.0-aaaaaaaa')
  let nowMs = Date.now()
  const logged: string[] = []
  const log: Log = {
    ...silentLog,
    error: (_fields, message) => logged.push(message.replace(/^.*\//, '')),
    info: (_fields, message) => logged.push(message),
  }
  const images = createImageCatalog({ directory, log, clock: { ...systemClock, nowMs: () => nowMs } })
  const copy = join(directory, 'copy')
  mkdirSync(join(copy, 'ipxe'), { recursive: true })
  t.is(images.current(), undefined)
  for (const name of ['initrd.img', 'ipxe/snponly.efi', 'manifest.json', 'root.squashfs']) {
    copyFileSync(join(source, name), join(copy, name))
    nowMs += 1000
    t.is(images.current(), undefined, name)
  }
  writeFileSync(join(copy, 'vmlinuz'), 'vm')
  nowMs += 1000
  t.is(images.current(), undefined)
  // The last bytes change no folder.
  writeFileSync(join(copy, 'vmlinuz'), 'vmlinuz')
  nowMs += 1000
  t.is(images.current()?.version, '0.2.0-aaaaaaaa')
  t.is(images.find('0.2.0-aaaaaaaa')?.files.size, FILES.length)
  t.deepEqual(logged, [
    'vmlinuz is missing',
    'vmlinuz has 2 bytes, not the 7 of its manifest',
    'machines get image 0.2.0-aaaaaaaa',
  ])
})

test('current() looks again after a change that another may have followed within the same tick', (t) => {
  const directory = makeFolder(t)
  let nowMs = Date.now()
  const images = createImageCatalog({
    directory,
    log: silentLog,
    clock: { ...systemClock, nowMs: () => nowMs },
  })
  const { atime, mtime } = statSync(directory)
  makeImage(join(directory, 'abc'), '0.2.0-aaaaaaaa')
  utimesSync(join(directory, 'abc'), atime, mtime)
  utimesSync(directory, atime, mtime)
  images.current()
  nowMs += 1000
  t.is(images.current()?.version, '0.2.0-aaaaaaaa')
})

const withFile = (name: string) => JSON.stringify(makeManifest('0.1.0-bbbbbbbb', [...FILES, name]))

const broken: readonly [string, (folder: string) => void, RegExp][] = [
  ['a file is missing', (folder) => rmSync(join(folder, 'initrd.img')), /initrd\.img is missing/],
  [
    'a file is cut short',
    (folder) => truncateSync(join(folder, 'vmlinuz'), 3),
    /vmlinuz has 3 bytes, not the 7/,
  ],
  [
    'the manifest is no JSON',
    (folder) => writeFileSync(join(folder, 'manifest.json'), '{'),
    /manifest\.json: /,
  ],
  [
    'the manifest is of another shape',
    (folder) => writeFileSync(join(folder, 'manifest.json'), '[]'),
    /manifest: /,
  ],
  [
    'a name leads out of the folder',
    (folder) => writeFileSync(join(folder, 'manifest.json'), withFile('../manifest.json')),
    /files\.4\.name/,
  ],
  [
    'a name is absolute',
    (folder) => writeFileSync(join(folder, 'manifest.json'), withFile('/etc/passwd')),
    /files\.4\.name/,
  ],
  [
    'the kernel is not named',
    (folder) =>
      writeFileSync(join(folder, 'manifest.json'), JSON.stringify(makeManifest('1', FILES.slice(1)))),
    /it names no vmlinuz/,
  ],
]
for (const [when, spoil, expected] of broken) {
  test(`reload() says why and keeps the other images when ${when}`, (t) => {
    const directory = makeFolder(t)
    makeImage(join(directory, 'good'), '0.1.0-aaaaaaaa')
    makeImage(join(directory, 'bad'), '0.2.0-bbbbbbbb')
    spoil(join(directory, 'bad'))
    const images = createImageCatalog({ directory, log: silentLog })
    const [problem] = images.reload()
    t.is(problem?.name, 'KitError')
    t.regex(problem?.message ?? '', expected)
    t.is(images.current()?.version, '0.1.0-aaaaaaaa')
  })
}
