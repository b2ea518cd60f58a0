// Channels, pins, quarantines, failures and locks.

import type { Kysely } from 'kysely'

import type { Channel, Quarantine, ReleaseStore, UpdateFailure, UpdateLock } from '#machine/release-ports.ts'

import type { GroupCommit } from './group-commit.ts'
import type { ChannelRow, FailureRow, LockRow, QuarantineRow, Schema } from './schema.ts'

export function createReleaseStore(db: Kysely<Schema>, commits: GroupCommit): ReleaseStore {
  return {
    async channels() {
      const rows = await db.selectFrom('channels').selectAll().orderBy('name').execute()
      return rows.map(channelFromRow)
    },
    async saveChannel(channel) {
      await commits.run((trx) => trx.replaceInto('channels').values(rowFromChannel(channel)).execute())
    },
    async pins() {
      const rows = await db.selectFrom('pins').selectAll().execute()
      return new Map(rows.map(({ mac, version }) => [mac, version]))
    },
    async savePin(mac, version) {
      await commits.run(async (trx) => {
        if (version === undefined) await trx.deleteFrom('pins').where('mac', '=', mac).execute()
        else await trx.replaceInto('pins').values({ mac, version }).execute()
      })
    },
    ...createFailureStore(db, commits),
    ...createLockStore(db, commits),
  }
}

type FailureStore = Pick<ReleaseStore, 'quarantines' | 'saveQuarantine' | 'failures' | 'saveFailure' | 'lift'>

function createFailureStore(db: Kysely<Schema>, commits: GroupCommit): FailureStore {
  return {
    async quarantines() {
      const rows = await db.selectFrom('quarantines').selectAll().orderBy('version').execute()
      return rows.map(quarantineFromRow)
    },
    async saveQuarantine(quarantine) {
      const { sinceMs: since_ms, ...same } = quarantine
      await commits.run((trx) =>
        trx
          .replaceInto('quarantines')
          .values({ ...same, since_ms })
          .execute(),
      )
    },
    async failures() {
      const rows = await db.selectFrom('failures').selectAll().orderBy('at_ms').orderBy('mac').execute()
      return rows.map(failureFromRow)
    },
    async saveFailure(failure) {
      const { atMs: at_ms, ...same } = failure
      await commits.run((trx) =>
        trx
          .replaceInto('failures')
          .values({ ...same, at_ms })
          .execute(),
      )
    },
    async lift(version) {
      await commits.run(async (trx) => {
        await trx.deleteFrom('quarantines').where('version', '=', version).execute()
        await trx.deleteFrom('failures').where('version', '=', version).execute()
      })
    },
  }
}

type LockStore = Pick<ReleaseStore, 'locks' | 'saveLock' | 'removeLock'>

function createLockStore(db: Kysely<Schema>, commits: GroupCommit): LockStore {
  return {
    async locks() {
      const rows = await db.selectFrom('locks').selectAll().orderBy('since_ms').orderBy('holder').execute()
      return rows.map(lockFromRow)
    },
    async saveLock({ channel, holder, version, sinceMs }) {
      const row: LockRow = { channel, holder, version: version ?? null, since_ms: sinceMs }
      await commits.run((trx) => trx.replaceInto('locks').values(row).execute())
    },
    async removeLock(holder) {
      await commits.run((trx) => trx.deleteFrom('locks').where('holder', '=', holder).execute())
    },
  }
}

function channelFromRow(row: ChannelRow): Channel {
  return {
    name: row.name,
    ...(row.version !== null && { version: row.version }),
    previous: JSON.parse(row.previous) as readonly string[],
    isPaused: row.is_paused === 1,
    changedMs: row.changed_ms,
  }
}

function rowFromChannel(channel: Channel): ChannelRow {
  return {
    name: channel.name,
    version: channel.version ?? null,
    previous: JSON.stringify(channel.previous),
    is_paused: channel.isPaused ? 1 : 0,
    changed_ms: channel.changedMs,
  }
}

function quarantineFromRow({ version, mac, reason, since_ms }: QuarantineRow): Quarantine {
  return { version, mac, reason, sinceMs: since_ms }
}

function failureFromRow({ version, mac, reason, at_ms }: FailureRow): UpdateFailure {
  return { version, mac, reason, atMs: at_ms }
}

function lockFromRow({ channel, holder, version, since_ms }: LockRow): UpdateLock {
  return { channel, holder, ...(version !== null && { version }), sinceMs: since_ms }
}
