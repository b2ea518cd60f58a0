// Grants over a real store: who is given one, that it is written down before it leaves, and what becomes of it.

import test, { type ExecutionContext } from 'ava'

import { KitError } from '#lib/errors.ts'
import {
  foundCluster,
  kubeletKeyOf,
  macOf,
  memberOf,
  nameOf,
  nodeOf,
  settled,
  startCluster,
  VERSION,
} from '#testing/cluster-fixture.ts'

import type { NodeCertificateRequest } from './cluster-ports.ts'
import { BOOTSTRAP_GROUP, KUBELET_SIGNER } from './node-request.ts'

const CP = { role: 'control-plane' }
const WORKER = { role: 'worker' }

async function codeOf(t: ExecutionContext, work: () => Promise<unknown>) {
  const error = await t.throwsAsync(work, { instanceOf: KitError })
  return (error as KitError).code
}

const requestOf = (tokenId: string, number: number): NodeCertificateRequest => ({
  ...{ name: 'csr-1', username: `system:bootstrap:${tokenId}`, groups: [BOOTSTRAP_GROUP] },
  ...{ usages: ['client auth', 'digital signature'], signerName: KUBELET_SIGNER },
  ...{ commonName: `system:node:${nameOf(number)}`, organizations: ['system:nodes'], hasOtherNames: false },
  keySha256: kubeletKeyOf(number),
})

test('grant() makes one founder of two that ask at once, and tells the other to wait', async (t) => {
  const own = await startCluster(t, { 1: CP, 2: CP, 3: WORKER })
  for (const number of [1, 2, 3]) await own.boot(number, `b${number}`)
  const answers = await Promise.all([own.ask(1, 'b1'), own.ask(2, 'b2'), own.ask(3, 'b3')])
  t.deepEqual(answers.map(({ kind }) => kind).sort(), ['grant', 'wait', 'wait'])
  t.deepEqual(
    own.orders.map(({ action }) => action),
    ['init'],
  )
  const record = await own.store.clusters.cluster()
  t.like(record, { founder: macOf(1), endpoint: '10.0.0.1:6443', isUp: false })
  t.regex(record?.id ?? '', /^[0-9a-f]{16}$/)
  t.like(await own.clusters.view(), { state: 'founding', founder: macOf(1) })
  t.deepEqual(
    (await own.clusters.view()).nodes.map(({ state }) => state),
    ['joining', 'waiting', 'waiting'],
  )
})

test('report() of the founder makes the cluster up once its API answers, not before', async (t) => {
  const own = await startCluster(t, { 1: CP })
  await own.boot(1, 'b1')
  await own.ask(1, 'b1')
  await own.tell(1, { boot: 'b1', state: 'working', action: 'init', step: 'kubeadm' })
  t.is(own.cluster.access, undefined)
  await own.tell(1, { boot: 'b1', state: 'done', action: 'init' })
  const access = await own.cluster.access?.()
  t.like(access, { kind: 'own', endpoint: '10.0.0.1:6443' })
  t.is((await own.clusters.view()).state, 'founding')
  own.cluster.isReachable = true
  await own.clock.turn(5_000)
  while ((await own.clusters.view()).state !== 'up') await new Promise(setImmediate)
  t.true(own.cluster.calls.includes('ensureBasics'))
  own.cluster.change([nodeOf(1, true)])
  await settled(own, 1)
  t.deepEqual(
    (await own.kinds()).filter((kind) => /cluster|node/.test(kind)),
    [...['cluster-founding', 'node-granted', 'node-step', 'node-joined', 'cluster-up', 'node-ready']],
  )
})

test('grant() gives a worker a token of its own, for a quarter of an hour, and the Node being Ready ends it', async (t) => {
  const own = await startCluster(t, {
    1: CP,
    2: { ...WORKER, 'node-labels': 'disk=ssd', 'node-taints': 'gpu=yes:NoSchedule' },
  })
  await foundCluster(own)
  await own.boot(2, 'b2')
  t.is((await own.ask(2, 'b2')).kind, 'grant')
  const order = own.orders.at(-1)
  t.like(order, { action: 'join', node: { name: nameOf(2), index: 1 } })
  const [[id, wish]] = [...own.cluster.tokens] as unknown as [[string, { expiresMs: number }]]
  t.like(wish, { nodeName: nameOf(2), mac: macOf(2), expiresMs: own.clock.nowMs() + 900_000 })
  t.is(order?.token?.split('.')[0], id)
  // What was there of it before is gone before the token is minted.
  const calls = own.cluster.calls
  t.true(calls.indexOf(`forgetNode ${nameOf(2)}`) < calls.indexOf(`mintToken ${nameOf(2)}`))
  t.is(own.cluster.request(requestOf(id, 1))?.kind, 'deny')
  t.is(own.cluster.request(requestOf(id, 2))?.kind, 'approve')
  await own.tell(2, { boot: 'b2', state: 'done', action: 'join' })
  t.true(own.cluster.tokens.has(id))
  own.cluster.change([nodeOf(1, true), nodeOf(2)])
  await settled(own, 2)
  t.is(own.cluster.tokens.size, 0)
  while (own.cluster.marks.get(nameOf(2)) === undefined) await new Promise(setImmediate)
  t.deepEqual(own.cluster.marks.get(nameOf(2)), { labels: { disk: 'ssd' }, taints: ['gpu=yes:NoSchedule'] })
  t.is(own.cluster.request(requestOf(id, 2))?.kind, 'deny')
  t.true((await own.kinds()).includes('kubelet-denied'))
})

test('grant() asked again before its token was used takes that back; afterwards it is refused', async (t) => {
  const own = await startCluster(t, { 1: CP, 2: WORKER })
  await foundCluster(own)
  await own.boot(2, 'b2')
  await own.ask(2, 'b2')
  const [first = ''] = own.cluster.tokens.keys()
  await own.ask(2, 'b2')
  const [second = '', ...others] = own.cluster.tokens.keys()
  t.deepEqual([others.length, second === first], [0, false])
  t.is(own.cluster.request(requestOf(first, 2))?.kind, 'deny')
  t.is(own.cluster.request(requestOf(second, 2))?.kind, 'approve')
  while ((await own.store.clusters.grants()).every(({ state }) => state !== 'used'))
    await new Promise(setImmediate)
  t.is(own.cluster.request(requestOf(second, 2))?.kind, 'deny')
  t.is(await codeOf(t, () => own.ask(2, 'b2')), 'grant-used')
  t.is(await codeOf(t, () => own.ask(2, 'b2')), 'grant-used')
  t.is((await own.kinds()).filter((kind) => kind === 'node-refused').length, 1)
  const audit = await own.store.audit.list({ limit: 100 })
  t.deepEqual(
    audit.filter(({ action }) => action.endsWith('/grant')).map(({ outcome }) => outcome),
    [...['done', 'done', 'done', 'grant-used']],
  )
  // The next boot gets its own.
  await own.boot(2, 'b3')
  t.is((await own.ask(2, 'b3')).kind, 'grant')
  t.is(own.cluster.tokens.size, 1)
})

test('a token whose time is over is of no use', async (t) => {
  const own = await startCluster(t, { 1: CP, 2: WORKER })
  await foundCluster(own)
  await own.boot(2, 'b2')
  await own.ask(2, 'b2')
  const [id = ''] = own.cluster.tokens.keys()
  await own.clock.turn(900_001)
  t.is(own.cluster.request(requestOf(id, 2))?.kind, 'deny')
})

for (const [title, number, id, code] of [
  ['an older boot', 2, 'old', 'stale-boot'],
  ['a boot that was never offered', 2, 'made-up', 'not-found'],
  ["another machine's boot", 2, 'b3', 'not-found'],
  ['a machine that only its MAC speaks for', 4, 'b4', 'identity-refused'],
] as const) {
  test(`grant() refuses ${title} with ${code}, and says so once`, async (t) => {
    const own = await startCluster(t, { 1: CP, 2: WORKER, 3: WORKER, 4: WORKER })
    await foundCluster(own)
    for (const [each, boot] of [
      [2, 'old'],
      [2, 'b2'],
      [3, 'b3'],
      [4, 'b4'],
    ] as const)
      await own.boot(each, boot)
    own.tiers.set(macOf(4), 'mac-only')
    const minted = own.cluster.tokens.size
    t.is(await codeOf(t, () => own.ask(number, id)), code)
    t.is(await codeOf(t, () => own.ask(number, id)), code)
    t.is(own.cluster.tokens.size, minted)
    t.is((await own.kinds()).filter((kind) => kind === 'node-refused').length, 1)
  })
}

test('grant() refuses a key of another machine, and one that is not known', async (t) => {
  const own = await startCluster(t, { 1: CP, 2: WORKER, 3: WORKER })
  await foundCluster(own)
  await own.boot(2, 'b2')
  await own.boot(3, 'b3')
  const kubeletKey = kubeletKeyOf(2)
  const request = {
    boot: 'b2',
    kubeletKey,
    kubernetes: VERSION,
    node: 'none',
    address: nodeOf(2).address,
  } as never
  const ask = (keySha256: string) => () => own.nodeDesk.grant(macOf(2), request, { keySha256 })
  t.is(await codeOf(t, ask(own.by(3).keySha256)), 'wrong-machine')
  t.is(await codeOf(t, ask('ff'.repeat(32))), 'identity-needed')
})

test('grant() gives no token to a machine that names no key of its kubelet', async (t) => {
  const own = await startCluster(t, { 1: CP, 2: WORKER })
  await foundCluster(own)
  await own.boot(2, 'b2')
  t.is(await codeOf(t, () => own.ask(2, 'b2', { kubeletKey: undefined as never })), 'conflict')
  t.is(own.cluster.tokens.size, 0)
  t.is((await own.ask(2, 'b2')).kind, 'grant')
  t.is(own.cluster.tokens.size, 1)
})

test('control planes join one after another, and one that says nothing for half an hour holds up nobody', async (t) => {
  const own = await startCluster(t, { 1: CP, 2: CP, 3: CP })
  await foundCluster(own)
  await own.boot(2, 'b2')
  await own.boot(3, 'b3')
  t.is((await own.ask(2, 'b2')).kind, 'grant')
  t.like(await own.ask(3, 'b3'), {
    kind: 'wait',
    reason: `${nameOf(2)} is joining: one control plane at a time`,
  })
  await own.clock.turn(29 * 60_000)
  t.is((await own.ask(3, 'b3')).kind, 'wait')
  await own.clock.turn(2 * 60_000)
  t.is((await own.ask(3, 'b3')).kind, 'grant')
})

test('a control plane that failed frees the place, and its member is taken out of etcd when it comes again', async (t) => {
  const own = await startCluster(t, { 1: CP, 2: CP, 3: CP })
  await foundCluster(own)
  await own.boot(2, 'b2')
  await own.ask(2, 'b2')
  await own.tell(2, { boot: 'b2', state: 'failed', action: 'join-control-plane', message: 'kubeadm said no' })
  t.like((await own.clusters.view()).nodes[1], { state: 'failed', reason: 'kubeadm said no' })
  own.cluster.members = [memberOf(1), memberOf(3), { ...memberOf(2), isHealthy: false }]
  t.is((await own.ask(2, 'b2')).kind, 'grant')
  t.true(own.cluster.calls.includes('removeEtcdMember e2'))
})

test('the only control plane is restored from the newest snapshot, or from the one that a person named', async (t) => {
  const own = await startCluster(t, { 1: CP })
  await foundCluster(own)
  const id = (await own.store.clusters.cluster())?.id ?? ''
  const send = (sha256: string) =>
    own.nodeDesk.saveSnapshot(
      macOf(1),
      'founding',
      { bytes: [Buffer.from('etcd')] as never, sha256 },
      own.by(1),
    )
  await send('aa'.repeat(32))
  await send('bb'.repeat(32))
  own.cluster.isReachable = false
  own.cluster.change([])
  await own.boot(1, 'b2')
  t.is(await codeOf(t, () => own.nodeDesk.snapshotFor(macOf(1), 'b2', own.by(1))), 'conflict')
  await own.ask(1, 'b2')
  t.like(own.orders.at(-1), { action: 'restore', snapshot: 'bb'.repeat(32), cluster: { id } })
  t.is((await own.nodeDesk.snapshotFor(macOf(1), 'b2', own.by(1))).sha256, 'bb'.repeat(32))
  await own.clusters.restoreFrom('aa'.repeat(32), 'token lab')
  await own.ask(1, 'b2')
  t.like(own.orders.at(-1), { action: 'restore', snapshot: 'aa'.repeat(32) })
  await own.tell(1, { boot: 'b2', state: 'done', action: 'restore' })
  t.is((await own.store.clusters.cluster())?.restoreFrom, undefined)
  t.true((await own.store.clusters.cluster())?.isUp)
})

test('grant() believes a machine that it is a node, when its word of that was lost', async (t) => {
  const own = await startCluster(t, { 1: CP, 2: WORKER })
  await foundCluster(own)
  await own.boot(2, 'b2')
  await own.ask(2, 'b2')
  own.cluster.change([nodeOf(1, true), nodeOf(2)])
  t.is((await own.ask(2, 'b2', { node: 'member', nodeVersion: VERSION })).kind, 'grant')
  t.is(own.orders.at(-1)?.action, 'start')
  own.cluster.change()
  await settled(own, 2)
  t.is(own.cluster.tokens.size, 0)
  t.like((await own.store.clusters.nodes())[1], { state: 'joined', hasJoined: true })
  // And which version it has, after an upgrade.
  await own.boot(2, 'b3')
  await own.ask(2, 'b3', { kubernetes: 'v1.33.2', node: 'member', nodeVersion: 'v1.33.2' })
  t.is((await own.store.clusters.nodes())[1]?.version, 'v1.33.2')
})

test('saveSnapshot() takes none of a worker, and of no machine that is not of the cluster', async (t) => {
  const own = await startCluster(t, { 1: CP, 2: WORKER })
  await foundCluster(own)
  await own.boot(2, 'b2')
  const content = { bytes: [Buffer.from('x')] as never, sha256: 'aa'.repeat(32) }
  t.is(await codeOf(t, () => own.nodeDesk.saveSnapshot(macOf(2), 'b2', content, own.by(2))), 'conflict')
  t.deepEqual(own.snapshots.kept, [])
})

test('a server that is killed between any two writes goes on with the next request', async (t) => {
  const before = await startCluster(t, { 1: CP, 2: WORKER })
  await before.boot(1, 'first')
  // Each of these is written before the grant leaves; what comes after it fails, as a kill would have it.
  for (const table of ['saveNode', 'saveGrant'] as const) {
    const store = before.store.clusters
    const real = store[table]
    Object.assign(store, { [table]: async () => Promise.reject(new Error('killed')) })
    await t.throwsAsync(before.ask(1, 'first'), { message: 'killed' })
    Object.assign(store, { [table]: real })
  }
  const record = await before.store.clusters.cluster()
  t.is(record?.founder, macOf(1))
  await foundCluster(before)
  await before.boot(2, 'b2')
  const saveGrant = before.store.clusters.saveGrant
  Object.assign(before.store.clusters, { saveGrant: async () => Promise.reject(new Error('killed')) })
  await t.throwsAsync(before.ask(2, 'b2'), { message: 'killed' })
  Object.assign(before.store.clusters, { saveGrant })
  const [orphan = ''] = before.cluster.tokens.keys()
  t.is(before.cluster.request(requestOf(orphan, 2))?.kind, 'deny')
  await before.stop()
  const { file, cluster, clock } = before
  const after = await startCluster(t, { 1: CP, 2: WORKER }, { file, cluster, clock })
  t.is((await after.store.clusters.cluster())?.id, record?.id)
  after.cluster.change()
  while (after.cluster.tokens.has(orphan)) await new Promise(setImmediate)
  await after.boot(2, 'b3')
  t.is((await after.ask(2, 'b3')).kind, 'grant')
})

test('nothing that is told or written down has the token in it', async (t) => {
  const own = await startCluster(t, { 1: CP, 2: WORKER })
  await foundCluster(own)
  await own.boot(2, 'b2')
  await own.ask(2, 'b2')
  const texts = JSON.stringify([
    ...[await own.store.events.list({ limit: 1000 }), await own.store.audit.list({ limit: 1000 })],
    ...[await own.store.clusters.grants(), await own.clusters.view()],
  ])
  t.false(texts.includes('planted'))
})
