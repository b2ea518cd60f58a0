// One cluster's life on two machines: made from nothing, each machine made new, etcd's data lost. What people put into it stays.

import test from 'ava'

import type { Mac } from '#lib/mac.ts'

import { machineFiles } from '../qemu-tests/profile-files.ts'
import { type ClusterLan, startClusterLan } from './cluster-lan.ts'
import { FIRST, SECOND } from './container-lan.ts'
import { WEB_IMAGE } from './web-image.ts'

const ADDRESS = { first: '10.77.0.50', second: '10.77.0.51' }
const WEB_PORT = 30_080

const MANIFEST = `
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
data: {index.html: "written before anything was made new"}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {word: "kept as well"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      automountServiceAccountToken: false
      containers:
      - name: web
        image: ${WEB_IMAGE}
        command: [/bin/httpd, -f, -p, "80", -h, /www]
        volumeMounts: [{name: page, mountPath: /www}]
      volumes: [{name: page, configMap: {name: page}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, nodePort: ${WEB_PORT}}]
`

test('two machines become a cluster, and what is in it outlives each of them being made new, and the loss of its data', async (t) => {
  const lan = await startClusterLan(t, {
    files: {
      'roles/control-plane/node-labels': 'kit-test/made=here\n',
      'roles/worker/node-labels': 'kit-test/made=there\n',
      ...machineFiles(FIRST.mac, { role: 'control-plane\n', ip: `${ADDRESS.first}\n`, hostname: 'first\n' }),
      ...machineFiles(SECOND.mac, { role: 'worker\n', ip: `${ADDRESS.second}\n`, hostname: 'second\n' }),
    },
  })
  const began = Date.now()
  const tell = (what: string) =>
    t.log(`${what}: ${Math.round((Date.now() - began) / 1000)} s after the start`)
  const machines = { first: await lan.powerOn(FIRST), second: await lan.powerOn(SECOND) }
  for (const { mac } of [FIRST, SECOND]) await lan.waitFor('node-ready', mac)
  tell('both nodes are Ready')

  await lan.getKubeconfig()
  t.is(await nodesOf(lan), 'first Ready\nsecond Ready')
  t.like(await lan.cluster(), {
    state: 'up',
    adopted: false,
    founder: FIRST.mac,
    version: lan.kubernetes.version,
  })
  await lan.apply(MANIFEST)
  await isAsBefore(t, lan)
  tell('a pod answers')

  await makeNew(lan, machines.second, SECOND.mac)
  await isAsBefore(t, lan)
  tell('the worker is back, made new')

  const back = await makeNew(lan, machines.first, FIRST.mac)
  t.is(back.data['action'], 'init', 'over the data that it kept')
  await isAsBefore(t, lan)
  tell('the control plane is back, made new')

  const beforeSnapshot = await lan.fromNow()
  const first = await lan.network.server.client.machine(FIRST.mac)
  await lan.onMachine(first, 'systemctl start kit-etcd-snapshot.service')
  await beforeSnapshot.waitFor('etcd-snapshot-kept', FIRST.mac)
  const restored = await makeNew(lan, machines.first, FIRST.mac, { persistence: true })
  t.is(restored.data['action'], 'restore')
  await isAsBefore(t, lan)
  tell('the control plane is back without what it had kept')

  t.is(
    await lan.kubectl(
      '-n',
      'kube-system',
      'get',
      'secrets',
      '--field-selector',
      'type=bootstrap.kubernetes.io/token',
      '-o',
      'name',
    ),
    '',
  )
  t.is(await nodesOf(lan), 'first Ready\nsecond Ready')
})

/** A powerwash that a person asked for; resolves with the event of its node being Ready again. */
async function makeNew(
  lan: ClusterLan,
  machine: { reset(): Promise<void> },
  mac: Mac,
  options = { persistence: false },
) {
  const later = await lan.fromNow()
  await lan.fleet.powerwash(mac, options)
  await machine.reset()
  return later.waitFor('node-ready', mac)
}

interface Asserts {
  is(actual: unknown, expected: unknown): void
}

async function isAsBefore(t: Asserts, lan: ClusterLan): Promise<void> {
  const data = (kind: string, name: string, path: string) =>
    lan.kubectl('get', kind, name, '-o', `jsonpath={.data.${path}}`)
  t.is(await data('configmap', 'page', 'index\\.html'), 'written before anything was made new')
  t.is(Buffer.from(await data('secret', 'password', 'word'), 'base64').toString(), 'kept as well')
  await lan.kubectl('wait', '--for=condition=Available', 'deployment/web', '--timeout=600s')
  t.is(await lan.get(`http://${ADDRESS.second}:${WEB_PORT}/`), 'written before anything was made new')
}

async function nodesOf(lan: ClusterLan): Promise<string> {
  const list = await lan.kubectl('get', 'nodes', '--no-headers')
  return list.trimEnd().replaceAll(/^(\S+) +(\S+).*$/gm, '$1 $2')
}
