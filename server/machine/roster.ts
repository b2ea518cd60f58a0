// Every machine the server knows: noticed by the front doors, looked at by people.

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import type { KeyedQueue } from '#lib/keyed-queue.ts'
import type { Mac } from '#lib/mac.ts'
import { isGroupMac } from '#lib/mac.ts'

import { hostnameOf } from './boot-plan.ts'
import type { NewEvent } from './event.ts'
import type { Attempt, Identity } from './identity.ts'
import type { Machine } from './machine.ts'
import { nodeRoleOf } from './node-settings.ts'
import type {
  Bundles,
  EventLog,
  MachineStore,
  MachineView,
  MachineViews,
  Profiles,
  Sighting,
  Sightings,
} from './ports.ts'
import { powerwashWord } from './powerwash.ts'
import type { Profile } from './profile.ts'

/** How stale `lastSeenMs` may be on disk: sightings come by the packet, and a disk write for each would be waste. */
const SEEN_RESOLUTION_MS = 10_000
/**
 * Beyond this many machines, MACs nobody gave a folder to are no longer taken in: made-up ones must not fill the disk.
 * Those that were only ever seen make room again when they have not been seen for a day.
 */
const MOST_MACHINES = 10_000
const STALE_AFTER_MS = 24 * 3_600_000

export interface RosterOptions {
  readonly machines: MachineStore
  readonly events: EventLog
  readonly profiles: Profiles
  readonly bundles: Bundles
  readonly queue: KeyedQueue<Mac>
  readonly clock: Clock
  readonly mostMachines?: number
  readonly identities: {
    primaryOf(mac: Mac): Mac
    of(mac: Mac): Identity | undefined
    attemptsOf(mac: Mac): readonly Attempt[]
  }
  /** What releases say of a machine with a role. */
  readonly releases?: {
    wantedImage(profile: Profile, machine: Machine): string | undefined
    pinOf(mac: Mac): string | undefined
  }
  /** Its node of the cluster. */
  readonly nodeOf?: (mac: Mac) => MachineView['node']
}

export class Roster implements Sightings, MachineViews {
  readonly #options: RosterOptions
  /** What the store holds, so that a sighting that tells nothing new costs no query. */
  readonly #known = new Map<Mac, Machine>()

  constructor(options: RosterOptions) {
    this.#options = options
  }

  /** Reads what the store knows. Called once, before anything else. */
  async load(): Promise<void> {
    for (const machine of await this.#options.machines.list()) this.#known.set(machine.mac, machine)
  }

  async seen(seenMac: Mac, seenSighting: Sighting): Promise<void> {
    if (isGroupMac(seenMac)) return
    const mac = this.#options.identities.primaryOf(seenMac)
    const known = this.#known.get(mac)
    const sighting = mac === seenMac ? this.#believed(known, seenSighting) : {}
    if (known !== undefined && !tellsMore(known, sighting, this.#options.clock.nowMs())) return
    await this.#options.queue.run(mac, () => this.#notice(mac, sighting))
  }

  has(mac: Mac): boolean {
    return this.#known.has(mac)
  }

  macs(): readonly Mac[] {
    return [...this.#known.keys()]
  }

  async list(): Promise<readonly MachineView[]> {
    const machines = [...this.#known.values()].sort((one, other) => (one.mac < other.mac ? -1 : 1))
    return Promise.all(machines.map((machine) => this.#view(machine)))
  }

  async find(mac: Mac): Promise<MachineView | undefined> {
    const machine = this.#known.get(mac)
    return machine && this.#view(machine)
  }

  /** As stored, without a look at its files. */
  known(mac: Mac): Machine | undefined {
    return this.#known.get(mac)
  }

  all(): readonly Machine[] {
    return [...this.#known.values()]
  }

  /** The machine as stored; for the desk, inside the queue of its MAC. Takes it in when it is new. */
  async takeIn(mac: Mac, sighting: Sighting): Promise<Machine | undefined> {
    return this.#known.get(mac) ?? (await this.#discover(mac, sighting))
  }

  /**
   * It has proved who it is, and what it says of itself counts. Its other MACs are no machines of their own any more.
   * Throws KitError `unavailable` when there is no room for another machine.
   */
  async welcome(
    mac: Mac,
    { aliases, ...said }: Pick<Sighting, 'uuid' | 'address'> & { readonly aliases: readonly Mac[] },
  ): Promise<void> {
    const { queue, machines } = this.#options
    await queue.run(mac, async () => {
      const machine = await this.takeIn(mac, said)
      if (machine === undefined) throw tooMany()
      await this.save({ ...machine, ...said })
    })
    for (const alias of aliases) {
      await queue.run(alias, async () => {
        if (!this.#known.delete(alias)) return
        await machines.remove(alias)
      })
    }
  }

  /** Inside the queue of its MAC. */
  async save(machine: Machine): Promise<void> {
    await this.#options.machines.save(machine)
    this.#known.set(machine.mac, machine)
  }

  /** With its boots. What it says or shows of itself makes it known again. */
  async forget(mac: Mac): Promise<void> {
    const { queue, machines } = this.#options
    await queue.run(mac, async () => {
      await machines.remove(mac)
      this.#known.delete(mac)
    })
  }

  async #notice(mac: Mac, sighting: Sighting): Promise<void> {
    const known = this.#known.get(mac)
    if (known === undefined) await this.#discover(mac, sighting)
    else {
      const lastSeenMs = this.#options.clock.nowMs()
      await this.save({ ...known, ...this.#believed(known, sighting), lastSeenMs })
    }
  }

  /** Anybody may say anything in a machine's name: of one that proves itself it only fills in what is missing. */
  #believed(known: Machine | undefined, sighting: Sighting): Sighting {
    if (known === undefined || this.#options.identities.of(known.mac) === undefined) return sighting
    return Object.fromEntries(
      Object.entries(sighting).filter(([key]) => known[key as keyof Sighting] === undefined),
    )
  }

  async #discover(mac: Mac, sighting: Sighting): Promise<Machine | undefined> {
    const { clock, events, profiles } = this.#options
    if (!(await this.#hasRoomFor(mac))) return undefined
    const nowMs = clock.nowMs()
    const profile = profiles.profileFor(mac)
    const word = powerwashWord(profile)
    const machine: Machine = {
      mac,
      state: 'discovered',
      stateSinceMs: nowMs,
      firstSeenMs: nowMs,
      lastSeenMs: nowMs,
      rebootReasons: [],
      // A word from before, say before the database was lost, asks for nothing.
      ...(word !== undefined && { powerwashes: { word } }),
      ...sighting,
    }
    const { role } = profile
    const discovered: NewEvent = {
      kind: 'machine-discovered',
      mac,
      message: role === undefined ? 'a new machine, without a role' : `a new machine, role ${role}`,
      data: { ...(sighting.firmware && { firmware: sighting.firmware }) },
    }
    await Promise.all([this.save(machine), events.append(discovered)]) // one commit: both or neither
    return machine
  }

  async #hasRoomFor(mac: Mac): Promise<boolean> {
    const { profiles, machines, clock, mostMachines = MOST_MACHINES } = this.#options
    if (this.#known.size < mostMachines) return true
    const withFolder = new Set(profiles.machines())
    if (withFolder.has(mac)) return true
    const staleMs = clock.nowMs() - STALE_AFTER_MS
    for (const known of this.#known.values()) {
      if (known.lastCheckInMs !== undefined || known.lastSeenMs > staleMs || withFolder.has(known.mac))
        continue
      this.#known.delete(known.mac)
      await machines.remove(known.mac)
      return true
    }
    return false
  }

  async #view(machine: Machine): Promise<MachineView> {
    const profile = this.#options.profiles.profileFor(machine.mac)
    const { releases, bundles, identities, nodeOf } = this.#options
    const node = nodeOf?.(machine.mac)
    const pin = releases?.pinOf(machine.mac)
    const identity = identities.of(machine.mac)
    const attempts = identities.attemptsOf(machine.mac)
    const view = {
      ...machine,
      ...(identity !== undefined && { identity: shown(identity) }),
      ...(attempts.length > 0 && { attempts }),
      ...(node !== undefined && { node }),
      channel: profile.channel,
      hostname: hostnameOf(machine.mac, profile),
      ...(pin !== undefined && { pin }),
    }
    if (profile.role === undefined) return view
    if (profile.broken !== undefined) return { ...view, role: profile.role }
    // A bundle that cannot be made is shown by its own event; the list must not fail over it.
    const bundle = await bundles.bundleFor(machine.mac).catch(() => undefined)
    const wantedImage = releases?.wantedImage(profile, machine)
    const part = nodeRoleOf(profile)
    return {
      ...view,
      role: profile.role,
      ...(part !== 'none' && { part }),
      ...(bundle && { wantedBundle: bundle.digest }),
      ...(wantedImage !== undefined && { wantedImage }),
    }
  }
}

function shown({ tier, sinceMs, keySha256, by, macs }: Identity): MachineView['identity'] & object {
  return { tier, sinceMs, keySha256, by, macs }
}

function tellsMore(known: Machine, sighting: Sighting, nowMs: number): boolean {
  // Either way: a clock that was set back must not leave "last seen" in the future.
  if (Math.abs(nowMs - known.lastSeenMs) >= SEEN_RESOLUTION_MS) return true
  return (
    (sighting.firmware !== undefined && sighting.firmware !== known.firmware) ||
    (sighting.uuid !== undefined && sighting.uuid !== known.uuid) ||
    (sighting.address !== undefined && sighting.address !== known.address)
  )
}

/** For whoever takes machines in. */
export function tooMany(): KitError {
  return new KitError('unavailable', 'Cannot take in another machine: too many are known')
}
