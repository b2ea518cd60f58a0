// Files that may be compressed: told by their first bytes, whatever they are called.

import { open } from 'node:fs/promises'
import type { Transform } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'

/** What the bytes of the file are to go through: nothing, gzip or zstd. A file that ends too early makes it fail. */
export async function decompressorsOf(file: string): Promise<Transform[]> {
  const handle = await open(file)
  try {
    const { buffer } = await handle.read(Buffer.alloc(4), 0, 4, 0)
    if (buffer.readUInt16BE() === 0x1f8b) return [createGunzip()] // RFC 1952 §2.3.1
    return buffer.readUInt32LE() === 0xfd2fb528 ? [createZstdDecompress()] : [] // RFC 8878 §3.1.1
  } finally {
    await handle.close()
  }
}
