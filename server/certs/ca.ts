// The server's own CA: made once, kept where only the server reads its key.

import { createPrivateKey, generateKeyPair, type KeyObject, randomBytes, X509Certificate } from 'node:crypto'
import { mkdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { writeFileAtomically } from '#lib/atomic-file.ts'
import type { Clock } from '#lib/clock.ts'
import { describeError, KitError, systemErrorCode } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'

import { fingerprintOf, makeCertificate } from './x509.ts'

export const CA_FILE = 'ca.pem'
const KEY_FILE = 'ca.key'

export const DAY_MS = 24 * 60 * 60 * 1000
const LIFE_MS = 3_652 * DAY_MS
/** Machines whose clock is this late still believe a new certificate (docs/security.md, "TLS"). */
export const BACKDATED_MS = 24 * 60 * 60 * 1000
const WARN_BEFORE_MS = 365 * DAY_MS

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n?/

export interface Ca {
  readonly pem: string
  /** sha256 of the certificate's DER, hex. */
  readonly fingerprint: string
  readonly privateKey: KeyObject
  readonly untilMs: number
}

export interface CaOptions {
  readonly directory: string
  readonly clock: Clock
  readonly log: Log
}

/**
 * Makes it when there is none. `ca.key` holds the certificate too, so that one rename makes both: `ca.pem` is only its
 * public half and is made again when it is missing. Throws KitError `unavailable` for what cannot be used.
 */
export async function openCa(options: CaOptions): Promise<Ca> {
  const { directory, clock, log } = options
  const keyFile = join(directory, KEY_FILE)
  const caFile = join(directory, CA_FILE)
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 })
    const [keyText, caText] = await Promise.all([readIfThere(keyFile), readIfThere(caFile)])
    if (keyText === undefined && caText !== undefined) throw new Error(`${CA_FILE} is there, its key is not`)
    const ca = readCa(keyText ?? (await makeCa(keyFile, options)), caText)
    if (caText === undefined) await writeFileAtomically(caFile, ca.pem)
    await warnIfOpen(keyFile, log)
    warnOfEnd(ca, clock, log)
    return ca
  } catch (error) {
    throw new KitError('unavailable', `Cannot use the CA in ${keyFile}: ${describeError(error)}`, {
      fix: `put the right ${KEY_FILE} and ${CA_FILE} there, or move both away: a new CA is made then, and every machine has to prove itself anew`,
      cause: error,
    })
  }
}

/** A CA of one's own may have its certificate in `ca.pem` only. */
function readCa(keyText: string, caText: string | undefined): Ca {
  const privateKey = readKey(keyText)
  const inKeyFile = CERTIFICATE.exec(keyText)?.[0]
  const pem = inKeyFile ?? caText
  if (pem === undefined) throw new Error(`there is no ${CA_FILE}, and no certificate beside the key`)
  const certificate = readCertificate(inKeyFile === undefined ? CA_FILE : KEY_FILE, pem)
  if (!certificate.checkPrivateKey(privateKey)) throw new Error('the certificate belongs to another key')
  if (!certificate.ca || !certificate.verify(certificate.publicKey))
    throw new Error('the certificate is not one of a CA that signed itself')
  const fingerprint = fingerprintOf(certificate.raw)
  if (caText !== undefined && fingerprintOf(readCertificate(CA_FILE, caText).raw) !== fingerprint)
    throw new Error(`${CA_FILE} is another certificate than the one beside the key`)
  return { pem: certificate.toString(), fingerprint, privateKey, untilMs: certificate.validToDate.getTime() }
}

function readKey(text: string): KeyObject {
  const key = readOr(() => createPrivateKey(text), 'the key is damaged')
  if (key.asymmetricKeyType !== 'rsa') throw new Error('its key is not RSA')
  return key
}

function readCertificate(file: string, pem: string): X509Certificate {
  return readOr(() => new X509Certificate(pem), `the certificate in ${file} is damaged`)
}

/** What OpenSSL says of damaged keys helps nobody, and is not to be shown. */
function readOr<Value>(read: () => Value, message: string): Value {
  try {
    return read()
  } catch (cause) {
    throw new Error(message, { cause })
  }
}

async function makeCa(file: string, { clock, log }: CaOptions): Promise<string> {
  const { publicKey, privateKey } = await promisify(generateKeyPair)('rsa', { modulusLength: 3072 })
  const nowMs = clock.nowMs()
  const pem = makeCertificate(
    {
      // No two CAs share a name: programs look issuers up by it.
      commonName: `KatesKit CA ${randomBytes(4).toString('hex')}`,
      publicKey: publicKey.export({ type: 'spki', format: 'der' }),
      fromMs: nowMs - BACKDATED_MS,
      untilMs: nowMs + LIFE_MS,
      use: { kind: 'ca' },
    },
    { privateKey, pem: undefined },
  )
  const text = `${privateKey.export({ type: 'pkcs8', format: 'pem' })}${pem}`
  await writeFileAtomically(file, text, 0o600)
  log.info({ file }, 'made the CA of this server; keep a copy: machines believe no other')
  return text
}

async function warnIfOpen(file: string, log: Log): Promise<void> {
  const { mode } = await stat(file)
  if ((mode & 0o077) !== 0) log.warn({ file }, `the CA's key can be read by others: chmod 600 ${file}`)
}

function warnOfEnd({ untilMs }: Ca, clock: Clock, log: Log): void {
  const leftMs = untilMs - clock.nowMs()
  if (leftMs < WARN_BEFORE_MS)
    log.warn(
      { until: new Date(untilMs).toISOString() },
      'the CA of this server comes to its end: its machines will need a new one',
    )
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw error
  }
}
