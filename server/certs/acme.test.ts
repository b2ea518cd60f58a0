// Tests of certificates by ACME, against Let's Encrypt's own test server.

import { X509Certificate } from 'node:crypto'
import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import test, { type ExecutionContext } from 'ava'

import { silentLog } from '#lib/log.ts'
import type { NewEvent } from '#machine/event.ts'
import { curl, startHttp } from '#testing/http-fixture.ts'
import { enterOwnNetwork } from '#testing/own-network.ts'
import { PEBBLE_DIRECTORY, startPebble } from '#testing/pebble.ts'
import { TurnedClock } from '#testing/turned-clock.ts'

import { type Certificates, type CertificatesOptions, openCertificates } from './certificates.ts'

const DAY_MS = 86_400_000
const MINUTE_MS = 60_000
const NAME = 'kit.example.org'

test.before(() => enterOwnNetwork())

async function makeFolder(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'kit-acme-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

async function open(t: ExecutionContext, directory: string, overrides: Partial<CertificatesOptions> = {}) {
  const clock = new TurnedClock(Date.now())
  const events: NewEvent[] = []
  const certificates = await openCertificates({
    ...{
      directory,
      clock,
      log: silentLog,
      names: () => ({ hosts: ['localhost'], addresses: ['127.0.0.1'] }),
    },
    events: { append: async (event) => events.push(event) },
    named: { name: NAME, acme: { directoryUrl: PEBBLE_DIRECTORY, email: 'kate@example.org' } },
    ...overrides,
  })
  t.teardown(() => certificates.stop())
  return { certificates, clock, events }
}

function serve(t: ExecutionContext, certificates: Certificates) {
  return startHttp(t, {
    listen: [
      { address: '127.0.0.1', port: 0 },
      { address: '127.0.0.1', port: 0, tls: certificates },
    ],
    challengeAnswer: (token) => certificates.challengeAnswer(token),
  })
}

/** Turns the clock, a minute whenever a check waits for one, until enough was told. */
async function untilTold(
  clock: TurnedClock,
  events: readonly NewEvent[],
  count: number,
): Promise<NewEvent | undefined> {
  while (events.length < count) {
    if (clock.waiting > 1) clock.turn(MINUTE_MS)
    await new Promise((resolve) => setImmediate(resolve))
  }
  return events[count - 1]
}

test.serial('a certificate is ordered, shown to whoever asks for its name, kept, and renewed', async (t) => {
  const folder = await makeFolder(t)
  const { certificates, clock, events } = await open(t, join(folder, 'keys'))
  const { port, tlsPort, authority: _, ...http } = await serve(t, certificates)
  const pebble = await startPebble(t, { folder, httpPort: port })
  t.is(certificates.materialFor(NAME), undefined)
  await certificates.start()
  const first = await untilTold(clock, events, 1)
  t.like(first, { kind: 'server-certificate', data: { name: NAME } })
  t.is(first?.message, `another certificate for ${NAME}: from ${PEBBLE_DIRECTORY}`)

  const root = join(folder, 'root.pem')
  await writeFile(root, await pebble.root())
  const get = (host: string, ca: string) =>
    curl('--cacert', ca, '--resolve', `${host}:${tlsPort}:127.0.0.1`, `https://${host}:${tlsPort}/healthz`)
  t.regex(await get(NAME, root), /"ok"/)
  t.regex(await get('127.0.0.1', join(folder, 'keys', 'ca.pem')), /"ok"/, 'machines see no other than before')
  const files = (await readdir(join(folder, 'keys'))).filter((name) => name.startsWith('acme-'))
  t.is(files.length, 2, 'the account’s key, and the certificate with its own')
  for (const file of files) t.is((await stat(join(folder, 'keys', file))).mode & 0o777, 0o600)
  t.regex(await curl(`${http.url}/.well-known/acme-challenge/x`), /not-found/)

  const chain = certificates.materialFor(NAME)?.chain ?? ''
  const { validToDate, validFromDate } = new X509Certificate(chain)
  clock.ms = validToDate.getTime() - (validToDate.getTime() - validFromDate.getTime()) / 3 - DAY_MS
  await untilTold(clock, events, 2) // of the server's own certificate
  t.is(certificates.materialFor(NAME)?.chain, chain)
  clock.ms += 2 * DAY_MS
  t.like(await untilTold(clock, events, 3), { kind: 'server-certificate', data: { name: NAME } })
  const renewed = certificates.materialFor(NAME)?.chain ?? ''
  t.not(renewed, chain)
  t.regex(await get(NAME, root), /"ok"/)

  await pebble.stop()
  const again = await open(t, join(folder, 'keys'))
  t.is(again.certificates.materialFor(NAME)?.chain, renewed, 'after a restart')
})

test.serial('what fails is told and tried again later, and the server goes on', async (t) => {
  const folder = await makeFolder(t)
  const { certificates, clock, events } = await open(t, join(folder, 'keys'))
  const { port, tlsPort, caFile } = await serve(t, certificates)
  await certificates.start()
  const unreachable = await untilTold(clock, events, 1)
  t.like(unreachable, { kind: 'certificate-failed', data: { name: NAME } })
  t.regex(
    unreachable?.message ?? '',
    /^Cannot get a certificate for kit\.example\.org from .*: .*ECONNREFUSED/,
  )
  t.regex(await curl('-k', '--cacert', caFile, `https://127.0.0.1:${tlsPort}/healthz`), /"ok"/)

  // It asks for the challenge where nobody answers.
  const wrong = await startPebble(t, { folder, httpPort: 9 })
  const before = clock.nowMs()
  const refused = await untilTold(clock, events, 2)
  t.true(clock.nowMs() - before >= 14 * MINUTE_MS, 'no sooner than a quarter of an hour later')
  t.regex(refused?.message ?? '', /connection refused|Fetching/i)
  await wrong.stop()
  await startPebble(t, { folder, httpPort: port })
  t.like(await untilTold(clock, events, 3), { kind: 'server-certificate', data: { name: NAME } })
})
