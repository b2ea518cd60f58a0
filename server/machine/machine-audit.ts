// What machines are given and refused, in the log that nobody can change. Who is refused writes only so much into it.

import type { Clock } from '#lib/clock.ts'

import type { AuditLog, NewAuditEntry } from './access-ports.ts'
import { Pace } from './pace.ts'

/** The history has more of it (identity-news.ts); this log is never cut. */
const REFUSALS = { atOnce: 200, oneEveryMs: 60_000 }

export class MachineAudit {
  readonly #audit: Pick<AuditLog, 'append'>
  readonly #refusals: Pace

  constructor(audit: Pick<AuditLog, 'append'>, clock: Clock) {
    this.#audit = audit
    this.#refusals = new Pace(clock, REFUSALS)
  }

  async done(entry: Omit<NewAuditEntry, 'outcome'>): Promise<void> {
    await this.#audit.append({ ...entry, outcome: 'done' })
  }

  async refused(entry: NewAuditEntry): Promise<void> {
    if (this.#refusals.take()) await this.#audit.append(entry)
  }
}
