// What DHCP writes into the history and the registry: changes, once each, never one entry per packet.

import type { Clock } from '#lib/clock.ts'
import type { Log } from '#lib/log.ts'
import type { Mac } from '#lib/mac.ts'
import type { NewEvent } from '#machine/event.ts'
import type { EventLog, Sighting, Sightings } from '#machine/ports.ts'

import { MinuteBudget, Recently } from './recently.ts'

/** A boot repeats itself within seconds; the same thing after this long is told again. */
const WINDOW_MS = 5 * 60_000
const MAX_KEYS = 8192
/** A thousand machines that are switched on together stay below it; made-up MACs do not fill the disk. */
const EVENTS_PER_MINUTE = 6000
/** Of machines that are not known: the history is bounded, and what is in it must not be pushed out within minutes. */
const STRANGERS_EVENTS_PER_MINUTE = 1200
/** Refusals are rare where all is well. */
const REFUSALS_PER_MINUTE = 60
const NEWCOMERS_PER_MINUTE = 3000
/** When the store is out of order. */
const WARNINGS_PER_MINUTE = 60

export interface NoticesOptions {
  readonly events: Pick<EventLog, 'append'>
  readonly sightings: Sightings
  readonly isKnown: (mac: Mac) => boolean
  readonly clock: Clock
  readonly log: Log
}

export class Notices {
  readonly #options: NoticesOptions
  readonly #told: Recently
  readonly #met: Recently
  readonly #events: MinuteBudget
  readonly #strangersEvents: MinuteBudget
  readonly #refusals: MinuteBudget
  readonly #newcomers: MinuteBudget
  readonly #warnings: MinuteBudget

  constructor(options: NoticesOptions) {
    const { clock } = options
    this.#options = options
    this.#told = new Recently(clock, { windowMs: WINDOW_MS, maxKeys: MAX_KEYS })
    this.#met = new Recently(clock, { windowMs: Number.POSITIVE_INFINITY, maxKeys: MAX_KEYS })
    this.#events = new MinuteBudget(clock, EVENTS_PER_MINUTE)
    this.#strangersEvents = new MinuteBudget(clock, STRANGERS_EVENTS_PER_MINUTE)
    this.#refusals = new MinuteBudget(clock, REFUSALS_PER_MINUTE)
    this.#newcomers = new MinuteBudget(clock, NEWCOMERS_PER_MINUTE)
    this.#warnings = new MinuteBudget(clock, WARNINGS_PER_MINUTE)
  }

  /** Appends the event unless the same `value` was told of `key` lately. Never rejects: history is worth less than an answer. */
  async tell(event: NewEvent, key: string, value?: string): Promise<void> {
    if (!this.#told.isNews(key, value) || !this.#budgetFor(event).take()) return
    const { events, log } = this.#options
    try {
      await events.append(event)
    } catch (error) {
      if (this.#warnings.take()) log.warn({ err: error, event: event.kind }, 'Cannot write the history')
    }
  }

  #budgetFor({ kind, mac }: NewEvent): MinuteBudget {
    if (kind === 'dhcp-refused') return this.#refusals
    return mac === undefined || this.#options.isKnown(mac) ? this.#events : this.#strangersEvents
  }

  /** The next thing said of `key` is news again. */
  forget(key: string): void {
    this.#told.forget(key)
  }

  /** Never rejects. */
  async saw(mac: Mac, sighting: Sighting): Promise<void> {
    if (this.#met.isNews(mac) && !this.#newcomers.take()) {
      this.#met.forget(mac)
      return
    }
    try {
      await this.#options.sightings.seen(mac, sighting)
    } catch (error) {
      if (this.#warnings.take()) this.#options.log.warn({ err: error, mac }, 'Cannot write the registry')
    }
  }
}
