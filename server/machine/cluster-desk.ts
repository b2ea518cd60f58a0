// The cluster as people handle it: what it is, getting into it, adopting and forgetting it, and what a restore takes.

import type { Clock } from '#lib/clock.ts'
import { describeError, KitError } from '#lib/errors.ts'
import type { KeyedQueue } from '#lib/keyed-queue.ts'
import type { Mac } from '#lib/mac.ts'

import { hostnameOf } from './boot-plan.ts'
import type { AdoptedAccess, ClusterLink } from './cluster-link.ts'
import type {
  Cluster,
  ClusterKeys,
  ClusterNode,
  ClusterNodeView,
  ClusterRecord,
  Clusters,
  ClusterView,
  EtcdMember,
  NodeRecord,
  Snapshot,
  SnapshotStore,
} from './cluster-ports.ts'
import type { NodeBook } from './node-book.ts'
import type { Waiting } from './node-desk.ts'
import type { NodeRemoval } from './node-removal.ts'
import { nodeRoleOf } from './node-settings.ts'
import type { EventLog, Profiles } from './ports.ts'

export interface ClusterDeskOptions {
  readonly book: NodeBook
  readonly cluster: Cluster
  readonly keys: ClusterKeys
  readonly link: Pick<ClusterLink, 'connect'>
  readonly adopted: AdoptedAccess
  /** Throws KitError `invalid-input` for a kubeconfig that cannot be used. */
  readonly readKubeconfig: (text: string) => Promise<{ readonly endpoint: string }>
  readonly clusterName: string
  readonly newClusterId: () => string
  readonly snapshotStore: SnapshotStore
  readonly removal: Pick<NodeRemoval, 'remove'>
  readonly waiting: () => ReadonlyMap<Mac, Waiting>
  readonly profiles: Pick<Profiles, 'profileFor'>
  /** Text, as it stands in the files of a grant. */
  readonly podCidrOf: (node: NodeRecord) => string | undefined
  readonly events: Pick<EventLog, 'append'>
  readonly queue: KeyedQueue<'cluster'>
  readonly clock: Clock
  readonly onChange: () => void
}

export class ClusterDesk implements Clusters {
  readonly #options: ClusterDeskOptions

  constructor(options: ClusterDeskOptions) {
    this.#options = options
  }

  async view(): Promise<ClusterView> {
    const { book, cluster, keys } = this.#options
    const record = book.cluster()
    const nodes = this.nodes()
    if (record === undefined) return { state: 'none', adopted: false, nodes }
    const { isReachable, version, problem } = cluster.health()
    const members = isReachable && !record.isAdopted ? await this.#members() : undefined
    const { id, name, endpoint, isAdopted: adopted, founder } = record
    const caSha256 = adopted ? undefined : (await keys.authority()).publicKeySha256
    return {
      ...{ state: stateOf(record, isReachable), id, name, endpoint, adopted, nodes },
      ...(founder !== undefined && { founder }),
      ...(version !== undefined && { version }),
      ...(caSha256 !== undefined && { caSha256 }),
      ...(!isReachable && record.isUp && { problem: problem ?? 'it does not answer' }),
      ...(members !== undefined && { etcd: { members } }),
    }
  }

  /** Machines of the cluster, those that wait for it, and Nodes that are of no machine. */
  nodes(): readonly ClusterNodeView[] {
    const { book, cluster, waiting } = this.#options
    const live = new Map(cluster.nodes().map((node) => [node.name, node]))
    const isReachable = cluster.health().isReachable
    const known = book.nodes().map((node) => this.#known(node, isReachable ? live.get(node.name) : undefined))
    const names = new Set(known.map(({ name }) => name))
    const waiters = [...waiting().keys()].flatMap((mac) =>
      book.node(mac) === undefined ? (this.nodeOf(mac) ?? []) : [],
    )
    const strangers = [...live.values()].filter(({ name }) => !names.has(name)).map(viewOfStranger)
    return [...known, ...waiters, ...strangers]
  }

  /** Undefined for a machine that is no node, and does not wait to be one. */
  nodeOf(mac: Mac): ClusterNodeView | undefined {
    const { book, cluster, waiting, profiles } = this.#options
    const node = book.node(mac)
    if (node !== undefined) {
      const live = cluster.health().isReachable
        ? cluster.nodes().find(({ name }) => name === node.name)
        : undefined
      return this.#known(node, live)
    }
    const wait = waiting().get(mac)
    const profile = profiles.profileFor(mac)
    const role = nodeRoleOf(profile)
    if (wait === undefined || role === 'none') return undefined
    return { mac, name: hostnameOf(mac, profile), role, state: 'waiting', ...wait }
  }

  async kubeconfig(days: number, by: string): Promise<string> {
    const { keys, events } = this.#options
    const record = this.#requireOwn('make a kubeconfig')
    // What the API's own audit log calls them.
    const client = await keys.issueClient({ name: by.slice(0, 64), organization: 'system:masters', days })
    const { certificate } = await keys.authority()
    const message = `${by} was given a kubeconfig for ${days === 1 ? 'a day' : `${days} days`}`
    await events.append({ kind: 'kubeconfig-made', message, data: { by, days } })
    return kubeconfigText(record, { certificate, client, user: `${record.name}-admin` })
  }

  async adopt(kubeconfig: string, by: string): Promise<ClusterView> {
    const { queue, events, adopted, book, readKubeconfig, clusterName, newClusterId, clock } = this.#options
    const { endpoint } = await readKubeconfig(kubeconfig)
    await queue.run('cluster', async () => {
      const known = book.cluster()
      if (known !== undefined && !known.isAdopted) {
        throw new KitError('conflict', `Cannot adopt a cluster: this server has ${known.name} already`, {
          fix: 'kateskit cluster forget, when that one is gone',
        })
      }
      await this.#tryOut(kubeconfig)
      const record: ClusterRecord = {
        ...{ id: known?.id ?? newClusterId(), name: clusterName, endpoint },
        ...{ isAdopted: true, isUp: true, sinceMs: clock.nowMs() },
      }
      await adopted.write(kubeconfig)
      const message = `${by} gave this server the cluster at ${endpoint}, to join workers to`
      await Promise.all([
        book.saveCluster(record),
        events.append({ kind: 'cluster-adopted', message, data: { cluster: record.id, by } }),
      ])
    })
    this.#options.link.connect()
    this.#options.onChange()
    return this.view()
  }

  async forget(by: string): Promise<void> {
    const { queue, book, cluster, adopted, events, link } = this.#options
    await queue.run('cluster', async () => {
      const record = book.cluster()
      if (record === undefined) throw new KitError('not-found', 'Cannot forget the cluster: there is none')
      // Those that run out by themselves if this fails.
      if (cluster.health().isReachable) await cluster.sweepTokens([]).catch(() => {})
      const message = `${by} made this server forget the cluster ${record.name}, which goes on as it is`
      await Promise.all([
        book.forgetCluster(),
        events.append({ kind: 'cluster-forgotten', message, data: { cluster: record.id, by } }),
      ])
      await adopted.write(undefined)
    })
    link.connect()
    this.#options.onChange()
  }

  async removeMachine(mac: Mac, options: { readonly force: boolean; readonly by: string }): Promise<void> {
    await this.#options.removal.remove(mac, options)
    this.#options.onChange()
  }

  snapshots(): readonly Snapshot[] {
    return this.#options.snapshotStore.list()
  }

  async restoreFrom(sha256: string, by: string): Promise<ClusterRecord> {
    const { queue, book, snapshotStore, events } = this.#options
    const record = await queue.run('cluster', async () => {
      const own = this.#requireOwn('restore etcd')
      const snapshot = snapshotStore.find(sha256)
      if (snapshot === undefined || snapshot.clusterId !== own.id) {
        throw new KitError(
          'not-found',
          `Cannot restore etcd from ${sha256}: this cluster has no such snapshot`,
          {
            fix: 'kateskit etcd snapshots lists them',
          },
        )
      }
      const after = { ...own, restoreFrom: sha256 }
      const message = `${by} chose the snapshot ${sha256.slice(0, 16)} for the next restore of etcd`
      await Promise.all([
        book.saveCluster(after),
        events.append({ kind: 'etcd-restore-chosen', message, data: { sha256, by } }),
      ])
      return after
    })
    this.#options.onChange()
    return record
  }

  /** It must answer, and let this server do what joining takes; what was used before is used again when not. */
  async #tryOut(kubeconfig: string): Promise<void> {
    const { cluster, link } = this.#options
    cluster.use(async () => ({ kind: 'adopted', kubeconfig }))
    try {
      await cluster.check()
      await cluster.ensureBasics()
    } catch (error) {
      link.connect()
      throw error instanceof KitError && error.code !== 'unavailable'
        ? error
        : new KitError('unavailable', `Cannot adopt the cluster: ${describeError(error)}`, { cause: error })
    }
  }

  #known(node: NodeRecord, live: ClusterNode | undefined): ClusterNodeView {
    const { waiting, podCidrOf, cluster } = this.#options
    const { mac, name, role, version, sinceMs } = node
    const podCidr = podCidrOf(node)
    const reason = waiting().get(mac)?.reason ?? node.reason ?? live?.reason
    return {
      ...{ mac, name, role, state: nodeState(node, { live, isReachable: cluster.health().isReachable }) },
      ...{ version: live?.version ?? version, sinceMs },
      ...(podCidr !== undefined && { podCidr }),
      ...(reason !== undefined && { reason }),
    }
  }

  async #members(): Promise<readonly EtcdMember[] | undefined> {
    try {
      return await this.#options.cluster.etcdMembers()
    } catch {
      return undefined // its health is told where something hangs on it
    }
  }

  #requireOwn(what: string): ClusterRecord {
    const record = this.#options.book.cluster()
    if (record === undefined) {
      throw new KitError('not-found', `Cannot ${what}: there is no cluster yet`, {
        fix: 'kateskit assign <machine> control-plane makes one',
      })
    }
    if (!record.isAdopted) return record
    throw new KitError(
      'conflict',
      `Cannot ${what}: the cluster was adopted, and its keys are not this server's`,
    )
  }
}

function stateOf({ isUp }: ClusterRecord, isReachable: boolean): ClusterView['state'] {
  if (!isUp) return 'founding'
  return isReachable ? 'up' : 'unreachable'
}

function nodeState(
  { state, hasJoined }: NodeRecord,
  { live, isReachable }: { readonly live: ClusterNode | undefined; readonly isReachable: boolean },
): ClusterNodeView['state'] {
  if (state === 'failed') return 'failed'
  if (state === 'granted') return 'joining'
  if (live !== undefined) return live.isReady ? 'ready' : 'not-ready'
  if (!isReachable) return 'not-ready'
  return hasJoined === true ? 'gone' : 'joining'
}

function viewOfStranger(node: ClusterNode): ClusterNodeView {
  const { name, isReady, isControlPlane, version, reason } = node
  return {
    ...{ name, role: isControlPlane ? 'control-plane' : 'worker', version },
    state: isReady ? 'ready' : 'not-ready',
    ...(reason !== undefined && { reason }),
  }
}

/** JSON, which is YAML. */
function kubeconfigText(
  { name, endpoint }: ClusterRecord,
  {
    certificate,
    client,
    user,
  }: { certificate: string; client: { certificate: string; key: string }; user: string },
): string {
  const base64 = (text: string) => Buffer.from(text).toString('base64')
  const config = {
    ...{ apiVersion: 'v1', kind: 'Config', 'current-context': name, preferences: {} },
    clusters: [
      { name, cluster: { server: `https://${endpoint}`, 'certificate-authority-data': base64(certificate) } },
    ],
    users: [
      {
        name: user,
        user: {
          'client-certificate-data': base64(client.certificate),
          'client-key-data': base64(client.key),
        },
      },
    ],
    contexts: [{ name, context: { cluster: name, user } }],
  }
  return `${JSON.stringify(config, undefined, 2)}\n`
}
