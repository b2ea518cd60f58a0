// The whole server as it is composed, in a network of its own, spoken to as machines and people speak to it over HTTP.

import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { promisify } from 'node:util'

import test, { type ExecutionContext } from 'ava'

import { type Clock, systemClock } from '#lib/clock.ts'
import { silentLog } from '#lib/log.ts'
import { parseMac } from '#lib/mac.ts'
import type { Event } from '#machine/event.ts'
import type { MachineView } from '#machine/ports.ts'
import { curl } from '#testing/http-fixture.ts'
import { type Lan, makeLan } from '#testing/lan.ts'
import { enterOwnNetwork } from '#testing/own-network.ts'
import { machineKeys, TestMachine } from '#testing/test-machine.ts'

import { type App, createApp } from './app.ts'
import { loadConfig } from './config.ts'

const BASE = 'http://10.77.0.1:8080'
const TLS_BASE = 'https://10.77.0.1:8443'
const KNOWN = '02-4b-69-74-00-01'
const UNKNOWN = '02-4b-69-74-00-99'

const TREE = {
  'profiles/defaults/boot': 'live\n',
  'profiles/defaults/identity': 'mac-only\n',
  'profiles/defaults/root/etc/motd': 'one\n',
  'profiles/roles/worker/kernel-arguments': 'quiet\n',
  [`profiles/machines/${KNOWN}/role`]: 'worker\n',
  [`profiles/machines/${KNOWN}/hostname`]: 'node-1\n',
}

let lan: Lan

test.before(async () => {
  await enterOwnNetwork()
  lan = await makeLan('br0', '10.77.0.1/24')
})

test.after.always(() => lan.stop())

type Files = Readonly<Record<string, string>>

async function writeFiles(home: string, files: Files): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(home, name)), { recursive: true })
    await writeFile(join(home, name), content)
  }
}

const sha256 = (bytes: string) => createHash('sha256').update(bytes).digest('hex')

/** An image whose files hold their own names, and a profile tree. */
async function makeHome(t: ExecutionContext, tree: Files = TREE): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), 'kit-app-'))
  t.teardown(() => rm(home, { recursive: true }))
  const names = ['vmlinuz', 'initrd.img', 'root.squashfs', 'ipxe/snponly.efi']
  const files = names.map((name) => ({ name, sizeBytes: name.length, sha256: sha256(name) }))
  const manifest = {
    version: '0.1.0',
    arch: 'amd64',
    recipeDigest: '0'.repeat(64),
    sourceDateEpoch: 1,
    files,
  }
  const contents = [...names, 'manifest.json'].map(
    (name) => [`images/0.1.0/${name}`, name === 'manifest.json' ? JSON.stringify(manifest) : name] as const,
  )
  await writeFiles(home, Object.fromEntries(contents))
  await writeFiles(home, tree)
  return home
}

function makeApp(home: string, clock: Clock = systemClock): Promise<App> {
  const overrides = {
    'dhcp/interface': 'br0',
    'images/import': 'images',
    'http/control-socket': 'control',
  }
  return createApp({
    config: loadConfig({ cwd: home, env: {}, overrides }),
    version: '1.2.3',
    clock,
    log: silentLog,
  })
}

/** A started server, stopped with the test when it has not been before. */
async function serve(t: ExecutionContext, home: string): Promise<App> {
  const app = await makeApp(home)
  await app.start()
  let stopping: Promise<void> | undefined
  const stop = () => {
    stopping ??= app.stop()
    return stopping
  }
  t.teardown(stop)
  return { ...app, stop }
}

const script = (mac: string) => curl(`${BASE}/boot/${mac}.ipxe?platform=efi&buildarch=x86_64`)

/** What a script's kernel line names. */
function argumentsOf(text: string): ReadonlyMap<string, string> {
  const [, line = ''] = /^kernel (.*)$/m.exec(text) ?? []
  return new Map(line.split(' ').map((word) => [word.split('=')[0] ?? '', word.replace(/^[^=]*=/, '')]))
}

/** A machine with its certificate. */
async function proved(home: string, mac: string): Promise<TestMachine> {
  const { pem: ca, fingerprint: caFingerprint } = (await api(home, '/ca')) as Record<
    'pem' | 'fingerprint',
    string
  >
  const words = { tlsUrl: TLS_BASE, ca, caFingerprint, mac: parseMac(mac) }
  const machine = new TestMachine({ ...words, keys: await machineKeys() })
  await machine.prove()
  return machine
}

const target = async (machine: TestMachine, query: string) =>
  `${(await machine.call(`target?${query}`)).body}`

/** What a target says of one thing. */
const lineOf = (text: string, name: string) => new RegExp(`^${name} (.*)$`, 'm').exec(text)?.[1] ?? ''

/** Resolves, with the answer to come, once the server has the question: what follows wakes the one who waits. */
async function awaitTarget(
  machine: TestMachine,
  known: string,
): Promise<{ readonly answer: Promise<string> }> {
  const answer = target(machine, `known=${known}&wait=15`)
  await curl(`${BASE}/healthz`)
  return { answer }
}

async function download(path: string): Promise<{ digest: string; names: string }> {
  const command = `curl -sS --fail ${BASE}${path} | tee >(tar -t | tr '\\n' ' ' >&2) | sha256sum`
  const { stdout, stderr } = await promisify(execFile)('bash', ['-c', command])
  return { digest: stdout.slice(0, 64), names: stderr.trim() }
}

/** As an admin, over the control socket. */
async function api(home: string, path: string, ...args: readonly string[]): Promise<unknown> {
  return JSON.parse(await curl(...args, '--unix-socket', join(home, 'control'), `http://kit/api/v1${path}`))
}

const machineOf = (home: string, mac: string) => api(home, `/machines/${mac}`) as Promise<MachineView>

/** How many events of each kind there are. */
async function kindsOf(home: string): Promise<Readonly<Record<string, number>>> {
  const { events } = (await api(home, '/events?limit=1000')) as { events: readonly Event[] }
  const byKind = Map.groupBy(events, ({ kind }) => kind)
  return Object.fromEntries([...byKind].map(([kind, { length }]) => [kind, length]))
}

/** Sockets, watches and processes of this thread, a turn after they were asked to close. (chokidar and bonjour-service let their timers run out.) */
async function openHandles(): Promise<readonly string[]> {
  await setImmediate()
  return process.getActiveResourcesInfo().filter((name) => /Wrap$/.test(name))
}

test.serial(
  'stop() leaves nothing open, waits for a start under way, and frees what createApp() could not use',
  async (t) => {
    const home = await makeHome(t)
    const clock = {
      ...systemClock,
      monotonicMs: () => {
        throw new Error('a clock that breaks')
      },
    }
    await t.throwsAsync(makeApp(home, clock), { message: 'a clock that breaks' })
    const app = await makeApp(home)
    const starting = app.start()
    await app.stop()
    await starting
    t.deepEqual(await openHandles(), [])

    const unused = await makeApp(home)
    await unused.stop()
    const again = await makeApp(home)
    await again.start()
    t.regex(await script(KNOWN), /^kernel /m)
    await again.stop()
    t.deepEqual(await openHandles(), [])
  },
)

test.serial('a machine boots, runs, takes over a changed bundle, and is known after a restart', async (t) => {
  const home = await makeHome(t)
  const app = await serve(t, home)
  const given = argumentsOf(await script(KNOWN))
  t.is(given.get('kit.url'), BASE)
  t.is(given.get('kit.mac'), KNOWN)
  t.is(given.get('systemd.hostname'), 'node-1')
  t.true(given.has('quiet'))
  const image = await curl(`${BASE}/images/${given.get('kit.image')}/root.squashfs`)
  t.is(sha256(image), given.get('kit.root-sha256') ?? '')
  t.is(image.length, Number(given.get('kit.root-size')))
  const bundle = given.get('kit.bundle') ?? ''
  t.deepEqual(await download(`/bundles/${bundle}.tar`), { digest: bundle, names: 'etc etc/motd' })

  const boot = given.get('kit.boot')
  const machine = await proved(home, KNOWN)
  const say = async (what: string, body: unknown) => `${(await machine.say(what, body)).status}`
  t.is(await say('check-in', { boot, phase: 'starting' }), '204')
  t.is(await say('events', { boot, step: '40-image', status: 'done', seconds: 1 }), '204')
  t.is(await say('check-in', { boot, phase: 'running', image: '0.1.0', bundle }), '204')
  t.like(await machineOf(home, KNOWN), {
    state: 'running',
    role: 'worker',
    bundleDigest: bundle,
    wantedBundle: bundle,
  })

  const now = await target(machine, `boot=${boot}`)
  t.deepEqual([lineOf(now, 'image'), lineOf(now, 'bundle'), lineOf(now, 'good')], ['0.1.0', bundle, 'yes'])
  const waiting = await awaitTarget(machine, `${lineOf(now, 'tag')}&boot=${boot}`)
  await writeFiles(home, { 'profiles/roles/worker/root/etc/role': 'worker\n' })
  const changed = lineOf(await waiting.answer, 'bundle')
  t.not(changed, bundle)
  t.deepEqual(await download(`/bundles/${changed}.tar`), { digest: changed, names: 'etc etc/motd etc/role' })
  t.is((await download(`/bundles/${bundle}.tar`)).digest, bundle, 'the one before is still there')
  t.is(await say('check-in', { boot, phase: 'running', bundle: changed }), '204')

  await app.stop()
  await serve(t, home)
  t.like(await machineOf(home, KNOWN), { state: 'running', bundleDigest: changed, wantedBundle: changed })
  t.is(await say('check-in', { boot, phase: 'running', bundle: changed }), '204')
  t.is(lineOf(await target(machine, `known=${lineOf(now, 'tag')}&wait=15`), 'bundle'), changed)
  t.deepEqual(await kindsOf(home), {
    'server-started': 2,
    'image-imported': 1,
    'channel-promoted': 1,
    'machine-discovered': 1,
    'identity-issued': 1,
    'boot-script-sent': 1,
    'checked-in': 2,
    'step-done': 1,
    'profile-changed': 1,
    'bundle-changed': 1,
    'bundle-applied': 1,
    'server-stopped': 1,
  })
})

test.serial('an unknown machine goes on to its disk until a person gives it a role', async (t) => {
  const home = await makeHome(t)
  await serve(t, home)
  t.regex(await script(UNKNOWN), /going on to the local disk/)
  t.like(await machineOf(home, UNKNOWN), { state: 'discovered', firmware: 'uefi-x64' })
  const waiting = await awaitTarget(await proved(home, UNKNOWN), '')
  await api(home, `/machines/${UNKNOWN}/role`, '-X', 'PUT', '-d', '{"role": "worker"}')
  t.is(lineOf(await waiting.answer, 'image'), '0.1.0')
  t.is(argumentsOf(await script(UNKNOWN)).get('kit.mac'), UNKNOWN)
  t.is((await kindsOf(home))['role-assigned'], 1)
})

test.serial(
  'a machine is held with the reason while its layer or overlay is in error, which is told once',
  async (t) => {
    const home = await makeHome(t)
    const before = await serve(t, home)
    const machine = await proved(home, KNOWN)
    await before.stop()
    await writeFiles(home, { 'profiles/roles/worker/boot': 'nonsense' })
    await serve(t, home)
    for (let asked = 0; asked < 3; asked += 1) {
      t.regex(await script(KNOWN), /waiting: roles\/worker is in error: Cannot use boot: "nonsense"/)
    }
    const mended = await awaitTarget(machine, '')
    await writeFiles(home, { 'profiles/roles/worker/boot': 'live' })
    t.is(lineOf(await mended.answer, 'image'), '0.1.0')
    t.true(argumentsOf(await script(KNOWN)).has('kit.boot'))

    // Another machine, so that there is no bundle that was good before.
    await writeFiles(home, {
      'profiles/roles/broken/root/lib/x': '',
      'profiles/machines/02-4b-69-74-00-02/role': 'broken',
    })
    await api(home, '/machines/02-4b-69-74-00-02/role', '-X', 'PUT', '-d', '{"role": "broken"}')
    for (let asked = 0; asked < 3; asked += 1) {
      t.regex(await script('02-4b-69-74-00-02'), /waiting: Cannot make the overlay .* put it into usr\/lib\//)
    }
    const kinds = await kindsOf(home)
    t.deepEqual(
      ['profile-broken', 'profile-mended', 'role-assigned', 'boot-script-sent'].map((kind) => kinds[kind]),
      [2, 1, 1, 3],
    )
  },
)
