// Reading one layer of the profile tree: its setting files, and what lies there that should not.

import { lstat, readdir, realpath } from 'node:fs/promises'
import { join, relative } from 'node:path'

import { describeError, systemErrorCode } from '#lib/errors.ts'
import { FlatFileError, isIgnoredName, readFlatFile } from '#lib/flat-file.ts'
import type { ProfileProblem } from '#machine/ports.ts'
import type { LayerName, SettingValue } from '#machine/profile.ts'
import { checkSetting, type LayerKind } from '#machine/settings.ts'

export interface LayerReading {
  readonly name: LayerName
  readonly directory: string
  /** Those that are right. */
  readonly settings: ReadonlyMap<string, SettingValue>
  readonly problems: readonly ProfileProblem[]
}

export interface LayerPlace {
  readonly name: LayerName
  readonly kind: LayerKind
  readonly directory: string
  /** The profile tree, without links in the path: nothing outside is read. */
  readonly treeRoot: string
}

/** What a layer holds besides settings: overlays and secrets are made of these. */
const OVERLAY_NAMES = new Set(['root', 'root.attributes', 'secret', 'secret.attributes'])

/** Never throws: whatever is wrong becomes a problem. */
export async function readLayer({ name, kind, directory, treeRoot }: LayerPlace): Promise<LayerReading> {
  const settings = new Map<string, SettingValue>()
  const problems: ProfileProblem[] = []
  const report = (file: string, message: string) => problems.push({ layer: name, file, message })
  const names = await listNames(directory, treeRoot).catch((error: unknown) => {
    report(directory, `Cannot read the layer: ${describeError(error)}`)
    return []
  })
  for (const key of names) {
    const file = join(directory, key)
    try {
      const value = await readFlatFile(await resolveInside(file, treeRoot))
      const wrong = checkSetting(kind, key, value)
      if (wrong !== undefined) report(file, wrong)
      else settings.set(key, { value, layer: name, file })
    } catch (error) {
      const message = await explainUnreadable(file, key, error)
      if (message !== undefined) report(file, message)
    }
  }
  return { name, directory, settings, problems }
}

async function listNames(directory: string, treeRoot: string): Promise<readonly string[]> {
  const names = await readdir(await resolveInside(directory, treeRoot))
  return names.filter((name) => !isIgnoredName(name) && !OVERLAY_NAMES.has(name)).sort()
}

/** Links are followed as long as they stay in the tree: a layer must not depend on files that nobody looks after. */
export async function resolveInside(path: string, treeRoot: string): Promise<string> {
  const real = await realpath(path)
  if (relative(treeRoot, real).startsWith('..')) {
    throw new FlatFileError(`is a link out of the profile tree, to ${real}`)
  }
  return real
}

/** Undefined for a file that was taken away while we read: the next reading sees that. */
async function explainUnreadable(file: string, key: string, error: unknown): Promise<string | undefined> {
  const isDirectory = await readdir(file).then(
    () => true,
    () => false,
  )
  if (isDirectory)
    return `Cannot use ${key}/: a layer has setting files, and two folders, root/ and secret/, each with its .attributes`
  if (error instanceof FlatFileError) return `Cannot read ${key}: it ${error.message}`
  return systemErrorCode(error) === 'ENOENT' && !(await isDangling(file))
    ? undefined
    : `Cannot read ${key}: ${describeError(error)}`
}

async function isDangling(file: string): Promise<boolean> {
  return lstat(file).then(
    (stats) => stats.isSymbolicLink(),
    () => false,
  )
}
