// manifest.json of one image folder: its shape, and the image it describes once its files are seen to be there.

import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import * as z from 'zod'

import { describeError, KitError, systemErrorCode } from '#lib/errors.ts'
import type { Image, ImageFile } from '#machine/ports.ts'

/** Without these nothing boots. */
const NEEDED_FILES = ['vmlinuz', 'initrd.img', 'root.squashfs'] as const

const REBUILD = { fix: 'assets/image/build.sh --fresh' }

/** At most one folder deep and no segment that starts with a dot: a name can never lead out of the image's folder. */
const FILE_NAME = /^[a-z0-9][a-z0-9._-]*(\/[a-z0-9][a-z0-9._-]*)?$/

const manifestShape = z.object({
  /** Becomes a path segment of URLs and a word of the kernel command line. */
  version: z.string().regex(/^[0-9A-Za-z][0-9A-Za-z._~-]{0,63}$/),
  arch: z.enum(['amd64', 'arm64']),
  recipeDigest: z.string().regex(/^[0-9a-f]{64}$/),
  sourceDateEpoch: z.int().nonnegative(),
  files: z.array(
    z.object({
      name: z.string().regex(FILE_NAME),
      sizeBytes: z.int().positive(),
      sha256: z.string().regex(/^[0-9a-f]{64}$/),
    }),
  ),
})

type Manifest = z.infer<typeof manifestShape>

export interface FoundImage extends Image {
  /** When its manifest was written, milliseconds since 1970: tells builds of one release apart. */
  readonly importedMs: number
}

/**
 * The image in a folder; undefined where there is no manifest. Sizes are compared, contents are not read: hashing 100 MB
 * at each start helps nobody, since every machine verifies what it fetched. Throws KitError for anything else.
 */
export function findImage(directory: string): FoundImage | undefined {
  const path = join(directory, 'manifest.json')
  const text = readManifest(path)
  if (text === undefined) return undefined
  const manifest = parseManifest(text, path)
  const files = new Map(manifest.files.map((entry) => [entry.name, checkedFile(directory, entry)]))
  for (const name of NEEDED_FILES) {
    if (!files.has(name))
      throw new KitError('invalid-input', `Cannot use ${path}: it names no ${name}`, REBUILD)
  }
  return { version: manifest.version, arch: manifest.arch, files, importedMs: statSync(path).mtimeMs }
}

function readManifest(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    const code = systemErrorCode(error)
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw new KitError('unavailable', `Cannot read ${path}: ${code ?? 'unknown error'}`, { cause: error })
  }
}

function parseManifest(text: string, path: string): Manifest {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new KitError('invalid-input', `Cannot use ${path}: ${describeError(error)}`, {
      ...REBUILD,
      cause: error,
    })
  }
  const result = manifestShape.safeParse(value)
  if (result.success) return result.data
  const problems = result.error.issues.map(
    ({ path: at, message }) => `${at.join('.') || 'manifest'}: ${message}`,
  )
  throw new KitError('invalid-input', `Cannot use ${path}: ${problems.join('; ')}`, REBUILD)
}

function checkedFile(directory: string, entry: Manifest['files'][number]): ImageFile {
  const file = join(directory, entry.name)
  const found = statSync(file, { throwIfNoEntry: false })
  if (!found?.isFile())
    throw new KitError('invalid-input', `Cannot use the image: ${file} is missing`, REBUILD)
  if (found.size !== entry.sizeBytes) {
    const sizes = `${found.size} bytes, not the ${entry.sizeBytes} of its manifest`
    throw new KitError('invalid-input', `Cannot use the image: ${file} has ${sizes}`, REBUILD)
  }
  return { ...entry, file }
}
