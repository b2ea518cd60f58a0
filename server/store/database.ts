// Opening the database file: permissions, the lock against a second server, pragmas, the health check.

import { chmodSync, closeSync, mkdirSync, openSync } from 'node:fs'
import { dirname } from 'node:path'

import Database from 'better-sqlite3'
import { Kysely, type SqliteDatabase, SqliteDialect, type SqliteStatement } from 'kysely'

import { KitError, systemErrorCode } from '#lib/errors.ts'

import type { Schema } from './schema.ts'
import { storeError } from './store-error.ts'

export interface OpenDatabase {
  readonly db: Kysely<Schema>
  /** Closes the file and gives the lock back. */
  close(): Promise<void>
}

/** Throws KitError `conflict` when another process has it open as its own, else what store-error.ts says. */
export function openDatabase(file: string): OpenDatabase {
  let lock: Database | undefined
  let database: Database | undefined
  try {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
    makePrivateFile(file)
    lock = takeLock(`${file}-lock`, file)
    database = openChecked(file)
    const db = new Kysely<Schema>({ dialect: new SqliteDialect({ database: prepared(database, file) }) })
    return { db, close: () => closeAll(db, database, lock) }
  } catch (error) {
    database?.close()
    lock?.close()
    throw storeError(error, file)
  }
}

// Kysely closes the file only after its first query; closing twice does no harm.
async function closeAll(db: Kysely<Schema>, database: Database | undefined, lock: Database | undefined) {
  await db.destroy()
  database?.close()
  lock?.close()
}

/** Token hashes and join secrets are nobody else's business. SQLite gives -wal and -shm the mode of the file. */
function makePrivateFile(file: string): void {
  closeSync(openSync(file, 'a', 0o600))
  chmodSync(file, 0o600)
}

/**
 * An exclusive transaction that stays open, in an empty file beside the database: the kernel ends it with the
 * process, whatever kills that, and the database itself stays open to readers such as the sqlite3 command.
 */
function takeLock(lockFile: string, file: string): Database {
  makePrivateFile(lockFile)
  const lock = new Database(lockFile, { timeout: 0 })
  try {
    lock.exec('begin exclusive')
    return lock
  } catch (error) {
    lock.close()
    if (!systemErrorCode(error)?.startsWith('SQLITE_BUSY')) throw error
    throw new KitError('conflict', `Cannot open ${file}: another KatesKit server is using it`, {
      fix: 'stop the other server, or set state/directory to a folder of its own',
      cause: error,
    })
  }
}

function openChecked(file: string): Database {
  const database = new Database(file, { timeout: 5_000 })
  try {
    database.pragma('journal_mode = wal')
    // A lease that was acknowledged must survive a power cut, and WAL with NORMAL may lose the last commits
    // (https://sqlite.org/pragma.html#pragma_synchronous). group-commit.ts makes one fsync serve many writes.
    database.pragma('synchronous = full')
    const verdict = database.pragma('quick_check(1)', { simple: true })
    if (verdict !== 'ok') throw Object.assign(new Error(String(verdict)), { code: 'SQLITE_CORRUPT' })
    return database
  } catch (error) {
    database.close()
    throw error
  }
}

const NO_CHANGE = { changes: 0, lastInsertRowid: 0 }

/** Compiles each statement once (Kysely asks for it at every execution) and names the file in every error. */
function prepared(database: Database, file: string): SqliteDatabase {
  const statements = new Map<string, SqliteStatement>()
  const named = <T>(action: () => T): T => {
    try {
      return action()
    } catch (error) {
      throw storeError(error, file)
    }
  }
  // SQLite rolls back by itself when the disk is full (https://sqlite.org/lang_transaction.html §3); Kysely's
  // rollback after that would fail and hide the reason.
  const endsNothing = (sql: string) => sql === 'rollback' && !database.inTransaction
  return {
    prepare(sql) {
      const known = statements.get(sql)
      if (known !== undefined) return known
      const inner = named(() => database.prepare(sql))
      const statement: SqliteStatement = {
        reader: inner.reader,
        all: (parameters) => named(() => inner.all(parameters)),
        run: (parameters) => (endsNothing(sql) ? NO_CHANGE : named(() => inner.run(parameters))),
        iterate: (parameters) => inner.iterate(parameters),
      }
      statements.set(sql, statement)
      return statement
    },
    close: () => database.close(),
  }
}
