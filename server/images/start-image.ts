// Which image a server imports by itself when it starts: that of a folder, or the newest of a folder of such folders.

import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'

import { KitError } from '#lib/errors.ts'

import { type BuildManifest, parseBuild } from './build-manifest.ts'
import { compareImages } from './newest.ts'
import { MANIFEST } from './source-folder.ts'

export interface FoundBuild {
  readonly folder: string
  readonly build: BuildManifest
}

/** Undefined where there is none. What cannot be read is passed over, and told. */
export async function findStartImage(
  folder: string,
  onProblem: (problem: KitError) => void,
): Promise<FoundBuild | undefined> {
  const names = await readdir(folder).catch(() => [])
  // `<name>.new.<random>` is one that build.sh is still filling.
  const folders = [
    folder,
    ...names.filter((name) => !name.includes('.new.')).map((name) => join(folder, name)),
  ]
  const found: (FoundBuild & { readonly version: string; readonly importedMs: number })[] = []
  for (const candidate of folders) {
    const file = join(candidate, MANIFEST)
    const text = await readFile(file, 'utf8').catch(() => undefined)
    if (text === undefined) continue
    try {
      const build = parseBuild(text, file)
      found.push({ folder: candidate, build, version: build.version, importedMs: (await stat(file)).mtimeMs })
    } catch (error) {
      if (!(error instanceof KitError)) throw error
      onProblem(error)
    }
  }
  return found.sort(compareImages)[0]
}
