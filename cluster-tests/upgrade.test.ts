// A cluster goes to the next minor of Kubernetes with its image, and then loses its machines one after the other, as people want it.

import { access, cp, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import test from 'ava'

import { KitError } from '#lib/errors.ts'
import { type Mac, macToPath } from '#lib/mac.ts'
import { pollUntil } from '#lib/retry.ts'
import type { ClusterNodeView } from '#machine/cluster-ports.ts'
import type { MachineView } from '#machine/ports.ts'
import { ensureKubernetes, type KubernetesChoice, TEST_KUBERNETES } from '#setup/kubernetes.ts'

import type { EventWatch } from '../qemu-tests/event-watch.ts'
import { type Person, personAt } from '../qemu-tests/kateskit.ts'
import { machineFiles } from '../qemu-tests/profile-files.ts'
import { imageFolder, recipeSurroundings, scratchFolder } from '../qemu-tests/test-lan.ts'
import { type ClusterLan, startClusterLan, writeImages } from './cluster-lan.ts'
import { FIRST, SECOND } from './container-lan.ts'
import { WEB_IMAGE } from './web-image.ts'

const OLD = 'v1.19.16'
const NEW = 'v1.20.2'
const CHANNEL = 'stable'
const PAGE = 'written before the upgrade'
const WEB = 'http://10.77.0.51:30080/'

const MANIFEST = `
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
data: {index.html: "${PAGE}"}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {word: "kept as well"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      automountServiceAccountToken: false
      # It stays where it is for as long as a restart takes.
      tolerations:
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute}
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute}
      containers:
      - name: web
        image: ${WEB_IMAGE}
        command: [/bin/httpd, -f, -p, "80", -h, /www]
        volumeMounts: [{name: page, mountPath: /www}]
      volumes: [{name: page, configMap: {name: page}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, nodePort: 30080}]
`

test('a cluster goes from minor to minor with its image, none skipped, the control plane first; then its machines are taken out', async (t) => {
  const folder = await scratchFolder(t)
  const images = await buildImages()
  const lan = await startClusterLan(t, {
    image: images.old,
    environment: { KATESKIT_REGISTRY_IMPORT: await writeImages(join(folder, 'both'), ...images.kubernetes) },
    files: {
      'roles/control-plane/node-labels': 'kit-test/made=here\n',
      'roles/worker/node-labels': 'kit-test/made=there\n',
      ...machineFiles(FIRST.mac, { role: 'control-plane\n', ip: '10.77.0.50\n', hostname: 'first\n' }),
      ...machineFiles(SECOND.mac, { role: 'worker\n', ip: '10.77.0.51\n', hostname: 'second\n' }),
    },
  })
  const began = Date.now()
  const tell = (what: string) =>
    t.log(`${what}: ${Math.round((Date.now() - began) / 1000)} s after the start`)
  const machines = { first: await lan.powerOn(FIRST), second: await lan.powerOn(SECOND) }
  for (const { mac } of [FIRST, SECOND]) await lan.waitFor('node-ready', mac)
  await lan.getKubeconfig()
  t.is(await nodesOf(lan), `first True ${OLD}\nsecond True ${OLD}`)
  t.is((await lan.cluster()).version, OLD)
  await lan.apply(MANIFEST)
  const before = await isAsBefore(t, lan)
  tell(`a cluster with ${OLD}`)

  // What is never right is refused.
  const [oldVersion = ''] = (await lan.fleet.images()).map(({ version }) => version)
  const skipping = await lan.fleet.importImage(await skipMinor(images.new, join(folder, 'skipping')))
  const person = personAt(lan)
  t.regex(
    await person.failsTo('channel', 'promote', skipping, CHANNEL),
    /it cannot go from v1\.19\.16 to v1\.22\.0: no minor may be skipped, v1\.20 comes first/,
  )
  const version = await lan.fleet.importImage(images.new)
  await lan.fleet.promote(version, CHANNEL)

  // The worker is there first, and waits: its kubelet may not be newer than the API.
  const step = await lan.fromNow()
  await machines.second.reset()
  const waits = await untilNode(lan, 'second', ({ reason }) =>
    /wait for the control planes/.test(reason ?? ''),
  )
  t.is(waits.reason, `workers with ${NEW} wait for the control planes: first has ${OLD}`)
  await lan.untilView(SECOND.mac, ({ imageVersion }) => imageVersion === version)
  t.deepEqual(await step.events('node-granted', SECOND.mac), [])
  t.regex(await nodesOf(lan), /^second \S+ v1\.19\.16$/m, 'no kubelet of the new image has spoken')
  tell('the worker waits')

  await machines.first.reset()
  t.is((await step.waitFor('node-ready', FIRST.mac)).data['action'], 'upgrade-first')
  tell('the control plane is upgraded')
  t.is((await step.waitFor('node-ready', SECOND.mac)).data['action'], 'upgrade-node')
  tell('the worker is upgraded')
  await isUpgraded(t, lan, { step, version })
  t.is(await isAsBefore(t, lan), before, 'the very pod')
  t.regex(
    await person.failsTo('channel', 'promote', oldVersion, CHANNEL),
    /cannot go back from v1\.20\.2 to v1\.19\.16/,
  )

  await takeOut(t, lan, person)
  tell('both are taken out')
})

/** Both nodes say so, the API and this server do, each machine's own check has passed, and the history has each step. */
async function isUpgraded(
  t: Asserts,
  lan: ClusterLan,
  { step, version }: { readonly step: EventWatch; readonly version: string },
): Promise<void> {
  t.is(await nodesOf(lan), `first True ${NEW}\nsecond True ${NEW}`)
  t.regex(await lan.kubectl('get', '--raw', '/version'), /"gitVersion": "v1\.20\.2"/)
  await untilSo(
    async () => ((await lan.cluster()).version === NEW ? true : undefined),
    `The cluster is not at ${NEW}`,
  )
  for (const [{ mac }, action] of [
    [FIRST, 'upgrade-first'],
    [SECOND, 'upgrade-node'],
  ] as const) {
    t.deepEqual(await stepsOf(step, mac), [
      `node-granted ${action}`,
      `node-step ${action} kubeadm`,
      `node-step ${action} kubelet`,
      `node-joined ${action}`,
      `node-ready ${action}`,
    ])
    const machine = await lan.untilView(mac, ({ imageVersion }) => imageVersion === version)
    await lan.onMachine(
      machine,
      'timeout 300 sh -c \'until grep -qx "passed the node is Ready" /run/kit/node-check; do sleep 1; done\'',
    )
  }
}

/** The only control plane stays until somebody insists; a worker goes at once. */
async function takeOut(t: Asserts, lan: ClusterLan, person: Person): Promise<void> {
  const second = await lan.network.server.client.machine(SECOND.mac)
  t.regex(
    await person.failsTo('remove', 'first', '--yes'),
    /Cannot take first out of etcd: it is the only member.*--force/s,
  )
  t.is(
    await lan.kubectl('get', 'node', 'first', '-o', 'jsonpath={.spec.unschedulable}'),
    '',
    'nothing was begun',
  )

  await person.does('remove', 'second', '--yes')
  t.deepEqual(await removalOf(lan, SECOND.mac), [
    'drain done',
    'node done',
    'role done',
    'identity done',
    'records done',
  ])
  t.is(await nodesOf(lan), `first True ${NEW}`)
  t.is(await lan.kubectl('get', 'pods', '-l', 'app=web', '-o', 'jsonpath={.items[*].spec.nodeName}'), '')
  t.is(await lan.kubectl('-n', 'kube-system', 'get', 'secrets', ...TOKENS), '')
  await t.throwsAsync(access(join(lan.profiles, 'machines', macToPath(SECOND.mac), 'role')))
  const kubeletKey = 'ab'.repeat(32)
  const asking = { boot: second.bootId, kubernetes: NEW, node: 'none', kubeletKey, address: second.address }
  t.regex(await asks(lan, second, 'target'), /"identity-needed".*\n403$/s)
  t.regex(await asks(lan, second, 'grant?wait=1', asking), /"identity-needed".*\n403$/s)
  await isTurnedAway(t, lan, second)

  await person.does('remove', 'first', '--yes', '--force')
  t.deepEqual(await removalOf(lan, FIRST.mac), [
    'etcd-member failed',
    'drain done',
    'etcd-member skipped',
    'node done',
    'role done',
    'identity done',
    'records done',
  ])
  t.deepEqual((await lan.cluster()).nodes, [])
}

/** The kubelet alone, with the certificate that it has: no service of ours makes it stop, as where a thief starts it. */
async function isTurnedAway(t: Asserts, lan: ClusterLan, second: MachineView): Promise<void> {
  const step = await lan.fromNow()
  await lan.onMachine(
    second,
    'systemctl stop kit-agent.service kit-kubernetes.service && systemctl restart kubelet.service',
  )
  t.true((await step.waitFor('node-turned-away', SECOND.mac)).data['deleted'])
  t.is(await nodesOf(lan), `first True ${NEW}`)
}

const TOKENS = ['--field-selector', 'type=bootstrap.kubernetes.io/token', '-o', 'name']

/** The same source under both versions: assets/kubernetes. */
async function buildImages() {
  const options = { ...recipeSurroundings(), choice: TEST_KUBERNETES }
  const old = await ensureKubernetes({ ...options, versionLabel: OLD })
  const { cri, ociRuntime } = TEST_KUBERNETES
  const choice: KubernetesChoice = {
    ...{ source: 'directory', directory: old.folder },
    ...(cri !== undefined && { cri }),
    ...(ociRuntime !== undefined && { ociRuntime }),
  }
  const kubernetes = [old, await ensureKubernetes(options)]
  return { kubernetes, old: await imageFolder(choice), new: await imageFolder(TEST_KUBERNETES) }
}

/** The image again, saying that it has a Kubernetes that nobody here has. */
async function skipMinor(image: string, folder: string): Promise<string> {
  await cp(image, folder, { recursive: true })
  const file = join(folder, 'manifest.json')
  const skipping = (await readFile(file, 'utf8'))
    .replace(/"version": "[^"]*"/, '"version": "0.9.0"')
    .replace(/("kubernetes": \{ "version": )"[^"]*"/, '$1"v1.22.0"')
  await writeFile(file, skipping)
  return folder
}

interface Asserts {
  is(actual: unknown, expected: unknown, why?: string): void
  true(actual: unknown): void
  regex(text: string, pattern: RegExp): void
  deepEqual(actual: unknown, expected: unknown): void
  throwsAsync(promise: Promise<unknown>): Promise<unknown>
}

/** Resolves with the name of the pod. */
async function isAsBefore(t: Asserts, lan: ClusterLan): Promise<string> {
  const data = (kind: string, name: string, path: string) =>
    lan.kubectl('get', kind, name, '-o', `jsonpath={.data.${path}}`)
  t.is(await data('configmap', 'page', 'index\\.html'), PAGE)
  t.is(Buffer.from(await data('secret', 'password', 'word'), 'base64').toString(), 'kept as well')
  await lan.kubectl('wait', '--for=condition=Available', 'deployment/web', '--timeout=600s')
  t.is(await lan.get(WEB), PAGE)
  return lan.kubectl('get', 'pods', '-l', 'app=web', '-o', 'jsonpath={.items[*].metadata.name}')
}

/** Name, whether it is Ready, and its kubelet's version, a line each. */
async function nodesOf(lan: ClusterLan): Promise<string> {
  const ready = '{.status.conditions[?(@.type=="Ready")].status}'
  const line = `{.metadata.name} ${ready} {.status.nodeInfo.kubeletVersion}{"\\n"}`
  return (await lan.kubectl('get', 'nodes', '-o', `jsonpath={range .items[*]}${line}{end}`)).trimEnd()
}

function untilNode(
  lan: ClusterLan,
  name: string,
  matches: (node: ClusterNodeView) => boolean,
): Promise<ClusterNodeView> {
  return untilSo(
    async () => (await lan.cluster()).nodes.find((node) => node.name === name && matches(node)),
    `The node ${name} is not as it should be`,
  )
}

function untilSo<T>(probe: () => Promise<T | undefined>, late: string): Promise<T> {
  return pollUntil(probe, {
    everyMs: 1_000,
    timeoutMs: 10 * 60_000,
    late: () => new KitError('unavailable', late),
  })
}

/** Of its grant, as the history has them. */
async function stepsOf(watch: EventWatch, mac: Mac): Promise<readonly string[]> {
  const kinds = [
    'node-granted',
    'node-refused',
    'node-step',
    'node-failed',
    'node-joined',
    'node-ready',
  ] as const
  const found = (await Promise.all(kinds.map((kind) => watch.events(kind, mac)))).flat()
  return found
    .sort((one, other) => one.id - other.id)
    .map(({ kind, data }) =>
      [kind, data['action'], data['step']].filter((word) => word !== undefined).join(' '),
    )
}

async function removalOf(lan: ClusterLan, mac: Mac): Promise<readonly string[]> {
  return (await lan.events('removal-step', mac)).map(({ data }) => `${data['step']} ${data['outcome']}`)
}

/** With the certificate that it had: what the server answers, and the status. */
function asks(lan: ClusterLan, machine: MachineView, path: string, body?: object): Promise<string> {
  const data =
    body === undefined ? '' : `-H 'Content-Type: application/json' --data '${JSON.stringify(body)}'`
  return lan.onMachine(
    machine,
    `cd /run/kit/identity && . /run/kit/env && curl -q -sS --cacert ca.pem --cert certificate.pem --key key.pem -w '\\n%{http_code}' \
      ${data} "$KIT_TLS/v1/machines/${macToPath(machine.mac)}/${path}"`,
  )
}
