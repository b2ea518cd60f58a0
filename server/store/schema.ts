// The tables as TypeScript sees them. The SQL that makes them is in migrations.ts.

import type { Generated } from 'kysely'

import type { Ipv4 } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'
import type { TokenRole } from '#machine/access-ports.ts'
import type { GrantRecord, NodeAction, NodeRecord, NodeRole } from '#machine/cluster-ports.ts'
import type { EventKind } from '#machine/event.ts'
import type { Tier } from '#machine/identity.ts'
import type { Lease } from '#machine/lease-ports.ts'
import type { MachineState } from '#machine/lifecycle.ts'
import type { Boot, Checks, Firmware, SlotName } from '#machine/machine.ts'

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
  /** 0 or 1. */
  is_installed: number | null
  slot: SlotName | null
  /** JSON, as are the others without a type of their own. */
  slots: string | null
  checks: Checks | null
  reason: string | null
  drift: string | null
  disks: string | null
  powerwash: string | null
  powerwashes: string | null
}

export interface BootRow {
  id: string
  mac: Mac
  minted_ms: number
  plan: Boot['plan']
  /** Of the key that used it first. */
  key_sha256: string | null
}

export interface IdentityRow {
  mac: Mac
  /** A JSON array of strings. */
  macs: string
  uuid: string | null
  tier: Tier
  key_sha256: string
  ek_sha256: string | null
  since_ms: number
  by_whom: string
  certificate_until_ms: number
  /** 0 or 1. */
  is_kept: number
}

export interface ApprovalRow {
  ek_sha256: string
  by_whom: string
  since_ms: number
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
  expires_ms: number | null
  last_used_ms: number | null
  revoked_ms: number | null
}

export interface AuditRow {
  /** Given by us, not by SQLite: no gap. */
  id: number
  at_ms: number
  actor: string
  action: string
  target: string
  outcome: string
  detail: string
  hash: string
}

export interface ChannelRow {
  name: string
  version: string | null
  /** A JSON array of strings. */
  previous: string
  /** 0 or 1. */
  is_paused: number
  changed_ms: number
}

export interface PinRow {
  mac: Mac
  version: string
}

export interface QuarantineRow {
  version: string
  mac: Mac
  reason: string
  since_ms: number
}

export interface FailureRow {
  version: string
  mac: Mac
  reason: string
  at_ms: number
}

export interface LockRow {
  holder: string
  channel: string
  version: string | null
  since_ms: number
}

export interface ClusterRow {
  /** 1: there is one at most. */
  position: number
  id: string
  name: string
  endpoint: string
  /** 0 or 1, as `is_up`. */
  is_adopted: number
  founder: Mac | null
  is_up: number
  since_ms: number
  restore_from: string | null
}

export interface NodeRow {
  mac: Mac
  name: string
  role: NodeRole
  /** `index`, which is a word of SQL. */
  number: number
  state: NodeRecord['state']
  version: string
  /** 0 or 1. */
  has_joined: number
  drained_boot: string | null
  reason: string | null
  since_ms: number
  machine_id: string | null
}

export interface RemovedNodeRow {
  mac: Mac
  name: string
  machine_id: string
  at_ms: number
}

export interface GrantRow {
  boot: string
  mac: Mac
  key_sha256: string
  action: NodeAction
  /** The part of the token that is no secret. */
  token_id: string | null
  kubelet_key: string | null
  snapshot: string | null
  version: string
  issued_ms: number
  expires_ms: number
  state: GrantRecord['state']
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
  audit: AuditRow
  channels: ChannelRow
  pins: PinRow
  quarantines: QuarantineRow
  failures: FailureRow
  locks: LockRow
  identities: IdentityRow
  approvals: ApprovalRow
  clusters: ClusterRow
  nodes: NodeRow
  removed_nodes: RemovedNodeRow
  grants: GrantRow
  kit_migrations: MigrationRow
}
