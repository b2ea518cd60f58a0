// Files that are there in full or not at all, also after a power cut.

import { randomBytes } from 'node:crypto'
import { mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'

/** The names of files that are being written; whoever lists the directory leaves them out, since they start with a dot. */
export const TEMPORARY_PREFIX = '.tmp-'

/** A name in the same directory as `path`, so that a rename to `path` never crosses file systems. */
export function temporaryPath(directory: string): string {
  return join(directory, `${TEMPORARY_PREFIX}${randomBytes(8).toString('hex')}`)
}

/**
 * Creates the directories on the way. On disk when it resolves, and never open to more than `mode` says. Throws the
 * system's error; the old file is then untouched.
 */
export async function writeFileAtomically(path: string, text: string, mode = 0o644): Promise<void> {
  const directory = dirname(path)
  await mkdir(directory, { recursive: true })
  const temporary = temporaryPath(directory)
  try {
    const handle = await open(temporary, 'wx', mode)
    try {
      await handle.writeFile(text)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  await syncDirectory(directory)
}

/** Makes renames in a directory survive a power cut (fsync(2): the entry needs a sync of its own). */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
