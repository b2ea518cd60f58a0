// A certificate for https/name by ACME (RFC 8555), challenge http-01: ordered, kept and renewed without a person.

import { createHash, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import { writeFileAtomically } from '#lib/atomic-file.ts'
import type { Clock } from '#lib/clock.ts'
import { describeError, KitError, systemErrorCode } from '#lib/errors.ts'
import type { TlsMaterial } from '#machine/tls-ports.ts'

import { type CheckOutcome, findProblems, type KeptCertificate } from './kept-certificate.ts'
import { readKeyFile, writeKeyFile } from './key-file.ts'

export interface AcmeSettings {
  /** Setting https/acme-directory. */
  readonly directoryUrl: string
  /** Setting https/acme-email. */
  readonly email: string | undefined
}

export interface AcmeOptions extends AcmeSettings {
  readonly name: string
  /** Setting keys/directory. */
  readonly folder: string
  readonly clock: Clock
}

const MINUTE_MS = 60_000
/** Let's Encrypt takes five failures an hour for one name; after a day of them nobody is in a hurry. */
const RETRY_MS = { first: 15 * MINUTE_MS, most: 12 * 60 * MINUTE_MS }
/** How often the authority is asked whether it is done: after one second, two, four … */
const POLLS = { backoffMin: 1_000, backoffMax: 30_000, backoffAttempts: 12 }
const REQUEST_TIMEOUT_MS = 30_000
/** An authority may ask us to wait for hours (Retry-After), but not to forget the rest meanwhile. */
const ORDER_TIMEOUT_MS = 15 * MINUTE_MS

export class AcmeCertificate implements KeptCertificate {
  readonly #options: AcmeOptions
  readonly #certificateFile: string
  readonly #accountFile: string
  /** Key authorizations by token. */
  readonly #challenges = new Map<string, string>()
  #material: TlsMaterial | undefined
  #isRead = false
  #failures = 0
  #nextTryMs = 0

  constructor(options: AcmeOptions) {
    this.#options = options
    // A trial with another directory leaves the account and the certificate of this one alone.
    const id = createHash('sha256').update(options.directoryUrl).digest('hex').slice(0, 8)
    this.#certificateFile = join(options.folder, `acme-${id}.pem`)
    this.#accountFile = join(options.folder, `acme-${id}-account.key`)
  }

  material(): TlsMaterial | undefined {
    return this.#material
  }

  challengeAnswer(token: string): string | undefined {
    return this.#challenges.get(token)
  }

  /** Reads what an earlier run got. */
  async open(): Promise<void> {
    const { name, clock } = this.#options
    const kept = await readKeyFile(this.#certificateFile)
    if (kept !== undefined && findProblems(kept, { name, nowMs: clock.nowMs() }).length === 0)
      this.#material = kept
    this.#isRead = true
  }

  /** The server must answer challenges by now. */
  async check(): Promise<CheckOutcome> {
    if (!this.#isRead) await this.open()
    const { clock, name, directoryUrl } = this.#options
    const nowMs = clock.nowMs()
    if (!this.#isDue(nowMs) || nowMs < this.#nextTryMs) return {}
    try {
      const material = await withinTime(this.#order())
      await writeKeyFile(this.#certificateFile, material)
      this.#material = material
      this.#failures = 0
      return { change: `from ${directoryUrl}` }
    } catch (cause) {
      const waitMs = Math.min(RETRY_MS.first * 2 ** this.#failures, RETRY_MS.most)
      this.#failures += 1
      this.#nextTryMs = nowMs + waitMs
      const message = `Cannot get a certificate for ${name} from ${directoryUrl}: ${oneLine(cause)}`
      throw new KitError('unavailable', message, {
        fix: `port 80 of ${name} must lead to http/port of this server; the next try is in ${waitMs / MINUTE_MS} minutes`,
        cause,
      })
    }
  }

  /** In the last third of its life: what RFC 9773 §1 calls usual, whatever the life. */
  #isDue(nowMs: number): boolean {
    if (this.#material === undefined) return true
    const { validFromDate, validToDate } = new X509Certificate(this.#material.chain)
    const untilMs = validToDate.getTime()
    return untilMs - nowMs < (untilMs - validFromDate.getTime()) / 3
  }

  async #order(): Promise<TlsMaterial> {
    const { directoryUrl, email, name } = this.#options
    await checkDirectory(directoryUrl)
    // Loaded by whoever wants it: it brings half of what this server loads otherwise.
    const { default: acme } = await import('acme-client')
    acme.axios.defaults.timeout = REQUEST_TIMEOUT_MS
    const client = new acme.Client({ directoryUrl, accountKey: await this.#accountKey(acme), ...POLLS })
    const [key, csr] = await acme.crypto.createCsr(
      { commonName: name, altNames: [name] },
      await acme.crypto.createPrivateEcdsaKey('P-256'),
    )
    const chain = await client.auto({
      csr,
      ...(email !== undefined && { email }),
      termsOfServiceAgreed: true, // by setting https/acme-directory: docs/configuration.md says so
      challengePriority: ['http-01'],
      // From here the name may lead elsewhere than from the authority.
      skipChallengeVerification: true,
      challengeCreateFn: async (_authorization, { type, token }, answer) => {
        if (type !== 'http-01') throw new Error(`the authority offers no http-01 but ${type}`)
        this.#challenges.set(token, answer)
      },
      challengeRemoveFn: async (_authorization, { token }) => this.#challenges.delete(token),
    })
    return { key: key.toString(), chain }
  }

  /** Made once: the authority knows us by it. */
  async #accountKey(acme: Pick<typeof import('acme-client'), 'crypto'>): Promise<string> {
    const kept = await readFile(this.#accountFile, 'utf8').catch((error: unknown) => {
      if (systemErrorCode(error) === 'ENOENT') return undefined
      throw error
    })
    if (kept !== undefined) return kept
    const made = (await acme.crypto.createPrivateEcdsaKey('P-256')).toString()
    await writeFileAtomically(this.#accountFile, made, 0o600)
    return made
  }
}

/** By the time of the wire, which no clock that jumps changes. */
async function withinTime<Result>(work: Promise<Result>): Promise<Result> {
  const signal = AbortSignal.timeout(ORDER_TIMEOUT_MS)
  const { promise, reject } = Promise.withResolvers<never>()
  signal.onabort = () => reject(new Error(`nothing came of it in ${ORDER_TIMEOUT_MS / MINUTE_MS} minutes`))
  try {
    return await Promise.race([work, promise])
  } finally {
    signal.onabort = null
  }
}

/** acme-client 5.4.0 hides why it could not connect behind a TypeError (its axios.js, validateStatus). */
async function checkDirectory(url: string): Promise<void> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) })
    if (!response.ok) throw new Error(`it answers ${response.status}`)
    const directory: unknown = await response.json()
    if (typeof directory !== 'object' || directory === null || !('newOrder' in directory))
      throw new Error('what is there is no ACME directory')
  } catch (error) {
    // fetch() says only that it failed; its cause says why.
    const reason = error instanceof Error && error.cause instanceof Error ? error.cause : error
    throw new Error(oneLine(reason), { cause: error })
  }
}

/** An authority's words, fit for a log and a console. */
function oneLine(thrown: unknown): string {
  return describeError(thrown)
    .replace(/\p{Cc}+/gu, ' ')
    .slice(0, 300)
}
