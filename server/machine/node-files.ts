// The files of a grant, and which part of the pod subnet a node has. IPv4 only. Pure: the archive is made of them elsewhere.

import { KitError } from '#lib/errors.ts'
import { formatSubnet, ipv4FromNumber, ipv4ToNumber, type Subnet } from '#lib/ipv4.ts'
import { kubeVipManifest } from './kube-vip.ts'
import {
  type ClusterSettings,
  kubeadmDocuments,
  type NodeOrder,
  skippedPhases,
  splitEndpoint,
} from './kubeadm-config.ts'
import { cniOf } from './node-settings.ts'

export interface GrantFile {
  readonly path: string
  readonly mode: number
  readonly bytes: Uint8Array
}

/** What a grant has of the cluster's keys and snapshots. */
export interface GrantGoods {
  /** The cluster's CA: PEM, and of its key, hex. */
  readonly authority: { readonly certificate: string; readonly publicKeySha256: string }
  /** By path under `pki/`; asked for where a control plane is made. */
  readonly pkiFiles: ReadonlyMap<string, string>
  /** Of the snapshot that a restore takes. */
  readonly snapshotSizeBytes?: number
}

const NODE_BITS = 24

/** Whoever may not have the keys is not given any. */
export function needsPki({ action }: Pick<NodeOrder, 'action'>): boolean {
  return action === 'init' || action === 'restore' || action === 'join-control-plane'
}

/** Throws KitError `invalid-input` for settings that do not go together, `conflict` when the pod subnet is used up. */
export function grantFiles(
  order: NodeOrder,
  settings: ClusterSettings,
  goods: GrantGoods,
): readonly GrantFile[] {
  const kubeadm = kubeadmDocuments(order, settings, goods.authority.publicKeySha256)
  const files = new Map([
    ['action', actionText(order, settings, goods)],
    ['cni.env', cniText(order, settings)],
  ])
  if (kubeadm !== undefined) files.set('kubeadm.yaml', kubeadm)
  if (order.token !== undefined) files.set('token.conf', tokenConfig(order.token, order.cluster, goods))
  if (needsPki(order)) {
    for (const [path, text] of goods.pkiFiles) files.set(`pki/${path}`, text)
    if (settings.kubeVip !== undefined)
      files.set('manifests/kube-vip.yaml', kubeVipManifest(order, settings.kubeVip))
  }
  return [...files].map(([path, text]) => ({ path, mode: 0o600, bytes: Buffer.from(text) }))
}

/** A kubeconfig: what a machine asks for its kubelet's certificate with. */
function tokenConfig(token: string, { endpoint }: NodeOrder['cluster'], goods: GrantGoods): string {
  const name = 'token'
  const authority = Buffer.from(goods.authority.certificate).toString('base64')
  const config = {
    ...{ apiVersion: 'v1', kind: 'Config', 'current-context': name },
    clusters: [{ name, cluster: { server: `https://${endpoint}`, 'certificate-authority-data': authority } }],
    users: [{ name, user: { token } }],
    contexts: [{ name, context: { cluster: name, user: name } }],
  }
  return `${JSON.stringify(config)}\n`
}

/** `name value` lines. */
function actionText(order: NodeOrder, settings: ClusterSettings, goods: GrantGoods): string {
  const { action, cluster, node, asked, snapshot } = order
  if (snapshot !== undefined && goods.snapshotSizeBytes === undefined)
    throw new Error('a snapshot without its size')
  const skipped = skippedPhases(order, settings)
  const lines = [
    `action ${action}`,
    `cluster ${cluster.id}`,
    `name ${node.name}`,
    `version ${asked.kubernetes}`,
    `endpoint ${cluster.endpoint}`,
    ...(hasOwnPart(order) ? [`pod-cidr ${podCidrOf(settings.podSubnet, node.index)}`] : []),
    ...(skipped.length > 0 ? [`skip-phases ${skipped.join(',')}`] : []),
    ...(snapshot === undefined ? [] : [`snapshot ${snapshot} ${goods.snapshotSizeBytes}`]),
  ]
  return `${lines.join('\n')}\n`
}

/** What `@NAME@` stands for in the files of network plugins. Manifests must be the same on every node: they use no POD_CIDR. */
function cniText(order: NodeOrder, settings: ClusterSettings): string {
  const { host, port } = splitEndpoint(order.cluster.endpoint)
  const lines = [
    ...(hasOwnPart(order) ? [`POD_CIDR=${podCidrOf(settings.podSubnet, order.node.index)}`] : []),
    `POD_SUBNET=${formatSubnet(settings.podSubnet)}`,
    `SERVICE_SUBNET=${formatSubnet(settings.serviceSubnet)}`,
    `DNS_DOMAIN=${settings.dnsDomain}`,
    `API_HOST=${host}`,
    `API_PORT=${port}`,
  ]
  return `${lines.join('\n')}\n`
}

/** The other plugins have their own way to number nodes. */
function hasOwnPart({ profile }: NodeOrder): boolean {
  return cniOf(profile) === 'bridge'
}

/** The node's /24, by its index from 0 on. Throws KitError `conflict` when there is none left. */
export function podCidrOf(podSubnet: Subnet, index: number): string {
  const count = podSubnet.prefixBits > NODE_BITS ? 0 : 2 ** (NODE_BITS - podSubnet.prefixBits)
  if (index >= count)
    throw new KitError(
      'conflict',
      `Cannot give another node a part of the pod subnet ${formatSubnet(podSubnet)}: all ${count} are taken`,
      {
        fix: 'remove machines that are gone (kateskit remove <machine>); a larger cluster/pod-subnet counts for new clusters',
      },
    )
  const network = ipv4FromNumber(ipv4ToNumber(podSubnet.network) + index * 2 ** (32 - NODE_BITS))
  return formatSubnet({ network, prefixBits: NODE_BITS })
}
