// A machine as the server knows it: it makes a key, proves who it is with a person's help, and speaks over mTLS from then on.

import { createHash, randomBytes } from 'node:crypto'
import { request as plainRequest } from 'node:http'
import { request as tlsRequest } from 'node:https'

import { type Mac, macToPath } from '#lib/mac.ts'
import { pairingCode } from '#machine/pairing-code.ts'

import { type AttackedLan, HTTP_URL, TLS_URL } from './attacked-lan.ts'
import { makeMachineKeys } from './test-machine.ts'

/** One request, in a form that can be sent again by somebody else. */
export interface Spoken {
  readonly method: string
  readonly path: string
  readonly body?: string
}

export interface Heard {
  readonly status: number
  readonly bytes: Buffer
  readonly text: string
}

export interface Credentials {
  readonly key: string
  readonly cert: string
}

export interface Speaking extends Spoken {
  readonly over: 'plain' | 'tls'
  /** The address to speak from. */
  readonly from: string
  readonly ca?: string
  readonly credentials?: Credentials
  readonly headers?: Readonly<Record<string, string>>
}

/** A connection of its own for each. */
export function speak({ over, from, ca, credentials, body, ...init }: Speaking): Promise<Heard> {
  const { promise, resolve, reject } = Promise.withResolvers<Heard>()
  const { hostname, port } = new URL(over === 'tls' ? TLS_URL : HTTP_URL)
  const request = over === 'tls' ? tlsRequest : plainRequest
  const trust = ca === undefined ? { rejectUnauthorized: false } : { ca }
  const options = { hostname, port, ...init, ...trust, ...credentials, localAddress: from, agent: false }
  const sent = request(options, async (response) => {
    try {
      const bytes = Buffer.concat(await response.toArray())
      resolve({ status: response.statusCode ?? 0, bytes, text: bytes.toString('latin1') })
    } catch (error) {
      reject(error)
    }
  })
  sent.on('error', reject)
  sent.end(body)
  return promise
}

export class ProvedMachine {
  readonly mac: Mac
  readonly from: string
  /** Everything it said, in order. */
  readonly said: (Spoken & { readonly over: 'plain' | 'tls' })[] = []
  ca = ''
  credentials: Credentials | undefined
  boot = ''
  bundle = ''

  constructor(mac: Mac, from: string) {
    this.mac = mac
    this.from = from
  }

  /** Names a new boot. */
  async netboot(): Promise<Heard> {
    const script = await this.plain('GET', `/boot/${macToPath(this.mac)}.ipxe?platform=efi&buildarch=x86_64`)
    this.boot = /\bkit\.boot=(\S+)/.exec(script.text)?.[1] ?? ''
    this.bundle = /\bkit\.bundle=(\S+)/.exec(script.text)?.[1] ?? ''
    return script
  }

  /** From the first request of a netboot to a certificate. A person at the control socket types the code. */
  async prove(lan: AttackedLan): Promise<void> {
    const fingerprint = /\bkit\.ca=(\S+)/.exec((await this.netboot()).text)?.[1] ?? ''
    this.ca = (await this.plain('GET', '/v1/ca.pem')).text
    const key = await makeMachineKeys()
    const nonce = randomBytes(16).toString('hex')
    const begun = await this.tls('POST', this.#path('identity'), {
      csr: key.csr,
      macs: [this.mac],
      commitment: createHash('sha256').update(nonce).digest('hex'),
    })
    const attempt = lineOf(begun.text, 'attempt')
    const attemptPath = this.#path(`identity/${attempt}`)
    const waiting = await this.tls('POST', attemptPath, { nonce })
    if (lineOf(waiting.text, 'state') !== 'waiting') throw new Error(`It does not wait:\n${waiting.text}`)
    const code = pairingCode({
      ...{ mac: this.mac, keySha256: key.keySha256, caFingerprint: fingerprint },
      ...{ machineNonce: nonce, serverNonce: lineOf(begun.text, 'nonce') },
    })
    const paired = await lan.api(`/machines/${this.mac}/pair`, { method: 'POST', body: { code } })
    if (paired.status !== 200) throw new Error(`It cannot be paired: ${JSON.stringify(paired.body)}`)
    const issued = await this.tls('GET', `${attemptPath}?wait=10`)
    this.credentials = { key: key.key, cert: issued.text.slice(issued.text.indexOf('-----BEGIN')) }
  }

  /** What it says of its boot from the first step to its secrets, which are the answer's bytes. */
  async install(): Promise<Heard> {
    await this.plain('POST', this.#path('events'), { boot: this.boot, step: '10-network', status: 'done' })
    const disks = { boot: this.boot, firmware: 'uefi', disks: [] }
    await this.tls('POST', this.#path('disks'), disks)
    await this.checkIn('starting')
    await this.tls('POST', this.#path('events'), { boot: this.boot, step: '40-image', status: 'done' })
    await this.checkIn('running')
    const target = await this.tls('GET', `${this.#path('target')}?boot=${this.boot}`)
    if (target.status !== 200) throw new Error(`It has no target: ${target.status} ${target.text}`)
    const asked = { kubernetes: 'v1.33.1', node: 'none', kubeletKey: '0'.repeat(64), address: this.from }
    const grant = await this.tls('POST', this.#path('grant'), { boot: this.boot, ...asked })
    if (grant.status !== 202) throw new Error(`It does not wait for a cluster: ${grant.status} ${grant.text}`)
    return this.tls('GET', `${this.#path('secrets')}?boot=${this.boot}`)
  }

  async checkIn(phase: 'starting' | 'running'): Promise<Heard> {
    const at = phase === 'running' ? { image: '0.1.0', bundle: this.bundle } : {}
    const heard = await this.tls('POST', this.#path('check-in'), { boot: this.boot, phase, ...at })
    if (heard.status !== 204) throw new Error(`It cannot check in: ${heard.status} ${heard.text}`)
    return heard
  }

  plain(method: string, path: string, body?: unknown): Promise<Heard> {
    return this.#say('plain', { method, path, ...(body !== undefined && { body: JSON.stringify(body) }) })
  }

  tls(method: string, path: string, body?: unknown): Promise<Heard> {
    return this.#say('tls', { method, path, ...(body !== undefined && { body: JSON.stringify(body) }) })
  }

  #path(what: string): string {
    return `/v1/machines/${macToPath(this.mac)}/${what}`
  }

  #say(over: 'plain' | 'tls', spoken: Spoken): Promise<Heard> {
    this.said.push({ ...spoken, over })
    const { credentials, from, ca } = this
    return speak({ ...spoken, over, from, ca, ...(over === 'tls' && credentials && { credentials }) })
  }
}

export function lineOf(text: string, name: string): string {
  return new RegExp(`^${name} (.*)$`, 'm').exec(text)?.[1] ?? ''
}
