// The machines as releases see them: each with its channel, its pin, and the image that follows from them.

import type { Clock } from '#lib/clock.ts'
import type { Mac } from '#lib/mac.ts'

import { type ChoiceFacts, chooseForNew, chooseForRunning, type ImageChoice } from './image-choice.ts'
import type { Machine } from './machine.ts'
import { nodeRoleOf } from './node-settings.ts'
import type { ImageStore, Profiles } from './ports.ts'
import type { Profile } from './profile.ts'
import type { ReleaseBook } from './release-book.ts'
import type { Channel, UpdateFailure } from './release-ports.ts'
import { isTolerated, type RolloutFacts, type RolloutMachine } from './rollout.ts'
import { type UpdatePolicy, updatePolicy } from './update-policy.ts'
import { findUpdateWindow, type UpdateWindow } from './update-window.ts'

export interface FleetOptions {
  readonly book: ReleaseBook
  /** All machines that are known. */
  readonly machines: () => readonly Machine[]
  readonly profiles: Pick<Profiles, 'profileFor'>
  readonly images: Pick<ImageStore, 'list' | 'find'>
  readonly clock: Clock
}

interface Member {
  readonly machine: Machine
  readonly profile: Profile
}

/** Several machines have the same few texts, and making a formatter for a time zone is slow. */
const WINDOWS_KEPT = 1_000

export class Fleet {
  readonly #options: FleetOptions
  readonly #windows = new Map<string, UpdateWindow>()
  /** By the clock that never jumps, which began with this server: what it did not hear while it was off says nothing. */
  readonly #heardMs = new Map<Mac, number>()
  readonly #startedMs: number

  constructor(options: FleetOptions) {
    this.#options = options
    this.#startedMs = options.clock.monotonicMs()
  }

  heard(mac: Mac): void {
    this.#heardMs.set(mac, this.#options.clock.monotonicMs())
  }

  channelOf(mac: Mac): string {
    return this.#options.profiles.profileFor(mac).channel
  }

  /** Machines with a role on the channel. */
  membersOf(channel: string): readonly Mac[] {
    return this.#members().flatMap(({ machine, profile }) => (profile.channel === channel ? machine.mac : []))
  }

  /** That were promoted once, have machines, or hold locks. */
  channelNames(): readonly string[] {
    const { book } = this.#options
    const names = [
      ...book.channels().map(({ name }) => name),
      ...book.locks().map(({ channel }) => channel),
      ...this.#members().map(({ profile }) => profile.channel),
    ]
    return [...new Set(names)].sort()
  }

  policyOf(channel: string): UpdatePolicy {
    return updatePolicy(this.#members().find(({ profile }) => profile.channel === channel)?.profile)
  }

  /** For a netboot. */
  imageForNew(profile: Profile): ImageChoice {
    return chooseForNew(this.#choiceFacts(profile))
  }

  /** For a machine that runs. */
  imageForRunning(profile: Profile, machine: Machine): ImageChoice {
    return chooseForRunning(this.#choiceFacts(profile), machine)
  }

  /** What it should have, as people see it: of a machine without a disk of ours, what its next netboot would give it. */
  wantedVersion(profile: Profile, machine: Machine): string | undefined {
    const isRunning = machine.state === 'running' || machine.isInstalled === true
    const image = isRunning ? this.imageForRunning(profile, machine) : this.imageForNew(profile)
    return image.kind === 'chosen' ? image.image.version : undefined
  }

  /** What the rollout of the channel is decided from. */
  rolloutFacts(name: string, checkedIn?: Mac): RolloutFacts {
    const { book } = this.#options
    const channel = this.pointerOf(name)
    const version = channel.version ?? ''
    return {
      channel,
      policy: this.policyOf(name),
      machines: this.#installed(name).map((member) => this.#rolloutMachine(member)),
      locks: book.locksOf(name),
      failures: this.#ownFailures(name, version),
      quarantine: book.quarantineOf(version),
      otherControlPlanes: this.#controlPlanesHolding(name),
      checkedIn,
    }
  }

  pointerOf(name: string): Channel {
    return this.#options.book.channel(name) ?? { name, previous: [], isPaused: false, changedMs: 0 }
  }

  #members(): readonly Member[] {
    const { machines, profiles } = this.#options
    return machines()
      .map((machine) => ({ machine, profile: profiles.profileFor(machine.mac) }))
      .filter(({ profile }) => profile.role !== undefined)
  }

  #installed(channel: string): readonly Member[] {
    return this.#members().filter(
      ({ machine, profile }) => machine.isInstalled === true && profile.channel === channel,
    )
  }

  #rolloutMachine({ machine, profile }: Member): RolloutMachine {
    const { book, clock } = this.#options
    const image = this.imageForRunning(profile, machine)
    const heardMs = this.#heardMs.get(machine.mac) ?? this.#startedMs
    return {
      machine,
      // One without a root hash boots live and nothing else: there is nothing to write into a slot.
      ...(image.kind === 'chosen' && image.image.rootHash !== undefined && { wanted: image.image.version }),
      isPinned: book.pinOf(machine.mac) !== undefined,
      isCanary: isCanary(profile),
      isControlPlane: isControlPlane(profile),
      isWindowOpen: this.#windowOf(profile).isOpen(clock.nowMs()),
      silentMs: clock.monotonicMs() - heardMs,
    }
  }

  #choiceFacts(profile: Profile): ChoiceFacts {
    const { book, images } = this.#options
    const { mac, channel } = profile
    const pointer = book.channel(channel)
    return {
      mac,
      channel,
      pointer,
      pin: book.pinOf(mac),
      find: (version) => images.find(version),
      isEmpty: images.list().length === 0,
      quarantineOf: (version) => book.quarantineOf(version),
      failures: book.failuresOn(mac),
      isTolerated: isTolerated({
        failures: this.#ownFailures(channel, pointer?.version ?? ''),
        policy: updatePolicy(profile),
      }),
    }
  }

  /** Also of those whose disk is being made new meanwhile. */
  #ownFailures(channel: string, version: string): readonly UpdateFailure[] {
    const { book, profiles } = this.#options
    return book.failuresOf(version).filter(({ mac }) => {
      const profile = profiles.profileFor(mac)
      return profile.role !== undefined && profile.channel === channel
    })
  }

  #controlPlanesHolding(except: string): number {
    const { book, profiles } = this.#options
    return book
      .locks()
      .filter(
        ({ channel, holder, version }) =>
          version !== undefined && channel !== except && isControlPlane(profiles.profileFor(holder as Mac)),
      ).length
  }

  #windowOf(profile: Profile): UpdateWindow {
    const text = profile.settings.get('update-window')?.value ?? 'always'
    const known = this.#windows.get(text)
    if (known !== undefined) return known
    if (this.#windows.size >= WINDOWS_KEPT) this.#windows.clear()
    // The profile tree has refused what is no window; never is what harms least.
    const window = findUpdateWindow(text) ?? { isOpen: () => false }
    this.#windows.set(text, window)
    return window
  }
}

function isCanary(profile: Profile): boolean {
  return profile.settings.get('canary')?.value === 'yes'
}

function isControlPlane(profile: Profile): boolean {
  return nodeRoleOf(profile) === 'control-plane'
}
