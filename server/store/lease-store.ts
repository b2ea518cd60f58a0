// The addresses that DHCP has promised.

import type { Kysely } from 'kysely'

import { ipv4ToNumber } from '#lib/ipv4.ts'
import type { Lease, LeaseStore } from '#machine/lease-ports.ts'

import type { GroupCommit } from './group-commit.ts'
import type { LeaseRow, Schema } from './schema.ts'

export function createLeaseStore(db: Kysely<Schema>, commits: GroupCommit): LeaseStore {
  return {
    /** By address, ascending. */
    async list() {
      const rows = await db.selectFrom('leases').selectAll().execute()
      return rows.map(leaseFromRow).sort((a, b) => ipv4ToNumber(a.ip) - ipv4ToNumber(b.ip))
    },
    async put(lease) {
      await commits.run((trx) => trx.replaceInto('leases').values(rowFromLease(lease)).execute())
    },
    async remove(ip) {
      await commits.run((trx) => trx.deleteFrom('leases').where('ip', '=', ip).execute())
    },
  }
}

function leaseFromRow(row: LeaseRow): Lease {
  return {
    ip: row.ip,
    clientKey: row.client_key,
    mac: row.mac,
    ...(row.hostname !== null && { hostname: row.hostname }),
    expiresMs: row.expires_ms,
    kind: row.kind,
  }
}

function rowFromLease(lease: Lease): LeaseRow {
  return {
    ip: lease.ip,
    client_key: lease.clientKey,
    mac: lease.mac,
    hostname: lease.hostname ?? null,
    expires_ms: lease.expiresMs,
    kind: lease.kind,
  }
}
