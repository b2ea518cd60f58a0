// The objects by which machines with our bootstrap tokens may join, and by which this server may let them, in a cluster of others.

import type { KubernetesObject, RbacV1Subject, V1PolicyRule } from '@kubernetes/client-node'

import { BOOTSTRAP_GROUP, KUBELET_SIGNER } from '#machine/node-request.ts'

const RBAC = 'rbac.authorization.k8s.io'

export interface RoleObject extends KubernetesObject {
  readonly rules?: V1PolicyRule[]
  readonly roleRef?: { apiGroup: string; kind: string; name: string }
  readonly subjects?: RbacV1Subject[]
}

const group = (name: string): RbacV1Subject => ({ apiGroup: RBAC, kind: 'Group', name })
const BOOTSTRAPPERS = group(BOOTSTRAP_GROUP)

interface RoleNames {
  readonly name: string
  /** Undefined: of the whole cluster. */
  readonly namespace?: string
}

function role({ name, namespace }: RoleNames, rules: V1PolicyRule[]): RoleObject {
  const kind = namespace === undefined ? 'ClusterRole' : 'Role'
  const metadata = { name, ...(namespace === undefined ? {} : { namespace }) }
  return { apiVersion: `${RBAC}/v1`, kind, metadata, rules }
}

function binding({ name, namespace }: RoleNames, to: string, subject: RbacV1Subject): RoleObject {
  const isWhole = namespace === undefined
  return {
    ...{ apiVersion: `${RBAC}/v1`, kind: isWhole ? 'ClusterRoleBinding' : 'RoleBinding' },
    metadata: { name, ...(isWhole ? {} : { namespace }) },
    roleRef: { apiGroup: RBAC, kind: isWhole || to.startsWith('system:') ? 'ClusterRole' : 'Role', name: to },
    subjects: [subject],
  }
}

/** A role and its binding of the same name. */
function granted(names: RoleNames, rules: V1PolicyRule[], subject: RbacV1Subject): RoleObject[] {
  return [role(names, rules), binding(names, names.name, subject)]
}

/** `minors`: `1.20`, for the kubelets' configurations, whose names have the minor until Kubernetes 1.23. */
export function joiningRoles(minors: readonly string[]): readonly RoleObject[] {
  const kubelet = ['kubelet-config', ...minors.map((minor) => `kubelet-config-${minor}`)]
  const resourceNames = ['kubeadm-config', 'kube-proxy', ...kubelet]
  return [
    ...granted(
      { name: 'kateskit:joining', namespace: 'kube-system' },
      [{ apiGroups: [''], resources: ['configmaps'], resourceNames, verbs: ['get'] }],
      BOOTSTRAPPERS,
    ),
    // A joining kubeadm looks whether its name is taken.
    ...granted(
      { name: 'kateskit:joining' },
      [{ apiGroups: [''], resources: ['nodes'], verbs: ['get'] }],
      BOOTSTRAPPERS,
    ),
    binding({ name: 'kateskit:kubelet-bootstrap' }, 'system:node-bootstrapper', BOOTSTRAPPERS),
  ]
}

/** What kubeadm makes under these names as well: who is no member yet may read cluster-info, and nodes renew their own certificates. */
export function clusterRoles(): readonly RoleObject[] {
  return [
    ...granted(
      { name: 'kubeadm:bootstrap-signer-clusterinfo', namespace: 'kube-public' },
      [{ apiGroups: [''], resources: ['configmaps'], resourceNames: ['cluster-info'], verbs: ['get'] }],
      { apiGroup: RBAC, kind: 'User', name: 'system:anonymous' },
    ),
    binding(
      { name: 'kubeadm:node-autoapprove-certificate-rotation' },
      'system:certificates.k8s.io:certificatesigningrequests:selfnodeclient',
      group('system:nodes'),
    ),
  ]
}

/** What this server itself needs where it is not the administrator. */
export function serverRoles(namespace: string): readonly RoleObject[] {
  const name = 'kateskit:server'
  const account = { kind: 'ServiceAccount', name: 'kateskit', namespace }
  const core = (resources: string[], verbs: string[]) => ({ apiGroups: [''], resources, verbs })
  const certificates = { apiGroups: ['certificates.k8s.io'] }
  return [
    ...granted(
      { name },
      [
        core(['nodes'], ['get', 'list', 'watch', 'patch', 'delete']),
        core(['pods'], ['list', 'watch']),
        core(['pods/eviction'], ['create']),
        { apiGroups: ['policy'], resources: ['poddisruptionbudgets'], verbs: ['list', 'watch'] },
        {
          ...certificates,
          resources: ['certificatesigningrequests'],
          verbs: ['get', 'list', 'watch', 'delete'],
        },
        { ...certificates, resources: ['certificatesigningrequests/approval'], verbs: ['update'] },
        { ...certificates, resources: ['signers'], resourceNames: [KUBELET_SIGNER], verbs: ['approve'] },
      ],
      account,
    ),
    // Tokens are made and taken back by name; no Secret is ever read.
    ...granted({ name, namespace: 'kube-system' }, [core(['secrets'], ['create', 'delete'])], account),
    ...granted(
      { name, namespace: 'kube-public' },
      [{ ...core(['configmaps'], ['get', 'list', 'watch']), resourceNames: ['cluster-info'] }],
      account,
    ),
    ...granted(
      { name, namespace: 'kube-node-lease' },
      [{ apiGroups: ['coordination.k8s.io'], resources: ['leases'], verbs: ['delete'] }],
      account,
    ),
  ]
}
