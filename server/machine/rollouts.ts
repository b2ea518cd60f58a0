// Carries the decisions of rollout.ts out: locks, failures, quarantines, and what each machine may do now.

import type { Clock } from '#lib/clock.ts'
import { describeError } from '#lib/errors.ts'
import { createKeyedQueue } from '#lib/keyed-queue.ts'
import type { Log } from '#lib/log.ts'
import type { Mac } from '#lib/mac.ts'
import type { Service } from '#lib/service.ts'

import type { NewEvent } from './event.ts'
import type { Fleet } from './fleet.ts'
import { isForeign } from './foreign-locks.ts'
import type { NodeGuard } from './node-guard.ts'
import type { EventLog } from './ports.ts'
import type { ReleaseBook } from './release-book.ts'
import type { HeldRestart, RolloutView, UpdateLock } from './release-ports.ts'
import { decideRollout, type RolloutDecision } from './rollout.ts'
import type { ImageFailure } from './slot-news.ts'
import type { Permit } from './target.ts'

export interface RolloutsOptions {
  readonly fleet: Fleet
  readonly guard: Pick<NodeGuard, 'mayRestart' | 'settled'>
  readonly book: ReleaseBook
  readonly events: EventLog
  readonly clock: Clock
  readonly log: Log
  /** What a machine may do is another than before. */
  readonly onChange: () => void
}

const NOTHING: Permit = { mayStage: false, mayReboot: false }
const MINUTE_MS = 60_000
/** The protocol knows no expiry, and a client that is gone for good must not stop a fleet for ever. */
const FOREIGN_LOCK_MS = 24 * 60 * MINUTE_MS

/** As a service it looks at every full minute: windows open and close, and machines fall silent, without anybody saying so. */
export class Rollouts implements Service {
  readonly name = 'rollouts'
  readonly #options: RolloutsOptions
  readonly #queue = createKeyedQueue<'all'>()
  #permits: ReadonlyMap<Mac, Permit> = new Map()
  /** Why the cluster keeps machines from restarting that the rollout lets. */
  readonly #held = new Map<Mac, string>()
  #states = new Map<string, string>()
  #cancelTick = () => {}
  #isStopped = false

  constructor(options: RolloutsOptions) {
    this.#options = options
  }

  async start(): Promise<void> {
    await this.settle()
    this.#scheduleTick()
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    this.#cancelTick()
    await this.#queue.run('all', async () => {})
  }

  permitOf(mac: Mac): Permit {
    return this.#permits.get(mac) ?? NOTHING
  }

  lockOf(mac: Mac): UpdateLock | undefined {
    return this.#options.book.lockOf(mac)
  }

  /** Resolves when what has changed is decided, written down and told. */
  async settle(checkedIn?: Mac): Promise<void> {
    await this.#queue.run('all', () => this.#settle(checkedIn))
  }

  /** What hinders machines besides their rollout is another than before. */
  settleSoon(): void {
    if (this.#isStopped) return
    this.settle().catch((error: unknown) => {
      this.#options.log.error({ err: error }, `Cannot go on with updates: ${describeError(error)}`)
    })
  }

  /** While nothing else is decided about locks. */
  async exclusively<Result>(work: () => Promise<Result>): Promise<Result> {
    return this.#queue.run('all', work)
  }

  /**
   * Writes down that images failed on a machine, and gives its lock back. Asks the store before anything is awaited, so
   * that it shares the commit of the check-in it comes from.
   */
  async noteFailures(mac: Mac, failures: readonly ImageFailure[]): Promise<void> {
    await Promise.all(failures.map((failure) => this.#noteFailure(mac, failure)))
  }

  async #noteFailure(mac: Mac, { version, reason }: ImageFailure): Promise<void> {
    const { book, clock, events } = this.#options
    const atMs = clock.nowMs()
    const isFirst = book.quarantineOf(version) === undefined
    await Promise.all([
      book.addFailure({ version, mac, reason, atMs }),
      ...(book.lockOf(mac)?.version === version ? [book.unlock(mac)] : []),
      ...(isFirst ? [book.quarantine({ version, mac, reason, sinceMs: atMs })] : []),
      ...(isFirst ? [events.append(quarantined(mac, version, reason))] : []),
    ])
  }

  /** What people see of the channels that point at an image. */
  views(): readonly RolloutView[] {
    const { book, fleet } = this.#options
    return book.channels().flatMap(({ name, version }) => {
      if (version === undefined) return []
      const facts = fleet.rolloutFacts(name)
      const decision = decideRollout(facts)
      const held = decision.updating.flatMap((mac) => {
        const reason = this.#held.get(mac)
        return reason === undefined ? [] : [{ mac, reason }]
      })
      return [toView(name, { version, decision, haltAfter: facts.policy.haltAfter, held })]
    })
  }

  async #settle(checkedIn: Mac | undefined): Promise<void> {
    await this.#dropForgottenLocks()
    const permits = new Map<Mac, Permit>()
    for (const name of this.#options.fleet.channelNames()) {
      const decision = await this.#settleChannel(name, checkedIn)
      for (const [mac, permit] of decision.permits) permits.set(mac, permit)
    }
    this.#guard(permits)
    const isNews = describePermits(permits) !== describePermits(this.#permits)
    this.#permits = permits
    if (isNews) this.#options.onChange()
  }

  /** Who may restart as far as the rollout goes: a node only when its cluster can spare it. */
  #guard(permits: Map<Mac, Permit>): void {
    const { guard, book } = this.#options
    const restarting = new Set<Mac>()
    this.#held.clear()
    for (const [mac, permit] of permits) {
      const version = permit.mayReboot ? book.lockOf(mac)?.version : undefined
      if (version === undefined) continue
      restarting.add(mac)
      const answer = guard.mayRestart(mac, version)
      if (answer.kind === 'yes') continue
      permits.set(mac, { ...permit, mayReboot: false })
      this.#held.set(mac, answer.reason)
    }
    guard.settled(restarting)
  }

  async #dropForgottenLocks(): Promise<void> {
    const { book, clock, events } = this.#options
    const oldestMs = clock.nowMs() - FOREIGN_LOCK_MS
    const forgotten = book.locks().filter((lock) => isForeign(lock) && lock.sinceMs <= oldestMs)
    await Promise.all(
      forgotten.flatMap(({ channel, holder }) => [
        book.unlock(holder),
        events.append({
          kind: 'lock-expired',
          message: `${holder} has had the update lock of ${channel} for a day: it counts no more`,
          data: { channel, holder },
        }),
      ]),
    )
  }

  async #settleChannel(name: string, checkedIn: Mac | undefined): Promise<RolloutDecision> {
    const { fleet, book, events, clock } = this.#options
    let decision = decideRollout(fleet.rolloutFacts(name, checkedIn))
    if (decision.lost.length > 0) {
      for (const { mac, ...failure } of decision.lost) {
        await Promise.all([this.#noteFailure(mac, failure), events.append(lost(mac, failure))])
      }
      decision = decideRollout(fleet.rolloutFacts(name, checkedIn))
    }
    const sinceMs = clock.nowMs()
    await Promise.all([
      ...decision.released.map((holder) => book.unlock(holder)),
      ...decision.grants.flatMap(({ mac, version }) => [
        book.lock({ channel: name, holder: mac, version, sinceMs }),
        events.append(started(mac, version)),
      ]),
    ])
    // An hour of silence counts from here for a machine that gets the lock now.
    for (const { mac } of decision.grants) fleet.heard(mac)
    await this.#tellState(name, decision)
    return decision
  }

  /** A rollout that ends or stops is news once; what it was when the server started is none. */
  async #tellState(channel: string, { state, reason }: RolloutDecision): Promise<void> {
    const { book, events } = this.#options
    const image = book.channel(channel)?.version
    if (image === undefined) return
    const before = this.#states.get(channel)
    const now = `${image} ${state}`
    this.#states.set(channel, now)
    if (before === undefined || before === now) return
    const data = { channel, image }
    if (state === 'halted') {
      const message = `the update of ${channel} to ${image} stopped: ${reason}`
      await events.append({ kind: 'rollout-halted', message, data })
    } else if (state === 'done' && before === `${image} running`) {
      await events.append({ kind: 'rollout-done', message: `${channel} has ${image}`, data })
    }
  }

  #scheduleTick(): void {
    if (this.#isStopped) return
    const { clock, log } = this.#options
    this.#cancelTick = clock.after(MINUTE_MS - (clock.nowMs() % MINUTE_MS), () => {
      this.settle()
        .catch((error: unknown) =>
          log.error({ err: error }, `Cannot go on with updates: ${describeError(error)}`),
        )
        .finally(() => this.#scheduleTick())
    })
  }
}

function describePermits(permits: ReadonlyMap<Mac, Permit>): string {
  return [...permits].map(([mac, { mayStage, mayReboot }]) => `${mac} ${mayStage} ${mayReboot}`).join()
}

function toView(
  channel: string,
  {
    version,
    decision,
    haltAfter,
    held,
  }: { version: string; decision: RolloutDecision; haltAfter: number; held: readonly HeldRestart[] },
): RolloutView {
  const { state, reason, atOnce, done, updating, waiting, failed } = decision
  return {
    ...{ channel, version, state, atOnce, haltAfter, done, updating, waiting, failed },
    ...(reason !== undefined && { reason }),
    ...(held.length > 0 && { held }),
  }
}

function quarantined(mac: Mac, version: string, reason: string): NewEvent {
  return {
    kind: 'image-quarantined',
    mac,
    message: `image ${version} is in quarantine: ${reason}`,
    data: { image: version },
  }
}

function lost(mac: Mac, { version, reason }: ImageFailure): NewEvent {
  return {
    kind: 'update-failed',
    mac,
    message: `image ${version} failed: ${reason}`,
    data: { image: version },
  }
}

function started(mac: Mac, version: string): NewEvent {
  return {
    kind: 'update-started',
    mac,
    message: `it may restart into image ${version}`,
    data: { image: version },
  }
}
