// All certificates of the server together: what it shows to whom, kept fresh while it runs.

import { join } from 'node:path'

import type { Clock } from '#lib/clock.ts'
import { describeError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import type { Service } from '#lib/service.ts'
import type { NewEvent } from '#machine/event.ts'
import type { Authority } from '#machine/identity-ports.ts'
import type { TlsMaterial, TlsSource } from '#machine/tls-ports.ts'

import { createAuthority } from './authority.ts'
import { type Ca, openCa } from './ca.ts'
import { readKeyFile, writeKeyFile } from './key-file.ts'
import { findRenewalReason, makeServerCertificate, type ServerNames } from './server-certificate.ts'

const SERVER_FILE = 'server-tls.pem'
const CHECK_EVERY_MS = 60_000

export interface CertificatesOptions {
  /** Setting keys/directory. */
  readonly directory: string
  /** What the server is reached by, as it is now; asked again every minute. */
  readonly names: () => ServerNames
  readonly events: { append(event: NewEvent): Promise<unknown> }
  readonly clock: Clock
  readonly log: Log
}

export interface Certificates extends TlsSource, Service {
  readonly authority: Authority
}

/** All are there and good when it resolves; `start` begins to keep them so. Throws KitError. */
export async function openCertificates(options: CertificatesOptions): Promise<Certificates> {
  const ca = await openCa(options)
  const keeper = new CertificateKeeper(ca, options)
  await keeper.check()
  return keeper
}

class CertificateKeeper implements Certificates {
  readonly name = 'certificates'
  readonly authority: Authority
  readonly caPem: string
  readonly #ca: Ca
  readonly #options: CertificatesOptions
  readonly #file: string
  readonly #listeners = new Set<() => void>()
  #material: TlsMaterial | undefined
  #cancel = () => {}
  #isStopped = false

  constructor(ca: Ca, options: CertificatesOptions) {
    this.#ca = ca
    this.#options = options
    this.#file = join(options.directory, SERVER_FILE)
    this.authority = createAuthority(ca, options.clock)
    this.caPem = ca.pem
  }

  material(): TlsMaterial {
    if (this.#material === undefined) throw new Error('the certificates were not checked yet')
    return this.#material
  }

  materialFor(_host: string): TlsMaterial | undefined {
    return undefined
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async start(): Promise<void> {
    this.#checkLater()
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    this.#cancel()
  }

  #checkLater(): void {
    if (this.#isStopped) return
    this.#cancel = this.#options.clock.after(CHECK_EVERY_MS, () => {
      this.check()
        .catch((error: unknown) => {
          this.#options.log.error({ err: describeError(error) }, 'Cannot renew the certificate of the server')
        })
        .finally(() => this.#checkLater())
    })
  }

  /** Makes another certificate where one is due, and shows it from then on. */
  async check(): Promise<void> {
    const { names, clock, events, log } = this.#options
    const facts = { ca: this.#ca, wanted: names(), nowMs: clock.nowMs() }
    const kept = this.#material ?? (await readKeyFile(this.#file))
    const reason = kept === undefined ? 'there is none' : findRenewalReason(kept, facts)
    if (kept !== undefined && reason === undefined) {
      this.#material = kept
      return
    }
    const made = await makeServerCertificate(this.#ca, facts.wanted, facts.nowMs)
    await writeKeyFile(this.#file, made)
    this.#material = made
    log.info({ reason }, 'made a certificate for this server')
    for (const listener of this.#listeners) listener()
    if (kept !== undefined)
      await events.append({ kind: 'server-certificate', message: `a new certificate for HTTPS: ${reason}` })
  }
}
