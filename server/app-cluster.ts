// What the server has for a cluster, out of its settings: keys, snapshots of etcd, the registry, and what grants are packed of.

import { createHash, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import { createAdoptedAccess } from '#certs/adopted-access.ts'
import { createClusterKeys } from '#certs/cluster-keys.ts'
import { createCluster } from '#cluster/cluster.ts'
import { readKubeconfig } from '#cluster/kubeconfig.ts'
import { describeError, KitError } from '#lib/errors.ts'
import type { Service } from '#lib/service.ts'
import type { ClusterKeys, SnapshotStore } from '#machine/cluster-ports.ts'
import { API_SERVER_PORT, type ClusterSettings, type NodeOrder } from '#machine/kubeadm-config.ts'
import { type KubeadmPatch, parseKubeadmPatch } from '#machine/kubeadm-patch.ts'
import { grantFiles, needsPki, podCidrOf } from '#machine/node-files.ts'
import type { EventLog } from '#machine/ports.ts'
import type { ContainerRegistry } from '#machine/registry-ports.ts'
import { packFiles } from '#overlays/pack-files.ts'
import { createRegistry } from '#registry/registry.ts'
import { createSnapshotStore } from '#snapshots/snapshot-store.ts'

import type { AppOptions } from './app-parts.ts'
import type { ClusterParts } from './cluster-domain.ts'
import type { Config } from './config.ts'

export interface ClusterAdapters extends ClusterParts {
  readonly clusterKeys: ClusterKeys & Service
  readonly snapshots: SnapshotStore & Service
  readonly registry: ContainerRegistry & Service
}

export function createClusterAdapters(
  { config, clock, log }: AppOptions,
  events: Pick<EventLog, 'append'>,
): ClusterAdapters {
  const { values } = config
  const passphraseFile = values['cluster/passphrase-file']
  const caDirectory = values['cluster/ca-directory']
  const importFrom = values['registry/import']
  const directory = values['keys/directory']
  const clusterKeys = createClusterKeys({
    ...{ directory, events, clock, log },
    ...(passphraseFile !== undefined && { passphraseFile }),
    ...(caDirectory !== undefined && { caDirectory }),
  })
  const snapshots = createSnapshotStore({
    directory: join(values['state/directory'], 'etcd-snapshots'),
    ...{ keep: values['cluster/snapshots-keep'], days: values['cluster/snapshots-days'], clock, log },
  })
  const registry = createRegistry({
    ...{ directory: values['registry/directory'], clock, log },
    ...(importFrom !== undefined && { importFrom }),
  })
  const adopted = createAdoptedAccess({ directory, ...(passphraseFile !== undefined && { passphraseFile }) })
  return {
    ...{ clusterKeys, snapshots, registry, adopted },
    cluster: createCluster({ clock, log, issueEtcdClient: (days) => clusterKeys.issueEtcdClient(days) }),
    readKubeconfig: readAdopted,
    clusterName: values['cluster/name'],
    endpoint: withPort(values['cluster/api-endpoint']),
    packGrant: (order) => packGrant(order, config, { clusterKeys, snapshots, registry, adopted }),
    podCidrOf: ({ index }) => findPodCidr(config, index),
  }
}

type Goods = Pick<ClusterAdapters, 'clusterKeys' | 'snapshots' | 'registry' | 'adopted'>

async function packGrant(order: NodeOrder, config: Config, goods: Goods): Promise<Uint8Array> {
  const { clusterKeys, snapshots, registry, adopted } = goods
  const settings = await clusterSettings(config, registry)
  const authority = order.cluster.isAdopted
    ? await readAdopted((await adopted.read()) ?? '')
    : await clusterKeys.authority()
  const snapshot = order.snapshot === undefined ? undefined : snapshots.find(order.snapshot)
  const files = grantFiles(order, settings, {
    authority,
    pkiFiles: needsPki(order) ? await clusterKeys.controlPlaneFiles() : new Map(),
    ...(snapshot !== undefined && { snapshotSizeBytes: snapshot.sizeBytes }),
  })
  return packFiles(files)
}

/** The patch is read anew for each grant: what is wrong with it is told to whoever asks for one. */
async function clusterSettings(
  { values }: Config,
  registry: Pick<ContainerRegistry, 'repositories'>,
): Promise<ClusterSettings> {
  const kubeVip = values['cluster/kube-vip']
  const patch = await readPatch(values['cluster/kubeadm-patch'])
  // Debian's source of Kubernetes has no CoreDNS in it.
  const hasCoreDns =
    values['kubernetes/source'] !== 'debian-source' ||
    registry.repositories().some((name) => name.split('/').at(-1) === 'coredns')
  return {
    podSubnet: values['cluster/pod-subnet'],
    serviceSubnet: values['cluster/service-subnet'],
    dnsDomain: values['cluster/dns-domain'],
    runtime: values['kubernetes/cri'],
    hasCoreDns,
    ...(kubeVip !== undefined && { kubeVip }),
    ...(patch !== undefined && { patch }),
  }
}

async function readPatch(file: string | undefined): Promise<KubeadmPatch | undefined> {
  if (file === undefined) return undefined
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new KitError('conflict', `Cannot read cluster/kubeadm-patch ${file}: ${describeError(cause)}`, {
      cause,
    })
  })
  return parseKubeadmPatch(text)
}

/** `publicKeySha256` is that of its CA: what joining machines compare. */
async function readAdopted(text: string) {
  const { loadYaml } = await import('@kubernetes/client-node')
  const { server, authority } = readKubeconfig(text, loadYaml)
  const { hostname, port } = new URL(server)
  const publicKey = new X509Certificate(authority).publicKey.export({ type: 'spki', format: 'der' })
  return {
    endpoint: `${hostname}:${port || 443}`,
    certificate: authority,
    publicKeySha256: createHash('sha256').update(publicKey).digest('hex'),
  }
}

function withPort(endpoint: string | undefined): string | undefined {
  return endpoint === undefined || endpoint.includes(':') ? endpoint : `${endpoint}:${API_SERVER_PORT}`
}

function findPodCidr({ values }: Config, index: number): string | undefined {
  try {
    return podCidrOf(values['cluster/pod-subnet'], index)
  } catch (error) {
    if (error instanceof KitError) return undefined
    throw error
  }
}
