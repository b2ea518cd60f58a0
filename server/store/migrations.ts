// How the database came to look as it does: named steps, run in order, each exactly once. A released step is never edited.

import { type Kysely, sql } from 'kysely'

import { KitError } from '#lib/errors.ts'

import type { Schema } from './schema.ts'

interface Migration {
  readonly name: string
  readonly statements: readonly string[]
}

// STRICT makes SQLite hold columns to their types (a number in a text column is an error, not a surprise later).
const MIGRATIONS: readonly Migration[] = [
  {
    name: '2026-11-machines-events-leases-tokens',
    statements: [
      `create table machines (
        mac text primary key, state text not null, state_since_ms integer not null,
        first_seen_ms integer not null, last_seen_ms integer not null, last_check_in_ms integer,
        uuid text, firmware text, address text, boot_id text, image_version text, bundle_digest text,
        reboot_reasons text not null
      ) strict, without rowid`,
      `create table boots (
        id text primary key, mac text not null, minted_ms integer not null, plan text not null
      ) strict, without rowid`,
      'create index boots_by_mac on boots (mac, minted_ms)',
      // autoincrement: an id is never used twice, not even after the newest events were pruned
      `create table events (
        id integer primary key autoincrement, at_ms integer not null, kind text not null, mac text,
        message text not null, data text not null
      ) strict`,
      'create index events_by_mac on events (mac, id)',
      `create table leases (
        ip text primary key, client_key text not null, mac text not null, hostname text,
        expires_ms integer not null, kind text not null
      ) strict, without rowid`,
      `create table tokens (
        id text primary key, name text not null, role text not null, created_ms integer not null,
        secret_sha256 text not null
      ) strict, without rowid`,
    ],
  },
  {
    name: '2026-11-disks-slots-releases',
    statements: [
      // 0, 1, or null for a machine that never had a disk of ours; the others are words or JSON.
      ...[
        'is_installed integer',
        'slot text',
        'slots text',
        'checks text',
        'reason text',
        'drift text',
        'disks text',
        'powerwash text',
        'powerwashes text',
      ].map((column) => `alter table machines add column ${column}`),
      `create table channels (
        name text primary key, version text, previous text not null, is_paused integer not null,
        changed_ms integer not null
      ) strict, without rowid`,
      'create table pins (mac text primary key, version text not null) strict, without rowid',
      `create table quarantines (
        version text primary key, mac text not null, reason text not null, since_ms integer not null
      ) strict, without rowid`,
      `create table failures (
        version text not null, mac text not null, reason text not null, at_ms integer not null,
        primary key (version, mac)
      ) strict, without rowid`,
      `create table locks (
        holder text primary key, channel text not null, version text, since_ms integer not null
      ) strict, without rowid`,
    ],
  },
  {
    name: '2026-11-token-life-audit',
    statements: [
      ...['expires_ms integer', 'last_used_ms integer', 'revoked_ms integer'].map(
        (column) => `alter table tokens add column ${column}`,
      ),
      `create table audit (
        id integer primary key, at_ms integer not null, actor text not null, action text not null,
        target text not null, outcome text not null, detail text not null, hash text not null
      ) strict`,
      // The last one also stops `insert or replace`, which fires no trigger on delete (lang_conflict.html).
      ...['update', 'delete'].map(
        (what) => `create trigger audit_no_${what} before ${what} on audit begin
          select raise(abort, 'the audit log is append-only'); end`,
      ),
      `create trigger audit_no_gap before insert on audit
        when new.id is not (select coalesce(max(id), 0) + 1 from audit) begin
          select raise(abort, 'the audit log is append-only'); end`,
    ],
  },
  {
    name: '2026-11-identities',
    statements: [
      `create table identities (
        mac text primary key, macs text not null, uuid text, tier text not null, key_sha256 text not null unique,
        ek_sha256 text unique, since_ms integer not null, by_whom text not null, certificate_until_ms integer not null,
        is_kept integer not null
      ) strict, without rowid`,
      `create table approvals (
        ek_sha256 text primary key, by_whom text not null, since_ms integer not null
      ) strict, without rowid`,
      // The key that used the boot first; null for one that nobody has used yet.
      'alter table boots add column key_sha256 text',
    ],
  },
  {
    name: '2026-11-cluster',
    statements: [
      `create table clusters (
        position integer primary key check (position = 1), id text not null, name text not null, endpoint text not null,
        is_adopted integer not null, founder text, is_up integer not null, since_ms integer not null, restore_from text
      ) strict`,
      `create table nodes (
        mac text primary key, name text not null, role text not null, number integer not null,
        state text not null, version text not null, has_joined integer not null, drained_boot text, reason text,
        since_ms integer not null
      ) strict, without rowid`,
      `create table grants (
        boot text primary key, mac text not null, key_sha256 text not null, action text not null, token_id text,
        snapshot text, version text not null, issued_ms integer not null, expires_ms integer not null, state text not null
      ) strict, without rowid`,
      'create index grants_by_mac on grants (mac, issued_ms)',
    ],
  },
  {
    name: '2026-11-removed-nodes',
    statements: [
      'alter table nodes add column machine_id text',
      `create table removed_nodes (
        mac text primary key, name text not null, machine_id text not null, at_ms integer not null
      ) strict, without rowid`,
    ],
  },
  { name: '2026-11-kubelet-keys', statements: ['alter table grants add column kubelet_key text'] },
]

/**
 * Brings the database up to date in one transaction. Throws KitError `conflict` for a database that a newer
 * version wrote, or that is another program's: neither is touched.
 */
export async function migrate(
  db: Kysely<Schema>,
  { file, nowMs }: { file: string; nowMs: number },
): Promise<void> {
  await db.transaction().execute(async (trx) => {
    const applied = await appliedNames(trx, file)
    for (const [index, name] of applied.entries()) {
      if (MIGRATIONS[index]?.name === name) continue
      throw new KitError(
        'conflict',
        `Cannot open ${file}: a newer version of KatesKit wrote it (step ${name})`,
        {
          fix: 'start the version that wrote it, or restore the copy from before the upgrade',
        },
      )
    }
    for (const [position, migration] of MIGRATIONS.entries()) {
      if (position < applied.length) continue
      for (const statement of migration.statements) await sql.raw(statement).execute(trx)
      await trx
        .insertInto('kit_migrations')
        .values({ position, name: migration.name, applied_ms: nowMs })
        .execute()
    }
  })
}

async function appliedNames(trx: Kysely<Schema>, file: string): Promise<readonly string[]> {
  const { rows } = await sql<{ name: string }>`select name from sqlite_master where type = 'table'`.execute(
    trx,
  )
  const tables = rows.map((row) => row.name)
  if (tables.length > 0 && !tables.includes('kit_migrations')) {
    throw new KitError('conflict', `Cannot open ${file}: it is the database of another program`, {
      fix: 'set state/directory to a folder of its own',
    })
  }
  if (tables.length === 0) {
    await sql`create table kit_migrations (
      position integer primary key, name text not null, applied_ms integer not null
    ) strict`.execute(trx)
    return []
  }
  const applied = await trx.selectFrom('kit_migrations').select('name').orderBy('position').execute()
  return applied.map((row) => row.name)
}
