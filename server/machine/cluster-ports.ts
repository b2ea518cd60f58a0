// The interfaces of Kubernetes: the cluster as it is reached, its keys, what is remembered of it, and what the front doors need.

import type { Ipv4 } from '#lib/ipv4.ts'
import type { Mac } from '#lib/mac.ts'

import type { Speaker } from './ports.ts'

export type NodeRole = 'control-plane' | 'worker'

/** `init` and `restore` make a control plane out of the keys and etcd's data; the others need a cluster that answers. */
export type NodeAction =
  | 'start'
  | 'init'
  | 'restore'
  | 'join'
  | 'join-control-plane'
  | 'upgrade-first'
  | 'upgrade-node'

/** The cluster this server is for; there is one at most. */
export interface ClusterRecord {
  /** 16 hex digits, made with the record; what tells etcd's data of this cluster from another's. */
  readonly id: string
  readonly name: string
  /** `host:port`. */
  readonly endpoint: string
  readonly isAdopted: boolean
  /** Its first control plane; undefined in an adopted one. */
  readonly founder?: Mac
  /** The API answered after the founder said that it was done: from now on nothing of it is ever made anew. */
  readonly isUp: boolean
  readonly sinceMs: number
  /** sha256 of the snapshot that the next `restore` takes, when a person named one. */
  readonly restoreFrom?: string
}

/** A machine's part in the cluster, from its first grant until it is removed. */
export interface NodeRecord {
  readonly mac: Mac
  readonly name: string
  readonly role: NodeRole
  /** Small and never given twice at a time: names the node's own part of the pod subnet. */
  readonly index: number
  readonly state: 'granted' | 'joined' | 'failed'
  /** Of Kubernetes, `v1.33.1`, when it was granted or upgraded last. */
  readonly version: string
  /** It was part of the cluster once: its etcd may have data. */
  readonly hasJoined?: true
  /** What its Node said when it was Ready last. */
  readonly machineId?: string
  /** The boot that it was cordoned in by this server, for a restart. */
  readonly drainedBoot?: string
  readonly reason?: string
  readonly sinceMs: number
}

/** What the Node of a machine that was removed is known by when it comes back: no certificate of a kubelet can be revoked. */
export interface RemovedNode {
  readonly mac: Mac
  readonly name: string
  readonly machineId: string
  readonly atMs: number
}

/** What a boot was given. One for a boot. */
export interface GrantRecord {
  readonly boot: string
  readonly mac: Mac
  readonly keySha256: string
  readonly action: NodeAction
  /** Of the bootstrap token (the part that is no secret), while there is one. */
  readonly tokenId?: string
  /** The only key that a certificate is signed for by that token. */
  readonly kubeletKey?: string
  /** sha256 of what a `restore` takes. */
  readonly snapshot?: string
  /** Of Kubernetes: what the node has when it is done. */
  readonly version: string
  readonly issuedMs: number
  readonly expiresMs: number
  /** `open`: handed out. `used`: a certificate was signed for it, or the machine said that it is done. `closed`: over. */
  readonly state: 'open' | 'used' | 'closed'
}

export interface ClusterStore {
  cluster(): Promise<ClusterRecord | undefined>
  /** Committed when it resolves, like all below. `undefined` forgets everything of it. */
  saveCluster(cluster: ClusterRecord | undefined): Promise<void>
  nodes(): Promise<readonly NodeRecord[]>
  /** No machine or name that is a node is a removed one. */
  saveNode(node: NodeRecord): Promise<void>
  removeNode(mac: Mac): Promise<void>
  removedNodes(): Promise<readonly RemovedNode[]>
  saveRemovedNode(node: RemovedNode): Promise<void>
  /** The newest 20 of each machine, and all that are not closed. */
  grants(): Promise<readonly GrantRecord[]>
  saveGrant(grant: GrantRecord): Promise<void>
}

/** A certificate with its key, both PEM, in memory only. */
export interface ClientCertificate {
  readonly certificate: string
  readonly key: string
  readonly untilMs: number
}

/** The cluster's CAs and the key of its service accounts, kept on the server. */
export interface ClusterKeys {
  /** PEM; and sha256 of its SubjectPublicKeyInfo, hex: kubeadm's `sha256:<hash>`. Made at the first call. */
  authority(): Promise<{ readonly certificate: string; readonly publicKeySha256: string }>
  /** As kubeadm has them under `pki/`: ca.crt, ca.key, front-proxy-ca.crt, …, etcd/ca.crt, etcd/ca.key, sa.pub, sa.key. */
  controlPlaneFiles(): Promise<ReadonlyMap<string, string>>
  /** For the API; `organization` such as `system:masters`. NotBefore lies 24 hours back. */
  issueClient(subject: {
    readonly name: string
    readonly organization?: string
    readonly days: number
  }): Promise<ClientCertificate>
  /** For etcd's own API. */
  issueEtcdClient(days: number): Promise<ClientCertificate & { readonly authority: string }>
}

/** How the API is reached. */
export type ClusterAccess =
  | {
      readonly kind: 'own'
      readonly endpoint: string
      readonly authority: string
      readonly client: ClientCertificate
    }
  | { readonly kind: 'adopted'; readonly kubeconfig: string }

export interface BootstrapToken {
  /** Six characters, public. */
  readonly id: string
  /** `<id>.<secret>`. */
  readonly token: string
}

export interface TokenWish {
  readonly nodeName: string
  readonly mac: Mac
  readonly expiresMs: number
}

/** A Node as the cluster has it. */
export interface ClusterNode {
  readonly name: string
  /** A Node that is made again under the same name has another. */
  readonly uid: string
  /** Of machine-id(5), as its kubelet says. Ours is on kit-persist, which survives a powerwash. */
  readonly machineId?: string
  readonly isReady: boolean
  readonly isCordoned: boolean
  readonly isControlPlane: boolean
  /** Of its kubelet: `v1.33.1`. */
  readonly version: string
  readonly address?: Ipv4
  readonly labels: Readonly<Record<string, string>>
  /** Of the Ready condition, where it is not. */
  readonly reason?: string
}

export interface EtcdMember {
  /** Hex. */
  readonly id: string
  /** Empty until it has started. */
  readonly name: string
  readonly peerUrls: readonly string[]
  readonly isHealthy: boolean
  readonly isLeader: boolean
  /** Has the data and no vote yet. */
  readonly isLearner?: boolean
}

/** Who asks for a kubelet's certificate with a bootstrap token. Pure data for `judgeNodeRequest`. */
export interface NodeCertificateRequest {
  /** Of the object. */
  readonly name: string
  readonly username: string
  readonly groups: readonly string[]
  readonly usages: readonly string[]
  readonly signerName: string
  /** Out of the request itself. */
  readonly commonName: string
  readonly organizations: readonly string[]
  readonly hasOtherNames: boolean
  /** Of the key that it is for: of its SubjectPublicKeyInfo, hex. Whoever asks has it. */
  readonly keySha256: string
}

export type RequestVerdict =
  | { readonly kind: 'approve'; readonly mac: Mac }
  | { readonly kind: 'deny'; readonly reason: string; readonly mac?: Mac }
  /** Not a matter of this server's grants. */
  | { readonly kind: 'leave' }

/** A running cluster. Everything throws KitError `unavailable` while it cannot be reached. */
export interface Cluster {
  /** Connects, and stays connected; again when the access changes; `undefined` lets go. */
  use(access: (() => Promise<ClusterAccess>) | undefined): void
  /** What is known now, without asking. */
  health(): { readonly isReachable: boolean; readonly version?: string; readonly problem?: string }
  /** Asks now. */
  check(): Promise<void>
  /** None that `forgetNode` has deleted, even before the cluster has told of it. */
  nodes(): readonly ClusterNode[]
  /** After nodes or health changed; the returned function unsubscribes. */
  onChange(listener: () => void): () => void
  /** Roles for joining machines, cluster-info: what kubeadm's phase `bootstrap-token` makes, but for auto-approval. May run again. */
  ensureBasics(): Promise<void>
  /** In the cluster, signed into cluster-info, and usable when it resolves. */
  mintToken(wish: TokenWish): Promise<BootstrapToken>
  /** Nothing when it is not there any more. */
  revokeToken(id: string): Promise<void>
  /** Revokes the tokens of ours that are not among `knownIds`; resolves with their ids. None where listing Secrets is refused (adopted clusters): they expire. */
  sweepTokens(knownIds: readonly string[]): Promise<readonly string[]>
  /** Node, lease and certificate requests of a node that comes back under its name. Pods bound to it go with the Node. */
  forgetNode(name: string): Promise<void>
  setCordon(name: string, isCordoned: boolean): Promise<void>
  /** Cordons, then evicts; respects disruption budgets until `timeoutMs`, then throws KitError `conflict` with what is left. */
  drain(name: string, timeoutMs: number): Promise<void>
  setMarks(name: string, marks: NodeMarks): Promise<void>
  /** Asked of every request that is not decided; called for each one once, and again after a restart. */
  judgeRequests(
    judge: (request: NodeCertificateRequest) => RequestVerdict,
    heard: (request: NodeCertificateRequest, verdict: RequestVerdict) => void,
  ): void
  /** Asks etcd itself, by way of the control planes' addresses. */
  etcdMembers(): Promise<readonly EtcdMember[]>
  /** Nothing when it is not there any more. Throws KitError `conflict` when what is left would have no quorum. */
  removeEtcdMember(id: string): Promise<void>
}

export interface NodeMarks {
  readonly labels: Readonly<Record<string, string>>
  /** `key=value:Effect`. */
  readonly taints: readonly string[]
}

export interface Snapshot {
  /** Hex. */
  readonly sha256: string
  readonly sizeBytes: number
  readonly clusterId: string
  readonly mac: Mac
  readonly takenMs: number
  readonly file: string
}

export interface SnapshotStore {
  /** Newest first. */
  list(): readonly Snapshot[]
  find(sha256: string): Snapshot | undefined
  /** Streams to the disk while hashing; complete or absent. Throws KitError `invalid-input` for another digest, `too-large`, `unavailable` for a full disk. */
  save(
    content: AsyncIterable<Uint8Array>,
    about: { readonly clusterId: string; readonly mac: Mac; readonly sha256: string },
  ): Promise<Snapshot>
  /** By count and age; never the newest one, nor `except`. */
  prune(except?: string): Promise<void>
}

/** What a machine says when it asks for its grant. */
export interface GrantRequest {
  readonly boot: string
  /** Of its image. */
  readonly kubernetes: string
  readonly node: 'none' | 'member'
  /** Of the node as it was joined or upgraded last. */
  readonly nodeVersion?: string
  /** Of the key that it has made for its kubelet: sha256 of its SubjectPublicKeyInfo, hex. Nobody joins without. */
  readonly kubeletKey?: string
  /** The cluster whose data it has. */
  readonly etcd?: string
  readonly address: Ipv4
}

export type GrantAnswer =
  | { readonly kind: 'grant'; readonly tar: Uint8Array }
  | { readonly kind: 'wait'; readonly reason: string }
  | { readonly kind: 'none' }

export interface NodeReport {
  readonly boot: string
  readonly state: 'working' | 'done' | 'failed'
  readonly action: NodeAction
  readonly step?: string
  readonly message?: string
}

/** Where machines come for their part in the cluster. Throws KitError `grant-used`, `stale-boot`, `wrong-machine`, `conflict`, `unavailable`. */
export interface NodeDesk {
  grant(mac: Mac, request: GrantRequest, by: Speaker): Promise<GrantAnswer>
  report(mac: Mac, report: NodeReport, by: Speaker): Promise<void>
  saveSnapshot(
    mac: Mac,
    boot: string,
    content: { readonly bytes: AsyncIterable<Uint8Array>; readonly sha256: string },
    by: Speaker,
  ): Promise<void>
  snapshotFor(mac: Mac, boot: string, by: Speaker): Promise<Snapshot>
  /** After a decision may be another; the returned function unsubscribes. */
  onChange(listener: () => void): () => void
}

export interface ClusterNodeView {
  readonly mac?: Mac
  readonly name: string
  readonly role: NodeRole
  readonly state: 'waiting' | 'joining' | 'ready' | 'not-ready' | 'failed' | 'gone'
  readonly version?: string
  readonly podCidr?: string
  readonly reason?: string
  readonly sinceMs?: number
}

export interface ClusterView {
  readonly state: 'none' | 'founding' | 'up' | 'unreachable'
  readonly id?: string
  readonly name?: string
  readonly endpoint?: string
  readonly adopted: boolean
  readonly founder?: Mac
  readonly version?: string
  readonly caSha256?: string
  readonly problem?: string
  readonly nodes: readonly ClusterNodeView[]
  readonly etcd?: { readonly members: readonly EtcdMember[] }
}

/** As people see it. `by` is who asks. All throw KitError with a fix. */
export interface Clusters {
  view(): Promise<ClusterView>
  kubeconfig(days: number, by: string): Promise<string>
  adopt(kubeconfig: string, by: string): Promise<ClusterView>
  forget(by: string): Promise<void>
  /** Drains, takes it out of etcd, deletes the Node, revokes; the machine's role goes as well. */
  removeMachine(mac: Mac, options: { readonly force: boolean; readonly by: string }): Promise<void>
  snapshots(): readonly Snapshot[]
  restoreFrom(sha256: string, by: string): Promise<ClusterRecord>
}
