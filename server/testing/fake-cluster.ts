// A cluster that a test holds in its hands, for decisions only: the real API is tried in server/cluster.

import { KitError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'
import type {
  Cluster,
  ClusterAccess,
  ClusterKeys,
  ClusterNode,
  Clusters,
  ClusterView,
  EtcdMember,
  GrantAnswer,
  NodeCertificateRequest,
  NodeDesk,
  NodeMarks,
  NodeReport,
  RequestVerdict,
  Snapshot,
  SnapshotStore,
  TokenWish,
} from '#machine/cluster-ports.ts'
import type { NodeOrder } from '#machine/kubeadm-config.ts'

import type { ClusterParts } from '../cluster-domain.ts'

type Judge = (request: NodeCertificateRequest) => RequestVerdict
type Heard = (request: NodeCertificateRequest, verdict: RequestVerdict) => void

export class FakeCluster implements Cluster {
  access: (() => Promise<ClusterAccess>) | undefined
  isReachable = false
  live: ClusterNode[] = []
  members: EtcdMember[] = []
  /** By id. */
  readonly tokens = new Map<string, TokenWish>()
  readonly marks = new Map<string, NodeMarks>()
  /** `what name`, in order. */
  readonly calls: string[] = []
  /** Thrown by every call of this name while it is set. */
  readonly failures = new Map<string, Error>()
  readonly #listeners = new Set<() => void>()
  #minted = 0
  #judge: Judge | undefined
  #heard: Heard | undefined

  use(access: (() => Promise<ClusterAccess>) | undefined) {
    this.access = access
  }

  health() {
    return this.isReachable
      ? { isReachable: true, version: 'v1.33.1' }
      : { isReachable: false, problem: 'it is away' }
  }

  async check() {
    this.#note('check', '')
    if (!this.isReachable) throw new KitError('unavailable', 'Cannot reach the cluster: it is away')
  }

  nodes() {
    return this.live
  }

  onChange(listener: () => void) {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** As the adapter does when something is another than before. */
  change(live: ClusterNode[] = this.live) {
    this.live = live
    for (const listener of this.#listeners) listener()
  }

  async ensureBasics() {
    this.#note('ensureBasics', '')
  }

  async mintToken(wish: TokenWish) {
    this.#note('mintToken', wish.nodeName)
    this.#minted += 1
    const id = `tok${this.#minted + 99}`
    this.tokens.set(id, wish)
    return { id, token: `${id}.${'planted-secret-0'}` }
  }

  async revokeToken(id: string) {
    this.#note('revokeToken', id)
    this.tokens.delete(id)
  }

  async sweepTokens(knownIds: readonly string[]) {
    const gone = [...this.tokens.keys()].filter((id) => !knownIds.includes(id))
    for (const id of gone) this.tokens.delete(id)
    return gone
  }

  async forgetNode(name: string) {
    this.#note('forgetNode', name)
    this.live = this.live.filter((node) => node.name !== name)
  }

  async setCordon(name: string, isCordoned: boolean) {
    this.#note(isCordoned ? 'cordon' : 'uncordon', name)
    this.live = this.live.map((node) => (node.name === name ? { ...node, isCordoned } : node))
  }

  async drain(name: string) {
    this.#note('drain', name)
    this.live = this.live.map((node) => (node.name === name ? { ...node, isCordoned: true } : node))
  }

  async setMarks(name: string, marks: NodeMarks) {
    this.#note('setMarks', name)
    this.marks.set(name, marks)
  }

  judgeRequests(judge: Judge, heard: Heard) {
    this.#judge = judge
    this.#heard = heard
  }

  /** A kubelet asks for its certificate. */
  request(request: NodeCertificateRequest): RequestVerdict | undefined {
    const verdict = this.#judge?.(request)
    if (verdict !== undefined) this.#heard?.(request, verdict)
    return verdict
  }

  async etcdMembers() {
    this.#note('etcdMembers', '')
    return this.members
  }

  async removeEtcdMember(id: string) {
    this.#note('removeEtcdMember', id)
    this.members = this.members.filter((member) => member.id !== id)
  }

  #note(what: string, name: string) {
    this.calls.push(`${what} ${name}`.trim())
    const failure = this.failures.get(what)
    if (failure !== undefined) throw failure
  }
}

export class FakeSnapshots implements SnapshotStore {
  kept: Snapshot[] = []

  list() {
    return this.kept
  }

  find(sha256: string) {
    return this.kept.find((snapshot) => snapshot.sha256 === sha256)
  }

  async save(...[content, about]: Parameters<SnapshotStore['save']>) {
    let sizeBytes = 0
    for await (const chunk of content) sizeBytes += chunk.length
    const snapshot: Snapshot = { ...about, sizeBytes, takenMs: 1, file: `/snapshots/${about.sha256}` }
    this.kept.unshift(snapshot)
    return snapshot
  }

  async prune() {}
}

const CERTIFICATE = { certificate: 'planted certificate', key: 'planted key', untilMs: 1 }

const keys: ClusterKeys = {
  authority: async () => ({ certificate: 'the CA', publicKeySha256: 'ca'.repeat(32) }),
  controlPlaneFiles: async () => new Map([['ca.key', 'planted key']]),
  issueClient: async () => CERTIFICATE,
  issueEtcdClient: async () => ({ ...CERTIFICATE, authority: 'the CA of etcd' }),
}

/** What the domain asks of a cluster; `orders` are the grants that were packed. */
export function fakeClusterParts(cluster = new FakeCluster(), snapshots = new FakeSnapshots()) {
  const orders: NodeOrder[] = []
  let kubeconfig: string | undefined
  const parts: ClusterParts = {
    ...{ cluster, snapshots, clusterKeys: keys, clusterName: 'kateskit', endpoint: undefined },
    adopted: {
      read: async () => kubeconfig,
      async write(text) {
        kubeconfig = text
      },
    },
    readKubeconfig: async () => ({ endpoint: '10.9.9.9:6443' }),
    async packGrant(order) {
      orders.push(order)
      return Buffer.from(`grant ${order.action}`)
    },
    podCidrOf: ({ index }) => `10.244.${index}.0/24`,
  }
  return { parts, cluster, snapshots, orders }
}

export class FakeNodeDesk implements NodeDesk {
  answer: GrantAnswer = { kind: 'none' }
  readonly reports: [Mac, NodeReport][] = []
  readonly uploads: { readonly mac: Mac; readonly sha256: string; readonly bytes: Buffer }[] = []
  readonly requests: unknown[] = []
  readonly listeners = new Set<() => void>()
  snapshot: Snapshot | undefined

  async grant(...[mac, request, by]: Parameters<NodeDesk['grant']>) {
    this.requests.push([mac, request, by])
    return this.answer
  }

  async report(mac: Mac, report: NodeReport) {
    this.reports.push([mac, report])
  }

  async saveSnapshot(...[mac, , { bytes, sha256 }]: Parameters<NodeDesk['saveSnapshot']>) {
    const chunks: Uint8Array[] = []
    for await (const chunk of bytes) chunks.push(chunk)
    this.uploads.push({ mac, sha256, bytes: Buffer.concat(chunks) })
  }

  async snapshotFor() {
    if (this.snapshot === undefined) throw new KitError('conflict', 'Cannot hand out a snapshot: no grant')
    return this.snapshot
  }

  onChange(listener: () => void) {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  change(answer: GrantAnswer) {
    this.answer = answer
    for (const listener of this.listeners) listener()
  }
}

export class FakeClusters implements Clusters {
  current: ClusterView = { state: 'none', adopted: false, nodes: [] }
  readonly calls: unknown[][] = []
  kept: Snapshot[] = []

  async view() {
    return this.current
  }

  async kubeconfig(days: number, by: string) {
    this.calls.push(['kubeconfig', days, by])
    return '{"kind": "Config"}\n'
  }

  async adopt(kubeconfig: string, by: string) {
    this.calls.push(['adopt', kubeconfig, by])
    return this.current
  }

  async forget(by: string) {
    this.calls.push(['forget', by])
  }

  async removeMachine(...args: Parameters<Clusters['removeMachine']>) {
    this.calls.push(['removeMachine', ...args])
  }

  snapshots() {
    return this.kept
  }

  async restoreFrom(sha256: string, by: string) {
    this.calls.push(['restoreFrom', sha256, by])
    return {
      ...{ id: '0123456789abcdef', name: 'kateskit', endpoint: '10.0.0.1:6443', isAdopted: false },
      ...{ isUp: true, sinceMs: 1, restoreFrom: sha256 },
    }
  }
}
