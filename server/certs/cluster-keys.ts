// The cluster's CAs as this server keeps them, what it signs with them, and the word when one comes to its end.

import { generateKeyPair } from 'node:crypto'
import { join } from 'node:path'
import { promisify } from 'node:util'

import type { Clock } from '#lib/clock.ts'
import { describeError, KitError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import type { Service } from '#lib/service.ts'
import type { ClientCertificate, ClusterKeys } from '#machine/cluster-ports.ts'
import type { NewEvent } from '#machine/event.ts'

import { BACKDATED_MS, DAY_MS } from './ca.ts'
import {
  type AuthorityPath,
  CLUSTER_AUTHORITIES,
  type ClusterPki,
  makePkiFiles,
  publicKeySha256,
  readPki,
} from './cluster-authorities.ts'
import { isThere, readKeyFolder, writeKeyFolder } from './cluster-folder.ts'
import { readPassphrase } from './cluster-passphrase.ts'
import { findConflict, readTakenFiles } from './cluster-taken.ts'
import { makeCertificate } from './x509.ts'

const WARN_BEFORE_MS = 90 * DAY_MS
const CHECK_EVERY_MS = DAY_MS
/** X.520 ub-common-name, which OpenSSL minds. */
const NAME_MAX = 64

export interface ClusterKeysOptions {
  /** Setting keys/directory: they lie in its `cluster/`. */
  readonly directory: string
  /** Setting cluster/passphrase-file. */
  readonly passphraseFile?: string
  /** Setting cluster/ca-directory. */
  readonly caDirectory?: string
  readonly events: { append(event: NewEvent): Promise<unknown> }
  readonly clock: Clock
  readonly log: Log
}

/**
 * `start` opens what is there and looks once a day whether a CA comes to its end; it makes nothing. Everything throws
 * KitError `unavailable` for keys that cannot be used, and never makes others in their place.
 */
export function createClusterKeys(options: ClusterKeysOptions): ClusterKeys & Service {
  return new KeptKeys(options)
}

class KeptKeys implements ClusterKeys, Service {
  readonly name = 'cluster-keys'
  readonly #options: ClusterKeysOptions
  readonly #folder: string
  /** One at a time; a failed one is tried again by whoever asks next. */
  #opening: Promise<ClusterPki> | undefined
  readonly #told = new Set<string>()
  #cancel = () => {}
  #isStopped = false

  constructor(options: ClusterKeysOptions) {
    this.#options = options
    this.#folder = join(options.directory, 'cluster')
  }

  async start(): Promise<void> {
    if ((await isThere(this.#folder)) || this.#options.caDirectory !== undefined) await this.#open()
    await this.#watch()
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    this.#cancel()
  }

  async authority(): Promise<{ readonly certificate: string; readonly publicKeySha256: string }> {
    const { pem, certificate } = (await this.#open()).authorities.ca
    return { certificate: pem, publicKeySha256: publicKeySha256(certificate) }
  }

  async controlPlaneFiles(): Promise<ReadonlyMap<string, string>> {
    return (await this.#open()).files
  }

  async issueClient(subject: {
    readonly name: string
    readonly organization?: string
    readonly days: number
  }): Promise<ClientCertificate> {
    return await this.#issue('ca', subject)
  }

  async issueEtcdClient(days: number): Promise<ClientCertificate & { readonly authority: string }> {
    const issued = await this.#issue('etcd/ca', { name: 'kateskit', days })
    return { ...issued, authority: (await this.#open()).authorities['etcd/ca'].pem }
  }

  async #issue(
    path: AuthorityPath,
    subject: { readonly name: string; readonly organization?: string; readonly days: number },
  ): Promise<ClientCertificate> {
    for (const name of [subject.name, ...(subject.organization === undefined ? [] : [subject.organization])])
      if (name === '' || name.length > NAME_MAX)
        throw new KitError(
          'invalid-input',
          `Cannot issue a certificate for a name of ${name.length} characters`,
        )
    if (!(subject.days > 0))
      throw new KitError('invalid-input', `Cannot issue a certificate for ${subject.days} days`)
    const authority = (await this.#open()).authorities[path]
    const nowMs = this.#options.clock.nowMs()
    if (nowMs >= authority.untilMs)
      throw new KitError(
        'unavailable',
        `Cannot issue a certificate: ${endOf(path, authority.untilMs, nowMs)}`,
        {
          fix: 'renew the CA as docs/kubernetes.md says ("The cluster\'s keys")',
        },
      )
    // X.509 counts in seconds.
    const untilMs = Math.floor(Math.min(nowMs + subject.days * DAY_MS, authority.untilMs) / 1000) * 1000
    const { publicKey, privateKey } = await promisify(generateKeyPair)('rsa', { modulusLength: 2048 })
    const certificate = makeCertificate(
      {
        commonName: subject.name,
        ...(subject.organization !== undefined && { organization: subject.organization }),
        publicKey: publicKey.export({ type: 'spki', format: 'der' }),
        fromMs: nowMs - BACKDATED_MS,
        untilMs,
        use: { kind: 'client' },
      },
      authority,
    )
    return { certificate, key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(), untilMs }
  }

  #open(): Promise<ClusterPki> {
    this.#opening ??= this.#load().catch((error: unknown) => {
      this.#opening = undefined
      throw error
    })
    return this.#opening
  }

  async #load(): Promise<ClusterPki> {
    const { passphraseFile, caDirectory, clock, log } = this.#options
    const passphrase =
      passphraseFile === undefined ? undefined : await this.#checked(() => readPassphrase(passphraseFile))
    const kept = await this.#checked(() => readKeyFolder(this.#folder, passphrase))
    // What was taken already may have come to its end there: it is compared only.
    const asOfMs = kept === undefined ? clock.nowMs() : 0
    const taken = caDirectory === undefined ? undefined : await readTakenFiles(caDirectory, asOfMs)
    if (kept !== undefined) {
      const pki = await this.#checked(async () => readPki(kept))
      const conflict = taken === undefined ? undefined : findConflict(pki, taken)
      if (conflict === undefined) return pki
      throw new KitError(
        'conflict',
        `Cannot take ${conflict} of ${caDirectory}: the keys in ${this.#folder} are others`,
        {
          fix: `remove the setting cluster/ca-directory, or, if no machine has joined with them yet, move ${this.#folder} away`,
        },
      )
    }
    if (caDirectory !== undefined && taken === undefined)
      throw new KitError(
        'unavailable',
        `Cannot take the keys of a cluster from ${caDirectory}: it is not there`,
        {
          fix: 'copy the folder pki/ of one of its control planes there, or remove the setting cluster/ca-directory',
        },
      )
    const files = await makePkiFiles(clock.nowMs(), taken)
    const pki = await this.#checked(async () => readPki(files))
    await this.#checked(() => writeKeyFolder(this.#folder, files, passphrase))
    const message = taken === undefined ? 'made the keys of the cluster' : 'took the keys of a cluster'
    log.info({ folder: this.#folder }, `${message}; keep a copy: control planes are made with no others`)
    return pki
  }

  async #checked<Result>(work: () => Promise<Result>): Promise<Result> {
    try {
      return await work()
    } catch (error) {
      throw new KitError(
        'unavailable',
        `Cannot use the keys of the cluster in ${this.#folder}: ${describeError(error)}`,
        {
          fix: 'give the right file as cluster/passphrase-file, or put back the folder from a copy; other keys are made only when there is no such folder, and then no node of the cluster believes them',
          cause: error,
        },
      )
    }
  }

  /** Never rejects. */
  async #watch(): Promise<void> {
    await this.#tellEnds().catch((error: unknown) => {
      this.#options.log.error({ err: error }, "Cannot look after the ends of the cluster's CAs")
    })
    if (this.#isStopped) return
    this.#cancel = this.#options.clock.after(CHECK_EVERY_MS, () => void this.#watch())
  }

  async #tellEnds(): Promise<void> {
    const pki = await this.#opening
    const nowMs = this.#options.clock.nowMs()
    for (const { path } of pki === undefined ? [] : CLUSTER_AUTHORITIES) {
      const untilMs = pki?.authorities[path].untilMs ?? 0
      const message = endOf(path, untilMs, nowMs)
      if (untilMs - nowMs > WARN_BEFORE_MS || this.#told.has(message)) continue
      this.#told.add(message)
      this.#options.log.warn({}, message)
      const data = { ca: path, until: new Date(untilMs).toISOString() }
      await this.#options.events.append({ kind: 'cluster-ca-expires', message, data })
    }
  }
}

/** As long as it says the same, it is told once. */
function endOf(path: AuthorityPath, untilMs: number, nowMs: number): string {
  const what = `the CA ${path} of the cluster`
  const day = new Date(untilMs).toISOString().slice(0, 10)
  return nowMs >= untilMs ? `${what} came to its end on ${day}` : `${what} comes to its end on ${day}`
}
