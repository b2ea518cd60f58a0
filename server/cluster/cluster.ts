// The cluster as it runs: the parts of this folder, joined to what the domain asks for.

import { isDeepStrictEqual } from 'node:util'

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import type { Cluster, ClusterKeys, ClusterNode } from '#machine/cluster-ports.ts'
import { ApiLink } from './api-link.ts'
import { ensureBasics } from './basics.ts'
import { readNodes } from './cluster-nodes.ts'
import { RequestDesk } from './cluster-requests.ts'
import type { Connection } from './connection.ts'
import { evictPods } from './drain.ts'
import { type EtcdAccess, listMembers, removeMember } from './etcd-client.ts'
import { forgetNode, setCordon, setMarks } from './node-changes.ts'
import { mintToken, revokeToken, sweepTokens } from './tokens.ts'

export interface ClusterOptions {
  readonly clock: Clock
  readonly log: Log
  /** For etcd's own API. Absent: etcd is not asked, as in a cluster of others. */
  readonly issueEtcdClient?: ClusterKeys['issueEtcdClient']
  /** How long the cluster may take to sign a token into cluster-info: 30 s unless given. */
  readonly signingTimeoutMs?: number
}

const SIGNING_TIMEOUT_MS = 30_000
const ETCD_PORT = 2379
/** Of the certificate for etcd; it is made anew when half of that is over. */
const ETCD_DAYS = 2
const DAY_MS = 86_400_000

/** Nothing of Kubernetes' client library is loaded before `use` is called with an access. */
export function createCluster(options: ClusterOptions): Cluster {
  return new RunningCluster(options)
}

class RunningCluster implements Cluster {
  readonly #options: ClusterOptions
  readonly #desk: RequestDesk
  readonly #listeners = new Set<() => void>()
  #link: ApiLink | undefined
  #nodes: readonly ClusterNode[] = []
  /** By uid: deleted here, and in the list until the watch says so, too. */
  readonly #deleted = new Set<string>()
  #etcdClient: Promise<EtcdAccess['client']> | undefined

  constructor(options: ClusterOptions) {
    this.#options = options
    this.#desk = new RequestDesk(options.clock, options.log)
  }

  use: Cluster['use'] = (access) => {
    this.#link?.stop()
    this.#link = undefined
    this.#nodes = []
    this.#etcdClient = undefined
    if (access !== undefined) {
      this.#link = new ApiLink(this.#options, access, {
        nodes: (nodes) => this.#setNodes(readNodes(nodes)),
        requests: (requests) => this.#desk.hear(requests),
        connection: (connection) => this.#desk.setConnection(connection),
        health: () => this.#changed(),
      })
    }
    this.#changed()
  }

  health: Cluster['health'] = () => this.#link?.health() ?? { isReachable: false }

  check: Cluster['check'] = async () => this.#linked().check()

  nodes: Cluster['nodes'] = () => this.#nodes

  onChange: Cluster['onChange'] = (listener) => {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  ensureBasics: Cluster['ensureBasics'] = () => this.#run(ensureBasics)

  mintToken: Cluster['mintToken'] = (wish) => {
    const { clock, signingTimeoutMs = SIGNING_TIMEOUT_MS } = this.#options
    return this.#run((connection) => mintToken(connection, wish, { clock, timeoutMs: signingTimeoutMs }))
  }

  revokeToken: Cluster['revokeToken'] = (id) => this.#run((connection) => revokeToken(connection, id))

  sweepTokens: Cluster['sweepTokens'] = (knownIds) =>
    this.#run((connection) => sweepTokens(connection, knownIds))

  forgetNode: Cluster['forgetNode'] = async (name) => {
    const known = this.#nodes.filter((node) => node.name === name)
    await this.#run((connection) => forgetNode(connection, name))
    for (const { uid } of known) this.#deleted.add(uid)
    this.#setNodes(this.#nodes)
  }

  setCordon: Cluster['setCordon'] = (name, isCordoned) =>
    this.#run((connection) => setCordon(connection, name, isCordoned))

  drain: Cluster['drain'] = (name, timeoutMs) =>
    this.#run(async (connection) => {
      await setCordon(connection, name, true)
      await evictPods(connection, name, { clock: this.#options.clock, timeoutMs })
    })

  setMarks: Cluster['setMarks'] = (name, marks) =>
    this.#run((connection) => setMarks(connection, name, marks))

  judgeRequests: Cluster['judgeRequests'] = (judge, heard) => this.#desk.setJudge(judge, heard)

  etcdMembers: Cluster['etcdMembers'] = async () => listMembers(await this.#etcd())

  removeEtcdMember: Cluster['removeEtcdMember'] = async (id) => removeMember(await this.#etcd(), id)

  #linked(): ApiLink {
    if (this.#link !== undefined) return this.#link
    throw new KitError('unavailable', 'Cannot reach the cluster: there is none yet')
  }

  async #run<Result>(work: (connection: Connection) => Promise<Result>): Promise<Result> {
    return this.#linked().run(work)
  }

  /** Control planes as they were known last: etcd is asked also while the API is away. */
  async #etcd(): Promise<EtcdAccess> {
    const { issueEtcdClient, clock } = this.#options
    if (issueEtcdClient === undefined || this.#linked().isAdopted() === true)
      throw new KitError('conflict', "Cannot ask etcd: its keys are not this server's")
    const old = await this.#etcdClient?.catch(() => undefined)
    const isFresh = old !== undefined && old.untilMs - clock.nowMs() > (ETCD_DAYS * DAY_MS) / 2
    this.#etcdClient = isFresh ? Promise.resolve(old) : issueEtcdClient(ETCD_DAYS)
    const addresses = this.#nodes.filter(({ isControlPlane }) => isControlPlane).map(({ address }) => address)
    return {
      endpoints: addresses
        .filter((address) => address !== undefined)
        .map((address) => `https://${address}:${ETCD_PORT}`),
      client: await this.#etcdClient,
    }
  }

  #setNodes(listed: readonly ClusterNode[]): void {
    for (const uid of this.#deleted) if (!listed.some((node) => node.uid === uid)) this.#deleted.delete(uid)
    const nodes = listed.filter(({ uid }) => !this.#deleted.has(uid))
    // Kubelets write their heartbeat into their Nodes every few minutes.
    if (isDeepStrictEqual(nodes, this.#nodes)) return
    this.#nodes = nodes
    this.#changed()
  }

  #changed(): void {
    for (const listener of [...this.#listeners]) listener()
  }
}
