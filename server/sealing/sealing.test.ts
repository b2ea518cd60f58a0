// Tests of sealed files and the key that opens them, with Debian's own age at the other end.

import { execFile } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'

import test, { type ExecutionContext } from 'ava'

import { KitError } from '#lib/errors.ts'
import { silentLog } from '#lib/log.ts'

import { isSealed, newIdentity, openSealed, recipientOf, seal } from './age-file.ts'
import { listSecretTree } from './secret-tree.ts'
import { createSecretsKey, readKey, SECRETS_KEY_FILE } from './secrets-key.ts'

const run = promisify(execFile)
const PLAIN = Buffer.from('wireguard key\0\xff and more\n', 'latin1')

async function makeFolder(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'kit-sealing-'))
  t.teardown(() => rm(folder, { recursive: true }))
  return folder
}

async function startKey(directory: string, sealed?: string) {
  const key = createSecretsKey({ directory, findSealed: async () => sealed, log: silentLog })
  await key.start()
  return key
}

test('seal() makes files that age opens, and the server opens those of age, binary and armored', async (t) => {
  const folder = await makeFolder(t)
  const key = await startKey(folder)
  const keyFile = join(folder, SECRETS_KEY_FILE)
  for (const content of [PLAIN, Buffer.alloc(0), Buffer.alloc(200_000, 'x')]) {
    const file = join(folder, 'x.age')
    await writeFile(file, await seal(content, key.recipient()))
    const { stdout } = await run('age', ['-d', '-i', keyFile, file], {
      encoding: 'buffer',
      maxBuffer: 1 << 20,
    })
    t.true(stdout.equals(content))
    await writeFile(join(folder, 'plain'), content)
    for (const options of [[], ['-a']]) {
      await run('age', [...options, '-r', key.recipient(), '-o', file, join(folder, 'plain')])
      const sealed = await readFile(file)
      t.true(isSealed(sealed))
      t.true(Buffer.from(await key.open(sealed)).equals(content))
      await rm(file)
    }
  }
  const { stdout } = await run('age-keygen', ['-y', keyFile])
  t.is(stdout.trim(), key.recipient())
})

test('openSealed() says what is wrong, and nothing of what is in it', async (t) => {
  const [mine, others] = [await newIdentity(), await newIdentity()]
  const sealed = Buffer.from(await seal(PLAIN, await recipientOf(mine)))
  const reasonOf = async (bytes: Uint8Array, identity = mine) => {
    const error = await openSealed(bytes, identity).then(
      () => undefined,
      (thrown: unknown) => thrown,
    )
    return error instanceof KitError ? error.message : `not refused: ${error}`
  }
  t.is(await reasonOf(sealed, others), "it is not encrypted for this server's key")
  t.is(await reasonOf(PLAIN), 'it is not encrypted: no file of age')
  t.is(await reasonOf(Buffer.alloc(0)), 'it is not encrypted: no file of age')
  t.is(await reasonOf(sealed.subarray(0, sealed.length / 2)), 'it is damaged, or was changed')
  const changed = Buffer.from(sealed)
  changed.writeUInt8(changed.readUInt8(300) ^ 1, 300)
  t.is(await reasonOf(changed), 'it is damaged, or was changed')
  await t.throwsAsync(seal(PLAIN, mine), { message: /^Cannot encrypt for .* no age recipient$/ })
})

test('start() makes the key once, for the server alone, and leaves nothing else', async (t) => {
  const folder = join(await makeFolder(t), 'keys')
  const first = await startKey(folder)
  t.deepEqual(await readdir(folder), [SECRETS_KEY_FILE])
  t.is((await stat(join(folder, SECRETS_KEY_FILE))).mode & 0o777, 0o600)
  t.is((await stat(folder)).mode & 0o777, 0o700)
  const second = await startKey(folder, '/profiles/defaults/secret/x.age')
  t.is(second.recipient(), first.recipient())
  t.is((await readKey(folder))?.recipient, first.recipient())
})

test('start() names a key that is missing or damaged, and puts no other in its place', async (t) => {
  const folder = await makeFolder(t)
  const file = join(folder, SECRETS_KEY_FILE)
  const refused = async (pattern: RegExp, sealed?: string) => {
    const error = await t.throwsAsync(startKey(folder, sealed), { instanceOf: KitError, message: pattern })
    t.true(error?.message.includes(file))
    t.truthy(error?.fix)
  }
  await refused(/it is not there, and \/profiles\/x\.age can be opened by no new one/, '/profiles/x.age')
  t.deepEqual(await readdir(folder), [])
  await startKey(folder)
  const good = await readFile(file, 'utf8')
  const identity = /AGE-SECRET-KEY-\S+/.exec(good)?.[0] ?? ''
  for (const damaged of [
    '',
    good.slice(0, -9),
    good.replace(/.(?=\n$)/, 'B'),
    `${good}${good}`,
    '\0'.repeat(189),
  ]) {
    await writeFile(file, damaged)
    const error = await t.throwsAsync(startKey(folder), { instanceOf: KitError })
    t.true(error?.message.startsWith(`Cannot use the key of the secrets ${file}: it `), error?.message)
    t.false(error?.message.includes(identity.slice(0, 30)))
    t.is(await readFile(file, 'utf8'), damaged)
  }
})

test('recipient() and open() wait for the start', async (t) => {
  const key = createSecretsKey({ directory: '/nowhere', findSealed: async () => undefined, log: silentLog })
  t.throws(() => key.recipient(), { message: /has not started/ })
  await t.throwsAsync(async () => key.open(PLAIN), { message: /has not started/ })
})

test('listSecretTree() finds what is sealed and what is plain in every layer', async (t) => {
  const folder = await makeFolder(t)
  const names = [
    'defaults/secret/etc/b.age',
    'defaults/secret/etc/a',
    'defaults/secret/.gitignore',
    'defaults/secret/.tmp-12',
    'defaults/secret.attributes',
    'channels/beta/secret/c.age',
    'roles/worker/root/secret/no.age',
    'machines/52-54-00-12-34-56/secret/deep/er/d',
    'other/secret/no',
  ]
  for (const name of names) {
    await mkdir(dirname(join(folder, name)), { recursive: true })
    await writeFile(join(folder, name), '')
  }
  await symlink('a', join(folder, 'defaults/secret/etc/link'))
  const { sealed, plain } = await listSecretTree(folder)
  const short = (files: readonly string[]) => files.map((file) => file.slice(folder.length + 1))
  t.deepEqual(short(sealed), ['defaults/secret/etc/b.age', 'channels/beta/secret/c.age'])
  t.deepEqual(short(plain), ['defaults/secret/etc/a', 'machines/52-54-00-12-34-56/secret/deep/er/d'])
  t.deepEqual(await listSecretTree(join(folder, 'nowhere')), { sealed: [], plain: [] })
})

test('start() tells when others may read the key', async (t) => {
  const folder = await makeFolder(t)
  await startKey(folder)
  await chmod(join(folder, SECRETS_KEY_FILE), 0o644)
  const told: string[] = []
  const log = Object.assign(Object.create(silentLog), {
    warn: (_data: unknown, text: string) => told.push(text),
  })
  await createSecretsKey({ directory: folder, findSealed: async () => undefined, log }).start()
  t.regex(told.join(), /others may read the key of the secrets/)
})
