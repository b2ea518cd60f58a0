// What a cluster needs before machines can join it: kubeadm's phase `bootstrap-token`, but for approving by itself.

import type { KubernetesObject } from '@kubernetes/client-node'

import { KitError } from '#lib/errors.ts'

import { asKitError, statusOf } from './api-errors.ts'
import type { Connection } from './connection.ts'
import { clusterRoles, joiningRoles } from './roles.ts'

/** Approves whoever has one of kubeadm's own tokens, for any node's name. */
const AUTO_APPROVAL = 'kubeadm:node-autoapprove-bootstrap'

/** Of what we write; what others have written into the same objects stays. */
const FIELD_MANAGER = 'kateskit'

/** In a cluster of others nothing is written: only looked whether an administrator has done it. */
export async function ensureBasics(connection: Connection): Promise<void> {
  try {
    if (connection.isAdopted) await checkAdopted(connection)
    else await writeBasics(connection)
  } catch (error) {
    throw asKitError('prepare the cluster for joining machines', error)
  }
}

async function writeBasics(connection: Connection): Promise<void> {
  const { gitVersion } = await connection.version.getCode()
  const objects: KubernetesObject[] = [
    clusterInfo(connection),
    ...clusterRoles(),
    ...joiningRoles(minorsAround(gitVersion)),
  ]
  // One after the other: a binding's role has to be there.
  for (const object of objects) await apply(connection, object)
  await connection.rbac.deleteClusterRoleBinding({ name: AUTO_APPROVAL }).catch((error: unknown) => {
    if (statusOf(error) !== 404) throw error
  })
}

async function apply({ objects }: Connection, object: KubernetesObject): Promise<void> {
  const args = [undefined, undefined, FIELD_MANAGER, true] as const
  // PatchStrategy.ServerSideApply, which is a value of a library that is loaded later.
  await objects.patch(object, ...args, 'application/apply-patch+yaml' as never)
}

/** Its own minor, and those that an upgrade leads to: the names of the kubelets' configurations. */
export function minorsAround(version: string): readonly string[] {
  const [, major, minor] = /^v?(\d+)\.(\d+)/.exec(version) ?? []
  if (major === undefined || minor === undefined) return []
  return [0, 1, 2].map((later) => `${major}.${Number(minor) + later}`)
}

/** What `kubeadm join` reads before it believes anybody: endpoint and CA, no secret. */
function clusterInfo({ target }: Connection): KubernetesObject & { data: Record<string, string> } {
  const cluster = {
    'certificate-authority-data': Buffer.from(target.authority).toString('base64'),
    server: target.server,
  }
  // JSON is YAML.
  const kubeconfig = {
    ...{ apiVersion: 'v1', kind: 'Config', preferences: {} },
    ...{ clusters: [{ name: '', cluster }], contexts: null, users: null, 'current-context': '' },
  }
  return {
    ...{ apiVersion: 'v1', kind: 'ConfigMap' },
    metadata: { name: 'cluster-info', namespace: 'kube-public' },
    data: { kubeconfig: `${JSON.stringify(kubeconfig)}\n` },
  }
}

async function checkAdopted({ core }: Connection): Promise<void> {
  const { data } = await core
    .readNamespacedConfigMap({ name: 'cluster-info', namespace: 'kube-public' })
    .catch((error: unknown) => {
      if (statusOf(error) !== 404) throw error
      return { data: undefined }
    })
  if (data?.['kubeconfig'] === undefined)
    throw new KitError(
      'conflict',
      'Cannot join machines to this cluster: it has no cluster-info in kube-public',
      {
        fix: 'run `kubeadm init phase bootstrap-token` on a control plane of it',
      },
    )
}
