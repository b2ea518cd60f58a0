// The files under secret/ in a profile tree, as they lie there: which are sealed, which are still plain.

import type { Dirent } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'

import { systemErrorCode } from '#lib/errors.ts'
import { isNoSecret, SEALED_ENDING } from '#machine/secret-files.ts'

export interface SecretTree {
  readonly sealed: readonly string[]
  readonly plain: readonly string[]
}

/** Of all layers, in order. A tree, or a folder, that is not there has none. Throws the system's error. */
export async function listSecretTree(profiles: string): Promise<SecretTree> {
  const layers = [join(profiles, 'defaults')]
  for (const kind of ['channels', 'roles', 'machines']) {
    const entries = await entriesOf(join(profiles, kind))
    layers.push(...entries.filter(isFolder).map(({ name }) => join(profiles, kind, name)))
  }
  const files: string[] = []
  for (const layer of layers) files.push(...(await filesUnder(join(layer, 'secret'))))
  return {
    sealed: files.filter((file) => file.endsWith(SEALED_ENDING)),
    plain: files.filter((file) => !file.endsWith(SEALED_ENDING)),
  }
}

async function filesUnder(folder: string): Promise<readonly string[]> {
  const files: string[] = []
  for (const entry of await entriesOf(folder)) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) files.push(...(await filesUnder(path)))
    else if (entry.isFile() && !isNoSecret(entry.name)) files.push(path)
  }
  return files
}

async function entriesOf(folder: string): Promise<readonly Dirent[]> {
  try {
    const entries = await readdir(folder, { withFileTypes: true })
    return entries.sort((a, b) => (a.name < b.name ? -1 : 1))
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemErrorCode(error) ?? '')) return []
    throw error
  }
}

/** A layer may be a link, as everything above secret/ may. */
function isFolder(entry: Dirent): boolean {
  return entry.isDirectory() || entry.isSymbolicLink()
}
