// API tokens: `kit_<id>_<secret>`, of which only a hash of the secret is kept.
// The secret is 256 random bits, which nobody guesses however fast the hash: sha256 without salt or stretching is enough.

import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'

import type { Kysely } from 'kysely'

import type { Clock } from '#lib/clock.ts'
import type { TokenInfo, TokenStore } from '#machine/ports.ts'

import type { GroupCommit } from './group-commit.ts'
import type { Schema, TokenRow } from './schema.ts'

const SHAPE = /^kit_(?<id>[0-9a-f]{12})_(?<secret>[A-Za-z0-9_-]{43})$/
/** Compared with when there is no such token, so that an unknown id takes as long as a wrong secret. */
const NO_HASH = '0'.repeat(64)

export function createTokenStore(db: Kysely<Schema>, commits: GroupCommit, clock: Clock): TokenStore {
  return {
    async make(name, role) {
      const id = randomBytes(6).toString('hex')
      const secret = randomBytes(32).toString('base64url')
      const row: TokenRow = { id, name, role, created_ms: clock.nowMs(), secret_sha256: sha256(secret) }
      await commits.run((trx) => trx.insertInto('tokens').values(row).execute())
      return { info: infoFromRow(row), secret: `kit_${id}_${secret}` }
    },
    async verify(token) {
      const { id = '', secret = '' } = SHAPE.exec(token)?.groups ?? {}
      const row = await db.selectFrom('tokens').selectAll().where('id', '=', id).executeTakeFirst()
      const matches = timingSafeEqual(
        Buffer.from(sha256(secret), 'hex'),
        Buffer.from(row?.secret_sha256 ?? NO_HASH, 'hex'),
      )
      return row !== undefined && matches ? infoFromRow(row) : undefined
    },
    async list() {
      const rows = await db.selectFrom('tokens').selectAll().orderBy('created_ms').orderBy('id').execute()
      return rows.map(infoFromRow)
    },
  }
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

function infoFromRow(row: TokenRow): TokenInfo {
  return { id: row.id, name: row.name, role: row.role, createdMs: row.created_ms }
}
