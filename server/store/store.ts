// Everything the server remembers, in one SQLite file.

import type { Clock } from '#lib/clock.ts'
import type { Log } from '#lib/log.ts'
import type { AuditLog, TokenStore } from '#machine/access-ports.ts'
import type { ClusterStore } from '#machine/cluster-ports.ts'
import type { IdentityStore } from '#machine/identity-ports.ts'
import type { LeaseStore } from '#machine/lease-ports.ts'
import type { EventLog, MachineStore } from '#machine/ports.ts'
import type { ReleaseStore } from '#machine/release-ports.ts'

import { createAuditLog } from './audit-log.ts'
import { createClusterStore } from './cluster-store.ts'
import { openDatabase } from './database.ts'
import { createEventLog } from './event-log.ts'
import { GroupCommit } from './group-commit.ts'
import { createIdentityStore } from './identity-store.ts'
import { createLeaseStore } from './lease-store.ts'
import { createMachineStore } from './machine-store.ts'
import { migrate } from './migrations.ts'
import { createReleaseStore } from './release-store.ts'
import { storeError } from './store-error.ts'
import { createTokenStore } from './token-store.ts'

export interface StoreOptions {
  /** Made when it is not there, with its folder, for this user only. */
  readonly file: string
  readonly clock: Clock
  readonly log: Log
  /** How many events are kept. */
  readonly keepEvents?: number
  /** Above this size of the database only a tenth of them is kept. */
  readonly maxEventBytes?: number
}

export interface Store {
  readonly machines: MachineStore
  readonly events: EventLog
  readonly leases: LeaseStore
  readonly tokens: TokenStore
  readonly audit: AuditLog
  readonly releases: ReleaseStore
  readonly identities: IdentityStore
  readonly clusters: ClusterStore
  /** Waits for writes under way, then gives the file back. A write after this throws KitError `unavailable`. */
  close(): Promise<void>
}

/**
 * Opens the database for this process alone. Throws KitError: `conflict` when another server has it or a newer
 * version wrote it, `no-space`, `forbidden`, or `internal` for a damaged file. A file it cannot use is left as it is.
 */
export async function openStore({
  file,
  clock,
  log,
  keepEvents = 100_000,
  maxEventBytes = 256 * 1024 * 1024,
}: StoreOptions): Promise<Store> {
  const { db, close } = openDatabase(file)
  try {
    await migrate(db, { file, nowMs: clock.nowMs() })
  } catch (error) {
    await close()
    throw storeError(error, file)
  }
  const commits = new GroupCommit(db)
  return {
    machines: createMachineStore(db, commits),
    events: createEventLog(db, commits, { clock, log, keep: keepEvents, maxBytes: maxEventBytes }),
    leases: createLeaseStore(db, commits),
    tokens: createTokenStore(db, commits, { clock, log }),
    audit: createAuditLog(db, commits, clock),
    releases: createReleaseStore(db, commits),
    identities: createIdentityStore(db, commits),
    clusters: createClusterStore(db, commits),
    async close() {
      await commits.close()
      await close()
    },
  }
}
