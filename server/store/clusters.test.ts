// The cluster, its nodes and their grants over a real file.

import test from 'ava'

import { parseMac } from '#lib/mac.ts'
import type { ClusterRecord, GrantRecord, NodeRecord, RemovedNode } from '#machine/cluster-ports.ts'
import { open, tempFile } from '#testing/store-fixture.ts'

const MAC = parseMac('52:54:00:12:34:56')
const OTHER = parseMac('52:54:00:00:00:01')
const CLUSTER: ClusterRecord = {
  ...{ id: '0123456789abcdef', name: 'kateskit', endpoint: '10.77.0.9:6443' },
  ...{ isAdopted: false, isUp: false, sinceMs: 5 },
}
const NODE: NodeRecord = {
  ...{ mac: MAC, name: 'one', role: 'control-plane', index: 0, state: 'granted', version: 'v1.33.1' },
  sinceMs: 7,
}
const GRANT: GrantRecord = {
  ...{ boot: 'b0', mac: MAC, keySha256: 'ab'.repeat(32), action: 'init', issuedMs: 1, expiresMs: 2 },
  ...{ version: 'v1.33.1', state: 'open' },
}
const REMOVED: RemovedNode = { mac: OTHER, name: 'two', machineId: 'ab'.repeat(16), atMs: 9 }

test('the cluster, its nodes and grants keep every field over a restart', async (t) => {
  const file = tempFile(t)
  const store = await open(t, file)
  const cluster: ClusterRecord = { ...CLUSTER, founder: MAC, isUp: true, restoreFrom: 'ff' }
  const node: NodeRecord = { ...NODE, hasJoined: true, drainedBoot: 'b7', reason: 'why', machineId: 'm' }
  const grant: GrantRecord = {
    ...GRANT,
    tokenId: 'abcdef',
    kubeletKey: 'ab'.repeat(32),
    snapshot: 'ee',
    state: 'used',
  }
  t.is(await store.clusters.cluster(), undefined)
  for (const each of [CLUSTER, cluster]) await store.clusters.saveCluster(each)
  for (const each of [NODE, node, { ...NODE, mac: OTHER, index: 1 }]) await store.clusters.saveNode(each)
  for (const each of [GRANT, grant, { ...GRANT, boot: 'b1', issuedMs: 2 }])
    await store.clusters.saveGrant(each)
  await store.close()
  const { clusters } = await open(t, file)
  t.deepEqual(await clusters.cluster(), cluster)
  t.deepEqual(await clusters.nodes(), [{ ...NODE, mac: OTHER, index: 1 }, node])
  t.deepEqual(await clusters.grants(), [grant, { ...GRANT, boot: 'b1', issuedMs: 2 }])
  await clusters.removeNode(OTHER)
  t.deepEqual(await clusters.nodes(), [node])
})

test('saveCluster() without one forgets nodes, removed ones and grants as well', async (t) => {
  const { clusters } = await open(t)
  await Promise.all([clusters.saveCluster(CLUSTER), clusters.saveNode(NODE), clusters.saveGrant(GRANT)])
  await clusters.saveRemovedNode(REMOVED)
  await clusters.saveCluster(undefined)
  t.is(await clusters.cluster(), undefined)
  t.deepEqual([await clusters.nodes(), await clusters.removedNodes(), await clusters.grants()], [[], [], []])
})

test('saveRemovedNode() keeps what it is known by over a restart, until its machine or its name is a node again', async (t) => {
  const file = tempFile(t)
  const store = await open(t, file)
  const named = { ...REMOVED, mac: MAC, name: 'one' }
  for (const each of [REMOVED, named]) await store.clusters.saveRemovedNode(each)
  await store.clusters.saveRemovedNode({ ...REMOVED, atMs: 10 })
  await store.close()
  const { clusters } = await open(t, file)
  t.deepEqual(await clusters.removedNodes(), [{ ...REMOVED, atMs: 10 }, named])
  await clusters.saveNode({ ...NODE, mac: OTHER, name: 'three' })
  t.deepEqual(await clusters.removedNodes(), [named])
  await clusters.saveNode({ ...NODE, mac: parseMac('52:54:00:00:00:02') })
  t.deepEqual(await clusters.removedNodes(), [])
})

test('saveGrant() keeps the newest 20 of a machine, and all that are not closed', async (t) => {
  const { clusters } = await open(t)
  await clusters.saveGrant({ ...GRANT, mac: OTHER, boot: 'of another', state: 'closed' })
  await clusters.saveGrant({ ...GRANT, boot: 'open', issuedMs: 0 })
  for (let i = 0; i < 30; i++)
    await clusters.saveGrant({ ...GRANT, boot: `b${i}`, issuedMs: i + 1, state: 'closed' })
  const boots = (await clusters.grants()).map(({ boot }) => boot)
  t.deepEqual(boots, ['open', 'of another', ...Array.from({ length: 20 }, (_, i) => `b${i + 10}`)])
})
