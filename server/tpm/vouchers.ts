// Who vouches for an endorsement key: the list and the makers' certificates of the settings, read anew each time.

import { readdir } from 'node:fs/promises'
import { join } from 'node:path'

import { describeError, systemErrorCode } from '#lib/errors.ts'
import { FlatFileError, isIgnoredName, readRegularFile } from '#lib/flat-file.ts'

import { parseEkList } from './ek-list.ts'
import { type ReadMakers, readMakers } from './makers.ts'

/** What a setting's files hold, and what in them is of no use: lines for people. */
export interface Loaded<Value> {
  readonly value: Value
  readonly problems: readonly string[]
}

/** Some 60,000 TPMs. */
const MAX_LIST_BYTES = 4 * 1024 ** 2
const MAX_CERTIFICATES_BYTES = 1024 ** 2

/** A file that cannot be read is a problem, and nobody is in it. */
export async function loadEkList(file: string): Promise<Loaded<ReadonlySet<string>>> {
  try {
    const { hashes, problems } = parseEkList((await readRegularFile(file, MAX_LIST_BYTES)).toString())
    return {
      value: hashes,
      problems: problems.map(({ line, message }) => `${file} line ${line}: ${message}`),
    }
  } catch (error) {
    return { value: new Set(), problems: [cannotRead(file, error)] }
  }
}

/** Folders inside it are left alone. */
export async function loadMakers(folder: string): Promise<Loaded<ReadMakers['makers']>> {
  let names: readonly string[]
  try {
    const entries = await readdir(folder, { withFileTypes: true })
    names = entries.filter((entry) => !entry.isDirectory()).map(({ name }) => name)
  } catch (error) {
    return { value: [], problems: [cannotRead(folder, error)] }
  }
  const makers: ReadMakers['makers'][number][] = []
  const problems: string[] = []
  for (const name of names.filter((name) => !isIgnoredName(name)).toSorted()) {
    const file = join(folder, name)
    try {
      const read = readMakers(await readRegularFile(file, MAX_CERTIFICATES_BYTES))
      makers.push(...read.makers)
      problems.push(...read.problems.map((problem) => `${file}: ${problem}`))
    } catch (error) {
      problems.push(cannotRead(file, error))
    }
  }
  return { value: makers, problems }
}

function cannotRead(path: string, error: unknown): string {
  if (error instanceof FlatFileError) return `${path}: ${error.message}`
  return `Cannot read ${path}: ${systemErrorCode(error) === 'ENOENT' ? 'it is not there' : describeError(error)}`
}
