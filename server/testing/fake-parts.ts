// Stand-ins for the parts behind the HTTP service: they hold what a test puts in and note what they were told.

import { createHash } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

import { KitError } from '#lib/errors.ts'
import type { Mac } from '#lib/mac.ts'
import type { BootPlan } from '#machine/boot-plan.ts'
import type { IdentityRule } from '#machine/identity.ts'
import type {
  Bundle,
  Bundles,
  DiskPlan,
  Image,
  ImageFile,
  Images,
  MachineDesk,
  MachineView,
  MachineViews,
  Profiles,
  Speaker,
  Target,
} from '#machine/ports.ts'
import type { Profile } from '#machine/profile.ts'

export class FakeDesk implements MachineDesk {
  plan: BootPlan = { kind: 'hold', reason: 'nothing was planned' }
  wanted: Target | undefined
  diskPlan: DiskPlan = { kind: 'refused', lines: ['nothing was planned'] }
  /** Thrown by every call while it is set. */
  failure: Error | undefined
  /** `[method, mac, argument]` of each call. */
  readonly calls: unknown[][] = []
  /** By whose key each call was made; undefined for nobody knows whom. */
  readonly speakers: (string | undefined)[] = []
  readonly listeners = new Set<() => void>()
  readonly #counted = new EventEmitter()

  async offerBoot(...args: Parameters<MachineDesk['offerBoot']>) {
    this.#note('offerBoot', args)
    return {
      boot: { id: 'boot-1', mac: args[0], mintedMs: 1, plan: this.plan.kind },
      plan: this.plan,
    }
  }

  async nameBoot(...[mac, slot, by]: Parameters<MachineDesk['nameBoot']>) {
    this.#note('nameBoot', [mac, slot], by)
    return { id: 'boot-2', mac, mintedMs: 2, plan: 'disk' as const }
  }

  async takeDisks(...[mac, report, by]: Parameters<MachineDesk['takeDisks']>) {
    this.#note('takeDisks', [mac, report], by)
    return this.diskPlan
  }

  async report(...[mac, report, by]: Parameters<MachineDesk['report']>) {
    this.#note('report', [mac, report], by)
  }

  async checkIn(...[mac, checkIn, by]: Parameters<MachineDesk['checkIn']>) {
    this.#note('checkIn', [mac, checkIn], by)
  }

  async target(...[mac, bootId, by]: Parameters<MachineDesk['target']>) {
    this.#note('target', bootId === undefined ? [mac] : [mac, bootId], by)
    return this.wanted
  }

  onTargetChange(listener: () => void) {
    this.listeners.add(listener)
    this.#counted.emit('change')
    return () => {
      this.listeners.delete(listener)
      this.#counted.emit('change')
    }
  }

  /** Resolves when so many listen for a change of the target. */
  async listening(count: number) {
    while (this.listeners.size !== count) await once(this.#counted, 'change')
  }

  change(wanted: Target | undefined) {
    this.wanted = wanted
    for (const listener of this.listeners) listener()
  }

  #note(method: string, args: readonly unknown[], by?: Speaker) {
    this.calls.push([method, ...args])
    this.speakers.push(by?.keySha256)
    if (this.failure !== undefined) throw this.failure
  }
}

export class FakeViews implements MachineViews {
  readonly machines: MachineView[] = []

  async list() {
    return this.machines
  }

  async find(mac: Mac) {
    return this.machines.find((machine) => machine.mac === mac)
  }
}

export class FakeProfiles implements Profiles {
  readonly assigned = new Map<Mac, string>()
  identity: IdentityRule = 'mac-only'

  profileFor(mac: Mac): Profile {
    const role = this.assigned.get(mac)
    const identity = { value: this.identity, layer: 'defaults', file: 'defaults/identity' }
    const settings = new Map([['identity', identity]])
    return { mac, channel: 'stable', layers: [], settings, ...(role !== undefined && { role }) }
  }

  explain(mac: Mac) {
    return [{ key: 'hostname', value: `kit-of-${mac}`, source: 'default' }]
  }

  problems() {
    return [{ layer: 'roles/worker', file: 'roles/worker/boot', message: 'one of live, local-disk, hold' }]
  }

  roles() {
    return ['control-plane', 'worker']
  }

  machines() {
    return [...this.assigned.keys()]
  }

  async unassignRole(mac: Mac) {
    this.assigned.delete(mac)
  }

  async assignRole(mac: Mac, role: string) {
    if (!this.roles().includes(role)) throw new KitError('not-found', `Cannot assign ${role}: no such role`)
    this.assigned.set(mac, role)
  }
}

/** Images and bundles whose files lie in `folder`. */
export class FakeFiles implements Images, Bundles {
  readonly #folder: string
  image: Image | undefined
  bundle: Bundle | undefined

  constructor(folder: string) {
    this.#folder = folder
  }

  setImage(version: string, contents: Readonly<Record<string, string | Buffer>>): Image {
    const files = Object.entries(contents).map(([name, content]) => this.#write(version, name, content))
    this.image = { version, arch: 'amd64', files: new Map(files.map((file) => [file.name, file])) }
    return this.image
  }

  setBundle(content: string): Bundle {
    const { file, sizeBytes, sha256 } = this.#write('bundles', 'bundle.tar', content)
    this.bundle = { digest: sha256, sizeBytes, file }
    return this.bundle
  }

  current() {
    return this.image
  }

  find(version: string) {
    return this.image?.version === version ? this.image : undefined
  }

  async bundleFor() {
    if (this.bundle === undefined) throw new KitError('unavailable', 'Cannot make a bundle')
    return this.bundle
  }

  async explain() {
    return []
  }

  async findBundle(digest: string) {
    return this.bundle?.digest === digest ? this.bundle : undefined
  }

  #write(place: string, name: string, content: string | Buffer): ImageFile {
    const file = join(this.#folder, place, name)
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, content)
    const sha256 = createHash('sha256').update(content).digest('hex')
    return { name, file, sha256, sizeBytes: Buffer.byteLength(content) }
  }
}
