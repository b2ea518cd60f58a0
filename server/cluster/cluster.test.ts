// Tests of the adapter against a real API server, etcd and the controllers of Kubernetes. More than 350 lines: another file would start another control plane.

import { createHmac } from 'node:crypto'
import { join } from 'node:path'

import test from 'ava'

import { systemClock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { silentLog } from '#lib/log.ts'
import { parseMac } from '#lib/mac.ts'
import { commandOutput } from '#lib/process.ts'
import { pollUntil } from '#lib/retry.ts'
import type {
  Cluster,
  ClusterAccess,
  NodeCertificateRequest,
  RemovedNode,
  RequestVerdict,
} from '#machine/cluster-ports.ts'
import { NodeBook } from '#machine/node-book.ts'
import { judgeNodeRequest, type OpenGrant } from '#machine/node-request.ts'
import { NodeReturns } from '#machine/node-return.ts'
import {
  askKube,
  MACHINE_ID,
  makeRequest,
  nodeObject,
  podObject,
  REQUESTS_PATH,
  requestObject,
} from '#testing/kube-client.ts'
import { type KubeControlPlane, startKubeControlPlane } from '#testing/kube-control-plane.ts'
import { enterOwnNetwork } from '#testing/own-network.ts'
import { open } from '#testing/store-fixture.ts'
import { TurnedClock } from '#testing/turned-clock.ts'

import { createCluster } from './cluster.ts'
import { connect } from './connection.ts'

const MAC = parseMac('52:54:00:00:00:01')
const REMOVED: RemovedNode = { mac: MAC, name: 'n1', machineId: MACHINE_ID, atMs: 0 }
const DAY_MS = 86_400_000

let plane: KubeControlPlane
let cluster: Cluster
let heard: { request: NodeCertificateRequest; verdict: RequestVerdict }[] = []
let hear: () => void = () => {}
const grants: OpenGrant[] = []
/** Of the kubelet of n1. */
let certificate = { cert: '', key: '' }

test.before(async () => {
  await enterOwnNetwork()
  plane = await startKubeControlPlane({
    controllers: ['bootstrapsigner', 'tokencleaner', 'csrsigning', 'csrapproving', 'disruption'],
  })
  cluster = createCluster({ clock: systemClock, log: silentLog, issueEtcdClient: etcdClient })
  cluster.judgeRequests(
    (request) => judgeNodeRequest(request, grants),
    (request, verdict) => {
      heard.push({ request, verdict })
      hear()
    },
  )
  cluster.use(access)
  await cluster.check()
})

test.after.always(async () => {
  cluster?.use(undefined)
  await plane?.stop()
})

async function access(): Promise<ClusterAccess> {
  const { pki, endpoint } = plane
  const { data } = adminOf(plane.kubeconfig)
  const client = {
    certificate: data('client-certificate'),
    key: data('client-key'),
    untilMs: Date.now() + DAY_MS,
  }
  return { kind: 'own', endpoint, authority: await pki.read('ca.crt'), client }
}

function adminOf(kubeconfig: string) {
  const data = (name: string) => {
    const base64 = new RegExp(`${name}-data: (\\S+)`).exec(kubeconfig)?.[1] ?? ''
    return Buffer.from(base64, 'base64').toString()
  }
  return { data }
}

async function etcdClient() {
  const name = 'etcd/healthcheck-client'
  const [certificate, key] = await Promise.all([plane.pki.read(`${name}.crt`), plane.pki.read(`${name}.key`)])
  return { certificate, key, authority: await plane.pki.read('etcd/ca.crt'), untilMs: Date.now() + DAY_MS }
}

/** Resolves when what the cluster tells is so. */
function until(isSo: () => boolean, of = cluster): Promise<void> {
  return new Promise((resolve) => {
    const look = () => {
      if (!isSo()) return
      unsubscribe()
      resolve()
    }
    const unsubscribe = of.onChange(look)
    look()
  })
}

/** Resolves when the API says so, to whom it cannot tell when it does. */
const eventually = <Found>(probe: () => Promise<Found | undefined>): Promise<Found> =>
  pollUntil(probe, { everyMs: 100, timeoutMs: 60_000, late: () => new KitError('internal', 'never') })

const mint = (options: { nodeName?: string; lifeMs?: number } = {}) =>
  cluster.mintToken({
    nodeName: options.nodeName ?? 'n1',
    mac: MAC,
    expiresMs: Date.now() + (options.lifeMs ?? 900_000),
  })

test.serial('ensureBasics() makes what kubeadm makes, and takes its approving by itself away', async (t) => {
  await plane.kubeadm('init', 'phase', 'upload-config', 'kubeadm')
  await plane.kubectl(['apply', '-f', '-'], {
    ...{ apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRoleBinding' },
    metadata: { name: 'kubeadm:node-autoapprove-bootstrap' },
    roleRef: {
      ...{ apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole' },
      name: 'system:certificates.k8s.io:certificatesigningrequests:nodeclient',
    },
    subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'Group', name: 'system:bootstrappers' }],
  })
  await cluster.ensureBasics()
  await cluster.ensureBasics()
  const bindings = await plane.kubectl(['get', 'clusterrolebinding', '-o', 'name'])
  t.notRegex(bindings, /node-autoapprove-bootstrap/)
  t.regex(bindings, /kubeadm:node-autoapprove-certificate-rotation/)
  t.regex(bindings, /kateskit:kubelet-bootstrap/)
  t.is(cluster.health().version, plane.pki.version)
})

test.serial(
  'mintToken() resolves when anybody can check cluster-info with it, and it opens what a join needs until it is over',
  async (t) => {
    const { id, token } = await mint()
    const path = '/api/v1/namespaces/kube-public/configmaps/cluster-info'
    const { body } = await askKube(plane, {}, { path })
    const { kubeconfig = '', [`jws-kubeconfig-${id}`]: jws = '' } = body['data'] as Record<string, string>
    const [header = '', , signature = ''] = jws.split('.')
    const signed = `${header}.${Buffer.from(kubeconfig).toString('base64url')}`
    const secret = token.split('.')[1] ?? ''
    t.is(createHmac('sha256', secret).update(signed).digest('base64url'), signature)
    t.true(kubeconfig.includes(`https://${plane.endpoint}`))

    const node = '/api/v1/nodes/n1'
    t.is(await ask(token, '/api/v1/namespaces/kube-system/configmaps/kubeadm-config'), 200)
    t.is(await ask(token, node), 404)
    t.is(await ask(token, '/api/v1/nodes'), 403)
    t.is(await ask(token, '/api/v1/namespaces/kube-system/secrets'), 403)
    t.is(await ask(token, '/api/v1/namespaces/kube-system/configmaps'), 403)

    const past = await mint({ lifeMs: 3_000 })
    t.is(await ask(past.token, node), 404)
    await cluster.revokeToken(id)
    await cluster.revokeToken(id)
    // The API believes for 10 s what it has found out about a token.
    for (const old of [token, past.token])
      await eventually(async () => ((await ask(old, node)) === 401 ? true : undefined))
  },
)

const ask = async (token: string, path: string) => (await askKube(plane, { token }, { path })).status

test.serial('mintToken() hands out nothing that the cluster does not sign', async (t) => {
  const impatient = createCluster({ clock: systemClock, log: silentLog, signingTimeoutMs: 300 })
  impatient.use(access)
  const late = impatient.mintToken({ nodeName: 'n1', mac: MAC, expiresMs: Date.now() - 1_000 })
  await t.throwsAsync(late, { message: /has not signed cluster-info/ })
  t.deepEqual(await impatient.sweepTokens([]), [])
  impatient.use(undefined)
})

test.serial('sweepTokens() takes back what nobody knows, and no token of others', async (t) => {
  const [kept, leftover] = [await mint(), await mint()]
  await plane.kubectl(['apply', '-f', '-'], {
    ...{ apiVersion: 'v1', kind: 'Secret', type: 'bootstrap.kubernetes.io/token' },
    metadata: { name: 'bootstrap-token-abcdef', namespace: 'kube-system' },
    stringData: { 'token-id': 'abcdef', 'token-secret': '0123456789abcdef' },
  })
  t.deepEqual(await cluster.sweepTokens([kept.id]), [leftover.id])
  const names = await plane.kubectl(['get', 'secrets', '-n', 'kube-system', '-o', 'name'])
  t.true(names.includes(kept.id) && names.includes('abcdef') && !names.includes(leftover.id))
  await cluster.revokeToken(kept.id)
})

test.serial(
  'judgeRequests() lets a machine have its own name with its own key, and nobody anything else',
  async (t) => {
    const { id, token } = await mint({ nodeName: 'n1' })
    const other = await mint({ nodeName: 'n2' })
    const nodes = ['/O=system:nodes/CN=system:node:n1', '/O=system:nodes/CN=system:node:n2'] as const
    const cases = [
      { name: 'right', subject: nodes[0], token, verdict: 'approve' },
      { name: 'other-key', subject: nodes[0], token, verdict: 'deny' },
      { name: 'wrong-name', subject: nodes[1], token, verdict: 'deny' },
      { name: 'other-token', subject: nodes[1], token: other.token, verdict: 'deny' },
      { name: 'other-group', subject: '/O=admins/CN=system:node:n1', token, verdict: 'deny' },
    ] as const
    heard = []
    const made = new Map<string, string>()
    for (const { name, subject, token: by } of cases) {
      const { pem, key, keySha256 } = await makeRequest(subject)
      made.set(name, key)
      if (name === 'right') grants.push({ tokenId: id, kubeletKey: keySha256, nodeName: 'n1', mac: MAC })
      const body = requestObject(name, pem)
      const sent = await askKube(plane, { token: by }, { method: 'POST', path: REQUESTS_PATH, body })
      t.is(sent.status, 201, JSON.stringify(sent.body))
    }
    await new Promise<void>((resolve) => {
      hear = () => heard.length === cases.length && resolve()
      hear()
    })
    for (const { name, verdict } of cases)
      t.is(heard.find(({ request }) => request.name === name)?.verdict.kind, verdict, name)
    t.regex(reasonOf('wrong-name'), /its grant for system:node:n1/)
    t.regex(reasonOf('other-token'), /no open grant/)
    t.regex(reasonOf('other-group'), /groups "admins"/)
    t.regex(reasonOf('other-key'), /another key than the machine has made/)

    const cert = await certificateOf('right')
    t.is(await plane.kubectl(['get', 'csr', 'wrong-name', '-o', 'jsonpath={.status.certificate}']), '')
    const denied = await plane.kubectl(['get', 'csr', 'wrong-name', '-o', 'jsonpath={.status.conditions[0]}'])
    t.like(JSON.parse(denied), { type: 'Denied', reason: 'KatesKit' })

    // A node's renewal is no matter of grants: it is let by Kubernetes' own controller, and nobody here hears of it.
    heard = []
    certificate = { cert, key: made.get('right') ?? '' }
    const renewal = requestObject('renewal', (await makeRequest(nodes[0])).pem)
    const sent = await askKube(plane, { certificate }, { method: 'POST', path: REQUESTS_PATH, body: renewal })
    t.is(sent.status, 201)
    t.true((await certificateOf('renewal')).startsWith('-----BEGIN CERTIFICATE-----'))
    t.deepEqual(heard, [])
    await cluster.revokeToken(id)
    await cluster.revokeToken(other.id)
  },
)

function reasonOf(name: string): string {
  const verdict = heard.find(({ request }) => request.name === name)?.verdict
  return verdict?.kind === 'deny' ? verdict.reason : ''
}

/** When it is signed. PEM. */
function certificateOf(name: string): Promise<string> {
  return eventually(async () => {
    const base64 = await plane.kubectl(['get', 'csr', name, '-o', 'jsonpath={.status.certificate}'])
    return base64 === '' ? undefined : Buffer.from(base64, 'base64').toString()
  })
}

test.serial(
  'nodes() follows the cluster, setMarks() and setCordon() change one, forgetNode() forgets it',
  async (t) => {
    await addNode(nodeObject('n1', '10.88.0.7', { theirs: 'stays' }))
    await until(() => cluster.nodes().some(({ name }) => name === 'n1'))
    await until(() => nodeNamed('n1')?.isReady === true)
    t.like(nodeNamed('n1'), {
      address: '10.88.0.7',
      version: 'v1.20.2',
      isControlPlane: false,
      isCordoned: false,
      machineId: MACHINE_ID,
    })

    await plane.kubectl(['taint', 'node', 'n1', 'theirs=x:NoSchedule'])
    const taints = async () => {
      const keys = await plane.kubectl(['get', 'node', 'n1', '-o', 'jsonpath={.spec.taints[*].key}'])
      // The API's own, of every new Node.
      return keys
        .split(' ')
        .filter((key) => key !== 'node.kubernetes.io/not-ready')
        .toSorted()
    }
    const blank = { labels: {}, taints: [] }
    await cluster.setMarks('n1', { labels: { rack: 'a', disk: 'ssd' }, taints: ['gpu=yes:NoSchedule'] })
    await until(() => nodeNamed('n1')?.labels['rack'] === 'a')
    t.deepEqual(await taints(), ['gpu', 'theirs'])
    await cluster.setMarks('n1', { ...blank, labels: { rack: 'b' } })
    await until(() => nodeNamed('n1')?.labels['rack'] === 'b')
    t.is(nodeNamed('n1')?.labels['disk'], undefined)
    await cluster.setMarks('n1', blank)
    await until(() => nodeNamed('n1')?.labels['rack'] === undefined)
    t.is(nodeNamed('n1')?.labels['theirs'], 'stays')
    t.deepEqual(await taints(), ['theirs'])

    await cluster.setCordon('n1', true)
    await until(() => nodeNamed('n1')?.isCordoned === true)
    await cluster.setCordon('n1', false)
    await until(() => nodeNamed('n1')?.isCordoned === false)

    await cluster.forgetNode('n1')
    t.is(nodeNamed('n1'), undefined, 'whether the watch has said so or not')
    await cluster.forgetNode('n1')
    t.notRegex(await plane.kubectl(['get', 'csr', '-o', 'name']), /right|renewal/)
    await t.throwsAsync(cluster.setCordon('n1', true), { message: /cordon the node n1.*not found/ })
  },
)

test.serial('a removed machine makes its Node again with its certificate, and is turned away', async (t) => {
  const store = await open(t)
  const book = new NodeBook(store.clusters)
  await book.saveCluster({
    ...{ id: '0123456789abcdef', name: 'kateskit', endpoint: plane.endpoint },
    ...{ isAdopted: false, isUp: true, sinceMs: 0 },
  })
  await book.saveRemovedNode(REMOVED)
  const returns = new NodeReturns({ book, cluster, events: store.events, log: silentLog })
  const node = nodeObject('n1', '10.88.0.7')
  const uids = new Set<unknown>()
  for (let starts = 1; starts <= 2; starts += 1) {
    const sent = await askKube(plane, { certificate }, { method: 'POST', path: '/api/v1/nodes', body: node })
    t.is(sent.status, 201, JSON.stringify(sent.body))
    await until(() => nodeNamed('n1') !== undefined)
    uids.add(nodeNamed('n1')?.uid)
    await returns.turnAway()
    t.is(await plane.kubectl(['get', 'nodes', '-o', 'name']), '')
  }
  t.is(uids.size, 2)
  const kinds = (await store.events.list({ limit: 9 })).map(({ kind }) => kind)
  t.deepEqual(kinds, ['node-turned-away', 'node-turned-away'])
})

const nodeNamed = (name: string) => cluster.nodes().find((node) => node.name === name)

/** Its status is a part of its own in the API. */
async function addNode(node: ReturnType<typeof nodeObject>): Promise<void> {
  await plane.kubectl(['create', '-f', '-'], node)
  const certificate = {
    cert: adminOf(plane.kubeconfig).data('client-certificate'),
    key: adminOf(plane.kubeconfig).data('client-key'),
  }
  const path = `/api/v1/nodes/${node.metadata.name}/status`
  await askKube(plane, { certificate }, { method: 'PUT', path, body: node })
}

test.serial(
  'drain() waits for disruption budgets, leaves daemons alone, and names what is left',
  async (t) => {
    await addNode(nodeObject('worker', '10.88.0.8'))
    await plane.kubectl(['create', 'serviceaccount', 'default'])
    const owner = { apiVersion: 'apps/v1', kind: 'DaemonSet', name: 'd', uid: 'u', controller: true }
    const objects = [
      podObject('plain', 'worker'),
      podObject('guarded', 'worker', { labels: { app: 'guarded' } }),
      podObject('daemon', 'worker', { ownerReferences: [owner] }),
      {
        ...{
          apiVersion: 'policy/v1beta1',
          kind: 'PodDisruptionBudget',
          metadata: { name: 'b', namespace: 'default' },
        },
        spec: { minAvailable: 1, selector: { matchLabels: { app: 'guarded' } } },
      },
    ]
    for (const object of objects) await plane.kubectl(['create', '-f', '-'], object)
    await setReady('guarded')
    await t.throwsAsync(cluster.drain('worker', 1_000), {
      message: /left after 1 s: default\/guarded \(its disruption budget does not allow it\)$/,
    })
    const drained = cluster.drain('worker', 60_000)
    await setReady('guarded')
    await addNode(nodeObject('elsewhere', '10.88.0.9'))
    await plane.kubectl(
      ['create', '-f', '-'],
      podObject('stand-in', 'elsewhere', { labels: { app: 'guarded' } }),
    )
    await setReady('stand-in')
    await drained
    t.is(await plane.kubectl(['get', 'pods', '-o', 'jsonpath={.items[*].metadata.name}']), 'daemon stand-in')
    t.true(nodeNamed('worker')?.isCordoned)
  },
)

async function setReady(name: string): Promise<void> {
  const certificate = {
    cert: adminOf(plane.kubeconfig).data('client-certificate'),
    key: adminOf(plane.kubeconfig).data('client-key'),
  }
  const path = `/api/v1/namespaces/default/pods/${name}`
  const pod = await askKube(plane, { certificate }, { path })
  const status = { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] }
  const body = { ...pod.body, status }
  await askKube(plane, { certificate }, { method: 'PUT', path: `${path}/status`, body })
}

test.serial(
  'etcdMembers() asks etcd by the control planes, and the last member is not taken out',
  async (t) => {
    await t.throwsAsync(cluster.etcdMembers(), { message: /no control plane has an address/ })
    await addNode(nodeObject('control-plane', plane.address, { 'node-role.kubernetes.io/control-plane': '' }))
    await until(() => nodeNamed('control-plane')?.address !== undefined)
    const members = await cluster.etcdMembers()
    t.is(members.length, 1)
    t.like(members[0], { name: 'control-plane', isHealthy: true, isLeader: true })
    t.deepEqual(members[0]?.peerUrls, [`https://${plane.address}:2380`])
    await t.throwsAsync(cluster.removeEtcdMember(members[0]?.id ?? ''), { message: /the only member/ })
    await cluster.removeEtcdMember('abcdef')

    const file = (name: string) => join(plane.pki.folder, 'etcd', name)
    await commandOutput('etcdctl', [
      ...['--endpoints', `https://${plane.address}:2379`, '--cacert', file('ca.crt')],
      ...['--cert', file('healthcheck-client.crt'), '--key', file('healthcheck-client.key')],
      ...['member', 'add', 'late', '--peer-urls', 'https://10.88.0.99:2380', '--learner'],
    ])
    const learner = (await cluster.etcdMembers()).find(({ isLearner }) => isLearner)
    t.like(learner, { name: '', isHealthy: false, isLeader: false })
    await cluster.removeEtcdMember(learner?.id ?? '')
    t.is((await cluster.etcdMembers()).length, 1)
  },
)

test.serial('an API server that is killed is waited for, and followed on when it is back', async (t) => {
  await plane.apiServer.kill()
  await until(() => !cluster.health().isReachable)
  t.regex(
    cluster.health().problem ?? '',
    /^Cannot follow .*(ECONNREFUSED|closed|terminated|ECONNRESET|disconnected)/,
  )
  const failed = await t.throwsAsync<KitError>(cluster.check(), { instanceOf: KitError })
  t.is(failed?.code, 'unavailable')
  t.is((await t.throwsAsync<KitError>(mint(), { instanceOf: KitError }))?.code, 'unavailable')
  t.true(cluster.nodes().length > 0)
  await plane.apiServer.start()
  await until(() => cluster.health().isReachable)
  await addNode(nodeObject('late', '10.88.0.10'))
  await until(() => nodeNamed('late') !== undefined)
  const { id } = await mint()
  await cluster.revokeToken(id)

  // What follow() lists anew for: it knows no more what happened since the first version.
  const connection = await connect(await access())
  const said = await new Promise((resolve) => {
    connection.watch(
      '/api/v1/nodes',
      { resourceVersion: '1' },
      { event: (type, object) => resolve({ type, object }), ended: resolve },
    )
  })
  t.like(said, { type: 'ERROR', object: { code: 410 } })
  connection.close()
})

test.serial(
  'use() asks for another certificate before the one it has is over, and lets go of everything',
  async (t) => {
    const clock = new TurnedClock(Date.now())
    const own = createCluster({ clock, log: silentLog })
    let asked = 0
    own.use(async () => {
      asked += 1
      return access()
    })
    await until(() => own.health().version !== undefined && own.nodes().length > 0, own)
    clock.turn(DAY_MS / 2)
    t.is(asked, 1)
    clock.turn(DAY_MS / 4)
    await own.check()
    t.is(asked, 2)
    own.use(undefined)
    t.is(clock.waiting, 0)
    t.false(own.health().isReachable)
    t.deepEqual(own.nodes(), [])
    await t.throwsAsync(own.check(), { message: /there is none yet/ })
    cluster.use(undefined)
    await eventually(async () => (openSockets() === 0 ? true : undefined))
  },
)

function openSockets(): number {
  return process.getActiveResourcesInfo().filter((resource) => resource === 'TCPSocketWrap').length
}
