// A tar of container images, plain or compressed: each file of it hashed while it is written. No name in it becomes a path here.

import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import { dirname, join, normalize } from 'node:path'
import { Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'

import * as tar from 'tar-stream'

import { compressionOf, decompressorsFor } from '#lib/decompress.ts'
import { describeError, KitError, systemErrorCode } from '#lib/errors.ts'
import { writeAll } from '#lib/file-bytes.ts'

import {
  type Archive,
  type ArchivedFile,
  type ArchiveOptions,
  cannotImport,
  plainName,
  SpaceWatch,
} from './archive.ts'

/** An archive of hundreds of images has some thousand blobs. */
const ENTRIES_MAX = 50_000
/** A link may name a link; `docker save` writes no chains at all. */
const LINKS_MAX = 8

interface Unpacked {
  readonly files: Map<string, ArchivedFile>
  /** Name → the name it stands for. */
  readonly links: Map<string, string>
}

/** Unpacks all of it into the folder of the import. Throws KitError. */
export async function openTar(file: string, options: ArchiveOptions): Promise<Archive> {
  const unpacked = await unpack(file, options)
  const prefix = prefixOf(unpacked.files)
  return {
    async find(name) {
      let at = `${prefix}${name}`
      for (let steps = 0; steps < LINKS_MAX; steps++) {
        const found = unpacked.files.get(at)
        if (found !== undefined) return found
        const target = unpacked.links.get(at)
        if (target === undefined) return undefined
        at = target
      }
      throw cannotImport(options.shown, `the links of ${JSON.stringify(name.slice(0, 100))} go in circles`)
    },
  }
}

async function unpack(from: string, options: ArchiveOptions): Promise<Unpacked> {
  const { shown, signal } = options
  const unpacked: Unpacked = { files: new Map(), links: new Map() }
  const extract = tar.extract()
  const feeding = pipeline(
    [
      createReadStream(from),
      await countBytes(from, options),
      ...decompressorsFor(await compressionOf(from)),
      extract as unknown as NodeJS.WritableStream,
    ],
    { signal },
  )
  feeding.catch(() => {}) // heard below
  try {
    await takeEntries(extract, unpacked, options)
    await feeding
  } catch (error) {
    extract.destroy()
    const first = await feeding.then(
      () => error,
      (failure: unknown) => (error instanceof KitError ? error : failure),
    )
    throw asTarError(first, shown)
  }
  return unpacked
}

async function countBytes(file: string, { onRead }: ArchiveOptions): Promise<Transform> {
  const { size } = await stat(file)
  let bytes = 0
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      bytes += chunk.length
      onRead(bytes, size)
      done(undefined, chunk)
    },
  })
}

async function takeEntries(extract: tar.Extract, unpacked: Unpacked, options: ArchiveOptions): Promise<void> {
  const { incoming, shown } = options
  const space = new SpaceWatch(incoming)
  let entries = 0
  for await (const entry of extract) {
    if (++entries > ENTRIES_MAX) throw cannotImport(shown, `it has more than ${ENTRIES_MAX} files`)
    const taken = judge(entry.header, shown)
    if (taken.kind === 'file') {
      unpacked.files.set(taken.name, await writeEntry(entry, join(incoming, `entry-${entries}`), space))
      unpacked.links.delete(taken.name)
    } else entry.resume()
    if (taken.kind === 'link') {
      unpacked.links.set(taken.name, taken.target)
      unpacked.files.delete(taken.name)
    }
  }
}

type Judged =
  | { readonly kind: 'file'; readonly name: string }
  | { readonly kind: 'link'; readonly name: string; readonly target: string }
  | { readonly kind: 'nothing' }

/** Throws KitError for what leads out of the archive, and for what no archive of images has. */
function judge({ name, type, linkname }: tar.Header, shown: string): Judged {
  const quoted = JSON.stringify(name.slice(0, 100))
  const plain = plainName(name)
  if (plain === undefined) throw cannotImport(shown, `${quoted} leads out of it`)
  switch (type) {
    case 'directory':
      return { kind: 'nothing' }
    case 'file':
    case 'contiguous-file':
      return { kind: 'file', name: plain }
    case 'link': // GNU tar, where a folder has one blob under two names
    case 'symlink': {
      // Docker before 25 has one layer of two images so. Followed by name, in the archive and nowhere else.
      const text = linkname ?? ''
      const target = plainName(type === 'link' ? text : normalize(join(dirname(plain), text)))
      if (target === undefined || text.startsWith('/'))
        throw cannotImport(shown, `${quoted} is a link that leads out of it`)
      return { kind: 'link', name: plain, target }
    }
    default:
      throw cannotImport(shown, `${quoted} is a ${type}, where an archive of images has files only`)
  }
}

type TarEntry = tar.Extract extends AsyncIterable<infer Entry> ? Entry : never

async function writeEntry(entry: TarEntry, file: string, space: SpaceWatch): Promise<ArchivedFile> {
  const hash = createHash('sha256')
  let sizeBytes = 0
  const handle = await open(file, 'wx', 0o600)
  try {
    for await (const chunk of entry as AsyncIterable<Uint8Array>) {
      await space.expect(chunk.length)
      hash.update(chunk)
      await writeAll(handle, chunk)
      sizeBytes += chunk.length
    }
  } finally {
    await handle.close()
  }
  return { file, sizeBytes, sha256: hash.digest('hex') }
}

/** `layout/index.json` makes every file's name begin after `layout/`. */
function prefixOf(files: ReadonlyMap<string, unknown>): string {
  const shallow = [...files.keys()].filter((name) => /^(?:[^/]+\/)?(?:index|manifest)\.json$/.test(name))
  const [first = ''] = shallow.toSorted((left, right) => left.split('/').length - right.split('/').length)
  return first.slice(0, first.lastIndexOf('/') + 1)
}

/** What the disk or the person did is told as it is; everything else is the archive's fault. */
function asTarError(error: unknown, shown: string): unknown {
  const code = systemErrorCode(error)
  const isOurs =
    error instanceof KitError || ['ABORT_ERR', 'ENOSPC', 'EDQUOT', 'EIO', 'EACCES'].includes(code ?? '')
  return isOurs ? error : cannotImport(shown, `it is no whole tar archive (${describeError(error)})`, error)
}
