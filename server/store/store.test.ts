// Tests of the store over real files: what is kept, what is refused, what survives.

import { execFileSync, spawn } from 'node:child_process'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import test from 'ava'
import Database from 'better-sqlite3'

import { systemClock } from '#lib/clock.ts'
import { parseIpv4 } from '#lib/ipv4.ts'
import { silentLog } from '#lib/log.ts'
import { parseMac } from '#lib/mac.ts'
import type { Lease } from '#machine/lease-ports.ts'
import type { Machine } from '#machine/machine.ts'
import type { Channel } from '#machine/release-ports.ts'
import { open, refusal, tempFile } from '#testing/store-fixture.ts'

import { openStore } from './store.ts'

const MAC = parseMac('52:54:00:12:34:56')
const OTHER = parseMac('52:54:00:00:00:01')
const IP = parseIpv4('10.77.0.20')
const LEASE: Lease = { ip: IP, clientKey: `mac:${MAC}`, mac: MAC, expiresMs: 5, kind: 'leased' }

test('openStore() makes an empty, private database when there is none', async (t) => {
  const file = tempFile(t)
  const store = await open(t, file)
  t.deepEqual(await store.machines.list(), [])
  t.is(await store.machines.find(MAC), undefined)
  t.is(await store.machines.findBoot('x'), undefined)
  t.deepEqual(await store.events.list({ limit: 10 }), [])
  t.deepEqual(await store.leases.list(), [])
  t.deepEqual(await store.tokens.list(), [])
  t.is(await store.tokens.verify('kit_nonsense'), undefined)
  t.is(statSync(join(file, '..')).mode & 0o777, 0o700)
  for (const suffix of ['', '-wal', '-shm', '-lock'])
    t.is(statSync(file + suffix).mode & 0o777, 0o600, suffix)
})

test('machines.save() keeps every field, and replaces when called again', async (t) => {
  const file = tempFile(t)
  const store = await open(t, file)
  const bare: Machine = {
    mac: MAC,
    state: 'discovered',
    stateSinceMs: 1,
    firstSeenMs: 1,
    lastSeenMs: 1,
    rebootReasons: [],
  }
  const full: Machine = {
    ...bare,
    state: 'running',
    lastCheckInMs: 9,
    uuid: 'a-b',
    firmware: 'uefi-x64',
    address: IP,
    bootId: 'b1',
    imageVersion: '1',
    bundleDigest: 'ff',
    rebootReasons: ['/etc/fstab', '"quoted"'],
    isInstalled: false,
    slot: 'b',
    slots: { a: { state: 'empty' }, b: { state: 'bad', image: '2', tries: 0, reason: 'kernel panic' } },
    checks: 'failed',
    reason: 'no "containerd"',
    drift: ['/etc/hosts'],
    disks: [{ name: 'vda', sizeBytes: 8e9, removable: false, transport: 'virtio', contents: [] }],
    powerwash: { requestedMs: 5, persistence: 'wipe' },
    powerwashes: { word: 'now', isWiping: true, toldBoot: 'b0', cancelledMs: 3 },
  }
  await store.machines.save(bare)
  await store.machines.save({ ...bare, mac: OTHER })
  t.deepEqual(await store.machines.list(), [{ ...bare, mac: OTHER }, bare])
  await store.machines.save(full)
  await store.close()
  const again = await open(t, file)
  t.deepEqual(await again.machines.find(MAC), full)
})

test('machines.saveBoot() keeps the newest 50 of a machine and the one it runs', async (t) => {
  const { machines } = await open(t)
  const boot = (n: number, mac = MAC) => ({ id: `b${n}`, mac, mintedMs: n, plan: 'live' as const })
  await machines.save({
    mac: MAC,
    state: 'running',
    stateSinceMs: 1,
    firstSeenMs: 1,
    lastSeenMs: 1,
    bootId: 'b0',
    rebootReasons: [],
  })
  await machines.saveBoot(boot(1000, OTHER))
  for (let n = 0; n < 60; n++) await machines.saveBoot(boot(n))
  t.deepEqual(await machines.findBoot('b0'), boot(0))
  t.is(await machines.findBoot('b9'), undefined)
  t.deepEqual(await machines.findBoot('b10'), boot(10))
  t.deepEqual(await machines.findBoot('b1000'), boot(1000, OTHER))
})

test('machines.saveBoot() keeps a new boot although the clock was set back behind 50 others', async (t) => {
  const { machines } = await open(t)
  const boot = (n: number) => ({ id: `b${n}`, mac: MAC, mintedMs: n, plan: 'hold' as const })
  for (let n = 100; n < 160; n++) await machines.saveBoot(boot(n))
  t.deepEqual(await machines.saveBoot(boot(1)), { ...boot(1), mintedMs: 160 })
  t.deepEqual(await machines.findBoot('b1'), { ...boot(1), mintedMs: 160 })
})

test('machines.remove() forgets a machine with its boots, and no other', async (t) => {
  const { machines } = await open(t)
  for (const [id, mac] of [
    ['b1', MAC],
    ['b2', OTHER],
  ] as const) {
    await machines.save({
      mac,
      state: 'discovered',
      stateSinceMs: 1,
      firstSeenMs: 1,
      lastSeenMs: 1,
      rebootReasons: [],
    })
    await machines.saveBoot({ id, mac, mintedMs: 1, plan: 'live' })
  }
  await machines.remove(MAC)
  t.deepEqual(
    (await machines.list()).map(({ mac }) => mac),
    [OTHER],
  )
  t.is(await machines.findBoot('b1'), undefined)
  t.is((await machines.findBoot('b2'))?.mac, OTHER)
})

test('leases.put() replaces what is known of an address, and remove() forgets it', async (t) => {
  const { leases } = await open(t)
  const second: Lease = { ...LEASE, ip: parseIpv4('10.77.0.3'), hostname: 'box', kind: 'declined' }
  await Promise.all([leases.put(LEASE), leases.put(second), leases.put({ ...LEASE, expiresMs: 9 })])
  t.deepEqual(await leases.list(), [second, { ...LEASE, expiresMs: 9 }])
  await leases.remove(IP)
  t.deepEqual(await leases.list(), [second])
})

test('leases.put() fails alone when a neighbour in the same commit is refused', async (t) => {
  const { leases } = await open(t)
  const bad = { ...LEASE, ip: parseIpv4('10.77.0.21'), expiresMs: 'soon' as unknown as number }
  const results = await Promise.allSettled([leases.put(LEASE), leases.put(bad)])
  t.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected'],
  )
  t.deepEqual(await leases.list(), [LEASE])
})

test('tokens.verify() knows a token after a restart, and refuses anything near it', async (t) => {
  const file = tempFile(t)
  const store = await open(t, file)
  const { info, secret } = await store.tokens.make({ name: 'laptop', role: 'admin' })
  const other = await store.tokens.make({ name: 'phone', role: 'viewer' })
  await store.close()
  const { tokens } = await open(t, file)
  t.regex(secret, /^kit_[0-9a-f]{12}_[\w-]{43}$/)
  t.deepEqual(await tokens.verify(secret), info)
  t.deepEqual((await tokens.list()).map(({ name }) => name).sort(), ['laptop', 'phone'])
  const swapped = secret.slice(0, 17) + other.secret.slice(17)
  const flipped = secret.slice(0, -2) + (secret.at(-2) === 'A' ? 'B' : 'A') + secret.at(-1)
  for (const wrong of [swapped, flipped, `${secret}x`, ` ${secret}`, '', 'kit__', secret.slice(0, -1)]) {
    t.is(await tokens.verify(wrong), undefined, wrong)
  }
  for (const name of [file, `${file}-wal`]) {
    if (existsSync(name)) t.false(readFileSync(name, 'latin1').includes(secret.slice(17)), 'never on disk')
  }
})

const CHANNEL: Channel = { name: 'beta', version: '2', previous: ['1'], isPaused: true, changedMs: 7 }

test('releases keep channels, pins, quarantines, failures and locks over a restart', async (t) => {
  const file = tempFile(t)
  const { releases, close } = await open(t, file)
  const failure = { version: '2', mac: MAC, reason: 'kernel panic', atMs: 8 }
  const lock = { channel: 'beta', holder: MAC, version: '2', sinceMs: 9 }
  await Promise.all([
    releases.saveChannel({ ...CHANNEL, isPaused: false }),
    releases.saveChannel(CHANNEL),
    releases.saveChannel({ name: 'nightly', previous: [], isPaused: false, changedMs: 1 }),
    releases.savePin(MAC, '1'),
    releases.savePin(OTHER, '1'),
    releases.savePin(OTHER, undefined),
    releases.saveQuarantine({ version: '2', mac: MAC, reason: 'kernel panic', sinceMs: 8 }),
    releases.saveFailure({ ...failure, reason: 'another' }),
    releases.saveFailure(failure),
    releases.saveFailure({ ...failure, mac: OTHER, atMs: 9 }),
    releases.saveFailure({ ...failure, version: '3', atMs: 10 }),
    releases.saveLock(lock),
    releases.saveLock({ channel: 'beta', holder: 'fleetlock:x', sinceMs: 10 }),
    releases.saveLock({ channel: 'beta', holder: 'fleetlock:y', sinceMs: 11 }),
    releases.removeLock('fleetlock:y'),
  ])
  await close()
  const again = (await open(t, file)).releases
  t.deepEqual(await again.channels(), [
    CHANNEL,
    { name: 'nightly', previous: [], isPaused: false, changedMs: 1 },
  ])
  t.deepEqual(await again.pins(), new Map([[MAC, '1']]))
  t.deepEqual(await again.quarantines(), [{ version: '2', mac: MAC, reason: 'kernel panic', sinceMs: 8 }])
  t.deepEqual(
    (await again.failures()).map(({ version, mac, reason }) => [version, mac, reason]),
    [
      ['2', MAC, 'kernel panic'],
      ['2', OTHER, 'kernel panic'],
      ['3', MAC, 'kernel panic'],
    ],
  )
  t.deepEqual(await again.locks(), [lock, { channel: 'beta', holder: 'fleetlock:x', sinceMs: 10 }])
  await again.lift('2')
  t.deepEqual(await again.quarantines(), [])
  t.deepEqual(
    (await again.failures()).map(({ version }) => version),
    ['3'],
  )
})

test('openStore() takes over a database of the first version, with what it has', async (t) => {
  const file = tempFile(t)
  await (await open(t, file)).close()
  // What the first version left: its tables, and a machine in one of them.
  const old = new Database(file)
  const first = ['machines', 'boots', 'events', 'leases', 'tokens', 'kit_migrations', 'sqlite_sequence']
  const tables = old.prepare("select name from sqlite_master where type = 'table'").all([])
  for (const { name } of tables as { name: string }[]) {
    if (!first.includes(name)) old.exec(`drop table ${name}`)
  }
  const added = [
    'is_installed',
    'slot',
    'slots',
    'checks',
    'reason',
    'drift',
    'disks',
    'powerwash',
    'powerwashes',
  ]
  for (const column of added) old.exec(`alter table machines drop column ${column}`)
  for (const column of ['expires_ms', 'last_used_ms', 'revoked_ms'])
    old.exec(`alter table tokens drop column ${column}`)
  old.exec('alter table boots drop column key_sha256')
  old.exec("insert into tokens values ('0123456789ab', 'old', 'admin', 1, 'ff')")
  old.exec('delete from kit_migrations where position > 0')
  old.exec(
    `insert into machines values ('${MAC}', 'running', 1, 2, 3, 4, null, 'bios', null, 'b1', '1', 'ff', '[]')`,
  )
  old.close()
  const { machines, releases, tokens } = await open(t, file)
  t.deepEqual(await tokens.list(), [{ id: '0123456789ab', name: 'old', role: 'admin', createdMs: 1 }])
  const machine: Machine = {
    ...{ mac: MAC, state: 'running', stateSinceMs: 1, firstSeenMs: 2, lastSeenMs: 3, lastCheckInMs: 4 },
    ...{ firmware: 'bios', bootId: 'b1', imageVersion: '1', bundleDigest: 'ff', rebootReasons: [] },
  }
  t.deepEqual(await machines.list(), [machine])
  await machines.save({ ...machine, isInstalled: true })
  t.true((await machines.find(MAC))?.isInstalled)
  t.deepEqual(await releases.channels(), [])
})

test('openStore() refuses a second server, and not a reader', async (t) => {
  const file = tempFile(t)
  await open(t, file)
  const second = await refusal(t, () => openStore({ file, clock: systemClock, log: silentLog }))
  t.is(second.code, 'conflict')
  t.regex(second.message, /another KatesKit server/)
  const reader = new Database(file)
  t.deepEqual(reader.prepare('select * from leases').all([]), [])
  reader.close()
})

const BROKEN = [
  { title: 'is no database', bytes: (good: Buffer) => good.fill('no database '), code: 'internal' },
  { title: 'has a damaged page', bytes: (good: Buffer) => good.fill(0xff, 4096, 8192), code: 'internal' },
  { title: 'is cut short', bytes: (good: Buffer) => good.subarray(0, 5000), code: 'internal' },
]
for (const { title, bytes, code } of BROKEN) {
  test(`openStore() refuses a file that ${title}, and leaves it as it is`, async (t) => {
    const file = tempFile(t)
    const store = await open(t, file)
    for (let n = 0; n < 50; n++)
      await store.events.append({ kind: 'server-started', message: 'x'.repeat(500) })
    await store.close()
    const broken = bytes(readFileSync(file))
    writeFileSync(file, broken)
    const error = await refusal(t, () => openStore({ file, clock: systemClock, log: silentLog }))
    t.is(error.code, code as typeof error.code)
    t.true(error.message.includes(file))
    t.truthy(error.fix)
    t.deepEqual(readFileSync(file), broken)
  })
}

test('openStore() refuses a database of a newer version, and of another program', async (t) => {
  const newer = tempFile(t)
  await (await open(t, newer)).close()
  const database = new Database(newer)
  database.exec("insert into kit_migrations values (7, 'from-the-future', 0)")
  database.close()
  const foreign = join(newer, '..', 'foreign.db')
  const other = new Database(foreign)
  other.exec('create table songs (title text)')
  other.close()
  for (const [file, said] of [
    [newer, /newer version.*from-the-future/],
    [foreign, /another program/],
  ] as const) {
    const error = await refusal(t, () => openStore({ file, clock: systemClock, log: silentLog }))
    t.is(error.code, 'conflict')
    t.regex(error.message, said)
  }
})

test('a write after close() is refused, and those before it are on disk', async (t) => {
  const file = tempFile(t)
  const store = await open(t, file)
  const before = store.leases.put(LEASE)
  await store.close()
  await before
  const late = await refusal(t, () => store.leases.put(LEASE))
  t.is(late.code, 'unavailable')
  const again = await open(t, file)
  t.deepEqual(await again.leases.list(), [LEASE])
})

test('every lease whose put() resolved is there after kill -9', async (t) => {
  const file = tempFile(t)
  const writer = spawn(process.execPath, ['server/testing/store-writer.ts', file], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => writer.kill('SIGKILL'))
  let printed = ''
  for await (const chunk of writer.stdout) {
    printed += chunk
    if (printed.length > 20_000) writer.kill('SIGKILL')
  }
  const promised = printed.split('\n').slice(0, -1)
  const stored = new Set<string>((await (await open(t, file)).leases.list()).map(({ ip }) => ip))
  t.true(promised.length > 1000)
  t.deepEqual(
    promised.filter((ip) => !stored.has(ip)),
    [],
  )
})

test('a full disk is an error that says so, and what was written before stays', (t) => {
  // A file system of 1 MiB in a mount namespace of its own, which ends with the process.
  const script = `
    import { openStore } from '#store/store.ts'
    const store = await openStore({ file: '/mnt/state/kit.db', clock: { nowMs: () => 1 }, log: console })
    let good = 0
    try {
      for (;;) { await store.events.append({ kind: 'server-started', message: 'x'.repeat(9000) }); good++ }
    } catch (error) {
      const kept = (await store.events.list({ limit: 1000 })).length
      console.log(error.name, error.code, error.fix, kept === good)
    }`
  const mount = 'mount -t tmpfs -o size=1m none /mnt && exec "$@"'
  const command = ['--mount', 'sh', '-c', mount, 'sh', process.execPath, '--input-type=module', '-e', script]
  try {
    execFileSync('unshare', ['--mount', 'true'], { stdio: 'ignore' })
  } catch {
    t.log('skipped: needs the right to make a mount namespace')
    t.pass()
    return
  }
  const said = execFileSync('unshare', command, { encoding: 'utf8' })
  t.is(said.trim(), 'KitError no-space make room on its disk true')
})
