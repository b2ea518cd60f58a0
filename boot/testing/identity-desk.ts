// The server's side of docs/ports-and-endpoints.md "How a machine proves who it is" for the tests of boot/, with a real CA,
// real certificates and real credentials, out of one folder:
//   identity           (if there) what to do instead of giving a certificate at once, a word and what belongs to it:
//                      `pair` or `pair known`: until the file `confirmed` is there; `close REASON`: the same, and then not;
//                      `nonces`: another nonce after the first; `refuse REASON`; `machine <mac>`: it is known by that one;
//                      `stranger`: the certificate is for another key; `silent`: no answer
//   identity-asked     gets a line per request: path, body
//   code               the code that the server sees

import { createHmac, generateKeyPairSync, randomBytes, timingSafeEqual } from 'node:crypto'
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'

import { createAuthority } from '#certs/authority.ts'
import { type Ca, openCa } from '#certs/ca.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLog } from '#lib/log.ts'
import { macToPath, parseMac } from '#lib/mac.ts'
import type { Authority, CertificateRequest } from '#machine/identity-ports.ts'
import { keepsCommitment, pairingCode } from '#machine/pairing-code.ts'
import { createTpmVerifier } from '#tpm/verifier.ts'

interface Attempt {
  readonly request: CertificateRequest
  readonly commitment: string
  readonly nonce: string
  /** Of the credential for its TPM. */
  readonly secret: Uint8Array
}

const PATH = /^\/v1\/machines\/([0-9a-f-]{17})\/identity(?:\/(\w+))?$/
const MOST_WAIT_MS = 300

/** `caFolder` gets a CA when it has none. */
export async function openTestDesk(folder: string, caFolder: string): Promise<TestDesk> {
  return new TestDesk(folder, await openCa({ directory: caFolder, clock: systemClock, log: silentLog }))
}

export class TestDesk {
  readonly ca: Ca
  readonly #folder: string
  readonly #authority: Authority
  readonly #verifier = createTpmVerifier({ clock: systemClock, log: silentLog })
  readonly #attempts = new Map<string, Attempt>()

  constructor(folder: string, ca: Ca) {
    this.ca = ca
    this.#folder = folder
    this.#authority = createAuthority(ca, systemClock)
  }

  /** Whether the path was one of its own: it is answered then. */
  handle(request: IncomingMessage, response: ServerResponse, url: URL): boolean {
    if (url.pathname === '/v1/ca.pem') {
      response.end(this.#read('ca.pem') || this.ca.pem)
      return true
    }
    if (!PATH.test(url.pathname)) return false
    if (this.#rule().word === 'silent') response.destroy()
    else void this.#respond(request, response, url)
    return true
  }

  async #respond(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    try {
      const step = await this.#decide(request, url)
      response.writeHead(200, { 'Content-Type': 'text/plain' }).end(step)
    } catch (error) {
      const message = error instanceof Error ? error.message : 'no error'
      response.writeHead(403, { 'Content-Type': 'application/json' })
      response.end(JSON.stringify({ error: { code: 'identity-refused', message, fix: 'ask a person' } }))
    }
  }

  async #decide(request: IncomingMessage, url: URL): Promise<string> {
    const [, mac = '', id] = PATH.exec(url.pathname) ?? []
    let text = ''
    for await (const chunk of request.setEncoding('utf8')) text += chunk
    appendFileSync(`${this.#folder}/identity-asked`, `${url.pathname} ${text}\n`)
    const { word, rest } = this.#rule()
    if (word === 'refuse') throw new Error(rest)
    if (id === undefined) return this.#begin(mac, text)
    if (request.method === 'POST') return this.#answer(mac, id, text)
    if (!this.#has('confirmed')) await pause(MOST_WAIT_MS)
    return this.#look(mac, id)
  }

  #begin(mac: string, text: string): string {
    const { csr, commitment, tpm } = JSON.parse(text)
    const request = this.#authority.readRequest(csr)
    const claim = tpm && { ek: Buffer.from(tpm.ek, 'base64'), key: Buffer.from(tpm.key, 'base64') }
    const made = claim ? this.#verifier.readClaim(claim, request).makeCredential() : undefined
    const id = randomBytes(6).toString('hex')
    const nonce = randomBytes(16).toString('hex')
    this.#attempts.set(id, { request, commitment, nonce, secret: made?.secret ?? new Uint8Array() })
    if (made === undefined) return this.#afterProof(mac, id)
    return `state challenge\nattempt ${id}\ncredential ${Buffer.from(made.credential).toString('base64')}\n`
  }

  #afterProof(mac: string, id: string): string {
    const { nonce, request } = this.#take(id)
    return ['pair', 'close', 'nonces'].includes(this.#rule().word)
      ? `state pairing\nattempt ${id}\nnonce ${nonce}\n`
      : this.#issue(mac, request)
  }

  #answer(mac: string, id: string, text: string): string {
    const { request, commitment, nonce, secret } = this.#take(id)
    const body = JSON.parse(text)
    if (body.proof !== undefined) {
      const expected = createHmac('sha256', secret).update(request.digest).digest()
      if (!timingSafeEqual(expected, Buffer.from(body.proof, 'hex'))) throw new Error('a wrong proof')
      return this.#afterProof(mac, id)
    }
    if (!keepsCommitment(commitment, body.nonce)) throw new Error('another nonce than it had bound itself to')
    if (this.#rule().word === 'nonces') return `state pairing\nattempt ${id}\nnonce ${'0'.repeat(32)}\n`
    const nonces = { machineNonce: body.nonce, serverNonce: nonce }
    const keys = { keySha256: request.keySha256, caFingerprint: this.ca.fingerprint }
    writeFileSync(`${this.#folder}/code`, pairingCode({ mac: parseMac(mac), ...keys, ...nonces }))
    return this.#look(mac, id)
  }

  #look(mac: string, id: string): string {
    const { word, rest } = this.#rule()
    if (!this.#has('confirmed'))
      return `state waiting\nattempt ${id}\nknown ${rest === 'known' ? 'yes' : 'no'}\n`
    return word === 'close' ? `state closed\nreason ${rest}\n` : this.#issue(mac, this.#take(id).request)
  }

  #issue(mac: string, request: CertificateRequest): string {
    const { word, rest } = this.#rule()
    const publicKey = word === 'stranger' ? strangersKey() : request.publicKey
    const known = parseMac(word === 'machine' ? rest : mac)
    const { pem } = this.#authority.issueForMachine({ ...request, publicKey }, known)
    return `state issued\nmachine ${macToPath(known)}\ntier paired\n\n${pem}`
  }

  #take(id: string): Attempt {
    const attempt = this.#attempts.get(id)
    if (attempt === undefined) throw new Error('this attempt is forgotten')
    return attempt
  }

  #rule(): { readonly word: string; readonly rest: string } {
    const [word = '', ...rest] = this.#read('identity').trim().split(' ')
    return { word, rest: rest.join(' ') }
  }

  #has(name: string): boolean {
    return existsSync(`${this.#folder}/${name}`)
  }

  #read(name: string): string {
    return this.#has(name) ? readFileSync(`${this.#folder}/${name}`, 'utf8') : ''
  }
}

function strangersKey(): Uint8Array {
  const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  return publicKey.export({ type: 'spki', format: 'der' })
}
