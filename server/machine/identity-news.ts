// What the history hears of machines that have proved nothing yet: loud, but only so often.

import type { Clock } from '#lib/clock.ts'
import type { Mac } from '#lib/mac.ts'

import type { EventData, EventKind } from './event.ts'
import type { Claimant } from './identity-attempts.ts'
import type { MachineAudit } from './machine-audit.ts'
import { Pace } from './pace.ts'
import type { EventLog } from './ports.ts'
import { Repeats } from './repeats.ts'

/** A machine that is refused begins anew twice a minute, and whoever makes up keys has a new one each time. */
const OF_ONE_MACHINE = { atOnce: 10, oneEveryMs: 60_000 }
const OF_ALL = { atOnce: 600, oneEveryMs: 500 }

export interface IdentityNewsOptions {
  readonly events: EventLog
  readonly audit: MachineAudit
  readonly clock: Clock
}

export class IdentityNews {
  readonly #events: EventLog
  readonly #audit: MachineAudit
  readonly #repeats = new Repeats()
  readonly #ofOne: Pace
  readonly #ofAll: Pace

  constructor({ events, audit, clock }: IdentityNewsOptions) {
    this.#events = events
    this.#audit = audit
    this.#ofOne = new Pace(clock, OF_ONE_MACHINE)
    this.#ofAll = new Pace(clock, OF_ALL)
  }

  async tell(
    subject: Mac,
    claimant: Claimant,
    { kind, message, data = {} }: { kind: EventKind; message: string; data?: EventData },
  ): Promise<void> {
    const { request, tpm, address, mac } = claimant
    if (!this.#repeats.isNews(subject, `${kind} ${message} ${request.keySha256}`)) return
    if (!this.#ofOne.take(subject) || !this.#ofAll.take()) return
    if (kind !== 'pairing-waiting') {
      await this.#audit.refused({
        actor: `anonymous ${address ?? ''}`.trimEnd(),
        ...{ action: kind, target: subject, outcome: 'identity-refused' },
        detail: `key=${request.keySha256}: ${message}`,
      })
    }
    await this.#events.append({
      kind,
      mac: subject,
      message: address === undefined ? message : `${message}; it came from ${address}`,
      data: {
        key: request.keySha256,
        ...(tpm?.isProved === true && { ek: tpm.claim.ekSha256 }),
        ...(mac !== subject && { as: mac }),
        ...(address !== undefined && { address }),
        ...data,
      },
    })
  }

  /** What is said next of this machine is news, whatever it is. */
  forget(subject: Mac): void {
    this.#repeats.forget(subject)
  }
}
