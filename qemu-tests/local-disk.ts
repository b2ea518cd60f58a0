// A disk that an unknown machine might have: foreign data, and a boot sector that says on the console that it runs.

import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'

export const LOCAL_DISK_GREETING = 'local disk started'

const DISK_BYTES = 16 * 1024 * 1024
const SECTOR_BYTES = 512

/** 16-bit code at 0x7c00: prints the text behind it on the first serial port (0x3f8), then halts. */
const BOOT_CODE = [
  0xfc, // cld
  ...[0x31, 0xc0], // xor ax, ax
  ...[0x8e, 0xd8], // mov ds, ax
  ...[0xbe, 0x22, 0x7c], // mov si, 0x7c22: the text, right behind this code
  0xac, // next: lodsb
  ...[0x84, 0xc0], // test al, al
  ...[0x74, 0x12], // jz halt
  ...[0x88, 0xc3], // mov bl, al
  ...[0xba, 0xfd, 0x03], // mov dx, 0x3fd: line status
  0xec, // wait: in al, dx
  ...[0xa8, 0x20], // test al, 0x20: transmitter empty
  ...[0x74, 0xfb], // jz wait
  ...[0x88, 0xd8], // mov al, bl
  ...[0xba, 0xf8, 0x03], // mov dx, 0x3f8: data
  0xee, // out dx, al
  ...[0xeb, 0xe9], // jmp next
  0xf4, // halt: hlt
  ...[0xeb, 0xfd], // jmp halt
]

/** A whole disk with the boot sector and a pattern behind it, so that a write anywhere shows. */
export async function makeLocalDisk(file: string): Promise<void> {
  const disk = Buffer.alloc(DISK_BYTES)
  for (let offset = SECTOR_BYTES; offset < DISK_BYTES; offset += 4) disk.writeUInt32LE(offset, offset)
  Buffer.from(BOOT_CODE).copy(disk)
  disk.write(`\r\n${LOCAL_DISK_GREETING}\r\n\0`, BOOT_CODE.length, 'latin1')
  disk.writeUInt16LE(0xaa55, SECTOR_BYTES - 2)
  await writeFile(file, disk)
}

export async function digestOf(file: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(file), hash)
  return hash.digest('hex')
}
