// Files that may be compressed: told by their first bytes, whatever they are called.

import { open } from 'node:fs/promises'
import type { Transform } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'

export type Compression = 'none' | 'gzip' | 'zstd'

export async function compressionOf(file: string): Promise<Compression> {
  const handle = await open(file)
  try {
    const { buffer } = await handle.read(Buffer.alloc(4), 0, 4, 0)
    if (buffer.readUInt16BE() === 0x1f8b) return 'gzip' // RFC 1952 §2.3.1
    return buffer.readUInt32LE() === 0xfd2fb528 ? 'zstd' : 'none' // RFC 8878 §3.1.1
  } finally {
    await handle.close()
  }
}

/** What the bytes are to go through. It fails for a file that ends too early. */
export function decompressorsFor(compression: Compression): Transform[] {
  switch (compression) {
    case 'none':
      return []
    case 'gzip':
      return [createGunzip()]
    case 'zstd':
      return [createZstdDecompress()]
    default:
      return compression satisfies never
  }
}
