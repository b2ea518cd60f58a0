// Restarts and removals of nodes: what is done before, in which order, and what is not done.

import test, { type ExecutionContext } from 'ava'

import { KitError } from '#lib/errors.ts'
import {
  type ClusterFixture,
  foundCluster,
  macOf,
  memberOf,
  nameOf,
  nodeOf,
  settled,
  startCluster,
  VERSION,
} from '#testing/cluster-fixture.ts'

import type { NodeRecord } from './cluster-ports.ts'
import { decideRestart, findQuorumProblem, type RestartFacts } from './node-restart.ts'

const CP = { role: 'control-plane' }
const WORKER = { role: 'worker' }
const NEXT = 'v1.34.0'

const NODE: NodeRecord = {
  ...{ mac: macOf(1), name: 'one', role: 'worker', index: 0, state: 'joined', version: VERSION },
  ...{ hasJoined: true, sinceMs: 0 },
}
const FACTS: RestartFacts = {
  ...{ node: NODE, kubernetes: VERSION, unreachable: undefined, changing: undefined, isDrained: false },
  others: [{ name: 'two', version: VERSION }],
}
const CONTROL_PLANE = { ...NODE, role: 'control-plane' } as const

for (const [title, changes, expected, reason] of [
  ['is no node', { node: undefined }, 'yes'],
  ['never joined', { node: { ...NODE, hasJoined: undefined as never } }, 'yes'],
  ['is a node', {}, 'prepare'],
  ['is drained', { isDrained: true }, 'yes'],
  ['is a worker before its time', { kubernetes: NEXT }, 'no', /wait for the control planes/],
  ['is a worker in time', { kubernetes: NEXT, others: [{ name: 'two', version: NEXT }] }, 'prepare'],
  ['would skip a minor', { node: CONTROL_PLANE, kubernetes: 'v1.35.0' }, 'no', /no minor may be skipped/],
  ['would go back', { node: CONTROL_PLANE, kubernetes: 'v1.32.0' }, 'no', /cannot go back/],
  ['goes to an image that does not say', { kubernetes: undefined }, 'prepare'],
  ['is a control plane', { node: CONTROL_PLANE, kubernetes: NEXT }, 'prepare'],
  [
    'is a control plane, not its turn',
    { node: CONTROL_PLANE, isDrained: true, changing: { name: 'two', what: 'is joining' } },
    'no',
    /one control plane at a time/,
  ],
  ['is a worker without a cluster', { unreachable: 'it is away' }, 'no', /it is away/],
  ['is one of several control planes, without a cluster', { node: CONTROL_PLANE, unreachable: 'away' }, 'no'],
  [
    'is the only control plane, without a cluster',
    { node: CONTROL_PLANE, unreachable: 'away', others: [] },
    'yes',
  ],
] as readonly (readonly [string, Partial<RestartFacts>, string, RegExp?])[]) {
  test(`decideRestart() says "${expected}" when it ${title}`, (t) => {
    const decision = decideRestart({ ...FACTS, ...changes })
    t.is(decision.kind as string, expected)
    if (reason !== undefined && 'reason' in decision) t.regex(decision.reason, reason)
  })
}

test('findQuorumProblem() spares a member when the others are well and enough', (t) => {
  const members = (...healthy: boolean[]) => healthy.map((isHealthy, index) => memberOf(index + 1, isHealthy))
  const problem = (...healthy: boolean[]) => findQuorumProblem(members(...healthy), nameOf(1))
  t.is(problem(true), undefined)
  t.is(problem(true, true), undefined)
  t.is(problem(true, true, true), undefined)
  t.is(problem(false, true, true), undefined)
  t.regex(problem(true, true, false) ?? '', /etcd is not healthy/)
})

async function until(isThere: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isThere())) await new Promise(setImmediate)
}

/** With worker 2 in the cluster. */
async function withWorker(t: ExecutionContext): Promise<ClusterFixture> {
  const own = await startCluster(t, { 1: CP, 2: WORKER })
  await foundCluster(own)
  await own.boot(2, 'b2')
  await own.ask(2, 'b2')
  await own.tell(2, { boot: 'b2', state: 'done', action: 'join' })
  own.cluster.change([nodeOf(1, true), nodeOf(2)])
  await settled(own, 2)
  return own
}

test('mayRestart() drains a node first, and it takes pods again when it is Ready in its next boot', async (t) => {
  const own = await withWorker(t)
  t.deepEqual(own.guard.mayRestart(macOf(2), 'i2'), { kind: 'no', reason: 'its node is being drained' })
  await until(() => own.guard.mayRestart(macOf(2), 'i2').kind === 'yes')
  t.is(own.cluster.calls.filter((call) => call === `drain ${nameOf(2)}`).length, 1)
  own.guard.settled(new Set([macOf(2)]))
  await own.boot(2, 'b3')
  t.is((await own.ask(2, 'b3', { node: 'member', nodeVersion: VERSION })).kind, 'grant')
  t.is(own.orders.at(-1)?.action, 'start')
  own.cluster.change()
  await until(() => own.cluster.calls.includes(`uncordon ${nameOf(2)}`))
  await until(async () =>
    (await own.store.clusters.nodes()).every(({ drainedBoot }) => drainedBoot === undefined),
  )
  t.true((await own.kinds()).includes('node-uncordoned'))
})

test('a node takes pods again as soon as its machine says that its checks have passed, whatever the cluster says', async (t) => {
  const own = await withWorker(t)
  own.guard.mayRestart(macOf(2), 'i2')
  await until(() => own.guard.mayRestart(macOf(2), 'i2').kind === 'yes')
  await own.boot(2, 'b3')
  await own.ask(2, 'b3', { node: 'member', nodeVersion: VERSION })
  const machine = own.machines.get(macOf(2))
  if (machine === undefined) return t.fail('the machine is known')
  own.machines.set(macOf(2), { ...machine, checks: 'waiting' })
  own.cluster.change()
  await own.nodeDesk.report(macOf(2), { boot: 'b3', state: 'done', action: 'start' }, own.by(2))
  t.false(own.cluster.calls.includes(`uncordon ${nameOf(2)}`))
  own.machines.set(macOf(2), { ...machine, checks: 'passed' })
  own.guard.settled(new Set())
  await until(() => own.cluster.calls.includes(`uncordon ${nameOf(2)}`))
})

test('mayRestart() leaves a node cordoned that a person had cordoned, and says why it waits once', async (t) => {
  const own = await withWorker(t)
  own.cluster.live = own.cluster.live.map((node) => ({ ...node, isCordoned: true }))
  own.cluster.failures.set('drain', new KitError('conflict', 'Cannot drain: a budget does not allow it'))
  own.guard.mayRestart(macOf(2), 'i2')
  await until(() => own.guard.mayRestart(macOf(2), 'i2').kind === 'no' && own.changes.guard > 0)
  t.deepEqual(own.guard.mayRestart(macOf(2), 'i2'), {
    kind: 'no',
    reason: 'Cannot drain: a budget does not allow it',
  })
  own.cluster.failures.clear()
  await own.clock.turn(61_000)
  await until(() => own.guard.mayRestart(macOf(2), 'i2').kind === 'yes')
  await own.boot(2, 'b3')
  await own.ask(2, 'b3', { node: 'member', nodeVersion: VERSION })
  own.cluster.change()
  await own.nodeDesk.report(macOf(2), { boot: 'b3', state: 'done', action: 'start' }, own.by(2))
  t.false(own.cluster.calls.includes(`uncordon ${nameOf(2)}`))
})

test('settled() gives a node back that was drained and does not restart after all', async (t) => {
  const own = await withWorker(t)
  own.guard.mayRestart(macOf(2), 'i2')
  await until(() => own.guard.mayRestart(macOf(2), 'i2').kind === 'yes')
  own.guard.settled(new Set())
  await until(() => own.cluster.calls.includes(`uncordon ${nameOf(2)}`))
  t.is(own.guard.mayRestart(macOf(2), 'i2').kind, 'no')
})

test('an upgrade goes from the control plane to the workers, and findImageProblem() refuses what skips a minor', async (t) => {
  const own = await withWorker(t)
  own.kubernetes.set('next', NEXT).set('after', 'v1.35.0')
  t.is(own.guard.findImageProblem('next', [macOf(1), macOf(2)]), undefined)
  t.regex(own.guard.findImageProblem('after', [macOf(2)]) ?? '', /v1\.34 comes first/)
  t.like(own.guard.mayRestart(macOf(2), 'next'), { kind: 'no' })
  await own.boot(1, 'b9')
  t.is((await own.ask(1, 'b9', { kubernetes: NEXT, node: 'member', nodeVersion: VERSION })).kind, 'grant')
  t.is(own.orders.at(-1)?.action, 'upgrade-first')
  await own.boot(2, 'b3')
  const asking = { kubernetes: NEXT, node: 'member', nodeVersion: VERSION } as const
  t.is((await own.ask(2, 'b3', asking)).kind, 'wait')
  await own.tell(1, { boot: 'b9', state: 'done', action: 'upgrade-first' })
  // Ready with the old kubelet is not what was asked for.
  own.cluster.change()
  t.is((await own.store.clusters.grants()).find(({ boot }) => boot === 'b9')?.state, 'used')
  own.cluster.change([nodeOf(1, true, NEXT), nodeOf(2)])
  await settled(own, 1)
  await own.ask(2, 'b3', asking)
  t.like(own.orders.at(-1), { action: 'upgrade-node', node: { version: VERSION } })
})

test('removeMachine() takes a worker out of everything, and may be asked again', async (t) => {
  const own = await withWorker(t)
  own.cluster.calls.length = 0
  own.cluster.failures.set('forgetNode', new KitError('unavailable', 'Cannot reach the cluster'))
  const remove = (force = false) => own.clusters.removeMachine(macOf(2), { force, by: 'token lab' })
  const error = await t.throwsAsync(remove, { instanceOf: KitError, code: 'unavailable' })
  t.regex(error?.message ?? '', /\(node\): Cannot reach/)
  t.deepEqual(own.removed, [])
  own.cluster.failures.clear()
  await remove()
  t.deepEqual(own.removed, [`identity ${macOf(2)}`, `machine ${macOf(2)}`])
  t.deepEqual(
    (await own.store.clusters.nodes()).map(({ mac }) => mac),
    [macOf(1)],
  )
  t.true(own.cluster.calls.includes(`drain ${nameOf(2)}`))
  t.false(own.cluster.live.some(({ name }) => name === nameOf(2)))
  t.true((await own.kinds()).includes('machine-removed'))
})

test('removeMachine() of a control plane takes its member out, empties no node that has to stay, and goes on when forced', async (t) => {
  const own = await startCluster(t, { 1: CP })
  await foundCluster(own)
  own.cluster.calls.length = 0
  const refusal = new KitError('conflict', 'Cannot take it out of etcd: it is the only member')
  own.cluster.failures.set('removeEtcdMember', refusal)
  const remove = (force: boolean) => own.clusters.removeMachine(macOf(1), { force, by: 'token lab' })
  const error = await t.throwsAsync(remove(false), { instanceOf: KitError, code: 'conflict' })
  t.regex(error?.message ?? '', /\(etcd-member\): .*the only member/)
  t.is(
    error?.fix,
    `try again, or kateskit remove ${macOf(1)} --force when the cluster or the machine is gone`,
  )
  t.deepEqual(own.cluster.calls, ['etcdMembers'])
  t.is((await own.store.clusters.nodes()).length, 1)
  await remove(true)
  t.is((await own.store.clusters.nodes()).length, 0)
})
