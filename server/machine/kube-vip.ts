// The static pod that moves the API's address between control planes: kube-vip by ARP, with an election in the cluster. Pure.

import { KitError } from '#lib/errors.ts'
import { findIpv4 } from '#lib/ipv4.ts'

import { type NodeOrder, splitEndpoint } from './kubeadm-config.ts'
import { isAtLeast, parseKubernetesVersion } from './kubernetes-version.ts'

/** Seconds, as Kubernetes' own components have them: kube-vip's 5, 3 and 1 are too short for an etcd on a slow disk. */
const LEASE = { vip_leaseduration: '15', vip_renewdeadline: '10', vip_retryperiod: '2' }

/** JSON. Throws KitError `invalid-input` when the endpoint is no address. */
export function kubeVipManifest(order: NodeOrder, image: string): string {
  const { host, port } = splitEndpoint(order.cluster.endpoint)
  if (findIpv4(host) === undefined)
    throw new KitError('invalid-input', `Cannot run kube-vip for ${host}: it is no IPv4 address`, {
      fix: 'give cluster/api-endpoint a free address of the machines’ network, or empty cluster/kube-vip',
    })
  const config = '/etc/kubernetes/admin.conf'
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'kube-vip', namespace: 'kube-system', labels: { component: 'kube-vip' } },
    spec: {
      hostNetwork: true,
      priorityClassName: 'system-node-critical',
      // It asks the API server of its own machine, by a name in every API server's certificate.
      hostAliases: [{ ip: '127.0.0.1', hostnames: ['kubernetes'] }],
      containers: [
        {
          name: 'kube-vip',
          image,
          imagePullPolicy: 'IfNotPresent',
          args: ['manager'],
          env: [...settingsOf(host, port), nodeName()],
          securityContext: { capabilities: { drop: ['ALL'], add: ['NET_ADMIN', 'NET_RAW'] } },
          volumeMounts: [{ name: 'kubeconfig', mountPath: config, readOnly: true }],
        },
      ],
      // A plain path that is not there yet would become a folder, and kubeadm could not write its file.
      volumes: [{ name: 'kubeconfig', hostPath: { path: kubeconfigOf(order), type: 'File' } }],
    },
  }
  return `${JSON.stringify(pod, undefined, 2)}\n`
}

/** `vip_cidr` is what versions before 0.9 call `vip_subnet`; each ignores the other's. Without an interface it takes the default route's. */
function settingsOf(host: string, port: number): readonly object[] {
  const settings = {
    ...{ vip_arp: 'true', address: host, port: String(port), vip_cidr: '32', vip_subnet: '32' },
    ...{ cp_enable: 'true', cp_namespace: 'kube-system', svc_enable: 'false', vip_leaderelection: 'true' },
    ...LEASE,
  }
  return Object.entries(settings).map(([name, value]) => ({ name, value }))
}

function nodeName(): object {
  return { name: 'vip_nodename', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } }
}

/**
 * From 1.29 on admin.conf may do nothing until kubeadm has bound its group, which it does by way of the very address that
 * kube-vip is to bring up; super-admin.conf may from the beginning, and is there where kubeadm init ran.
 */
function kubeconfigOf({ action, asked }: NodeOrder): string {
  const isMade = action === 'init' || action === 'restore'
  const isSuper = isMade && isAtLeast(parseKubernetesVersion(asked.kubernetes), 29)
  return `/etc/kubernetes/${isSuper ? 'super-admin' : 'admin'}.conf`
}
