// A few files as a tar in memory, for what must not be written down.

import * as tar from 'tar-stream'

export interface PackedFile {
  readonly path: string
  readonly mode: number
  readonly bytes: Uint8Array
}

export async function packFiles(files: readonly PackedFile[]): Promise<Buffer> {
  const pack = tar.pack()
  for (const { path, mode, bytes } of files) {
    pack.entry({ name: path, mode, mtime: new Date(0), size: bytes.length }, Buffer.from(bytes))
  }
  pack.finalize()
  const chunks: Buffer[] = []
  // streamx types its chunks as unknown; a pack gives nothing but bytes.
  for await (const chunk of pack as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks)
}
