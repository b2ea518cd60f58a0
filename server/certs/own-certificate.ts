// The certificate that a person brings for https/name: read at start, and again when its files change.

import { X509Certificate } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'

import type { Clock } from '#lib/clock.ts'
import { describeError, KitError } from '#lib/errors.ts'
import type { TlsMaterial } from '#machine/tls-ports.ts'

import { DAY_MS } from './ca.ts'
import { type CheckOutcome, findProblems, type KeptCertificate } from './kept-certificate.ts'

const WARN_BEFORE_MS = 14 * DAY_MS

export interface OwnFiles {
  /** Setting https/certificate: PEM, with those that signed it after it. */
  readonly certificate: string
  /** Setting https/key. */
  readonly key: string
}

export class OwnCertificate implements KeptCertificate {
  readonly #name: string
  readonly #files: OwnFiles
  readonly #clock: Clock
  #material: TlsMaterial | undefined
  /** What the files looked like when they were read. */
  #stamp = ''

  constructor(name: string, files: OwnFiles, clock: Clock) {
    this.#name = name
    this.#files = files
    this.#clock = clock
  }

  material(): TlsMaterial | undefined {
    return this.#material
  }

  async check(): Promise<CheckOutcome> {
    const { certificate, key } = this.#files
    const stamp = `${await stampOf(certificate)} ${await stampOf(key)}`
    const isNew = stamp !== this.#stamp
    if (isNew) {
      this.#material = await this.#read()
      this.#stamp = stamp
    }
    const warning = this.#warning()
    return { ...(isNew && { change: 'its files are others' }), ...(warning !== undefined && { warning }) }
  }

  async #read(): Promise<TlsMaterial> {
    const { certificate, key } = this.#files
    const [chain, privateKey] = await Promise.all([readText(certificate), readText(key)])
    const material = { key: privateKey, chain }
    const problems = findProblems(material, { name: this.#name, nowMs: this.#clock.nowMs() })
    if (problems.length > 0) {
      throw new KitError('invalid-input', `Cannot use ${certificate} with ${key}: ${problems.join('; ')}`, {
        fix: 'put the right files there: https/certificate, https/key',
      })
    }
    return material
  }

  #warning(): string | undefined {
    if (this.#material === undefined) return undefined
    const until = new X509Certificate(this.#material.chain).validToDate
    if (until.getTime() - this.#clock.nowMs() > WARN_BEFORE_MS) return undefined
    return `the certificate ${this.#files.certificate} ends on ${until.toISOString()}: put another one there`
  }
}

async function stampOf(file: string): Promise<string> {
  const { ino, size, mtimeMs } = await openable(file, () => stat(file))
  return `${ino}-${size}-${mtimeMs}`
}

function readText(file: string): Promise<string> {
  return openable(file, () => readFile(file, 'utf8'))
}

async function openable<Result>(file: string, open: () => Promise<Result>): Promise<Result> {
  try {
    return await open()
  } catch (cause) {
    throw new KitError('invalid-input', `Cannot read ${file}: ${describeError(cause)}`, {
      fix: 'correct https/certificate and https/key, or the rights of the files',
      cause,
    })
  }
}
