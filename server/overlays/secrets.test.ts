// Tests of secret files: merged, opened and packed in memory, with a real key, and unpacked by tar.

import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { chmod, mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

import test, { type ExecutionContext } from 'ava'

import { silentLog } from '#lib/log.ts'
import type { Mac } from '#lib/mac.ts'
import type { Event, NewEvent } from '#machine/event.ts'
import type { SecretsArchive } from '#machine/secret-ports.ts'
import { newIdentity, openSealed, recipientOf, seal } from '#sealing/age-file.ts'
import { listTree, mac } from '#testing/overlay-layers.ts'
import { TurnedClock } from '#testing/turned-clock.ts'

import { createSecretFiles, type SecretFilesOptions } from './secrets.ts'

interface Setup {
  readonly layers?: Readonly<Record<Mac, readonly string[]>>
  readonly limits?: SecretFilesOptions['limits']
}

/** Names that end in `.age` are sealed for the key on the way. */
async function makeSecrets(
  t: ExecutionContext,
  files: Readonly<Record<string, string | Uint8Array>>,
  { layers, limits }: Setup = {},
) {
  const home = await mkdtemp(join(tmpdir(), 'kit-secrets-'))
  t.teardown(() => rm(home, { recursive: true, force: true }))
  const identity = await newIdentity()
  const recipient = await recipientOf(identity)
  const told: NewEvent[] = []
  const opened: number[] = []
  const clock = new TurnedClock()
  const write = async (changes: typeof files, { isPlain = false } = {}) => {
    for (const [name, content] of Object.entries(changes)) {
      await mkdir(dirname(join(home, name)), { recursive: true })
      const isSealed = name.endsWith('.age') && !isPlain
      await writeFile(join(home, name), isSealed ? await seal(Buffer.from(content), recipient) : content)
    }
  }
  await mkdir(join(home, 'low'))
  await mkdir(join(home, 'high'))
  await write(files)
  const create = () =>
    createSecretFiles({
      sources: {
        layersFor: (of) =>
          (layers?.[of] ?? ['low', 'high']).map((layer) => ({ layer, directory: join(home, layer) })),
      },
      key: {
        async open(sealed) {
          opened.push(sealed.length)
          return openSealed(sealed, identity)
        },
      },
      events: {
        async append(event) {
          told.push(event)
          return { ...event, id: told.length, atMs: 0, data: event.data ?? {} } satisfies Event
        },
      },
      log: silentLog,
      clock,
      ...(limits !== undefined && { limits }),
    })
  /** The files look as if they had been there for a while. */
  const settle = () => clock.turn(Date.now() + 60_000 - clock.nowMs())
  return { home, told, opened, write, settle, create, secrets: create() }
}

async function unpack(t: ExecutionContext, archive: SecretsArchive | undefined) {
  const target = await mkdtemp(join(tmpdir(), 'kit-unpacked-'))
  t.teardown(() => rm(target, { recursive: true }))
  execFileSync('tar', ['-xpf', '-', '-C', target], { input: archive?.bytes ?? '' })
  return listTree(target)
}

test('read() opens and merges the files of all layers, for nobody else to read', async (t) => {
  const { home, secrets } = await makeSecrets(t, {
    'low/secret/etc/app/key.age': 'low',
    'low/secret/etc/app/both.age': 'low',
    'low/secret/etc/app/gone.age': 'low',
    'low/secret/srv/none.age': '',
    'low/secret/README.md': 'how to seal',
    'high/secret/etc/app/both.age': 'high',
    'high/secret/etc/app/.hidden.age': 'hidden',
    'high/secret.attributes': [
      '/etc/app/both mode=0440 owner=0:42',
      '/etc/app/gone delete',
      '/var/lib/app directory mode=0750 owner=1000:1000',
    ].join('\n'),
  })
  await chmod(join(home, 'low/secret/etc/app/key.age'), 0o777)
  await symlink('both', join(home, 'high/secret/etc/app/link'))
  const archive = await secrets.read(mac)
  t.deepEqual(await unpack(t, archive), [
    'etc/ 700 0:0',
    'etc/app/ 700 0:0',
    'etc/app/.hidden 600 0:0 hidden',
    'etc/app/both 440 0:42 high',
    'etc/app/key 600 0:0 low',
    'etc/app/link -> both 0:0',
    'srv/ 700 0:0',
    'srv/none 600 0:0 ',
    'var/ 700 0:0',
    'var/lib/ 700 0:0',
    'var/lib/app/ 750 1000:1000',
  ])
  t.is(
    archive?.digest,
    createHash('sha256')
      .update(archive?.bytes ?? '')
      .digest('hex'),
  )
  t.deepEqual(await secrets.secretsFor(mac), { digest: archive?.digest, sizeBytes: archive?.bytes.length })
  t.deepEqual(secrets.problems(), [])
})

test('read() gives the same bytes for the same content, however often it was sealed', async (t) => {
  const files = { 'low/secret/a.age': 'a', 'high/secret/b/c.age': randomBytes(70_000) }
  const [first, second] = [await makeSecrets(t, files), await makeSecrets(t, files)]
  t.is((await first.secrets.read(mac))?.digest, (await second.secrets.read(mac))?.digest)
})

test('secretsFor() is undefined where there are none', async (t) => {
  const { secrets } = await makeSecrets(t, {
    'low/root/etc/motd': 'public',
    'low/secret/.gitkeep': '',
    'high/secret.attributes': '/etc/gone delete',
  })
  t.is(await secrets.secretsFor(mac), undefined)
  t.is(await secrets.read(mac), undefined)
  t.deepEqual(await secrets.explain(mac), { files: [], problems: [] })
})

test('explain() tells paths, layers and modes, and opens nothing it need not', async (t) => {
  const { secrets } = await makeSecrets(t, {
    'low/secret/etc/key.age': 'low-content',
    'high/secret/etc/key.age': 'high-content',
    'high/secret.attributes': '/etc/key mode=0640',
    'high/secret/etc/plain': 'plain-content',
  })
  const explained = await secrets.explain(mac)
  t.deepEqual(
    explained.files.map(({ path, layer, kind, mode, hides }) => [path, layer, kind, mode, hides.join()]),
    [
      ['/etc', 'low', 'directory', '0700', ''],
      ['/etc/key', 'high', 'file', '0640', 'low'],
    ],
  )
  t.is(explained.problems.length, 1)
  t.false(JSON.stringify(explained).includes('content'))
})

test('read() leaves out what it cannot use, tells all of it, and hands out the rest', async (t) => {
  const foreign = await seal(Buffer.from('x'), await recipientOf(await newIdentity()))
  const { home, secrets, told, write } = await makeSecrets(t, {
    'low/secret/etc/good.age': 'good',
    'low/secret/etc/plain': 'plain text',
    'low/secret/bin/sh.age': 'x',
    'low/secret/lib.age': 'x',
    'low/secret/etc/...age': 'x',
    'low/secret/etc/..age': 'x',
    'low/secret/etc/.age': 'x',
    'low/secret/etc/twice.age': 'x',
    'low/secret/etc/twice/file.age': 'in a folder',
    'low/secret/run/x.age': 'x',
    'high/secret.attributes': '/etc/good mode=0644\n/etc/mine mode=0604\n/etc/none mode=0600\n',
    'high/secret/etc/good.age': 'better',
    'high/secret/etc/mine.age': 'mine',
  })
  await write({ 'high/secret/foreign.age': foreign, 'high/secret/fake.age': 'plain text' }, { isPlain: true })
  await symlink('good.age', join(home, 'low/secret/etc/link.age'))
  execFileSync('mkfifo', [join(home, 'low/secret/etc/fifo.age')])
  await secrets.refresh([mac])
  t.deepEqual(
    (await unpack(t, await secrets.read(mac))).filter((line) => !line.includes('/ ')),
    ['etc/good 600 0:0 better', 'etc/mine 600 0:0 mine', 'etc/twice/file 600 0:0 in a folder'],
  )
  t.deepEqual(
    secrets
      .problems()
      .map(({ layer, file, message }) => `${layer} ${file.slice(home.length + 1)}: ${message}`),
    [
      'low low/secret/bin: Cannot use /bin: /bin is a link on the machine; put it into usr/bin/',
      'low low/secret/run: Cannot use /run: nothing in /run of the root is ever seen',
      'low low/secret/etc/...age: Cannot use secret/etc/...age: nothing is left of its name',
      'low low/secret/etc/..age: Cannot use secret/etc/..age: nothing is left of its name',
      'low low/secret/etc/.age: Cannot use secret/etc/.age: nothing is left of its name',
      'low low/secret/etc/fifo.age: Cannot use /etc/fifo.age: an overlay has files, directories and links, and this is a FIFO',
      'low low/secret/etc/link.age: Cannot use secret/etc/link.age: a link is made on the machine as it is, so it is called as it is there',
      'low low/secret/etc/plain: Cannot use secret/etc/plain: it is not encrypted: kateskit secret seal',
      'low low/secret/etc/twice.age: Cannot use /etc/twice twice: the same folder has something else of that name',
      'low low/secret/lib.age: Cannot use /lib: /lib is a link on the machine; put it into usr/lib/',
      "high high/secret.attributes:1: Cannot let everybody at /etc/good: mode=0644; a secret's mode ends in 0",
      "high high/secret.attributes:2: Cannot let everybody at /etc/mine: mode=0604; a secret's mode ends in 0",
      'high high/secret.attributes:3: Cannot set the attributes of /etc/none: the same layer has no such file in secret/ (for a new directory: add the word directory)',
      'high high/secret/fake.age: Cannot use secret/fake.age: it is not encrypted: no file of age',
      "high high/secret/foreign.age: Cannot use secret/foreign.age: it is not encrypted for this server's key",
    ],
  )
  t.deepEqual(
    told.map(({ kind, data }) => [kind, data?.['layer']]),
    [
      ['profile-broken', 'low'],
      ['profile-broken', 'high'],
    ],
  )
  t.false(JSON.stringify(told).includes('plain text'))
})

test('secretsFor() keeps the last good content of a file for as long as it is there', async (t) => {
  const { home, secrets, create, write, told } = await makeSecrets(t, {
    'low/secret/a.age': 'first',
    'low/secret/b.age': 'first',
  })
  await secrets.refresh([mac])
  const good = await secrets.secretsFor(mac)
  await write({ 'low/secret/a.age': 'half a file' }, { isPlain: true })
  await secrets.refresh([mac])
  t.deepEqual(await secrets.secretsFor(mac), good)
  t.deepEqual(await unpack(t, await secrets.read(mac)), ['a 600 0:0 first', 'b 600 0:0 first'])
  t.deepEqual(await unpack(t, await create().read(mac)), ['b 600 0:0 first'])
  await rm(join(home, 'low/secret/a.age'))
  await secrets.refresh([mac])
  await write({ 'low/secret/a.age': 'half a file' }, { isPlain: true })
  await secrets.refresh([mac])
  t.deepEqual(await unpack(t, await secrets.read(mac)), ['b 600 0:0 first'])
  await write({ 'low/secret/a.age': 'second' })
  await secrets.refresh([mac])
  t.deepEqual(await unpack(t, await secrets.read(mac)), ['a 600 0:0 second', 'b 600 0:0 first'])
  t.deepEqual(
    told.map(({ kind }) => kind),
    ['profile-broken', 'profile-mended', 'profile-broken', 'profile-mended'],
  )
  t.regex(told.at(-1)?.message ?? '', /its secrets can be read again/)
})

test('secretsFor() never takes a layer that is away for one without secrets', async (t) => {
  const { home, secrets, create } = await makeSecrets(t, { 'low/secret/a.age': 'a' })
  await secrets.refresh([mac])
  const good = await secrets.secretsFor(mac)
  await rename(join(home, 'low'), join(home, 'away'))
  await secrets.refresh([mac])
  t.deepEqual(await secrets.secretsFor(mac), good)
  t.regex(secrets.problems()[0]?.message ?? '', /Cannot read the layer/)
  await t.throwsAsync(secrets.read(mac), { message: /Cannot read the secrets of low/ })
  await t.throwsAsync(create().secretsFor(mac), { message: /Cannot read the secrets of low/ })
  await rename(join(home, 'away'), join(home, 'low'))
  t.deepEqual(await unpack(t, await secrets.read(mac)), ['a 600 0:0 a'])
  await secrets.refresh([mac])
  t.deepEqual(secrets.problems(), [])
})

test('secretsFor() opens a file once for all machines, and not again while it is the same', async (t) => {
  const macs = Array.from(
    { length: 100 },
    (_, index) => `02:4b:69:74:01:${index.toString(16).padStart(2, '0')}` as Mac,
  )
  const { secrets, opened, write, settle } = await makeSecrets(
    t,
    { 'role/secret/a.age': 'a', 'role/secret/b.age': 'b', 'one/secret/c.age': 'c' },
    {
      layers: Object.fromEntries(macs.map((each, index) => [each, index === 0 ? ['role', 'one'] : ['role']])),
    },
  )
  const digests = async () => {
    const all = await Promise.all(macs.map((each) => secrets.secretsFor(each)))
    return new Set(all.map((info) => info?.digest)).size
  }
  t.is(await digests(), 2)
  t.is(opened.length, 3)
  await Promise.all(macs.map((each) => secrets.read(each)))
  settle()
  for (let round = 0; round < 3; round += 1) await digests()
  t.is(opened.length, 3)
  await write({ 'role/secret/a.age': 'A' })
  t.is(await digests(), 2)
  t.is(opened.length, 4)
})

test('read() is never older than the files', async (t) => {
  const { secrets, write, settle } = await makeSecrets(t, { 'low/secret/a.age': '00' })
  const seen = new Set<string | undefined>()
  for (let count = 0; count < 20; count += 1) {
    await write({ 'low/secret/a.age': String(count).padStart(2, '0') })
    if (count === 10) settle()
    seen.add((await secrets.secretsFor(mac))?.digest)
  }
  t.is(seen.size, 20)
})

test('read() bounds a file, a machine and what is kept opened', async (t) => {
  const limits = { fileBytes: 2_000, machineBytes: 5_120, keptBytes: 4_000 }
  const { secrets, opened, settle } = await makeSecrets(
    t,
    {
      'low/secret/a.age': randomBytes(2_000),
      'low/secret/b.age': randomBytes(2_001),
      'low/secret/c.age': randomBytes(60_000),
      'low/secret/d.age': randomBytes(2_000),
      'low/secret/e.age': 'does not fit',
    },
    { limits },
  )
  const sizes = async () => {
    const lines = await unpack(t, await secrets.read(mac))
    return lines.map((line) => line.slice(0, 1))
  }
  t.deepEqual(await sizes(), ['a', 'd'])
  await secrets.refresh([mac])
  t.deepEqual(
    secrets.problems().map(({ message }) => message),
    [
      'Cannot use secret/b.age: it is larger than 2000 bytes, the most a secret file may have',
      'Cannot use secret/c.age: it is larger than 2000 bytes, the most a secret file may have',
      "Cannot use secret/e.age: it does not fit: a machine's secrets are at most 5120 bytes in all",
    ],
  )
  settle()
  const before = opened.length
  t.deepEqual(await sizes(), ['a', 'd'])
  t.true(opened.length > before, 'what does not fit into the memory is opened anew')
})
