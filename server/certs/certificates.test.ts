// Tests of the certificates that the server shows: to whom, until when, and what is told of it. curl and openssl look.

import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

import test, { type ExecutionContext } from 'ava'

import { KitError } from '#lib/errors.ts'
import { silentLog } from '#lib/log.ts'
import type { NewEvent } from '#machine/event.ts'
import { curl, startHttp } from '#testing/http-fixture.ts'
import { TurnedClock } from '#testing/turned-clock.ts'

import { type CertificatesOptions, openCertificates } from './certificates.ts'
import type { ServerNames } from './server-certificate.ts'

const DAY_MS = 86_400_000
const MINUTE_MS = 60_000

async function makeFolder(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'kit-certs-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

class Told {
  readonly events: NewEvent[] = []
  async append(event: NewEvent): Promise<void> {
    this.events.push(event)
  }
}

async function open(t: ExecutionContext, overrides: Partial<CertificatesOptions> = {}) {
  const directory = overrides.directory ?? (await makeFolder(t))
  const clock = new TurnedClock(Date.now())
  const told = new Told()
  const names: ServerNames = { hosts: ['attic', 'attic.local', 'localhost'], addresses: ['127.0.0.1'] }
  const certificates = await openCertificates({
    ...{ directory, clock, log: silentLog, events: told, names: () => names },
    ...overrides,
  })
  t.teardown(() => certificates.stop())
  return { certificates, directory, clock, told }
}

/** With the HTTP service in front of it. */
async function serve(t: ExecutionContext, overrides: Partial<CertificatesOptions> = {}) {
  const opened = await open(t, overrides)
  const { certificates, directory } = opened
  const http = await startHttp(t, {
    listen: [
      { address: '127.0.0.1', port: 0 },
      { address: '127.0.0.1', port: 0, tls: certificates },
    ],
  })
  await certificates.start()
  const caFile = join(directory, 'ca.pem')
  const { tlsPort } = http
  /** What the server shows to a client that asks for that name. */
  const shown = async (name?: string) => {
    const sni = name === undefined ? ['-noservername'] : ['-servername', name]
    const client = ['s_client', '-connect', `127.0.0.1:${tlsPort}`, ...sni]
    const done = promisify(execFile)('openssl', client)
    done.child.stdin?.end()
    const { stdout } = await done
    return new X509Certificate(/-----BEGIN[\s\S]+?-----END CERTIFICATE-----/.exec(stdout)?.[0] ?? '')
  }
  const get = (host: string, ...args: readonly string[]) =>
    curl(
      '--cacert',
      caFile,
      '--resolve',
      `${host}:${tlsPort}:127.0.0.1`,
      ...args,
      `https://${host}:${tlsPort}/healthz`,
    )
  return { ...opened, ...http, shown, get }
}

test('the server is believed by its names and addresses, by whoever has the CA, and by nobody else', async (t) => {
  const { get, directory, tlsPort } = await serve(t)
  for (const host of ['127.0.0.1', 'localhost', 'attic', 'attic.local'])
    t.regex(await get(host), /"ok"/, host)
  await t.throwsAsync(get('cellar'), { message: /no alternative certificate subject name matches/ })
  await t.throwsAsync(curl(`https://127.0.0.1:${tlsPort}/healthz`), {
    message: /self-signed certificate|unable to get local issuer/,
  })
  t.is((await stat(join(directory, 'server-tls.pem'))).mode & 0o777, 0o600)
})

test('the certificate of the server stays over restarts, and is another one when it is damaged', async (t) => {
  const { certificates, directory } = await open(t)
  const chain = () => certificates.material().chain
  const again = await open(t, { directory })
  t.is(again.certificates.material().chain, chain())
  t.is(again.certificates.authority.fingerprint, certificates.authority.fingerprint)
  const file = join(directory, 'server-tls.pem')
  const text = await readFile(file, 'utf8')
  for (const damaged of [text.slice(0, 1_500), '', text.replace(/-----BEGIN CERT[\s\S]*/, '')]) {
    await writeFile(file, damaged)
    const mended = await open(t, { directory })
    t.not(mended.certificates.material().chain, chain())
    t.deepEqual(mended.told.events, [], 'nobody had seen the one before')
  }
  t.deepEqual((await readdir(directory)).sort(), ['ca.key', 'ca.pem', 'server-tls.pem'])
})

test('the certificate of the server is renewed 30 days before its end, while connections go on', async (t) => {
  const { certificates, clock, told, shown, directory } = await serve(t)
  const first = await shown()
  t.is(first.validFromDate.getTime(), Math.floor((clock.nowMs() - DAY_MS) / 1000) * 1000)
  t.is(Math.round((first.validToDate.getTime() - clock.nowMs()) / DAY_MS), 90)
  const seen: string[] = []
  certificates.onChange(() => seen.push(certificates.material().chain))
  clock.ms += 59 * DAY_MS
  await turnMinutes(clock, 3)
  t.deepEqual(told.events, [])
  clock.ms += 2 * DAY_MS
  await turnUntil(clock, () => told.events.length > 0)
  t.is(told.events[0]?.kind, 'server-certificate')
  t.regex(told.events[0]?.message ?? '', /another certificate for the addresses of this server: it ends on/)
  const next = await shown()
  t.not(next.serialNumber, first.serialNumber)
  t.is(Math.round((next.validToDate.getTime() - clock.nowMs()) / DAY_MS), 90)
  t.is(seen.length, 1)
  t.true((await readFile(join(directory, 'server-tls.pem'), 'utf8')).includes(next.toString().trim()))
})

test('an address more is in another certificate within a minute, one less changes nothing', async (t) => {
  let addresses = ['127.0.0.1', '10.1.0.1']
  const { clock, told, shown } = await serve(t, { names: () => ({ hosts: ['localhost'], addresses }) })
  const first = await shown()
  addresses = ['127.0.0.1']
  clock.turn(MINUTE_MS)
  addresses = ['127.0.0.1', '10.2.0.1']
  await turnUntil(clock, () => told.events.length > 0)
  t.regex(told.events[0]?.message ?? '', /it does not cover 10\.2\.0\.1/)
  const next = await shown()
  t.not(next.serialNumber, first.serialNumber)
  t.is(next.checkIP('10.2.0.1'), '10.2.0.1')
  t.is(next.checkIP('10.1.0.1'), undefined)
})

async function makePair(folder: string, name: string, days = '30') {
  const files = { certificate: join(folder, 'own.pem'), key: join(folder, 'own.key') }
  await promisify(execFile)('openssl', [
    ...['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', files.key, '-out', files.certificate],
    ...['-days', days, '-subj', '/CN=own', '-addext', `subjectAltName=DNS:${name}`],
  ])
  return files
}

test('a certificate of one’s own answers to its name only, and is read again when its files change', async (t) => {
  const folder = await makeFolder(t)
  const files = await makePair(folder, 'Kit.Example.org')
  const { clock, told, shown, get } = await serve(t, { named: { name: 'kit.example.org', files } })
  const own = await shown('kit.example.org')
  t.is(own.subject, 'CN=own')
  t.is((await shown('KIT.example.ORG')).serialNumber, own.serialNumber)
  for (const other of [undefined, 'attic', 'example.org', 'kit.example.org.evil'])
    t.is((await shown(other)).subject, 'CN=KatesKit server', `${other}`)
  t.regex(await get('kit.example.org', '--cacert', files.certificate), /"ok"/)
  t.regex(await get('127.0.0.1'), /"ok"/)

  await makePair(folder, 'kit.example.org', '10')
  await turnUntil(clock, () => told.events.length > 1)
  const next = await shown('kit.example.org')
  t.not(next.serialNumber, own.serialNumber)
  t.like(told.events[0], { kind: 'server-certificate', data: { name: 'kit.example.org' } })
  t.like(told.events[1], { kind: 'certificate-failed' })
  t.regex(told.events[1]?.message ?? '', /own\.pem ends on .*: put another one there/)

  // Half of a new pair: what was there goes on, and it is told once.
  const key = await readFile(files.key)
  const other = await makePair(await makeFolder(t), 'kit.example.org')
  await writeFile(files.key, await readFile(other.key))
  await turnUntil(clock, () => told.events.length > 2)
  t.regex(
    told.events[2]?.message ?? '',
    /Cannot use .*own\.pem with .*own\.key: the key is not the one of the cert/,
  )
  await turnMinutes(clock, 3)
  t.is(told.events.length, 3)
  t.is((await shown('kit.example.org')).serialNumber, next.serialNumber)
  await writeFile(files.key, key)
  await turnUntil(clock, () => told.events.length > 3)
  t.is(told.events[3]?.kind, 'server-certificate')
})

test('openCertificates() refuses a certificate of one’s own that cannot be used, with all that is wrong', async (t) => {
  const folder = await makeFolder(t)
  const files = await makePair(folder, 'kit.example.org')
  const other = await makePair(await makeFolder(t), 'kit.example.org')
  const broken = join(folder, 'broken.pem')
  await writeFile(broken, 'x')
  const cases: [name: string, files: typeof files, message: RegExp][] = [
    [
      'other.example.org',
      { ...files, key: other.key },
      /the key is not the one.*; the certificate is not for other\.ex/,
    ],
    ['kit.example.org', { ...files, certificate: broken }, /the certificate is not PEM, or damaged/],
    ['kit.example.org', { ...files, key: broken }, /the key is not PEM, damaged, or has a passphrase/],
    ['kit.example.org', { ...files, key: join(folder, 'none') }, /Cannot read .*none: ENOENT/],
  ]
  for (const [name, wrong, message] of cases)
    await t.throwsAsync(open(t, { named: { name, files: wrong } }), { instanceOf: KitError, message })
  const clock = new TurnedClock(Date.now() + 31 * DAY_MS)
  const ended = open(t, { clock, named: { name: 'kit.example.org', files } })
  await t.throwsAsync(ended, { instanceOf: KitError, message: /the certificate ended on 20/ })
})

/** Turns the clock, a minute whenever a check waits for one, until the checks have done what they are to do. */
async function turnUntil(clock: TurnedClock, isDone: () => boolean): Promise<void> {
  while (!isDone()) {
    if (clock.waiting > 0) clock.turn(MINUTE_MS)
    await new Promise(setImmediate)
  }
}

/** All checks have run that often. */
async function turnMinutes(clock: TurnedClock, count: number): Promise<void> {
  const checks = clock.waiting
  for (let minute = 0; minute < count; minute += 1) {
    clock.turn(MINUTE_MS)
    while (clock.waiting < checks) await new Promise(setImmediate)
  }
}
