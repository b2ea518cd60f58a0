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
  return [headOf(namespace), ...documents].join('---\n')
}

/** The indented lines are a script for the administrator's own kubectl. */
function headOf(namespace: string): string {
  const secret = `kubectl -n ${namespace} get secret kateskit-token -o`
  const server = "kubectl config view --minify -o jsonpath='{.clusters[0].cluster.server}'"
  return `# What KatesKit may do in a cluster that it has not made: make and take back bootstrap tokens, approve the certificates
# of machines that join with them, label, drain and delete Nodes. It can read no Secret.
# Once it is applied, this makes the file for \`kateskit cluster adopt kateskit.kubeconfig\`:
#   umask 077
#   cat >kateskit.kubeconfig <<END
#   {"apiVersion": "v1", "kind": "Config", "current-context": "kateskit",
#    "contexts": [{"name": "kateskit", "context": {"cluster": "cluster", "user": "kateskit"}}],
#    "clusters": [{"name": "cluster", "cluster": {
#      "server": "$(${server})",
#      "certificate-authority-data": "$(${secret} 'jsonpath={.data.ca\\.crt}')"}}],
#    "users": [{"name": "kateskit", "user": {"token": "$(${secret} 'jsonpath={.data.token}' | base64 -d)"}}]}
#   END
`
}

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
