// How a node is registered: `nodeRegistration` of kubeadm's documents. Pure.

import type { ClusterSettings, NodeOrder } from './kubeadm-config.ts'
import type { Json, JsonObject } from './kubeadm-patch.ts'
import { isAtLeast, type KubernetesVersion } from './kubernetes-version.ts'
import { kubeletArgumentsOf, nodeMarksOf } from './node-settings.ts'

const SOCKETS = { containerd: '/run/containerd/containerd.sock', 'cri-o': '/var/run/crio/crio.sock' } as const

/** Which of the labels under kubernetes.io and k8s.io a kubelet may give itself (its own check, k8s.io/kubelet/pkg/apis/well_known_labels.go). */
const OPEN_DOMAINS = ['kubelet.kubernetes.io', 'node.kubernetes.io']
const OPEN_LABELS = [
  ...['kubernetes.io/hostname', 'kubernetes.io/os', 'kubernetes.io/arch'],
  ...['beta.kubernetes.io/os', 'beta.kubernetes.io/arch', 'beta.kubernetes.io/instance-type'],
  ...['topology.kubernetes.io/zone', 'topology.kubernetes.io/region'],
  ...['failure-domain.beta.kubernetes.io/zone', 'failure-domain.beta.kubernetes.io/region'],
]

export function nodeRegistration(
  order: NodeOrder,
  settings: ClusterSettings,
  version: KubernetesVersion,
): JsonObject {
  const ignored = ignoredErrors(order, settings)
  return {
    name: order.node.name,
    criSocket: socketOf(settings, version),
    ...taintsOf(order),
    kubeletExtraArgs: kubeletArguments(order),
    ...(ignored.length > 0 && { ignorePreflightErrors: ignored }),
  }
}

/** An URL from 1.24 on, which warns of plain paths. */
function socketOf({ runtime }: ClusterSettings, version: KubernetesVersion): string {
  return isAtLeast(version, 24) ? `unix://${SOCKETS[runtime]}` : SOCKETS[runtime]
}

/** Without the file node-taints kubeadm's own: none for workers, and control planes keep pods away. An empty file: none at all. */
function taintsOf({ profile }: NodeOrder): JsonObject {
  if (profile.settings.get('node-taints') === undefined) return {}
  return { taints: nodeMarksOf(profile).taints.map(parseTaint) }
}

/** `key=value:Effect`. */
function parseTaint(text: string): Json {
  const [mark = '', effect = ''] = text.split(':')
  const [key = '', value = ''] = mark.split('=')
  return { key, ...(value !== '' && { value }), effect }
}

/** A control plane's certificates are for one address, which kube-vip's must not be taken for. */
function kubeletArguments({ action, profile, asked }: NodeOrder): JsonObject {
  const labels = Object.entries(nodeMarksOf(profile).labels).filter(([key]) => isOpenLabel(key))
  return {
    ...Object.fromEntries(kubeletArgumentsOf(profile)),
    ...(action !== 'join' && { 'node-ip': asked.address }),
    ...(labels.length > 0 && { 'node-labels': labels.map(([key, value]) => `${key}=${value}`).join(',') }),
  }
}

/** With any other one the kubelet does not start; the server sets those. */
function isOpenLabel(key: string): boolean {
  const domain = key.includes('/') ? key.slice(0, key.indexOf('/')) : ''
  const isReserved = /(?:^|\.)(?:kubernetes|k8s)\.io$/.test(domain)
  const isOpen = OPEN_DOMAINS.some((open) => domain === open || domain.endsWith(`.${open}`))
  return !isReserved || isOpen || OPEN_LABELS.includes(key)
}

/** Of kubeadm's checks before its work: what is there already on purpose. */
function ignoredErrors({ action }: NodeOrder, { kubeVip }: ClusterSettings): readonly string[] {
  if (action === 'init' || action === 'restore') return ['DirAvailable--var-lib-etcd']
  return action === 'join-control-plane' && kubeVip !== undefined
    ? ['DirAvailable--etc-kubernetes-manifests']
    : []
}
