// The certificate of our own CA that the server shows to machines, and by its addresses to everybody.

import { createPrivateKey, generateKeyPair, X509Certificate } from 'node:crypto'
import { promisify } from 'node:util'

import type { Clock } from '#lib/clock.ts'
import type { TlsMaterial } from '#machine/tls-ports.ts'

import { BACKDATED_MS, type Ca, DAY_MS } from './ca.ts'
import type { CheckOutcome, KeptCertificate } from './kept-certificate.ts'
import { readKeyFile, writeKeyFile } from './key-file.ts'
import { makeCertificate } from './x509.ts'

const LIFE_MS = 90 * DAY_MS
const RENEW_BEFORE_MS = 30 * DAY_MS

/** What the server is reached by. */
export interface ServerNames {
  readonly hosts: readonly string[]
  readonly addresses: readonly string[]
}

export interface ServerCertificateOptions {
  readonly ca: Ca
  /** The key and the certificate, together. */
  readonly file: string
  /** What the server is reached by, as it is now. */
  readonly names: () => ServerNames
  readonly clock: Clock
}

/** Kept in a file, so that people who looked at it once need not look again after a restart. */
export class ServerCertificate implements KeptCertificate {
  readonly #options: ServerCertificateOptions
  #material: TlsMaterial | undefined

  constructor(options: ServerCertificateOptions) {
    this.#options = options
  }

  material(): TlsMaterial | undefined {
    return this.#material
  }

  async check(): Promise<CheckOutcome> {
    const { ca, file, names, clock } = this.#options
    const facts = { ca, wanted: names(), nowMs: clock.nowMs() }
    const kept = this.#material ?? (await readKeyFile(file))
    const reason = kept === undefined ? 'there was none' : findRenewalReason(kept, facts)
    if (kept !== undefined && reason === undefined) {
      this.#material = kept
      return {}
    }
    const made = await makeServerCertificate(ca, facts.wanted, facts.nowMs)
    await writeKeyFile(file, made)
    this.#material = made
    return { change: reason ?? '' }
  }
}

export async function makeServerCertificate(
  ca: Ca,
  wanted: ServerNames,
  nowMs: number,
): Promise<TlsMaterial> {
  const { publicKey, privateKey } = await promisify(generateKeyPair)('rsa', { modulusLength: 2048 })
  const chain = makeCertificate(
    {
      commonName: 'KatesKit server',
      publicKey: publicKey.export({ type: 'spki', format: 'der' }),
      fromMs: nowMs - BACKDATED_MS,
      untilMs: Math.min(nowMs + LIFE_MS, ca.untilMs),
      use: { kind: 'server', names: wanted.hosts, addresses: wanted.addresses },
    },
    ca,
  )
  return { key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(), chain }
}

/** Why another is to be made, or undefined while this one is good. What it holds beyond what is wanted does no harm. */
function findRenewalReason(
  { key, chain }: TlsMaterial,
  { ca, wanted, nowMs }: { readonly ca: Ca; readonly wanted: ServerNames; readonly nowMs: number },
): string | undefined {
  const certificate = new X509Certificate(chain)
  if (!certificate.checkPrivateKey(createPrivateKey(key))) return 'it belongs to another key'
  const issuer = new X509Certificate(ca.pem)
  if (!certificate.checkIssued(issuer) || !certificate.verify(issuer.publicKey)) return 'another CA signed it'
  if (nowMs < certificate.validFromDate.getTime()) return 'its time has not come'
  // A CA that ends soon signs for no longer than its own time; making another each minute would mend nothing.
  const untilMs = certificate.validToDate.getTime()
  const isLast = untilMs >= Math.floor(ca.untilMs / 1000) * 1000
  if (!isLast && untilMs - nowMs < RENEW_BEFORE_MS)
    return `it ends on ${certificate.validToDate.toISOString()}`
  const missing = [
    ...wanted.hosts.filter((host) => certificate.checkHost(host, { subject: 'never' }) === undefined),
    ...wanted.addresses.filter((address) => certificate.checkIP(address) === undefined),
  ]
  return missing.length > 0 ? `it does not cover ${missing.join(', ')}` : undefined
}
