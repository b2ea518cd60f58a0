// Flat files that hold one value each: how big they may be, how they are read, what is cut off.

import { constants } from 'node:fs'
import { open } from 'node:fs/promises'

/** A value that needs more is a file for an overlay, or a mistake such as an image put in the wrong place. */
export const MAX_FLAT_FILE_BYTES = 64 * 1024

/** The file is there and no value can be had from it. The message completes "<file>: …" and is safe to show. */
export class FlatFileError extends Error {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'FlatFileError'
  }
}

/**
 * The value: the file's text without white space around it. An empty file is an empty value, which is not the same as
 * no file. Throws FlatFileError, or the system's own error (`ENOENT`, `EACCES`).
 */
export async function readFlatFile(path: string): Promise<string> {
  return decodeFlatFile(await readRegularFile(path, MAX_FLAT_FILE_BYTES))
}

/** Throws FlatFileError for what is no file or is too large, or the system's own error. */
export async function readRegularFile(path: string, maxBytes: number): Promise<Buffer> {
  // O_NONBLOCK: opening a FIFO without a writer would wait for ever.
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const stats = await handle.stat()
    if (!stats.isFile()) throw new FlatFileError('is not a regular file')
    if (stats.size > maxBytes) throw new FlatFileError(tooLarge(stats.size, maxBytes))
    return await handle.readFile()
  } finally {
    await handle.close()
  }
}

/** From a file's bytes. Throws FlatFileError. */
export function decodeFlatFile(bytes: Uint8Array): string {
  if (bytes.length > MAX_FLAT_FILE_BYTES) throw new FlatFileError(tooLarge(bytes.length, MAX_FLAT_FILE_BYTES))
  if (bytes.includes(0)) throw new FlatFileError('has a zero byte in it: is it a binary file?')
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes).trim()
  } catch (cause) {
    throw new FlatFileError('is not UTF-8 text', { cause })
  }
}

/** Files that editors, people and git leave beside the values: `.swp`, `role~`, `#role#`, `README.md`. */
export function isIgnoredName(name: string): boolean {
  return name.startsWith('.') || name.endsWith('~') || /^#.*#$/.test(name) || name === 'README.md'
}

const tooLarge = (size: number, maxBytes: number) => `is too large: ${size} bytes, at most ${maxBytes}`
