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
}

/** One boot that was offered to a machine: minted with its boot script, named in everything that boot says. */
export interface Boot {
  readonly id: string
  readonly mac: Mac
  readonly mintedMs: number
  readonly plan: 'live' | 'local-disk' | 'hold'
}
