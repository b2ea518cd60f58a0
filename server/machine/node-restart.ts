// Whether a node may restart into another image now, and what has to be done for it first. Pure: node-guard.ts carries it out.

import type { EtcdMember, NodeRecord } from './cluster-ports.ts'
import { quorumOf } from './etcd-quorum.ts'
import { findKubernetesVersion } from './kubernetes-version.ts'
import { findBehind, findWrongStep, type NodeFacts } from './node-decision.ts'

export interface RestartFacts {
  /** Undefined: it is no node of the cluster. */
  readonly node: NodeRecord | undefined
  /** Of the image it goes to; undefined when that does not say. */
  readonly kubernetes: string | undefined
  readonly unreachable: string | undefined
  readonly others: NodeFacts['others']
  readonly changing: NodeFacts['changing']
  /** In this very boot. */
  readonly isDrained: boolean
}

export type RestartDecision =
  | { readonly kind: 'yes' }
  | { readonly kind: 'no'; readonly reason: string }
  /** It is to be drained, and etcd looked at, before. */
  | { readonly kind: 'prepare' }

const no = (reason: string): RestartDecision => ({ kind: 'no', reason })

export function decideRestart(facts: RestartFacts): RestartDecision {
  const { node, unreachable, others, changing, isDrained } = facts
  if (node?.hasJoined !== true) return { kind: 'yes' }
  const wrong = findWrongImage(node, facts)
  if (wrong !== undefined) return no(wrong)
  const isControlPlane = node.role === 'control-plane'
  if (isControlPlane && changing !== undefined) {
    return no(`${changing.name} ${changing.what}: one control plane at a time`)
  }
  if (isDrained) return { kind: 'yes' }
  if (unreachable !== undefined) {
    // Nobody could drain the only control plane, and its new image may be what mends it.
    return isControlPlane && others.length === 0
      ? { kind: 'yes' }
      : no(`the cluster cannot be reached: ${unreachable}`)
  }
  return { kind: 'prepare' }
}

/** Why a node may not run an image's Kubernetes. */
export function findWrongImage(
  node: Pick<NodeRecord, 'version' | 'role'>,
  { kubernetes, others }: Pick<RestartFacts, 'kubernetes' | 'others'>,
): string | undefined {
  const to = findKubernetesVersion(kubernetes ?? '')
  const from = findKubernetesVersion(node.version)
  if (to === undefined || from === undefined) return undefined
  return findWrongStep(from, to) ?? (node.role === 'worker' ? findBehind({ others }, to) : undefined)
}

/** Why etcd could not do without this member for a while. Of two members none can be spared, and one has to restart some day. */
export function findQuorumProblem(members: readonly EtcdMember[], name: string): string | undefined {
  const voters = members.filter(({ isLearner }) => isLearner !== true)
  const ill = members.filter((member) => !member.isHealthy && member.name !== name)
  if (ill.length > 0)
    return `etcd is not healthy: ${ill.map((member) => member.name || member.id).join(', ')}`
  const left = voters.filter((member) => member.name !== name).length
  return voters.length > 2 && left < quorumOf(voters.length) ? 'etcd would have no quorum' : undefined
}
