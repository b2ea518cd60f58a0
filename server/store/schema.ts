// The tables as TypeScript sees them. The SQL that makes them is in migrations.ts.

import type { Generated } from 'kysely'

import type { Ipv4 } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'
import type { EventKind } from '#machine/event.ts'
import type { MachineState } from '#machine/lifecycle.ts'
import type { Boot, Firmware } from '#machine/machine.ts'
import type { Lease, TokenRole } from '#machine/ports.ts'

export interface MachineRow {
  mac: Mac
  state: MachineState
  state_since_ms: number
  first_seen_ms: number
  last_seen_ms: number
  last_check_in_ms: number | null
  uuid: string | null
  firmware: Firmware | null
  address: Ipv4 | null
  boot_id: string | null
  image_version: string | null
  bundle_digest: string | null
  /** A JSON array of strings. */
  reboot_reasons: string
}

export interface BootRow {
  id: string
  mac: Mac
  minted_ms: number
  plan: Boot['plan']
}

export interface EventRow {
  id: Generated<number>
  at_ms: number
  kind: EventKind
  mac: Mac | null
  message: string
  /** A JSON object. */
  data: string
}

export interface LeaseRow {
  ip: Ipv4
  client_key: string
  mac: Mac
  hostname: string | null
  expires_ms: number
  kind: Lease['kind']
}

export interface TokenRow {
  id: string
  name: string
  role: TokenRole
  created_ms: number
  /** sha256 of the secret part, hex. */
  secret_sha256: string
}

export interface MigrationRow {
  position: number
  name: string
  applied_ms: number
}

export interface Schema {
  machines: MachineRow
  boots: BootRow
  events: EventRow
  leases: LeaseRow
  tokens: TokenRow
  kit_migrations: MigrationRow
}
