// Where the text of each server setting comes from: command line, environment, a file it points to, the config directory.

import { type Dirent, readdirSync, readFileSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'

import { describeError, systemErrorCode } from '#lib/errors.ts'
import { decodeFlatFile, FlatFileError, isIgnoredName, MAX_FLAT_FILE_BYTES } from '#lib/flat-file.ts'
import { didYouMean, editDistance } from '#lib/nearest.ts'

import { CONFIG_KEYS, type ConfigKey, findConfigKey, variableOf } from './config-table.ts'

export interface ConfigProblem {
  /** The file, environment variable or option to look at. */
  readonly source: string
  /** Absent when the source belongs to no known setting. */
  readonly key?: ConfigKey
  readonly message: string
}

/** Text that was set somewhere, and where. */
export interface SetText {
  readonly text: string
  readonly source: string
}

export interface ConfigSources {
  /** Holds the flat files; need not exist, unless the environment names it. */
  readonly directory: string
  /** `KATESKIT_CONFIG` names the directory. */
  readonly directoryIsNamed: boolean
  readonly cwd: string
  readonly env: Readonly<Record<string, string | undefined>>
  readonly overrides: Readonly<Partial<Record<ConfigKey, string>>>
}

export interface GatheredTexts {
  readonly texts: ReadonlyMap<ConfigKey, SetText>
  readonly problems: readonly ConfigProblem[]
  /** Files that were read or would be, if they were there. */
  readonly files: readonly string[]
}

/** Reads every source once. Blocks, as it runs before anything else can. */
export function gatherTexts(sources: ConfigSources): GatheredTexts {
  const texts = new Map<ConfigKey, SetText>()
  const files: string[] = []
  const problems = [...checkDirectory(sources), ...checkVariables(sources.env)]
  for (const key of CONFIG_KEYS) {
    const file = fileOf(sources, key)
    files.push(file.path)
    try {
      const found = findText(sources, key, file)
      if (found) texts.set(key, found)
    } catch (error) {
      const message = error instanceof FlatFileError ? `it ${error.message}` : describeError(error)
      problems.push({ source: file.source, key, message: `Cannot read ${key}: ${message}` })
    }
  }
  return { texts, problems, files }
}

interface SettingFile {
  readonly path: string
  readonly source: string
  /** The environment points to it, so that its absence is an error and no default. */
  readonly isNamed: boolean
}

function fileOf({ env, directory, cwd }: ConfigSources, key: ConfigKey): SettingFile {
  const variable = `${variableOf(key)}_FILE`
  const named = env[variable]
  if (named === undefined) {
    const path = join(directory, key)
    return { path, source: path, isNamed: false }
  }
  const path = resolve(cwd, named)
  return { path, source: `${path} (${variable})`, isNamed: true }
}

function findText(sources: ConfigSources, key: ConfigKey, file: SettingFile): SetText | undefined {
  const override = sources.overrides[key]
  if (override !== undefined) return { text: override.trim(), source: 'command line' }
  const value = sources.env[variableOf(key)]
  if (value !== undefined) return { text: value.trim(), source: variableOf(key) }
  try {
    return { text: readText(file.path), source: file.source }
  } catch (error) {
    const isMissing = ['ENOENT', 'ENOTDIR'].includes(systemErrorCode(error) ?? '')
    if (isMissing && !file.isNamed) return undefined
    throw error
  }
}

function readText(path: string): string {
  const stats = statSync(path)
  if (!stats.isFile()) throw new FlatFileError('is not a regular file')
  if (stats.size > MAX_FLAT_FILE_BYTES) throw new FlatFileError(`is too large: ${stats.size} bytes`)
  return decodeFlatFile(readFileSync(path))
}

/** Every file beneath the directory must be a setting: a misspelt one would else be ignored in silence. */
function checkDirectory({ directory, directoryIsNamed }: ConfigSources): readonly ConfigProblem[] {
  const problems: ConfigProblem[] = []
  const visit = (folder: string, prefix: string) => {
    for (const entry of listDirectory(folder)) {
      const key = `${prefix}${entry.name}`
      if (isIgnoredName(entry.name)) continue
      if (isFolder(join(folder, entry.name), entry)) visit(join(folder, entry.name), `${key}/`)
      else if (findConfigKey(key) === undefined) {
        const message = `Cannot use ${key}: there is no such setting${didYouMean(key, CONFIG_KEYS)}`
        problems.push({ source: join(folder, entry.name), message })
      }
    }
  }
  try {
    visit(directory, '')
  } catch (error) {
    const isMissing = systemErrorCode(error) === 'ENOENT'
    if (!isMissing || directoryIsNamed) {
      const source = directoryIsNamed ? `${directory} (KATESKIT_CONFIG)` : directory
      problems.push({ source, message: `Cannot read the configuration: ${describeError(error)}` })
    }
  }
  return problems
}

const listDirectory = (folder: string): readonly Dirent[] =>
  readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))

const isFolder = (path: string, entry: Dirent) =>
  entry.isSymbolicLink()
    ? (statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false)
    : entry.isDirectory()

/**
 * A variable that is nearly one of ours is taken for a misspelt one. Others that start with KATESKIT_ are left alone:
 * the environment is not ours alone.
 */
function checkVariables(env: ConfigSources['env']): readonly ConfigProblem[] {
  const known = ['KATESKIT_CONFIG', ...CONFIG_KEYS.map(variableOf)]
  const names = new Set([...known, ...CONFIG_KEYS.map((key) => `${variableOf(key)}_FILE`)])
  return Object.keys(env).flatMap((source) => {
    if (!source.startsWith('KATESKIT_') || names.has(source)) return []
    const nearest = [...names].find((name) => editDistance(name, source) <= 2)
    if (nearest === undefined) return []
    return [{ source, message: `Cannot use ${source}: there is no such setting (did you mean ${nearest}?)` }]
  })
}
