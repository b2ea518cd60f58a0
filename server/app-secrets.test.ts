// Secret files through the whole server, as it is composed: from the profile tree to the machine, and to nobody and nowhere else.

import { execFile, execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'

import test from 'ava'
import { KitError } from '#lib/errors.ts'
import { parseMac } from '#lib/mac.ts'
import type { AuditEntry } from '#machine/access-ports.ts'
import type { Event } from '#machine/event.ts'
import { codeOf, curl } from '#testing/http-fixture.ts'
import { type Lan, makeLan } from '#testing/lan.ts'
import { findSecrets } from '#testing/loot.ts'
import { enterOwnNetwork } from '#testing/own-network.ts'
import { api, bootOf, HTTP, makeHome, serve, startMachine, TLS } from '#testing/served-home.ts'
import { TestMachine } from '#testing/test-machine.ts'

const run = promisify(execFile)
const [ONE, TWO] = ['02-4b-69-74-00-01', '02-4b-69-74-00-02'] as const
const SECRETS = {
  shared: 'planted-shared-Zk3vQ8',
  own: 'planted-own-pW7rT2',
  changed: 'planted-changed-Ld5xN9',
  plain: 'planted-plain-Hq1cB6',
}

let lan: Lan

test.before(async () => {
  await enterOwnNetwork()
  lan = await makeLan('br0', '10.77.0.1/24')
})

test.after.always(() => lan.stop())

const PROFILES = {
  'profiles/roles/worker/root/etc/motd': 'public\n',
  [`profiles/machines/${ONE}/role`]: 'worker\n',
  [`profiles/machines/${TWO}/role`]: 'worker\n',
}

async function sealInto(home: string, files: Readonly<Record<string, string>>): Promise<void> {
  const { recipient } = await api<{ recipient: string }>(home, '/secrets/recipient')
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(home, name)), { recursive: true })
    execFileSync('age', ['-r', recipient, '-o', join(home, name)], { input: content })
  }
}

const lineOf = (text: unknown, name: string) => new RegExp(`^${name} (.*)$`, 'm').exec(`${text}`)?.[1] ?? ''

/** What tar finds in it, and its sha256. */
async function unpack(home: string, text: unknown): Promise<{ digest: string; files: string }> {
  const bytes = Buffer.from(`${text}`)
  const folder = await mkdtemp(join(home, '..', 'kit-app-unpacked-'))
  try {
    execFileSync('tar', ['-xpf', '-', '-C', folder], { input: bytes })
    const { stdout } = await run('sh', [
      '-c',
      `cd ${folder} && find . -type f -printf '%P %m ' -exec cat {} \\; -printf '\\n' | sort`,
    ])
    return { digest: createHash('sha256').update(bytes).digest('hex'), files: stdout.trim() }
  } finally {
    await rm(folder, { recursive: true })
  }
}

test.serial('secret files reach the machine they belong to, and nobody else', async (t) => {
  const home = await makeHome(t, PROFILES)
  await serve(t, home)
  await sealInto(home, {
    'profiles/roles/worker/secret/etc/shared.age': SECRETS.shared,
    [`profiles/machines/${ONE}/secret/etc/own.age`]: SECRETS.own,
  })
  const [{ machine: one, boot }, { machine: two, boot: boot2 }] = [
    await startMachine(home, ONE),
    await startMachine(home, TWO),
  ]
  const target = await one.call(`target?boot=${boot}`)
  t.is(lineOf(target.body, 'secrets-kept'), 'persist')
  const got = await one.call(`secrets?boot=${boot}`)
  t.is(got.headers.get('cache-control'), 'no-store')
  t.deepEqual(await unpack(home, got.body), {
    digest: lineOf(target.body, 'secrets'),
    files: `etc/own 600 ${SECRETS.own}\netc/shared 600 ${SECRETS.shared}`,
  })
  t.is(
    (await unpack(home, (await two.call(`secrets?boot=${boot2}`)).body)).files,
    `etc/shared 600 ${SECRETS.shared}`,
  )

  const status = ['-o', '/dev/null', '-w', '%{http_code}']
  const path = `/v1/machines/${ONE}/secrets?boot=${boot}`
  t.is(await curl(...status, `${HTTP}${path}`), '403')
  t.is(await curl(...status, '-k', `${TLS}${path}`), '403')
  t.is(await curl(...status, '--unix-socket', join(home, 'control'), `http://kit${path}`), '403')
  const stranger = new TestMachine({ ...two.options, mac: one.options.mac })
  stranger.certificate = two.certificate
  t.is(codeOf(await stranger.call(`secrets?boot=${boot}`)), 'wrong-machine')
  t.is(codeOf(await two.call(`secrets?boot=${boot}`)), 'stale-boot')
  t.is(codeOf(await one.call('secrets?boot=made-up')), 'not-found')
  t.is(codeOf(await one.call('secrets')), 'invalid-input')
  t.is(codeOf(await one.call(`secrets?boot=${await bootOf(ONE)}`)), 'stale-boot')

  const { events } = await api<{ events: readonly Event[] }>(home, `/events?mac=${ONE}&limit=100`)
  const told = events
    .filter(({ kind }) => kind.startsWith('secrets-'))
    .map(({ kind, data }) => [kind, data['boot'] === boot])
  t.deepEqual(told, [
    ['secrets-sent', true],
    ['secrets-refused', false],
    ['secrets-refused', false],
  ])
  const { entries } = await api<{ entries: readonly AuditEntry[] }>(home, '/audit?limit=100')
  t.deepEqual(
    entries.filter(({ action }) => action.endsWith('/secrets')).map(({ actor, outcome }) => [actor, outcome]),
    [
      [`machine ${parseMac(ONE)}`, 'done'],
      [`machine ${parseMac(TWO)}`, 'done'],
      [`machine ${parseMac(TWO)}`, 'stale-boot'],
      [`machine ${parseMac(ONE)}`, 'not-found'],
      [`machine ${parseMac(ONE)}`, 'stale-boot'],
    ],
  )
})

test.serial(
  'a change of secret files wakes who waits, and nothing of them is ever written down',
  async (t) => {
    const home = await makeHome(t, PROFILES)
    const log: string[] = []
    const app = await serve(t, home, log)
    await sealInto(home, { 'profiles/roles/worker/secret/etc/key.age': SECRETS.shared })
    const { machine, boot } = await startMachine(home, ONE)
    const first = await machine.call(`target?boot=${boot}`)
    await machine.call(`secrets?boot=${boot}`)
    const waiting = machine.call(`target?boot=${boot}&known=${lineOf(first.body, 'tag')}&wait=30`)
    await curl(`${HTTP}/healthz`)
    const next = join(home, 'next.age')
    await sealInto(home, { 'next.age': SECRETS.changed })
    await run('mv', [next, join(home, 'profiles/roles/worker/secret/etc/key.age')])
    const second = await waiting
    t.not(lineOf(second.body, 'secrets'), lineOf(first.body, 'secrets'))
    t.is(lineOf(second.body, 'bundle'), lineOf(first.body, 'bundle'))
    t.is(
      (await unpack(home, (await machine.call(`secrets?boot=${boot}`)).body)).files,
      `etc/key 600 ${SECRETS.changed}`,
    )

    const plain = join(home, 'profiles/roles/worker/secret/etc/plain')
    await writeFile(plain, SECRETS.plain)
    const { problems } = await api<{ problems: readonly { message: string }[] }>(
      home,
      `/machines/${ONE}/secrets`,
    )
    t.deepEqual(
      problems.map(({ message }) => message),
      ['Cannot use secret/etc/plain: it is not encrypted: kateskit secret seal'],
    )
    t.is(
      (await unpack(home, (await machine.call(`secrets?boot=${boot}`)).body)).files,
      `etc/key 600 ${SECRETS.changed}`,
    )
    await rm(plain)
    await app.stop()

    t.deepEqual(findSecrets(Buffer.from(log.join('\n')), SECRETS), [])
    t.true(log.length > 0)
    const { stdout } = await run('find', [home, '-type', 'f'])
    const files = stdout.trim().split('\n')
    t.true(
      files.some((file) => file.endsWith('kateskit.db')) && files.some((file) => file.endsWith('.tar')),
      stdout,
    )
    for (const file of files) t.deepEqual(findSecrets(await readFile(file), SECRETS), [], file)

    await serve(t, home)
    const again = await machine.call(`target?boot=${boot}`)
    t.is(lineOf(again.body, 'secrets'), lineOf(second.body, 'secrets'), 'the same after a restart')
  },
)

test.serial('start() refuses to go on without the key that files were encrypted for', async (t) => {
  const home = await makeHome(t, PROFILES)
  const app = await serve(t, home)
  await sealInto(home, { 'profiles/defaults/secret/key.age': SECRETS.shared })
  await app.stop()
  const key = join(home, 'certs/secrets.agekey')
  await rm(key)
  const error = await t.throwsAsync(serve(t, home), { instanceOf: KitError })
  t.is(
    error?.message,
    `Cannot use the key of the secrets ${key}: it is not there, and ${home}/profiles/defaults/secret/key.age can be opened by no new one`,
  )
  await t.throwsAsync(readFile(key), { code: 'ENOENT' })
})
