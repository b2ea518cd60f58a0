// What a machine's part in the cluster is decided from: gathered from what is remembered and from the cluster itself.

import type { Clock } from '#lib/clock.ts'
import { describeError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'

import { hostnameOf } from './boot-plan.ts'
import type { Cluster, GrantRecord, GrantRequest, Snapshot, SnapshotStore } from './cluster-ports.ts'
import type { NodeBook } from './node-book.ts'
import { CONTROL_PLANE_ACTIONS, type NodeFacts, type OtherControlPlane } from './node-decision.ts'
import { nodeRoleOf } from './node-settings.ts'
import type { Profile } from './profile.ts'

export interface NodeFactsOptions {
  readonly book: NodeBook
  readonly cluster: Pick<Cluster, 'health' | 'nodes' | 'etcdMembers'>
  readonly snapshots: Pick<SnapshotStore, 'list' | 'find'>
  /** When a machine was heard of last. */
  readonly heardMs: (mac: Mac) => number
  readonly clock: Clock
}

/** A machine that is changed and says nothing for so long holds up the others no more. */
const SILENT_MS = 30 * 60_000

const WHAT: Readonly<Record<string, string>> = {
  init: 'is being made',
  restore: 'is being restored',
  'join-control-plane': 'is joining',
  'upgrade-first': 'is being upgraded',
  'upgrade-node': 'is being upgraded',
}

export class NodeFactFinder {
  readonly #options: NodeFactsOptions

  constructor(options: NodeFactsOptions) {
    this.#options = options
  }

  async factsFor(profile: Profile, asked: GrantRequest): Promise<NodeFacts> {
    const { book, cluster } = this.#options
    const { mac } = profile
    const record = book.node(mac)
    const name = record?.name ?? hostnameOf(mac, profile)
    const { isReachable, problem } = cluster.health()
    const unreachable = isReachable ? undefined : (problem ?? 'it does not answer')
    const before = {
      ...{ mac, name, role: nodeRoleOf(profile), asked, record, unreachable },
      cluster: book.cluster(),
      hasNode: cluster.nodes().some((node) => node.name === name),
      others: this.controlPlanes(mac),
      changing: this.changing(mac),
      snapshot: this.snapshot()?.sha256,
    }
    return { ...before, etcd: await this.#etcdFor(before) }
  }

  /** Those of the cluster but this one, as they are known or seen. */
  controlPlanes(except: Mac): readonly OtherControlPlane[] {
    const { book, cluster } = this.#options
    const known = book.nodes().filter(({ role, hasJoined }) => role === 'control-plane' && hasJoined === true)
    const names = new Set(book.nodes().map(({ name }) => name))
    const strangers = cluster.nodes().filter((node) => node.isControlPlane && !names.has(node.name))
    return [...known.filter(({ mac }) => mac !== except), ...strangers].map(({ name, version }) => ({
      name,
      version,
    }))
  }

  /** The control plane that keeps others from being changed now. */
  changing(except: Mac): NodeFacts['changing'] {
    const { book } = this.#options
    const grant = book.grants().find((each) => each.mac !== except && this.#isChange(each))
    if (grant !== undefined) {
      return { name: book.node(grant.mac)?.name ?? grant.mac, what: WHAT[grant.action] ?? 'is being changed' }
    }
    const restarting = book
      .nodes()
      .find(
        ({ mac, role, drainedBoot }) =>
          mac !== except && role === 'control-plane' && drainedBoot !== undefined,
      )
    return restarting && { name: restarting.name, what: 'restarts for an update' }
  }

  snapshot(): Snapshot | undefined {
    const { book, snapshots } = this.#options
    const cluster = book.cluster()
    if (cluster === undefined) return undefined
    const named = cluster.restoreFrom === undefined ? undefined : snapshots.find(cluster.restoreFrom)
    return named ?? snapshots.list().find(({ clusterId }) => clusterId === cluster.id)
  }

  #isChange({ mac, action }: GrantRecord): boolean {
    const { book, heardMs, clock } = this.#options
    const node = book.node(mac)
    const isOfControlPlane = CONTROL_PLANE_ACTIONS.includes(action) || node?.role === 'control-plane'
    return isOfControlPlane && node?.state !== 'failed' && clock.nowMs() - heardMs(mac) < SILENT_MS
  }

  /** Only where something hangs on it: each member is asked. */
  async #etcdFor({ role, asked, record, unreachable, others, cluster }: Omit<NodeFacts, 'etcd'>) {
    const isOfEtcd = role === 'control-plane' || record?.role === 'control-plane'
    const isAsked = asked.node === 'none' && isOfEtcd && others.length > 0 && cluster?.isUp === true
    if (!isAsked || cluster.isAdopted || unreachable !== undefined) return undefined
    try {
      return await this.#options.cluster.etcdMembers()
    } catch (error) {
      return describeError(error)
    }
  }
}
