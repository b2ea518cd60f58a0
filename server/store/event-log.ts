// The history of what happened, bounded, and the listeners that hear of each event as it is written.

import { type Kysely, sql } from 'kysely'

import type { Clock } from '#lib/clock.ts'
import type { Log } from '#lib/log.ts'
import type { Event, EventData } from '#machine/event.ts'
import type { EventLog } from '#machine/ports.ts'

import type { GroupCommit } from './group-commit.ts'
import type { EventRow, Schema } from './schema.ts'

export interface EventLogOptions {
  readonly clock: Clock
  readonly log: Log
  /** How many of the newest events stay. */
  readonly keep: number
  /** A database that holds more than this keeps a tenth of them: logs of failed steps can be 16 KiB each. */
  readonly maxBytes: number
}

/** Old events go in batches: a delete per append would double the cost of each. */
const PRUNE_EVERY = 1_000

export function createEventLog(
  db: Kysely<Schema>,
  commits: GroupCommit,
  { clock, log, keep, maxBytes }: EventLogOptions,
): EventLog {
  const listeners = new Set<(event: Event) => void>()

  const deliver = (event: Event) => {
    for (const listener of listeners) {
      try {
        listener(event)
      } catch (error) {
        log.error({ err: error, event: event.id }, 'an event listener threw')
      }
    }
  }

  return {
    async append(event) {
      const row = {
        at_ms: clock.nowMs(),
        kind: event.kind,
        mac: event.mac ?? null,
        message: event.message,
        data: JSON.stringify(event.data ?? {}),
      }
      const id = await commits.run(async (trx) => {
        const inserted = await trx.insertInto('events').values(row).returning('id').executeTakeFirstOrThrow()
        if (inserted.id % PRUNE_EVERY === 0) {
          const kept = (await usedBytes(trx)) > maxBytes ? Math.ceil(keep / 10) : keep
          await trx
            .deleteFrom('events')
            .where('id', '<=', inserted.id - kept)
            .execute()
        }
        return inserted.id
      })
      const written = eventFromRow({ ...row, id })
      // Commits resolve in the order of their ids, and so do the listeners hear of them.
      deliver(written)
      return written
    },
    async list({ mac, afterId, limit }) {
      let query = db.selectFrom('events').selectAll().limit(limit)
      if (mac !== undefined) query = query.where('mac', '=', mac)
      if (afterId !== undefined) {
        const rows = await query.where('id', '>', afterId).orderBy('id').execute()
        return rows.map(eventFromRow)
      }
      const newestFirst = await query.orderBy('id', 'desc').execute()
      return newestFirst.toReversed().map(eventFromRow)
    },
    subscribe(listener) {
      const own = (event: Event) => listener(event) // the same function may be subscribed twice
      listeners.add(own)
      return () => {
        listeners.delete(own)
      }
    },
  }
}

/** What the database's content takes; pages that were given back are used again before the file grows. */
async function usedBytes(trx: Kysely<Schema>): Promise<number> {
  const { rows } = await sql<{ bytes: number }>`
    select (page_count - freelist_count) * page_size as bytes
    from pragma_page_count, pragma_freelist_count, pragma_page_size`.execute(trx)
  return rows[0]?.bytes ?? 0
}

function eventFromRow(row: Omit<EventRow, 'id'> & { id: number }): Event {
  return {
    id: row.id,
    atMs: row.at_ms,
    kind: row.kind,
    ...(row.mac !== null && { mac: row.mac }),
    message: row.message,
    data: JSON.parse(row.data) as EventData,
  }
}
