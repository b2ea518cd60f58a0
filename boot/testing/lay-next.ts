// What a test server has from its next answer on: files that take the place of others between two requests.

import { existsSync, readdirSync, renameSync, rmSync } from 'node:fs'

/** Moves what is in `next/` to where it belongs. A file that is open keeps what it had. */
export function layNext(folder: string): void {
  const next = `${folder}/next`
  if (!existsSync(next)) return
  for (const entry of readdirSync(next, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const file = `${entry.parentPath}/${entry.name}`
    renameSync(file, folder + file.slice(next.length))
  }
  rmSync(next, { recursive: true })
}
