// Importing from folders, tars and web servers: what comes in, and what is refused; long for the table of refusals.

import { execFile } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { promisify } from 'node:util'

import test, { type ExecutionContext } from 'ava'

import { KitError } from '#lib/errors.ts'
import {
  changeManifest,
  IMAGE_FILES,
  makeFolder,
  makeImage,
  openImageStore,
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

const served =
  (path: string): MakeSource =>
  async (t, folder) =>
    `${(await serveFolder(t, folder)).url}${path}`

const servedTar: MakeSource = async (t, folder) => {
  const file = await tarred('image.tar.gz', '-z', '-C', 'DIR', '.')(t, folder)
  return `${(await serveFolder(t, dirname(file))).url}/image.tar.gz`
}

const given: MakeSource = async (_t, folder) => folder

const SOURCES: readonly [string, MakeSource][] = [
  ['a folder', given],
  ['a tar', tarred('image.tar', '-C', 'DIR', '.')],
  [
    'a tar whose names have no ./',
    tarred('image', '-C', 'DIR', 'vmlinuz', 'manifest.json', 'initrd.img', 'root.squashfs', 'ipxe'),
  ],
  [
    'a tar of the folder itself',
    async (t, folder) => tarred('x.tar', '-C', dirname(folder), basename(folder))(t, folder),
  ],
  ['a tar.gz', tarred('image.tar.gz', '-z', '-C', 'DIR', '.')],
  ['a tar.zst', tarred('image.tar.zst', '--zstd', '-C', 'DIR', '.')],
  ["a manifest's URL", served('/manifest.json')],
  ["a folder's URL", served('/')],
  ["a tar's URL", servedTar],
]
for (const [what, makeSource] of SOURCES) {
  test(`startImport() brings in the same image from ${what}`, async (t) => {
    const home = makeFolder(t)
    const store = await openImageStore(t, { home })
    const source = await makeSource(
      t,
      makeImage(makeFolder(t), '1.0.0', { 'root.squashfs': Buffer.alloc(300_000, 7) }),
    )
    const id = store.startImport(source)
    t.is(await store.importDone(id), '1.0.0')
    t.deepEqual(store.importProgress(id), {
      state: 'done',
      percent: 100,
      text: 'image 1.0.0',
      version: '1.0.0',
    })
    t.deepEqual(await store.verify('1.0.0'), [])
    t.deepEqual(
      [...(store.current()?.files.keys() ?? [])].sort(),
      [...IMAGE_FILES, 'initrd.chunks', 'root.chunks'].sort(),
    )
    t.is(storedNames(home, 'files').length, 6)
    t.deepEqual(storedNames(home, 'incoming'), [])
  })
}

interface Refusal {
  readonly when: string
  readonly spoil?: (folder: string) => void
  readonly makeSource?: MakeSource
  readonly code: string
  readonly message: RegExp
}

const addFile = (folder: string, name: string) =>
  changeManifest(folder, ({ files }) => ({
    files: [...files, { name, sizeBytes: 1, sha256: '0'.repeat(64) }],
  }))

const asTar: MakeSource = (t, folder) => tarred('x.tar', '-C', 'DIR', '.')(t, folder)

const REFUSALS: readonly Refusal[] = [
  {
    when: 'its Kubernetes has a version that would be two lines of the signed manifest',
    spoil: (folder) => changeManifest(folder, () => ({ kubernetes: { version: 'v1.20.2\nepoch 9' } })),
    code: 'invalid-input',
    message: /kubernetes\.version: /,
  },
  {
    when: 'a file is missing',
    spoil: (folder) => rmSync(join(folder, 'vmlinuz')),
    code: 'invalid-input',
    message: /vmlinuz: it is missing/,
  },
  {
    when: 'a file is short',
    spoil: (folder) => truncateSync(join(folder, 'vmlinuz'), 3),
    code: 'invalid-input',
    message: /vmlinuz: it has 3 bytes, not the 7/,
  },
  {
    when: 'a file is another one',
    spoil: (folder) => writeFileSync(join(folder, 'vmlinuz'), 'VMLINUZ'),
    code: 'invalid-input',
    message: /vmlinuz is damaged: its sha256 is [0-9a-f]{64}, not/,
  },
  {
    when: 'a file is a folder',
    spoil(folder) {
      rmSync(join(folder, 'vmlinuz'))
      mkdirSync(join(folder, 'vmlinuz'))
    },
    code: 'invalid-input',
    message: /vmlinuz: it is not a regular file/,
  },
  {
    when: 'there is no manifest',
    spoil: (folder) => rmSync(join(folder, 'manifest.json')),
    code: 'invalid-input',
    message: /manifest\.json: it is missing/,
  },
  {
    when: 'the manifest is no JSON',
    spoil: (folder) => writeFileSync(join(folder, 'manifest.json'), '{'),
    code: 'invalid-input',
    message: /^Cannot use the manifest of .*JSON/,
  },
  {
    when: 'the manifest is of another shape',
    spoil: (folder) => writeFileSync(join(folder, 'manifest.json'), '[]'),
    code: 'invalid-input',
    message: /manifest: /,
  },
  {
    when: 'a name leads out of the folder',
    spoil: (folder) => addFile(folder, '../x'),
    code: 'invalid-input',
    message: /files\.4\.name/,
  },
  {
    when: 'a name is absolute',
    spoil: (folder) => addFile(folder, '/etc/passwd'),
    code: 'invalid-input',
    message: /files\.4\.name/,
  },
  {
    when: 'a name is hidden',
    spoil: (folder) => addFile(folder, 'ipxe/.x'),
    code: 'invalid-input',
    message: /files\.4\.name/,
  },
  {
    when: 'a name is there twice',
    spoil: (folder) => addFile(folder, 'vmlinuz'),
    code: 'invalid-input',
    message: /it names vmlinuz twice/,
  },
  {
    when: 'the kernel is not named',
    spoil: (folder) => changeManifest(folder, ({ files }) => ({ files: files.slice(1) })),
    code: 'invalid-input',
    message: /it names no vmlinuz/,
  },
  {
    when: 'a root hash has no hash tree',
    spoil: (folder) => changeManifest(folder, () => ({ rootHash: '0'.repeat(64) })),
    code: 'invalid-input',
    message: /it names no root\.verity/,
  },
  {
    when: 'the architecture is unknown',
    spoil: (folder) => changeManifest(folder, () => ({ arch: 'x86_64' })),
    code: 'invalid-input',
    message: /arch: .*amd64/,
  },
  {
    when: 'the version leads elsewhere',
    spoil: (folder) => changeManifest(folder, () => ({ version: '../1' })),
    code: 'invalid-input',
    message: /version: /,
  },
  {
    when: 'it is larger than the disk',
    spoil: (folder) =>
      changeManifest(folder, ({ files }) => ({
        files: files.map((file) => (file.name === 'root.squashfs' ? { ...file, sizeBytes: 2 ** 50 } : file)),
      })),
    code: 'no-space',
    message: /1073741889 MiB are needed in .*images, \d+ MiB are free/,
  },
  {
    when: 'the source is a relative path',
    makeSource: async () => 'images/x',
    code: 'invalid-input',
    message: /it is neither an absolute path nor/,
  },
  {
    when: 'there is no such source',
    makeSource: async () => '/nowhere/x',
    code: 'invalid-input',
    message: /there is no such file or folder/,
  },
  {
    when: 'the source is a device',
    makeSource: async () => '/dev/null',
    code: 'invalid-input',
    message: /neither a folder nor a file/,
  },
  {
    when: 'the file is no tar',
    async makeSource(t) {
      const file = join(makeFolder(t), 'x.tar')
      writeFileSync(file, 'x'.repeat(5000))
      return file
    },
    code: 'invalid-input',
    message: /it is no whole tar archive \(Invalid tar header/,
  },
  {
    when: 'the file is empty',
    async makeSource(t) {
      const file = join(makeFolder(t), 'x.tar')
      writeFileSync(file, '')
      return file
    },
    code: 'invalid-input',
    message: /it has no manifest\.json/,
  },
  ...(['.tar', '.tar.gz', '.tar.zst'] as const).map((ending) => ({
    when: `a ${ending} is cut short`,
    async makeSource(t: ExecutionContext, folder: string) {
      const file = await tarred(`x${ending}`, '-a', '-C', 'DIR', '.')(t, folder)
      truncateSync(file, Math.floor(readFileSync(file).length * (ending === '.tar' ? 0.3 : 0.7)))
      return file
    },
    code: 'invalid-input',
    message: /it is no whole tar archive \(.+\)|is missing in it|it has no manifest/,
  })),
  {
    when: 'a file is missing in a tar',
    spoil: (folder) => rmSync(join(folder, 'vmlinuz')),
    makeSource: asTar,
    code: 'invalid-input',
    message: /vmlinuz is missing in it/,
  },
  {
    when: 'a tar has a link in it',
    spoil(folder) {
      rmSync(join(folder, 'vmlinuz'))
      symlinkSync('/etc/passwd', join(folder, 'vmlinuz'))
    },
    makeSource: asTar,
    code: 'invalid-input',
    message: /"\.\/vmlinuz" is a symlink, where an image has files only/,
  },
  {
    when: 'a name in a tar leads out of it',
    makeSource: tarred('x.tar', '-P', '--transform', 's,^vmlinuz,../../evil,', '-C', 'DIR', 'vmlinuz'),
    code: 'invalid-input',
    message: /"\.\.\/\.\.\/evil" leads out of it/,
  },
  {
    when: 'a name in a tar is absolute',
    makeSource: tarred('x.tar', '-P', '--transform', 's,^vmlinuz,/tmp/evil,', '-C', 'DIR', 'vmlinuz'),
    code: 'invalid-input',
    message: /"\/tmp\/evil" leads out of it/,
  },
  {
    when: 'the web server has no such file',
    makeSource: served('/other.json'),
    code: 'not-found',
    message: /^Cannot fetch http:.*other\.json: the server answers 404/,
  },
  {
    when: 'the web server has less of the image than the manifest',
    spoil: (folder) => rmSync(join(folder, 'vmlinuz')),
    makeSource: served('/'),
    code: 'not-found',
    message: /vmlinuz: the server answers 404/,
  },
  {
    when: 'the web server sends more than the manifest says',
    spoil: (folder) => writeFileSync(join(folder, 'vmlinuz'), 'x'.repeat(8)),
    makeSource: served('/'),
    code: 'invalid-input',
    message: /vmlinuz: it is larger than 7 bytes/,
  },
  {
    when: 'the web server sends less than the manifest says',
    spoil: (folder) => writeFileSync(join(folder, 'vmlinuz'), 'x'),
    makeSource: served('/'),
    code: 'invalid-input',
    message: /vmlinuz is damaged: it has 1 bytes, not the 7/,
  },
  {
    when: 'the URL is none',
    makeSource: async () => 'http://',
    code: 'invalid-input',
    message: /it is no URL/,
  },
]
for (const { when, spoil = () => {}, makeSource = given, code, message } of REFUSALS) {
  test(`startImport() says why and leaves nothing behind when ${when}`, async (t) => {
    const home = makeFolder(t)
    const store = await openImageStore(t, { home })
    await store.bring(makeImage(makeFolder(t), '0.9.0'))
    const before = storedNames(home, 'files')
    // Not the files of the image that is there: they would be taken from it.
    const folder = makeImage(makeFolder(t), '1.0.0', { vmlinuz: 'vmLinuz', 'root.squashfs': 'another' })
    spoil(folder)
    const id = store.startImport(await makeSource(t, folder))
    const error = await t.throwsAsync(store.importDone(id), { instanceOf: KitError })
    t.regex(error.message, message)
    t.is(error.code, code as typeof error.code)
    t.like(store.importProgress(id), { state: 'failed', error: error.message })
    t.deepEqual(store.versions(), ['0.9.0'])
    t.deepEqual(storedNames(home, 'files'), before)
    t.deepEqual(storedNames(home, 'incoming'), [])
    t.false(existsSync('/tmp/evil'))
  })
}

test('startImport() is a no-op for the same content and a conflict for other content of a version', async (t) => {
  const home = makeFolder(t)
  const store = await openImageStore(t, { home })
  await store.bring(makeImage(makeFolder(t), '1.0.0'))
  const before = store.find('1.0.0')
  t.is(await store.bring(makeImage(makeFolder(t), '1.0.0')), '1.0.0')
  t.deepEqual(store.find('1.0.0'), before)
  t.deepEqual(store.kinds(), ['image-imported'])
  const other = makeImage(makeFolder(t), '1.0.0', { vmlinuz: 'another' })
  const error = await t.throwsAsync(store.bring(other), { instanceOf: KitError, code: 'conflict' })
  t.regex(error.fix ?? '', /kateskit image remove 1\.0\.0/)
  t.deepEqual(store.find('1.0.0'), before)
  t.is(readFileSync(before?.files.get('vmlinuz')?.file ?? '', 'utf8'), 'vmlinuz')
})

test('startImport() does one import at a time, and joins a second one of the same source', async (t) => {
  const home = makeFolder(t)
  const store = await openImageStore(t, { home })
  const web = await serveFolder(t, makeImage(makeFolder(t), '1.0.0'))
  const [first, second] = [
    store.startImport(`${web.url}/`),
    store.startImport(makeImage(makeFolder(t), '2.0.0')),
  ]
  t.is(store.startImport(`${web.url}/`), first)
  t.like(store.importProgress(second), {
    state: 'running',
    percent: 0,
    text: 'waiting for another import to end',
  })
  const waited: unknown[] = []
  web.onRequest = () => waited.push(store.importProgress(second)?.text)
  const percents: number[] = []
  web.onRequest = () => percents.push(store.importProgress(first)?.percent ?? -1)
  t.is(await store.importDone(first), '1.0.0')
  t.is(await store.importDone(second), '2.0.0')
  t.deepEqual(
    percents,
    percents.toSorted((a, b) => a - b),
  )
  t.true((percents.at(-1) ?? 0) > 0)
  t.is(store.importProgress('none'), undefined)
  await t.throwsAsync(store.importDone('none'), { code: 'not-found' })
})

test('startImport() shows no password and uses it', async (t) => {
  const store = await openImageStore(t, { home: makeFolder(t) })
  const web = await serveFolder(t, makeImage(makeFolder(t), '1.0.0'))
  const url = `${web.url.replace('//', '//kit:s%40fe@')}/manifest.json`
  await store.bring(url)
  t.false(JSON.stringify(store.events).includes('s%40fe'))
  web.status = 401
  const error = await t.throwsAsync(store.bring(url), { instanceOf: KitError })
  t.regex(error.message, /the server answers 401/)
  t.false(error.message.includes('s%40fe'))
})

test('startImport() says that the disk is full, and leaves nothing behind', async (t) => {
  const big = Buffer.alloc(2_000_000, 'some root image ')
  const [home, folder] = [makeFolder(t), makeImage(makeFolder(t), '1.0.0', { 'root.squashfs': big })]
  const file = await tarred('x.tar.gz', '-z', '-C', 'DIR', '.')(t, folder)
  await run('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', home])
  t.teardown(() => run('umount', ['--lazy', home]))
  const store = await openImageStore(t, { home })
  for (const source of [file, folder]) {
    const error = await t.throwsAsync(store.bring(source), { instanceOf: KitError, code: 'no-space' })
    t.regex(
      error.message,
      source === file ? /the disk of .* is full/ : /66 MiB are needed in .*, 1 MiB are free/,
    )
    t.deepEqual([storedNames(home, 'incoming'), storedNames(home, 'files')], [[], []])
  }
})
