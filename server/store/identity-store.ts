// Machines that proved who they are, and the TPMs that people approved.

import type { Kysely } from 'kysely'

import type { Mac } from '#lib/mac.ts'
import type { Identity } from '#machine/identity.ts'
import type { IdentityStore } from '#machine/identity-ports.ts'

import type { GroupCommit } from './group-commit.ts'
import type { IdentityRow, Schema } from './schema.ts'

export function createIdentityStore(db: Kysely<Schema>, commits: GroupCommit): IdentityStore {
  return {
    async identities() {
      const rows = await db.selectFrom('identities').selectAll().orderBy('mac').execute()
      return rows.map(identityFromRow)
    },
    async saveIdentity(identity) {
      await commits.run((trx) => trx.replaceInto('identities').values(rowFromIdentity(identity)).execute())
    },
    async removeIdentity(mac) {
      await commits.run((trx) => trx.deleteFrom('identities').where('mac', '=', mac).execute())
    },
    async approvals() {
      const rows = await db
        .selectFrom('approvals')
        .selectAll()
        .orderBy('since_ms')
        .orderBy('ek_sha256')
        .execute()
      return rows.map(({ ek_sha256, by_whom, since_ms }) => ({
        ekSha256: ek_sha256,
        by: by_whom,
        sinceMs: since_ms,
      }))
    },
    async saveApproval({ ekSha256, by, sinceMs }) {
      const row = { ek_sha256: ekSha256, by_whom: by, since_ms: sinceMs }
      await commits.run((trx) => trx.replaceInto('approvals').values(row).execute())
    },
    async removeApproval(ekSha256) {
      await commits.run((trx) => trx.deleteFrom('approvals').where('ek_sha256', '=', ekSha256).execute())
    },
  }
}

function identityFromRow(row: IdentityRow): Identity {
  return {
    mac: row.mac,
    macs: JSON.parse(row.macs) as readonly Mac[],
    ...(row.uuid !== null && { uuid: row.uuid }),
    tier: row.tier,
    keySha256: row.key_sha256,
    ...(row.ek_sha256 !== null && { ekSha256: row.ek_sha256 }),
    sinceMs: row.since_ms,
    by: row.by_whom,
    certificateUntilMs: row.certificate_until_ms,
    ...(row.is_kept === 1 && { isKept: true }),
  }
}

function rowFromIdentity(identity: Identity): IdentityRow {
  return {
    mac: identity.mac,
    macs: JSON.stringify(identity.macs),
    uuid: identity.uuid ?? null,
    tier: identity.tier,
    key_sha256: identity.keySha256,
    ek_sha256: identity.ekSha256 ?? null,
    since_ms: identity.sinceMs,
    by_whom: identity.by,
    certificate_until_ms: identity.certificateUntilMs,
    is_kept: identity.isKept ? 1 : 0,
  }
}
