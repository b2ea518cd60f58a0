// The commands about the cluster, against a real HTTP service, and what they print.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import test, { type ExecutionContext } from 'ava'

import { parseMac } from '#lib/mac.ts'
import type { ClusterView, Snapshot } from '#machine/cluster-ports.ts'
import type { MachineView } from '#machine/ports.ts'
import { cli, typing } from '#testing/cli-fixture.ts'
import { FakeClusters } from '#testing/fake-cluster.ts'
import { startHttpWithToken } from '#testing/http-fixture.ts'

import { renderCluster, renderSnapshots } from './render-cluster.ts'
import { renderMachine } from './render-machine.ts'
import { renderMachines } from './render-machines.ts'

const MAC = parseMac('52:54:00:12:34:56')
const VIEW: ClusterView = {
  ...{ state: 'up', id: '0123456789abcdef', name: 'kateskit', endpoint: '10.0.0.1:6443', adopted: false },
  ...{ founder: MAC, version: 'v1.33.1', caSha256: 'ca'.repeat(32) },
  nodes: [
    {
      ...{ mac: MAC, name: 'one', role: 'control-plane', state: 'ready', version: 'v1.33.1' },
      ...{ podCidr: '10.244.0.0/24', sinceMs: 0 },
    },
    { name: 'two', role: 'worker', state: 'waiting', reason: 'no cluster yet', sinceMs: 0 },
  ],
  etcd: { members: [{ id: 'e1', name: 'one', peerUrls: [], isHealthy: true, isLeader: true }] },
}
const SNAPSHOT: Snapshot = {
  ...{ sha256: 'ab'.repeat(32), sizeBytes: 2_000_000, clusterId: '0123456789abcdef', mac: MAC },
  ...{ takenMs: 0, file: '/snapshots/ab' },
}
const MACHINE: MachineView = {
  ...{ mac: MAC, state: 'running', stateSinceMs: 0, firstSeenMs: 0, lastSeenMs: 0, rebootReasons: [] },
  ...{ role: 'worker', channel: 'stable', hostname: 'one' },
  node: { role: 'worker', state: 'not-ready', version: 'v1.33.1', reason: 'no network plugin' },
}

async function withServer(t: ExecutionContext, input = '') {
  const clusters = new FakeClusters()
  const http = await startHttpWithToken(t, { clusters })
  http.views.machines.push(MACHINE)
  const stdin = input === '' ? {} : { stdin: typing(input) }
  return { clusters, ...cli({ KATESKIT_HTTP_CONTROL_SOCKET: http.socketFile }, stdin) }
}

test('renderCluster() shows what it is, its nodes with what they wait for, and etcd', (t) => {
  t.deepEqual(renderCluster(VIEW, 5_000), [
    'Cluster   kateskit (0123456789abcdef)',
    'State     up',
    'API       https://10.0.0.1:6443',
    'Version   v1.33.1',
    `CA        sha256:${'ca'.repeat(32)}`,
    '',
    'NODE  MAC                PART           STATE    VERSION  PODS           SINCE',
    `one   ${MAC}  control-plane  ready    v1.33.1  10.244.0.0/24  5 s ago`,
    'two   -                  worker         waiting  -        -              5 s ago',
    '    no cluster yet',
    '',
    'ETCD  ID  HEALTH   LEADER',
    'one   e1  healthy  yes',
  ])
  t.regex(renderCluster({ state: 'none', adopted: false, nodes: [] }, 0).join(), /no cluster yet/)
  const { etcd: _etcd, ...rest } = VIEW
  const away = { ...rest, state: 'unreachable', problem: 'it is away', adopted: true, nodes: [] } as const
  t.regex(renderCluster(away, 0).join('\n'), /, adopted\nState {5}unreachable: it is away\n/)
  t.regex(
    renderCluster({ ...away, state: 'founding' }, 0).join('\n'),
    /is making it; kateskit cluster forget/,
  )
})

test('renderSnapshots() shows the newest first, and says when there is none', (t) => {
  t.deepEqual(renderSnapshots([], 0), ['No snapshot of etcd is kept yet.'])
  t.regex(
    renderSnapshots([SNAPSHOT], 5_000)[1] ?? '',
    /^5 s ago {2}52:54:00:12:34:56 {2}2 MB {2}0123456789abcdef {2}abab/,
  )
})

test('machines are shown with what they are in the cluster, where there is one', (t) => {
  const [header = '', line = '', note = ''] = renderMachines([MACHINE], 0)
  t.regex(header, /STATE +NODE +TIER/)
  t.regex(line, /running +not-ready/)
  t.is(note.trim(), 'cluster: no network plugin')
  t.regex(renderMachine(MACHINE, 0).join('\n'), /\nNode +worker, not-ready, v1\.33\.1\n +no network plugin\n/)
  const { node: _node, ...bare } = MACHINE
  t.false((renderMachines([bare], 0)[0] ?? '').includes('NODE'))
})

test('cluster, etcd and remove do what they say, and pass on who asks', async (t) => {
  const { clusters, run } = await withServer(t)
  clusters.current = VIEW
  clusters.kept = [SNAPSHOT]
  t.regex((await run('cluster')).out, /^Cluster {3}kateskit/)
  t.like(JSON.parse((await run('cluster', 'status', '--json')).out), { state: 'up' })
  t.is((await run('cluster', 'kubeconfig', '--days', '7')).out, '{"kind": "Config"}\n')
  t.regex((await run('cluster', 'kubeconfig', '--days', '0')).err, /from 1 to 365/)
  t.regex(
    (await run('cluster', 'role', '--namespace', 'kit')).out,
    /kind: ServiceAccount[\s\S]*namespace: kit/,
  )
  const folder = mkdtempSync(join(tmpdir(), 'kit-cli-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  writeFileSync(join(folder, 'kubeconfig'), 'apiVersion: v1')
  t.is((await run('cluster', 'adopt', join(folder, 'kubeconfig'))).code, 0)
  t.regex((await run('cluster', 'adopt', join(folder, 'none'))).err, /Cannot read/)
  t.regex((await run('cluster', 'forget')).err, /add --yes/)
  t.is((await run('cluster', 'forget', '--yes')).code, 0)
  t.regex((await run('etcd', 'snapshots')).out, /^TAKEN/)
  t.is((await run('etcd', 'restore', 'abab')).code, 0)
  t.regex((await run('etcd', 'restore', 'ff')).err, /there is none/)
  t.regex((await run('remove', 'one')).err, /add --yes/)
  t.is((await run('remove', 'one', '--yes')).code, 0)
  t.is((await run('remove', MAC, '--yes', '--force')).out, `${MAC} is taken out\n`)
  const by = 'control socket'
  t.deepEqual(clusters.calls, [
    ['kubeconfig', 7, by],
    ['adopt', 'apiVersion: v1', by],
    ['forget', by],
    ['restoreFrom', 'ab'.repeat(32), by],
    ['removeMachine', MAC, { force: false, by }],
    ['removeMachine', MAC, { force: true, by }],
  ])
})

test('forget and remove ask first, at a terminal', async (t) => {
  const { clusters, run } = await withServer(t, 'n\n')
  clusters.current = VIEW
  const { out } = await run('cluster', 'forget')
  t.regex(out, /forgets the cluster kateskit[\s\S]*Nothing was done/)
  t.deepEqual(clusters.calls, [])
})
