// Handing out what a machine needs for its part in the cluster: everything is written down before it leaves.

import { isDeepStrictEqual } from 'node:util'

import type { Clock } from '#lib/clock.ts'
import { describeError, KitError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import type { Mac } from '#lib/mac.ts'

import type { AuditLog } from './access-ports.ts'
import { hostnameOf } from './boot-plan.ts'
import type {
  BootstrapToken,
  Cluster,
  ClusterRecord,
  GrantRecord,
  GrantRequest,
  NodeAction,
  NodeRecord,
} from './cluster-ports.ts'
import { API_SERVER_PORT, type NodeOrder } from './kubeadm-config.ts'
import type { NodeBook } from './node-book.ts'
import type { NodeDecision, NodeFacts } from './node-decision.ts'
import type { EventLog, Speaker } from './ports.ts'
import type { Profile } from './profile.ts'
import { Repeats } from './repeats.ts'

export interface NodeGrantsOptions {
  readonly book: NodeBook
  readonly cluster: Cluster
  /** The setting cluster/name. */
  readonly clusterName: string
  /** The setting cluster/api-endpoint, with its port; undefined for the founder's address. */
  readonly endpoint: string | undefined
  readonly newClusterId: () => string
  /** The tar: in memory, and nowhere else. */
  readonly pack: (order: NodeOrder) => Promise<Uint8Array>
  readonly events: Pick<EventLog, 'append'>
  readonly audit: Pick<AuditLog, 'append'>
  readonly clock: Clock
  readonly log: Log
}

export interface Granting {
  readonly profile: Profile
  readonly asked: GrantRequest
  readonly facts: NodeFacts
  readonly decision: Extract<NodeDecision, { kind: 'grant' }>
  readonly by: Speaker
}

export const GRANT_ACTION = 'POST /v1/machines/:mac/grant'
const LIFE_MS = 15 * 60_000

const JOINS: readonly NodeAction[] = ['join', 'join-control-plane']
/** The node keeps the name and the version that it has. */
const KEEPS: readonly NodeAction[] = ['start', 'upgrade-first', 'upgrade-node']

export class NodeGrants {
  readonly #options: NodeGrantsOptions
  /** A machine whose service starts anew asks again. */
  readonly #starts = new Repeats()

  constructor(options: NodeGrantsOptions) {
    this.#options = options
  }

  /** Throws KitError `grant-used`, `conflict`, `unavailable`. */
  async handOut(granting: Granting): Promise<Uint8Array> {
    const { decision, asked, profile } = granting
    const { mac } = profile
    const { action } = decision
    const name = this.#nameFor(granting)
    if (JOINS.includes(action)) requireKubeletKey(asked)
    this.#requireUnused(mac, asked.boot, action)
    this.#requireName(mac, name)
    await this.#endEarlier(mac, granting)
    if (JOINS.includes(action)) await this.#clearPlace(granting, name)
    const cluster = this.#options.book.cluster() ?? (await this.#found(granting))
    const node =
      action === 'start' ? await this.#recordStart(granting, name) : await this.#recordNode(granting, name)
    const token = JOINS.includes(action) ? await this.#mint(node) : undefined
    if (action !== 'start') await this.#recordGrant(granting, token)
    await this.#tell(granting)
    return this.#options.pack({
      ...{ action, cluster, node, profile, asked },
      ...(token !== undefined && { token: token.token }),
      ...(decision.snapshot !== undefined && { snapshot: decision.snapshot }),
    })
  }

  /** Tokens of grants that are over go first. One that starts what this very boot was given ends nothing. */
  async #endEarlier(mac: Mac, { decision: { action }, asked }: Granting): Promise<void> {
    const { book, cluster, log } = this.#options
    const isNeeded = JOINS.includes(action)
    for (const grant of book.grantsOf(mac)) {
      if (action === 'start' && grant.boot === asked.boot) continue
      if (grant.tokenId !== undefined) {
        try {
          await cluster.revokeToken(grant.tokenId)
        } catch (error) {
          if (isNeeded) throw error
          log.warn({ err: error, mac }, `Cannot revoke a token, which runs out: ${describeError(error)}`)
        }
      }
      const { tokenId: _gone, ...rest } = grant
      await book.saveGrant({ ...rest, state: 'closed' })
    }
  }

  /** A machine that comes back under its name: what the cluster still has of it would be in its way. */
  async #clearPlace({ decision, facts }: Granting, name: string): Promise<void> {
    const { cluster } = this.#options
    if (decision.formerMember !== undefined) await cluster.removeEtcdMember(decision.formerMember)
    for (const each of new Set([facts.name, name])) await cluster.forgetNode(each)
  }

  /** Written down before anything leaves: there is never another founder. */
  async #found({ asked, profile }: Granting): Promise<ClusterRecord> {
    const { book, clusterName, endpoint, newClusterId, events, clock } = this.#options
    const record: ClusterRecord = {
      ...{ id: newClusterId(), name: clusterName, isAdopted: false, isUp: false },
      endpoint: endpoint ?? `${asked.address}:${API_SERVER_PORT}`,
      ...{ founder: profile.mac, sinceMs: clock.nowMs() },
    }
    const message = `it makes the cluster ${record.name}, which will be at ${record.endpoint}`
    await Promise.all([
      book.saveCluster(record),
      events.append({ kind: 'cluster-founding', mac: profile.mac, message, data: { cluster: record.id } }),
    ])
    return record
  }

  async #recordNode({ decision, asked, facts, profile }: Granting, name: string): Promise<NodeRecord> {
    const { book, clock } = this.#options
    const { mac } = profile
    const { record } = facts
    const isKept = KEEPS.includes(decision.action)
    const role =
      isKept && record !== undefined ? record.role : facts.role === 'worker' ? 'worker' : 'control-plane'
    const hasJoined = record?.role === role && record.hasJoined
    const node: NodeRecord = {
      ...{ mac, name, role, index: book.indexFor(mac), sinceMs: clock.nowMs() },
      state: 'granted',
      version: isKept ? (asked.nodeVersion ?? record?.version ?? asked.kubernetes) : asked.kubernetes,
      ...(hasJoined && { hasJoined: true }),
      ...(record?.machineId !== undefined && { machineId: record.machineId }),
      ...(record?.drainedBoot !== undefined && { drainedBoot: record.drainedBoot }),
    }
    await book.saveNode(node)
    return node
  }

  /** It is a node by its own word: what it said of that before may not have been heard. */
  async #recordStart({ asked, facts, profile }: Granting, name: string): Promise<NodeRecord> {
    const { book, clock } = this.#options
    const { mac } = profile
    const { record } = facts
    const before: Omit<NodeRecord, 'state' | 'version'> = record ?? {
      ...{ mac, name, role: facts.role === 'worker' ? ('worker' as const) : ('control-plane' as const) },
      ...{ index: book.indexFor(mac), sinceMs: clock.nowMs() },
    }
    const { reason: _over, ...known } = before
    const version = asked.nodeVersion ?? record?.version ?? asked.kubernetes
    const node: NodeRecord = { ...known, state: 'joined', hasJoined: true, version }
    if (!isDeepStrictEqual(node, record)) await book.saveNode(node)
    const own = book.grantOf(asked.boot)
    if (own?.state === 'open') await book.saveGrant({ ...own, state: 'used' })
    return node
  }

  async #mint(node: NodeRecord): Promise<BootstrapToken> {
    const { cluster, clock } = this.#options
    return cluster.mintToken({ nodeName: node.name, mac: node.mac, expiresMs: clock.nowMs() + LIFE_MS })
  }

  /** A token that is not written down counts for nothing: no certificate is signed for it. */
  async #recordGrant({ decision, asked, profile, by }: Granting, token?: BootstrapToken): Promise<void> {
    const { book, clock } = this.#options
    const issuedMs = clock.nowMs()
    const grant: GrantRecord = {
      ...{ boot: asked.boot, mac: profile.mac, keySha256: by.keySha256, action: decision.action },
      ...(token !== undefined && { tokenId: token.id }),
      ...(asked.kubeletKey !== undefined && { kubeletKey: asked.kubeletKey }),
      ...(decision.snapshot !== undefined && { snapshot: decision.snapshot }),
      ...{ version: asked.kubernetes, issuedMs, expiresMs: issuedMs + LIFE_MS, state: 'open' },
    }
    await book.saveGrant(grant)
  }

  async #tell({ decision, asked, profile, by }: Granting): Promise<void> {
    const { events, audit } = this.#options
    const { mac } = profile
    const { action } = decision
    if (action === 'start' && !this.#starts.isNews(mac, asked.boot)) return
    const detail = `action=${action} boot=${asked.boot} key=${by.keySha256}`
    await Promise.all([
      audit.append({ actor: `machine ${mac}`, action: GRANT_ACTION, target: mac, outcome: 'done', detail }),
      events.append({
        kind: 'node-granted',
        mac,
        message: `its part in the cluster: ${action} with Kubernetes ${asked.kubernetes}`,
        data: { action, boot: asked.boot },
      }),
    ])
  }

  #nameFor({ decision, facts, profile }: Granting): string {
    const hostname = hostnameOf(profile.mac, profile)
    const isKept =
      KEEPS.includes(decision.action) || (decision.action === 'init' && facts.cluster?.isUp === true)
    return isKept ? (facts.record?.name ?? hostname) : hostname
  }

  #requireUnused(mac: Mac, boot: string, action: NodeAction): void {
    const earlier = this.#options.book.grantOf(boot)
    if (action === 'start' || earlier === undefined || earlier.state === 'open') return
    throw new KitError('grant-used', `Cannot hand out a grant: boot ${boot} has used its own`, {
      fix: `restart ${mac}: the next boot gets another one`,
    })
  }

  #requireName(mac: Mac, name: string): void {
    const other = this.#options.book.nodes().find((node) => node.name === name && node.mac !== mac)
    if (other === undefined) return
    throw new KitError('conflict', `Cannot hand out a grant: ${other.mac} is the node ${name} already`, {
      fix: `give one of them another name in its file hostname, or kateskit remove ${other.mac}`,
    })
  }
}

/** A token alone would be good for whoever has it. */
function requireKubeletKey({ kubeletKey }: GrantRequest): void {
  if (kubeletKey !== undefined) return
  throw new KitError('conflict', 'Cannot hand out a grant: the machine names no key of its kubelet', {
    fix: 'promote a newer image to its channel',
  })
}
