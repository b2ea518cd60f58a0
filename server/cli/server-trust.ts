// Whether the server at the other end of `--url` is the one that was meant, found out before a token is sent to it.

import { X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { request } from 'node:https'
import { connect, type DetailedPeerCertificate, type TLSSocket } from 'node:tls'

import { describeError, KitError, systemErrorCode } from '#lib/errors.ts'

const TIMEOUT_MS = 15_000
const CA_MAX_BYTES = 64 * 1024
/** sha256, as `kateskit ca` and openssl print it. */
const FINGERPRINT = /^[0-9a-f]{2}(:?[0-9a-f]{2}){31}$/i

/**
 * PEM of the certificate that the server's must come from; undefined for those that this system trusts. `ca` is a
 * fingerprint or a PEM file. Throws KitError `forbidden` with what was seen instead, `unavailable`, `invalid-input`.
 */
export async function findTrust(url: string, ca: string | undefined): Promise<string | undefined> {
  if (ca === undefined) {
    await requireKnownCa(url)
    return undefined
  }
  if (!FINGERPRINT.test(ca)) return readCaFile(ca)
  const pin = plainHex(ca)
  const { own, offered } = await seenAt(url)
  const pinned = [...offered, ...(own === undefined ? [] : [own])].find(
    (certificate) => plainHex(certificate.fingerprint256) === pin,
  )
  if (pinned !== undefined) return pinned.toString()
  throw new KitError(
    'forbidden',
    `Cannot trust ${url}: it shows the CA ${fingerprintOf({ own, offered })}, not ${pin}`,
    {
      fix: 'compare with what kateskit ca prints on the server; if that is another one, somebody is in between',
    },
  )
}

async function readCaFile(file: string): Promise<string> {
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new KitError('invalid-input', `Cannot read the CA ${JSON.stringify(file)}`, {
      fix: 'give the fingerprint that kateskit ca prints on the server, or a PEM file',
      cause,
    })
  })
  if (text.includes('-----BEGIN CERTIFICATE-----')) return text
  throw new KitError('invalid-input', `Cannot use the CA ${JSON.stringify(file)}: it is no PEM certificate`)
}

async function requireKnownCa(url: string): Promise<void> {
  const socket = await handshake(url, { rejectUnauthorized: true }).catch(async (error: unknown) => {
    if (!(error instanceof Error) || isOfNetwork(error)) throw cannotReach(url, error)
    const fingerprint = fingerprintOf(await seenAt(url))
    throw new KitError('forbidden', `Cannot trust ${url}: ${error.message}; it shows the CA ${fingerprint}`, {
      fix: `when kateskit ca prints the same on the server: export KATESKIT_CA=${fingerprint}`,
      cause: error,
    })
  })
  socket.destroy()
}

/** What an unknown server shows. Nothing of it is believed, and nothing secret is sent there. */
interface Seen {
  /** The CA that it calls its own. */
  readonly own: X509Certificate | undefined
  /** The certificates of the handshake. */
  readonly offered: readonly X509Certificate[]
}

async function seenAt(url: string): Promise<Seen> {
  const socket = await handshake(url, { rejectUnauthorized: false }).catch((error: unknown) => {
    throw cannotReach(url, error)
  })
  const offered = chainOf(socket)
  socket.destroy()
  // Roots are seldom part of a handshake (RFC 8446 §4.4.2).
  return { own: await fetchCa(url).catch(() => undefined), offered }
}

function fingerprintOf({ own, offered }: Seen): string {
  const certificate = own ?? offered.at(-1)
  return certificate === undefined ? 'none' : plainHex(certificate.fingerprint256)
}

function chainOf(socket: TLSSocket): readonly X509Certificate[] {
  const chain: X509Certificate[] = []
  const seen = new Set<string>()
  let next: DetailedPeerCertificate | undefined = socket.getPeerCertificate(true)
  // The last one is its own issuer.
  while (next?.raw !== undefined && !seen.has(next.fingerprint256)) {
    seen.add(next.fingerprint256)
    chain.push(new X509Certificate(next.raw))
    next = next.issuerCertificate
  }
  return chain
}

function handshake(url: string, { rejectUnauthorized }: { rejectUnauthorized: boolean }): Promise<TLSSocket> {
  const { hostname, port } = new URL(url)
  const host = hostname.replace(/^\[|\]$/g, '')
  const isName = !/^[\d.]+$|:/.test(host) // no address may be sent as a name (RFC 6066 §3)
  return new Promise((resolve, reject) => {
    const options = { host, port: Number(port || 443), rejectUnauthorized, timeout: TIMEOUT_MS }
    const socket = connect({ ...options, ...(isName && { servername: host }) }, () => resolve(socket))
    socket.once('error', reject)
    socket.once('timeout', () => socket.destroy(Object.assign(new Error('no answer'), { code: 'ETIMEDOUT' })))
  })
}

function fetchCa(url: string): Promise<X509Certificate> {
  const { promise, resolve, reject } = Promise.withResolvers<X509Certificate>()
  const signal = AbortSignal.timeout(TIMEOUT_MS)
  const asked = request(new URL('/v1/ca.pem', url), { rejectUnauthorized: false, agent: false, signal })
  asked.once('error', reject)
  asked.once('response', async (response) => {
    try {
      const chunks: Buffer[] = []
      let size = 0
      for await (const chunk of response as AsyncIterable<Buffer>) {
        size += chunk.length
        if (size > CA_MAX_BYTES) throw new Error('too large')
        chunks.push(chunk)
      }
      resolve(new X509Certificate(Buffer.concat(chunks)))
    } catch (error) {
      reject(error)
    }
  })
  asked.end()
  return promise
}

function plainHex(fingerprint: string): string {
  return fingerprint.replaceAll(':', '').toLowerCase()
}

/** System calls have names such as ECONNREFUSED; OpenSSL's verdicts on certificates have others. */
function isOfNetwork(error: Error): boolean {
  return 'syscall' in error || ['ETIMEDOUT', 'ECONNRESET'].includes(systemErrorCode(error) ?? '')
}

function cannotReach(url: string, error: unknown): KitError {
  return new KitError('unavailable', `Cannot reach the server at ${url}: ${describeError(error)}`, {
    fix: 'name the HTTPS port of a running server: https://<host>:8443',
    cause: error,
  })
}
