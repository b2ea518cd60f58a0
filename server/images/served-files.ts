// The files of an image that the store makes itself: the initrd with the key in it, and the list of chunks.

import { constants } from 'node:fs'
import { chmod, copyFile, open, rename, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { systemErrorCode } from '#lib/errors.ts'
import { type ReadOptions, readContent } from '#lib/file-bytes.ts'
import type { BuildFile, BuildManifest } from './build-manifest.ts'
import { listChunks } from './content-chunks.ts'
import { packNewc, paddingTo4 } from './newc.ts'
import type { SigningKey } from './signing-key.ts'

export const INITRD = 'initrd.img'
const ROOT = 'root.squashfs'
const CHUNKS = 'root.chunks'
/** Beneath the root of the initrd, whose folder lib/kit every recipe makes. */
const KEY_IN_INITRD = 'lib/kit/image-key.pub'

/**
 * All files as machines get them, by name; each lies in the folder under its sha256. The build's own must be there.
 * Deterministic, but for the key.
 */
export async function makeServedFiles(
  build: BuildManifest,
  folder: string,
  { key, ...options }: { readonly key: SigningKey } & ReadOptions,
): Promise<readonly BuildFile[]> {
  const own = build.files.filter(({ name }) => name !== CHUNKS)
  const files = await Promise.all(
    own.map((file) => (file.name === INITRD ? addKey(file, folder, key) : file)),
  )
  const root = own.find(({ name }) => name === ROOT)
  if (root !== undefined) files.push(await makeChunks(root, folder, options))
  return files.sort((left, right) => (left.name < right.name ? -1 : 1))
}

/** The kernel unpacks one archive after another, each beginning at a multiple of four bytes (buffer-format.rst). */
export async function addKey(built: BuildFile, folder: string, key: SigningKey): Promise<BuildFile> {
  const archive = packNewc([{ name: KEY_IN_INITRD, content: Buffer.from(key.publicText) }])
  const made = join(folder, 'initrd.new')
  await copyFile(join(folder, built.sha256), made, constants.COPYFILE_FICLONE)
  await chmod(made, 0o600) // what was lent by the store is for reading only
  const start = built.sizeBytes + paddingTo4(built.sizeBytes)
  await truncate(made, start)
  const handle = await open(made, 'r+')
  try {
    await handle.write(archive, 0, archive.length, start)
  } finally {
    await handle.close()
  }
  return nameByContent(made, folder, INITRD)
}

async function makeChunks(root: BuildFile, folder: string, options: ReadOptions): Promise<BuildFile> {
  const made = join(folder, 'chunks.new')
  await writeFile(made, await listChunks(join(folder, root.sha256), options))
  return nameByContent(made, folder, CHUNKS)
}

async function nameByContent(file: string, folder: string, name: string): Promise<BuildFile> {
  const content = await readContent(file)
  await rename(file, join(folder, content.sha256))
  return { name, ...content }
}

/** The initrd as the build made it is the first part of the one with a key: puts it into the folder under its sha256. */
export async function takeBuiltInitrd(built: BuildFile, served: string, folder: string): Promise<boolean> {
  const target = join(folder, built.sha256)
  try {
    await copyFile(served, target, constants.COPYFILE_FICLONE)
    await chmod(target, 0o600) // the store's own are for reading only
    await truncate(target, built.sizeBytes)
    return (await readContent(target)).sha256 === built.sha256
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return false
    throw error
  }
}
