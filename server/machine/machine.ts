// What the server knows of one computer.

import type { Ipv4 } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'

import type { MachineState } from './lifecycle.ts'

/** The processor and firmware a loader is chosen for (RFC 4578 §2.1 and the IANA "Processor Architecture Types"). */
export type Firmware = 'bios' | 'uefi-ia32' | 'uefi-x64' | 'uefi-arm64' | 'unknown'

export interface Machine {
  readonly mac: Mac
  readonly state: MachineState
  /** When `state` last changed. All times: milliseconds since 1970. */
  readonly stateSinceMs: number
  readonly firstSeenMs: number
  readonly lastSeenMs: number
  /** Absent until the machine itself has reported in. */
  readonly lastCheckInMs?: number
  /** SMBIOS UUID in text form; absent when the machine sent none or all zeros. */
  readonly uuid?: string
  readonly firmware?: Firmware
  /** The address it last reported from. */
  readonly address?: Ipv4
  /** The boot whose check-ins are believed; see boot.ts. */
  readonly bootId?: string
  /** What it says it runs. */
  readonly imageVersion?: string
  readonly bundleDigest?: string
  /** Why the running system must reboot to have its bundle in full; empty when it need not. */
  readonly rebootReasons: readonly string[]
  /** Set by its own check-in: `false` from the moment its disk is made new until a slot of it runs; absent when it never had a disk of ours. */
  readonly isInstalled?: boolean
  /** The slot it runs from; absent in a live boot. */
  readonly slot?: SlotName
  readonly slots?: Slots
  /** The machine's own checks of the boot it runs. */
  readonly checks?: Checks
  /** Why its checks failed, or what else it wants known. */
  readonly reason?: string
  /** Files of the running root that differ from the bundle. */
  readonly drift?: readonly string[]
  /** What it reported last of its disks. */
  readonly disks?: readonly Disk[]
  /** Asked for, not yet begun. */
  readonly powerwash?: PowerwashRequest
  /** What has to be known of earlier powerwashes so that each request makes one and only one. */
  readonly powerwashes?: PowerwashMemory
}

export interface PowerwashMemory {
  /** The word of the setting `powerwash` that was carried out last, or taken back. */
  readonly word?: string
  /** Those offered until then were taken back. */
  readonly cancelledMs?: number
  /** One that wipes persistence has begun, and nothing has started from the disk since. */
  readonly isWiping?: true
  /** The boot that was told to start from the network for it. */
  readonly toldBoot?: string
}

export const SLOT_NAMES = ['a', 'b'] as const
export type SlotName = (typeof SLOT_NAMES)[number]

/** docs/disk.md, "Slot states". */
export const SLOT_STATES = ['empty', 'writing', 'ready', 'trying', 'good', 'bad'] as const
export type SlotState = (typeof SLOT_STATES)[number]

export interface Slot {
  readonly state: SlotState
  readonly image?: string
  readonly bundle?: string
  readonly tries?: number
  readonly reason?: string
}

export type Slots = Readonly<Record<SlotName, Slot>>

export const CHECKS = ['waiting', 'passed', 'failed'] as const
export type Checks = (typeof CHECKS)[number]

/** One disk as the machine's initrd sees it. */
export interface Disk {
  /** `vda`, `nvme0n1`. */
  readonly name: string
  readonly sizeBytes: number
  readonly removable: boolean
  /** `nvme`, `sata`, `sas`, `usb`, `mmc`, `virtio`, `scsi`, or `unknown`. */
  readonly transport: string
  readonly serial?: string
  readonly wwn?: string
  readonly model?: string
  /** Kind of the partition table, as blkid says: `gpt`, `dos`. */
  readonly table?: string
  /** What was found on the disk itself and on its partitions; empty for a blank disk. */
  readonly contents: readonly DiskContent[]
}

export interface DiskContent {
  /** `vda` itself or `vda1`. */
  readonly where: string
  /** The partition's GPT label. */
  readonly label?: string
  /** File system or whatever blkid recognised. */
  readonly type?: string
}

export interface PowerwashRequest {
  readonly requestedMs: number
  readonly persistence: 'keep' | 'wipe'
}

/** One boot that was offered to a machine: minted with its boot script, named in everything that boot says. */
export interface Boot {
  readonly id: string
  readonly mac: Mac
  readonly mintedMs: number
  /** `disk`: it started by itself, from its own disk. */
  readonly plan: 'live' | 'install' | 'powerwash' | 'powerwash-all' | 'local-disk' | 'hold' | 'disk'
  /** The key (sha256, hex) of the machine that used it first: it is of use to no other. */
  readonly keySha256?: string
}
