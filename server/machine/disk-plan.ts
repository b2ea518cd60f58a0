// Which disk a machine is installed on, and whether that may be: docs/disk.md, "Which disk".

import { describeDisk, findDiskConditions } from './disk-conditions.ts'
import { LABELS, layOut, SMALLEST_DISK_BYTES } from './disk-layout.ts'
import type { Disk } from './machine.ts'
import type { DiskPlan } from './ports.ts'
import type { Profile } from './profile.ts'

export interface DiskWish {
  readonly disks: readonly Disk[]
  readonly profile: Profile
  readonly persistence: 'keep' | 'wipe'
  /** Kernel arguments of the slot. */
  readonly arguments: string
}

type Choice = { readonly disk: Disk } | { readonly problems: readonly string[] }

/** All of what is wrong at once. Never a disk that somebody could not have meant. */
export function decideDiskPlan(wish: DiskWish): DiskPlan {
  if (wish.profile.role === undefined) {
    return { kind: 'refused', lines: ['Cannot choose a disk: this machine has no role'] }
  }
  const choice = chooseDisk(wish)
  if ('problems' in choice) return { kind: 'refused', lines: choice.problems }
  const { disk } = choice
  const problems = [
    ...(disk.sizeBytes < SMALLEST_DISK_BYTES ? [tooSmall(disk)] : []),
    ...foreignContents(disk, wish.profile),
    ...otherDisksOfOurs(disk, wish.disks),
  ]
  if (problems.length > 0) return { kind: 'refused', lines: problems }
  const isKept = isOurs(disk)
  return {
    kind: 'use',
    disk,
    table: isKept ? 'keep' : 'make',
    partitions: isKept ? [] : layOut(disk.sizeBytes),
    // Behind a new table lies what was there before: nothing of it is ours.
    persistence: isKept ? wish.persistence : 'wipe',
    arguments: wish.arguments,
  }
}

/** Its table has all nine labels, each once. Some of them only: somebody else's table, or a damaged one. */
function isOurs({ contents }: Disk): boolean {
  return LABELS.every((label) => contents.filter((content) => content.label === label).length === 1)
}

export function isBlank({ contents }: Disk): boolean {
  return contents.length === 0
}

function chooseDisk({ disks, profile }: DiskWish): Choice {
  const words = profile.settings.get('disk')
  // Words that are no conditions hold for no disk; the profile tree has refused them before.
  const conditions = words && (findDiskConditions(words.value) ?? [() => false])
  const candidates = conditions
    ? disks.filter((disk) => conditions.every((holds) => holds(disk)))
    : disks.filter((disk) => findHindrance(disk) === undefined)
  const [disk, ...others] = candidates
  if (disk !== undefined && others.length === 0) return { disk }
  const asked = words ? `for which ${words.value} holds (${words.file})` : 'that could be meant'
  const found = candidates.length === 0 ? 'there is no disk' : `there are ${candidates.length} disks`
  const fix = words
    ? 'change the setting disk so that it names one'
    : 'say which one by the setting disk, such as serial=… or transport=nvme'
  return { problems: [`Cannot choose a disk: ${found} ${asked}; ${fix}`, ...listDisks(disks)] }
}

/** Why a disk that nobody named is not taken. */
function findHindrance(disk: Disk): string | undefined {
  if (disk.removable) return 'removable'
  if (disk.transport === 'usb') return 'on USB'
  return disk.sizeBytes < SMALLEST_DISK_BYTES ? 'smaller than 8 GB' : undefined
}

function listDisks(disks: readonly Disk[]): readonly string[] {
  if (disks.length === 0) return ['The machine reported no disk at all']
  return disks.map((disk) => {
    const hindrance = findHindrance(disk)
    const aside = hindrance === undefined ? '' : `; ${hindrance}, so only by the setting disk`
    return `There is ${describeDisk(disk)}: ${describeContents(disk)}${aside}`
  })
}

/** One line on what lies there. */
export function describeContents(disk: Disk): string {
  if (isOurs(disk)) return "KatesKit's"
  if (isBlank(disk)) return disk.table === undefined ? 'blank' : `an empty ${disk.table} table`
  const found = disk.contents.map(({ where, label, type }) =>
    [where, type ?? 'of unknown content', ...(label === undefined ? [] : [`"${label}"`])].join(' '),
  )
  const shown = found.slice(0, CONTENTS_SHOWN)
  return [...shown, ...(found.length > shown.length ? [`${found.length - shown.length} more`] : [])].join(
    ', ',
  )
}

const CONTENTS_SHOWN = 12

function tooSmall(disk: Disk): string {
  return `Cannot use ${describeDisk(disk)}: the smallest disk is 8 GB`
}

function foreignContents(disk: Disk, profile: Profile): readonly string[] {
  if (isOurs(disk) || isBlank(disk) || profile.settings.get('wipe')?.value === 'force') return []
  const found = describeContents(disk)
  return [
    `Cannot wipe ${describeDisk(disk)}: there is something on it: ${found}`,
    'Look whether it is still needed; then wipe it, or put force into the setting wipe of this machine',
  ]
}

/** Partitions are found by their labels, which would then be there twice. */
function otherDisksOfOurs(chosen: Disk, disks: readonly Disk[]): readonly string[] {
  return disks
    .filter((disk) => disk !== chosen && isOurs(disk))
    .map(
      (disk) =>
        `Cannot use ${describeDisk(chosen)}: ${describeDisk(disk)} has KatesKit's partitions too; wipe that one or take it out`,
    )
}
