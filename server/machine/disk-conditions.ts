// The setting `disk`: which disk a machine is installed on. docs/disk.md, "Which disk".

import { describeBytes, findBytes } from './amounts.ts'
import type { Disk } from './machine.ts'

const TRANSPORTS = ['nvme', 'sata', 'sas', 'usb', 'mmc', 'virtio', 'scsi']

/** Whether a disk is as one condition wants it; undefined when the words are no condition. */
type Condition = (disk: Disk) => boolean

export const DISK_CONDITIONS_EXPECTED =
  'conditions such as serial=S4EV, wwn=0x5000, model=Samsung*, transport=nvme, size=100G-600G, size=>=100G or size=<=2T, separated by blanks'

/** Undefined when one of them is none. */
export function findDiskConditions(text: string): readonly Condition[] | undefined {
  const conditions = text
    .split(/\s+/)
    .filter((word) => word !== '')
    .map(findCondition)
  const found = conditions.filter((condition) => condition !== undefined)
  return found.length === conditions.length && found.length > 0 ? found : undefined
}

function findCondition(word: string): Condition | undefined {
  const [, key = '', value = ''] = /^([a-z]+)=(.+)$/.exec(word) ?? []
  const wanted = value.toLowerCase()
  switch (key) {
    case 'serial':
      return (disk) => disk.serial?.trim().toLowerCase() === wanted
    case 'wwn':
      return (disk) => disk.wwn?.trim().toLowerCase() === wanted
    case 'model': {
      const pattern = globPattern(wanted)
      return (disk) => pattern.test(disk.model?.trim().toLowerCase() ?? '')
    }
    case 'transport':
      return TRANSPORTS.includes(value) ? (disk) => disk.transport === value : undefined
    case 'size':
      return findSizeCondition(value)
    default:
      return undefined
  }
}

/** `*` is any text. A model may have blanks, which cannot stand in a condition: `*` is for them too. */
function globPattern(glob: string): RegExp {
  const parts = glob.split('*').map((part) => part.replace(/[\\^$.|?+()[\]{}]/g, '\\$&'))
  return new RegExp(`^${parts.join('.*')}$`, 's')
}

function findSizeCondition(value: string): Condition | undefined {
  const [, low, high] = /^([^-<>=]+)-([^-<>=]+)$/.exec(value) ?? []
  const least = findBytes(low ?? (value.startsWith('>=') ? value.slice(2) : ''))
  const most = findBytes(high ?? (value.startsWith('<=') ? value.slice(2) : ''))
  if (least === undefined && most === undefined) return undefined
  if (low !== undefined && (least === undefined || most === undefined || least > most)) return undefined
  return ({ sizeBytes }) => sizeBytes >= (least ?? 0) && sizeBytes <= (most ?? Number.POSITIVE_INFINITY)
}

/** `vda (21.5 GB, virtio, serial X)`: what tells a disk from others. */
export function describeDisk(disk: Disk): string {
  const facts = [
    describeBytes(disk.sizeBytes),
    disk.transport,
    ...(disk.removable ? ['removable'] : []),
    ...(disk.model === undefined ? [] : [disk.model.trim()]),
    ...(disk.serial === undefined ? [] : [`serial ${disk.serial.trim()}`]),
    ...(disk.wwn === undefined ? [] : [`wwn ${disk.wwn.trim()}`]),
  ]
  return `${disk.name} (${facts.join(', ')})`
}
