// A tar of an image's folder, plain or compressed. No name in it ever becomes a path here.

import { createReadStream } from 'node:fs'
import { open, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'

import * as tar from 'tar-stream'

import { compressionOf, decompressorsFor } from '#lib/decompress.ts'
import { describeError, KitError, systemErrorCode } from '#lib/errors.ts'

import type { ImageSource, SourceOptions } from './image-source.ts'
import { MANIFEST, readManifestFile } from './source-folder.ts'

export interface TarOptions extends SourceOptions {
  readonly shown: string
}

/** The manifest allows a thousand files; more is no image. */
const ENTRIES_MAX = 2000

export function tarSource(file: string, options: TarOptions): ImageSource {
  const { incoming, shown } = options
  /** By their names in the image: where the contents lie meanwhile. */
  let places: ReadonlyMap<string, string> = new Map()
  return {
    canResume: false,
    async readManifest() {
      places = withoutPrefix(await unpack(file, options))
      const place = places.get(MANIFEST)
      if (place === undefined) throw cannot(shown, `it has no ${MANIFEST}`)
      return readManifestFile(place)
    },
    async fetch(entry, target) {
      const place = places.get(entry.name)
      if (place === undefined) throw cannot(shown, `${entry.name} is missing in it`)
      await rename(place, target)
    },
  }

  /** Each regular file to a numbered file, since what they are called in the image is not known before the manifest. */
  async function unpack(from: string, { signal, onRead }: TarOptions): Promise<Map<string, string>> {
    const found = new Map<string, string>()
    const extract = tar.extract()
    const { size } = await stat(from)
    let bytes = 0
    const counted = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        bytes += chunk.length
        onRead(bytes, size)
        done(undefined, chunk)
      },
    })
    const feeding = feed(createReadStream(from), {
      through: [counted, ...decompressorsFor(await compressionOf(from))],
      extract,
      signal,
    })
    feeding.catch(() => {}) // heard below
    try {
      for await (const entry of extract) {
        const place = join(incoming, `entry-${found.size}`)
        const name = entryName(entry.header, shown)
        if (name !== undefined) {
          if (found.size >= ENTRIES_MAX) throw cannot(shown, `it has more than ${ENTRIES_MAX} files`)
          found.set(name, place)
          await rm(place, { force: true })
          await writeEntry(entry, place)
        } else entry.resume()
      }
      await feeding
    } catch (error) {
      extract.destroy()
      const first = await feeding.then(
        () => error,
        (failure: unknown) => (error instanceof KitError ? error : failure),
      )
      throw asTarError(first, shown)
    }
    return found
  }
}

async function feed(
  from: NodeJS.ReadableStream,
  { through, extract, signal }: { through: Transform[]; extract: tar.Extract; signal: AbortSignal },
): Promise<void> {
  await pipeline([from, ...through, extract as unknown as NodeJS.WritableStream], { signal })
}

type TarEntry = tar.Extract extends AsyncIterable<infer Entry> ? Entry : never

/** Undefined for a folder. Throws KitError for what an image never has. */
function entryName({ name, type }: tar.Header, shown: string): string | undefined {
  const plain = name.replace(/^(\.\/)+/, '')
  const quoted = JSON.stringify(name.slice(0, 100))
  if (plain.startsWith('/') || plain.split('/').includes('..'))
    throw cannot(shown, `${quoted} leads out of it`)
  if (type === 'directory') return undefined
  if (type === 'file' || type === 'contiguous-file') return plain
  throw cannot(shown, `${quoted} is a ${type}, where an image has files only`)
}

async function writeEntry(entry: TarEntry, place: string): Promise<void> {
  const handle = await open(place, 'wx')
  await pipeline(entry as unknown as NodeJS.ReadableStream, handle.createWriteStream())
}

/** `image/manifest.json` makes every file's name begin after `image/`. */
function withoutPrefix(places: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  const manifests = [...places.keys()].filter(
    (name) => name === MANIFEST || /^[^/]+\/manifest\.json$/.test(name),
  )
  const shortest = manifests.includes(MANIFEST) ? MANIFEST : (manifests[0] ?? MANIFEST)
  const prefix = shortest.slice(0, -MANIFEST.length)
  return new Map(
    [...places].flatMap(([name, place]) =>
      name.startsWith(prefix) ? [[name.slice(prefix.length), place]] : [],
    ),
  )
}

/** What the disk or the person did is told as it is; everything else is the archive's fault. */
function asTarError(error: unknown, shown: string): unknown {
  const code = systemErrorCode(error)
  const isOurs =
    error instanceof KitError || code === 'ABORT_ERR' || ['ENOSPC', 'EDQUOT', 'EIO'].includes(code ?? '')
  return isOurs ? error : cannot(shown, `it is no whole tar archive (${describeError(error)})`, error)
}

function cannot(shown: string, why: string, cause?: unknown): KitError {
  return new KitError('invalid-input', `Cannot import ${shown}: ${why}`, { cause })
}
