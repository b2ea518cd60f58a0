// Machines that were removed and are there again: which Nodes are turned away, which are none of ours, and what is told.

import test, { type ExecutionContext } from 'ava'

import { KitError } from '#lib/errors.ts'
import {
  type ClusterFixture,
  foundCluster,
  machineIdOf,
  macOf,
  nameOf,
  nodeOf,
  settled,
  startCluster,
  VERSION,
} from '#testing/cluster-fixture.ts'
import { open } from '#testing/store-fixture.ts'

import type { ClusterNode, RemovedNode } from './cluster-ports.ts'
import { NodeBook } from './node-book.ts'
import { findReturned, type ReturnFacts } from './node-return.ts'

const REMOVED: RemovedNode = { mac: macOf(2), name: nameOf(2), machineId: machineIdOf(2), atMs: 0 }
const { machineId: _none, ...WITHOUT_ID } = nodeOf(2)

for (const [title, changes, isReturned] of [
  ['its very machine', {}, true],
  ['no Node', { live: [] }, false],
  ['another machine of its name', { live: [{ ...nodeOf(2), machineId: machineIdOf(3) }] }, false],
  ['a machine that does not say which', { live: [WITHOUT_ID] }, false],
  ['its machine under another name', { live: [{ ...nodeOf(2), name: nameOf(3) }] }, false],
  ['a record, for its removal was cut off', { records: [{ name: nameOf(2) }] }, false],
  ['nobody that was removed', { removed: [] }, false],
] as readonly (readonly [string, Partial<ReturnFacts>, boolean])[]) {
  test(`findReturned() finds ${isReturned ? 'the Node' : 'nothing'} when there is ${title}`, (t) => {
    const live = [nodeOf(1, true), nodeOf(2)]
    const found = findReturned({ live, removed: [REMOVED], records: [{ name: nameOf(1) }], ...changes })
    t.deepEqual(found, isReturned ? [{ node: nodeOf(2), removed: REMOVED }] : [])
  })
}

const WORKER = { role: 'worker' }
const first = nodeOf(1, true)
const second: ClusterNode = nodeOf(2)
const again = { ...second, uid: 'made again' }

async function until(isThere: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isThere())) await new Promise(setImmediate)
}

/** Resolves when the watch has done with the Nodes as they are now: it works in order, and a report waits for it. */
async function change(own: ClusterFixture, live: ClusterNode[]): Promise<void> {
  own.cluster.change(live)
  const isAdopted = (await own.store.clusters.cluster())?.isAdopted === true
  await (isAdopted
    ? own.tell(3, { boot: 'b3', state: 'working', action: 'join' })
    : own.tell(1, { boot: 'founding', state: 'working', action: 'init' }))
}

async function turnedAway(own: ClusterFixture) {
  return (await own.store.events.list({ limit: 1000 })).filter(({ kind }) => kind === 'node-turned-away')
}

async function join(own: ClusterFixture, boot: string): Promise<void> {
  await own.profiles.assignRole(macOf(2), WORKER.role)
  await own.boot(2, boot)
  await own.ask(2, boot)
  await own.tell(2, { boot, state: 'done', action: 'join' })
  own.cluster.change([first, second])
  await settled(own, 2)
}

/** Machine 2 has joined, and is removed. */
async function withRemoved(t: ExecutionContext): Promise<ClusterFixture> {
  const own = await startCluster(t, { 1: { role: 'control-plane' }, 2: WORKER })
  await foundCluster(own)
  await join(own, 'b2')
  await own.clusters.removeMachine(macOf(2), { force: false, by: 'token lab' })
  return own
}

test('a Node that its removed machine makes again is deleted and told of, each time it is there', async (t) => {
  const own = await withRemoved(t)
  await change(own, [first])
  t.deepEqual(await turnedAway(own), [])
  for (const [times, uid] of ['made again', 'made once more'].entries()) {
    await change(own, [first, { ...second, uid }])
    t.deepEqual(own.cluster.live, [first])
    t.is((await turnedAway(own)).length, times + 1)
  }
  const [event] = await turnedAway(own)
  t.like(event, { mac: macOf(2), data: { deleted: true } })
  t.regex(event?.message ?? '', new RegExp(`Switch the machine off; .*kateskit assign ${macOf(2)} <role>`))
})

test('a Node that cannot be deleted is told of when it could be, and holds up nothing', async (t) => {
  const own = await withRemoved(t)
  own.cluster.failures.set('forgetNode', new KitError('unavailable', 'Cannot reach the cluster'))
  await change(own, [first, again])
  t.deepEqual(await turnedAway(own), [])
  own.cluster.failures.clear()
  await change(own, [first, again])
  t.deepEqual(own.cluster.live, [first])
  t.is((await turnedAway(own)).length, 1)
})

test('a Node of the same name on another machine stays', async (t) => {
  const own = await withRemoved(t)
  const other = { ...again, machineId: machineIdOf(3) }
  await change(own, [first, other])
  t.deepEqual(own.cluster.live, [first, other])
  t.deepEqual(await turnedAway(own), [])
})

test('a machine that was removed by force while the API was away is known again after a restart of the server', async (t) => {
  const before = await startCluster(t, { 1: { role: 'control-plane' }, 2: WORKER })
  await foundCluster(before)
  await join(before, 'b2')
  before.cluster.isReachable = false
  before.cluster.live = []
  await before.clusters.removeMachine(macOf(2), { force: true, by: 'token lab' })
  await before.stop()
  const { file, cluster, clock } = before
  const after = await startCluster(t, { 1: { role: 'control-plane' } }, { file, cluster, clock })
  cluster.isReachable = true
  cluster.change([first, second])
  await until(async () => (await turnedAway(after)).length > 0)
  t.deepEqual(cluster.live, [first])
})

test('in an adopted cluster a Node that is there again is told of once, and stays', async (t) => {
  const own = await startCluster(t, { 2: WORKER, 3: WORKER })
  own.cluster.isReachable = true
  await own.clusters.adopt('apiVersion: v1', 'token lab')
  await own.boot(3, 'b3')
  await own.ask(3, 'b3')
  await join(own, 'b2')
  await own.clusters.removeMachine(macOf(2), { force: false, by: 'token lab' })
  own.cluster.calls.length = 0
  for (const [uid, times] of [
    ['made again', 1],
    ['made again', 1],
    ['made once more', 2],
  ] as const) {
    await change(own, [first, { ...second, uid }])
    t.is((await turnedAway(own)).length, times)
  }
  t.false(own.cluster.calls.includes(`forgetNode ${nameOf(2)}`))
  const [event] = await turnedAway(own)
  t.like(event, { mac: macOf(2), data: { deleted: false } })
  t.regex(event?.message ?? '', new RegExp(`kubectl delete node ${nameOf(2)}`))
})

test('a machine that is given its part again is welcome, and one of a cluster that was forgotten is unknown', async (t) => {
  const own = await withRemoved(t)
  t.is((await own.store.clusters.removedNodes()).length, 1)
  await join(own, 'b3')
  t.deepEqual(await own.store.clusters.removedNodes(), [])
  await change(own, [first, again])
  t.deepEqual(own.cluster.live, [first, again])
  await own.clusters.removeMachine(macOf(2), { force: false, by: 'token lab' })
  t.is((await own.store.clusters.removedNodes()).length, 1)
  await own.clusters.forget('token lab')
  t.deepEqual(await own.store.clusters.removedNodes(), [])
})

test('removedNodes() is without those whose machine or name is a node again, and empty without a cluster', async (t) => {
  const book = new NodeBook((await open(t)).clusters)
  const others = [3, 4].map((number) => ({ ...REMOVED, mac: macOf(number), name: nameOf(number) }))
  for (const node of [REMOVED, ...others]) await book.saveRemovedNode(node)
  const node = { role: 'worker', index: 0, state: 'granted', version: VERSION, sinceMs: 0 } as const
  await book.saveNode({ ...node, mac: macOf(2), name: 'another' })
  t.deepEqual(book.removedNodes(), others)
  await book.saveNode({ ...node, mac: macOf(5), name: nameOf(3) })
  t.deepEqual(book.removedNodes(), others.slice(1))
  await book.forgetCluster()
  t.deepEqual(book.removedNodes(), [])
})
