// Writing a merged overlay as a tar archive that is the same, byte by byte, on every machine.

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { constants } from 'node:fs'
import { type FileHandle, open, rm } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'

import * as tar from 'tar-stream'

import { temporaryPath } from '#lib/atomic-file.ts'
import { systemErrorCode } from '#lib/errors.ts'

import { comparePaths, type Entry, type FileEntry, isSameFile } from './entries.ts'

export interface PackedArchive {
  /** Under a temporary name; the caller renames or removes it. */
  readonly file: string
  /** sha256, hex. */
  readonly digest: string
  readonly sizeBytes: number
}

/** A file is no longer what it was when the layer was read: read the layer again. */
export class SourceChangedError extends Error {
  constructor(source: string) {
    super(`${source} changed while it was read`)
    this.name = 'SourceChangedError'
  }
}

/** 2000-01-01: no file's own time says anything after a checkout, and tar warns of files from 1970. */
const MTIME = new Date(946_684_800_000)

type ArchiveHeader = Parameters<tar.Pack['entry']>[0]
type ArchiveSink = ReturnType<tar.Pack['entry']>

const CHUNK_BYTES = 256 * 1024

/** Streams: no file is ever held in memory. On disk when it resolves. Throws SourceChangedError or the system's error. */
export async function packEntries(entries: readonly Entry[], directory: string): Promise<PackedArchive> {
  const file = temporaryPath(directory)
  const pack = tar.pack()
  const hash = createHash('sha256')
  let sizeBytes = 0
  async function* counted() {
    // streamx types its chunks as unknown; a pack gives nothing but bytes.
    for await (const chunk of pack as AsyncIterable<Buffer>) {
      hash.update(chunk)
      sizeBytes += chunk.length
      yield chunk
    }
  }
  const handle = await open(file, 'wx', 0o644)
  const tasks = [addAll(pack, entries), pipeline(counted, handle.createWriteStream({ flush: true }))]
  try {
    await Promise.all(tasks)
    return { file, digest: hash.digest('hex'), sizeBytes }
  } catch (error) {
    pack.destroy(error instanceof Error ? error : undefined)
    await Promise.allSettled(tasks)
    await rm(file, { force: true })
    throw error
  }
}

async function addAll(pack: tar.Pack, entries: readonly Entry[]): Promise<void> {
  const named = entries.map((entry) => ({ entry, name: archiveName(entry) }))
  for (const { entry, name } of named.sort((a, b) => comparePaths(a.name, b.name))) {
    if (entry.kind === 'file') await addFile(pack, name, entry)
    else await addEmpty(pack, headerOf(name, entry))
  }
  pack.finalize()
}

/** `etc/motd` deleted → `etc/.wh.motd` (OCI image specification, layer.md, "Whiteouts"). */
function archiveName({ kind, path }: Entry): string {
  return kind === 'delete' ? path.replace(/[^/]+$/, (name) => `.wh.${name}`) : path
}

function headerOf(name: string, entry: Entry): ArchiveHeader {
  const fixed = { name, mtime: MTIME, uname: '', gname: '' }
  if (entry.kind === 'delete') return { ...fixed, type: 'file', size: 0, mode: 0o644, uid: 0, gid: 0 }
  const { kind, uid, gid } = entry
  // tar-stream takes a mode of 0 for none at all and cuts these upper bits off again.
  const mode = constants.S_IFREG | entry.mode
  if (entry.kind === 'symlink') return { ...fixed, type: kind, mode, uid, gid, linkname: entry.target }
  return { ...fixed, type: kind, mode, uid, gid, size: entry.kind === 'file' ? entry.stats.size : 0 }
}

async function addEmpty(pack: tar.Pack, header: ArchiveHeader): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const sink = pack.entry(header, (error) => (error ? reject(error) : resolve()))
    sink.on('error', reject)
    sink.end(null)
  })
}

async function addFile(pack: tar.Pack, name: string, entry: FileEntry): Promise<void> {
  const handle = await openSource(entry)
  try {
    await checkSame(handle, entry)
    await new Promise<void>((resolve, reject) => {
      const sink = pack.entry(headerOf(name, entry), (error) => (error ? reject(error) : resolve()))
      sink.on('error', reject)
      copy(handle, sink, entry).then(() => sink.end(null), reject)
    })
    await checkSame(handle, entry)
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

/** Exactly as many bytes as the header says. */
async function copy(handle: FileHandle, sink: ArchiveSink, entry: FileEntry): Promise<void> {
  let left = entry.stats.size
  while (left > 0) {
    const { bytesRead, buffer } = await handle.read(Buffer.allocUnsafe(Math.min(left, CHUNK_BYTES)))
    if (bytesRead === 0) throw new SourceChangedError(entry.source)
    left -= bytesRead
    if (!sink.write(buffer.subarray(0, bytesRead)) && left > 0) await once(sink, 'drain')
  }
}
