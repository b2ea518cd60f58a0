// A cluster that somebody has made with plain kubeadm: this server joins a worker to it, with no more rights than it was given.

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import test from 'ava'

import type { MachineView } from '#machine/ports.ts'

import { personAt } from '../qemu-tests/kateskit.ts'
import { machineFiles } from '../qemu-tests/profile-files.ts'
import { scratchFolder } from '../qemu-tests/test-lan.ts'
import { adminOf, BY_HAND_FILES, BY_HAND_ROLE, initByHand } from './by-hand.ts'
import { type ClusterLan, startClusterLan } from './cluster-lan.ts'
import { FIRST, SECOND } from './container-lan.ts'

test('a worker joins a cluster that was made by hand and adopted', async (t) => {
  const lan = await startClusterLan(t, {
    files: {
      ...BY_HAND_FILES,
      'roles/worker/node-labels': 'kit-test/made=here\n',
      ...machineFiles(FIRST.mac, { role: `${BY_HAND_ROLE}\n`, ip: '10.77.0.50\n', hostname: 'by-hand\n' }),
      ...machineFiles(SECOND.mac, { role: 'worker\n', ip: '10.77.0.51\n', hostname: 'second\n' }),
    },
  })
  await Promise.all([lan.powerOn(FIRST), lan.powerOn(SECOND)])
  const somebody = await lan.untilRunning(FIRST.mac)
  t.regex(await initByHand(lan, somebody), /initialized successfully/)
  const kubectl = adminOf(lan, somebody)
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
    [`roles/${BY_HAND_ROLE}/root/etc/by-hand/role.yaml`]: manifest,
    [`roles/${BY_HAND_ROLE}/root/etc/by-hand/kubeconfig.sh`]: `${script}\n`,
  })
  await lan.waitFor('bundle-applied', FIRST.mac)
  const admin = 'export KUBECONFIG=/etc/kubernetes/admin.conf; cd /root'
  await lan.onMachine(somebody, `${admin}; kubectl apply -f /etc/by-hand/role.yaml`)
  const text = await lan.onMachine(
    somebody,
    `${admin}; until kubectl -n kube-system get secret kateskit-token -o jsonpath='{.data.token}' | grep -q .; do sleep 1; done; sh /etc/by-hand/kubeconfig.sh && cat kateskit.kubeconfig`,
  )
  const file = join(folder, 'kateskit.kubeconfig')
  await writeFile(file, text, { mode: 0o600 })
  return file
}
