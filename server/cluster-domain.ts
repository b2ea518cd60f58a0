// The part of the domain that knows the cluster and its nodes, put together.

import { randomBytes } from 'node:crypto'

import type { Clock } from '#lib/clock.ts'
import { createKeyedQueue } from '#lib/keyed-queue.ts'
import type { Log } from '#lib/log.ts'
import type { Mac } from '#lib/mac.ts'
import type { Service } from '#lib/service.ts'
import type { AuditLog } from '#machine/access-ports.ts'
import { ClusterDesk } from '#machine/cluster-desk.ts'
import { type AdoptedAccess, ClusterLink } from '#machine/cluster-link.ts'
import type {
  Cluster,
  ClusterKeys,
  ClusterStore,
  NodeDesk,
  NodeRecord,
  SnapshotStore,
} from '#machine/cluster-ports.ts'
import type { Identities, IdentityDesk } from '#machine/identity-ports.ts'
import type { NodeOrder } from '#machine/kubeadm-config.ts'
import { NodeBook } from '#machine/node-book.ts'
import { ClusterNodeDesk } from '#machine/node-desk.ts'
import { NodeFactFinder } from '#machine/node-facts.ts'
import { NodeGrants } from '#machine/node-grants.ts'
import { ClusterNodeGuard, type NodeGuard } from '#machine/node-guard.ts'
import { NodeRemoval } from '#machine/node-removal.ts'
import { NodeWatch } from '#machine/node-watch.ts'
import type { EventLog, ImageStore, MachineStore, Profiles } from '#machine/ports.ts'
import type { Roster } from '#machine/roster.ts'

/** What the domain asks of a cluster, and of the server's settings about it. */
export interface ClusterParts {
  readonly cluster: Cluster
  readonly clusterKeys: ClusterKeys
  readonly snapshots: SnapshotStore
  readonly adopted: AdoptedAccess
  /** Throws KitError `invalid-input` for a kubeconfig that cannot be used. */
  readonly readKubeconfig: (text: string) => Promise<{ readonly endpoint: string }>
  /** The setting cluster/name. */
  readonly clusterName: string
  /** The setting cluster/api-endpoint, with its port. */
  readonly endpoint: string | undefined
  /** The tar of a grant. */
  readonly packGrant: (order: NodeOrder) => Promise<Uint8Array>
  readonly podCidrOf: (node: NodeRecord) => string | undefined
}

export interface ClusterDomainParts extends ClusterParts {
  readonly store: ClusterStore
  readonly machines: Pick<MachineStore, 'findBoot'>
  readonly roster: Roster
  readonly profiles: Profiles
  readonly images: Pick<ImageStore, 'find'>
  readonly identities: Pick<Identities, 'find' | 'forget'>
  readonly identityDesk: Pick<IdentityDesk, 'identityOfKey' | 'primaryOf'>
  readonly events: EventLog
  readonly audit: Pick<AuditLog, 'append'>
  readonly clock: Clock
  readonly log: Log
  /** What rollouts may do is another than before. */
  readonly onGuardChange: () => void
  /** Lets go of what else is remembered of a machine: its update lock. */
  readonly forgetMachine: (mac: Mac) => Promise<void>
}

export interface ClusterDomain {
  readonly nodeDesk: NodeDesk
  readonly clusters: ClusterDesk
  readonly guard: NodeGuard
  /** After the cluster's keys and snapshots, before those who are asked from outside. */
  readonly clusterServices: readonly Service[]
  /** Labels, taints and parts in the cluster may be others than before. */
  clusterProfilesChanged(): void
  /** Called once, before anything else. */
  loadCluster(): Promise<void>
}

export function createClusterDomain(parts: ClusterDomainParts): ClusterDomain {
  const { cluster, snapshots, roster, profiles, events, audit, clock, log } = parts
  const book = new NodeBook(parts.store)
  const queue = createKeyedQueue<'cluster'>()
  const newClusterId = () => randomBytes(8).toString('hex')
  const onChange = () => desk.announceChange()
  const watch = new NodeWatch({
    ...{ book, cluster, profiles, roster, events, audit, queue, clock, log },
    onChange: () => {
      onChange()
      parts.onGuardChange()
    },
  })
  const facts = new NodeFactFinder({ book, cluster, snapshots, clock, heardMs: (mac) => watch.heardMs(mac) })
  const link = new ClusterLink({
    ...{ book, cluster, keys: parts.clusterKeys, adopted: parts.adopted, events, clock, log },
    onUp: () => watch.changed(),
  })
  const grants = new NodeGrants({
    ...{ book, cluster, clusterName: parts.clusterName, endpoint: parts.endpoint, newClusterId },
    ...{ pack: parts.packGrant, events, audit, clock, log },
  })
  const desk = new ClusterNodeDesk({
    ...{ book, cluster, link, facts, grants, watch, snapshots, profiles, events, audit, queue, clock },
    ...{ machines: parts.machines, roster },
    identityOfKey: (key) => parts.identityDesk.identityOfKey(key),
    primaryOf: (mac) => parts.identityDesk.primaryOf(mac),
  })
  const removal = new NodeRemoval({
    ...{ book, cluster, profiles, identities: parts.identities, roster, events, queue, clock },
    async forget(mac) {
      desk.forget(mac)
      await parts.forgetMachine(mac)
    },
  })
  const clusters = new ClusterDesk({
    ...{ book, cluster, keys: parts.clusterKeys, link, adopted: parts.adopted, removal, profiles, events },
    ...{ queue, clock, newClusterId, snapshotStore: snapshots, clusterName: parts.clusterName, onChange },
    ...{ readKubeconfig: parts.readKubeconfig, podCidrOf: parts.podCidrOf, waiting: () => desk.waiting() },
  })
  const guard = new ClusterNodeGuard({
    ...{ book, cluster, facts, roster, events, clock, log, onChange: parts.onGuardChange },
    onReturn: () => void watch.settle(),
    kubernetesOf: (version) => parts.images.find(version)?.kubernetes,
  })
  return {
    ...{ nodeDesk: desk, clusters, guard, clusterServices: [watch, link] },
    clusterProfilesChanged: () => watch.changed(),
    loadCluster: () => book.load(),
  }
}
