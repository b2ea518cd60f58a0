// Nodes of the API as this server knows them.

import type { V1Node } from '@kubernetes/client-node'

import { findIpv4 } from '#lib/ipv4.ts'
import type { ClusterNode } from '#machine/cluster-ports.ts'

/** kubeadm's label of control planes; until 1.20 it was the second one, and until 1.24 both. */
const CONTROL_PLANE_LABELS = ['node-role.kubernetes.io/control-plane', 'node-role.kubernetes.io/master']

function readNode(node: V1Node): ClusterNode {
  const labels = node.metadata?.labels ?? {}
  const ready = node.status?.conditions?.find(({ type }) => type === 'Ready')
  const address = node.status?.addresses
    ?.filter(({ type }) => type === 'InternalIP')
    .map((entry) => findIpv4(entry.address))
    .find((found) => found !== undefined)
  const machineId = node.status?.nodeInfo?.machineID ?? ''
  const isReady = ready?.status === 'True'
  const reason = [ready?.reason, ready?.message]
    .filter((text) => text !== undefined && text !== '')
    .join(': ')
  return {
    name: node.metadata?.name ?? '',
    uid: node.metadata?.uid ?? '',
    ...(machineId === '' ? {} : { machineId }),
    isReady,
    isCordoned: node.spec?.unschedulable === true,
    isControlPlane: CONTROL_PLANE_LABELS.some((label) => label in labels),
    version: node.status?.nodeInfo?.kubeletVersion ?? '',
    labels,
    ...(address === undefined ? {} : { address }),
    ...(isReady ? {} : { reason: reason === '' ? 'its kubelet has not told yet how it is' : reason }),
  }
}

/** By name. */
export function readNodes(nodes: Iterable<V1Node>): readonly ClusterNode[] {
  return [...nodes].map(readNode).sort((one, other) => (one.name < other.name ? -1 : 1))
}
