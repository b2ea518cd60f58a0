// Powerwashes as people ask for them, and what the next netboot of a machine would do.

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { KeyedQueue } from '#lib/keyed-queue.ts'
import type { Mac } from '#lib/mac.ts'

import { type BootPlan, decideBootPlan, diskArguments, type ServerWords } from './boot-plan.ts'
import type { Consultant } from './consultant.ts'
import { describePlan } from './disk-lines.ts'
import { decideDiskPlan } from './disk-plan.ts'
import type { Fleet } from './fleet.ts'
import type { Machine, PowerwashRequest } from './machine.ts'
import type { EventLog, MachineView, PlanView, Powerwashes, Profiles } from './ports.ts'
import { findRequest, powerwashWord } from './powerwash.ts'
import type { Roster } from './roster.ts'

export interface PowerwashDeskOptions {
  readonly roster: Roster
  readonly profiles: Pick<Profiles, 'profileFor' | 'machines'>
  readonly consultant: Consultant
  readonly fleet: Fleet
  readonly events: EventLog
  readonly queue: KeyedQueue<Mac>
  readonly clock: Clock
  readonly server: ServerWords
  /** A machine that runs may have to start from the network now. */
  readonly onChange: () => void
}

export class PowerwashDesk implements Powerwashes {
  readonly #options: PowerwashDeskOptions

  constructor(options: PowerwashDeskOptions) {
    this.#options = options
  }

  async request(mac: Mac, persistence: PowerwashRequest['persistence']): Promise<MachineView> {
    const { roster, events, clock } = this.#options
    return this.#change(mac, async (machine) => {
      this.#requireDisk(machine)
      const powerwash = { requestedMs: clock.nowMs(), persistence }
      const lost = persistence === 'wipe' ? 'persistence is lost too' : 'persistence is kept'
      await Promise.all([
        roster.save({ ...machine, powerwash }),
        events.append({
          kind: 'powerwash-requested',
          mac,
          message: `its next netboot makes it new, ${lost}`,
          data: { persistence },
        }),
      ])
    })
  }

  async cancel(mac: Mac): Promise<MachineView> {
    const { roster, events, clock, profiles } = this.#options
    return this.#change(mac, async (machine) => {
      const profile = profiles.profileFor(mac)
      if (findRequest(profile, machine) === undefined) {
        const why = machine.isInstalled === false ? 'it has begun' : 'none was asked for'
        throw new KitError('conflict', `Cannot take back the powerwash of ${mac}: ${why}`)
      }
      const { powerwash: _request, ...kept } = machine
      const word = powerwashWord(profile)
      // Scripts that were handed out for it say powerwash still; such a boot gets no disk.
      const memory = {
        ...machine.powerwashes,
        cancelledMs: clock.nowMs(),
        ...(word !== undefined && { word }),
      }
      await Promise.all([
        roster.save({ ...kept, powerwashes: memory }),
        events.append({ kind: 'powerwash-cancelled', mac, message: 'the powerwash was taken back' }),
      ])
    })
  }

  async plan(mac: Mac): Promise<PlanView> {
    const { roster, profiles, consultant, fleet } = this.#options
    const machine = roster.known(mac)
    if (machine === undefined && !profiles.machines().includes(mac)) throw unknown(mac)
    const { profile, bundle } = await consultant.consult(mac)
    const facts = { profile, machine, image: fleet.imageForNew(profile), bundle }
    const plan = decideBootPlan(facts)
    const disks = machine?.disks ?? []
    const lines = this.#describe(plan, machine)
    if (plan.kind !== 'local-disk' || !plan.menu) return { plan: plan.kind, lines, disks }
    const powerwash = this.#describe(decideBootPlan({ ...facts, wish: 'powerwash' }), machine)
    return {
      plan: plan.kind,
      lines: [...lines, 'a powerwash:', ...powerwash.map((line) => `  ${line}`)],
      disks,
    }
  }

  #describe(plan: BootPlan, machine: Machine | undefined): readonly string[] {
    if (!('profile' in plan) || machine?.disks === undefined) return describePlan(plan, undefined)
    const diskPlan = decideDiskPlan({
      disks: machine.disks,
      profile: plan.profile,
      persistence: plan.kind === 'powerwash-all' ? 'wipe' : 'keep',
      arguments: diskArguments(plan.profile, this.#options.server),
    })
    return describePlan(plan, diskPlan)
  }

  async #change(mac: Mac, work: (machine: Machine) => Promise<void>): Promise<MachineView> {
    const { roster, queue, onChange } = this.#options
    await queue.run(mac, async () => {
      const machine = roster.known(mac)
      if (machine === undefined) throw unknown(mac)
      await work(machine)
    })
    onChange()
    const view = await roster.find(mac)
    if (view === undefined) throw unknown(mac)
    return view
  }

  #requireDisk({ mac, isInstalled }: Machine): void {
    const profile = this.#options.profiles.profileFor(mac)
    if (profile.role === undefined) {
      throw new KitError('conflict', `Cannot powerwash ${mac}: it has no role, so nothing of it is ours`, {
        fix: `kateskit assign ${mac} <role>`,
      })
    }
    const boot = profile.settings.get('boot')
    if (boot?.value === 'live' && isInstalled !== true) {
      throw new KitError(
        'conflict',
        `Cannot powerwash ${mac}: it runs in memory, for its setting boot is live`,
        {
          fix: `start it anew, or change ${boot.file}`,
        },
      )
    }
  }
}

function unknown(mac: Mac): KitError {
  return new KitError('not-found', `Cannot find machine ${mac}: it was never seen`)
}
