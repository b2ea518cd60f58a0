// A machine as the server meets it: a key of its own, the real exchange for a certificate, and calls with that.

import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { promisify } from 'node:util'

import { type Mac, macToPath } from '#lib/mac.ts'
import { pairingCode } from '#machine/pairing-code.ts'

import type { Answer } from './http-fixture.ts'
import { callTls, type TlsInit } from './tls-fixture.ts'

export interface MachineKeys {
  /** PEM both. */
  readonly key: string
  readonly csr: string
  /** sha256 of the public key, hex. */
  readonly keySha256: string
}

/** A new key; making one takes some tenths of a second. */
export async function makeMachineKeys(): Promise<MachineKeys> {
  const subject = ['-subj', '/CN=a machine']
  const { stdout } = await promisify(execFile)('openssl', [
    ...['req', '-new', '-newkey', 'rsa:2048', '-nodes', '-keyout', '-', ...subject],
  ])
  const [key = '', csr = ''] = stdout.match(/-----BEGIN [\s\S]*?-----END [^\n]*\n/g) ?? []
  const der = await publicKeyOf(csr)
  return { key, csr, keySha256: createHash('sha256').update(der).digest('hex') }
}

async function publicKeyOf(csr: string): Promise<Buffer> {
  const run = promisify(execFile)('openssl', ['req', '-noout', '-pubkey'])
  run.child.stdin?.end(csr)
  const { stdout } = await run
  return Buffer.from(stdout.replace(/-----[^-]*-----|\s/g, ''), 'base64')
}

const shared = new Map<number, Promise<MachineKeys>>()

/** The same for the same number in one process. */
export function machineKeys(number = 0): Promise<MachineKeys> {
  const made = shared.get(number) ?? makeMachineKeys()
  shared.set(number, made)
  return made
}

export interface TestMachineOptions {
  /** `https://127.0.0.1:8443` */
  readonly tlsUrl: string
  /** PEM of the CA's certificate, and its fingerprint. */
  readonly ca: string
  readonly caFingerprint: string
  readonly mac: Mac
  readonly keys: MachineKeys
  /** All its MACs; default: the one. */
  readonly macs?: readonly Mac[]
}

/** The lines of a step by their names; `pem` is what follows them. */
export type Step = Readonly<Record<string, string>>

export class TestMachine {
  readonly options: TestMachineOptions
  readonly #nonce = randomBytes(16).toString('hex')
  certificate: string | undefined

  constructor(options: TestMachineOptions) {
    this.options = options
  }

  /** With its certificate once it has one. */
  call(what: string, init: Omit<TlsInit, 'ca'> = {}): Promise<Answer> {
    const { tlsUrl, ca, mac, keys } = this.options
    const own = this.certificate === undefined ? {} : { key: keys.key, cert: this.certificate }
    return callTls(`${tlsUrl}/v1/machines/${macToPath(mac)}/${what}`, { ca, ...own, ...init })
  }

  say(what: string, body: unknown): Promise<Answer> {
    return this.call(what, { method: 'POST', body: JSON.stringify(body) })
  }

  /** Its certificate, by what the server asks of it; `pair` is given the code when it asks for one. */
  async prove(pair?: (code: string) => Promise<unknown>): Promise<Step> {
    let step = await this.begin()
    if (step['state'] === 'pairing') {
      const code = this.codeFor(step)
      step = await this.answer(step, { nonce: this.#nonce })
      if (pair !== undefined) {
        await pair(code)
        step = readStep(await this.call(`identity/${step['attempt']}?wait=30`))
      }
    }
    if (step['state'] === 'issued') this.certificate = step['pem']
    return step
  }

  /** The first step. */
  async begin(more: object = {}): Promise<Step> {
    const { mac, macs = [mac], keys } = this.options
    const commitment = createHash('sha256').update(this.#nonce).digest('hex')
    return readStep(await this.say('identity', { csr: keys.csr, macs, commitment, ...more }))
  }

  async answer(step: Step, body: object): Promise<Step> {
    return readStep(await this.say(`identity/${step['attempt']}`, body))
  }

  /** What its console shows. */
  codeFor(step: Step): string {
    const { mac, keys, caFingerprint } = this.options
    const nonces = { machineNonce: this.#nonce, serverNonce: step['nonce'] ?? '' }
    return pairingCode({ mac, keySha256: keys.keySha256, caFingerprint, ...nonces })
  }

  get nonce(): string {
    return this.#nonce
  }
}

/** An error is a step of the state `error`, with its `code`. */
export function readStep({ status, body }: Answer): Step {
  if (status !== 200) {
    const { code = '', message = '' } = (body as { error?: Record<string, string> }).error ?? {}
    return { state: 'error', status: `${status}`, code, message }
  }
  const [head = '', pem] = `${body}`.split('\n\n')
  const fields = head.split('\n').map((line) => [line.split(' ')[0] ?? '', line.replace(/^\S+ ?/, '')])
  return { ...Object.fromEntries(fields), ...(pem !== undefined && { pem }) }
}
