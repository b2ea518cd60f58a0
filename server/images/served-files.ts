// The files of an image that the store makes itself: the initrd with the key in it, and the lists of chunks.

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
/** Files that machines put together of what they have and what is missing, and the names of their lists of chunks. */
const CHUNK_LISTS: Readonly<Record<string, string>> = {
  [INITRD]: 'initrd.chunks',
  'root.squashfs': 'root.chunks',
}
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
  const lists = new Set(Object.values(CHUNK_LISTS))
  const own = build.files.filter(({ name }) => !lists.has(name))
  const made: BuildFile[] = []
  for (const file of own) {
    if (file.name === INITRD) made.push(...(await makeServedInitrd(file, folder, { key, ...options })))
    else made.push(file, ...(await makeChunks(file, folder, options)))
  }
  return made.sort(byName)
}

/** With the key in it, and its list of chunks. */
export async function makeServedInitrd(
  built: BuildFile,
  folder: string,
  { key, ...options }: { readonly key: SigningKey } & ReadOptions,
): Promise<readonly BuildFile[]> {
  const initrd = await addKey(built, folder, key)
  return [initrd, ...(await makeChunks(initrd, folder, options))]
}

/** The order of files in a record. */
export function byName(left: BuildFile, right: BuildFile): number {
  return left.name < right.name ? -1 : 1
}

/** The kernel unpacks one archive after another, each beginning at a multiple of four bytes (buffer-format.rst). */
async function addKey(built: BuildFile, folder: string, key: SigningKey): Promise<BuildFile> {
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

/** Nothing for a file that is always fetched whole. */
async function makeChunks(
  file: BuildFile,
  folder: string,
  options: ReadOptions,
): Promise<readonly BuildFile[]> {
  const name = CHUNK_LISTS[file.name]
  if (name === undefined) return []
  const made = join(folder, 'chunks.new')
  await writeFile(made, await listChunks(join(folder, file.sha256), options))
  return [await nameByContent(made, folder, name)]
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
