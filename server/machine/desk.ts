// Where machines come with a question or a report: which boot, how far, what next.

import { randomBytes } from 'node:crypto'

import type { Clock } from '#lib/clock.ts'
import { describeError, KitError } from '#lib/errors.ts'
import type { KeyedQueue } from '#lib/keyed-queue.ts'
import type { Mac } from '#lib/mac.ts'

import { type BootPlan, decideBootPlan } from './boot-plan.ts'
import { decideCheckIn } from './check-in.ts'
import type { EventKind } from './event.ts'
import type { Boot, Machine } from './machine.ts'
import type {
  BootOffer,
  Bundle,
  Bundles,
  CheckIn,
  EventLog,
  Images,
  MachineDesk,
  MachineStore,
  Profiles,
  Sighting,
  StepReport,
  Target,
} from './ports.ts'
import type { Roster } from './roster.ts'

export interface DeskOptions {
  readonly roster: Roster
  readonly machines: MachineStore
  readonly events: EventLog
  readonly profiles: Profiles
  readonly bundles: Bundles
  readonly images: Images
  readonly queue: KeyedQueue<Mac>
  readonly clock: Clock
}

const STEP_EVENTS = {
  started: 'step-started',
  done: 'step-done',
  failed: 'step-failed',
} as const satisfies Record<StepReport['status'], EventKind>

export class Desk implements MachineDesk {
  readonly #options: DeskOptions
  readonly #targetListeners = new Set<() => void>()

  constructor(options: DeskOptions) {
    this.#options = options
  }

  async offerBoot(mac: Mac, sighting: Sighting): Promise<BootOffer> {
    const { roster, events } = this.#options
    await roster.seen(mac, sighting)
    const plan = await this.#plan(mac)
    const boot = await this.#options.queue.run(mac, () => this.#mint(mac, plan.kind))
    await events.append({
      kind: 'boot-script-sent',
      mac,
      message:
        plan.kind === 'live'
          ? `boot plan live, image ${plan.image.version}`
          : `boot plan ${plan.kind}: ${plan.reason}`,
      data: { plan: plan.kind, boot: boot.id },
    })
    return { boot, plan }
  }

  async report(mac: Mac, report: StepReport): Promise<void> {
    const { machines, events } = this.#options
    const boot = await machines.findBoot(report.boot)
    if (boot?.mac !== mac) {
      throw new KitError(
        'not-found',
        `Cannot take a report of boot ${report.boot}: it was never offered to this machine`,
      )
    }
    await events.append({
      kind: STEP_EVENTS[report.status],
      mac,
      message: report.message ?? `${report.step} ${report.status}`,
      data: {
        step: report.step,
        boot: report.boot,
        ...(report.seconds !== undefined && { seconds: report.seconds }),
        ...(report.log !== undefined && { log: report.log }),
      },
    })
  }

  async checkIn(mac: Mac, checkIn: CheckIn): Promise<void> {
    await this.#options.queue.run(mac, () => this.#takeCheckIn(mac, checkIn))
  }

  async target(mac: Mac): Promise<Target | undefined> {
    const plan = await this.#plan(mac)
    return plan.kind === 'live'
      ? { imageVersion: plan.image.version, bundleDigest: plan.bundle.digest }
      : undefined
  }

  onTargetChange(listener: () => void): () => void {
    this.#targetListeners.add(listener)
    return () => this.#targetListeners.delete(listener)
  }

  /** Wakes everybody who waits for a new target. Called by the composition root when files have changed. */
  announceTargetChange(): void {
    for (const listener of this.#targetListeners) listener()
  }

  /** A boot is always later than the one that checked in last, even when the clock was set back in between. */
  async #mint(mac: Mac, plan: BootPlan['kind']): Promise<Boot> {
    const { roster, machines, clock } = this.#options
    const machine = await roster.takeIn(mac, {})
    const current = machine && (await this.#currentBoot(machine))
    const mintedMs = Math.max(clock.nowMs(), (current?.mintedMs ?? 0) + 1)
    const boot: Boot = { id: randomBytes(12).toString('hex'), mac, mintedMs, plan }
    await machines.saveBoot(boot)
    return boot
  }

  async #plan(mac: Mac): Promise<BootPlan> {
    const { profiles, images } = this.#options
    const profile = profiles.profileFor(mac)
    return decideBootPlan(
      profile,
      images.current(),
      profile.role === undefined ? undefined : await this.#findBundle(mac),
    )
  }

  async #findBundle(mac: Mac): Promise<Bundle | undefined> {
    try {
      return await this.#options.bundles.bundleFor(mac)
    } catch (error) {
      await this.#options.events.append({ kind: 'profile-broken', mac, message: describeError(error) })
      return undefined
    }
  }

  async #takeCheckIn(mac: Mac, checkIn: CheckIn): Promise<void> {
    const { roster, machines, events, clock } = this.#options
    const machine = await roster.takeIn(mac, {})
    if (machine === undefined)
      throw new KitError('unavailable', 'Cannot take in another machine: too many are known')
    const outcome = decideCheckIn(checkIn, {
      machine,
      named: await machines.findBoot(checkIn.boot),
      current: await this.#currentBoot(machine),
      nowMs: clock.nowMs(),
    })
    if (outcome.kind === 'refused') {
      await events.append({
        kind: 'check-in-refused',
        mac,
        message: outcome.reason,
        data: { phase: checkIn.phase },
      })
      throw new KitError(outcome.code, `Cannot believe this check-in: ${outcome.reason}`)
    }
    await roster.save(outcome.machine)
    for (const event of outcome.events) await events.append(event)
  }

  async #currentBoot(machine: Machine): Promise<Boot | undefined> {
    return machine.bootId === undefined ? undefined : this.#options.machines.findBoot(machine.bootId)
  }
}
