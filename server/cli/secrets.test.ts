// The commands about secret files, on real files, against a real HTTP service, with age at the other end.

import { execFile } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'

import test, { type ExecutionContext } from 'ava'

import { silentLog } from '#lib/log.ts'
import { parseMac } from '#lib/mac.ts'
import { openSealed } from '#sealing/age-file.ts'
import { createSecretsKey, readKey, SECRETS_KEY_FILE } from '#sealing/secrets-key.ts'
import { cli } from '#testing/cli-fixture.ts'
import { FakeSecrets, secretParts } from '#testing/fake-secrets.ts'
import { startHttp } from '#testing/http-fixture.ts'

const MAC = parseMac('52:54:00:12:34:56')
const SECRET = 'roles/worker/secret'

/** A profile tree, a folder for keys, and commands that use them; no server. */
async function makeHome(t: ExecutionContext, files: Readonly<Record<string, string>> = {}) {
  const home = await mkdtemp(join(tmpdir(), 'kit-secret-cli-'))
  t.teardown(() => rm(home, { recursive: true }))
  const profiles = join(home, 'profiles')
  await mkdir(profiles)
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(profiles, name)), { recursive: true })
    await writeFile(join(profiles, name), content)
  }
  const env = {
    PATH: process.env['PATH'],
    KATESKIT_PROFILES_DIRECTORY: profiles,
    KATESKIT_KEYS_DIRECTORY: join(home, 'keys'),
    KATESKIT_HTTP_CONTROL_SOCKET: join(home, 'no.sock'),
  }
  const makeKey = async () => {
    const directory = env.KATESKIT_KEYS_DIRECTORY
    await createSecretsKey({ directory, findSealed: async () => undefined, log: silentLog }).start()
    const key = await readKey(directory)
    if (key === undefined) throw new Error('no key was made')
    return { ...key, file: join(directory, SECRETS_KEY_FILE) }
  }
  return { home, profiles, env, makeKey, ...cli(env) }
}

test('secret seal encrypts every plain file under secret/ for the key on this machine', async (t) => {
  const { profiles, run, makeKey } = await makeHome(t, {
    [`${SECRET}/etc/app/password`]: 'correct horse',
    'defaults/secret/empty': '',
    'defaults/secret/.gitignore': '*\n!*.age\n',
    'defaults/root/etc/motd': 'public',
  })
  const { identity, file } = await makeKey()
  const { code, out, err } = await run('secret', 'seal')
  t.is(code, 0, err)
  t.regex(out, /defaults\/secret\/empty\.age\n.*etc\/app\/password\.age\n$/)
  t.false((out + err).includes('horse'))
  t.deepEqual(await readdir(join(profiles, SECRET, 'etc/app')), ['password.age'])
  t.deepEqual(await readdir(join(profiles, 'defaults/secret')), ['.gitignore', 'empty.age'])
  const sealed = join(profiles, SECRET, 'etc/app/password.age')
  t.is(Buffer.from(await openSealed(await readFile(sealed), identity)).toString(), 'correct horse')
  const { stdout } = await promisify(execFile)('age', ['-d', '-i', file, sealed])
  t.is(stdout, 'correct horse')
  t.regex((await run('secret', 'seal')).out, /^Nothing under secret\/ in .* is in plain text\n$/)
})

test('secret seal asks the running server, and replaces what was encrypted before', async (t) => {
  const { home, profiles, env } = await makeHome(t, { [`${SECRET}/a`]: 'new', [`${SECRET}/a.age`]: 'old' })
  const secrets = new FakeSecrets()
  const { socketFile } = await startHttp(t, secretParts(secrets))
  const { run } = cli({ ...env, KATESKIT_HTTP_CONTROL_SOCKET: socketFile })
  const { code, err } = await run('secret', 'seal')
  t.is(code, 0, err)
  t.true(err.includes(secrets.recipient()))
  t.deepEqual(await readdir(join(profiles, SECRET)), ['a.age'])
  t.regex(await readFile(join(profiles, SECRET, 'a.age'), 'utf8'), /^-----BEGIN AGE ENCRYPTED FILE-----\n/)
  t.deepEqual(await readdir(home), ['profiles'], 'no key is made on the way')
})

test('secret seal leaves everything as it was when it cannot encrypt', async (t) => {
  const { profiles, run, makeKey } = await makeHome(t, {
    [`${SECRET}/a`]: 'plain',
    big: 'x'.repeat(1_048_577),
  })
  const file = join(profiles, SECRET, 'a')
  const failed = async (words: readonly string[], pattern: RegExp) => {
    const { code, err } = await run('secret', 'seal', ...words)
    t.not(code, 0)
    t.regex(err, pattern)
  }
  await failed([], /Cannot tell what to encrypt for: no server runs here, and .*secrets\.agekey is not there/)
  await makeKey()
  await symlink(file, join(profiles, 'link'))
  await failed([join(profiles, 'link')], /it is a link/)
  await failed([join(profiles, 'none')], /ENOENT/)
  await failed([profiles], /it is no plain file/)
  await failed([join(profiles, 'x.age')], /it is encrypted already/)
  await failed([join(profiles, 'big')], /it has 1048577 bytes, and a secret file 1048576 at most/)
  t.is((await run('secret', 'seal', file)).code, 0)
  const sealed = await readFile(`${file}.age`, 'utf8')
  await writeFile(join(profiles, 'renamed'), sealed)
  await failed([join(profiles, 'renamed')], /it is encrypted already; call it .*renamed\.age/)
  t.is(await readFile(`${file}.age`, 'utf8'), sealed)
})

test('secret show prints paths, layers, modes and problems', async (t) => {
  const { env } = await makeHome(t)
  const secrets = new FakeSecrets()
  secrets.set(MAC, 'content')
  secrets.problems = [{ layer: 'defaults', file: '/p/defaults/secret/x', message: 'it is not encrypted' }]
  const { socketFile } = await startHttp(t, secretParts(secrets))
  const { run } = cli({ ...env, KATESKIT_HTTP_CONTROL_SOCKET: socketFile })
  const { out } = await run('secret', 'show', MAC)
  t.regex(out, /-0600 +0:0 +\/etc\/key +roles\/worker/)
  t.regex(out, /Problems:\n {2}defaults: \/p\/defaults\/secret\/x: it is not encrypted/)
  t.is(JSON.parse((await run('secret', 'show', MAC, '--json')).out).files[0].path, '/etc/key')
  secrets.problems = []
  t.is((await run('secret', 'show', '52:54:00:12:34:57')).out, 'No secret files.\n')
})

/** A program that does to the file what `script` says, and notes where it lay. */
async function editor(home: string, script: string): Promise<string> {
  const file = join(home, 'editor')
  await writeFile(
    file,
    `#!/bin/sh\nprintf '%s ' "$1" "$(stat -c %a "$1" "$(dirname "$1")" | xargs)" >"${home}/seen"\n${script}\n`,
  )
  await chmod(file, 0o755)
  return file
}

test('secret edit opens a file in memory alone, and encrypts what the editor left', async (t) => {
  const { home, profiles, env, makeKey } = await makeHome(t)
  const { identity } = await makeKey()
  const file = join(profiles, 'key.age')
  const edit = async (script: string) => {
    const { run } = cli({ ...env, EDITOR: await editor(home, script) })
    return run('secret', 'edit', file)
  }
  const content = async () => Buffer.from(await openSealed(await readFile(file), identity)).toString()
  t.is((await edit('printf first >"$1"')).code, 0)
  t.is(await content(), 'first')
  const [path = '', mode, folderMode] = (await readFile(join(home, 'seen'), 'utf8')).split(' ')
  t.regex(path, /^\/dev\/shm\/kit-secret-\w+\/key$/)
  t.deepEqual([mode, folderMode], ['600', '700'])
  await t.throwsAsync(stat(dirname(path)), { code: 'ENOENT' })
  t.is((await edit('printf -- -second >>"$1"')).code, 0)
  t.is(await content(), 'first-second')
  const before = await readFile(file)
  t.regex((await edit('true')).out, /is as it was/)
  const failed = await edit('printf lost >"$1"; exit 3')
  t.regex(failed.err, /ended with 3; nothing was changed/)
  t.true((await readFile(file)).equals(before))
  t.deepEqual((await readdir(profiles)).sort(), ['key.age'])
})

test('secret edit needs the key of the server', async (t) => {
  const { profiles, run, makeKey, home } = await makeHome(t, { 'other.age': 'no age' })
  t.regex((await run('secret', 'edit', join(profiles, 'key'))).err, /encrypted files end in \.age/)
  // The lab of this checkout may have one of its own.
  await makeKey()
  t.regex(
    (await run('secret', 'edit', join(profiles, 'other.age'))).err,
    /Cannot open .*other\.age: it is not encrypted/,
  )
  await writeFile(join(home, 'keys', SECRETS_KEY_FILE), 'damaged')
  t.regex((await run('secret', 'edit', join(profiles, 'other.age'))).err, /Cannot use the key of the secrets/)
})
