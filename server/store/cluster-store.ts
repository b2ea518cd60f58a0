// The cluster, its nodes, and what their boots were given. Never a secret: of a token only the part that is none.

import type { Kysely } from 'kysely'

import type {
  ClusterRecord,
  ClusterStore,
  GrantRecord,
  NodeRecord,
  RemovedNode,
} from '#machine/cluster-ports.ts'

import type { GroupCommit } from './group-commit.ts'
import type { ClusterRow, GrantRow, NodeRow, RemovedNodeRow, Schema } from './schema.ts'

/** There is one at most. */
const ONLY = 1
const GRANTS_KEPT = 20
const TABLES = ['clusters', 'nodes', 'removed_nodes', 'grants'] as const

export function createClusterStore(db: Kysely<Schema>, commits: GroupCommit): ClusterStore {
  return {
    async cluster() {
      const row = await db.selectFrom('clusters').selectAll().executeTakeFirst()
      return row && clusterFromRow(row)
    },
    async saveCluster(cluster) {
      await commits.run(async (trx) => {
        if (cluster !== undefined) {
          await trx.replaceInto('clusters').values(rowFromCluster(cluster)).execute()
          return
        }
        for (const table of TABLES) await trx.deleteFrom(table).execute()
      })
    },
    async nodes() {
      const rows = await db.selectFrom('nodes').selectAll().orderBy('mac').execute()
      return rows.map(nodeFromRow)
    },
    async saveNode(node) {
      await commits.run(async (trx) => {
        await trx.replaceInto('nodes').values(rowFromNode(node)).execute()
        await trx
          .deleteFrom('removed_nodes')
          .where((where) => where.or([where('mac', '=', node.mac), where('name', '=', node.name)]))
          .execute()
      })
    },
    async removeNode(mac) {
      await commits.run((trx) => trx.deleteFrom('nodes').where('mac', '=', mac).execute())
    },
    async removedNodes() {
      const rows = await db.selectFrom('removed_nodes').selectAll().orderBy('mac').execute()
      return rows.map(removedFromRow)
    },
    async saveRemovedNode(node) {
      await commits.run((trx) => trx.replaceInto('removed_nodes').values(rowFromRemoved(node)).execute())
    },
    async grants() {
      const rows = await db.selectFrom('grants').selectAll().orderBy('issued_ms').orderBy('boot').execute()
      return rows.map(grantFromRow)
    },
    async saveGrant(grant) {
      await commits.run(async (trx) => {
        await trx.replaceInto('grants').values(rowFromGrant(grant)).execute()
        const newest = trx
          .selectFrom('grants')
          .select('boot')
          .where('mac', '=', grant.mac)
          .orderBy('issued_ms', 'desc')
          .limit(GRANTS_KEPT)
        await trx
          .deleteFrom('grants')
          .where('mac', '=', grant.mac)
          .where('state', '=', 'closed')
          .where('boot', 'not in', newest)
          .execute()
      })
    },
  }
}

function clusterFromRow(row: ClusterRow): ClusterRecord {
  return {
    ...{ id: row.id, name: row.name, endpoint: row.endpoint, isAdopted: row.is_adopted === 1 },
    ...(row.founder !== null && { founder: row.founder }),
    ...{ isUp: row.is_up === 1, sinceMs: row.since_ms },
    ...(row.restore_from !== null && { restoreFrom: row.restore_from }),
  }
}

function rowFromCluster(cluster: ClusterRecord): ClusterRow {
  return {
    ...{ position: ONLY, id: cluster.id, name: cluster.name, endpoint: cluster.endpoint },
    ...{
      is_adopted: cluster.isAdopted ? 1 : 0,
      founder: cluster.founder ?? null,
      is_up: cluster.isUp ? 1 : 0,
    },
    ...{ since_ms: cluster.sinceMs, restore_from: cluster.restoreFrom ?? null },
  }
}

function nodeFromRow(row: NodeRow): NodeRecord {
  return {
    ...{ mac: row.mac, name: row.name, role: row.role, index: row.number, state: row.state },
    version: row.version,
    ...(row.has_joined === 1 && { hasJoined: true }),
    ...(row.drained_boot !== null && { drainedBoot: row.drained_boot }),
    ...(row.reason !== null && { reason: row.reason }),
    sinceMs: row.since_ms,
    ...(row.machine_id !== null && { machineId: row.machine_id }),
  }
}

function rowFromNode(node: NodeRecord): NodeRow {
  return {
    ...{ mac: node.mac, name: node.name, role: node.role, number: node.index, state: node.state },
    ...{ version: node.version, has_joined: node.hasJoined ? 1 : 0, drained_boot: node.drainedBoot ?? null },
    ...{ reason: node.reason ?? null, since_ms: node.sinceMs, machine_id: node.machineId ?? null },
  }
}

function removedFromRow({ mac, name, machine_id: machineId, at_ms: atMs }: RemovedNodeRow): RemovedNode {
  return { mac, name, machineId, atMs }
}

function rowFromRemoved({ mac, name, machineId, atMs }: RemovedNode): RemovedNodeRow {
  return { mac, name, machine_id: machineId, at_ms: atMs }
}

function grantFromRow(row: GrantRow): GrantRecord {
  return {
    ...{ boot: row.boot, mac: row.mac, keySha256: row.key_sha256, action: row.action },
    ...(row.token_id !== null && { tokenId: row.token_id }),
    ...(row.kubelet_key !== null && { kubeletKey: row.kubelet_key }),
    ...(row.snapshot !== null && { snapshot: row.snapshot }),
    version: row.version,
    ...{ issuedMs: row.issued_ms, expiresMs: row.expires_ms, state: row.state },
  }
}

function rowFromGrant(grant: GrantRecord): GrantRow {
  return {
    ...{ boot: grant.boot, mac: grant.mac, key_sha256: grant.keySha256, action: grant.action },
    ...{
      token_id: grant.tokenId ?? null,
      kubelet_key: grant.kubeletKey ?? null,
      snapshot: grant.snapshot ?? null,
      version: grant.version,
      issued_ms: grant.issuedMs,
    },
    ...{ expires_ms: grant.expiresMs, state: grant.state },
  }
}
