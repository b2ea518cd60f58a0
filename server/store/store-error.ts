// What SQLite's refusals mean to a person.

import { KitError, systemErrorCode } from '#lib/errors.ts'

/** Result codes by prefix: extended codes (`SQLITE_IOERR_FSYNC`) begin with the plain one. */
const MEANINGS: readonly {
  readonly prefix: string
  readonly code: 'no-space' | 'forbidden' | 'conflict' | 'internal'
  readonly what: string
  readonly fix: string
}[] = [
  { prefix: 'SQLITE_FULL', code: 'no-space', what: 'the disk is full', fix: 'make room on its disk' },
  ...['SQLITE_CORRUPT', 'SQLITE_NOTADB'].map((prefix) => ({
    prefix,
    code: 'internal' as const,
    what: 'the database is damaged',
    fix: 'stop the server, move the file and its -wal away, and put a copy from before in its place; without one the server starts empty',
  })),
  ...['SQLITE_READONLY', 'SQLITE_CANTOPEN', 'SQLITE_PERM', 'EACCES', 'EPERM', 'EROFS'].map((prefix) => ({
    prefix,
    code: 'forbidden' as const,
    what: 'this user may not write it',
    fix: 'give the file and its folder to the user the server runs as',
  })),
  { prefix: 'ENOSPC', code: 'no-space', what: 'the disk is full', fix: 'make room on its disk' },
  {
    prefix: 'SQLITE_BUSY',
    code: 'conflict',
    what: 'another program holds it locked',
    fix: 'end that program',
  },
  { prefix: 'SQLITE_IOERR', code: 'internal', what: 'its disk fails', fix: 'look at dmesg' },
]

/** Anything SQLite or the file system threw as a KitError that names the file; KitErrors pass as they are. */
export function storeError(thrown: unknown, file: string): KitError {
  if (thrown instanceof KitError) return thrown
  const code = systemErrorCode(thrown) ?? ''
  const meaning = MEANINGS.find(({ prefix }) => code.startsWith(prefix))
  if (meaning === undefined)
    return new KitError('internal', `Cannot use the database ${file}`, { cause: thrown })
  return new KitError(meaning.code, `Cannot use the database ${file}: ${meaning.what}`, {
    fix: meaning.fix,
    cause: thrown,
  })
}
