// Where machines come for their part in the cluster, and say how they get on with it.

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { KeyedQueue } from '#lib/keyed-queue.ts'
import type { Mac } from '#lib/mac.ts'

import type { AuditLog } from './access-ports.ts'
import type { ClusterLink } from './cluster-link.ts'
import type {
  Cluster,
  GrantAnswer,
  GrantRequest,
  NodeDesk,
  NodeRecord,
  NodeReport,
  Snapshot,
  SnapshotStore,
} from './cluster-ports.ts'
import type { EventKind } from './event.ts'
import type { NodeBook } from './node-book.ts'
import { decideNode, type NodeDecision } from './node-decision.ts'
import { findNodeDoubt, type NodeDoubtOptions } from './node-doubt.ts'
import type { NodeFactFinder } from './node-facts.ts'
import { GRANT_ACTION, type NodeGrants } from './node-grants.ts'
import type { NodeWatch } from './node-watch.ts'
import type { EventLog, Profiles, Speaker } from './ports.ts'
import type { Profile } from './profile.ts'
import { Repeats } from './repeats.ts'

export interface NodeDeskOptions extends NodeDoubtOptions {
  readonly book: NodeBook
  readonly cluster: Pick<Cluster, 'check'>
  readonly link: Pick<ClusterLink, 'connect' | 'finishSoon'>
  readonly facts: NodeFactFinder
  readonly grants: NodeGrants
  readonly watch: Pick<NodeWatch, 'settle' | 'heard'>
  readonly snapshots: SnapshotStore
  readonly profiles: Pick<Profiles, 'profileFor'>
  readonly events: Pick<EventLog, 'append'>
  readonly audit: Pick<AuditLog, 'append'>
  /** One decision about the cluster at a time. */
  readonly queue: KeyedQueue<'cluster'>
  readonly clock: Clock
}

/** Why a machine has no part in the cluster yet. */
export interface Waiting {
  readonly reason: string
  readonly sinceMs: number
}

const REPORT_EVENTS = {
  working: 'node-step',
  done: 'node-joined',
  failed: 'node-failed',
} as const satisfies Record<NodeReport['state'], EventKind>

export class ClusterNodeDesk implements NodeDesk {
  readonly #options: NodeDeskOptions
  readonly #listeners = new Set<() => void>()
  /** A machine that is refused asks again and again. */
  readonly #refusals = new Repeats()
  readonly #waiting = new Map<Mac, Waiting>()
  /** One snapshot at a time: they are large. */
  readonly #sending = new Set<Mac>()

  constructor(options: NodeDeskOptions) {
    this.#options = options
  }

  async grant(mac: Mac, request: GrantRequest, by: Speaker): Promise<GrantAnswer> {
    const { queue } = this.#options
    return this.#orTell(mac, request.boot, async () => {
      await this.#requireBelieved('hand out a grant', { mac, boot: request.boot, by })
      return queue.run('cluster', () => this.#grant(mac, request, by))
    })
  }

  async report(mac: Mac, report: NodeReport, by: Speaker): Promise<void> {
    const { queue, watch, link, book } = this.#options
    await this.#requireBelieved('take this report', { mac, boot: report.boot, by })
    await queue.run('cluster', () => this.#report(mac, report))
    watch.heard(mac)
    if (report.state === 'done' && book.cluster()?.isUp === false) {
      link.connect()
      link.finishSoon()
    }
    await watch.settle()
    this.announceChange()
  }

  async saveSnapshot(
    mac: Mac,
    boot: string,
    { bytes, sha256 }: Parameters<NodeDesk['saveSnapshot']>[2],
    by: Speaker,
  ): Promise<void> {
    const { book, snapshots, events } = this.#options
    await this.#requireBelieved('take a snapshot', { mac, boot, by })
    const cluster = book.cluster()
    const node = book.node(mac)
    if (cluster === undefined || node?.role !== 'control-plane' || node.hasJoined !== true) {
      throw new KitError(
        'conflict',
        `Cannot take a snapshot of ${mac}: it is no control plane of the cluster`,
      )
    }
    if (this.#sending.has(mac)) {
      throw new KitError('too-many-requests', `Cannot take a snapshot of ${mac}: it is sending another one`)
    }
    this.#sending.add(mac)
    const kept = await snapshots
      .save(bytes, { clusterId: cluster.id, mac, sha256 })
      .finally(() => this.#sending.delete(mac))
    await events.append({
      kind: 'etcd-snapshot-kept',
      mac,
      message: `a snapshot of etcd is kept: ${sha256.slice(0, 16)}, ${kept.sizeBytes} bytes`,
      data: { sha256, sizeBytes: kept.sizeBytes },
    })
    await snapshots.prune(book.cluster()?.restoreFrom)
  }

  async snapshotFor(mac: Mac, boot: string, by: Speaker): Promise<Snapshot> {
    const { book, snapshots, audit } = this.#options
    await this.#requireBelieved('hand out a snapshot', { mac, boot, by })
    const grant = book.grantOf(boot)
    if (grant?.mac !== mac || grant.action !== 'restore' || grant.state === 'closed') {
      throw new KitError('conflict', `Cannot hand out a snapshot: boot ${boot} has no grant to restore one`)
    }
    const snapshot = grant.snapshot === undefined ? undefined : snapshots.find(grant.snapshot)
    if (snapshot === undefined) {
      throw new KitError('not-found', 'Cannot hand out the snapshot of this grant: it is not kept any more')
    }
    const action = 'GET /v1/machines/:mac/etcd-snapshot'
    const detail = `boot=${boot} snapshot=${snapshot.sha256}`
    await audit.append({ actor: `machine ${mac}`, action, target: mac, outcome: 'done', detail })
    return snapshot
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Wakes everybody who waits for a grant. */
  announceChange(): void {
    for (const listener of this.#listeners) listener()
  }

  waiting(): ReadonlyMap<Mac, Waiting> {
    return this.#waiting
  }

  /** It has no part in the cluster, and does not wait for one. */
  forget(mac: Mac): void {
    this.#waiting.delete(mac)
    this.#refusals.forget(mac)
  }

  async #grant(mac: Mac, request: GrantRequest, by: Speaker): Promise<GrantAnswer> {
    const { profiles, grants, watch } = this.#options
    watch.heard(mac)
    const profile = profiles.profileFor(mac)
    if (profile.broken !== undefined)
      return this.#wait(mac, `the server cannot read its files: ${profile.broken}`)
    const { facts, decision } = await this.#decide(profile, request)
    switch (decision.kind) {
      case 'none':
        this.forget(mac)
        return decision
      case 'wait':
        return this.#wait(mac, decision.reason)
      case 'refused':
        this.#wait(mac, decision.reason)
        throw new KitError('conflict', `Cannot hand out a grant: ${decision.reason}`)
      case 'grant': {
        try {
          const tar = await grants.handOut({ profile, asked: request, facts, decision, by })
          this.forget(mac)
          return { kind: 'grant', tar }
        } catch (error) {
          if (!(error instanceof KitError) || error.code !== 'unavailable') throw error
          return this.#wait(mac, error.message)
        }
      }
      default:
        return decision satisfies never
    }
  }

  /** Nothing is restored by what was known a moment ago. */
  async #decide(profile: Profile, request: GrantRequest) {
    const { facts: finder, cluster } = this.#options
    const look = async () => {
      const facts = await finder.factsFor(profile, request)
      return { facts, decision: decideNode(facts) }
    }
    const first = await look()
    if (!isRestore(first.decision)) return first
    await cluster.check().catch(() => {})
    return look()
  }

  #wait(mac: Mac, reason: string): GrantAnswer {
    const { clock } = this.#options
    if (this.#waiting.get(mac)?.reason !== reason) this.#waiting.set(mac, { reason, sinceMs: clock.nowMs() })
    return { kind: 'wait', reason }
  }

  async #report(mac: Mac, { boot, state, action, step, message }: NodeReport): Promise<void> {
    const { book, events } = this.#options
    const grant = book.grantOf(boot)
    const node = book.node(mac)
    if (node === undefined || (action !== 'start' && grant?.action !== action)) {
      throw new KitError('conflict', `Cannot take this report: boot ${boot} has no grant to ${action}`)
    }
    // Said again because its answer was lost.
    if (state === 'done' && node.state === 'joined' && grant?.state !== 'open') return
    const after = this.#after(node, { boot, state, action, ...(message !== undefined && { message }) })
    const isUsed = state === 'done' && action !== 'start' && grant?.state === 'open'
    await Promise.all([
      ...(after === undefined ? [] : [book.saveNode(after)]),
      ...(isUsed ? [book.saveGrant({ ...grant, state: 'used' })] : []),
      ...(state === 'done' && action === 'restore' ? [this.#restored(mac)] : []),
      events.append({
        kind: REPORT_EVENTS[state],
        mac,
        message: message ?? `${action}: ${step ?? state}`,
        data: { action, boot, ...(step !== undefined && { step }) },
      }),
    ])
  }

  /** Undefined when it is as before. */
  #after(node: NodeRecord, { boot, state, action, message }: NodeReport): NodeRecord | undefined {
    const { book, clock } = this.#options
    if (state === 'working') return undefined
    const { reason: _before, ...rest } = node
    const sinceMs = clock.nowMs()
    if (state === 'failed') {
      return { ...rest, state: 'failed', reason: message ?? `${action} failed`, sinceMs }
    }
    const version = action === 'start' ? node.version : (book.grantOf(boot)?.version ?? node.version)
    return { ...rest, state: 'joined', hasJoined: true, version, sinceMs }
  }

  /** What a person named was for this one restore. */
  async #restored(mac: Mac): Promise<void> {
    const { book } = this.#options
    const cluster = book.cluster()
    if (cluster === undefined) return
    const { restoreFrom: _taken, ...rest } = cluster
    await book.saveCluster({ ...rest, founder: mac })
  }

  async #requireBelieved(what: string, asked: Parameters<typeof findNodeDoubt>[1]): Promise<void> {
    const doubt = await findNodeDoubt(what, asked, this.#options)
    if (doubt !== undefined) throw doubt
  }

  /** What is refused is in the history and the audit log, once for each reason. */
  async #orTell(mac: Mac, boot: string, work: () => Promise<GrantAnswer>): Promise<GrantAnswer> {
    const { events, audit } = this.#options
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof KitError) || error.code === 'unavailable') throw error
      if (this.#refusals.isNews(mac, `${boot} ${error.message}`)) {
        const actor = `machine ${mac}`
        const detail = `boot=${boot}`
        await Promise.all([
          audit.append({ actor, action: GRANT_ACTION, target: mac, outcome: error.code, detail }),
          events.append({ kind: 'node-refused', mac, message: error.message, data: { boot } }),
        ])
      }
      throw error
    }
  }
}

function isRestore(decision: NodeDecision): boolean {
  return decision.kind === 'grant' && decision.action === 'restore'
}
