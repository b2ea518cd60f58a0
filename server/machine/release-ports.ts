// The interfaces of releases: channels, pins, quarantines, rollouts, and the lock of those who may restart.

import type { Mac } from '#lib/mac.ts'

/** A name that points at an image version. */
export interface Channel {
  readonly name: string
  readonly version?: string
  /** What it pointed at before, newest first, at most ten. */
  readonly previous: readonly string[]
  readonly isPaused: boolean
  readonly changedMs: number
}

/** A version that failed on a machine: given to nobody until a person lifts it. */
export interface Quarantine {
  readonly version: string
  readonly mac: Mac
  readonly reason: string
  readonly sinceMs: number
}

export interface QuarantineView extends Quarantine {
  /** That point at it now. */
  readonly channels: readonly string[]
}

/** One failure of a version on a machine, since it was promoted or lifted last. */
export interface UpdateFailure {
  readonly version: string
  readonly mac: Mac
  readonly reason: string
  readonly atMs: number
}

/** Who may restart now: a machine in an update, or another tool's client (FleetLock). */
export interface UpdateLock {
  readonly channel: string
  /** A MAC, or `fleetlock:<id>`. */
  readonly holder: string
  /** The version it goes to; absent for other tools. */
  readonly version?: string
  readonly sinceMs: number
}

export interface ReleaseStore {
  channels(): Promise<readonly Channel[]>
  saveChannel(channel: Channel): Promise<void>
  /** Machine → version. */
  pins(): Promise<ReadonlyMap<Mac, string>>
  savePin(mac: Mac, version: string | undefined): Promise<void>
  quarantines(): Promise<readonly Quarantine[]>
  saveQuarantine(quarantine: Quarantine): Promise<void>
  failures(): Promise<readonly UpdateFailure[]>
  saveFailure(failure: UpdateFailure): Promise<void>
  /** Ends the quarantine and forgets the failures of a version. */
  lift(version: string): Promise<void>
  locks(): Promise<readonly UpdateLock[]>
  saveLock(lock: UpdateLock): Promise<void>
  removeLock(holder: string): Promise<void>
}

export interface ChannelView extends Channel {
  readonly machines: readonly Mac[]
}

/** `quarantined`: nobody gets it until it is lifted; `halted`: it had to stop while others were under way. */
export type RolloutState = 'done' | 'running' | 'paused' | 'halted' | 'quarantined'

export interface RolloutView {
  readonly channel: string
  readonly version: string
  readonly state: RolloutState
  readonly reason?: string
  readonly atOnce: number
  readonly haltAfter: number
  readonly done: readonly Mac[]
  readonly updating: readonly Mac[]
  readonly waiting: readonly Mac[]
  readonly failed: readonly Mac[]
  /** Of `updating`: those that may not restart yet because of the cluster. Absent when there are none. */
  readonly held?: readonly HeldRestart[]
}

export interface HeldRestart {
  readonly mac: Mac
  readonly reason: string
}

/** An image with what the fleet does with it. */
export interface ImageView {
  readonly version: string
  readonly arch: string
  readonly sizeBytes: number
  readonly importedMs: number
  readonly epoch: number
  readonly kubernetes?: string
  readonly channels: readonly string[]
  /** That run it or have it in a slot. */
  readonly machines: readonly Mac[]
  readonly quarantine?: Quarantine
}

/** Channels, pins and rollouts as people and programs handle them. All throw KitError with a fix. */
export interface Releases {
  images(): Promise<readonly ImageView[]>
  channels(): Promise<readonly ChannelView[]>
  /** `not-found` for an unknown version, `conflict` for one in quarantine. */
  promote(version: string, channel: string): Promise<ChannelView>
  pause(channel: string, isPaused: boolean): Promise<ChannelView>
  /** `undefined` unpins. */
  pin(mac: Mac, version: string | undefined): Promise<void>
  /** `conflict` while a channel, a pin or a machine uses it. */
  removeImage(version: string): Promise<void>
  rollouts(): Promise<readonly RolloutView[]>
  /** Lifts the quarantine of the channel's version, and goes on. */
  retry(channel: string): Promise<RolloutView>
  quarantines(): Promise<readonly QuarantineView[]>
  /** Lets a version be used again, whether a channel points at it or not. `not-found` when it is in no quarantine. */
  lift(version: string): Promise<void>
  /** FleetLock: whether `id` may restart now. */
  lock(group: string, id: string): Promise<{ readonly isHeld: boolean; readonly holder?: string }>
  unlock(group: string, id: string): Promise<void>
  locks(): Promise<readonly UpdateLock[]>
  /** A person gives back what another tool does not. `conflict` for a machine: its lock ends with its update. */
  releaseLock(channel: string, holder: string): Promise<void>
}
