// Writing a merged overlay as a tar archive that is the same, byte by byte, on every machine.

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { constants } from 'node:fs'
import { type FileHandle, open, rm } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'

import * as tar from 'tar-stream'

import { temporaryPath } from '#lib/atomic-file.ts'

import { comparePaths, type Entry, type FileEntry } from './entries.ts'
import { SourceChangedError, withSource } from './source-file.ts'

export interface PackedArchive {
  /** Under a temporary name; the caller renames or removes it. */
  readonly file: string
  /** sha256, hex. */
  readonly digest: string
  readonly sizeBytes: number
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
  const addFile: AddFile = (name, entry) => addSource(pack, headerOf(name, entry, entry.stats.size), entry)
  const tasks = [addAll(pack, entries, addFile), pipeline(counted, handle.createWriteStream({ flush: true }))]
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

/** A file whose content is in memory already. */
export interface LoadedFile {
  readonly entry: FileEntry
  readonly content: Uint8Array
}

/** The same archive in memory, for what must not be written down. */
export async function packLoaded(
  entries: readonly Exclude<Entry, FileEntry>[],
  files: readonly LoadedFile[],
): Promise<Buffer> {
  const contents = new Map<Entry, Uint8Array>(files.map(({ entry, content }) => [entry, content]))
  const pack = tar.pack()
  const adding = addAll(pack, [...entries, ...files.map(({ entry }) => entry)], (name, entry) => {
    const content = contents.get(entry) ?? new Uint8Array()
    return addContent(pack, headerOf(name, entry, content.length), Buffer.from(content))
  })
  const chunks: Buffer[] = []
  // streamx types its chunks as unknown; a pack gives nothing but bytes.
  for await (const chunk of pack as AsyncIterable<Buffer>) chunks.push(chunk)
  await adding
  return Buffer.concat(chunks)
}

type AddFile = (name: string, entry: FileEntry) => Promise<void>

async function addAll(pack: tar.Pack, entries: readonly Entry[], addFile: AddFile): Promise<void> {
  const named = entries.map((entry) => ({ entry, name: archiveName(entry) }))
  for (const { entry, name } of named.sort((a, b) => comparePaths(a.name, b.name))) {
    if (entry.kind === 'file') await addFile(name, entry)
    else await addContent(pack, headerOf(name, entry), null)
  }
  pack.finalize()
}

/** `etc/motd` deleted → `etc/.wh.motd` (OCI image specification, layer.md, "Whiteouts"). */
function archiveName({ kind, path }: Entry): string {
  return kind === 'delete' ? path.replace(/[^/]+$/, (name) => `.wh.${name}`) : path
}

function headerOf(name: string, entry: Entry, sizeBytes = 0): ArchiveHeader {
  const fixed = { name, mtime: MTIME, uname: '', gname: '' }
  if (entry.kind === 'delete') return { ...fixed, type: 'file', size: 0, mode: 0o644, uid: 0, gid: 0 }
  const { kind, uid, gid } = entry
  // tar-stream takes a mode of 0 for none at all and cuts these upper bits off again.
  const mode = constants.S_IFREG | entry.mode
  if (entry.kind === 'symlink') return { ...fixed, type: kind, mode, uid, gid, linkname: entry.target }
  return { ...fixed, type: kind, mode, uid, gid, size: sizeBytes }
}

async function addContent(pack: tar.Pack, header: ArchiveHeader, content: Buffer | null): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const sink = pack.entry(header, (error) => (error ? reject(error) : resolve()))
    sink.on('error', reject)
    sink.end(content)
  })
}

async function addSource(pack: tar.Pack, header: ArchiveHeader, entry: FileEntry): Promise<void> {
  await withSource(
    entry,
    (handle) =>
      new Promise<void>((resolve, reject) => {
        const sink = pack.entry(header, (error) => (error ? reject(error) : resolve()))
        sink.on('error', reject)
        copy(handle, sink, entry).then(() => sink.end(null), reject)
      }),
  )
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
