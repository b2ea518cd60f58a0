// An image's folder on this machine, as the recipe leaves it.

import { constants } from 'node:fs'
import { copyFile, readFile, rename, stat } from 'node:fs/promises'
import { join } from 'node:path'

import { KitError, systemErrorCode } from '#lib/errors.ts'

import type { ImageSource, SourceOptions } from './image-source.ts'

export const MANIFEST = 'manifest.json'

/** Everything the recipe writes is some hundred packages' names. */
export const MANIFEST_MAX_BYTES = 4 * 1024 * 1024

export function folderSource(folder: string, { signal, onRead }: SourceOptions): ImageSource {
  return {
    canResume: false,
    readManifest: () => readManifestFile(join(folder, MANIFEST)),
    async fetch(entry, target) {
      signal.throwIfAborted()
      const file = join(folder, entry.name)
      try {
        await checkSize(file, entry.sizeBytes)
        // Shares the blocks where the file system can. A hard link would change with the other file.
        await copyFile(file, `${target}.part`, constants.COPYFILE_FICLONE)
      } catch (error) {
        throw cannotRead(file, error)
      }
      await rename(`${target}.part`, target)
      onRead(entry.sizeBytes, entry.sizeBytes)
    },
  }
}

/** Throws KitError. */
export async function readManifestFile(file: string): Promise<string> {
  try {
    const { size } = await stat(file)
    if (size > MANIFEST_MAX_BYTES) throw tooLarge(file, size)
    return await readFile(file, 'utf8')
  } catch (error) {
    throw cannotRead(file, error)
  }
}

function tooLarge(what: string, bytes: number): KitError {
  return new KitError('invalid-input', `Cannot use ${what}: ${bytes} bytes are too many for a manifest`)
}

async function checkSize(file: string, wantedBytes: number): Promise<void> {
  const found = await stat(file)
  if (!found.isFile()) throw new KitError('invalid-input', `Cannot import ${file}: it is not a regular file`)
  if (found.size === wantedBytes) return
  const sizes = `it has ${found.size} bytes, not the ${wantedBytes} of its manifest`
  throw new KitError('invalid-input', `Cannot import ${file}: ${sizes}`)
}

function cannotRead(file: string, error: unknown): unknown {
  switch (systemErrorCode(error)) {
    case 'ENOENT':
    case 'ENOTDIR':
      return new KitError('invalid-input', `Cannot import ${file}: it is missing`, { cause: error })
    case 'EACCES':
    case 'EIO':
    case 'EISDIR':
      return new KitError('unavailable', `Cannot import ${file}: ${systemErrorCode(error)}`, { cause: error })
    default:
      return error
  }
}
