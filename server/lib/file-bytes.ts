// Reading files by the block: what they hold, without the whole file in memory and without holding up the server.

import { createHash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'

/** Hashing so much takes about 2 ms; between two blocks the server answers others. */
const BLOCK_BYTES = 1024 * 1024

export interface ReadOptions {
  readonly signal?: AbortSignal
  /** Told of each block. */
  readonly onBytes?: (bytes: number) => void
}

/** A block is valid until the next one is asked for: they share their memory. Throws the system's error. */
export async function* readBlocks(
  file: string,
  { signal, onBytes }: ReadOptions = {},
): AsyncGenerator<Buffer> {
  const handle = await open(file)
  try {
    const buffer = Buffer.allocUnsafe(BLOCK_BYTES)
    for (;;) {
      signal?.throwIfAborted()
      const { bytesRead } = await handle.read(buffer, 0, BLOCK_BYTES, null)
      if (bytesRead === 0) return
      yield buffer.subarray(0, bytesRead)
      onBytes?.(bytesRead)
    }
  } finally {
    await handle.close()
  }
}

export interface Content {
  readonly sizeBytes: number
  /** Hex. */
  readonly sha256: string
}

export async function readContent(file: string, options: ReadOptions = {}): Promise<Content> {
  const hash = createHash('sha256')
  let sizeBytes = 0
  for await (const block of readBlocks(file, options)) {
    hash.update(block)
    sizeBytes += block.length
  }
  return { sizeBytes, sha256: hash.digest('hex') }
}

/** One write may take less than it was given. */
export async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) done += (await handle.write(bytes, done)).bytesWritten
}

/** Makes the bytes of a file survive a power cut; its name in the folder needs a sync of its own. */
export async function syncFile(file: string): Promise<void> {
  const handle = await open(file)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
