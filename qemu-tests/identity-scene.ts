// What the test of identities plays on: two machines, their secret files, a person, and an ear on the wire.

import { join } from 'node:path'

import type { ExecutionContext } from 'ava'

import { type LabMachine, parseLabMachines } from '#lab/lab-machines.ts'
import { findPairingLines } from '#lab/pairing.ts'
import type { Mac } from '#lib/mac.ts'
import type { AuditEntry } from '#machine/access-ports.ts'
import type { Identity } from '#machine/identity.ts'

import { INSTALLED_FILES } from './installed-lan.ts'
import { type Person, personAt } from './kateskit.ts'
import { type LateClock, lateClock } from './late-clock.ts'
import {
  filesToSearch,
  findNeedles,
  keyNeedlesIn,
  makeSecret,
  type Needle,
  needleOf,
  totalBytes,
} from './planted.ts'
import { machineFiles } from './profile-files.ts'
import { BIOS, startTestLan, type TestLan, UEFI } from './test-lan.ts'
import { captureWire, type WireCapture } from './wire-capture.ts'

/** Another machine, which gets the disk of BIOS. */
export const [, OTHER] = parseLabMachines('bios,bios') as [LabMachine, LabMachine]

/** Secret files: the machine's own, and one that both have. */
export const OWN = '/etc/kit-test/own'
export const SHARED = '/etc/kit-test/shared'

const PUBLIC = makeSecret('public')
export const SECRETS = {
  uefi: makeSecret('uefi'),
  bios: makeSecret('bios'),
  other: makeSecret('other'),
  shared: makeSecret('shared'),
} as const

/** A machine says on its console that its secret is there before the network is. */
const LOOK = `[ ! -s ${OWN} ] || echo "kit-test: $(stat -c %a ${OWN}) $(wc -c <${OWN}) bytes, before the network" >/dev/console\n`

const FILES = {
  ...INSTALLED_FILES,
  // Nothing fails here: no boot is too slow.
  'defaults/root/etc/kit/agent.conf': 'GRACE_SECONDS=10\n',
  'roles/worker/root/etc/kit-test/public': PUBLIC,
  'roles/worker/root/etc/kit-test/look': LOOK,
  'roles/worker/root/etc/systemd/system/systemd-networkd.service.d/kit-test.conf':
    '[Service]\nExecStartPre=-+/bin/sh /etc/kit-test/look\n',
  ...machineFiles(UEFI.mac, { ip: '10.77.0.50\n' }),
  ...machineFiles(BIOS.mac, { ip: '10.77.0.51\n' }),
  ...machineFiles(OTHER.mac, { role: 'worker\n' }),
}

/** As they are put there; then they are sealed. */
const SECRET_FILES = {
  [`roles/worker/secret${SHARED}`]: SECRETS.shared,
  ...machineFiles(UEFI.mac, { [`secret${OWN}`]: SECRETS.uefi }),
  ...machineFiles(BIOS.mac, { [`secret${OWN}`]: SECRETS.bios }),
  ...machineFiles(OTHER.mac, { [`secret${OWN}`]: SECRETS.other }),
}

/** More than half of the life of a certificate, which begins a day before it is made (docs/security.md, "TLS"), is over then. */
const DAYS_LATE = 3.5

export interface Scene {
  readonly t: ExecutionContext
  readonly lan: TestLan
  readonly person: Person
  readonly clock: LateClock
  readonly wire: WireCapture
  /** What must be found nowhere; more comes to be on the way. */
  readonly needles: Needle[]
}

/** Everything that goes over the wire from now on is written down. */
export async function openScene(t: ExecutionContext): Promise<Scene> {
  const clock = await lateClock(t, DAYS_LATE)
  const environment = { KATESKIT_LOG_LEVEL: 'debug', ...clock.environment }
  const lan = await startTestLan(t, { mode: 'server', files: FILES, environment })
  const person = personAt(lan)
  const wire = await captureWire(t, lan.network)
  return { t, lan, person, clock, wire, needles: await plant(lan, person) }
}

/** Secret files, sealed as a person seals them; and a token, which is used once. */
async function plant(lan: TestLan, person: Person): Promise<Needle[]> {
  const { folder, netns, server } = lan.network
  await lan.writeProfile(SECRET_FILES)
  await person.does('secret', 'seal')
  const token = await server.client.makeToken('planted')
  await netns.run('curl', [
    ...['--silent', '--show-error', '--fail', '--cacert', join(folder, 'keys/ca.pem')],
    ...['--header', `authorization: Bearer ${token}`, 'https://10.77.0.1:8443/api/v1/machines'],
  ])
  return [
    ...Object.entries(SECRETS).map(([name, secret]) => needleOf(`the secret ${name}`, secret)),
    needleOf('the token', token),
    ...(await keyNeedlesIn(join(folder, 'keys'))),
  ]
}

export async function identityOf(person: Person, mac: Mac): Promise<Identity | undefined> {
  const { identities } = JSON.parse(await person.does('identities', '--json')) as { identities: Identity[] }
  return identities.find((identity) => identity.mac === mac)
}

/** What the audit log has of somebody who was not taken for that machine. */
export async function refusalInAudit(person: Person, mac: Mac): Promise<AuditEntry | undefined> {
  const { entries } = JSON.parse(await person.does('audit', '--json', '--limit', '500')) as {
    entries: AuditEntry[]
  }
  return entries.find(({ action, target }) => action === 'identity-conflict' && target === mac)
}

const CONSOLES = /\/(uefi|bios|bios-2|impostor)\.log$/

/** Stops the server. Everything there is but the disks, TPMs and keys themselves. */
export async function searchAll(
  { t, lan, wire, needles }: Scene,
  consoles: readonly string[],
): Promise<void> {
  t.is(await wire.stop(), 0, 'nothing is missing in the capture')
  await lan.network.server.stop()
  const { folder } = lan.network
  const files = [...(await filesToSearch(folder)), ...(await filesToSearch(lan.profiles))]
  for (const name of ['wire.pcap', 'server.log', 'state/kateskit.db'])
    t.true(files.includes(join(folder, name)))
  t.is(files.filter((file) => CONSOLES.test(file)).length, 4)
  t.deepEqual(await findNeedles(files, needles), [])

  // The codes stand on the consoles, and there only.
  const codes = [...new Set(consoles.flatMap(findPairingLines).map(({ code }) => code))]
  t.true(codes.length >= 3)
  const elsewhere = files.filter((file) => !CONSOLES.test(file))
  const asShown = codes.map((code) => ({ name: `the code ${code}`, forms: [code] }))
  t.deepEqual(await findNeedles(elsewhere, asShown), [])

  // What is public is found.
  t.deepEqual(await findNeedles([wire.file], [{ name: 'it', forms: [PUBLIC] }]), [`it in ${wire.file}`])
  const megabytes = async (some: readonly string[]) => Math.round((await totalBytes(some)) / 1e6)
  t.log(
    `${needles.length} secrets and ${codes.length} codes are not in ${files.length} files of ${await megabytes(files)} MB,`,
    `${await megabytes([wire.file])} MB of them from the wire`,
  )
}
