// Sending one file, or a part of it, to one client: at the client's pace, through shared chunks, from one open file.

import { type FileHandle, open } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'

import { KitError } from '#lib/errors.ts'

import { type Selection, selectBytes } from './byte-range.ts'
import type { ChunkPool } from './chunk-pool.ts'
import type { Exchange } from './exchange.ts'

/** What one client gets at a time when many slow ones hold the shared chunks. */
const CROWDED_BYTES = 32 * 1024

export interface ServedFile {
  /** Where it lies on the server: never made from anything a client sent. */
  readonly file: string
  readonly sizeBytes: number
  /** Hex; the file's ETag. */
  readonly sha256: string
  readonly contentType: string
}

/**
 * Resolves with true when a GET was answered up to the file's last byte, else with false, also when the client went
 * away. The bytes all come from the file as it was when opened, even if it is replaced meanwhile. Throws KitError
 * `unavailable`, before anything is sent, for a file that cannot be read or has another size than it should have, and
 * `invalid-input` for a `from` in the URL that is no position.
 */
export async function sendFile(
  { request, response, url }: Pick<Exchange, 'request' | 'response' | 'url'>,
  served: ServedFile,
  pool: ChunkPool,
): Promise<boolean> {
  const method = request.method ?? 'GET'
  const etag = `"${served.sha256}"`
  const { sizeBytes } = served
  const from = readFrom(url)
  const selection = selectBytes(request.headers, {
    ...{ method, etag, sizeBytes },
    ...(from !== undefined && { from }),
  })
  const bytes = method === 'HEAD' ? undefined : bytesOf(selection, sizeBytes)
  if (bytes === undefined) {
    writeHead(response, selection, { ...served, etag })
    response.end()
    return false
  }
  const handle = await openUnchanged(served)
  try {
    const identity = await identify(handle)
    writeHead(response, selection, { ...served, etag })
    const isSent = await sendBytes(response, identity, { handle, ...bytes, sizeBytes, pool })
    return isSent && bytes.end === sizeBytes
  } finally {
    await handle.close()
  }
}

function readFrom(url: URL): number | undefined {
  const text = url.searchParams.get('from')
  if (text === null) return undefined
  if (/^\d{1,15}$/.test(text)) return Number(text)
  throw new KitError('invalid-input', 'Cannot send this file: from is a whole number of bytes')
}

/** The status and headers of an answer; nothing goes out before the first byte or `end`. */
function writeHead(
  response: ServerResponse,
  selection: Selection,
  served: ServedFile & { etag: string },
): void {
  response.setHeader('ETag', served.etag)
  response.setHeader('Accept-Ranges', 'bytes')
  response.setHeader('Content-Type', served.contentType)
  switch (selection.kind) {
    case 'whole':
      response.setHeader('Content-Length', served.sizeBytes)
      return
    case 'part':
      response.statusCode = 206
      response.setHeader('Content-Length', selection.last - selection.first + 1)
      response.setHeader('Content-Range', `bytes ${selection.first}-${selection.last}/${served.sizeBytes}`)
      return
    case 'rest':
      response.setHeader('Accept-Ranges', 'none')
      response.setHeader('Content-Length', served.sizeBytes - selection.first)
      return
    case 'unsatisfiable':
      response.statusCode = 416
      response.setHeader('Content-Length', 0)
      response.setHeader('Content-Range', `bytes */${served.sizeBytes}`)
      return
    case 'not-modified':
      response.statusCode = 304
      return
    default:
      selection satisfies never
  }
}

/** `end` is exclusive. */
function bytesOf(selection: Selection, sizeBytes: number): { start: number; end: number } | undefined {
  if (selection.kind === 'whole') return { start: 0, end: sizeBytes }
  if (selection.kind === 'rest') return { start: selection.first, end: sizeBytes }
  return selection.kind === 'part' ? { start: selection.first, end: selection.last + 1 } : undefined
}

async function openUnchanged({ file, sizeBytes }: ServedFile): Promise<FileHandle> {
  const handle = await open(file).catch((cause: unknown) => {
    throw new KitError('unavailable', 'Cannot send this file: it cannot be read', { cause })
  })
  const { size } = await handle.stat()
  if (size === sizeBytes) return handle
  await handle.close()
  throw new KitError('unavailable', 'Cannot send this file: it has changed on disk', {
    cause: `${file}: ${size} bytes instead of ${sizeBytes}`,
  })
}

/** The same text for the same content: a file that was replaced or written to has another. */
async function identify(handle: FileHandle): Promise<string> {
  const { dev, ino, mtimeNs, size } = await handle.stat({ bigint: true })
  return `${dev}:${ino}:${mtimeNs}:${size}`
}

interface Sending {
  readonly handle: FileHandle
  readonly start: number
  readonly end: number
  readonly sizeBytes: number
  readonly pool: ChunkPool
}

async function sendBytes(response: ServerResponse, identity: string, sending: Sending): Promise<boolean> {
  const { handle, start, end, sizeBytes, pool } = sending
  const closed = new Promise<false>((resolve) => response.once('close', () => resolve(false)))
  for (let offset = start; offset < end; ) {
    const base = offset - (offset % pool.chunkBytes)
    const length = Math.min(pool.chunkBytes, sizeBytes - base)
    const key = `${identity}:${base}`
    if (pool.isCrowded && !pool.has(key)) {
      // Of its own, and small: what slow readers hold stays bounded by the number of connections.
      const few = await readFully(
        handle,
        Buffer.allocUnsafeSlow(Math.min(CROWDED_BYTES, end - offset)),
        offset,
      )
      if (response.destroyed || !(await Promise.race([written(response, few), closed]))) return false
      offset += few.length
      continue
    }
    const loan = await pool.borrow(key, async (buffer) => {
      return (await readFully(handle, buffer.subarray(0, length), base)).length
    })
    try {
      const bytes = loan.bytes.subarray(offset - base, end - base)
      if (response.destroyed || !(await Promise.race([written(response, bytes), closed]))) return false
      offset += bytes.length
    } finally {
      loan.giveBack()
    }
  }
  response.end()
  return true
}

/** Resolves when the kernel has taken the bytes, so that the buffer is free again; false when the client is gone. */
function written(response: ServerResponse, bytes: Buffer): Promise<boolean> {
  return new Promise((resolve) => response.write(bytes, (error) => resolve(!error)))
}

/** Fills the buffer from that position of the file on. */
async function readFully(handle: FileHandle, buffer: Buffer, position: number): Promise<Buffer> {
  for (let done = 0; done < buffer.length; ) {
    const { bytesRead } = await handle.read(buffer, done, buffer.length - done, position + done)
    if (bytesRead === 0) throw new KitError('unavailable', 'Cannot send this file: it became shorter')
    done += bytesRead
  }
  return buffer
}
