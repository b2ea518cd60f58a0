// `node unpack-initrd.ts FILE FOLDER` unpacks an initrd as the kernel does (Linux: init/initramfs.c, unpack_to_rootfs), and
// refuses what the kernel would, and what it would take but nobody should make: a file twice, a folder that is not there yet.
// Prints a line per archive: where it begins, its bytes, how many entries it has.

import { chmodSync, lstatSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { zstdDecompressSync } from 'node:zlib'

const HEADER_BYTES = 110
const ZSTD_MAGIC = 0xfd2fb528
/** Linux: lib/decompress_unzstd.c, ZSTD_WINDOWSIZE_MAX. */
const MOST_WINDOW_BYTES = 8 * 1024 ** 2
const KIND = 0o170_000
const [DIRECTORY, FILE, LINK] = [0o040_000, 0o100_000, 0o120_000]

const [file = '', folder = ''] = process.argv.slice(2)

const after4 = (at: number) => Math.ceil(at / 4) * 4

/** Where the frame that begins at `start` ends (RFC 8878, 3.1.1). */
function zstdFrameEnd(bytes: Buffer, start: number): number {
  const descriptor = bytes.readUInt8(start + 4)
  const isSingleSegment = (descriptor & 0x20) !== 0
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] ?? 0
  const sizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0
  let at = start + 5
  if (!isSingleSegment) {
    const window = bytes.readUInt8(at++)
    const base = 2 ** (10 + (window >> 3))
    checkWindow(base + (base / 8) * (window & 7), start)
  }
  at += dictionaryBytes
  if (isSingleSegment) {
    const size = bytes.readUIntLE(at, Math.min(sizeBytes, 6))
    checkWindow(sizeBytes === 2 ? size + 256 : size, start)
  }
  at += sizeBytes
  for (let isLast = false; !isLast; ) {
    const header = bytes.readUIntLE(at, 3)
    isLast = (header & 1) === 1
    at += 3 + (((header >> 1) & 3) === 1 ? 1 : header >> 3)
  }
  return at + ((descriptor & 4) === 0 ? 0 : 4)
}

function checkWindow(windowBytes: number, start: number): void {
  if (windowBytes > MOST_WINDOW_BYTES)
    throw new Error(`the archive at ${start} needs a window of ${windowBytes} bytes`)
}

/** Unpacks the archive that begins at `start`. Returns where it ends and how many entries it has. */
function unpackArchive(bytes: Buffer, start: number): { end: number; entries: number } {
  let at = start
  for (let entries = 0; ; entries++) {
    if (bytes.toString('latin1', at, at + 6) !== '070701') throw new Error(`no header at ${at}`)
    const fields = Array.from({ length: 13 }, (_, index) =>
      Number.parseInt(bytes.toString('latin1', at + 6 + index * 8, at + 14 + index * 8), 16),
    )
    const [, mode = 0, uid, gid, links, , sizeBytes = 0, , , , , nameBytes = 0] = fields
    const nameEnd = at + HEADER_BYTES + nameBytes
    const name = bytes.toString('utf8', at + HEADER_BYTES, nameEnd - 1)
    const content = bytes.subarray(after4(nameEnd), after4(nameEnd) + sizeBytes)
    if (content.length !== sizeBytes) throw new Error(`${name} is cut off`)
    at = after4(after4(nameEnd) + sizeBytes)
    if (name === 'TRAILER!!!') return { end: at, entries }
    if (uid !== 0 || gid !== 0) throw new Error(`${name} is not owned by root`)
    if ((mode & KIND) !== DIRECTORY && links !== 1) throw new Error(`${name} has several names`)
    makeEntry(name, mode, content)
  }
}

function makeEntry(name: string, mode: number, content: Buffer): void {
  const path = join(folder, name)
  if ((mode & KIND) === DIRECTORY && name === '.') return
  if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) throw new Error(`${name} is there twice`)
  const kind = mode & KIND
  if (kind === LINK) symlinkSync(content.toString(), path)
  else if (kind === FILE) writeFileSync(path, content)
  else if (kind === DIRECTORY) mkdirSync(path)
  else throw new Error(`${name} is something else: mode ${mode.toString(8)}`)
  if (kind !== LINK) chmodSync(path, mode & 0o7777)
}

function skipZeros(bytes: Buffer, start: number): number {
  let at = start
  while (bytes[at] === 0) at++
  return at
}

const bytes = readFileSync(file)
for (let at = skipZeros(bytes, 0); at < bytes.length; ) {
  let end: number
  let entries: number
  if (bytes[at] === 0x30 && at % 4 === 0) ({ end, entries } = unpackArchive(bytes, at))
  else if (bytes.readUInt32LE(at) === ZSTD_MAGIC) {
    end = zstdFrameEnd(bytes, at)
    const plain = zstdDecompressSync(bytes.subarray(at, end))
    const archive = unpackArchive(plain, 0)
    entries = archive.entries
    if (skipZeros(plain, archive.end) !== plain.length)
      throw new Error(`junk at the end of the compressed archive at ${at}`)
  } else throw new Error(`no archive at ${at}`)
  process.stdout.write(`${at} ${end - at} ${entries}\n`)
  at = skipZeros(bytes, end)
}
