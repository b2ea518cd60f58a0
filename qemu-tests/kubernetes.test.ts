// From blank disks to a cluster: firmware, installation, kubeadm; a control plane and a worker that are Ready, without internet. Then the
// worker gets another image, and is drained for its restart (KATESKIT_MACHINES=all: npm run test:machines).

import { dirname, join } from 'node:path'

import test, { type ExecutionContext } from 'ava'

import { labControlSocket } from '#lab/lab-network.ts'
import { createJsonHttp } from '#lib/json-http.ts'
import type { ClusterView } from '#machine/cluster-ports.ts'
import { ensureKubernetes, TEST_KUBERNETES } from '#setup/kubernetes.ts'

import { buildVariant } from './image-variants.ts'
import { INSTALLED_FILES, withDisk } from './installed-lan.ts'
import { personAt } from './kateskit.ts'
import { machineFiles, writeTree } from './profile-files.ts'
import {
  BIOS,
  imageFolder,
  recipeSurroundings,
  scratchFolder,
  startTestLan,
  type TestLan,
  UEFI,
} from './test-lan.ts'

/** Everything takes ten times as long on emulated cores: nobody is taken for dead because of it. */
const PATIENCE_MS = 50 * 60_000
const PATIENCE = {
  ClusterConfiguration: {
    apiServer: { timeoutForControlPlane: '40m0s' },
    controllerManager: { extraArgs: { 'leader-elect': 'false' } },
    scheduler: { extraArgs: { 'leader-elect': 'false' } },
    etcd: { local: { extraArgs: { 'heartbeat-interval': '1000', 'election-timeout': '10000' } } },
  },
}
/** Another image is to be built and written, and another boot. */
const IS_LONG = process.env['KATESKIT_MACHINES'] === 'all'
/** The worker's own, so that the control plane keeps its image. */
const CHANNEL = 'edge'
/** On the control plane. */
const KUBECTL = 'kubectl --kubeconfig /etc/kubernetes/admin.conf'
const MEMORY_MIB = { 'control-plane': 3072, worker: 1536 }

test('two machines with blank disks become a cluster', async (t) => {
  const began = Date.now()
  const tell = (what: string) =>
    t.log(`${what}: ${Math.round((Date.now() - began) / 1000)} s after the start`)
  const kubernetes = await ensureKubernetes({ ...recipeSurroundings(), choice: TEST_KUBERNETES })
  const folder = await scratchFolder(t)
  await writeTree(folder, { 'patience.json': JSON.stringify(PATIENCE) })
  const lan = await startTestLan(t, {
    mode: 'server',
    patienceMs: PATIENCE_MS,
    files: {
      ...INSTALLED_FILES,
      // A slot is good when its node is Ready.
      'defaults/root/etc/kit/agent.conf': 'TRIAL_SECONDS=5400\nGRACE_SECONDS=10\n',
      'defaults/registry-mirror': 'yes\n',
      'roles/control-plane/node-labels': 'kit-test/made=here\n',
      ...machineFiles(UEFI.mac, { role: 'control-plane\n', ip: '10.77.0.50\n', hostname: 'first\n' }),
      ...machineFiles(BIOS.mac, {
        ...{ role: 'worker\n', channel: `${CHANNEL}\n` },
        ...{ ip: '10.77.0.51\n', hostname: 'second\n' },
      }),
    },
    environment: {
      KATESKIT_KUBERNETES_SOURCE: TEST_KUBERNETES.source,
      KATESKIT_IMAGES_IMPORT: await imageFolder(TEST_KUBERNETES),
      KATESKIT_REGISTRY_IMPORT: dirname(kubernetes.images[0]?.file ?? ''),
      KATESKIT_CLUSTER_KUBEADM_PATCH: join(folder, 'patience.json'),
    },
  })
  const http = createJsonHttp({ kind: 'socket', path: labControlSocket(lan.network.folder) })
  const cluster = async () => (await http.request('GET', '/api/v1/cluster')) as ClusterView
  const next = IS_LONG ? await buildVariant('next', TEST_KUBERNETES) : undefined
  const [image = ''] = (await lan.fleet.images()).map(({ version }) => version)
  await lan.fleet.promote(image, CHANNEL)
  await Promise.all([
    lan.powerOn(UEFI, { ...withDisk(lan, UEFI), memoryMiB: MEMORY_MIB['control-plane'] }),
    lan.powerOn(BIOS, { ...withDisk(lan, BIOS), memoryMiB: MEMORY_MIB.worker }),
  ])
  for (const { mac } of [UEFI, BIOS]) await lan.waitFor('installed', mac)
  tell('both are installed')
  await lan.waitFor('cluster-up', UEFI.mac)
  tell('the API answers')
  for (const { mac } of [UEFI, BIOS]) await lan.waitFor('node-ready', mac)
  tell('both nodes are Ready')
  for (const { mac } of [UEFI, BIOS]) await lan.waitFor('slot-good', mac)
  tell('both slots are good')

  const view = await cluster()
  t.like(view, { state: 'up', adopted: false, founder: UEFI.mac, version: kubernetes.version })
  t.deepEqual(
    view.nodes.map(({ name, role, state }) => [name, role, state]),
    [
      ['first', 'control-plane', 'ready'],
      ['second', 'worker', 'ready'],
    ],
  )
  const first = await lan.network.server.client.machine(UEFI.mac)
  const nodes = await lan.onMachine(
    first,
    `${KUBECTL} get nodes --no-headers -o custom-columns=N:.metadata.name,L:.metadata.labels`,
  )
  t.regex(nodes, /^first .*kit-test\/made:here/m)
  t.regex(nodes, /^second /m)
  const tokens = `${KUBECTL} -n kube-system get secrets -o name | grep -c bootstrap-token || :`
  t.is(await lan.onMachine(first, tokens), '0', 'a token is gone once its node is Ready')
  t.regex(await personAt(lan).does('cluster'), /second/)

  if (next === undefined) return
  await isDrainedForUpdate(t, lan, await lan.fleet.importImage(next))
  tell('the worker is updated, and takes pods again')
})

/** In this order: drained, restarted into the other image, Ready and good there, open for pods. */
async function isDrainedForUpdate(t: ExecutionContext, lan: TestLan, version: string): Promise<void> {
  const step = await lan.fromNow()
  await lan.fleet.promote(version, CHANNEL)
  const drained = await step.waitFor('node-drained', BIOS.mac)
  const first = await lan.network.server.client.machine(UEFI.mac)
  const running = await step.waitFor(
    'checked-in',
    BIOS.mac,
    ({ data, id }) => data['to'] === 'running' && id > drained.id,
  )
  const open = await step.waitFor('node-uncordoned', BIOS.mac)
  t.true(running.id < open.id)
  t.is(await lan.onMachine(first, `${KUBECTL} get node second -o 'jsonpath={.spec.unschedulable}'`), '')
  const updated = await step.waitFor('updated', BIOS.mac)
  t.true(drained.id < updated.id)
  const worker = await lan.untilView(BIOS.mac, ({ node }) => node?.state === 'ready')
  t.is(worker.imageVersion, version)
  t.deepEqual(await step.events('node-drained', UEFI.mac), [], 'the control plane has its own channel')
}
