// A disk with a cache of its own, which a power cut empties: all writes are noted, and those that were not flushed yet are
// partly undone. Format of the log: Linux Documentation/admin-guide/device-mapper/log-writes.rst, written by QEMU's blklogwrites.

import { type FileHandle, open, rename, rm, writeFile } from 'node:fs/promises'

import type { DiskSpec } from '#lab/qemu.ts'
import { makeDisk } from '#lab/vm.ts'

import { copySparse } from './machine-disk.ts'

const MAGIC = 0x6a736677736872n
const VERSION = 1n
const SECTOR_BYTES = 512

const FLAG_FLUSH = 1n
/** The write itself is on the medium when it is acknowledged. */
const FLAG_FORCED = 2n
const FLAG_DISCARD = 4n

interface LoggedWrite {
  readonly positionBytes: number
  readonly sizeBytes: number
  /** Where its data lies in the log; a discarded range has none, and reads as zeros. */
  readonly dataBytes: number | undefined
  readonly isForced: boolean
}

/** Before the machine is switched on: from here on its writes are noted. A disk that is not there is made, blank. */
export async function withWriteLog(disk: DiskSpec): Promise<DiskSpec> {
  await makeDisk(disk)
  await copySparse(disk.file, baseOf(disk))
  const superblock = Buffer.alloc(SECTOR_BYTES)
  superblock.writeBigUInt64LE(MAGIC, 0)
  superblock.writeBigUInt64LE(VERSION, 8)
  superblock.writeUInt32LE(SECTOR_BYTES, 24)
  await writeFile(logOf(disk), superblock)
  return { ...disk, writeLog: logOf(disk) }
}

/**
 * After the power was cut: what was flushed stays, of the later writes each stays or is lost, or the first sectors of it
 * stay. How many there were. `random` gives numbers from 0 up to 1.
 */
export async function loseUnflushed(disk: DiskSpec, random: () => number): Promise<number> {
  const log = await open(logOf(disk), 'r')
  const base = await open(baseOf(disk), 'r+')
  let unflushed: LoggedWrite[] = []
  let lost = 0
  try {
    for await (const entry of entriesOf(log)) {
      if (entry !== 'flush') {
        if (entry.isForced) await apply(entry, { log, base })
        else unflushed.push(entry)
        continue
      }
      for (const write of unflushed) await apply(write, { log, base })
      unflushed = []
    }
    for (const write of unflushed) {
      const sectors = keptSectors(write.sizeBytes / SECTOR_BYTES, random)
      if (sectors * SECTOR_BYTES < write.sizeBytes) lost += 1
      await apply({ ...write, sizeBytes: sectors * SECTOR_BYTES }, { log, base })
    }
  } finally {
    await Promise.all([log.close(), base.close()])
  }
  await rename(baseOf(disk), disk.file)
  await rm(logOf(disk), { force: true })
  return lost
}

function keptSectors(sectors: number, random: () => number): number {
  const fate = random()
  if (fate < 0.4) return 0
  return fate < 0.8 ? sectors : Math.floor(random() * sectors)
}

/** In the order in which QEMU sent them on; ends before one that the cut has left unfinished. */
async function* entriesOf(log: FileHandle): AsyncGenerator<LoggedWrite | 'flush'> {
  const { size } = await log.stat()
  const header = Buffer.alloc(SECTOR_BYTES)
  for (let position = SECTOR_BYTES; position + SECTOR_BYTES <= size; position += SECTOR_BYTES) {
    await log.read(header, 0, SECTOR_BYTES, position)
    const [sector, sectors, flags] = [0, 8, 16].map((offset) => header.readBigUInt64LE(offset))
    if (sector === undefined || sectors === undefined || flags === undefined) return
    if (flags & FLAG_FLUSH) yield 'flush'
    if (sectors === 0n) {
      if (flags === 0n) return // room that was set aside and not written
      continue
    }
    const sizeBytes = Number(sectors) * SECTOR_BYTES
    const isForced = (flags & FLAG_FORCED) !== 0n
    const write = { positionBytes: Number(sector) * SECTOR_BYTES, sizeBytes, isForced }
    if (flags & FLAG_DISCARD) {
      yield { ...write, dataBytes: undefined }
      continue
    }
    if (position + SECTOR_BYTES + sizeBytes > size) return
    yield { ...write, dataBytes: position + SECTOR_BYTES }
    position += sizeBytes
  }
}

async function apply(
  { positionBytes, sizeBytes, dataBytes }: LoggedWrite,
  { log, base }: { log: FileHandle; base: FileHandle },
): Promise<void> {
  const data = Buffer.alloc(sizeBytes)
  if (dataBytes !== undefined) await log.read(data, 0, sizeBytes, dataBytes)
  await base.write(data, 0, sizeBytes, positionBytes)
}

function baseOf({ file }: DiskSpec): string {
  return `${file}.before`
}

function logOf({ file }: DiskSpec): string {
  return `${file}.log`
}
