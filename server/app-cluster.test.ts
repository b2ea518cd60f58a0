// A grant through the whole server, as it is composed: to the machine it is for, over mTLS, once, and to nobody and nowhere else.

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtemp, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

import test from 'ava'

import { parseMac } from '#lib/mac.ts'
import type { AuditEntry } from '#machine/access-ports.ts'
import type { ClusterView } from '#machine/cluster-ports.ts'
import type { Event } from '#machine/event.ts'
import { codeOf, curl } from '#testing/http-fixture.ts'
import { type Lan, makeLan } from '#testing/lan.ts'
import { findSecrets } from '#testing/loot.ts'
import { enterOwnNetwork } from '#testing/own-network.ts'
import { api, bootOf, HTTP, makeHome, serve, startMachine, TLS } from '#testing/served-home.ts'
import { TestMachine } from '#testing/test-machine.ts'

const [ONE, TWO, OPEN, NONE] = ['01', '02', '03', '04'].map((end) => `02-4b-69-74-00-${end}`) as [
  string,
  string,
  string,
  string,
]

let lan: Lan

test.before(async () => {
  await enterOwnNetwork()
  lan = await makeLan('br0', '10.77.0.1/24')
})

test.after.always(() => lan.stop())

const PROFILES = {
  'profiles/roles/control-plane/root/etc/motd': 'public\n',
  'profiles/roles/worker/root/etc/motd': 'public\n',
  'profiles/roles/router/root/etc/motd': 'public\n',
  [`profiles/machines/${ONE}/role`]: 'control-plane\n',
  [`profiles/machines/${TWO}/role`]: 'worker\n',
  [`profiles/machines/${OPEN}/role`]: 'worker\n',
  [`profiles/machines/${OPEN}/identity`]: 'mac-only\n',
  [`profiles/machines/${NONE}/role`]: 'router\n',
}

const asking = (boot: string, end: number) => ({
  ...{ boot, kubernetes: 'v1.33.1', node: 'none', kubeletKey: 'ab'.repeat(32), address: `10.77.0.${end}` },
})

/** By path. */
async function unpack(home: string, text: unknown): Promise<ReadonlyMap<string, string>> {
  const folder = await mkdtemp(join(home, 'unpacked-'))
  execFileSync('tar', ['-xpf', '-', '-C', folder], { input: Buffer.from(`${text}`) })
  const paths = (await readdir(folder, { recursive: true, withFileTypes: true })).filter((each) =>
    each.isFile(),
  )
  const entries = paths.map(async ({ parentPath, name }) => {
    const file = join(parentPath, name)
    return [file.slice(folder.length + 1), await readFile(file, 'utf8')] as const
  })
  return new Map(await Promise.all(entries))
}

test.serial('a grant reaches the machine it is for, once, and nobody else', async (t) => {
  const home = await makeHome(t, PROFILES)
  const log: string[] = []
  const { stop } = await serve(t, home, log)
  t.like(await api<ClusterView>(home, '/cluster'), { state: 'none', adopted: false, nodes: [] })
  const { machine: one, boot } = await startMachine(home, ONE)
  const { machine: two, boot: boot2 } = await startMachine(home, TWO)
  const { machine: open, boot: boot3 } = await startMachine(home, OPEN)
  const { machine: none, boot: boot4 } = await startMachine(home, NONE)
  const [before, target] = await Promise.all([
    two.say('grant', asking(boot2, 51)),
    two.call(`target?boot=${boot2}`),
  ])
  t.deepEqual(
    [before.status, before.body],
    [202, 'wait there is no cluster yet: the first control plane makes it\n'],
  )
  t.regex(`${target.body}`, /^kubernetes worker\netcd-snapshot-every 3600\nregistry-mirror no$/m)
  t.is((await none.say('grant', asking(boot4, 53))).status, 204)

  const waiting = two.say('grant?wait=60', asking(boot2, 51))
  const granted = await one.say('grant', asking(boot, 50))
  t.deepEqual([granted.status, granted.headers.get('content-type')], [200, 'application/x-tar'])
  t.is(granted.headers.get('cache-control'), 'no-store')
  const files = await unpack(home, granted.body)
  t.regex(
    files.get('action') ?? '',
    /^action init\ncluster [0-9a-f]{16}\nname kit-74-00-01\nversion v1\.33\.1\nendpoint 10\.77\.0\.50:6443\n/,
  )
  t.true(
    ['kubeadm.yaml', 'cni.env', 'pki/ca.key', 'pki/etcd/ca.key', 'pki/sa.key'].every((path) =>
      files.has(path),
    ),
  )
  t.like(await api<ClusterView>(home, '/cluster'), { state: 'founding', founder: parseMac(ONE) })

  // Anybody else, any other way.
  const path = `/v1/machines/${ONE}/grant`
  const body = ['-o', '/dev/null', '-w', '%{http_code}', '-d', JSON.stringify(asking(boot, 50))]
  t.is(await curl(...body, `${HTTP}${path}`), '403')
  t.is(await curl(...body, '-k', `${TLS}${path}`), '403')
  t.is(await curl(...body, '--unix-socket', join(home, 'control'), `http://kit${path}`), '403')
  const stranger = new TestMachine({ ...two.options, mac: one.options.mac })
  stranger.certificate = two.certificate
  t.is(codeOf(await stranger.say('grant', asking(boot, 50))), 'wrong-machine')
  t.is(codeOf(await two.say('grant', asking(boot, 50))), 'not-found')
  t.is(codeOf(await one.say('grant', asking(await bootOf(ONE), 50))), 'stale-boot')
  t.is(codeOf(await open.say('grant', asking(boot3, 52))), 'identity-refused')
  t.is(codeOf(await one.say('grant', { ...asking(boot, 50), kubernetes: 'latest' })), 'invalid-input')
  t.is(codeOf(await two.call(`etcd-snapshot?boot=${boot2}`)), 'conflict')
  t.is(codeOf(await one.say('node', { boot, state: 'done', action: 'join' })), 'conflict')

  // Done, it is over for this boot.
  t.is((await one.say('node', { boot, state: 'working', action: 'init', step: 'kubeadm' })).status, 204)
  t.is((await one.say('node', { boot, state: 'done', action: 'init' })).status, 204)
  t.is(codeOf(await one.say('grant', asking(boot, 50))), 'grant-used')
  t.like(await api<ClusterView>(home, '/cluster'), { state: 'founding' })

  // etcd's snapshot comes in, and is there for an admin.
  const snapshot = Buffer.alloc(300_000, 'etcd')
  const digest = createHash('sha256').update(snapshot)
  const sha256 = digest.copy().digest('hex')
  const put = (headers: Record<string, string>) =>
    one.call(`etcd-snapshot?boot=${boot}`, { method: 'PUT', body: snapshot, headers })
  t.is(codeOf(await put({})), 'invalid-input')
  t.is(codeOf(await put({ digest: `sha-256=${'A'.repeat(43)}=` })), 'invalid-input')
  t.is((await put({ digest: `sha-256=${digest.digest('base64')}` })).status, 204)
  const { snapshots } = await api<{ snapshots: unknown[] }>(home, '/etcd/snapshots')
  t.like(snapshots, [{ sha256, sizeBytes: 300_000, mac: parseMac(ONE) }])
  t.like(await api(home, '/etcd/restore', '-d', JSON.stringify({ sha256 })), { restoreFrom: sha256 })

  const kubeconfig = await api<{ kubeconfig: string }>(home, '/cluster/kubeconfig', '-X', 'POST')
  const { users } = JSON.parse(kubeconfig.kubeconfig) as { users: { user: Record<string, string> }[] }
  const key = Buffer.from(users[0]?.user['client-key-data'] ?? '', 'base64').toString()
  t.regex(key, /PRIVATE KEY/)

  // Whoever waits goes on when the machine is taken out again.
  t.deepEqual(await api(home, `/machines/${ONE}?force=1`, '-X', 'DELETE'), { mac: parseMac(ONE) })
  t.is((await api<ClusterView>(home, '/cluster')).state, 'none')
  t.is(codeOf(await one.say('grant', asking(boot, 50))), 'identity-needed')
  t.is((await two.say('grant', asking(boot2, 51))).status, 202)
  t.is(
    (await api<{ values: { key: string; value: string }[] }>(home, `/machines/${ONE}/config`)).values.find(
      (each) => each.key === 'role',
    )?.value,
    '',
  )

  const { events } = await api<{ events: readonly Event[] }>(home, `/events?mac=${ONE}&limit=1000`)
  const kinds = events.map(({ kind }) => kind)
  t.is(kinds.filter((kind) => kind === 'node-granted').length, 1)
  t.deepEqual(
    events.filter(({ kind }) => kind === 'removal-step').map(({ data }) => [data['step'], data['outcome']]),
    [
      ...[
        ['drain', 'skipped'],
        ['etcd-member', 'skipped'],
        ['node', 'skipped'],
        ['token', 'skipped'],
      ],
      ...[
        ['role', 'done'],
        ['identity', 'done'],
        ['records', 'done'],
      ],
    ],
  )
  const { entries } = await api<{ entries: readonly AuditEntry[] }>(home, '/audit?limit=1000')
  const grants = entries.filter(({ action }) => action.endsWith('/grant'))
  t.deepEqual(
    grants.map(({ target: mac, outcome }) => `${mac.slice(-2)} ${outcome}`),
    [...['01 done', '02 not-found', '01 stale-boot', '03 identity-refused', '01 grant-used']],
  )
  await stop()
  t.is((await waiting).status, 202)

  const secrets = {
    caKey: files.get('pki/ca.key') ?? '',
    saKey: files.get('pki/sa.key') ?? '',
    kubeconfig: key,
  }
  const told = JSON.stringify([events, entries, log])
  for (const [name, secret] of Object.entries(secrets)) {
    const line = secret.split('\n')[2] ?? ''
    t.true(line.length > 50, name)
    t.deepEqual(findSecrets(Buffer.from(told), { [name]: line }), [])
  }
})
