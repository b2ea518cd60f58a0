// Machines and the boots that were offered to them.

import type { Kysely } from 'kysely'

import type { Mac } from '#lib/mac.ts'
import type { Boot } from '#machine/machine.ts'
import type { MachineStore } from '#machine/ports.ts'

import type { GroupCommit } from './group-commit.ts'
import { machineFromRow, rowFromMachine } from './machine-row.ts'
import type { BootRow, Schema } from './schema.ts'

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

function rowFromBoot(boot: Boot): BootRow {
  return { id: boot.id, mac: boot.mac, minted_ms: boot.mintedMs, plan: boot.plan }
}
