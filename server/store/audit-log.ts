// Who did what: append-only, and each entry vouches for all before it by a hash.
// Triggers keep mistakes away from what was written; the hashes show what somebody with the database file has changed.

import { createHash } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'

import type { Kysely } from 'kysely'

import type { Clock } from '#lib/clock.ts'
import type { AuditEntry, AuditLog, AuditVerdict, NewAuditEntry } from '#machine/access-ports.ts'

import type { GroupCommit } from './group-commit.ts'
import type { AuditRow, Schema } from './schema.ts'

/** The hash "before" the first entry. */
export const AUDIT_ORIGIN = '0'.repeat(64)

const SHORT_MAX = 256
const DETAIL_MAX = 1024
/** Hashed in one go: some milliseconds. */
const PAGE = 1_000

export function createAuditLog(db: Kysely<Schema>, commits: GroupCommit, clock: Clock): AuditLog {
  return {
    append(entry) {
      const fields = { at_ms: clock.nowMs(), ...cleaned(entry) }
      return commits.run(async (trx) => {
        const last = await newest(trx)
        const row = { id: (last?.id ?? 0) + 1, ...fields }
        const written = { ...row, hash: hashOf(last?.hash ?? AUDIT_ORIGIN, row) }
        await trx.insertInto('audit').values(written).execute()
        return entryFromRow(written)
      })
    },
    async list({ afterId, limit }) {
      const query = db.selectFrom('audit').selectAll().limit(limit)
      if (afterId !== undefined) {
        const rows = await query.where('id', '>', afterId).orderBy('id').execute()
        return rows.map(entryFromRow)
      }
      const newestFirst = await query.orderBy('id', 'desc').execute()
      return newestFirst.toReversed().map(entryFromRow)
    },
    async verify(remembered) {
      const verdict = await walk(db, remembered)
      const last = await newest(db)
      const { count } = await db
        .selectFrom('audit')
        .select(({ fn }) => fn.countAll<number>().as('count'))
        .executeTakeFirstOrThrow()
      // What was appended since the walk ended is not looked at, but it counts.
      return { entries: count, head: last?.hash ?? AUDIT_ORIGIN, ...verdict }
    },
  }
}

/** Ends at the first entry that is wrong: all after it stand on it. */
async function walk(
  db: Kysely<Schema>,
  remembered: string | undefined,
): Promise<Pick<AuditVerdict, 'problem' | 'rememberedId'>> {
  let before = { id: 0, hash: AUDIT_ORIGIN }
  let readTo = Number.MIN_SAFE_INTEGER // what stands before the first entry is wrong, too
  let found = remembered === AUDIT_ORIGIN ? { rememberedId: 0 } : {}
  for (;;) {
    const page = await db
      .selectFrom('audit')
      .selectAll()
      .where('id', '>', readTo)
      .orderBy('id')
      .limit(PAGE)
      .execute()
    for (const row of page) {
      const message = wrong(before, row)
      if (message !== undefined) return { ...found, problem: { id: before.id + 1, message } }
      if (row.hash === remembered) found = { rememberedId: row.id }
      before = row
      readTo = row.id
    }
    if (page.length < PAGE) return found
    await setImmediate() // others may have their turn
  }
}

function wrong(before: { id: number; hash: string }, row: AuditRow): string | undefined {
  if (row.id !== before.id + 1) return `entry ${before.id + 1} is missing; the next one is ${row.id}`
  if (row.hash === hashOf(before.hash, row)) return undefined
  return `entry ${row.id} is not what was written, or the one before it is not`
}

/** JSON of an array: no two different lists of fields are written alike. */
function hashOf(before: string, row: Omit<AuditRow, 'hash'>): string {
  const { id, at_ms, actor, action, target, outcome, detail } = row
  const text = JSON.stringify([before, id, at_ms, actor, action, target, outcome, detail])
  return createHash('sha256').update(text).digest('hex')
}

function newest(db: Kysely<Schema>): Promise<Pick<AuditRow, 'id' | 'hash'> | undefined> {
  return db.selectFrom('audit').select(['id', 'hash']).orderBy('id', 'desc').limit(1).executeTakeFirst()
}

function cleaned({ actor, action, target, outcome, detail }: NewAuditEntry): NewAuditEntry {
  return {
    actor: oneLine(actor, SHORT_MAX),
    action: oneLine(action, SHORT_MAX),
    target: oneLine(target, SHORT_MAX),
    outcome: oneLine(outcome, SHORT_MAX),
    detail: oneLine(detail, DETAIL_MAX),
  }
}

/** Half a surrogate pair would come back from SQLite as another character, and its hash would be wrong. */
function oneLine(text: string, most: number): string {
  return text
    .slice(0, most)
    .replace(/\p{Cc}/gu, ' ')
    .toWellFormed()
}

function entryFromRow({ id, at_ms, actor, action, target, outcome, detail, hash }: AuditRow): AuditEntry {
  return { id, atMs: at_ms, actor, action, target, outcome, detail, hash }
}
