// A folder of container images on this machine, such as `skopeo copy … oci:<folder>` leaves it.

import { createHash } from 'node:crypto'
import { constants, lstat, open, readdir, realpath } from 'node:fs/promises'
import { join, sep } from 'node:path'

import { KitError, systemErrorCode } from '#lib/errors.ts'
import { readBlocks, writeAll } from '#lib/file-bytes.ts'

import {
  type Archive,
  type ArchivedFile,
  type ArchiveOptions,
  cannotImport,
  plainName,
  SpaceWatch,
} from './archive.ts'

const LOOKED_AT_MAX = 10_000

/** Copies what is asked for, and nothing else. A file is copied once. */
export async function openFolder(folder: string, options: ArchiveOptions): Promise<Archive> {
  const copies = new Map<string, Promise<ArchivedFile | undefined>>()
  const space = new SpaceWatch(options.incoming)
  const allBytes = await sizeOfFolder(folder)
  let readBytes = 0
  const onCopied = (bytes: number) => {
    readBytes += bytes
    options.onRead(readBytes, allBytes)
  }
  return {
    find(name) {
      const known = copies.get(name)
      if (known !== undefined) return known
      const target = join(options.incoming, `entry-${copies.size}`)
      const copy = copyFrom(folder, name, { ...options, target, space, onCopied })
      copies.set(name, copy)
      return copy
    },
  }
}

interface Copying extends ArchiveOptions {
  readonly target: string
  readonly space: SpaceWatch
  readonly onCopied: (bytes: number) => void
}

async function copyFrom(folder: string, name: string, copying: Copying): Promise<ArchivedFile | undefined> {
  const { shown, target, signal, space, onCopied } = copying
  try {
    const from = await findInside(folder, name, shown)
    await requireFile(from, name, shown)
    const hash = createHash('sha256')
    const handle = await open(target, 'wx', 0o600)
    let bytes = 0
    try {
      for await (const block of readBlocks(from, { signal })) {
        await space.expect(block.length)
        hash.update(block)
        await writeAll(handle, block)
        bytes += block.length
        onCopied(block.length)
      }
    } finally {
      await handle.close()
    }
    return { file: target, sizeBytes: bytes, sha256: hash.digest('hex') }
  } catch (error) {
    switch (systemErrorCode(error)) {
      case 'ENOENT':
      case 'ENOTDIR':
      case 'ENAMETOOLONG':
        return undefined
      case 'EACCES':
      case 'EIO':
      case 'ELOOP': {
        const why = `${JSON.stringify(name.slice(0, 100))}: ${systemErrorCode(error)}`
        throw new KitError('unavailable', `Cannot import ${shown}: ${why}`, { cause: error })
      }
      default:
        throw error
    }
  }
}

/** Links are followed as long as they stay in the folder. */
async function findInside(folder: string, name: string, shown: string): Promise<string> {
  const plain = plainName(name)
  const root = await realpath(folder)
  const found = plain === undefined ? '' : await realpath(join(root, plain))
  if (found.startsWith(`${root}${sep}`)) return found
  throw cannotImport(shown, `${JSON.stringify(name.slice(0, 100))} leads out of it`)
}

async function requireFile(file: string, name: string, shown: string): Promise<void> {
  // A pipe would be waited for.
  const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    if (!(await handle.stat()).isFile())
      throw cannotImport(shown, `${JSON.stringify(name.slice(0, 100))} is no file`)
  } finally {
    await handle.close()
  }
}

/** What could be copied of it, for how far it is; blobs lie three deep. */
async function sizeOfFolder(folder: string): Promise<number> {
  const names = await readdir(folder, { recursive: true }).catch((): string[] => [])
  let bytes = 0
  for (const name of names.slice(0, LOOKED_AT_MAX)) {
    const found = await lstat(join(folder, name)).catch(() => undefined)
    if (found?.isFile()) bytes += found.size
  }
  return bytes
}
