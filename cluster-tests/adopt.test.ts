// A cluster that somebody has made with plain kubeadm: this server joins a worker to it, with no more rights than it was given.

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import test from 'ava'

import type { MachineView } from '#machine/ports.ts'

import { personAt } from '../qemu-tests/kateskit.ts'
import { machineFiles } from '../qemu-tests/profile-files.ts'
import { scratchFolder } from '../qemu-tests/test-lan.ts'
import { type ClusterLan, startClusterLan } from './cluster-lan.ts'
import { FIRST, SECOND } from './container-lan.ts'

/** Container images come from the registry of this server here too: there is no internet. */
const MIRROR =
  '[host."https://10.77.0.1:8443"]\n  capabilities = ["pull", "resolve"]\n  ca = "/run/kit/identity/ca.pem"\n'

const NETWORK = {
  ...{
    cniVersion: '0.4.0',
    name: 'somebody',
    type: 'bridge',
    bridge: 'cni0',
    isDefaultGateway: true,
    ipMasq: true,
  },
  ipam: { type: 'host-local', ranges: [[{ subnet: '10.200.0.0/24' }]] },
}

const KUBEADM = [
  {
    apiVersion: 'kubeadm.k8s.io/v1beta2',
    kind: 'InitConfiguration',
    localAPIEndpoint: { advertiseAddress: '10.77.0.50' },
    nodeRegistration: { criSocket: '/run/containerd/containerd.sock' },
  },
  {
    apiVersion: 'kubeadm.k8s.io/v1beta2',
    kind: 'ClusterConfiguration',
    kubernetesVersion: 'v1.20.2',
    controlPlaneEndpoint: '10.77.0.50:6443',
  },
  { apiVersion: 'kubelet.config.k8s.io/v1beta1', kind: 'KubeletConfiguration', cgroupDriver: 'systemd' },
  {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    conntrack: { maxPerCore: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
  },
]

const BY_HAND =
  'systemctl start containerd && kubeadm init --config /etc/somebody/kubeadm.yaml --skip-phases=addon/coredns --ignore-preflight-errors=SystemVerification,ImagePull 2>&1'

test('a worker joins a cluster that was made by hand and adopted', async (t) => {
  const lan = await startClusterLan(t, {
    files: {
      'roles/somebody/kubernetes': 'none\n',
      'roles/somebody/root/etc/containerd/certs.d/_default/hosts.toml': MIRROR,
      'roles/somebody/root/etc/cni/net.d/10-somebody.conf': JSON.stringify(NETWORK),
      'roles/somebody/root/etc/somebody/kubeadm.yaml': KUBEADM.map((part) => JSON.stringify(part)).join(
        '\n---\n',
      ),
      'roles/worker/node-labels': 'kit-test/made=here\n',
      ...machineFiles(FIRST.mac, { role: 'somebody\n', ip: '10.77.0.50\n', hostname: 'by-hand\n' }),
      ...machineFiles(SECOND.mac, { role: 'worker\n', ip: '10.77.0.51\n', hostname: 'second\n' }),
    },
  })
  await Promise.all([lan.powerOn(FIRST), lan.powerOn(SECOND)])
  const somebody = await lan.untilRunning(FIRST.mac)
  t.regex(await lan.onMachine(somebody, BY_HAND), /initialized successfully/)
  const kubectl = (command: string) =>
    lan.onMachine(somebody, `KUBECONFIG=/etc/kubernetes/admin.conf kubectl ${command}`)
  await kubectl('-n kube-system wait --for=condition=Ready node/by-hand --timeout=300s')

  const person = personAt(lan)
  const kubeconfig = await makeKubeconfig({
    lan,
    somebody,
    manifest: await person.does('cluster', 'role'),
    folder: await scratchFolder(t),
  })
  t.regex(await person.does('cluster', 'adopt', kubeconfig), /10\.77\.0\.50:6443/)
  await lan.waitFor('node-ready', SECOND.mac)
  t.like(await lan.cluster(), { state: 'up', adopted: true, endpoint: '10.77.0.50:6443' })
  t.is(await kubectl("get node second -o jsonpath='{.metadata.labels.kit-test/made}'"), 'here')
  const tokens = '-n kube-system get secrets --field-selector type=bootstrap.kubernetes.io/token -o name'
  // kubeadm's own is there for a day.
  t.is((await kubectl(tokens)).split('\n').length, 1)
  t.is(
    await kubectl(
      'auth can-i get secrets -n kube-system --as system:serviceaccount:kube-system:kateskit || :',
    ),
    'no',
  )
})

interface Making {
  readonly lan: ClusterLan
  readonly somebody: MachineView
  readonly manifest: string
  readonly folder: string
}

/** As the manifest's own head says, word by word. Resolves with the file. */
async function makeKubeconfig({ lan, somebody, manifest, folder }: Making): Promise<string> {
  const script = manifest
    .slice(0, manifest.indexOf('---'))
    .split('\n')
    .flatMap((line) => (line.startsWith('#   ') ? line.slice(4) : []))
    .join('\n')
  await lan.writeProfile({
    'roles/somebody/root/etc/somebody/role.yaml': manifest,
    'roles/somebody/root/etc/somebody/kubeconfig.sh': `${script}\n`,
  })
  await lan.waitFor('bundle-applied', FIRST.mac)
  const admin = 'export KUBECONFIG=/etc/kubernetes/admin.conf; cd /root'
  await lan.onMachine(somebody, `${admin}; kubectl apply -f /etc/somebody/role.yaml`)
  const text = await lan.onMachine(
    somebody,
    `${admin}; until kubectl -n kube-system get secret kateskit-token -o jsonpath='{.data.token}' | grep -q .; do sleep 1; done; sh /etc/somebody/kubeconfig.sh && cat kateskit.kubeconfig`,
  )
  const file = join(folder, 'kateskit.kubeconfig')
  await writeFile(file, text, { mode: 0o600 })
  return file
}
