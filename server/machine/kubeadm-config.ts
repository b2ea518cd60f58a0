// What kubeadm is given, as its documents: out of the server's settings, the machine's files and the decision. Pure.

import { KitError } from '#lib/errors.ts'
import { formatSubnet, type Subnet } from '#lib/ipv4.ts'

import type { ClusterRecord, GrantRequest, NodeAction, NodeRecord } from './cluster-ports.ts'
import { nodeRegistration } from './kubeadm-node.ts'
import {
  type Json,
  type JsonObject,
  type KubeadmKind,
  type KubeadmPatch,
  mergeJson,
} from './kubeadm-patch.ts'
import { isAtLeast, type KubernetesVersion, parseKubernetesVersion } from './kubernetes-version.ts'
import { cniOf } from './node-settings.ts'
import type { Profile } from './profile.ts'

/** What the settings of the server say. */
export interface ClusterSettings {
  readonly podSubnet: Subnet
  readonly serviceSubnet: Subnet
  readonly dnsDomain: string
  /** Setting kubernetes/cri. */
  readonly runtime: 'containerd' | 'cri-o'
  /** An image reference: control planes run it with the endpoint's address. */
  readonly kubeVip?: string
  /** Whether the images of these can be had; what cannot is not started. Absent: they can. */
  readonly hasCoreDns?: boolean
  readonly hasKubeProxy?: boolean
  readonly patch?: KubeadmPatch
}

/** One machine's part in the cluster, as it was decided. */
export interface NodeOrder {
  readonly action: NodeAction
  readonly cluster: ClusterRecord
  readonly node: NodeRecord
  readonly profile: Profile
  readonly asked: GrantRequest
  /** To join: the whole of it. */
  readonly token?: string
  /** sha256 of what a `restore` takes. */
  readonly snapshot?: string
}

export const API_SERVER_PORT = 6443
/** kubeadm's own four minutes are not enough for slow disks and emulated machines; who is faster does not wait. */
const PATIENCE = '20m0s'

/**
 * JSON documents, which are YAML with `---` between them; undefined for what needs none. `caSha256` is the cluster CA's.
 * Throws KitError `invalid-input` when the patch does not go with this version.
 */
export function kubeadmDocuments(
  order: NodeOrder,
  settings: ClusterSettings,
  caSha256: string,
): string | undefined {
  const version = parseKubernetesVersion(order.asked.kubernetes)
  const documents = documentsFor(order, settings, { version, caSha256 })
  if (documents === undefined) return undefined
  return documents
    .map((document) => {
      const patched = mergeJson(
        document,
        normalizeArguments(settings.patch?.[document.kind] ?? {}) as JsonObject,
      )
      return `${JSON.stringify(finishArguments(patched, version), undefined, 2)}\n`
    })
    .join('---\n')
}

interface KubeadmDocument extends JsonObject {
  readonly apiVersion: string
  readonly kind: KubeadmKind
}

interface Context {
  readonly version: KubernetesVersion
  readonly caSha256: string
}

function documentsFor(
  order: NodeOrder,
  settings: ClusterSettings,
  context: Context,
): readonly KubeadmDocument[] | undefined {
  switch (order.action) {
    case 'init':
    case 'restore':
      return [
        initConfiguration(order, settings, context),
        clusterConfiguration(order, settings, context),
        {
          apiVersion: 'kubelet.config.k8s.io/v1beta1',
          kind: 'KubeletConfiguration',
          cgroupDriver: 'systemd',
        },
        {
          apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
          kind: 'KubeProxyConfiguration',
          // kubeadm fills it in from podSubnet, where that is given.
          ...(isOwnPodNetwork(order) && { clusterCIDR: formatSubnet(settings.podSubnet) }),
        },
      ]
    case 'join':
    case 'join-control-plane':
      return [joinConfiguration(order, settings, context)]
    case 'start':
    case 'upgrade-first':
    case 'upgrade-node':
      return undefined
    default:
      return order.action satisfies never
  }
}

function initConfiguration(
  order: NodeOrder,
  settings: ClusterSettings,
  { version }: Context,
): KubeadmDocument {
  return {
    apiVersion: apiVersionOf(version),
    kind: 'InitConfiguration',
    localAPIEndpoint: localEndpoint(order, settings),
    nodeRegistration: nodeRegistration(order, settings, version),
    ...timeoutsOf(version),
  }
}

function clusterConfiguration(
  order: NodeOrder,
  settings: ClusterSettings,
  { version }: Context,
): KubeadmDocument {
  const { cluster, asked } = order
  const { host } = splitEndpoint(cluster.endpoint)
  return {
    apiVersion: apiVersionOf(version),
    kind: 'ClusterConfiguration',
    clusterName: cluster.name,
    kubernetesVersion: asked.kubernetes,
    controlPlaneEndpoint: cluster.endpoint,
    apiServer: {
      certSANs: [...new Set([host, asked.address])],
      ...(!isAtLeast(version, 31) && { timeoutForControlPlane: PATIENCE }),
    },
    networking: {
      dnsDomain: settings.dnsDomain,
      serviceSubnet: formatSubnet(settings.serviceSubnet),
      ...(!isOwnPodNetwork(order) && { podSubnet: formatSubnet(settings.podSubnet) }),
    },
  }
}

function joinConfiguration(
  order: NodeOrder,
  settings: ClusterSettings,
  { version, caSha256 }: Context,
): KubeadmDocument {
  const { action, cluster, token } = order
  if (token === undefined) throw new Error(`a grant to ${action} without a token`)
  return {
    apiVersion: apiVersionOf(version),
    kind: 'JoinConfiguration',
    discovery: {
      bootstrapToken: { token, apiServerEndpoint: cluster.endpoint, caCertHashes: [`sha256:${caSha256}`] },
      tlsBootstrapToken: token,
      ...(!isAtLeast(version, 31) && { timeout: PATIENCE }),
    },
    nodeRegistration: nodeRegistration(order, settings, version),
    ...(action === 'join-control-plane' && {
      controlPlane: { localAPIEndpoint: localEndpoint(order, settings) },
    }),
    ...timeoutsOf(version),
  }
}

/**
 * With the plugin `bridge` this server numbers the nodes' parts of the pod subnet itself: a controller that hands out others
 * is left out, which also makes a node Ready sooner.
 */
function isOwnPodNetwork({ profile }: NodeOrder): boolean {
  return cniOf(profile) === 'bridge'
}

/** v1beta4 has them in one place; before, they were spread over what they concern. */
function timeoutsOf(version: KubernetesVersion): JsonObject {
  if (!isAtLeast(version, 31)) return {}
  const names = ['controlPlaneComponentHealthCheck', 'kubeletHealthCheck', 'tlsBootstrap', 'discovery']
  return { timeouts: Object.fromEntries(names.map((name) => [name, PATIENCE])) }
}

/** The port of an endpoint that is no machine of ours belongs to whoever listens there; kube-vip moves an address only. */
function localEndpoint({ cluster, asked }: NodeOrder, { kubeVip }: ClusterSettings): JsonObject {
  const bindPort = kubeVip === undefined ? API_SERVER_PORT : splitEndpoint(cluster.endpoint).port
  return { advertiseAddress: asked.address, bindPort }
}

export function splitEndpoint(endpoint: string): { readonly host: string; readonly port: number } {
  const [host = '', port = String(API_SERVER_PORT)] = endpoint.split(':')
  return { host, port: Number(port) }
}

/** v1beta2 since 1.15, v1beta3 since 1.22, v1beta4 since 1.31. */
function apiVersionOf(version: KubernetesVersion): string {
  const name = isAtLeast(version, 31) ? 'v1beta4' : isAtLeast(version, 22) ? 'v1beta3' : 'v1beta2'
  return `kubeadm.k8s.io/${name}`
}

/**
 * Phases of `kubeadm init` to skip, for its flag: the server itself does what the tokens need, and shows nobody a command with
 * one.
 */
export function skippedPhases({ action, asked }: NodeOrder, settings: ClusterSettings): readonly string[] {
  const addons = [
    ...(settings.hasCoreDns === false ? ['addon/coredns'] : []),
    ...(settings.hasKubeProxy === false ? ['addon/kube-proxy'] : []),
  ]
  // It has no such phases, and looks for the images of a control plane all the same.
  if (action === 'join-control-plane') return addons
  if (action !== 'init' && action !== 'restore') return []
  return [
    'bootstrap-token',
    ...(isAtLeast(parseKubernetesVersion(asked.kubernetes), 22) ? ['show-join-command'] : []),
    ...addons,
  ]
}

const ARGUMENTS = ['extraArgs', 'kubeletExtraArgs']

/** A patch may have arguments in the form of either version; they are merged by name. */
function normalizeArguments(value: Json): Json {
  if (Array.isArray(value)) return value.map(normalizeArguments)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, each]) => [
      key,
      ARGUMENTS.includes(key) ? argumentsByName(each) : normalizeArguments(each),
    ]),
  )
}

function argumentsByName(value: Json): Json {
  if (!Array.isArray(value)) return value
  const pairs = value.map((item: Json) => {
    const { name, value: text } = typeof item === 'object' && item !== null ? (item as JsonObject) : {}
    if (typeof name !== 'string' || typeof text !== 'string')
      throw wrongArguments('not all have name and value')
    return [name, text] as const
  })
  if (new Set(pairs.map(([name]) => name)).size !== pairs.length)
    throw wrongArguments('a name is there twice')
  return Object.fromEntries(pairs)
}

/** Lists since v1beta4. */
function finishArguments(value: Json, version: KubernetesVersion): Json {
  if (!isAtLeast(version, 31)) return value
  if (Array.isArray(value)) return value.map((item: Json) => finishArguments(item, version))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, each]) => [
      key,
      ARGUMENTS.includes(key) && typeof each === 'object' && each !== null && !Array.isArray(each)
        ? Object.entries(each).map(([name, text]) => ({ name, value: text }))
        : finishArguments(each, version),
    ]),
  )
}

function wrongArguments(problem: string): KitError {
  return new KitError(
    'invalid-input',
    `Cannot use the file of cluster/kubeadm-patch: its extraArgs: ${problem}`,
  )
}
