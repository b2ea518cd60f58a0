// What follows from how the cluster's nodes are: grants are closed when a node is Ready, marks are put right, removed ones turned away.

import type { Clock } from '#lib/clock.ts'
import { describeError } from '#lib/errors.ts'
import type { KeyedQueue } from '#lib/keyed-queue.ts'
import type { Log } from '#lib/log.ts'
import type { Mac } from '#lib/mac.ts'
import type { Service } from '#lib/service.ts'

import type { AuditLog } from './access-ports.ts'
import type {
  Cluster,
  ClusterNode,
  GrantRecord,
  NodeCertificateRequest,
  NodeRecord,
  RequestVerdict,
} from './cluster-ports.ts'
import { compareVersions, findKubernetesVersion } from './kubernetes-version.ts'
import type { Machine } from './machine.ts'
import type { NodeBook } from './node-book.ts'
import { judgeNodeRequest } from './node-request.ts'
import { NodeReturns } from './node-return.ts'
import { nodeMarksOf } from './node-settings.ts'
import type { EventLog, Profiles } from './ports.ts'

export interface NodeWatchOptions {
  readonly book: NodeBook
  readonly cluster: Cluster
  readonly profiles: Pick<Profiles, 'profileFor'>
  readonly roster: { known(mac: Mac): Machine | undefined }
  readonly events: Pick<EventLog, 'append'>
  readonly audit: Pick<AuditLog, 'append'>
  readonly queue: KeyedQueue<'cluster'>
  readonly clock: Clock
  readonly log: Log
  /** Somebody who waits may be told something else now. */
  readonly onChange: () => void
}

export class NodeWatch implements Service {
  readonly name = 'node watch'
  readonly #options: NodeWatchOptions
  readonly #heard = new Map<Mac, number>()
  /** What was set last, as text; forgotten with the process, and then set anew. */
  readonly #marks = new Map<Mac, string>()
  readonly #returns: NodeReturns
  #unsubscribe = () => {}
  #latest: Promise<unknown> = Promise.resolve()
  #swept = false

  constructor(options: NodeWatchOptions) {
    this.#options = options
    this.#returns = new NodeReturns(options)
  }

  async start(): Promise<void> {
    const { cluster } = this.#options
    cluster.judgeRequests(
      (request) => judgeNodeRequest(request, this.#openGrants()),
      (request, verdict) => this.#inBackground(() => this.#heardOf(request, verdict)),
    )
    this.#unsubscribe = cluster.onChange(() => this.changed())
  }

  async stop(): Promise<void> {
    this.#unsubscribe()
    await this.#latest
  }

  /** The cluster, or what the files say of its nodes, is another than before. */
  changed(): void {
    this.#inBackground(() => this.settle())
    this.#options.onChange()
  }

  heard(mac: Mac): void {
    this.#heard.set(mac, this.#options.clock.nowMs())
  }

  /** When it was heard of last, by whatever it said. */
  heardMs(mac: Mac): number {
    const { book, roster } = this.#options
    const issued = book.grantsOf(mac).map(({ issuedMs }) => issuedMs)
    return Math.max(this.#heard.get(mac) ?? 0, roster.known(mac)?.lastCheckInMs ?? 0, ...issued)
  }

  /** Resolves when what has changed is written down and done. Never throws: what could not be done is tried at the next change. */
  async settle(): Promise<void> {
    const { queue, log } = this.#options
    try {
      await queue.run('cluster', () => this.#settle())
    } catch (error) {
      log.warn({ err: error }, `Cannot go on with the cluster's nodes: ${describeError(error)}`)
    }
  }

  async #settle(): Promise<void> {
    const { book, cluster } = this.#options
    if (!cluster.health().isReachable) {
      this.#swept = false
      return
    }
    const live = new Map(cluster.nodes().map((node) => [node.name, node]))
    for (const { mac, name } of book.nodes()) await this.#learn(mac, live.get(name))
    for (const grant of book.grants()) {
      const node = book.node(grant.mac)
      const seen = node && live.get(node.name)
      if (node !== undefined && seen !== undefined && isDone(node, { grant, seen }))
        await this.#close(node, grant)
    }
    await this.#returns.turnAway()
    await this.#sweep()
    for (const node of book.nodes()) {
      const seen = live.get(node.name)
      if (node.state !== 'joined' || seen === undefined) continue
      await this.#mark(node)
      await this.#uncordon(node, seen)
    }
  }

  /** While it can be asked: a machine may also be removed when neither it nor the API is there. */
  async #learn(mac: Mac, seen: ClusterNode | undefined): Promise<void> {
    const { book } = this.#options
    const node = book.node(mac)
    if (node?.state !== 'joined' || seen?.isReady !== true) return
    const { machineId } = seen
    if (machineId === undefined || machineId === node.machineId) return
    await book.saveNode({ ...node, machineId })
  }

  async #close(node: NodeRecord, grant: GrantRecord): Promise<void> {
    const { book, cluster, events } = this.#options
    const { tokenId, ...rest } = grant
    if (tokenId !== undefined) await cluster.revokeToken(tokenId)
    await Promise.all([
      book.saveGrant({ ...rest, state: 'closed' }),
      events.append({
        kind: 'node-ready',
        mac: node.mac,
        message: `node ${node.name} is Ready after ${grant.action}`,
        data: { action: grant.action },
      }),
    ])
    this.#marks.delete(node.mac)
    this.#options.onChange()
  }

  /** Tokens that were minted and never written down: the server was killed in between. */
  async #sweep(): Promise<void> {
    const { book, cluster, log } = this.#options
    if (this.#swept) return
    const record = book.cluster()
    // What later minors need, and a cluster that was restored may not have.
    if (record?.isUp === true && !record.isAdopted) await cluster.ensureBasics()
    const known = book.grants().flatMap(({ tokenId }) => tokenId ?? [])
    const gone = await cluster.sweepTokens(known)
    this.#swept = true
    if (gone.length > 0) log.info({ ids: gone }, 'Tokens that belong to no grant were revoked')
  }

  /** One node whose marks cannot be set holds up no other. */
  async #mark({ mac, name }: NodeRecord): Promise<void> {
    const { cluster, profiles, events } = this.#options
    const profile = profiles.profileFor(mac)
    if (profile.role === undefined || profile.broken !== undefined) return
    const marks = nodeMarksOf(profile)
    const text = JSON.stringify(marks)
    if (this.#marks.get(mac) === text) return
    try {
      await cluster.setMarks(name, marks)
      this.#marks.set(mac, text)
    } catch (error) {
      const failed = `${text} failed`
      if (this.#marks.get(mac) === failed) return
      this.#marks.set(mac, failed)
      const message = `labels and taints of node ${name} could not be set: ${describeError(error)}`
      await events.append({ kind: 'node-marks-failed', mac, message })
    }
  }

  /** It came back from the restart that it was drained for. */
  async #uncordon(node: NodeRecord, seen: ClusterNode): Promise<void> {
    const { book, cluster, roster, events } = this.#options
    const { drainedBoot } = node
    if (drainedBoot === undefined || !seen.isReady) return
    const machine = roster.known(node.mac)
    const isUp = machine?.state === 'running' && (machine.checks ?? 'passed') === 'passed'
    if (!isUp || machine.bootId === drainedBoot || book.grantsOf(node.mac).length > 0) return
    await cluster.setCordon(node.name, false)
    const { drainedBoot: _over, ...rest } = book.node(node.mac) ?? node
    await Promise.all([
      book.saveNode(rest),
      events.append({
        kind: 'node-uncordoned',
        mac: node.mac,
        message: `node ${node.name} takes pods again`,
      }),
    ])
  }

  #openGrants() {
    const { book, clock } = this.#options
    const nowMs = clock.nowMs()
    return book.grants().flatMap(({ mac, tokenId, kubeletKey, state, expiresMs }) => {
      const nodeName = book.node(mac)?.name
      if (state !== 'open' || expiresMs <= nowMs) return []
      if (tokenId === undefined || kubeletKey === undefined || nodeName === undefined) return []
      return [{ tokenId, kubeletKey, nodeName, mac }]
    })
  }

  async #heardOf(request: NodeCertificateRequest, verdict: RequestVerdict): Promise<void> {
    const { queue, events, audit, book } = this.#options
    if (verdict.kind === 'leave') return
    const { mac } = verdict
    const actor = mac === undefined ? 'a bootstrap token' : `machine ${mac}`
    const entry = { actor, action: 'kubelet certificate', target: request.commonName.slice(0, 253) }
    if (verdict.kind === 'deny') {
      const message = `a request for a kubelet's certificate was denied: ${verdict.reason}`
      const data = { request: request.name }
      await Promise.all([
        audit.append({ ...entry, outcome: 'forbidden', detail: verdict.reason }),
        events.append({ kind: 'kubelet-denied', ...(mac !== undefined && { mac }), message, data }),
      ])
      return
    }
    await queue.run('cluster', async () => {
      const grant = book.grantsOf(verdict.mac).find(({ state }) => state === 'open')
      await Promise.all([
        ...(grant === undefined ? [] : [book.saveGrant({ ...grant, state: 'used' })]),
        audit.append({ ...entry, outcome: 'done', detail: `request=${request.name}` }),
        events.append({
          kind: 'kubelet-approved',
          mac: verdict.mac,
          message: `its kubelet got the certificate of ${request.commonName}`,
          data: { request: request.name },
        }),
      ])
    })
  }

  #inBackground(work: () => Promise<void>): void {
    const { log } = this.#options
    const done = work().catch((error: unknown) => {
      log.error({ err: error }, `Cannot follow the cluster: ${describeError(error)}`)
    })
    this.#latest = Promise.all([this.#latest, done])
  }
}

/** The machine said so, and the cluster does. A Node from before its grant says nothing: kubeadm is done since. */
function isDone(
  { state }: NodeRecord,
  { grant, seen }: { readonly grant: GrantRecord; readonly seen: ClusterNode },
): boolean {
  return (
    state === 'joined' && grant.state === 'used' && seen.isReady && isSameVersion(seen.version, grant.version)
  )
}

function isSameVersion(one: string, other: string): boolean {
  const [left, right] = [findKubernetesVersion(one), findKubernetesVersion(other)]
  return left !== undefined && right !== undefined ? compareVersions(left, right) === 0 : one === other
}
