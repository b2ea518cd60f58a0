// What a machine is to do in the cluster: the table of docs/kubernetes.md, row by row, and what always holds. More than 350 lines: one table.

import test from 'ava'
import fc from 'fast-check'

import { parseMac } from '#lib/mac.ts'

import type { ClusterRecord, EtcdMember, NodeRecord } from './cluster-ports.ts'
import { quorumOf } from './etcd-quorum.ts'
import { findKubernetesVersion } from './kubernetes-version.ts'
import { CONTROL_PLANE_ACTIONS, decideNode, type NodeFacts } from './node-decision.ts'

const mac = parseMac('02:4b:69:74:00:01')
const other = parseMac('02:4b:69:74:00:02')
const ID = '0123456789abcdef'
const FOREIGN = 'fedcba9876543210'
const V = 'v1.33.1'

const CLUSTER: ClusterRecord = {
  ...{ id: ID, name: 'kateskit', endpoint: '10.0.0.1:6443', isAdopted: false, founder: other },
  ...{ isUp: true, sinceMs: 0 },
}
const FOUNDING = { ...CLUSTER, founder: mac, isUp: false }
const RECORD: NodeRecord = {
  ...{ mac, name: 'one', role: 'control-plane', index: 0, state: 'joined', version: V, hasJoined: true },
  sinceMs: 0,
}
const WORKER: NodeRecord = { ...RECORD, role: 'worker' }
const TWO = { name: 'two', version: V }
const CHANGING = { name: 'two', what: 'is joining' }

const member = (name: string, isHealthy = true): EtcdMember => ({
  ...{ id: `id-${name}`, name, peerUrls: [], isHealthy, isLeader: false },
})

const FACTS: NodeFacts = {
  ...{ mac, name: 'one', role: 'control-plane', asked: { kubernetes: V, node: 'none' } },
  ...{ cluster: CLUSTER, record: undefined, unreachable: undefined, hasNode: false, others: [TWO] },
  ...{ changing: undefined, etcd: [member('two')], snapshot: undefined },
}

type Row = readonly [title: string, changes: Partial<NodeFacts>, expected: string, reason?: RegExp]
const none = { kubernetes: V, node: 'none' } as const
const joined = { kubernetes: V, node: 'member', nodeVersion: V } as const
const alone = { others: [], etcd: undefined }
const away = { unreachable: 'it is away', etcd: undefined }
const at = (version: string) => ({ others: [{ name: 'two', version }] })
const upgrade = (kubernetes: string, nodeVersion = V) => ({
  asked: { kubernetes, nodeVersion, node: 'member' } as const,
  record: { ...RECORD, version: nodeVersion },
})

const ROWS: readonly Row[] = [
  ['is no node', { role: 'none' }, 'none'],
  ['has a Kubernetes that is none', { asked: { ...none, kubernetes: 'x' } }, 'refused', /nobody can read: x/],

  // There is no cluster.
  ['is the first control plane', { cluster: undefined, ...alone }, 'init'],
  ['is a worker before there is a cluster', { cluster: undefined, role: 'worker' }, 'wait', /no cluster yet/],
  ['is of a forgotten cluster', { cluster: undefined, asked: joined }, 'refused', /does not know/],
  [
    'is a worker of a forgotten one',
    { cluster: undefined, role: 'worker', asked: joined },
    'refused',
    /powerwash/,
  ],
  [
    "has etcd's data of a forgotten cluster",
    { cluster: undefined, asked: { ...none, etcd: FOREIGN } },
    'refused',
    /--persistence/,
  ],

  // It is being made.
  ['is the founder', { cluster: FOUNDING, ...alone }, 'init'],
  ['is the founder, and has begun', { cluster: FOUNDING, asked: { ...none, etcd: ID } }, 'init'],
  [
    'is the founder, cut within kubeadm',
    { cluster: FOUNDING, asked: joined, record: { ...RECORD, hasJoined: undefined as never } },
    'init',
  ],
  ['is the founder, and done', { cluster: FOUNDING, asked: joined, record: RECORD }, 'start'],
  [
    'is another control plane meanwhile',
    { cluster: { ...FOUNDING, founder: other } },
    'wait',
    /cluster forget/,
  ],
  ['is a worker meanwhile', { cluster: { ...FOUNDING, founder: other }, role: 'worker' }, 'wait'],
  [
    'was to be the founder, and is a worker',
    { cluster: FOUNDING, role: 'worker' },
    'wait',
    /is a worker now/,
  ],

  // It is a node.
  ['has joined', { asked: joined, record: RECORD }, 'start'],
  ['has joined, while nobody answers', { asked: joined, record: RECORD, ...away }, 'start'],
  ['has joined, and this server knows only its Node', { asked: joined, hasNode: true }, 'start'],
  ['was removed, and its disk does not know', { asked: joined }, 'join-control-plane'],
  ['was removed, and nobody answers', { asked: joined, ...away }, 'start'],
  ['is to be another part than it is', { asked: joined, record: WORKER }, 'start'],
  ['has an older patch than its node', { ...upgrade('v1.33.0') }, 'start'],
  ['would go back a minor', { ...upgrade('v1.32.9') }, 'refused', /cannot go back/],
  ['would skip a minor', { ...upgrade('v1.35.0') }, 'refused', /no minor may be skipped/],
  ['is the first control plane with a new minor', { ...upgrade('v1.34.0') }, 'upgrade-first'],
  [
    'is the only control plane, with a new minor',
    { ...upgrade('v1.34.0'), ...alone, ...away },
    'upgrade-first',
  ],
  ['is a later control plane with a new minor', { ...upgrade('v1.34.0'), ...at('v1.34.0') }, 'upgrade-node'],
  [
    'is a control plane with a new minor, not its turn',
    { ...upgrade('v1.34.0'), changing: CHANGING },
    'wait',
    /one control plane at a time/,
  ],
  [
    'is a control plane behind another',
    { ...upgrade('v1.33.2'), ...at('v1.34.0') },
    'refused',
    /newer than v1\.33\.2/,
  ],
  [
    'is a control plane too far before another',
    { ...upgrade('v1.34.0'), ...at('v1.32.0') },
    'wait',
    /one minor apart/,
  ],
  [
    'is a worker with a new minor, after all',
    { ...upgrade('v1.34.0'), record: WORKER, role: 'worker', ...at('v1.34.2') },
    'upgrade-node',
  ],
  [
    'is a worker with a new minor, too early',
    { ...upgrade('v1.34.0'), record: WORKER, role: 'worker' },
    'wait',
    /wait for the control planes: two has v1\.33\.1/,
  ],
  [
    'is a worker with a new minor, while nobody answers',
    { ...upgrade('v1.34.0'), record: WORKER, role: 'worker', ...away },
    'wait',
    /it is away/,
  ],

  // It is new: a worker.
  ['is a new worker', { role: 'worker' }, 'join'],
  ['is a worker made new', { role: 'worker', record: WORKER }, 'join'],
  ['is a new worker, while nobody answers', { role: 'worker', ...away }, 'wait', /it is away/],
  ['is a new worker that is too new', { role: 'worker', asked: { ...none, kubernetes: 'v1.34.0' } }, 'wait'],
  [
    'is a new worker that is too old',
    { role: 'worker', asked: { ...none, kubernetes: 'v1.29.0' } },
    'refused',
    /give it a newer image/,
  ],
  [
    'is a worker made of a control plane',
    { role: 'worker', record: RECORD, etcd: [member('two'), member('three'), member('one', false)] },
    'join -id-one',
  ],
  [
    'is a worker made of one of two control planes',
    { role: 'worker', record: RECORD, etcd: [member('two'), member('one', false)] },
    'wait',
    /no quorum/,
  ],
  [
    'is a new worker of an adopted cluster',
    { role: 'worker', cluster: { ...CLUSTER, isAdopted: true } },
    'join',
  ],
  [
    'is a control plane of an adopted cluster',
    { cluster: { ...CLUSTER, isAdopted: true } },
    'refused',
    /adopted/,
  ],

  // It is new: a control plane.
  ['is a new control plane', {}, 'join-control-plane'],
  ['is a new control plane, not its turn', { changing: CHANGING }, 'wait', /two is joining/],
  [
    'is a new control plane, while etcd is ill',
    { etcd: [member('two'), member('three', false)] },
    'wait',
    /etcd is not healthy: three/,
  ],
  ['is a new control plane, while etcd is silent', { etcd: 'no answer' }, 'wait', /no answer/],
  [
    'is a control plane that lost its data',
    { record: RECORD, etcd: [member('two'), member('three'), member('one', false)] },
    'join-control-plane -id-one',
  ],
  [
    'is one of two that lost its data',
    { record: RECORD, etcd: [member('two'), member('one', false)] },
    'wait',
    /no quorum: 1 of 2/,
  ],
  [
    'has the name of a member that runs',
    { etcd: [member('two'), member('three'), member('one')] },
    'wait',
    /runs elsewhere/,
  ],
  [
    'is a new control plane, too new',
    { asked: { ...none, kubernetes: 'v1.34.0' } },
    'wait',
    /the same minor/,
  ],
  [
    'is a new control plane, too old',
    { asked: { ...none, kubernetes: 'v1.32.0' } },
    'refused',
    /the same minor/,
  ],
  ["has etcd's data of another cluster", { asked: { ...none, etcd: FOREIGN } }, 'refused', /--persistence/],
  ["has this cluster's data", { asked: { ...none, etcd: ID }, record: RECORD, ...alone, ...away }, 'init'],
  [
    "has this cluster's data, beside others",
    { asked: { ...none, etcd: ID }, record: RECORD, etcd: [member('two'), member('one', false)] },
    'init',
  ],
  ["has this cluster's data, not its turn", { asked: { ...none, etcd: ID }, changing: CHANGING }, 'wait'],
  ['has data of a member that was taken out', { asked: { ...none, etcd: ID } }, 'join-control-plane'],
  [
    "has this cluster's data and skips a minor",
    { asked: { kubernetes: 'v1.35.0', node: 'none', etcd: ID }, record: RECORD, ...alone, ...away },
    'refused',
    /skipped/,
  ],
  ['is the only one, without data', { record: RECORD, ...alone, ...away, snapshot: 'ff' }, 'restore ff'],
  [
    'is the only one, without data and snapshot',
    { record: RECORD, ...alone, ...away },
    'wait',
    /no snapshot/,
  ],
  [
    'is the only one that is known, and the API answers',
    { ...alone, snapshot: 'ff' },
    'wait',
    /nothing is restored over it/,
  ],
  [
    'has no data, and others that are away may',
    { record: RECORD, ...away, snapshot: 'ff' },
    'wait',
    /kateskit remove/,
  ],
]

for (const [title, changes, expected, reason] of ROWS) {
  test(`decideNode() says "${expected}" when it ${title}`, (t) => {
    const decision = decideNode({ ...FACTS, ...changes })
    if (decision.kind !== 'grant') {
      t.is(decision.kind as string, expected)
      if (reason !== undefined && 'reason' in decision) t.regex(decision.reason, reason)
      return
    }
    const { action, snapshot, formerMember } = decision
    const words = [action, snapshot, formerMember && `-${formerMember}`].filter((word) => word !== undefined)
    t.is(words.join(' '), expected)
  })
}

const version = fc.constantFrom('v1.32.4', 'v1.33.1', 'v1.33.2', 'v1.34.0', 'v1.35.1')
const maybe = <Value>(arbitrary: fc.Arbitrary<Value>) => fc.option(arbitrary, { nil: undefined, freq: 2 })
const members = fc.uniqueArray(
  fc.record({ name: fc.constantFrom('one', 'two', 'three', 'four'), isHealthy: fc.boolean() }),
  { selector: ({ name }) => name },
)
const anyFacts: fc.Arbitrary<NodeFacts> = fc.record({
  mac: fc.constant(mac),
  name: fc.constant('one'),
  role: fc.constantFrom('control-plane', 'control-plane', 'worker', 'none'),
  asked: fc
    .record({
      kubernetes: version,
      node: fc.constantFrom('none' as const, 'member' as const),
      nodeVersion: maybe(version),
      etcd: maybe(fc.constantFrom(ID, FOREIGN)),
    })
    .map(({ nodeVersion, etcd, ...rest }) => ({
      ...rest,
      ...(nodeVersion !== undefined && { nodeVersion }),
      ...(etcd !== undefined && { etcd }),
    })),
  cluster: maybe(
    fc
      .record({ isUp: fc.boolean(), isAdopted: fc.boolean(), founder: fc.constantFrom(mac, other) })
      .map((some) => ({ ...CLUSTER, ...some, isUp: some.isUp || some.isAdopted })),
  ),
  record: maybe(
    fc
      .record({
        role: fc.constantFrom('control-plane' as const, 'worker' as const),
        version,
        hasJoined: fc.boolean(),
      })
      .map(({ hasJoined, ...some }): NodeRecord => {
        const { hasJoined: _not, ...bare } = RECORD
        return { ...bare, ...some, ...(hasJoined && { hasJoined: true }) }
      }),
  ),
  unreachable: maybe(fc.constant('it is away')),
  hasNode: fc.boolean(),
  others: fc.array(
    fc
      .record({ name: fc.constantFrom('two', 'three'), version: maybe(version) })
      .map(({ name, version: has }) => ({
        name,
        ...(has !== undefined && { version: has }),
      })),
    { maxLength: 2 },
  ),
  changing: maybe(fc.constant(CHANGING)),
  etcd: fc.oneof(
    members.map((all) => all.map(({ name, isHealthy }) => member(name, isHealthy))),
    fc.constantFrom('no answer', undefined, [member('two'), member('three')]),
  ),
  snapshot: maybe(fc.constant('ff')),
})

const minorOf = (text: string | undefined) => findKubernetesVersion(text ?? '')?.minor

test('decideNode() never makes a second cluster, and changes one control plane at a time, whatever is the case', (t) => {
  const seen = new Set<string>()
  fc.assert(
    fc.property(anyFacts, (facts) => {
      const decision = decideNode(facts)
      const { cluster, asked, role, others, changing, etcd, unreachable, record } = facts
      if (decision.kind !== 'grant') return true
      const { action } = decision
      seen.add(action)
      const isOfControlPlane = CONTROL_PLANE_ACTIONS.includes(action)
      const isUp = cluster?.isUp === true
      const holds = [
        role !== 'none',
        !isOfControlPlane || role === 'control-plane',
        // Founding: by nobody else, and never over what is there.
        action !== 'init' || cluster === undefined || cluster.founder === mac || asked.etcd === cluster.id,
        action !== 'init' || !isUp || asked.etcd === cluster.id,
        asked.etcd !== FOREIGN || !isOfControlPlane || action === 'upgrade-first',
        action !== 'restore' || (isUp && unreachable !== undefined && others.length === 0),
        action !== 'restore' || decision.snapshot === facts.snapshot,
        // One at a time.
        !isOfControlPlane || !isUp || changing === undefined,
        action !== 'upgrade-node' || role === 'worker' || changing === undefined,
        cluster?.isAdopted !== true || !isOfControlPlane,
        // What needs the API.
        !action.startsWith('join') || (isUp && unreachable === undefined),
      ]
      if (action === 'join-control-plane') {
        const all = Array.isArray(etcd) ? (etcd as readonly EtcdMember[]) : []
        const rest = all.filter(({ name }) => name !== 'one')
        holds.push(
          rest.every(({ isHealthy }) => isHealthy),
          rest.length >= quorumOf(all.length),
        )
        holds.push(
          others.every((each) => [undefined, minorOf(asked.kubernetes)].includes(minorOf(each.version))),
        )
      }
      if (action.startsWith('upgrade')) {
        const from = minorOf(asked.nodeVersion ?? record?.version) ?? 0
        const to = minorOf(asked.kubernetes) ?? 0
        holds.push(to === from || to === from + 1)
        if (role === 'worker') holds.push(others.every((each) => (minorOf(each.version) ?? to) >= to))
        if (action === 'upgrade-node' && role === 'control-plane')
          holds.push(others.some((each) => minorOf(each.version) === to))
      }
      return holds.every(Boolean)
    }),
    { numRuns: 20_000 },
  )
  t.deepEqual([...seen].sort(), [
    'init',
    'join',
    'join-control-plane',
    'restore',
    'start',
    'upgrade-first',
    'upgrade-node',
  ])
})

test('decideNode() says why, in a sentence that is one line, whenever it gives nothing', (t) => {
  fc.assert(
    fc.property(anyFacts, (facts) => {
      const decision = decideNode(facts)
      return !('reason' in decision) || /^[^\n]{10,300}$/.test(decision.reason)
    }),
  )
  t.pass()
})
