// What the API leaves in the audit log and the history: every change, whoever was refused, and tokens that others could read.

import type { Clock } from '#lib/clock.ts'
import type { Log } from '#lib/log.ts'
import type { AuditLog, NewAuditEntry, TokenInfo } from '#machine/access-ports.ts'
import type { EventLog } from '#machine/ports.ts'

import type { ApiCall, ApiRoute } from './api-route.ts'
import { actorOf, type Caller } from './caller.ts'
import { toKitError } from './exchange.ts'
import { RefusalTally } from './refusal-tally.ts'

export interface ApiAuditOptions {
  readonly audit: AuditLog
  readonly events: EventLog
  readonly clock: Clock
  readonly log: Log
}

/** One request, as the log will have it. */
export class AuditNote {
  readonly #entry: Omit<NewAuditEntry, 'outcome'>

  constructor({ actor }: Caller, { method, path }: ApiRoute, params: Readonly<Record<string, unknown>>) {
    const target = Object.values(params).map(String).join(' ')
    this.#entry = { actor, action: `${method.toUpperCase()} ${path}`, target, detail: '' }
  }

  /** `ApiCall.note`. */
  readonly add: ApiCall['note'] = (detail, target) => {
    const said = Object.entries(detail)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => `${name}=${value}`)
    Object.assign(this.#entry, {
      detail: [this.#entry.detail, ...said].filter((text) => text !== '').join(' '),
      ...(target !== undefined && { target }),
    })
  }

  entry(outcome: string): NewAuditEntry {
    return { ...this.#entry, outcome }
  }
}

export class ApiAudit {
  readonly #options: ApiAuditOptions
  /** Of whoever has no token, and of tokens: the first must not crowd out the second. */
  readonly #anonymous: RefusalTally
  readonly #known: RefusalTally

  constructor(options: ApiAuditOptions) {
    this.#options = options
    this.#anonymous = new RefusalTally(options)
    this.#known = new RefusalTally(options)
  }

  /** Does the work of a route that changes something, and writes down how it ended before anybody hears of it. */
  async record<Result>(note: AuditNote, work: () => Promise<Result>): Promise<Result> {
    const { audit, log } = this.#options
    let result: Result
    try {
      result = await work()
    } catch (error) {
      await audit.append(note.entry(toKitError(error).code)).catch((unwritten: unknown) => {
        log.error({ err: unwritten }, 'Cannot write down a change that failed')
      })
      throw error
    }
    // It is done; that nobody will find it in the log is worth an error all the same.
    await audit.append(note.entry('done'))
    return result
  }

  roleRefused(note: AuditNote): void {
    const entry = note.entry('forbidden')
    this.#known.note(`role ${entry.actor}`, entry)
  }

  loginRefused(
    address: string,
    { tokenId = '', outcome, detail }: { tokenId?: string; outcome: string; detail: string },
  ): void {
    const entry = { actor: `anonymous ${address}`, action: 'login', target: tokenId, outcome, detail }
    this.#anonymous.note(`login ${address}`, entry)
  }

  /** A token that is in force came over plain HTTP. */
  tokenExposed(info: TokenInfo, address: string): void {
    const message = `${actorOf(info)} was sent over plain HTTP by ${address}: others could read it, revoke it`
    const isFirst = this.#known.note(`exposed ${info.id}`, {
      ...{ actor: `anonymous ${address}`, action: 'token-exposed', target: info.id },
      ...{ outcome: 'forbidden', detail: message },
    })
    if (!isFirst) return
    const { events, log } = this.#options
    log.warn({ token: info.id, address }, `a token must be revoked: ${message}`)
    events
      .append({ kind: 'token-exposed', message, data: { token: info.id, address } })
      .catch((error: unknown) => log.error({ err: error }, 'Cannot write down that a token was exposed'))
  }

  async stop(): Promise<void> {
    await Promise.all([this.#anonymous.stop(), this.#known.stop()])
  }
}
