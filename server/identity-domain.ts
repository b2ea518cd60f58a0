// The part of the domain that knows which machine is which, put together.

import type { Clock } from '#lib/clock.ts'
import { createKeyedQueue } from '#lib/keyed-queue.ts'
import type { Mac } from '#lib/mac.ts'
import type { Attempt } from '#machine/identity.ts'
import { AttemptBook } from '#machine/identity-attempts.ts'
import { IdentityBook } from '#machine/identity-book.ts'
import { MachineIdentityDesk } from '#machine/identity-desk.ts'
import { IdentityIssuer } from '#machine/identity-issuer.ts'
import { IdentityJudge } from '#machine/identity-judge.ts'
import { IdentityKeeper, viewOf } from '#machine/identity-keeper.ts'
import { IdentityNews } from '#machine/identity-news.ts'
import type {
  Authority,
  Identities,
  IdentityDesk,
  IdentityStore,
  TpmVerifier,
} from '#machine/identity-ports.ts'
import type { MachineAudit } from '#machine/machine-audit.ts'
import type { EventLog, Profiles } from '#machine/ports.ts'
import type { Roster } from '#machine/roster.ts'

export interface IdentityDomainParts {
  readonly book: IdentityBook
  readonly attempts: AttemptBook
  readonly roster: Pick<Roster, 'welcome'>
  readonly profiles: Pick<Profiles, 'profileFor' | 'machines'>
  readonly events: EventLog
  readonly audit: MachineAudit
  readonly authority: Authority
  readonly tpm: TpmVerifier
  readonly clock: Clock
  /** Another key than before speaks for a machine, or none. */
  readonly onChange: () => void
}

export interface IdentityDomain {
  readonly identityDesk: IdentityDesk
  readonly identities: Identities
}

/** What the roster shows of identities; it is there before the rest, which needs the roster. */
export function createIdentityBooks({ store, clock }: { store: IdentityStore; clock: Clock }) {
  const book = new IdentityBook(store)
  const attempts = new AttemptBook(clock)
  const attemptsOf = (mac: Mac): readonly Attempt[] =>
    attempts.list().flatMap((attempt) => {
      const view = viewOf(attempt)
      return view !== undefined && book.primaryOf(view.mac) === mac ? [view] : []
    })
  const shown = {
    primaryOf: (mac: Mac) => book.primaryOf(mac),
    of: (mac: Mac) => book.of(mac),
    attemptsOf,
  }
  return { book, attempts, shown }
}

export function createIdentityDomain(parts: IdentityDomainParts): IdentityDomain {
  const { book, attempts, profiles, roster, events, audit, authority, tpm, clock, onChange } = parts
  const judge = new IdentityJudge({ book, profiles })
  const issuer = new IdentityIssuer({
    book,
    judge,
    authority,
    profiles,
    roster,
    events,
    audit,
    clock,
    onChange,
  })
  const news = new IdentityNews({ events, audit, clock })
  const queue = createKeyedQueue<'identities'>()
  const shared = { book, attempts, judge, issuer, news, events, audit, queue }
  return {
    identityDesk: new MachineIdentityDesk({ ...shared, authority, tpm }),
    identities: new IdentityKeeper({ ...shared, clock, onChange }),
  }
}
