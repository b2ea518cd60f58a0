// Stand-ins for the channels, the powerwashes and the image store behind the HTTP service.

import { KitError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'
import type { PowerwashRequest } from '#machine/machine.ts'
import type {
  ImageStore,
  ImportProgress,
  MachineView,
  PlanView,
  Powerwashes,
  SignedManifest,
  StoredImage,
} from '#machine/ports.ts'
import type {
  ChannelView,
  ImageView,
  QuarantineView,
  Releases,
  RolloutView,
  UpdateLock,
} from '#machine/release-ports.ts'

/** Knows the versions in `versions`; what it was asked is in `calls`, as `[method, …arguments]`. */
export class FakeReleases implements Releases {
  readonly calls: unknown[][] = []
  readonly versions: ImageView[] = []
  readonly views = new Map<string, ChannelView>()
  rolloutViews: RolloutView[] = []
  quarantineViews: QuarantineView[] = []
  updateLocks: UpdateLock[] = []
  holder: string | undefined
  /** Thrown by every call that changes something, while it is set. */
  failure: Error | undefined

  async images() {
    return this.versions
  }

  async channels() {
    return [...this.views.values()]
  }

  async promote(version: string, channel: string) {
    this.#note('promote', version, channel)
    this.#requireImage(version)
    return this.#change(channel, { version })
  }

  async pause(channel: string, isPaused: boolean) {
    this.#note('pause', channel, isPaused)
    this.#existing(channel)
    return this.#change(channel, { isPaused })
  }

  async pin(mac: Mac, version: string | undefined) {
    this.#note('pin', mac, version)
    if (version !== undefined) this.#requireImage(version)
  }

  async removeImage(version: string) {
    this.#note('removeImage', version)
    this.#requireImage(version)
  }

  async rollouts() {
    return this.rolloutViews
  }

  async retry(channel: string) {
    this.#note('retry', channel)
    const view = this.rolloutViews.find((rollout) => rollout.channel === channel)
    if (view === undefined)
      throw new KitError('not-found', `Cannot retry ${channel}: there is no such rollout`)
    return view
  }

  async quarantines() {
    return this.quarantineViews
  }

  async lift(version: string) {
    this.#note('lift', version)
    this.#require(
      version,
      this.quarantineViews.map((each) => each.version),
    )
  }

  async locks() {
    return this.updateLocks
  }

  async releaseLock(channel: string, holder: string) {
    this.#note('releaseLock', channel, holder)
    this.#require(
      holder,
      this.updateLocks.map((lock) => lock.holder),
    )
  }

  async lock(group: string, id: string): ReturnType<Releases['lock']> {
    this.#note('lock', group, id)
    this.holder ??= `fleetlock:${id}`
    return { isHeld: this.holder === `fleetlock:${id}`, holder: this.holder }
  }

  async unlock(group: string, id: string) {
    this.#note('unlock', group, id)
    if (this.holder === `fleetlock:${id}`) this.holder = undefined
  }

  #requireImage(version: string) {
    if (this.versions.some((image) => image.version === version)) return
    throw new KitError('not-found', `Cannot find ${version}: there is no such image`, {
      fix: 'there are: 2026.1',
    })
  }

  #require(name: string, names: readonly string[]) {
    if (!names.includes(name)) throw new KitError('not-found', `Cannot find ${name}`)
  }

  #existing(channel: string): ChannelView {
    const view = this.views.get(channel)
    if (view === undefined) throw new KitError('not-found', `Cannot find channel ${channel}`)
    return view
  }

  #change(name: string, fields: Partial<ChannelView>): ChannelView {
    const before = this.views.get(name) ?? { name, previous: [], isPaused: false, changedMs: 1, machines: [] }
    const view = { ...before, ...fields }
    this.views.set(name, view)
    return view
  }

  #note(...call: unknown[]) {
    this.calls.push(call)
    if (this.failure !== undefined) throw this.failure
  }
}

export class FakePowerwashes implements Powerwashes {
  readonly calls: unknown[][] = []
  readonly #machines: readonly MachineView[]
  view: PlanView = { plan: 'hold', lines: [], disks: [] }

  constructor(machines: readonly MachineView[]) {
    this.#machines = machines
  }

  async request(mac: Mac, persistence: PowerwashRequest['persistence']) {
    this.calls.push(['request', mac, persistence])
    return { ...this.#find(mac), powerwash: { requestedMs: 5, persistence } }
  }

  async cancel(mac: Mac) {
    this.calls.push(['cancel', mac])
    return this.#find(mac)
  }

  async plan(mac: Mac) {
    this.#find(mac)
    return this.view
  }

  #find(mac: Mac): MachineView {
    const machine = this.#machines.find((each) => each.mac === mac)
    if (machine === undefined)
      throw new KitError('not-found', `Cannot find machine ${mac}: it was never seen`)
    return machine
  }
}

export class FakeImageStore implements ImageStore {
  readonly calls: unknown[][] = []
  readonly images: StoredImage[] = []
  readonly manifests = new Map<string, SignedManifest>()
  readonly imports = new Map<string, ImportProgress>()
  problems: readonly string[] = []

  list() {
    return this.images
  }

  find(version: string) {
    return this.images.find((image) => image.version === version)
  }

  manifest(version: string) {
    return this.manifests.get(version)
  }

  startImport(source: string) {
    this.calls.push(['startImport', source])
    const id = `import-${this.imports.size + 1}`
    this.imports.set(id, { state: 'running', percent: 7, text: `copying ${source}` })
    return id
  }

  importProgress(id: string) {
    return this.imports.get(id)
  }

  async importDone(id: string) {
    const progress = this.imports.get(id)
    if (progress?.state !== 'done') throw new KitError('invalid-input', 'Cannot import this')
    return progress.version
  }

  async verify(version: string) {
    this.calls.push(['verify', version])
    return this.problems
  }

  async remove(version: string) {
    this.calls.push(['remove', version])
  }

  named() {
    return undefined
  }

  onChange() {
    return () => {}
  }
}
