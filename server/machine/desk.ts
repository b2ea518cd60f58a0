// Where machines come with a question or a report: which boot, which disk, how far, what next.

import { randomBytes } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { KeyedQueue } from '#lib/keyed-queue.ts'
import type { Mac } from '#lib/mac.ts'

import { type BootPlan, decideBootPlan, diskArguments, type ServerWords } from './boot-plan.ts'
import { decideCheckIn, findDoubt } from './check-in.ts'
import type { Consultant, Consultation } from './consultant.ts'
import { diskRefused, scriptSent } from './desk-news.ts'
import { decideDiskPlan } from './disk-plan.ts'
import { DiskReturns } from './disk-returns.ts'
import type { EventKind } from './event.ts'
import type { Fleet } from './fleet.ts'
import type { Boot, Machine, SlotName } from './machine.ts'
import type { MachineAudit } from './machine-audit.ts'
import { Pace } from './pace.ts'
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
  Speaker,
  StepReport,
  Target,
} from './ports.ts'
import { isTakenBack, powerwashWord } from './powerwash.ts'
import { Repeats } from './repeats.ts'
import type { Rollouts } from './rollouts.ts'
import { type Roster, tooMany } from './roster.ts'
import type { Secrets } from './secret-ports.ts'
import { decideTarget } from './target.ts'

export interface DeskOptions {
  readonly roster: Roster
  readonly machines: MachineStore
  readonly events: EventLog
  readonly consultant: Consultant
  readonly fleet: Fleet
  readonly secrets: Pick<Secrets, 'secretsFor'>
  readonly rollouts: Rollouts
  /** Whether nothing is known against an image. */
  readonly isSound: (version: string) => boolean
  readonly audit: MachineAudit
  /** What a MAC is an alias of; itself when it is of nothing. */
  readonly primaryOf: (mac: Mac) => Mac
  readonly queue: KeyedQueue<Mac>
  readonly clock: Clock
  readonly server: ServerWords
}

const STEP_EVENTS = {
  started: 'step-started',
  done: 'step-done',
  failed: 'step-failed',
} as const satisfies Record<StepReport['status'], EventKind>

/** Anybody may ask for scripts, and must not push everything else out of the history by it. */
const SCRIPTS_TOLD = { atOnce: 6_000, oneEveryMs: 10 }
const SCRIPTS_TOLD_OF_ONE = { atOnce: 30, oneEveryMs: 10_000 }

export class Desk implements MachineDesk {
  readonly #options: DeskOptions
  readonly #targetListeners = new Set<() => void>()
  /** A machine on hold asks twice a minute, and one whose check-in or disks are refused about as often. */
  readonly #holds = new Repeats()
  readonly #refusals = new Repeats()
  readonly #diskRefusals = new Repeats()
  readonly #diskReturns: DiskReturns
  readonly #scripts: Pace
  readonly #scriptsOfOne: Pace

  constructor(options: DeskOptions) {
    this.#options = options
    this.#diskReturns = new DiskReturns(options.clock)
    this.#scripts = new Pace(options.clock, SCRIPTS_TOLD)
    this.#scriptsOfOne = new Pace(options.clock, SCRIPTS_TOLD_OF_ONE)
  }

  async offerBoot(asked: Mac, sighting: Sighting, wish?: BootWish): Promise<BootOffer> {
    const { roster, queue, consultant, primaryOf } = this.#options
    const mac = primaryOf(asked)
    await roster.seen(asked, sighting)
    const consultation = await consultant.consult(mac)
    return queue.run(mac, () =>
      this.#offer(mac, this.#plan(mac, consultation, wish ?? this.#diskReturns.wishOf(mac))),
    )
  }

  /** A machine nobody knows is there all the same: this server has lost its database, or is another one than before. */
  async nameBoot(mac: Mac, _slot: SlotName, by?: Speaker): Promise<Boot> {
    const { roster, machines, clock, queue } = this.#options
    return queue.run(mac, async () => {
      if ((await roster.takeIn(mac, {})) === undefined) throw tooMany()
      this.#diskReturns.forget(mac)
      const boot: Boot = { id: newId(), mac, mintedMs: clock.nowMs(), plan: 'disk' }
      return machines.saveBoot(by === undefined ? boot : { ...boot, keySha256: by.keySha256 })
    })
  }

  async takeDisks(mac: Mac, report: DiskReport, by?: Speaker): Promise<DiskPlan> {
    return this.#options.queue.run(mac, () => this.#takeDisks(mac, report, by))
  }

  async report(asked: Mac, report: StepReport, by?: Speaker): Promise<void> {
    const { events, primaryOf } = this.#options
    const mac = primaryOf(asked)
    const boot = await this.#findBoot(report.boot)
    if (boot?.mac !== mac) {
      throw new KitError(
        'not-found',
        `Cannot take a report of boot ${report.boot}: it was never offered to this machine`,
      )
    }
    if (by !== undefined) await this.#claim(boot, by)
    await events.append({
      kind: STEP_EVENTS[report.status],
      mac,
      message: report.message ?? `${report.step} ${report.status}`,
      data: {
        step: report.step,
        boot: report.boot,
        ...(by === undefined && { unproved: true }),
        ...(report.seconds !== undefined && { seconds: report.seconds }),
        ...(report.log !== undefined && { log: report.log }),
      },
    })
  }

  async checkIn(mac: Mac, checkIn: CheckIn, by?: Speaker): Promise<void> {
    const { queue, rollouts } = this.#options
    if (checkIn.phase === 'running') this.#diskReturns.forget(mac)
    const { isNews, turnedBack } = await queue.run(mac, () => this.#takeCheckIn(mac, checkIn, by))
    // Outside the machine's queue, for it looks at all machines.
    if (isNews || rollouts.lockOf(mac) !== undefined) await rollouts.settle(mac)
    if (isNews) this.announceTargetChange()
    if (turnedBack !== undefined) throw new KitError('conflict', `Cannot go on with this boot: ${turnedBack}`)
  }

  async target(mac: Mac, bootId?: string, by?: Speaker): Promise<Target | undefined> {
    const { roster, consultant, fleet, rollouts, isSound, server } = this.#options
    if (!roster.has(mac)) return undefined // nothing is made, nor kept, for a MAC that somebody has made up
    if (by !== undefined && bootId !== undefined) await this.#claimNamed(mac, bootId, by)
    const consultation = await consultant.consult(mac)
    const hasRole = consultation.profile.role !== undefined
    const secretsDigest = hasRole ? (await this.#options.secrets.secretsFor(mac))?.digest : undefined
    const machine = roster.known(mac)
    if (machine === undefined) return undefined
    const { profile, bundle } = consultation
    const target = decideTarget({
      ...{ profile, machine, bundle, bootId, isSound, secretsDigest, server },
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
    const machine = await roster.takeIn(mac, {})
    if (machine === undefined) {
      // It needs nothing of ours to go on to its disk, so it may, and leaves no trace.
      if (plan.kind === 'local-disk') return { boot, plan }
      throw tooMany()
    }
    const isTold = plan.kind === 'hold' && !this.#holds.isNews(mac, plan.reason)
    if (plan.kind !== 'hold') this.#holds.forget(mac)
    this.#diskReturns.offered(mac, plan)
    const minted = await machines.offerBoot(boot, await this.#staleUntilMs(machine))
    const isNews = !isTold && this.#scriptsOfOne.take(mac) && this.#scripts.take()
    if (isNews) await events.append(scriptSent(minted, plan))
    return { boot: minted, plan }
  }

  async #takeDisks(mac: Mac, { boot: bootId, disks }: DiskReport, by?: Speaker): Promise<DiskPlan> {
    const { roster, events, consultant, server } = this.#options
    const machine = roster.known(mac)
    const named = await this.#findBoot(bootId)
    if (machine === undefined)
      throw new KitError('not-found', `Cannot take the disks of ${mac}: it was never seen`)
    const doubt = findDoubt(bootId, { machine, named, current: await this.#currentBoot(machine) })
    if (doubt !== undefined) throw new KitError(doubt.code, `Cannot take these disks: ${doubt.reason}`)
    if (named !== undefined && by !== undefined) await this.#claim(named, by)
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
    by?: Speaker,
  ): Promise<{ readonly isNews: boolean; readonly turnedBack: string | undefined }> {
    const { roster, events, clock, rollouts, fleet, consultant } = this.#options
    const machine = await roster.takeIn(mac, {})
    if (machine === undefined) throw tooMany()
    const named = await this.#findBoot(checkIn.boot)
    if (by !== undefined && named?.mac === mac) await this.#claim(named, by)
    const outcome = decideCheckIn(checkIn, {
      machine,
      named,
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
    return machine.bootId === undefined ? undefined : this.#findBoot(machine.bootId)
  }

  /** A boot that was offered to another MAC of a machine, before that was known to be one, is the machine's. */
  async #findBoot(id: string): Promise<Boot | undefined> {
    const { machines, primaryOf } = this.#options
    const boot = await machines.findBoot(id)
    return boot && { ...boot, mac: primaryOf(boot.mac) }
  }

  /** Boots from before then say what is over: they are offered to nobody again. */
  async #staleUntilMs(machine: Machine): Promise<number> {
    const current = await this.#currentBoot(machine)
    return Math.max(current?.mintedMs ?? 0, machine.powerwashes?.cancelledMs ?? 0)
  }

  async #claimNamed(mac: Mac, bootId: string, by: Speaker): Promise<void> {
    const boot = await this.#findBoot(bootId)
    if (boot?.mac === mac) await this.#claim(boot, by)
  }

  /** The boot is this key's from now on. Throws KitError `wrong-machine` when it is another's: a copy of somebody's words. */
  async #claim(boot: Boot, { keySha256 }: Speaker): Promise<void> {
    if (boot.keySha256 === keySha256) return
    const { machines, events, audit } = this.#options
    if (boot.keySha256 === undefined && (await machines.claimBoot(boot.id, keySha256))) return
    const reason = `boot ${boot.id} is of another key`
    if (this.#refusals.isNews(boot.mac, 'another key')) {
      const entry = { actor: `machine ${boot.mac}`, action: 'check-in-refused', target: boot.mac }
      await audit.refused({ ...entry, outcome: 'wrong-machine', detail: `boot=${boot.id} key=${keySha256}` })
      await events.append({
        kind: 'check-in-refused',
        mac: boot.mac,
        message: reason,
        data: { key: keySha256 },
      })
    }
    throw new KitError('wrong-machine', `Cannot believe words of this boot: ${reason}`)
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
