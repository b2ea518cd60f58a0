// The part of better-sqlite3 that the store uses; the package brings no types of its own.

declare module 'better-sqlite3' {
  import type { SqliteStatement } from 'kysely'

  interface Database {
    readonly inTransaction: boolean
    prepare(sql: string): SqliteStatement
    /** With `simple`, the first column of the first row. */
    pragma(source: string, options?: { readonly simple?: boolean }): unknown
    exec(sql: string): void
    close(): void
  }

  /** `timeout`: milliseconds to wait for another process's lock; blocks the thread meanwhile. */
  const Database: new (file: string, options?: { readonly timeout?: number }) => Database
  // biome-ignore lint/style/noDefaultExport: it declares what the package exports
  export default Database
}
