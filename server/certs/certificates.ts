// All certificates of the server together: which is shown to whom, and kept fresh while it runs.

import { join } from 'node:path'

import type { Clock } from '#lib/clock.ts'
import { describeError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import type { Service } from '#lib/service.ts'
import type { NewEvent } from '#machine/event.ts'
import type { Authority } from '#machine/identity-ports.ts'
import type { CaView, TlsMaterial, TlsSource } from '#machine/tls-ports.ts'

import { AcmeCertificate, type AcmeSettings } from './acme.ts'
import { createAuthority } from './authority.ts'
import { CA_FILE, type Ca, openCa } from './ca.ts'
import type { KeptCertificate } from './kept-certificate.ts'
import { OwnCertificate, type OwnFiles } from './own-certificate.ts'
import { ServerCertificate, type ServerNames } from './server-certificate.ts'

const SERVER_FILE = 'server-tls.pem'
const CHECK_EVERY_MS = 60_000

/** Setting https/name, and where its certificate comes from. */
export type NamedCertificate = { readonly name: string } & (
  | { readonly files: OwnFiles }
  | { readonly acme: AcmeSettings }
)

export interface CertificatesOptions {
  /** Setting keys/directory. */
  readonly directory: string
  /** What the server is reached by, as it is now; asked again every minute. */
  readonly names: () => ServerNames
  readonly named?: NamedCertificate
  readonly events: { append(event: NewEvent): Promise<unknown> }
  readonly clock: Clock
  readonly log: Log
}

/** `start` begins to keep them fresh, and comes after the listeners: ACME asks them. */
export interface Certificates extends TlsSource, Service {
  readonly authority: Authority
  readonly ca: CaView
  /** What a certificate authority that gives us a certificate asks for (RFC 8555 §8.3). */
  challengeAnswer(token: string): string | undefined
}

/** What can be there at start is there and good when it resolves. Throws KitError. */
export async function openCertificates(options: CertificatesOptions): Promise<Certificates> {
  const ca = await openCa(options)
  const keeper = new CertificateKeeper(ca, options)
  await keeper.open()
  return keeper
}

class CertificateKeeper implements Certificates {
  readonly name = 'certificates'
  readonly authority: Authority
  readonly ca: CaView
  readonly caPem: string
  readonly #options: CertificatesOptions
  readonly #server: ServerCertificate
  readonly #own: OwnCertificate | undefined
  readonly #acme: AcmeCertificate | undefined
  readonly #listeners = new Set<() => void>()
  /** What was told last of each, so that it is told once. */
  readonly #told = new Map<KeptCertificate, string>()
  #cancels: readonly (() => void)[] = []
  #isStopped = false

  constructor(ca: Ca, options: CertificatesOptions) {
    const { directory, names, named, clock } = options
    this.#options = options
    this.authority = createAuthority(ca, clock)
    this.caPem = ca.pem
    this.ca = { pem: ca.pem, fingerprint: ca.fingerprint, file: join(directory, CA_FILE) }
    this.#server = new ServerCertificate({ ca, file: join(directory, SERVER_FILE), names, clock })
    if (named !== undefined && 'files' in named)
      this.#own = new OwnCertificate(named.name, named.files, clock)
    if (named !== undefined && 'acme' in named)
      this.#acme = new AcmeCertificate({ ...named.acme, name: named.name, folder: directory, clock })
  }

  async open(): Promise<void> {
    await this.#server.check()
    await this.#own?.check()
    await this.#acme?.open()
  }

  material(): TlsMaterial {
    const material = this.#server.material()
    if (material === undefined) throw new Error('the certificates are not open yet')
    return material
  }

  materialFor(host: string): TlsMaterial | undefined {
    if (host !== this.#options.named?.name.toLowerCase()) return undefined
    return this.#own?.material() ?? this.#acme?.material()
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  challengeAnswer(token: string): string | undefined {
    return this.#acme?.challengeAnswer(token)
  }

  async start(): Promise<void> {
    this.#keep(this.#server, CHECK_EVERY_MS)
    if (this.#own !== undefined) this.#keep(this.#own, CHECK_EVERY_MS)
    // An order takes as long as it takes, and nobody waits for it.
    if (this.#acme !== undefined) this.#keep(this.#acme, 0)
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    for (const cancel of this.#cancels) cancel()
  }

  #keep(certificate: KeptCertificate, afterMs: number): void {
    if (this.#isStopped) return
    let cancel = () => {}
    const again = () => {
      this.#cancels = this.#cancels.filter((other) => other !== cancel)
      void this.#check(certificate).finally(() => this.#keep(certificate, CHECK_EVERY_MS))
    }
    cancel = this.#options.clock.after(afterMs, again)
    this.#cancels = [...this.#cancels, cancel]
  }

  /** Never rejects: the server goes on with what it has. */
  async #check(certificate: KeptCertificate): Promise<void> {
    const { log } = this.#options
    try {
      const { change, warning } = await certificate.check()
      if (this.#isStopped) return
      if (change !== undefined) await this.#tellChange(certificate, change)
      await this.#tellProblem(certificate, warning ?? '')
    } catch (error) {
      if (this.#isStopped) return
      await this.#tellProblem(certificate, describeError(error)).catch((cause: unknown) => {
        log.error({ err: cause }, 'Cannot write down what is wrong with a certificate')
      })
    }
  }

  async #tellChange(certificate: KeptCertificate, reason: string): Promise<void> {
    const { events, log, named } = this.#options
    const name = certificate === this.#server ? undefined : named?.name
    const message = `another certificate for ${name ?? 'the addresses of this server'}: ${reason}`
    log.info({}, message)
    for (const listener of this.#listeners) listener()
    await events.append({ kind: 'server-certificate', message, ...(name && { data: { name } }) })
  }

  async #tellProblem(certificate: KeptCertificate, problem: string): Promise<void> {
    if (problem === (this.#told.get(certificate) ?? '')) return
    this.#told.set(certificate, problem)
    if (problem === '') return
    const { events, log, named } = this.#options
    const name = certificate === this.#server ? undefined : named?.name
    log.error({}, problem)
    await events.append({ kind: 'certificate-failed', message: problem, ...(name && { data: { name } }) })
  }
}
