// What an administrator of a cluster applies so that this server may join machines to it, and nothing else.

import type { KubernetesObject } from '@kubernetes/client-node'

import { minorsAround } from './basics.ts'
import { joiningRoles, serverRoles } from './roles.ts'

/** The oldest Kubernetes with what this server speaks; from 1.24 on the name of the kubelets' configuration has no minor. */
const WITH_MINOR_IN_NAME = ['v1.19', 'v1.22']

/** YAML for `kubectl apply -f -`: the account `kateskit` in `namespace`, which has to be there, and its rights. */
export async function adoptionManifest(namespace: string): Promise<string> {
  const { dumpYaml } = await import('@kubernetes/client-node')
  const objects: readonly KubernetesObject[] = [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'kateskit', namespace } },
    accountToken(namespace),
    ...serverRoles(namespace),
    ...joiningRoles(WITH_MINOR_IN_NAME.flatMap(minorsAround)),
  ]
  const documents = objects.map((object) => dumpYaml(object))
  return [`${HEAD}\n`, ...documents].join('---\n')
}

const HEAD = `# What this server may do in a cluster that it has not made: make and take back bootstrap tokens, approve the
# certificates of machines that join with them, drain and delete Nodes. It can read no Secret.`

/** Since Kubernetes 1.24 an account has no lasting token unless it is asked for. */
function accountToken(namespace: string): KubernetesObject & { type: string } {
  return {
    ...{ apiVersion: 'v1', kind: 'Secret', type: 'kubernetes.io/service-account-token' },
    metadata: {
      ...{ name: 'kateskit-token', namespace },
      annotations: { 'kubernetes.io/service-account.name': 'kateskit' },
    },
  }
}
