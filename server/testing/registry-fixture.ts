// The domain over a real store, with profiles, bundles and images that a test holds in its hands.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import type { ExecutionContext } from 'ava'

import { KitError } from '#lib/errors.ts'
import { silentLog } from '#lib/log.ts'
import { type Mac, macToPath, parseMac } from '#lib/mac.ts'
import type { ServerWords } from '#machine/boot-plan.ts'
import type { Authority, TpmVerifier } from '#machine/identity-ports.ts'
import type { Slot, SlotName } from '#machine/machine.ts'
import type { Bundles, CheckIn, Profiles, StoredImage } from '#machine/ports.ts'
import { mergeProfile } from '#machine/profile-merge.ts'
import type { Secrets } from '#machine/secret-ports.ts'
import { openStore, type Store } from '#store/store.ts'

import { createDomain, type Domain } from '../domain.ts'
import { fakeClusterParts } from './fake-cluster.ts'
import { FakeSecrets } from './fake-secrets.ts'
import { TurnedClock } from './turned-clock.ts'

export const SERVER: ServerWords = {
  baseUrl: 'http://10.77.0.1:8080',
  tlsUrl: 'https://10.77.0.1:8443',
  caFingerprint: 'ca'.repeat(32),
}
const ROOT_HASH = 'ab'.repeat(32)

/** `{'roles/worker': {}, 'machines/<mac>': {role: 'worker'}}` */
export type Tree = Record<string, Record<string, string>>

/** The tree as the test has it at that moment. */
function profilesOf(tree: Tree): Profiles {
  const layers = () =>
    new Map(
      Object.entries(tree).map(([name, settings]) => {
        const values = Object.entries(settings).map(
          ([key, value]) => [key, { value, layer: name, file: `/profiles/${name}/${key}` }] as const,
        )
        return [name, { name, directory: `/profiles/${name}`, settings: new Map(values) }]
      }),
    )
  const under = (prefix: string) =>
    Object.keys(tree).flatMap((name) => (name.startsWith(prefix) ? name.slice(prefix.length) : []))
  return {
    profileFor: (mac) => mergeProfile(mac, layers()),
    explain: () => [],
    problems: () => [],
    roles: () => under('roles/').sort(),
    machines: () => under('machines/').map(parseMac),
    assignRole: async () => {},
    unassignRole: async () => {},
  }
}

export function treeOf(roles: Readonly<Record<Mac, Record<string, string>>>): Tree {
  const machines = Object.entries(roles).map(([mac, settings]) => [
    `machines/${macToPath(mac as Mac)}`,
    settings,
  ])
  return { 'roles/worker': {}, 'roles/control-plane': {}, ...Object.fromEntries(machines) }
}

export function imageOf(version: string, rootHash: string | undefined = ROOT_HASH): StoredImage {
  return {
    ...{ version, arch: 'amd64', epoch: 1, sizeBytes: 10, importedMs: 1 },
    files: new Map([['root.squashfs', { name: 'root.squashfs', sizeBytes: 5, sha256: 'aa', file: '/x' }]]),
    ...(rootHash !== '' && { rootHash }),
  }
}

/** Images by version, newest first. */
export class ImageShelf {
  images: StoredImage[]
  readonly #listeners = new Set<(imported?: string) => void>()
  /** What images/import names. */
  namedVersion: string | undefined
  /** In the store, and in no list. */
  damaged: string[] = []

  constructor(...versions: readonly string[]) {
    this.images = versions.map((version) => imageOf(version))
  }

  list() {
    return this.images
  }

  find(version: string) {
    return this.images.find((image) => image.version === version)
  }

  named() {
    return this.namedVersion === undefined ? undefined : this.find(this.namedVersion)
  }

  async remove(version: string) {
    if (this.find(version) === undefined && !this.damaged.includes(version)) {
      throw new KitError('not-found', `Cannot find image ${version}`)
    }
    this.damaged = this.damaged.filter((each) => each !== version)
    this.images = this.images.filter((image) => image.version !== version)
    for (const listener of this.#listeners) listener()
  }

  /** Newer ones than those that are there, oldest first. */
  put(...versions: readonly string[]) {
    for (const version of versions) this.images = [imageOf(version), ...this.images]
    for (const listener of this.#listeners) listener(versions.at(-1))
  }

  onChange(listener: (imported?: string) => void) {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}

const missing = (): never => {
  throw new Error('this test has no CA and no TPMs')
}
const NO_AUTHORITY: Authority = { pem: '', fingerprint: '', readRequest: missing, issueForMachine: missing }
const NO_TPM: TpmVerifier = { readClaim: missing }

export interface FixtureOptions {
  readonly tree?: Tree
  readonly bundles?: Partial<Bundles>
  /** Default: nobody has any. */
  readonly secrets?: Secrets
  /** Newest first. The newest is the first of its server, so `stable` points at it. */
  readonly versions?: readonly string[]
  readonly mostMachines?: number
  readonly keepImages?: number
  readonly named?: string
  /** Another server over the same folder. */
  readonly directory?: string
  /** Default: none of them can be used. */
  readonly authority?: Authority
  readonly tpm?: TpmVerifier
}

export interface Registry extends Domain {
  readonly store: Store
  readonly clock: TurnedClock
  readonly shelf: ImageShelf
  readonly tree: Tree
  readonly directory: string
  /** No cluster is there until a test says so. */
  readonly ofCluster: ReturnType<typeof fakeClusterParts>
  /** The kinds of all events, or those of one machine's. */
  kinds(mac?: Mac): Promise<readonly string[]>
  stop(): Promise<void>
}

export async function startRegistry(t: ExecutionContext, options: FixtureOptions = {}): Promise<Registry> {
  const directory = options.directory ?? (await mkdtemp(join(tmpdir(), 'kit-registry-')))
  const clock = new TurnedClock()
  const store = await openStore({ file: join(directory, 'kateskit.db'), clock, log: silentLog })
  const tree = options.tree ?? {}
  const shelf = new ImageShelf(...(options.versions ?? ['0.1.0']))
  shelf.namedVersion = options.named
  const overlays: Bundles = {
    bundleFor: async () => ({ digest: 'b1', sizeBytes: 1, file: '/b1' }),
    explain: async () => [],
    findBundle: async () => undefined,
    ...options.bundles,
  }
  const ofCluster = fakeClusterParts()
  const domain = createDomain({
    secrets: options.secrets ?? new FakeSecrets(),
    ...{ store, overlays, clock, log: silentLog, server: SERVER },
    ...{ authority: options.authority ?? NO_AUTHORITY, tpm: options.tpm ?? NO_TPM },
    ...{ tree: profilesOf(tree), images: shelf, keepImages: options.keepImages ?? 5 },
    ...(options.mostMachines !== undefined && { mostMachines: options.mostMachines }),
    ...ofCluster.parts,
  })
  await domain.loadDomain()
  for (const service of domain.clusterServices) await service.start()
  await domain.releaseFollower.start()
  await domain.rollouts.start()
  let isStopped = false
  const stop = async () => {
    if (isStopped) return
    isStopped = true
    await domain.rollouts.stop()
    await domain.releaseFollower.stop()
    for (const service of domain.clusterServices) await service.stop()
    await store.close()
  }
  t.teardown(async () => {
    await stop()
    await rm(directory, { recursive: true, force: true })
  })
  const kinds = async (mac?: Mac) =>
    (await store.events.list({ limit: 1000, ...(mac && { mac }) })).map((event) => event.kind)
  return { ...domain, ofCluster, store, clock, shelf, tree, directory, kinds, stop }
}

const EMPTY: Slot = { state: 'empty' }

/** What an installed machine says of itself. */
export function running(
  boot: string,
  image: string,
  slots: Partial<Record<SlotName, Slot>>,
  slot: SlotName = 'a',
): CheckIn {
  return {
    ...{ boot, phase: 'running', image, bundle: 'b1', slot, checks: 'passed' },
    slots: { a: EMPTY, b: EMPTY, ...slots },
  }
}

export const good = (image: string): Slot => ({ state: 'good', image })
export const bad = (image: string, reason = 'kernel panic'): Slot => ({ state: 'bad', image, reason })
export const ready = (image: string): Slot => ({ state: 'ready', image })
export const trying = (image: string): Slot => ({ state: 'trying', image, tries: 2 })

/** From a netboot to a slot that is good. */
export async function install({ desk }: Pick<Registry, 'desk'>, mac: Mac, image: string): Promise<string> {
  const { boot } = await desk.offerBoot(mac, {})
  await desk.checkIn(mac, { boot: boot.id, phase: 'starting' })
  await desk.checkIn(mac, { boot: boot.id, phase: 'installing' })
  await desk.checkIn(mac, running(boot.id, image, { a: trying(image) }))
  await desk.checkIn(mac, running(boot.id, image, { a: good(image) }))
  return boot.id
}
