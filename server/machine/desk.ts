// Where machines come with a question or a report: which boot, which disk, how far, what next.

import { randomBytes } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { KeyedQueue } from '#lib/keyed-queue.ts'
import type { Mac } from '#lib/mac.ts'

import { type BootPlan, decideBootPlan, diskArguments, isImagePlan, type ServerWords } from './boot-plan.ts'
import { decideCheckIn, findDoubt } from './check-in.ts'
import type { Consultant, Consultation } from './consultant.ts'
import { decideDiskPlan } from './disk-plan.ts'
import type { EventKind, NewEvent } from './event.ts'
import type { Fleet } from './fleet.ts'
import type { Boot, Machine, SlotName } from './machine.ts'
import type {
  BootOffer,
  BootWish,
  CheckIn,
  DiskPlan,
  DiskReport,
  EventLog,
  MachineDesk,
  MachineStore,
  Sighting,
  StepReport,
  Target,
} from './ports.ts'
import { isTakenBack, powerwashWord } from './powerwash.ts'
import { Repeats } from './repeats.ts'
import type { Rollouts } from './rollouts.ts'
import type { Roster } from './roster.ts'
import { decideTarget } from './target.ts'

export interface DeskOptions {
  readonly roster: Roster
  readonly machines: MachineStore
  readonly events: EventLog
  readonly consultant: Consultant
  readonly fleet: Fleet
  readonly rollouts: Rollouts
  /** Whether nothing is known against an image. */
  readonly isSound: (version: string) => boolean
  readonly queue: KeyedQueue<Mac>
  readonly clock: Clock
  readonly server: ServerWords
}

const STEP_EVENTS = {
  started: 'step-started',
  done: 'step-done',
  failed: 'step-failed',
} as const satisfies Record<StepReport['status'], EventKind>

export class Desk implements MachineDesk {
  readonly #options: DeskOptions
  readonly #targetListeners = new Set<() => void>()
  /** A machine on hold asks twice a minute, and one whose check-in or disks are refused about as often. */
  readonly #holds = new Repeats()
  readonly #refusals = new Repeats()
  readonly #diskRefusals = new Repeats()

  constructor(options: DeskOptions) {
    this.#options = options
  }

  async offerBoot(mac: Mac, sighting: Sighting, wish?: BootWish): Promise<BootOffer> {
    const { roster, queue, consultant } = this.#options
    await roster.seen(mac, sighting)
    const consultation = await consultant.consult(mac)
    return queue.run(mac, () => this.#offer(mac, this.#plan(mac, consultation, wish)))
  }

  /** A machine nobody knows is there all the same: this server has lost its database, or is another one than before. */
  async nameBoot(mac: Mac, _slot: SlotName): Promise<Boot> {
    const { roster, machines, clock, queue } = this.#options
    return queue.run(mac, async () => {
      if ((await roster.takeIn(mac, {})) === undefined) throw tooMany()
      return machines.saveBoot({ id: newId(), mac, mintedMs: clock.nowMs(), plan: 'disk' })
    })
  }

  async takeDisks(mac: Mac, report: DiskReport): Promise<DiskPlan> {
    return this.#options.queue.run(mac, () => this.#takeDisks(mac, report))
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
    const { queue, rollouts } = this.#options
    const { isNews, turnedBack } = await queue.run(mac, () => this.#takeCheckIn(mac, checkIn))
    // Outside the machine's queue, for it looks at all machines.
    if (isNews || rollouts.lockOf(mac) !== undefined) await rollouts.settle(mac)
    if (isNews) this.announceTargetChange()
    if (turnedBack !== undefined) throw new KitError('conflict', `Cannot go on with this boot: ${turnedBack}`)
  }

  async target(mac: Mac, bootId?: string): Promise<Target | undefined> {
    const { roster, consultant, fleet, rollouts, isSound, server } = this.#options
    if (!roster.has(mac)) return undefined // nothing is made, nor kept, for a MAC that somebody has made up
    const consultation = await consultant.consult(mac)
    const machine = roster.known(mac)
    if (machine === undefined) return undefined
    const { profile, bundle } = consultation
    const target = decideTarget({
      ...{ profile, machine, bundle, bootId, isSound, server },
      image: fleet.imageForRunning(profile, machine),
      permit: rollouts.permitOf(mac),
      isPowerwash: this.#mayPowerwash(machine, consultation),
    })
    if (target?.powerwash) await this.#noteSentToNetwork(mac)
    return target
  }

  onTargetChange(listener: () => void): () => void {
    this.#targetListeners.add(listener)
    return () => this.#targetListeners.delete(listener)
  }

  /** Wakes everybody who waits for a new target. */
  announceTargetChange(): void {
    for (const listener of this.#targetListeners) listener()
  }

  #plan(mac: Mac, { profile, bundle }: Consultation, wish?: BootWish): BootPlan {
    const { roster, fleet } = this.#options
    const machine = roster.known(mac)
    const image = fleet.imageForNew(profile)
    return decideBootPlan({ profile, machine, image, bundle, ...(wish !== undefined && { wish }) })
  }

  /** A machine that runs is not sent into a netboot that would hold it, or whose disk would be refused. */
  #mayPowerwash(machine: Machine, consultation: Consultation): boolean {
    const request = { ...machine, powerwashes: { ...machine.powerwashes, toldBoot: machine.bootId ?? '' } }
    const { profile, bundle } = consultation
    const image = this.#options.fleet.imageForNew(profile)
    const plan = decideBootPlan({ profile, machine: request, image, bundle })
    if (plan.kind !== 'powerwash' && plan.kind !== 'powerwash-all') return false
    const { disks } = machine
    if (disks === undefined) return true
    const wish = { disks, profile, persistence: 'keep', arguments: '' } as const
    return decideDiskPlan(wish).kind === 'use'
  }

  /** So that its netboot, when the request was taken back meanwhile, is not taken for one that somebody else wanted. */
  async #noteSentToNetwork(mac: Mac): Promise<void> {
    const { queue, roster } = this.#options
    await queue.run(mac, async () => {
      const machine = roster.known(mac)
      if (machine?.bootId === undefined || machine.powerwashes?.toldBoot === machine.bootId) return
      await roster.save({ ...machine, powerwashes: { ...machine.powerwashes, toldBoot: machine.bootId } })
    })
  }

  async #offer(mac: Mac, plan: BootPlan): Promise<BootOffer> {
    const { roster, machines, events, clock } = this.#options
    const boot: Boot = { id: newId(), mac, mintedMs: clock.nowMs(), plan: plan.kind }
    if ((await roster.takeIn(mac, {})) === undefined) {
      // It needs nothing of ours to go on to its disk, so it may, and leaves no trace.
      if (plan.kind === 'local-disk') return { boot, plan }
      throw tooMany()
    }
    const isTold = plan.kind === 'hold' && !this.#holds.isNews(mac, plan.reason)
    if (plan.kind !== 'hold') this.#holds.forget(mac)
    const [minted] = await Promise.all([
      machines.saveBoot(boot),
      ...(isTold ? [] : [events.append(scriptSent(boot, plan))]),
    ])
    return { boot: minted, plan }
  }

  async #takeDisks(mac: Mac, { boot: bootId, disks }: DiskReport): Promise<DiskPlan> {
    const { roster, machines, events, consultant, server } = this.#options
    const machine = roster.known(mac)
    const named = await machines.findBoot(bootId)
    if (machine === undefined)
      throw new KitError('not-found', `Cannot take the disks of ${mac}: it was never seen`)
    const doubt = findDoubt(bootId, { machine, named, current: await this.#currentBoot(machine) })
    if (doubt !== undefined) throw new KitError(doubt.code, `Cannot take these disks: ${doubt.reason}`)
    const profile = consultant.profileFor(mac)
    const isOver = named !== undefined && isTakenBack(named, machine)
    const plan: DiskPlan = isOver
      ? { kind: 'refused', lines: ['Cannot go on with the powerwash: it was taken back'] }
      : decideDiskPlan({
          ...{ disks, profile },
          persistence: named?.plan === 'powerwash-all' ? 'wipe' : 'keep',
          arguments: diskArguments(profile, server),
        })
    // A live boot reports its disks too, and leaves them alone.
    const text = plan.kind === 'refused' && named?.plan !== 'live' ? plan.lines.join('\n') : ''
    const isNews = text !== '' && this.#diskRefusals.isNews(mac, text)
    if (text === '') this.#diskRefusals.forget(mac)
    await Promise.all([
      roster.save({ ...machine, disks }),
      ...(isNews ? [events.append(diskRefused(mac, text))] : []),
    ])
    return plan
  }

  /** `isNews`: it says something that its target hangs on, or that of others. `turnedBack`: why it must not go on. */
  async #takeCheckIn(
    mac: Mac,
    checkIn: CheckIn,
  ): Promise<{ readonly isNews: boolean; readonly turnedBack: string | undefined }> {
    const { roster, machines, events, clock, rollouts, fleet, consultant } = this.#options
    const machine = await roster.takeIn(mac, {})
    if (machine === undefined) throw tooMany()
    const outcome = decideCheckIn(checkIn, {
      machine,
      named: await machines.findBoot(checkIn.boot),
      current: await this.#currentBoot(machine),
      lock: rollouts.lockOf(mac),
      powerwashWord: powerwashWord(consultant.profileFor(mac)),
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
    fleet.heard(mac)
    // Asked for in one turn, state and history share one commit (store/group-commit.ts): a kill leaves both or neither.
    await Promise.all([
      roster.save(outcome.machine),
      ...outcome.events.map((event) => events.append(event)),
      rollouts.noteFailures(mac, outcome.failures),
    ])
    return { isNews: saysMore(machine, outcome.machine), turnedBack: outcome.turnedBack }
  }

  async #currentBoot(machine: Machine): Promise<Boot | undefined> {
    return machine.bootId === undefined ? undefined : this.#options.machines.findBoot(machine.bootId)
  }
}

function saysMore(before: Machine, after: Machine): boolean {
  const keys = [
    ...(['bootId', 'state', 'imageVersion', 'bundleDigest', 'checks'] as const),
    ...(['slot', 'slots', 'isInstalled'] as const),
  ]
  return keys.some((key) => !isDeepStrictEqual(before[key], after[key]))
}

function newId(): string {
  return randomBytes(12).toString('hex')
}

function tooMany(): KitError {
  return new KitError('unavailable', 'Cannot take in another machine: too many are known')
}

function scriptSent(boot: Boot, plan: BootPlan): NewEvent {
  const what = isImagePlan(plan) ? `, image ${plan.image.version}` : `: ${plan.reason}`
  const message = `boot plan ${plan.kind}${what}`
  return { kind: 'boot-script-sent', mac: boot.mac, message, data: { plan: plan.kind, boot: boot.id } }
}

function diskRefused(mac: Mac, lines: string): NewEvent {
  const [first = ''] = lines.split('\n', 1)
  return { kind: 'disk-refused', mac, message: first, data: { lines } }
}
