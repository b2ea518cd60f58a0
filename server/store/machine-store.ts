// Machines and the boots that were offered to them.

import type { Kysely } from 'kysely'

import type { Mac } from '#lib/mac.ts'
import type { Boot, Machine } from '#machine/machine.ts'
import type { MachineStore } from '#machine/ports.ts'

import type { GroupCommit } from './group-commit.ts'
import type { BootRow, MachineRow, Schema } from './schema.ts'

/** A machine that is held asks for a script twice a minute for as long as it likes. */
const BOOTS_KEPT_PER_MACHINE = 50

export function createMachineStore(db: Kysely<Schema>, commits: GroupCommit): MachineStore {
  return {
    async find(mac) {
      const row = await db.selectFrom('machines').selectAll().where('mac', '=', mac).executeTakeFirst()
      return row && machineFromRow(row)
    },
    async list() {
      const rows = await db.selectFrom('machines').selectAll().orderBy('mac').execute()
      return rows.map(machineFromRow)
    },
    async save(machine) {
      await commits.run((trx) => trx.replaceInto('machines').values(rowFromMachine(machine)).execute())
    },
    async saveBoot(boot) {
      return commits.run(async (trx) => {
        const newest = await trx
          .selectFrom('boots')
          .select(({ fn }) => fn.max('minted_ms').as('ms'))
          .where('mac', '=', boot.mac)
          .executeTakeFirst()
        const minted = { ...boot, mintedMs: Math.max(boot.mintedMs, (newest?.ms ?? -1) + 1) }
        await trx.insertInto('boots').values(rowFromBoot(minted)).execute()
        await pruneBoots(trx, boot.mac)
        return minted
      })
    },
    async findBoot(id) {
      const row = await db.selectFrom('boots').selectAll().where('id', '=', id).executeTakeFirst()
      return row && { id: row.id, mac: row.mac, mintedMs: row.minted_ms, plan: row.plan }
    },
    async remove(mac) {
      await commits.run(async (trx) => {
        await trx.deleteFrom('boots').where('mac', '=', mac).execute()
        await trx.deleteFrom('machines').where('mac', '=', mac).execute()
      })
    },
  }
}

/** The boot a machine runs stays, however many scripts were asked for in its name since. */
async function pruneBoots(trx: Kysely<Schema>, mac: Mac): Promise<void> {
  await trx
    .deleteFrom('boots')
    .where('mac', '=', mac)
    .where('id', 'not in', (newest) =>
      newest
        .selectFrom('boots')
        .select('id')
        .where('mac', '=', mac)
        .orderBy('minted_ms', 'desc')
        .orderBy('id', 'desc')
        .limit(BOOTS_KEPT_PER_MACHINE),
    )
    .where('id', 'not in', (current) =>
      current
        .selectFrom('machines')
        .select('boot_id')
        .where('mac', '=', mac)
        .where('boot_id', 'is not', null),
    )
    .execute()
}

function machineFromRow(row: MachineRow): Machine {
  return {
    mac: row.mac,
    state: row.state,
    stateSinceMs: row.state_since_ms,
    firstSeenMs: row.first_seen_ms,
    lastSeenMs: row.last_seen_ms,
    ...(row.last_check_in_ms !== null && { lastCheckInMs: row.last_check_in_ms }),
    ...(row.uuid !== null && { uuid: row.uuid }),
    ...(row.firmware !== null && { firmware: row.firmware }),
    ...(row.address !== null && { address: row.address }),
    ...(row.boot_id !== null && { bootId: row.boot_id }),
    ...(row.image_version !== null && { imageVersion: row.image_version }),
    ...(row.bundle_digest !== null && { bundleDigest: row.bundle_digest }),
    rebootReasons: JSON.parse(row.reboot_reasons) as readonly string[],
  }
}

function rowFromMachine(machine: Machine): MachineRow {
  return {
    mac: machine.mac,
    state: machine.state,
    state_since_ms: machine.stateSinceMs,
    first_seen_ms: machine.firstSeenMs,
    last_seen_ms: machine.lastSeenMs,
    last_check_in_ms: machine.lastCheckInMs ?? null,
    uuid: machine.uuid ?? null,
    firmware: machine.firmware ?? null,
    address: machine.address ?? null,
    boot_id: machine.bootId ?? null,
    image_version: machine.imageVersion ?? null,
    bundle_digest: machine.bundleDigest ?? null,
    reboot_reasons: JSON.stringify(machine.rebootReasons),
  }
}

function rowFromBoot(boot: Boot): BootRow {
  return { id: boot.id, mac: boot.mac, minted_ms: boot.mintedMs, plan: boot.plan }
}
