// The cluster's keys before a real cluster: taken from it, and believed by its API server and its etcd.

import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import test from 'ava'

import { systemClock } from '#lib/clock.ts'
import { silentLog } from '#lib/log.ts'
import { commandOutput, runCommand } from '#lib/process.ts'
import { kubernetesBinaries } from '#testing/kube-binaries.ts'
import { startKubeControlPlane } from '#testing/kube-control-plane.ts'
import { enterOwnNetwork } from '#testing/own-network.ts'

import { createClusterKeys } from './cluster-keys.ts'

test('a cluster that exists believes what the server signs with the keys it took from there', async (t) => {
  await enterOwnNetwork()
  const plane = await startKubeControlPlane()
  t.teardown(() => plane.stop())
  const folder = await mkdtemp(join(tmpdir(), 'kit-cluster-access-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const keys = createClusterKeys({
    directory: join(folder, 'keys'),
    caDirectory: plane.pki.folder,
    events: { append: async () => undefined },
    clock: systemClock,
    log: silentLog,
  })
  const { certificate, publicKeySha256 } = await keys.authority()
  const command = await plane.kubeadm('token', 'create', '--print-join-command')
  t.true(command.includes(`--discovery-token-ca-cert-hash sha256:${publicKeySha256}`), command)

  const write = async (name: string, text: string) => {
    await writeFile(join(folder, name), text)
    return join(folder, name)
  }
  const ca = await write('ca.crt', certificate)
  const asked = async (subject: { name: string; organization?: string }) => {
    const client = await keys.issueClient({ ...subject, days: 1 })
    const { stdout, stderr } = await runCommand(join(await kubernetesBinaries(), 'kubectl'), [
      ...[
        '--kubeconfig',
        '/dev/null',
        '--server',
        `https://${plane.endpoint}`,
        '--certificate-authority',
        ca,
      ],
      ...['--client-certificate', await write('client.crt', client.certificate)],
      ...['--client-key', await write('client.key', client.key), 'auth', 'can-i', '*', '*'],
    ])
    return (stdout + stderr).trim()
  }
  t.is(await asked({ name: 'kateskit', organization: 'system:masters' }), 'yes')
  t.is(await asked({ name: 'åsa@example.org' }), 'no')

  const etcd = await keys.issueEtcdClient(1)
  const health = await commandOutput('etcdctl', [
    ...['--endpoints', `https://${plane.address}:2379`, '--cacert', await write('etcd.crt', etcd.authority)],
    ...['--cert', await write('etcd-client.crt', etcd.certificate)],
    ...['--key', await write('etcd-client.key', etcd.key), 'endpoint', 'health', '--write-out', 'json'],
  ])
  t.like(JSON.parse(health), [{ health: true }])
})
