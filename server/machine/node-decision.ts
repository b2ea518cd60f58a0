// What a machine that asks for its part in the cluster is to do. Pure: node-desk.ts carries it out. docs/kubernetes.md, "One node's way".

import type { Mac } from '#lib/mac.ts'

import type {
  ClusterRecord,
  EtcdMember,
  GrantRequest,
  NodeAction,
  NodeRecord,
  NodeRole,
} from './cluster-ports.ts'
import { quorumOf } from './etcd-quorum.ts'
import {
  compareVersions,
  findKubeletSkew,
  findKubernetesVersion,
  findUpgradeProblem,
  formatKubernetesVersion,
  type KubernetesVersion,
} from './kubernetes-version.ts'

/** Another control plane that is part of the cluster, here or not. */
export interface OtherControlPlane {
  readonly name: string
  /** Of Kubernetes; undefined while it is not known. */
  readonly version?: string
}

export interface NodeFacts {
  readonly mac: Mac
  readonly name: string
  readonly role: NodeRole | 'none'
  readonly asked: Pick<GrantRequest, 'kubernetes' | 'node' | 'nodeVersion' | 'etcd'>
  readonly cluster: ClusterRecord | undefined
  readonly record: NodeRecord | undefined
  /** Why the API cannot be reached; undefined while it answers. */
  readonly unreachable: string | undefined
  /** A Node of its name; of no meaning while the API cannot be reached. */
  readonly hasNode: boolean
  readonly others: readonly OtherControlPlane[]
  /** The control plane that is being changed, other than this one. */
  readonly changing: { readonly name: string; readonly what: string } | undefined
  /** Text: why nobody could say. Undefined when nobody asked. */
  readonly etcd: readonly EtcdMember[] | string | undefined
  /** The snapshot that a restore would take now: the one a person named, or the newest. */
  readonly snapshot: string | undefined
}

export type NodeDecision =
  | { readonly kind: 'none' }
  | { readonly kind: 'wait'; readonly reason: string }
  | { readonly kind: 'refused'; readonly reason: string }
  | {
      readonly kind: 'grant'
      readonly action: NodeAction
      /** The member of etcd that it was before is taken out first. */
      readonly formerMember?: string
      /** sha256. */
      readonly snapshot?: string
    }

/** Those that make or change a control plane: never two at a time. */
export const CONTROL_PLANE_ACTIONS: readonly NodeAction[] = [
  'init',
  'restore',
  'join-control-plane',
  'upgrade-first',
]

const wait = (reason: string): NodeDecision => ({ kind: 'wait', reason })
const refuse = (reason: string): NodeDecision => ({ kind: 'refused', reason })
const grant = (action: NodeAction): NodeDecision => ({ kind: 'grant', action })

export function decideNode(facts: NodeFacts): NodeDecision {
  const { role, asked, cluster } = facts
  if (role === 'none') return { kind: 'none' }
  const version = findKubernetesVersion(asked.kubernetes)
  if (version === undefined)
    return refuse(`its image has a Kubernetes that nobody can read: ${asked.kubernetes}`)
  if (cluster === undefined) return withoutCluster(facts)
  if (cluster.isAdopted && role === 'control-plane') {
    return refuse('the cluster was adopted: joining workers is all that this server may do there')
  }
  if (role === 'control-plane' && asked.etcd !== undefined && asked.etcd !== cluster.id) {
    return refuse(
      `its disk has etcd's data of another cluster (${asked.etcd}, this one is ${cluster.id}): a powerwash with --persistence wipes it`,
    )
  }
  if (!cluster.isUp) return whileFounding(facts, cluster)
  if (isMember(facts)) return ofMember(facts, version)
  return role === 'worker' ? ofNewWorker(facts, version) : ofNewControlPlane(facts, version, cluster)
}

/** Its disk is never taken for an empty one: what this server has forgotten may be all there is. */
function withoutCluster({ role, asked }: NodeFacts): NodeDecision {
  if (asked.node === 'member') {
    return refuse('it is a node of a cluster that this server does not know: a powerwash makes it new')
  }
  if (role === 'worker') return wait('there is no cluster yet: the first control plane makes it')
  return asked.etcd === undefined
    ? grant('init')
    : refuse(
        `its disk has etcd's data of a cluster that this server does not know (${asked.etcd}): a powerwash with --persistence wipes it`,
      )
}

function whileFounding({ mac, role, asked, record }: NodeFacts, { founder }: ClusterRecord): NodeDecision {
  if (founder !== mac) {
    return wait(
      `${founder} is making the cluster; kateskit cluster forget lets another control plane do it, while it is not up`,
    )
  }
  if (role !== 'control-plane') {
    return wait(
      'it was to make the cluster, and is a worker now: kateskit cluster forget, then another one does',
    )
  }
  // It said that it was done, and the server has not reached the API yet.
  return grant(asked.node === 'member' && record?.hasJoined === true ? 'start' : 'init')
}

/** A Node that was removed, of a machine that nobody remembers, is none: what its disk says is over. */
function isMember({ asked, record, unreachable, hasNode }: NodeFacts): boolean {
  return asked.node === 'member' && (record !== undefined || unreachable !== undefined || hasNode)
}

/** Another part in the cluster than it has takes a powerwash: until then it goes on as it is. */
function ofMember(facts: NodeFacts, version: KubernetesVersion): NodeDecision {
  const { asked, record, role } = facts
  const has = findKubernetesVersion(asked.nodeVersion ?? record?.version ?? '')
  if (has === undefined || (record !== undefined && record.role !== role)) return grant('start')
  const wrong = findWrongStep(has, version)
  if (wrong !== undefined) return refuse(wrong)
  if (compareVersions(has, version) >= 0) return grant('start')
  return role === 'worker' ? ofWorkerUpgrade(facts, version) : ofControlPlaneUpgrade(facts, version)
}

function ofWorkerUpgrade(facts: NodeFacts, version: KubernetesVersion): NodeDecision {
  if (facts.unreachable !== undefined) return wait(`the cluster cannot be reached: ${facts.unreachable}`)
  const behind = findBehind(facts, version)
  return behind === undefined ? grant('upgrade-node') : wait(behind)
}

/** The first to come changes the cluster, the others themselves. */
function ofControlPlaneUpgrade(
  { changing, others, asked }: NodeFacts,
  version: KubernetesVersion,
): NodeDecision {
  if (changing !== undefined) return wait(`${changing.name} ${changing.what}: one control plane at a time`)
  const known = versionsOf(others)
  const ahead = known.find(({ at }) => at.minor > version.minor)
  if (ahead !== undefined) {
    const has = formatKubernetesVersion(ahead.at)
    return refuse(`${ahead.name} has ${has} already, which is newer than ${asked.kubernetes} of its image`)
  }
  const late = known.find(({ at }) => at.minor < version.minor - 1)
  if (late !== undefined) {
    const has = formatKubernetesVersion(late.at)
    return wait(`${late.name} still has ${has}: control planes are one minor apart at most`)
  }
  const isThere = known.some(({ at }) => compareVersions(at, version) >= 0)
  return grant(isThere ? 'upgrade-node' : 'upgrade-first')
}

function ofNewWorker(facts: NodeFacts, version: KubernetesVersion): NodeDecision {
  const { unreachable, record, etcd, name } = facts
  if (unreachable !== undefined) return wait(`the cluster cannot be reached: ${unreachable}`)
  const behind = findBehind(facts, version)
  if (behind !== undefined) return wait(behind)
  const tooOld = findTooOld(facts, version)
  if (tooOld !== undefined) return refuse(tooOld)
  if (record?.role !== 'control-plane') return grant('join')
  // It was a control plane: as long as it is a member of etcd, it counts there.
  const member = formerMember(etcd, name)
  if (member.kind !== 'ready') return member
  return { kind: 'grant', action: 'join', ...(member.id !== undefined && { formerMember: member.id }) }
}

function ofNewControlPlane(
  facts: NodeFacts,
  version: KubernetesVersion,
  cluster: ClusterRecord,
): NodeDecision {
  const { changing, others, asked, record, unreachable, etcd, name } = facts
  if (changing !== undefined) return wait(`${changing.name} ${changing.what}: one control plane at a time`)
  if (asked.etcd === cluster.id && !isMemberNoMore(etcd, name)) {
    const has = findKubernetesVersion(record?.version ?? '')
    const wrong = has && findWrongStep(has, version)
    return wrong === undefined ? grant('init') : refuse(wrong)
  }
  if (unreachable !== undefined) return others.length > 0 ? ofLostOthers(facts) : ofLost(facts)
  if (others.length === 0) {
    return wait(
      'the API answers, and no other control plane is known that could run it: nothing is restored over it',
    )
  }
  const other = findOtherMinor(facts, version)
  if (other !== undefined) return other
  const member = formerMember(etcd, name)
  if (member.kind !== 'ready') return member
  const former = member.id !== undefined && { formerMember: member.id }
  return { kind: 'grant', action: 'join-control-plane', ...former }
}

function ofLostOthers({ others, unreachable }: NodeFacts): NodeDecision {
  const names = others.map(({ name }) => name).join(', ')
  return wait(
    `the cluster cannot be reached (${unreachable}), and ${names} may have its data; kateskit remove <machine> --force says that one is gone`,
  )
}

function ofLost({ snapshot }: NodeFacts): NodeDecision {
  return snapshot === undefined
    ? wait("etcd's data is gone, and this server has no snapshot of it: kateskit cluster forget begins anew")
    : { kind: 'grant', action: 'restore', snapshot }
}

/** etcd itself says that what lies on the disk is of a member that was taken out. */
function isMemberNoMore(etcd: NodeFacts['etcd'], name: string): boolean {
  return Array.isArray(etcd) && etcd.length > 0 && !etcd.some((member) => member.name === name)
}

type Former =
  | { readonly kind: 'ready'; readonly id: string | undefined }
  | Extract<NodeDecision, { kind: 'wait' }>

/** The member it was before may go, and another may come: everybody else is well, and they are enough. */
function formerMember(etcd: NodeFacts['etcd'], name: string): Former {
  const problem = (reason: string): Former => ({ kind: 'wait', reason })
  if (etcd === undefined || typeof etcd === 'string') {
    return problem(`etcd does not say how it is: ${etcd ?? 'nobody has asked it'}`)
  }
  const own = etcd.find((member) => member.name === name)
  if (own?.isHealthy) return problem(`a member of etcd called ${name} runs elsewhere`)
  const rest = etcd.filter((member) => member !== own)
  const ill = rest.filter(({ isHealthy }) => !isHealthy)
  if (ill.length > 0)
    return problem(`etcd is not healthy: ${ill.map((member) => member.name || member.id).join(', ')}`)
  if (rest.length < quorumOf(etcd.length)) {
    return problem(`etcd would have no quorum: ${rest.length} of ${etcd.length} members are well`)
  }
  return { kind: 'ready', id: own?.id }
}

/** Why a node may not go on with another version. A patch that is older says nothing: kubelets may be behind. */
export function findWrongStep(from: KubernetesVersion, to: KubernetesVersion): string | undefined {
  const isBehindOnly = from.major === to.major && from.minor === to.minor
  return isBehindOnly ? undefined : findUpgradeProblem(from, to)
}

/** Why a kubelet has to wait for control planes that are older than it. */
export function findBehind(
  { others }: Pick<NodeFacts, 'others'>,
  version: KubernetesVersion,
): string | undefined {
  for (const { name, at } of versionsOf(others)) {
    if (at.major === version.major && at.minor >= version.minor) continue
    return `workers with ${formatKubernetesVersion(version)} wait for the control planes: ${name} has ${formatKubernetesVersion(at)}`
  }
  return undefined
}

function findTooOld({ others }: NodeFacts, version: KubernetesVersion): string | undefined {
  for (const { at } of versionsOf(others)) {
    const skew = findKubeletSkew(version, at)
    if (skew !== undefined) return skew
  }
  return undefined
}

/** kubeadm makes control planes of its own minor only. */
function findOtherMinor({ others }: NodeFacts, version: KubernetesVersion): NodeDecision | undefined {
  for (const { name, at } of versionsOf(others)) {
    if (at.minor === version.minor) continue
    const text = `its image has ${formatKubernetesVersion(version)}, and ${name} has ${formatKubernetesVersion(at)}: a control plane joins with the same minor`
    return at.minor < version.minor ? wait(text) : refuse(text)
  }
  return undefined
}

function versionsOf(others: readonly OtherControlPlane[]) {
  return others.flatMap(({ name, version }) => {
    const at = findKubernetesVersion(version ?? '')
    return at === undefined ? [] : [{ name, at }]
  })
}
