// The disks of test machines, seen from the host while the machine is off.

import { createHash } from 'node:crypto'
import { open, stat } from 'node:fs/promises'

import { commandOutput } from '#lib/process.ts'

const SECTOR_BYTES = 512
const MIB = 1024 ** 2

/** How much of each end of a disk `fingerprint` reads. */
const END_BYTES = 32 * MIB

interface PartitionTable {
  readonly partitiontable: {
    readonly partitions: readonly { readonly name?: string; readonly start: number; readonly size: number }[]
  }
}

/** GPT labels in the order of the table. Throws KitError when there is no table. */
export async function partitionLabels(file: string): Promise<readonly string[]> {
  return (await readTable(file)).map(({ name }) => name ?? '')
}

/** A disk that somebody else uses: a table with a file system and data in it. */
export async function makeForeignDisk(file: string, sizeBytes: number): Promise<void> {
  const handle = await open(file, 'w')
  try {
    await handle.truncate(sizeBytes)
  } finally {
    await handle.close()
  }
  await commandOutput('sfdisk', ['--quiet', file], {
    input: 'label: gpt\nstart=2048, size=65536, name="somebody-elses"\n',
  })
  await commandOutput('mkfs.ext4', ['-q', '-F', '-E', `offset=${2048 * SECTOR_BYTES}`, file, '32M'])
}

/** Changes with any write: what lies at both ends, and how much of the sparse file is there at all. */
export async function fingerprint(file: string): Promise<string> {
  const { size, blocks } = await stat(file)
  const hash = createHash('sha256').update(String(blocks))
  const handle = await open(file, 'r')
  try {
    for (const position of [0, size - END_BYTES]) {
      const buffer = Buffer.alloc(END_BYTES)
      await handle.read(buffer, 0, END_BYTES, position)
      hash.update(buffer)
    }
  } finally {
    await handle.close()
  }
  return hash.digest('hex')
}

export interface Damage {
  readonly label: string
  /** From the partition's start. */
  readonly fromBytes: number
  readonly toBytes: number
  /** One byte in each so many is changed. */
  readonly everyBytes: number
}

export async function damagePartition(file: string, damage: Damage): Promise<void> {
  const partition = (await readTable(file)).find(({ name }) => name === damage.label)
  if (partition === undefined) throw new Error(`Cannot damage ${damage.label}: ${file} has no such partition`)
  const start = partition.start * SECTOR_BYTES
  const handle = await open(file, 'r+')
  try {
    for (let at = damage.fromBytes; at < damage.toBytes; at += damage.everyBytes) {
      const byte = Buffer.alloc(1)
      await handle.read(byte, 0, 1, start + at)
      await handle.write(Buffer.of((byte[0] ?? 0) ^ 0xff), 0, 1, start + at)
    }
  } finally {
    await handle.close()
  }
}

async function readTable(file: string): Promise<PartitionTable['partitiontable']['partitions']> {
  const table = JSON.parse(await commandOutput('sfdisk', ['--json', file])) as PartitionTable
  return table.partitiontable.partitions
}

/** Files or folders; what is not written in a sparse file stays so. */
export async function copySparse(from: string, to: string): Promise<void> {
  await commandOutput('cp', ['--archive', '--sparse=always', '--reflink=auto', from, to])
}
