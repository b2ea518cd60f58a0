// Tests of what assets/cni lays on machines: filled in as the machine does it, and put before a real API server.

import { readdir, readFile } from 'node:fs/promises'

import test from 'ava'

import { parseIpv4, parseSubnet } from '#lib/ipv4.ts'
import { parseMac } from '#lib/mac.ts'
import { startKubeControlPlane } from '#testing/kube-control-plane.ts'
import { enterOwnNetwork } from '#testing/own-network.ts'

import type { NodeOrder } from './kubeadm-config.ts'
import { grantFiles } from './node-files.ts'
import { CNI_NAMES, type CniName } from './node-settings.ts'

const BUNDLES = new URL('../../assets/cni/', import.meta.url)
const MAC = parseMac('52:54:00:12:34:56')

function orderFor(cni: CniName): NodeOrder {
  return {
    action: 'start',
    cluster: {
      ...{ id: '0123456789abcdef', name: 'lab', endpoint: 'api.example.org:6443' },
      ...{ isAdopted: false, isUp: true, sinceMs: 0 },
    },
    node: {
      ...{ mac: MAC, name: 'node', role: 'worker', index: 1 },
      ...{ state: 'joined', version: 'v1.20.2', sinceMs: 0 },
    },
    profile: {
      ...{ mac: MAC, channel: 'stable', layers: [] },
      settings: new Map([['cni', { value: cni, layer: 'defaults', file: 'defaults/cni' }]]),
    },
    asked: { boot: 'b', kubernetes: 'v1.20.2', node: 'member', address: parseIpv4('10.77.0.22') },
  }
}

/** As `fill_in` on the machine: by the lines of cni.env. */
function fillIn(text: string, cni: CniName): string {
  const settings = {
    podSubnet: parseSubnet('10.200.0.0/16'),
    serviceSubnet: parseSubnet('10.96.0.0/12'),
    ...{ dnsDomain: 'cluster.local', runtime: 'containerd' as const },
  }
  const files = grantFiles(orderFor(cni), settings, {
    authority: { certificate: '', publicKeySha256: '' },
    pkiFiles: new Map(),
  })
  const env = Buffer.from(files.find(({ path }) => path === 'cni.env')?.bytes ?? []).toString()
  return env
    .trim()
    .split('\n')
    .reduce((filled, line) => {
      const [name = '', value = ''] = line.split('=')
      return filled.replaceAll(`@${name}@`, value)
    }, text)
}

const read = async (cni: CniName, path: string) =>
  fillIn(await readFile(new URL(`${cni}/root/etc/kit/${path}`, BUNDLES), 'utf8'), cni)

test('every bundle is one of the setting cni, and only what is known is left to fill in', async (t) => {
  for (const name of await readdir(BUNDLES)) {
    const cni = CNI_NAMES.find((each) => each === name)
    if (cni === undefined) {
      t.fail(`assets/cni/${name} is no choice of the setting cni`)
      continue
    }
    const files = await readdir(new URL(`${cni}/root/etc/kit/`, BUNDLES), { recursive: true })
    for (const file of files.filter((each) => /\.(?:in|yaml)$/.test(each)))
      t.notRegex(await read(cni, file), /@[A-Z_]+@/, `${cni}: ${file}`)
  }
})

test('the plugin bridge gives pods addresses of the node’s own part', async (t) => {
  const conflist = JSON.parse(await read('bridge', 'cni/10-kit-bridge.conflist.in')) as {
    plugins: { type: string; ipam?: { ranges: { subnet: string }[][] } }[]
  }
  t.is(conflist.plugins[0]?.ipam?.ranges[0]?.[0]?.subnet, '10.200.1.0/24')
})

test('manifests do not differ from node to node, or control planes would undo each other’s', async (t) => {
  for (const cni of ['flannel', 'kube-router', 'cilium'] as const) {
    const text = await readFile(new URL(`${cni}/root/etc/kit/cluster/50-${cni}.yaml`, BUNDLES), 'utf8')
    t.notRegex(text, /@POD_CIDR@/)
  }
})

test('an API server takes the manifests, and refuses the one of Cilium with what is to be done', async (t) => {
  await enterOwnNetwork()
  const plane = await startKubeControlPlane()
  t.teardown(() => plane.stop())
  for (const cni of ['flannel', 'kube-router'] as const) {
    const text = await read(cni, `cluster/50-${cni}.yaml`)
    const taken = await plane.kubectl(['apply', '--dry-run=server', '-f', '-'], text)
    t.is(taken.match(/created \(server dry run\)/g)?.length, 5, taken)
    const images = text.match(/image: .*/g) ?? []
    for (const image of images) t.regex(image, /:v\d+\.\d+\.\d+/)
    // Put in for good, and again: nothing changes.
    await plane.kubectl(['apply', '-f', '-'], text)
    t.regex(await plane.kubectl(['apply', '-f', '-'], text), /^(?:\S+ unchanged\n){5}$/)
    const can = (verb: string, what: string) =>
      plane.kubectl(['auth', 'can-i', verb, what, '--as', `system:serviceaccount:kube-system:${cni}`])
    t.is((await can('watch', 'nodes')).trim(), 'yes')
  }
  const settings = await plane.kubectl([
    ...['-n', 'kube-system', 'get', 'configmap', 'flannel', '-o', 'jsonpath={.data.net-conf\\.json}'],
  ])
  t.deepEqual(JSON.parse(settings), { Network: '10.200.0.0/16', Backend: { Type: 'vxlan' } })
  await t.throwsAsync(plane.kubectl(['apply', '-f', '-'], await read('cilium', 'cluster/50-cilium.yaml')), {
    message: /PutTheRenderedManifestOfCiliumIntoYourProfileAs/,
  })
})
