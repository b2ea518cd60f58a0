// Tests of the cluster's keys: what openssl, age and kubeadm make of them, and that there is never another set or half of one. More than 350 lines: every test needs the same few ways to make and damage a set.

import { execFile } from 'node:child_process'
import { createHash, createPrivateKey, X509Certificate } from 'node:crypto'
import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'

import { armor, Decrypter, Encrypter } from 'age-encryption'
import test, { type ExecutionContext } from 'ava'

import { type Clock, systemClock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { silentLog } from '#lib/log.ts'
import type { NewEvent } from '#machine/event.ts'
import { kubernetesBinaries } from '#testing/kube-binaries.ts'

import { type ClusterKeysOptions, createClusterKeys } from './cluster-keys.ts'
import { openWithPassphrase, sealWithPassphrase } from './cluster-passphrase.ts'

const DAY_MS = 86_400_000
const YEAR_MS = 365 * DAY_MS

/** What kubeadm calls them. */
const AUTHORITIES: readonly (readonly [path: string, name: string])[] = [
  ['ca', 'kubernetes'],
  ['front-proxy-ca', 'front-proxy-ca'],
  ['etcd/ca', 'etcd-ca'],
]

async function makeFolder(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'kit-cluster-keys-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** Words are separated by blanks. */
async function run(folder: string, command: string): Promise<string> {
  const [program = '', ...args] = command.split(' ')
  return (await promisify(execFile)(program, args, { cwd: folder })).stdout
}

const noEvents = { append: async () => undefined }

const keysIn = (directory: string, options: Partial<ClusterKeysOptions> = {}) =>
  createClusterKeys({ directory, events: noEvents, clock: systemClock, log: silentLog, ...options })

async function writePki(folder: string, files: ReadonlyMap<string, string>): Promise<void> {
  for (const [name, text] of files) {
    await mkdir(dirname(join(folder, name)), { recursive: true })
    await writeFile(join(folder, name), text)
  }
}

/** As a cluster that exists has them, with EC keys. `options` go to each CA. */
async function makeEcPki(folder: string, options = '-days 900'): Promise<void> {
  await mkdir(join(folder, 'etcd'), { recursive: true })
  for (const [path, name] of AUTHORITIES) {
    await run(folder, `openssl ecparam -name prime256v1 -genkey -noout -out ${path}.key`)
    await run(
      folder,
      `openssl req -x509 -new -key ${path}.key -out ${path}.crt -subj /CN=${name} ${options} -addext keyUsage=critical,digitalSignature,keyEncipherment,keyCertSign`,
    )
  }
  await run(folder, 'openssl ecparam -name prime256v1 -genkey -noout -out sa.key')
}

/** X.509 counts in seconds. */
const wholeSecondNow = () => Math.floor(Date.now() / 1000) * 1000

const clockAt = (nowMs: number): Clock => ({ ...systemClock, nowMs: () => nowMs, after: () => () => {} })

test('createClusterKeys() makes at first need, once, what openssl believes and only we can read', async (t) => {
  const directory = join(await makeFolder(t), 'keys')
  const nowMs = wholeSecondNow()
  const keys = keysIn(directory, { clock: clockAt(nowMs) })
  await keys.start()
  t.teardown(() => keys.stop())
  await t.throwsAsync(stat(join(directory, 'cluster')), { code: 'ENOENT' })

  const [{ certificate, publicKeySha256 }, files] = await Promise.all([
    keys.authority(),
    keys.controlPlaneFiles(),
  ])
  const folder = join(directory, 'cluster')
  t.deepEqual((await readdir(folder, { recursive: true })).sort(), [...files.keys(), 'etcd'].sort())
  t.deepEqual(await readdir(directory), ['cluster'])
  t.is((await stat(folder)).mode & 0o777, 0o700)
  for (const [name, text] of files) {
    t.is(await readFile(join(folder, name), 'utf8'), text)
    t.is((await stat(join(folder, name))).mode & 0o777, 0o600)
  }
  t.is(certificate, files.get('ca.crt') ?? '')
  for (const [path, name] of AUTHORITIES) {
    t.regex(
      await run(folder, `openssl verify -x509_strict -check_ss_sig -CAfile ${path}.crt ${path}.crt`),
      /: OK/,
    )
    const text = await run(folder, `openssl x509 -in ${path}.crt -noout -text`)
    t.regex(text, new RegExp(`Subject: CN = ${name}\n`))
    t.regex(text, /Public-Key: \(2048 bit\)/)
    t.regex(text, /Basic Constraints: critical\s+CA:TRUE\n/)
    t.regex(text, /Key Usage: critical\s+Digital Signature, Key Encipherment, Certificate Sign\n/)
    const { validFromDate, validToDate } = new X509Certificate(files.get(`${path}.crt`) ?? '')
    t.is(validFromDate.getTime(), nowMs - DAY_MS)
    t.is(validToDate.getTime(), nowMs + 10 * YEAR_MS)
  }
  // As the documentation of kubeadm has it.
  await run(folder, 'openssl x509 -pubkey -noout -in ca.crt -out ca.pub')
  await run(folder, 'openssl rsa -pubin -in ca.pub -outform der -out ca.der')
  const der = await readFile(join(folder, 'ca.der'))
  t.is(publicKeySha256, createHash('sha256').update(der).digest('hex'))
  t.is(await run(folder, 'openssl rsa -in sa.key -pubout'), files.get('sa.pub') ?? '')

  const again = keysIn(directory)
  await again.start()
  t.teardown(() => again.stop())
  t.deepEqual(await again.controlPlaneFiles(), files)
})

test('issueClient() and issueEtcdClient() sign for a client only, from yesterday on', async (t) => {
  const directory = await makeFolder(t)
  const nowMs = wholeSecondNow()
  const keys = keysIn(directory, { clock: clockAt(nowMs) })
  const folder = join(directory, 'cluster')
  const admin = await keys.issueClient({ name: 'kit:åsa@example', organization: 'system:masters', days: 2 })
  await writeFile(join(folder, 'admin.crt'), admin.certificate)
  t.regex(
    await run(folder, 'openssl verify -x509_strict -purpose sslclient -CAfile ca.crt admin.crt'),
    /: OK/,
  )
  await t.throwsAsync(run(folder, 'openssl verify -purpose sslserver -CAfile ca.crt admin.crt'))
  await t.throwsAsync(run(folder, 'openssl verify -CAfile etcd/ca.crt admin.crt'))
  t.is(
    await run(folder, 'openssl x509 -in admin.crt -noout -subject -nameopt RFC2253,utf8,-esc_msb'),
    'subject=CN=kit:åsa@example,O=system:masters\n',
  )
  const read = new X509Certificate(admin.certificate)
  t.true(read.checkPrivateKey(createPrivateKey(admin.key)))
  t.is(read.validFromDate.getTime(), nowMs - DAY_MS)
  t.is(read.validToDate.getTime(), nowMs + 2 * DAY_MS)
  t.is(admin.untilMs, nowMs + 2 * DAY_MS)

  const etcd = await keys.issueEtcdClient(1)
  await writeFile(join(folder, 'client.crt'), etcd.certificate)
  await writeFile(join(folder, 'authority.crt'), etcd.authority)
  t.regex(await run(folder, 'openssl verify -purpose sslclient -CAfile authority.crt client.crt'), /: OK/)
  await t.throwsAsync(run(folder, 'openssl verify -CAfile ca.crt client.crt'))

  const tooLong = await keys.issueClient({ name: 'x', days: 36_500 })
  t.is(
    tooLong.untilMs,
    new X509Certificate((await keys.authority()).certificate).validToDate.getTime(),
    'no certificate outlives its CA',
  )
  const refused = [
    { name: '', days: 1 },
    { name: 'x', organization: 'y'.repeat(65), days: 1 },
    { name: 'x', days: 0 },
  ]
  for (const subject of refused)
    await t.throwsAsync(keys.issueClient(subject), { instanceOf: KitError, code: 'invalid-input' })
})

test('createClusterKeys() encrypts with a passphrase, also what was there before', async (t) => {
  const directory = await makeFolder(t)
  const passphraseFile = join(directory, 'passphrase')
  await writeFile(passphraseFile, 'correct horse\n')
  const folder = join(directory, 'cluster')
  const files = await keysIn(directory).controlPlaneFiles()

  t.deepEqual(await keysIn(directory, { passphraseFile }).controlPlaneFiles(), files)
  const sealedNames = ['ca.crt', 'etcd', 'etcd/ca.crt', 'front-proxy-ca.crt', 'keys.age', 'sa.pub']
  t.deepEqual((await readdir(folder, { recursive: true })).sort(), sealedNames)
  t.is((await stat(join(folder, 'keys.age'))).mode & 0o777, 0o600)
  const decrypter = new Decrypter()
  decrypter.addPassphrase('correct horse')
  const sealed = await readFile(join(folder, 'keys.age'), 'utf8')
  const content = JSON.parse(await decrypter.decrypt(armor.decode(sealed), 'text')) as unknown
  t.deepEqual(content, Object.fromEntries([...files].filter(([name]) => name.endsWith('.key'))))

  // A power cut between the sealed file and the last of the plain ones.
  await writeFile(join(folder, 'ca.key'), files.get('ca.key') ?? '')
  t.deepEqual(await keysIn(directory, { passphraseFile }).controlPlaneFiles(), files)
  t.deepEqual((await readdir(folder, { recursive: true })).sort(), sealedNames)

  await writeFile(join(directory, 'other'), 'battery staple')
  await writeFile(join(directory, 'empty'), '\n')
  const cases: [options: Partial<ClusterKeysOptions>, message: RegExp][] = [
    [{}, /they are encrypted, and the passphrase is missing/],
    [{ passphraseFile: join(directory, 'other') }, /they are encrypted with another passphrase/],
    [{ passphraseFile: join(directory, 'empty') }, /empty is empty/],
    [{ passphraseFile: join(directory, 'absent') }, /absent cannot be read/],
  ]
  for (const [options, message] of cases) {
    const keys = keysIn(directory, options)
    await t.throwsAsync(keys.start(), { instanceOf: KitError, code: 'unavailable', message })
    await t.throwsAsync(keys.authority(), { message })
  }
  await writeFile(join(folder, 'keys.age'), sealed.slice(0, 400))
  await t.throwsAsync(keysIn(directory, { passphraseFile }).authority(), { message: /keys.age is damaged/ })
  t.is(await readFile(join(folder, 'keys.age'), 'utf8'), sealed.slice(0, 400))

  const fresh = join(directory, 'fresh')
  await keysIn(fresh, { passphraseFile }).authority()
  t.deepEqual((await readdir(join(fresh, 'cluster'), { recursive: true })).sort(), sealedNames)
})

test('openWithPassphrase() opens what the library of age seals, and nothing else', async (t) => {
  const encrypter = new Encrypter()
  encrypter.setPassphrase('pass')
  encrypter.setScryptWorkFactor(12)
  const theirs = armor.encode(await encrypter.encrypt('text'))
  t.is(await openWithPassphrase(theirs, 'pass'), 'text')
  await t.throwsAsync(openWithPassphrase(theirs, 'Pass'), { message: 'another passphrase' })
  await t.throwsAsync(openWithPassphrase('text', 'pass'), { message: 'damaged' })
  const ours = await sealWithPassphrase('text', 'pass')
  const bytes = Buffer.from(armor.decode(ours))
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1
  await t.throwsAsync(openWithPassphrase(armor.encode(bytes), 'pass'), { message: 'damaged' })
})

test('createClusterKeys() never makes keys in the place of some that cannot be used', async (t) => {
  const directory = await makeFolder(t)
  const folder = join(directory, 'cluster')
  const files = await keysIn(directory).controlPlaneFiles()
  const other = await keysIn(await makeFolder(t)).controlPlaneFiles()
  const of = (name: string) => other.get(name) ?? ''
  const cases: [what: string, name: string, text: string | undefined, message: RegExp][] = [
    ['a key that is gone', 'etcd/ca.key', undefined, /etcd\/ca.key is missing/],
    ['a certificate that is gone', 'ca.crt', undefined, /ca.crt is missing/],
    ['a key cut short', 'ca.key', files.get('ca.key')?.slice(0, 700), /ca.key is damaged/],
    ['an empty certificate', 'front-proxy-ca.crt', '', /front-proxy-ca.crt is damaged/],
    ["another CA's key", 'ca.key', of('ca.key'), /ca.key belongs to another certificate/],
    ['another public key', 'sa.pub', of('sa.pub'), /sa.pub belongs to another key/],
  ]
  for (const [what, name, text, message] of cases) {
    if (text === undefined) await rm(join(folder, name))
    else await writeFile(join(folder, name), text)
    const keys = keysIn(directory)
    await t.throwsAsync(keys.start(), { instanceOf: KitError, code: 'unavailable', message }, what)
    await t.throwsAsync(keys.controlPlaneFiles(), { message }, what)
    await writePki(folder, files)
    t.deepEqual(await keys.controlPlaneFiles(), files, what)
  }
  // The power went while they were made: what is left is no folder of keys.
  const cut = join(await makeFolder(t), 'keys')
  await writePki(join(cut, 'cluster.unfinished'), new Map([['ca.key', 'half a']]))
  await keysIn(cut).authority()
  t.deepEqual(await readdir(cut), ['cluster'])
})

test('createClusterKeys() takes the keys of a cluster that exists, RSA or EC, and signs with them', async (t) => {
  const directory = await makeFolder(t)
  const caDirectory = join(directory, 'pki')
  await makeEcPki(caDirectory)
  const keys = keysIn(join(directory, 'keys'), { caDirectory })
  await keys.start()
  t.teardown(() => keys.stop())
  const files = await keys.controlPlaneFiles()
  t.is(files.get('etcd/ca.key'), await readFile(join(caDirectory, 'etcd/ca.key'), 'utf8'))
  const { certificate } = await keys.issueClient({ name: 'a', organization: 'b', days: 1 })
  await writeFile(join(caDirectory, 'a.crt'), certificate)
  t.regex(
    await run(caDirectory, 'openssl verify -x509_strict -purpose sslclient -CAfile ca.crt a.crt'),
    /: OK/,
  )
  t.regex(
    await run(caDirectory, 'openssl x509 -in a.crt -noout -text'),
    /Signature Algorithm: ecdsa-with-SHA256/,
  )

  // Still there at the next start, gone at the one after.
  t.deepEqual(await keysIn(join(directory, 'keys'), { caDirectory }).controlPlaneFiles(), files)
  const late = clockAt(Date.now() + 901 * DAY_MS)
  t.deepEqual(await keysIn(join(directory, 'keys'), { caDirectory, clock: late }).controlPlaneFiles(), files)
  await rm(caDirectory, { recursive: true })
  t.deepEqual(await keysIn(join(directory, 'keys'), { caDirectory }).controlPlaneFiles(), files)

  // A newer certificate of the same key, as docs/kubernetes.md says.
  const kept = join(directory, 'keys/cluster')
  const before = await keysIn(join(directory, 'keys')).authority()
  await run(kept, 'openssl x509 -in ca.crt -signkey ca.key -days 3650 -out new.crt')
  await rename(join(kept, 'new.crt'), join(kept, 'ca.crt'))
  const after = await keysIn(join(directory, 'keys'), { caDirectory }).authority()
  t.is(after.publicKeySha256, before.publicKeySha256)
  t.not(after.certificate, before.certificate)
  await writeFile(join(kept, 'a.crt'), certificate)
  t.regex(await run(kept, 'openssl verify -x509_strict -purpose sslclient -CAfile ca.crt a.crt'), /: OK/)

  const rsa = await keysIn(join(directory, 'rsa')).controlPlaneFiles()
  await writePki(join(directory, 'pki'), rsa)
  t.deepEqual(await keysIn(join(directory, 'again'), { caDirectory }).controlPlaneFiles(), rsa)
  await t.throwsAsync(keysIn(join(directory, 'keys'), { caDirectory }).authority(), {
    instanceOf: KitError,
    code: 'conflict',
    message: /Cannot take ca.crt of /,
  })
})

test('kubeadm makes its own certificates with our CAs, and with EC ones that were taken', async (t) => {
  const directory = await makeFolder(t)
  const caDirectory = join(directory, 'pki')
  await makeEcPki(caDirectory)
  const kubeadm = join(await kubernetesBinaries(), 'kubeadm')
  const version = (await run(directory, `${kubeadm} version -o short`)).trim()
  for (const [name, options] of [
    ['made', {}],
    ['taken', { caDirectory }],
  ] as const) {
    const keys = keysIn(join(directory, `${name}-keys`), options)
    const folder = join(directory, name)
    await writePki(folder, await keys.controlPlaneFiles())
    await run(
      directory,
      `${kubeadm} init phase certs all --cert-dir ${folder} --kubernetes-version ${version} --apiserver-advertise-address 10.77.0.21`,
    )
    for (const [path, text] of await keys.controlPlaneFiles())
      t.is(await readFile(join(folder, path), 'utf8'), text, `${path} is as it was`)
    for (const [ca, leaf] of [
      ['ca', 'apiserver'],
      ['ca', 'apiserver-kubelet-client'],
      ['front-proxy-ca', 'front-proxy-client'],
      ['etcd/ca', 'apiserver-etcd-client'],
      ['etcd/ca', 'etcd/server'],
      ['etcd/ca', 'etcd/peer'],
      ['etcd/ca', 'etcd/healthcheck-client'],
    ])
      t.regex(await run(folder, `openssl verify -CAfile ${ca}.crt ${leaf}.crt`), /: OK/)
  }
})

test('createClusterKeys() takes a CA of one’s own alone, and refuses half a set and what is no CA', async (t) => {
  const directory = await makeFolder(t)
  const caDirectory = join(directory, 'pki')
  await makeEcPki(caDirectory)
  const whole = join(directory, 'whole')
  await cp(caDirectory, whole, { recursive: true })
  const attempt = () => keysIn(join(directory, 'keys'), { caDirectory }).controlPlaneFiles()
  const refused = (message: RegExp) =>
    t.throwsAsync(attempt(), { instanceOf: KitError, code: 'unavailable', message })

  await rm(join(caDirectory, 'sa.key'))
  await refused(/sa.pub, sa.key missing/)
  await cp(whole, caDirectory, { recursive: true })
  await cp(join(whole, 'ca.key'), join(caDirectory, 'etcd/ca.key'))
  await refused(/etcd\/ca.key belongs to another certificate/)
  await makeEcPki(caDirectory, '-days 900 -addext basicConstraints=critical,CA:false')
  await refused(/ca.crt is not the certificate of a CA/)
  await makeEcPki(caDirectory)
  await t.throwsAsync(
    keysIn(join(directory, 'keys'), { caDirectory, clock: clockAt(Date.now() + 901 * DAY_MS) }).start(),
    { message: /ca.crt ended on/ },
  )
  await rm(caDirectory, { recursive: true })
  await refused(/it is not there/)
  t.false((await readdir(directory)).includes('keys'), 'nothing was made meanwhile')

  await mkdir(caDirectory)
  for (const name of ['ca.crt', 'ca.key']) await cp(join(whole, name), join(caDirectory, name))
  const files = await attempt()
  t.is(files.get('ca.key'), await readFile(join(whole, 'ca.key'), 'utf8'))
  t.is(files.size, 8)
})

test('createClusterKeys() tells once when a CA comes to its end, and signs no more after it', async (t) => {
  const directory = await makeFolder(t)
  await keysIn(directory).authority()
  const endsMs = Date.now() + 10 * YEAR_MS
  const events: NewEvent[] = []
  let nowMs = endsMs - 91 * DAY_MS
  let again: (() => void) | undefined
  const heard: (() => void)[] = []
  const clock: Clock = {
    ...systemClock,
    nowMs: () => nowMs,
    after: (_delayMs, action) => {
      again = action
      for (const listener of heard.splice(0)) listener()
      return () => {}
    },
  }
  const keys = keysIn(directory, { clock, events: { append: async (event) => events.push(event) } })
  await keys.start()
  t.teardown(() => keys.stop())
  const nextDay = async (days: number) => {
    nowMs += days * DAY_MS
    const done = new Promise<void>((resolve) => heard.push(resolve))
    again?.()
    await done
  }
  t.is(events.length, 0)
  await nextDay(2)
  await nextDay(1)
  t.deepEqual(
    events.map(({ kind, data }) => [kind, data?.['ca']]),
    ['ca', 'front-proxy-ca', 'etcd/ca'].map((ca) => ['cluster-ca-expires', ca]),
  )
  t.regex(events[0]?.message ?? '', /^the CA ca of the cluster comes to its end on \d{4}-\d\d-\d\d$/)
  await nextDay(89)
  t.is(events.length, 6)
  t.regex(events[3]?.message ?? '', /came to its end/)
  await t.throwsAsync(keys.issueClient({ name: 'x', days: 1 }), {
    instanceOf: KitError,
    code: 'unavailable',
    message: /the CA ca of the cluster came to its end/,
  })
})
