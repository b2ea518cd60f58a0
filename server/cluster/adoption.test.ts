// Tests of a cluster that kubeadm made without us, reached with nothing but what `kateskit cluster role` prints.

import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import test from 'ava'

import { systemClock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { silentLog } from '#lib/log.ts'
import { parseMac } from '#lib/mac.ts'
import { commandOutput } from '#lib/process.ts'
import { pollUntil } from '#lib/retry.ts'
import type { Cluster } from '#machine/cluster-ports.ts'
import { judgeNodeRequest, type OpenGrant } from '#machine/node-request.ts'
import { kubernetesBinaries } from '#testing/kube-binaries.ts'
import {
  askKube,
  makeRequest,
  nodeObject,
  podObject,
  REQUESTS_PATH,
  requestObject,
} from '#testing/kube-client.ts'
import { type KubeControlPlane, startKubeControlPlane } from '#testing/kube-control-plane.ts'
import { enterOwnNetwork } from '#testing/own-network.ts'

import { adoptionManifest } from './adoption.ts'
import { createCluster } from './cluster.ts'
import { readKubeconfig } from './kubeconfig.ts'

const MAC = parseMac('52:54:00:00:00:01')

let plane: KubeControlPlane
let cluster: Cluster
let kubeconfig: string
const grants: OpenGrant[] = []

test.before(async () => {
  await enterOwnNetwork()
  plane = await startKubeControlPlane({
    controllers: ['bootstrapsigner', 'tokencleaner', 'csrsigning', 'csrapproving', 'serviceaccount-token'],
  })
  await plane.kubeadm('init', 'phase', 'upload-config', 'kubeadm')
  await plane.kubeadm('init', 'phase', 'bootstrap-token', '--skip-token-print')
  await plane.kubectl(['create', 'namespace', 'joining'])
  const manifest = await adoptionManifest('joining')
  await plane.kubectl(['apply', '-f', '-'], manifest)
  kubeconfig = await makeKubeconfig(manifest)
  cluster = createCluster({ clock: systemClock, log: silentLog })
  cluster.judgeRequests(
    (request) => judgeNodeRequest(request, grants),
    () => {},
  )
  cluster.use(async () => ({ kind: 'adopted', kubeconfig }))
  await cluster.check()
})

test.after.always(async () => {
  cluster?.use(undefined)
  await plane?.stop()
})

/** By the commands that the manifest itself shows. */
async function makeKubeconfig(manifest: string): Promise<string> {
  await eventually(async () => {
    const jsonpath = 'jsonpath={.data.token}'
    return (
      (await plane.kubectl(['get', 'secret', 'kateskit-token', '-n', 'joining', '-o', jsonpath])) || undefined
    )
  })
  const lines = manifest.split('\n').filter((line) => line.startsWith('#   '))
  const script = lines.map((line) => `${line.slice(4)}\n`).join('')
  const folder = await mkdtemp(join(tmpdir(), 'kit-adopt-'))
  const env = {
    ...process.env,
    PATH: `${await kubernetesBinaries()}:${process.env['PATH']}`,
    KUBECONFIG: plane.pki.kubeconfig('admin'),
  }
  await commandOutput('sh', ['-eu'], { cwd: folder, env, input: script })
  const kubeconfig = await readFile(join(folder, 'kateskit.kubeconfig'), 'utf8')
  await rm(folder, { recursive: true })
  return kubeconfig
}

const eventually = <Found>(probe: () => Promise<Found | undefined>): Promise<Found> =>
  pollUntil(probe, { everyMs: 100, timeoutMs: 60_000, late: () => new KitError('internal', 'never') })

function until(isSo: () => boolean): Promise<void> {
  return new Promise((resolve) => {
    const look = () => {
      if (!isSo()) return
      unsubscribe()
      resolve()
    }
    const unsubscribe = cluster.onChange(look)
    look()
  })
}

test.serial(
  'a machine joins with a token of ours, approved by us, and its node is drained and deleted',
  async (t) => {
    await cluster.ensureBasics()
    const wish = { nodeName: 'n1', mac: MAC, expiresMs: Date.now() + 900_000 }
    const { id, token } = await cluster.mintToken(wish)
    const { pem, keySha256 } = await makeRequest('/O=system:nodes/CN=system:node:n1')
    grants.push({ tokenId: id, kubeletKey: keySha256, nodeName: 'n1', mac: MAC })
    const statusOf = async (path: string) => (await askKube(plane, { token }, { path })).status
    t.is(await statusOf('/api/v1/namespaces/kube-system/configmaps/kubeadm-config'), 200)
    t.is(await statusOf('/api/v1/nodes/n1'), 404)

    const body = requestObject('joining', pem)
    t.is((await askKube(plane, { token }, { method: 'POST', path: REQUESTS_PATH, body })).status, 201)
    const jsonpath = 'jsonpath={.status.certificate}'
    const signed = () => plane.kubectl(['get', 'csr', 'joining', '-o', jsonpath])
    t.truthy(await eventually(async () => (await signed()) || undefined))
    const conditions = await plane.kubectl([
      'get',
      'csr',
      'joining',
      '-o',
      'jsonpath={.status.conditions[*].reason}',
    ])
    t.is(conditions, 'KatesKit')
    await cluster.revokeToken(id)

    await plane.kubectl(['create', '-f', '-'], nodeObject('n1', '10.88.0.7'))
    await until(() => cluster.nodes().some(({ name }) => name === 'n1'))
    await cluster.setMarks('n1', { labels: { rack: 'a' }, taints: [] })
    await plane.kubectl(['create', 'serviceaccount', 'default'])
    await plane.kubectl(['create', '-f', '-'], podObject('pod', 'n1'))
    await cluster.drain('n1', 60_000)
    t.is(await plane.kubectl(['get', 'pods', '-o', 'name']), '')
    await cluster.forgetNode('n1')
    await until(() => cluster.nodes().length === 0)
    t.is(await plane.kubectl(['get', 'csr', '-o', 'name']), '')
  },
)

test.serial(
  "the role gives no more: no Secret is read, nobody is made an administrator, kubeadm's things stay",
  async (t) => {
    const token = readKubeconfig(kubeconfig, JSON.parse).token ?? ''
    const refused = async (path: string, method = 'GET', body?: object) => {
      const { status } = await askKube(
        plane,
        { token },
        { method, path, ...(body === undefined ? {} : { body }) },
      )
      t.is(status, 403, `${method} ${path}`)
    }
    await refused('/api/v1/secrets')
    await refused('/api/v1/namespaces/kube-system/secrets')
    await refused('/api/v1/namespaces/joining/secrets/kateskit-token')
    await refused('/api/v1/namespaces/default/secrets')
    await refused('/api/v1/namespaces/kube-system/configmaps')
    await refused('/api/v1/namespaces/default/pods', 'POST', podObject('p', 'n1'))
    await refused('/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', 'POST', {
      ...{ apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRoleBinding', metadata: { name: 'x' } },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'cluster-admin' },
    })
    t.deepEqual(await cluster.sweepTokens([]), [])
    await t.throwsAsync(cluster.etcdMembers(), { message: /its keys are not this server's/ })
    const bindings = await plane.kubectl(['get', 'clusterrolebinding', '-o', 'name'])
    t.regex(bindings, /kubeadm:node-autoapprove-bootstrap/)
    t.notRegex(await plane.kubectl(['get', 'secrets', '-n', 'kube-system', '-o', 'name']), /^$/)
  },
)

test.serial("a request with a token of kubeadm's own is no matter of ours", async (t) => {
  const token = (await plane.kubectl(['get', 'secrets', '-n', 'kube-system', '-o', 'json'])).trim()
  const { items } = JSON.parse(token) as { items: { type: string; data: Record<string, string> }[] }
  const theirs = items.find(({ type }) => type === 'bootstrap.kubernetes.io/token')?.data ?? {}
  const part = (name: string) => Buffer.from(theirs[name] ?? '', 'base64').toString()
  const bearer = `${part('token-id')}.${part('token-secret')}`
  const { pem } = await makeRequest('/O=system:nodes/CN=system:node:theirs')
  const body = requestObject('theirs', pem)
  const sent = await askKube(plane, { token: bearer }, { method: 'POST', path: REQUESTS_PATH, body })
  t.is(sent.status, 201)
  const jsonpath = 'jsonpath={.status.conditions[*].reason}'
  const reason = await eventually(
    async () => (await plane.kubectl(['get', 'csr', 'theirs', '-o', jsonpath])) || undefined,
  )
  t.is(reason, 'AutoApproved')
})
