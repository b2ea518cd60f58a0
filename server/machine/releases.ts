// Channels, pins and locks as people and other tools handle them.

import type { Clock } from '#lib/clock.ts'
import { KitError } from '#lib/errors.ts'
import { createKeyedQueue } from '#lib/keyed-queue.ts'
import type { Mac } from '#lib/mac.ts'
import { didYouMean } from '#lib/nearest.ts'

import type { NewEvent } from './event.ts'
import type { Fleet } from './fleet.ts'
import { ForeignLocks } from './foreign-locks.ts'
import type { Machine } from './machine.ts'
import type { NodeGuard } from './node-guard.ts'
import { findOldImages } from './old-images.ts'
import type { EventLog, ImageStore } from './ports.ts'
import type { ReleaseBook } from './release-book.ts'
import { withoutImage, wrongStep } from './release-errors.ts'
import type {
  Channel,
  ChannelView,
  ImageView,
  QuarantineView,
  Releases,
  RolloutView,
  UpdateLock,
} from './release-ports.ts'
import type { Rollouts } from './rollouts.ts'
import { checkSetting } from './settings.ts'

export interface ReleaseDeskOptions {
  readonly book: ReleaseBook
  readonly fleet: Fleet
  readonly rollouts: Rollouts
  readonly guard: Pick<NodeGuard, 'findImageProblem'>
  readonly machines: () => readonly Machine[]
  readonly images: Pick<ImageStore, 'list' | 'find' | 'remove' | 'named'>
  /** How many images that nobody uses are kept. */
  readonly keepImages: number
  readonly events: EventLog
  readonly clock: Clock
  /** Which image a machine should run may be another than before. */
  readonly onChange: () => void
}

/** The first channel to point at an image, of a server that has none yet. */
const FIRST_CHANNEL = 'stable'
const PREVIOUS_MAX = 10
/** A channel's machines go back to these when its version fails. */
const PREVIOUS_KEPT = 2

export class ReleaseDesk implements Releases {
  readonly #options: ReleaseDeskOptions
  readonly #queue = createKeyedQueue<'all'>()
  readonly #foreignLocks: ForeignLocks

  constructor(options: ReleaseDeskOptions) {
    this.#options = options
    this.#foreignLocks = new ForeignLocks(options)
  }

  async images(): Promise<readonly ImageView[]> {
    const { images, book } = this.#options
    const channels = book.channels()
    return images.list().map(({ version, arch, sizeBytes, importedMs, epoch, kubernetes }) => {
      const quarantine = book.quarantineOf(version)
      return {
        ...{ version, arch, sizeBytes, importedMs, epoch },
        ...(kubernetes !== undefined && { kubernetes }),
        channels: channels.filter((channel) => channel.version === version).map(({ name }) => name),
        machines: this.#machinesWith(version),
        ...(quarantine && { quarantine }),
      }
    })
  }

  async channels(): Promise<readonly ChannelView[]> {
    return this.#options.fleet.channelNames().map((name) => this.#view(name))
  }

  async promote(version: string, channel: string): Promise<ChannelView> {
    this.#requireName(channel)
    return this.#change(async () => {
      this.#requireUsable(version, `promote ${version} to ${channel}`)
      this.#requireStep(version, channel)
      await this.#promote(version, channel, 'a person')
      return this.#view(channel)
    })
  }

  /**
   * Called at the start and when an image came or went. The very first image of a server needs nobody to promote it: that
   * which it was told to start with, whatever else an older store has.
   */
  async imagesChanged(imported?: string): Promise<void> {
    await this.#change(async () => {
      const { images, book } = this.#options
      // A server whose database is new does not know who uses what, so it removes nothing.
      if (book.channels().length > 0) return await this.#removeOldImages(imported)
      const first = images.named() ?? images.list()[0]
      if (first !== undefined)
        await this.#promote(first.version, FIRST_CHANNEL, 'the first image of this server')
    })
  }

  async pause(channel: string, isPaused: boolean): Promise<ChannelView> {
    this.#requireName(channel)
    return this.#change(async () => {
      const { book, fleet, clock, events } = this.#options
      this.#requireKnown(channel)
      const before = fleet.pointerOf(channel)
      if (before.isPaused !== isPaused) {
        const kind = isPaused ? 'channel-paused' : 'channel-resumed'
        const message = `channel ${channel} ${isPaused ? 'gives no updates for now' : 'gives updates again'}`
        await Promise.all([
          book.saveChannel({ ...before, isPaused, changedMs: clock.nowMs() }),
          events.append({ kind, message, data: { channel } }),
        ])
      }
      return this.#view(channel)
    })
  }

  async pin(mac: Mac, version: string | undefined): Promise<void> {
    await this.#change(async () => {
      const { book, events } = this.#options
      if (version !== undefined) this.#requireUsable(version, `pin ${mac} to ${version}`)
      if (book.pinOf(mac) === version) return
      const event: NewEvent =
        version === undefined
          ? { kind: 'machine-unpinned', mac, message: 'it follows its channel again' }
          : { kind: 'machine-pinned', mac, message: `it stays on image ${version}`, data: { image: version } }
      await Promise.all([book.pin(mac, version), events.append(event)])
    })
  }

  async removeImage(version: string): Promise<void> {
    await this.#change(async () => {
      const { images } = this.#options
      this.#requireUnused(version)
      await images.remove(version).catch((error: unknown) => {
        // A damaged one is in no list, and the store knows it all the same.
        this.#requireImage(version, `remove image ${version}`)
        throw error
      })
    })
  }

  async rollouts(): Promise<readonly RolloutView[]> {
    return this.#options.rollouts.views()
  }

  async retry(channel: string): Promise<RolloutView> {
    const { book } = this.#options
    this.#requireName(channel)
    const version = book.channel(channel)?.version
    if (version === undefined) throw withoutImage(channel)
    await this.#change(async () => {
      if (this.#isHeldBack(version)) await this.#lift(version, { channel })
    })
    const view = this.#options.rollouts.views().find((rollout) => rollout.channel === channel)
    if (view === undefined) throw withoutImage(channel)
    return view
  }

  async quarantines(): Promise<readonly QuarantineView[]> {
    const { book } = this.#options
    return book.quarantines().map((quarantine) => ({
      ...quarantine,
      channels: book.channels().flatMap(({ name, version }) => (version === quarantine.version ? name : [])),
    }))
  }

  /** Also of an image that is gone from the store: it may come back. */
  async lift(version: string): Promise<void> {
    await this.#change(async () => {
      if (this.#isHeldBack(version)) return await this.#lift(version)
      const versions = this.#options.book.quarantines().map((each) => each.version)
      const message = `Cannot lift the quarantine of ${version}: it is in none${didYouMean(version, versions)}`
      throw new KitError('not-found', message, { fix: 'kateskit rollout status shows those that are' })
    })
  }

  async lock(group: string, id: string): Promise<{ readonly isHeld: boolean; readonly holder?: string }> {
    this.#requireName(group)
    return this.#foreignLocks.take(group, id)
  }

  async unlock(group: string, id: string): Promise<void> {
    this.#requireName(group)
    await this.#foreignLocks.giveBack(group, id)
  }

  async locks(): Promise<readonly UpdateLock[]> {
    return this.#options.book.locks()
  }

  async releaseLock(channel: string, holder: string): Promise<void> {
    this.#requireName(channel)
    await this.#foreignLocks.release(channel, holder)
    this.#options.onChange()
  }

  /** One after another, and what follows from it for the machines before it resolves. */
  async #change<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = await this.#queue.run('all', work)
    await this.#options.rollouts.settle()
    this.#options.onChange()
    return result
  }

  async #promote(version: string, name: string, why: string): Promise<void> {
    const { book, fleet, clock, events } = this.#options
    const before = fleet.pointerOf(name)
    if (before.version === version) return
    const earlier = [before.version, ...before.previous].filter(
      (each) => each !== undefined && each !== version,
    )
    const after: Channel = {
      name,
      version,
      previous: earlier.filter((each) => each !== undefined).slice(0, PREVIOUS_MAX),
      isPaused: before.isPaused,
      changedMs: clock.nowMs(),
    }
    const from = before.version === undefined ? '' : `, before it was ${before.version}`
    await Promise.all([
      book.saveChannel(after),
      events.append({
        kind: 'channel-promoted',
        message: `channel ${name} points at image ${version}${from} (${why})`,
        data: { channel: name, image: version },
      }),
    ])
  }

  #isHeldBack(version: string): boolean {
    const { book } = this.#options
    return book.quarantineOf(version) !== undefined || book.failuresOf(version).length > 0
  }

  async #lift(version: string, data: { readonly channel?: string } = {}): Promise<void> {
    const { book, events } = this.#options
    const message = `image ${version} may be used again`
    await Promise.all([
      book.lift(version),
      events.append({ kind: 'quarantine-lifted', message, data: { image: version, ...data } }),
    ])
  }

  #view(name: string): ChannelView {
    const { fleet } = this.#options
    return { ...fleet.pointerOf(name), machines: fleet.membersOf(name) }
  }

  /** That run it or have it in a slot. */
  #machinesWith(version: string): readonly Mac[] {
    return this.#options
      .machines()
      .filter(({ imageVersion, slots }) =>
        [imageVersion, slots?.a.image, slots?.b.image].some((image) => image === version),
      )
      .map(({ mac }) => mac)
      .sort()
  }

  #requireName(channel: string): void {
    const wrong = channel === '' ? 'it has no name' : checkSetting('machines', 'channel', channel)
    if (wrong !== undefined) throw new KitError('invalid-input', `Cannot use channel ${channel}: ${wrong}`)
  }

  #requireKnown(channel: string): void {
    const names = this.#options.fleet.channelNames()
    if (names.includes(channel)) return
    const hint = didYouMean(channel, names)
    throw new KitError('not-found', `Cannot find channel ${channel}: nothing points at it${hint}`, {
      fix: `kateskit channel promote <version> ${channel}`,
    })
  }

  #requireImage(version: string, what: string): void {
    const { images } = this.#options
    if (images.find(version) !== undefined) return
    const versions = images.list().map((image) => image.version)
    const hint = didYouMean(version, versions)
    throw new KitError('not-found', `Cannot ${what}: there is no image ${version}${hint}`, {
      fix: versions.length === 0 ? 'kateskit image import <file>' : `there are: ${versions.join(', ')}`,
    })
  }

  #requireUsable(version: string, what: string): void {
    this.#requireImage(version, what)
    const { book } = this.#options
    const quarantine = book.quarantineOf(version)
    if (quarantine === undefined) return
    throw new KitError(
      'conflict',
      `Cannot ${what}: it is in quarantine, for it failed on ${quarantine.mac}: ${quarantine.reason}`,
      { fix: `look into it, then lift the quarantine: kateskit rollout lift ${version}` },
    )
  }

  /** Its machines that are nodes can take the step in Kubernetes. */
  #requireStep(version: string, channel: string): void {
    const { guard, fleet } = this.#options
    const problem = guard.findImageProblem(version, fleet.membersOf(channel))
    if (problem !== undefined) throw wrongStep(`promote ${version} to ${channel}`, problem)
  }

  async #removeOldImages(imported: string | undefined): Promise<void> {
    const { images, keepImages: keep, clock } = this.#options
    const isUsed = (version: string) => this.#isUsed(version)
    const facts = { images: images.list(), isUsed, keep, nowMs: clock.nowMs(), imported }
    for (const version of findOldImages(facts)) {
      await images.remove(version, `nobody uses it, and of such images the newest ${keep} are kept`)
    }
  }

  /** Or may be before long: what a channel goes back to, what the next start would bring in again. */
  #isUsed(version: string): boolean {
    const { book, images } = this.#options
    const isSound = (each: string) => book.quarantineOf(each) === undefined
    return (
      this.#usersOf(version).length > 0 ||
      images.named()?.version === version ||
      book
        .channels()
        .some(({ previous }) => previous.filter(isSound).slice(0, PREVIOUS_KEPT).includes(version))
    )
  }

  #usersOf(version: string): readonly string[] {
    const { book } = this.#options
    const channels = book.channels().filter((each) => each.version === version)
    return [
      ...channels.map(({ name }) => `channel ${name} points at it`),
      ...book.pinsTo(version).map((mac) => `${mac} is pinned to it`),
      ...this.#machinesWith(version).map((mac) => `${mac} has it`),
    ]
  }

  #requireUnused(version: string): void {
    const users = this.#usersOf(version)
    if (users.length === 0) return
    const shown = users.length > 4 ? [...users.slice(0, 3), `${users.length - 3} more`] : users
    throw new KitError('conflict', `Cannot remove image ${version}: ${shown.join(', ')}`, {
      fix: 'promote another image, unpin, and let the machines be updated first',
    })
  }
}
