// Reading the files of a layer as they were when it was looked at, or not at all.

import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'

import { systemErrorCode } from '#lib/errors.ts'

import { type FileEntry, isSameFile } from './entries.ts'

/** A file is no longer what it was when the layer was read: read the layer again. */
export class SourceChangedError extends Error {
  constructor(source: string) {
    super(`${source} changed while it was read`)
    this.name = 'SourceChangedError'
  }
}

/** Hands the open file to `read`. Throws SourceChangedError when it is another one before, or after. */
export async function withSource<Result>(
  entry: FileEntry,
  read: (handle: FileHandle) => Promise<Result>,
): Promise<Result> {
  const handle = await openSource(entry)
  try {
    await checkSame(handle, entry)
    const result = await read(handle)
    await checkSame(handle, entry)
    return result
  } finally {
    await handle.close()
  }
}

async function openSource({ source }: FileEntry): Promise<FileHandle> {
  try {
    // Neither a link nor a FIFO that has taken the file's place meanwhile.
    return await open(source, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    const isGone = ['ENOENT', 'ELOOP', 'ENOTDIR', 'ENXIO'].includes(systemErrorCode(error) ?? '')
    throw isGone ? new SourceChangedError(source) : error
  }
}

async function checkSame(handle: FileHandle, entry: FileEntry): Promise<void> {
  if (!isSameFile(await handle.stat(), entry.stats)) throw new SourceChangedError(entry.source)
}
