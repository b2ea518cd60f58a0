// What is written down of releases: channels, pins, quarantines, failures, locks. In memory as in the store.

import type { Mac } from '#lib/mac.ts'

import type { Channel, Quarantine, ReleaseStore, UpdateFailure, UpdateLock } from './release-ports.ts'

/**
 * Each change is asked of the store before anything is awaited, so that changes of one turn share a commit, and counts
 * once it is on disk.
 */
export class ReleaseBook {
  readonly #store: ReleaseStore
  readonly #channels = new Map<string, Channel>()
  readonly #pins = new Map<Mac, string>()
  readonly #quarantines = new Map<string, Quarantine>()
  readonly #failures = new Map<string, UpdateFailure>()
  readonly #locks = new Map<string, UpdateLock>()

  constructor(store: ReleaseStore) {
    this.#store = store
  }

  /** Called once, before anything else. */
  async load(): Promise<void> {
    const store = this.#store
    for (const channel of await store.channels()) this.#channels.set(channel.name, channel)
    for (const [mac, version] of await store.pins()) this.#pins.set(mac, version)
    for (const quarantine of await store.quarantines()) this.#quarantines.set(quarantine.version, quarantine)
    for (const failure of await store.failures()) this.#failures.set(keyOf(failure), failure)
    for (const lock of await store.locks()) this.#locks.set(lock.holder, lock)
  }

  /** By name. */
  channels(): readonly Channel[] {
    return [...this.#channels.values()].sort((one, other) => (one.name < other.name ? -1 : 1))
  }

  channel(name: string): Channel | undefined {
    return this.#channels.get(name)
  }

  pinOf(mac: Mac): string | undefined {
    return this.#pins.get(mac)
  }

  pinsTo(version: string): readonly Mac[] {
    return [...this.#pins].filter(([, pinned]) => pinned === version).map(([mac]) => mac)
  }

  quarantineOf(version: string): Quarantine | undefined {
    return this.#quarantines.get(version)
  }

  quarantines(): readonly Quarantine[] {
    return [...this.#quarantines.values()]
  }

  failuresOf(version: string): readonly UpdateFailure[] {
    return [...this.#failures.values()].filter((failure) => failure.version === version)
  }

  failuresOn(mac: Mac): readonly UpdateFailure[] {
    return [...this.#failures.values()].filter((failure) => failure.mac === mac)
  }

  locksOf(channel: string): readonly UpdateLock[] {
    return [...this.#locks.values()].filter((lock) => lock.channel === channel)
  }

  lockOf(holder: string): UpdateLock | undefined {
    return this.#locks.get(holder)
  }

  locks(): readonly UpdateLock[] {
    return [...this.#locks.values()]
  }

  async saveChannel(channel: Channel): Promise<void> {
    await this.#store.saveChannel(channel)
    this.#channels.set(channel.name, channel)
  }

  async pin(mac: Mac, version: string | undefined): Promise<void> {
    await this.#store.savePin(mac, version)
    if (version === undefined) this.#pins.delete(mac)
    else this.#pins.set(mac, version)
  }

  async quarantine(quarantine: Quarantine): Promise<void> {
    await this.#store.saveQuarantine(quarantine)
    this.#quarantines.set(quarantine.version, quarantine)
  }

  async addFailure(failure: UpdateFailure): Promise<void> {
    await this.#store.saveFailure(failure)
    this.#failures.set(keyOf(failure), failure)
  }

  async lift(version: string): Promise<void> {
    await this.#store.lift(version)
    this.#quarantines.delete(version)
    for (const failure of this.failuresOf(version)) this.#failures.delete(keyOf(failure))
  }

  async lock(lock: UpdateLock): Promise<void> {
    await this.#store.saveLock(lock)
    this.#locks.set(lock.holder, lock)
  }

  /** The lock and the pin of a machine that is gone. */
  async forget(mac: Mac): Promise<void> {
    if (this.#locks.has(mac)) await this.unlock(mac)
    if (this.#pins.has(mac)) await this.pin(mac, undefined)
  }

  async unlock(holder: string): Promise<void> {
    await this.#store.removeLock(holder)
    this.#locks.delete(holder)
  }
}

function keyOf({ version, mac }: UpdateFailure): string {
  return `${mac} ${version}`
}
