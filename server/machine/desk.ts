// Where machines come with a question or a report: which boot, how far, what next.

import { randomBytes } from 'node:crypto'

import type { Clock } from '#lib/clock.ts'
import { describeError, KitError } from '#lib/errors.ts'
import type { KeyedQueue } from '#lib/keyed-queue.ts'
import type { Log } from '#lib/log.ts'
import type { Mac } from '#lib/mac.ts'

import { type BootPlan, type BundleOutcome, decideBootPlan, decideTarget } from './boot-plan.ts'
import { decideCheckIn } from './check-in.ts'
import type { EventKind, NewEvent } from './event.ts'
import type { Boot, Machine, SlotName } from './machine.ts'
import type {
  BootOffer,
  Bundles,
  CheckIn,
  DiskPlan,
  DiskReport,
  EventLog,
  Images,
  MachineDesk,
  MachineStore,
  Profiles,
  Sighting,
  StepReport,
  Target,
} from './ports.ts'
import type { Profile } from './profile.ts'
import { Repeats } from './repeats.ts'
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
  readonly log: Log
}

const STEP_EVENTS = {
  started: 'step-started',
  done: 'step-done',
  failed: 'step-failed',
} as const satisfies Record<StepReport['status'], EventKind>

const NO_ROLE: BundleOutcome = { kind: 'refused', reason: 'without a role there is no bundle' }

export class Desk implements MachineDesk {
  readonly #options: DeskOptions
  readonly #targetListeners = new Set<() => void>()
  /** A machine on hold asks twice a minute, and one whose check-in is refused about as often. */
  readonly #holds = new Repeats()
  readonly #refusals = new Repeats()

  constructor(options: DeskOptions) {
    this.#options = options
  }

  async offerBoot(mac: Mac, sighting: Sighting): Promise<BootOffer> {
    const { roster, images, queue } = this.#options
    await roster.seen(mac, sighting)
    const { profile, outcome } = await this.#consult(mac)
    const plan = decideBootPlan(profile, images.current(), outcome)
    return queue.run(mac, () => this.#offer(mac, plan))
  }

  async nameBoot(mac: Mac, _slot: SlotName): Promise<Boot> {
    const { machines, clock } = this.#options
    const id = randomBytes(12).toString('hex')
    return machines.saveBoot({ id, mac, mintedMs: clock.nowMs(), plan: 'disk' })
  }

  async takeDisks(_mac: Mac, _report: DiskReport): Promise<DiskPlan> {
    return { kind: 'refused', lines: ['Cannot choose a disk: this server makes no disk plans yet'] }
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
    const { roster, images } = this.#options
    if (!roster.has(mac)) return undefined // nothing is made, nor kept, for a MAC that somebody has made up
    const { profile, outcome } = await this.#consult(mac)
    return decideTarget(profile, images.current(), outcome)
  }

  onTargetChange(listener: () => void): () => void {
    this.#targetListeners.add(listener)
    return () => this.#targetListeners.delete(listener)
  }

  /** Wakes everybody who waits for a new target. Called by the composition root when files have changed. */
  announceTargetChange(): void {
    for (const listener of this.#targetListeners) listener()
  }

  async #offer(mac: Mac, plan: BootPlan): Promise<BootOffer> {
    const { roster, machines, events, clock } = this.#options
    const boot: Boot = { id: randomBytes(12).toString('hex'), mac, mintedMs: clock.nowMs(), plan: plan.kind }
    if ((await roster.takeIn(mac, {})) === undefined) {
      // It needs nothing of ours to go on to its disk, so it may, and leaves no trace.
      if (plan.kind === 'local-disk') return { boot, plan }
      throw new KitError('unavailable', 'Cannot take in another machine: too many are known')
    }
    const isTold = plan.kind === 'hold' && !this.#holds.isNews(mac, plan.reason)
    if (plan.kind !== 'hold') this.#holds.forget(mac)
    const [minted] = await Promise.all([
      machines.saveBoot(boot),
      ...(isTold ? [] : [events.append(scriptSent(boot, plan))]),
    ])
    return { boot: minted, plan }
  }

  /** The profile and the bundle that belongs to it: the files may change while the bundle is made. */
  async #consult(mac: Mac): Promise<{ profile: Profile; outcome: BundleOutcome }> {
    for (;;) {
      const before = this.#options.profiles.profileFor(mac)
      if (before.role === undefined) return { profile: before, outcome: NO_ROLE }
      const outcome = await this.#makeBundle(mac)
      const profile = this.#options.profiles.profileFor(mac)
      if (profile.role === before.role && profile.layers.join() === before.layers.join()) {
        return { profile, outcome }
      }
    }
  }

  /** What is wrong with an overlay is told in the history by whoever makes the bundles. */
  async #makeBundle(mac: Mac): Promise<BundleOutcome> {
    try {
      return { kind: 'made', bundle: await this.#options.bundles.bundleFor(mac) }
    } catch (error) {
      if (error instanceof KitError) return { kind: 'refused', reason: inOneLine(error.message) }
      this.#options.log.error({ err: error, mac }, `no overlay bundle: ${describeError(error)}`)
      return { kind: 'refused', reason: "the server cannot make this machine's overlay bundle" }
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
      if (this.#refusals.isNews(mac, outcome.code)) {
        const data = { phase: checkIn.phase }
        await events.append({ kind: 'check-in-refused', mac, message: outcome.reason, data })
      }
      throw new KitError(outcome.code, `Cannot believe this check-in: ${outcome.reason}`)
    }
    this.#refusals.forget(mac)
    // Asked for in one turn, state and history share one commit (store/group-commit.ts): a kill leaves both or neither.
    await Promise.all([roster.save(outcome.machine), ...outcome.events.map((event) => events.append(event))])
  }

  async #currentBoot(machine: Machine): Promise<Boot | undefined> {
    return machine.bootId === undefined ? undefined : this.#options.machines.findBoot(machine.bootId)
  }
}

function scriptSent(boot: Boot, plan: BootPlan): NewEvent {
  return {
    kind: 'boot-script-sent',
    mac: boot.mac,
    message:
      plan.kind === 'live'
        ? `boot plan live, image ${plan.image.version}`
        : `boot plan ${plan.kind}: ${plan.reason}`,
    data: { plan: plan.kind, boot: boot.id },
  }
}

/** A list of problems, one a line, by its first: a machine's console has little room. */
function inOneLine(message: string): string {
  const [title = '', first, ...more] = message.split('\n').map((line) => line.trim())
  const rest = more.length === 0 ? '' : ` (and ${more.length} more)`
  return first === undefined ? title : `${title} ${first}${rest}`
}
