// More than 350 lines: all of it goes through the same kubeadm and the same facts.
// Tests of what machines are given to become nodes. kubeadm itself is the peer, in the version that is there: 1.20 where it was
// built from Debian's source. Goldens of the other forms are what their types say.

import { X509Certificate } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'

import { createClusterKeys } from '#certs/cluster-keys.ts'
import { systemClock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { parseIpv4, parseSubnet } from '#lib/ipv4.ts'
import { silentLog } from '#lib/log.ts'
import { parseMac } from '#lib/mac.ts'
import { runCommand } from '#lib/process.ts'
import { readGolden } from '#testing/golden.ts'
import { kubernetesBinaries } from '#testing/kube-binaries.ts'

import type { NodeAction } from './cluster-ports.ts'
import { kubeVipManifest } from './kube-vip.ts'
import { type ClusterSettings, kubeadmDocuments, type NodeOrder, skippedPhases } from './kubeadm-config.ts'
import { mergeJson, parseKubeadmPatch } from './kubeadm-patch.ts'
import { grantFiles, podCidrOf } from './node-files.ts'

const MAC = parseMac('52:54:00:12:34:56')
const CA_SHA256 = 'ab'.repeat(32)
const KEYS_OF_OTHERS = new Map([['ca.key', 'a key']])

const SETTINGS: ClusterSettings = {
  podSubnet: parseSubnet('10.244.0.0/16'),
  serviceSubnet: parseSubnet('10.96.0.0/12'),
  dnsDomain: 'cluster.local',
  runtime: 'containerd',
}

interface OrderOptions {
  readonly kubernetes?: string
  readonly endpoint?: string
  readonly settings?: Readonly<Record<string, string>>
  readonly index?: number
}

function orderFor(action: NodeAction, options: OrderOptions = {}): NodeOrder {
  const { kubernetes = 'v1.20.2', endpoint = '10.77.0.21:6443', settings = {}, index = 3 } = options
  const isWorker = action === 'join'
  return {
    action,
    cluster: {
      ...{ id: '0123456789abcdef', name: 'lab', endpoint, isAdopted: false, founder: MAC },
      ...{ isUp: !['init'].includes(action), sinceMs: 0 },
    },
    node: {
      ...{ mac: MAC, name: 'kit-123456', role: isWorker ? 'worker' : 'control-plane', index },
      ...{ state: 'granted', version: kubernetes, sinceMs: 0 },
    },
    profile: {
      ...{ mac: MAC, channel: 'stable', role: isWorker ? 'worker' : 'control-plane', layers: [] },
      settings: new Map(
        Object.entries(settings).map(([key, value]) => [
          key,
          { value, layer: 'roles/x', file: `roles/x/${key}` },
        ]),
      ),
    },
    asked: { boot: 'b1', kubernetes, node: 'none', address: parseIpv4('10.77.0.21') },
    ...(action.startsWith('join') && { token: 'abcdef.0123456789abcdef' }),
    ...(action === 'restore' && { snapshot: 'cd'.repeat(32) }),
  }
}

const documentsOf = (order: NodeOrder, settings = SETTINGS) =>
  kubeadmDocuments(order, settings, CA_SHA256) ?? ''

interface Registration {
  readonly kubeletExtraArgs?: unknown
  readonly ignorePreflightErrors?: unknown
}

interface Parsed {
  readonly kind: string
  readonly nodeRegistration?: Registration
  readonly localAPIEndpoint?: { readonly bindPort: number }
}

function find(text: string, kind: string): Parsed | undefined {
  return text
    .split('---\n')
    .map((each) => JSON.parse(each) as Parsed)
    .find((each) => each.kind === kind)
}

const MARKED = {
  'node-labels': 'tier=front example.org/rack=7 node-role.kubernetes.io/web= topology.kubernetes.io/zone=a',
  'node-taints': 'only=gpu:NoSchedule drain:NoExecute',
  'kubelet-arguments': 'max-pods=50\nv=4',
  cni: 'flannel',
}

const GOLDENS: readonly [file: string, order: NodeOrder][] = [
  ['v1.20-init', orderFor('init')],
  ['v1.20-join', orderFor('join', { settings: MARKED })],
  ['v1.20-join-control-plane', orderFor('join-control-plane', { settings: { 'node-taints': '' } })],
  ['v1.25-init', orderFor('init', { kubernetes: 'v1.25.16', settings: MARKED })],
  ['v1.25-join', orderFor('join', { kubernetes: 'v1.25.16', settings: MARKED })],
  ['v1.33-init', orderFor('init', { kubernetes: 'v1.33.1', settings: MARKED })],
  ['v1.33-join', orderFor('join', { kubernetes: 'v1.33.1' })],
  [
    'v1.33-join-control-plane',
    orderFor('join-control-plane', { kubernetes: 'v1.33.1', endpoint: 'api.example.org:443' }),
  ],
]

test('kubeadmDocuments() writes what each version of kubeadm reads', async (t) => {
  for (const [name, order] of GOLDENS) {
    const actual = documentsOf(order)
    t.is(await readGolden(new URL(`testdata/kubeadm/${name}.yaml`, import.meta.url), actual), actual, name)
  }
})

async function makeFolder(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'kit-kubeadm-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

async function kubeadm(t: ExecutionContext, ...args: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await runCommand(join(await kubernetesBinaries(), 'kubeadm'), args)
  t.is(exitCode, 0, stderr)
  t.notRegex(stderr, /unknown field|strict|Ignored|deprecated/i)
  return stdout
}

const PATCH = parseKubeadmPatch(
  JSON.stringify({
    ClusterConfiguration: {
      etcd: { local: { extraArgs: { 'heartbeat-interval': '1000' } } },
      apiServer: { certSANs: ['api.example.org'], extraArgs: [{ name: 'audit-log-maxage', value: '7' }] },
    },
    InitConfiguration: { nodeRegistration: { ignorePreflightErrors: ['Mem'] } },
    JoinConfiguration: { nodeRegistration: { kubeletExtraArgs: { v: '5' } } },
    KubeletConfiguration: { nodeStatusUpdateFrequency: '2s' },
    KubeProxyConfiguration: { conntrack: { maxPerCore: 0 } },
  }),
)

test('kubeadm reads every document, and nothing in it is unknown to it', async (t) => {
  const folder = await makeFolder(t)
  const kubernetes = (await kubeadm(t, 'version', '-o', 'short')).trim()
  const orders: readonly NodeOrder[] = [
    orderFor('init', { kubernetes }),
    orderFor('init', { kubernetes, settings: MARKED }),
    orderFor('restore', { kubernetes }),
    orderFor('join', { kubernetes, settings: MARKED }),
    orderFor('join-control-plane', { kubernetes, settings: { 'node-taints': '' } }),
  ]
  for (const [index, order] of orders.entries()) {
    for (const settings of [SETTINGS, { ...SETTINGS, patch: PATCH, runtime: 'cri-o' as const }]) {
      const file = join(folder, `${index}.yaml`)
      await writeFile(file, documentsOf(order, settings))
      const read = await kubeadm(t, 'config', 'migrate', '--old-config', file)
      t.regex(read, new RegExp(`\n  name: ${order.node.name}\n`))
      t.regex(read, /ignorePreflightErrors:\n {2}- DirAvailable--var-lib-etcd\n|kind: JoinConfiguration/)
    }
  }
})

test('kubeadm makes a control plane of the files of a grant', async (t) => {
  const root = await makeFolder(t)
  const keys = createClusterKeys({
    directory: join(root, 'keys'),
    events: { append: async () => undefined },
    clock: systemClock,
    log: silentLog,
  })
  const kubernetes = (await kubeadm(t, 'version', '-o', 'short')).trim()
  const order = orderFor('init', { kubernetes, settings: MARKED })
  const files = grantFiles(
    order,
    { ...SETTINGS, patch: PATCH },
    {
      authority: await keys.authority(),
      pkiFiles: await keys.controlPlaneFiles(),
    },
  )
  for (const { path, mode, bytes } of files) {
    const place = path.startsWith('pki/') ? join(root, 'etc/kubernetes', path) : join(root, path)
    await mkdir(dirname(place), { recursive: true })
    await writeFile(place, bytes, { mode })
  }
  for (const phase of ['certs', 'kubeconfig', 'control-plane'])
    await kubeadm(t, 'init', 'phase', phase, 'all', '--rootfs', root, '--config', '/kubeadm.yaml')
  await kubeadm(t, 'init', 'phase', 'etcd', 'local', '--rootfs', root, '--config', '/kubeadm.yaml')

  const pki = join(root, 'etc/kubernetes/pki')
  for (const [path, text] of await keys.controlPlaneFiles())
    t.is(await readFile(join(pki, path), 'utf8'), text, `${path} is as it was`)
  const leaves = (await readdir(pki, { recursive: true })).filter((name) => name.endsWith('.crt'))
  t.is(leaves.length, 10)
  for (const name of leaves) {
    const ca =
      name.startsWith('etcd/') || name.includes('etcd')
        ? 'etcd/ca'
        : name.startsWith('front')
          ? 'front-proxy-ca'
          : 'ca'
    const verified = await runCommand('openssl', [
      'verify',
      '-CAfile',
      join(pki, `${ca}.crt`),
      join(pki, name),
    ])
    t.is(verified.exitCode, 0, `${name}: ${verified.stderr}`)
  }
  const names = new X509Certificate(await readFile(join(pki, 'apiserver.crt'))).subjectAltName ?? ''
  for (const name of [
    'DNS:kit-123456',
    'DNS:api.example.org',
    'IP Address:10.77.0.21',
    'IP Address:10.96.0.1',
  ])
    t.true(names.includes(name), `${name} in ${names}`)
  const manifest = async (name: string) =>
    await readFile(join(root, `etc/kubernetes/manifests/${name}.yaml`), 'utf8')
  t.regex(await manifest('etcd'), /--heartbeat-interval=1000/)
  t.regex(await manifest('kube-apiserver'), /--audit-log-maxage=7/)
  t.regex(await manifest('kube-controller-manager'), /--cluster-cidr=10\.244\.0\.0\/16/)
  t.regex(
    await readFile(join(root, 'etc/kubernetes/admin.conf'), 'utf8'),
    /server: https:\/\/10\.77\.0\.21:6443/,
  )
})

test('skippedPhases() names what the server does itself, and addons without an image', (t) => {
  const phases = (order: NodeOrder, settings: Partial<ClusterSettings> = {}) =>
    skippedPhases(order, { ...SETTINGS, ...settings }).join(',')
  t.is(phases(orderFor('init')), 'bootstrap-token')
  t.is(phases(orderFor('restore', { kubernetes: 'v1.33.1' })), 'bootstrap-token,show-join-command')
  t.is(
    phases(orderFor('init'), { hasCoreDns: false, hasKubeProxy: false }),
    'bootstrap-token,addon/coredns,addon/kube-proxy',
  )
  t.is(phases(orderFor('join')), '')
  const joining = orderFor('join-control-plane')
  t.is(phases(joining), '')
  t.is(phases(joining, { hasCoreDns: false }), 'addon/coredns', 'kubeadm looks for its image')
})

test('a patch is merged by kind, arguments by name in either form, and lists grow', (t) => {
  const settings = { ...SETTINGS, patch: PATCH }
  const old = documentsOf(orderFor('init'), settings)
  t.like(find(old, 'ClusterConfiguration'), {
    etcd: { local: { extraArgs: { 'heartbeat-interval': '1000' } } },
    apiServer: {
      certSANs: ['10.77.0.21', 'api.example.org'],
      extraArgs: { 'audit-log-maxage': '7' },
      timeoutForControlPlane: '20m0s',
    },
  })
  t.like(find(old, 'KubeletConfiguration'), { cgroupDriver: 'systemd', nodeStatusUpdateFrequency: '2s' })
  const joined = documentsOf(orderFor('join', { kubernetes: 'v1.33.1', settings: MARKED }), settings)
  t.deepEqual(find(joined, 'JoinConfiguration')?.nodeRegistration?.kubeletExtraArgs, [
    { name: 'max-pods', value: '50' },
    { name: 'v', value: '5' },
    { name: 'node-labels', value: 'tier=front,example.org/rack=7,topology.kubernetes.io/zone=a' },
  ])
  const made = documentsOf(orderFor('init', { kubernetes: 'v1.33.1' }), settings)
  t.deepEqual(find(made, 'InitConfiguration')?.nodeRegistration?.ignorePreflightErrors, [
    'DirAvailable--var-lib-etcd',
    'Mem',
  ])
  t.deepEqual(
    mergeJson(
      { a: { b: 1, c: 2 }, list: [{ name: 'x', v: 1 }, { name: 'y' }], words: ['p'] },
      { a: { c: null, d: 3 }, list: [{ name: 'x', w: 2 }], words: ['p', 'q'] },
    ),
    { a: { b: 1, d: 3 }, list: [{ name: 'x', v: 1, w: 2 }, { name: 'y' }], words: ['p', 'q'] },
  )
})

test('parseKubeadmPatch() refuses what would make it another cluster, all at once', (t) => {
  const cases: [text: string, message: RegExp][] = [
    ['{', /it is not JSON$/],
    ['[]', /it is no object by kind$/],
    ['{"Pod":{}}', /Pod is none of InitConfiguration, /],
    ['{"ClusterConfiguration":[]}', /ClusterConfiguration is no object$/],
    [
      '{"ClusterConfiguration":{"clusterName":"x","networking":{"podSubnet":"10.0.0.0/8"}}}',
      /clusterName: that is the setting cluster\/name; .*networking\.podSubnet: that is the setting cluster\/pod-subnet$/,
    ],
    ['{"ClusterConfiguration":{"networking":null}}', /networking\.podSubnet.*networking\.serviceSubnet/],
    [
      '{"JoinConfiguration":{"discovery":{"bootstrapToken":{"unsafeSkipCAVerification":true}}}}',
      /tokens of this/,
    ],
    ['{"JoinConfiguration":{"controlPlane":{}}}', /may not set JoinConfiguration\.controlPlane/],
    ['{"InitConfiguration":{"apiVersion":"x"}}', /apiVersion: it follows from the version/],
  ]
  for (const [text, message] of cases)
    t.throws(() => parseKubeadmPatch(text), { instanceOf: KitError, code: 'invalid-input', message }, text)
  t.deepEqual(parseKubeadmPatch('{}'), {})
  fc.assert(
    fc.property(fc.json(), (text) => {
      try {
        mergeJson({ a: { b: [1] } }, parseKubeadmPatch(text))
        return true
      } catch (error) {
        return error instanceof KitError
      }
    }),
  )
  t.is(({} as Record<string, unknown>)['polluted'], undefined)
})

test('grantFiles() gives each action what it needs, and keys to control planes only', (t) => {
  const authority = { certificate: 'the CA', publicKeySha256: CA_SHA256 }
  const goods = { authority, pkiFiles: KEYS_OF_OTHERS, snapshotSizeBytes: 4711 }
  const paths = (order: NodeOrder, settings = SETTINGS) =>
    grantFiles(order, settings, goods)
      .map(({ path }) => path)
      .sort()
  const both = ['action', 'cni.env']
  t.deepEqual(paths(orderFor('start')), both)
  t.deepEqual(paths(orderFor('upgrade-first')), both)
  t.deepEqual(paths(orderFor('join')), [...both, 'kubeadm.yaml', 'token.conf'])
  t.deepEqual(paths(orderFor('init')), [...both, 'kubeadm.yaml', 'pki/ca.key'])
  const kubeVip = { ...SETTINGS, kubeVip: 'ghcr.io/kube-vip/kube-vip:v0.9.2' }
  t.deepEqual(paths(orderFor('join-control-plane'), kubeVip), [
    ...both,
    'kubeadm.yaml',
    'manifests/kube-vip.yaml',
    'pki/ca.key',
    'token.conf',
  ])
  t.deepEqual(paths(orderFor('join'), kubeVip), [...both, 'kubeadm.yaml', 'token.conf'])

  const text = (order: NodeOrder, path: string) => {
    const file = grantFiles(order, SETTINGS, goods).find((each) => each.path === path)
    t.is(file?.mode, 0o600)
    return Buffer.from(file?.bytes ?? []).toString()
  }
  const { clusters, users } = JSON.parse(text(orderFor('join'), 'token.conf'))
  t.deepEqual(clusters[0].cluster, {
    server: 'https://10.77.0.21:6443',
    'certificate-authority-data': Buffer.from('the CA').toString('base64'),
  })
  t.deepEqual(users[0].user, { token: orderFor('join').token })
  t.is(
    text(orderFor('restore'), 'action'),
    `action restore
cluster 0123456789abcdef
name kit-123456
version v1.20.2
endpoint 10.77.0.21:6443
pod-cidr 10.244.3.0/24
skip-phases bootstrap-token
snapshot ${'cd'.repeat(32)} 4711
`,
  )
  t.is(
    text(orderFor('join', { settings: { cni: 'flannel' } }), 'cni.env'),
    `POD_SUBNET=10.244.0.0/16
SERVICE_SUBNET=10.96.0.0/12
DNS_DOMAIN=cluster.local
API_HOST=10.77.0.21
API_PORT=6443
`,
  )
  t.regex(text(orderFor('join'), 'cni.env'), /^POD_CIDR=10\.244\.3\.0\/24\n/)
})

test('podCidrOf() hands out /24s until there are none', (t) => {
  const cases: [subnet: string, index: number, part: string | undefined][] = [
    ['10.244.0.0/16', 0, '10.244.0.0/24'],
    ['10.244.0.0/16', 255, '10.244.255.0/24'],
    ['10.244.0.0/16', 256, undefined],
    ['10.0.0.0/8', 65_535, '10.255.255.0/24'],
    ['192.168.4.0/22', 3, '192.168.7.0/24'],
    ['192.168.4.0/24', 0, '192.168.4.0/24'],
    ['192.168.4.0/24', 1, undefined],
    ['192.168.4.0/25', 0, undefined],
  ]
  for (const [subnet, index, part] of cases) {
    if (part === undefined)
      t.throws(() => podCidrOf(parseSubnet(subnet), index), { instanceOf: KitError, code: 'conflict' })
    else t.is(podCidrOf(parseSubnet(subnet), index), part)
  }
})

test('kubeVipManifest() asks as who may from the beginning, and is for an address only', (t) => {
  const pod = (order: NodeOrder) =>
    JSON.parse(kubeVipManifest(order, 'kube-vip:1')) as {
      spec: {
        volumes: { hostPath: { path: string } }[]
        containers: { env: { name: string; value?: string }[] }[]
      }
    }
  const pathFor = (action: NodeAction, kubernetes: string) =>
    pod(orderFor(action, { kubernetes })).spec.volumes[0]?.hostPath.path
  t.is(pathFor('init', 'v1.28.15'), '/etc/kubernetes/admin.conf')
  t.is(pathFor('init', 'v1.29.0'), '/etc/kubernetes/super-admin.conf')
  t.is(pathFor('join-control-plane', 'v1.33.1'), '/etc/kubernetes/admin.conf')
  const env = pod(orderFor('init', { endpoint: '10.77.0.9:8443' })).spec.containers[0]?.env ?? []
  t.like(Object.fromEntries(env.map(({ name, value }) => [name, value])), {
    ...{ address: '10.77.0.9', port: '8443', vip_arp: 'true', vip_leaderelection: 'true', cp_enable: 'true' },
  })
  t.throws(() => kubeVipManifest(orderFor('init', { endpoint: 'api.example.org:6443' }), 'x'), {
    instanceOf: KitError,
    code: 'invalid-input',
  })
  const moved = orderFor('init', { endpoint: '10.77.0.9:8443' })
  const bindPort = (settings: ClusterSettings) =>
    find(documentsOf(moved, settings), 'InitConfiguration')?.localAPIEndpoint?.bindPort
  t.is(bindPort({ ...SETTINGS, kubeVip: 'x' }), 8443)
  t.is(bindPort(SETTINGS), 6443)
})
