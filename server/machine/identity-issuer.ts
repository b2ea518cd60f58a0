// Certificates: made for a machine that was taken in, and written down before the machine hears of it.

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'

import type { NewEvent } from './event.ts'
import type { Identity } from './identity.ts'
import type { Claimant } from './identity-attempts.ts'
import type { IdentityBook } from './identity-book.ts'
import type { IdentityDecision } from './identity-decision.ts'
import type { Case, IdentityJudge } from './identity-judge.ts'
import type { Authority, IdentityStep } from './identity-ports.ts'
import type { MachineAudit } from './machine-audit.ts'
import type { EventLog, Profiles } from './ports.ts'
import type { Roster } from './roster.ts'

export interface IssuerOptions {
  readonly book: IdentityBook
  readonly judge: IdentityJudge
  readonly authority: Authority
  readonly profiles: Pick<Profiles, 'machines'>
  readonly roster: Pick<Roster, 'welcome'>
  readonly events: EventLog
  readonly audit: MachineAudit
  readonly clock: Clock
  /** Called when another key speaks for a machine than before. */
  readonly onChange: () => void
}

/** As many as the roster has machines: made-up ones that come first must not fill the disk. */
const MOST_IDENTITIES = 10_000
/** A certificate that is asked for again and again is told of once. */
const RENEWAL_IS_NEWS_AFTER_MS = 3_600_000

export interface Issued {
  readonly identity: Identity
  readonly step: Extract<IdentityStep, { kind: 'issued' }>
}

export class IdentityIssuer {
  readonly #options: IssuerOptions

  constructor(options: IssuerOptions) {
    this.#options = options
  }

  async issue(
    claimant: Claimant,
    found: Case,
    { tier, by }: Extract<IdentityDecision, { kind: 'issue' }>,
  ): Promise<Issued> {
    const { book, judge, authority, roster, events, audit, clock, onChange } = this.#options
    const { subject } = found
    const { request, uuid, address, tpm } = claimant
    const before = found.known?.mac === subject ? found.known : undefined
    this.#requireRoom(subject, before)
    const aliases = judge.aliasesOf(subject, claimant.macs, tier)
    await roster.welcome(subject, { aliases, ...(uuid && { uuid }), ...(address && { address }) })
    const certificate = authority.issueForMachine(request, subject)
    const isSameKey = before?.keySha256 === request.keySha256
    const ekSha256 = tpm?.isProved === true ? tpm.claim.ekSha256 : isSameKey ? before?.ekSha256 : undefined
    const identity: Identity = {
      ...{ mac: subject, macs: [subject, ...aliases], tier, keySha256: request.keySha256, by },
      ...(uuid !== undefined && { uuid }),
      ...(ekSha256 !== undefined && { ekSha256 }),
      sinceMs: isSameKey ? before.sinceMs : clock.nowMs(),
      certificateUntilMs: certificate.untilMs,
      ...(isSameKey && before.isKept && { isKept: true }),
    }
    const news = findNews(identity, before)
    await Promise.all([book.save(identity), ...(news === undefined ? [] : [events.append(news)])])
    if (!isSameKey || before.tier !== tier) {
      const detail = `tier=${tier} by=${by} key=${request.keySha256}`
      await audit.done({ actor: `machine ${subject}`, action: 'identity-issued', target: subject, detail })
    }
    if (!isSameKey) onChange()
    return { identity, step: { kind: 'issued', mac: subject, tier, certificate: certificate.pem } }
  }

  #requireRoom(mac: Mac, before: Identity | undefined): void {
    const { book, profiles } = this.#options
    if (before !== undefined || book.list().length < MOST_IDENTITIES || profiles.machines().includes(mac))
      return
    throw new KitError('unavailable', 'Cannot take in another machine: too many are known')
  }
}

function findNews(identity: Identity, before: Identity | undefined): NewEvent | undefined {
  const { mac, tier, by, keySha256 } = identity
  const data = { tier, by, key: keySha256, certificateUntilMs: identity.certificateUntilMs }
  if (before?.keySha256 === keySha256 && before.tier === tier) {
    const isNews = identity.certificateUntilMs - before.certificateUntilMs >= RENEWAL_IS_NEWS_AFTER_MS
    if (!isNews) return undefined
    return { kind: 'certificate-renewed', mac, message: `a new certificate, ${tier}`, data }
  }
  const aside =
    before === undefined || before.keySha256 === keySha256 ? '' : '; its key from before counts no more'
  return { kind: 'identity-issued', mac, message: `it is ${tier}, by ${by}${aside}`, data }
}
