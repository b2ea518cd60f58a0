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
        const minted = { ...boot, mintedMs: await latestMs(trx, boot) }
        await trx.insertInto('boots').values(rowFromBoot(minted)).execute()
        await pruneBoots(trx, boot.mac)
        return minted
      })
    },
    async offerBoot(boot, sinceMs) {
      return commits.run(async (trx) => {
        const unused = await findUnused(trx, boot, sinceMs)
        const nowMs = await latestMs(trx, boot, unused?.id)
        if (unused === undefined) {
          const minted = { ...boot, mintedMs: nowMs }
          await trx.insertInto('boots').values(rowFromBoot(minted)).execute()
          await pruneBoots(trx, boot.mac)
          return minted
        }
        await trx.updateTable('boots').set({ minted_ms: nowMs }).where('id', '=', unused.id).execute()
        return { ...bootFromRow(unused), mintedMs: nowMs }
      })
    },
    async findBoot(id) {
      const row = await db.selectFrom('boots').selectAll().where('id', '=', id).executeTakeFirst()
      return row && bootFromRow(row)
    },
    async claimBoot(id, keySha256) {
      return commits.run(async (trx) => {
        await trx
          .updateTable('boots')
          .set({ key_sha256: keySha256 })
          .where('id', '=', id)
          .where('key_sha256', 'is', null)
          .execute()
        const row = await trx.selectFrom('boots').select('key_sha256').where('id', '=', id).executeTakeFirst()
        return row?.key_sha256 === keySha256
      })
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

/** One of the same plan that no key has used. */
function findUnused(trx: Kysely<Schema>, boot: Boot, sinceMs: number): Promise<BootRow | undefined> {
  return trx
    .selectFrom('boots')
    .selectAll()
    .where('mac', '=', boot.mac)
    .where('plan', '=', boot.plan)
    .where('key_sha256', 'is', null)
    .where('minted_ms', '>', sinceMs)
    .orderBy('minted_ms', 'desc')
    .limit(1)
    .executeTakeFirst()
}

/** Later than all others of its machine, also when the clock was set back. */
async function latestMs(trx: Kysely<Schema>, boot: Boot, except = ''): Promise<number> {
  const newest = await trx
    .selectFrom('boots')
    .select(({ fn }) => fn.max('minted_ms').as('ms'))
    .where('mac', '=', boot.mac)
    .where('id', '!=', except)
    .executeTakeFirst()
  return Math.max(boot.mintedMs, (newest?.ms ?? -1) + 1)
}

function bootFromRow({ id, mac, minted_ms, plan, key_sha256 }: BootRow): Boot {
  return { id, mac, mintedMs: minted_ms, plan, ...(key_sha256 !== null && { keySha256: key_sha256 }) }
}

function rowFromBoot(boot: Boot): BootRow {
  const { id, mac, mintedMs: minted_ms, plan, keySha256: key_sha256 = null } = boot
  return { id, mac, minted_ms, plan, key_sha256 }
}
