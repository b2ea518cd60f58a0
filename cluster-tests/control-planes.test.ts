// A second control plane: it joins, and the cluster is whole again after the first one was made new.

import test from 'ava'

import { machineFiles } from '../qemu-tests/profile-files.ts'
import { type ClusterLan, startClusterLan } from './cluster-lan.ts'
import { FIRST, SECOND } from './container-lan.ts'

test('a second control plane joins, and survives that the first one is made new', async (t) => {
  const lan = await startClusterLan(t, {
    files: {
      'roles/control-plane/node-labels': 'kit-test/made=here\n',
      ...machineFiles(FIRST.mac, { role: 'control-plane\n', ip: '10.77.0.50\n', hostname: 'first\n' }),
      ...machineFiles(SECOND.mac, { role: 'control-plane\n', ip: '10.77.0.51\n', hostname: 'second\n' }),
    },
  })
  const first = await lan.powerOn(FIRST)
  const up = await lan.waitFor('node-ready', FIRST.mac)
  t.is(up.data['action'], 'init')
  await lan.powerOn(SECOND)
  const joined = await lan.waitFor('node-ready', SECOND.mac)
  t.is(joined.data['action'], 'join-control-plane')
  await lan.getKubeconfig()
  await lan.kubectl('create', 'configmap', 'kept', '--from-literal=word=before')
  const members = await membersOf(lan)
  t.deepEqual(members.map(({ name }) => name).sort(), ['first', 'second'])

  const later = await lan.fromNow()
  await lan.fleet.powerwash(FIRST.mac)
  await first.reset()
  const back = await later.waitFor('node-ready', FIRST.mac)
  t.is(back.data['action'], 'init', 'as the member that it was, with the data that it kept')
  t.is(await lan.kubectl('get', 'configmap', 'kept', '-o', 'jsonpath={.data.word}'), 'before')
  t.deepEqual((await membersOf(lan)).map(({ id }) => id).sort(), members.map(({ id }) => id).sort())
  const nodes = await lan.kubectl('get', 'nodes', '--no-headers', '-o', 'custom-columns=N:.metadata.name')
  t.is(nodes, 'first\nsecond\n')
})

/** Those of etcd, as the server sees them. */
async function membersOf(lan: ClusterLan) {
  const { etcd } = await lan.cluster()
  return etcd?.members.filter(({ isHealthy }) => isHealthy) ?? []
}
