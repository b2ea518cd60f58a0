// A cluster as a person makes it with plain kubeadm, on machines of ours that are to be no nodes.

import type { MachineView } from '#machine/ports.ts'

import type { ProfileFiles } from '../qemu-tests/profile-files.ts'
import type { ClusterLan } from './cluster-lan.ts'

/** Of machines that a person makes nodes of. */
export const BY_HAND_ROLE = 'by-hand'

/** The address of the machine with the control plane. */
const ENDPOINT = '10.77.0.50'

/** Container images come from the registry of this server here too: there is no internet. */
const MIRROR =
  '[host."https://10.77.0.1:8443"]\n  capabilities = ["pull", "resolve"]\n  ca = "/run/kit/identity/ca.pem"\n'

const NETWORK = {
  ...{ cniVersion: '0.4.0', name: 'by-hand', type: 'bridge', bridge: 'cni0' },
  ...{ isDefaultGateway: true, ipMasq: true },
  ipam: { type: 'host-local', ranges: [[{ subnet: '10.200.0.0/24' }]] },
}

const KUBEADM = [
  {
    apiVersion: 'kubeadm.k8s.io/v1beta2',
    kind: 'InitConfiguration',
    localAPIEndpoint: { advertiseAddress: ENDPOINT },
    nodeRegistration: { criSocket: '/run/containerd/containerd.sock' },
  },
  {
    apiVersion: 'kubeadm.k8s.io/v1beta2',
    kind: 'ClusterConfiguration',
    kubernetesVersion: 'v1.20.2',
    controlPlaneEndpoint: `${ENDPOINT}:6443`,
  },
  { apiVersion: 'kubelet.config.k8s.io/v1beta1', kind: 'KubeletConfiguration', cgroupDriver: 'systemd' },
  {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    conntrack: { maxPerCore: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
  },
]

export const BY_HAND_FILES: ProfileFiles = {
  [`roles/${BY_HAND_ROLE}/kubernetes`]: 'none\n',
  [`roles/${BY_HAND_ROLE}/root/etc/containerd/certs.d/_default/hosts.toml`]: MIRROR,
  [`roles/${BY_HAND_ROLE}/root/etc/cni/net.d/10-by-hand.conf`]: JSON.stringify(NETWORK),
  [`roles/${BY_HAND_ROLE}/root/etc/by-hand/kubeadm.yaml`]: KUBEADM.map((part) => JSON.stringify(part)).join(
    '\n---\n',
  ),
}

const INIT =
  'systemctl start containerd && kubeadm init --config /etc/by-hand/kubeadm.yaml --skip-phases=addon/coredns --ignore-preflight-errors=SystemVerification,ImagePull 2>&1'

/** Runs kubectl as the cluster's admin, on the machine with the control plane. */
export function adminOf(lan: ClusterLan, machine: MachineView): (command: string) => Promise<string> {
  return (command) => lan.onMachine(machine, `KUBECONFIG=/etc/kubernetes/admin.conf kubectl ${command}`)
}

/** Resolves with what kubeadm prints. Throws with it when it fails. */
export function initByHand(lan: ClusterLan, machine: MachineView): Promise<string> {
  return lan.onMachine(machine, INIT)
}

/** Resolves with what kubeadm prints. Throws with it when it fails. */
export async function joinByHand(
  lan: ClusterLan,
  { first, second }: { readonly first: MachineView; readonly second: MachineView },
): Promise<string> {
  const command = await lan.onMachine(first, 'kubeadm token create --print-join-command 2>/dev/null')
  const line = command.split('\n').findLast((each) => each.startsWith('kubeadm join'))
  if (line === undefined) throw new Error(`Cannot join by hand: kubeadm says ${command}`)
  return lan.onMachine(
    second,
    `systemctl start containerd && ${line.trim()} --ignore-preflight-errors=SystemVerification 2>&1`,
  )
}
