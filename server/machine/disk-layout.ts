// The partitions of a disk and where each begins: docs/disk.md, "Partitions".

import type { PartitionPlan } from './ports.ts'

/** What makers call 8 GB. */
export const SMALLEST_DISK_BYTES = 8_000_000_000

const MIB = 1024 * 1024
const SECTORS_PER_MIB = MIB / 512
const CONTAINERS_MAX_MIB = 256 * 1024
/** The last one stays free for the second copy of the table. */
const TAIL_MIB = 1

const BIOS_BOOT = '21686148-6449-6E6F-744E-656564454649'
const ESP = 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B'
/** Not the types of root file systems, which systemd would look for by itself: everything here is found by its label. */
const LINUX_DATA = '0FC63DAF-8483-4772-8E79-3D69D8477DE4'

interface Fixed {
  readonly label: string
  readonly sizeMib: number
  readonly typeGuid: string
}

const FIXED: readonly Fixed[] = [
  { label: 'kit-bios', sizeMib: 1, typeGuid: BIOS_BOOT },
  { label: 'kit-esp', sizeMib: 511, typeGuid: ESP },
  { label: 'kit-root-a', sizeMib: 2048, typeGuid: LINUX_DATA },
  { label: 'kit-verity-a', sizeMib: 32, typeGuid: LINUX_DATA },
  { label: 'kit-root-b', sizeMib: 2048, typeGuid: LINUX_DATA },
  { label: 'kit-verity-b', sizeMib: 32, typeGuid: LINUX_DATA },
  { label: 'kit-overlay', sizeMib: 1024, typeGuid: LINUX_DATA },
]

/** What a powerwash keeps. */
export const PERSISTENCE_LABEL = 'kit-persist'
export const LABELS: readonly string[] = [
  ...FIXED.map(({ label }) => label),
  'kit-containers',
  PERSISTENCE_LABEL,
]

/** In order, without gaps. The disk is not smaller than the smallest one. */
export function layOut(diskBytes: number): readonly PartitionPlan[] {
  const fixedMib = FIXED.reduce((sum, { sizeMib }) => sum + sizeMib, 1)
  const restMib = Math.floor(diskBytes / MIB) - TAIL_MIB - fixedMib
  const containersMib = Math.min(Math.floor(restMib / 3), CONTAINERS_MAX_MIB)
  const all = [
    ...FIXED,
    { label: 'kit-containers', sizeMib: containersMib, typeGuid: LINUX_DATA },
    { label: PERSISTENCE_LABEL, sizeMib: restMib - containersMib, typeGuid: LINUX_DATA },
  ]
  let nextMib = 1
  return all.map(({ label, sizeMib, typeGuid }) => {
    const firstSector = nextMib * SECTORS_PER_MIB
    nextMib += sizeMib
    return { label, firstSector, sectors: sizeMib * SECTORS_PER_MIB, typeGuid }
  })
}

export function partitionBytes({ sectors }: PartitionPlan): number {
  return sectors * 512
}
