// API tokens, of which only a hash of the secret is kept.
// The secret is 256 random bits, which nobody guesses however fast the hash: sha256 without salt or stretching is enough.

import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'

import type { Kysely } from 'kysely'

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import type { TokenInfo, TokenStore } from '#machine/access-ports.ts'
import { findTokenText, formatToken } from '#machine/token-text.ts'

import type { GroupCommit } from './group-commit.ts'
import type { Schema, TokenRow } from './schema.ts'

export interface TokenStoreOptions {
  readonly clock: Clock
  readonly log: Log
}

/** Compared with when there is no such token, so that an unknown id takes as long as a wrong secret. */
const NO_HASH = '0'.repeat(64)
/** A write per request would be an fsync per request. */
const LAST_USE_EVERY_MS = 60_000

export function createTokenStore(
  db: Kysely<Schema>,
  commits: GroupCommit,
  { clock, log }: TokenStoreOptions,
): TokenStore {
  const noteUse = createUseNotes(commits, log)
  const rowOf = (id: string) => db.selectFrom('tokens').selectAll().where('id', '=', id).executeTakeFirst()

  return {
    async make({ name, role, expiresMs }) {
      const id = randomBytes(6).toString('hex')
      const secret = randomBytes(32).toString('base64url')
      const row: TokenRow = {
        ...{ id, name, role, created_ms: clock.nowMs(), secret_sha256: sha256(secret) },
        ...{ expires_ms: expiresMs ?? null, last_used_ms: null, revoked_ms: null },
      }
      await commits.run((trx) => trx.insertInto('tokens').values(row).execute())
      return { info: infoFromRow(row), secret: formatToken({ id, secret }) }
    },
    async verify(token) {
      const { id = '', secret = '' } = findTokenText(token) ?? {}
      const row = await rowOf(id)
      const matches = timingSafeEqual(
        Buffer.from(sha256(secret), 'hex'),
        Buffer.from(row?.secret_sha256 ?? NO_HASH, 'hex'),
      )
      const nowMs = clock.nowMs()
      if (row === undefined || !matches || !isInForce(row, nowMs)) return undefined
      noteUse(row, nowMs)
      return infoFromRow(row)
    },
    async list() {
      const rows = await db.selectFrom('tokens').selectAll().orderBy('created_ms').orderBy('id').execute()
      return rows.map(infoFromRow)
    },
    async revoke(id) {
      const row = await commits.run((trx) =>
        trx
          .updateTable('tokens')
          // Revoked again, it keeps the time of the first.
          .set(({ fn, ref, val }) => ({ revoked_ms: fn.coalesce(ref('revoked_ms'), val(clock.nowMs())) }))
          .where('id', '=', id)
          .returningAll()
          .executeTakeFirst(),
      )
      if (row !== undefined) return infoFromRow(row)
      throw new KitError('not-found', `Cannot find token ${JSON.stringify(id.slice(0, 64))}`, {
        fix: 'kateskit token list shows those there are, with their ids',
      })
    },
  }
}

function isInForce({ revoked_ms, expires_ms }: TokenRow, nowMs: number): boolean {
  return revoked_ms === null && (expires_ms === null || nowMs < expires_ms)
}

/** Nobody waits for these writes: they join whatever is committed next. */
function createUseNotes(commits: GroupCommit, log: Log): (row: TokenRow, nowMs: number) => void {
  const underWay = new Set<string>()
  return ({ id, last_used_ms }, nowMs) => {
    // A clock that was set back is no reason never to write again.
    const isRecent = last_used_ms !== null && Math.abs(nowMs - last_used_ms) < LAST_USE_EVERY_MS
    if (isRecent || underWay.has(id)) return
    underWay.add(id)
    commits
      .run((trx) => trx.updateTable('tokens').set({ last_used_ms: nowMs }).where('id', '=', id).execute())
      .catch((error: unknown) => log.warn({ err: error, token: id }, 'Cannot note the use of a token'))
      .finally(() => underWay.delete(id))
  }
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

function infoFromRow(row: TokenRow): TokenInfo {
  return {
    id: row.id,
    name: row.name,
    role: row.role,
    createdMs: row.created_ms,
    ...(row.expires_ms !== null && { expiresMs: row.expires_ms }),
    ...(row.last_used_ms !== null && { lastUsedMs: row.last_used_ms }),
    ...(row.revoked_ms !== null && { revokedMs: row.revoked_ms }),
  }
}
