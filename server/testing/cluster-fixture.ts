// The desk of the cluster over a real store, with machines that have proved who they are, and a cluster that a test holds.

import type { ExecutionContext } from 'ava'

import { parseIpv4 } from '#lib/ipv4.ts'
import { silentLog } from '#lib/log.ts'
import { type Mac, macToPath, parseMac } from '#lib/mac.ts'
import type { ClusterNode, EtcdMember, GrantRequest, NodeReport } from '#machine/cluster-ports.ts'
import type { Identity, Tier } from '#machine/identity.ts'
import type { Machine } from '#machine/machine.ts'
import type { Profiles } from '#machine/ports.ts'
import { mergeProfile } from '#machine/profile-merge.ts'
import type { Roster } from '#machine/roster.ts'

import { createClusterDomain } from '../cluster-domain.ts'
import { type FakeCluster, type FakeSnapshots, fakeClusterParts } from './fake-cluster.ts'
import { open, tempFile } from './store-fixture.ts'
import { TurnedClock } from './turned-clock.ts'

export const VERSION = 'v1.33.1'
export const macOf = (number: number): Mac => parseMac(`02:4b:69:74:00:0${number}`)
export const kubeletKeyOf = (number: number): string => `${number}`.repeat(64)
const keyOf = (mac: Mac) => `${mac.slice(-2)}`.repeat(32)

/** Machine 1 to 9; `role` and settings by their number. */
export type Roles = Record<number, Record<string, string>>

export interface ClusterFixtureOptions {
  readonly file?: string
  readonly cluster?: FakeCluster
  readonly snapshots?: FakeSnapshots
  readonly clock?: TurnedClock
}

export async function startCluster(t: ExecutionContext, given: Roles, options: ClusterFixtureOptions = {}) {
  const roles = structuredClone(given)
  const { file = tempFile(t), clock = new TurnedClock() } = options
  const store = await open(t, file)
  const held = holdMachines(roles)
  const changes = { guard: 0 }
  const ofCluster = fakeClusterParts(options.cluster, options.snapshots)
  const profiles = profilesOf(roles)
  const domain = createClusterDomain({
    ...ofCluster.parts,
    ...held.parts,
    ...{ store: store.clusters, machines: store.machines, events: store.events, audit: store.audit },
    ...{ profiles, clock, log: silentLog },
    onGuardChange: () => (changes.guard += 1),
    forgetMachine: async () => {},
  })
  await domain.loadCluster()
  for (const service of domain.clusterServices) await service.start()
  let isStopped = false
  const stop = async () => {
    if (isStopped) return
    isStopped = true
    for (const service of domain.clusterServices.toReversed()) await service.stop()
    await store.close()
  }
  t.teardown(stop)
  /** It has booted, and its system runs. */
  const boot = async (number: number, id: string) => {
    const mac = macOf(number)
    const nowMs = clock.nowMs()
    await store.machines.saveBoot({ id, mac, mintedMs: nowMs, plan: 'disk', keySha256: keyOf(mac) })
    held.machines.set(mac, {
      ...{ mac, state: 'running', stateSinceMs: nowMs, firstSeenMs: 0, lastSeenMs: nowMs },
      ...{ lastCheckInMs: nowMs, rebootReasons: [], bootId: id },
    })
  }
  const by = (number: number) => ({ keySha256: keyOf(macOf(number)) })
  const ask = (number: number, id: string, more: Partial<GrantRequest> = {}) => {
    const address = parseIpv4(`10.0.0.${number}`)
    const kubeletKey = kubeletKeyOf(number)
    const request = { boot: id, kubernetes: VERSION, node: 'none' as const, kubeletKey, address, ...more }
    return domain.nodeDesk.grant(macOf(number), request, by(number))
  }
  const tell = (number: number, report: NodeReport) =>
    domain.nodeDesk.report(macOf(number), report, by(number))
  const kinds = async () => (await store.events.list({ limit: 1000 })).map(({ kind }) => kind)
  const kept = { store, profiles, clock, changes, file }
  return { ...domain, ...ofCluster, ...held, ...kept, boot, ask, tell, by, kinds, stop }
}

/** What the domain knows of machines besides the cluster. */
function holdMachines(roles: Roles) {
  const machines = new Map<Mac, Machine>()
  const tiers = new Map<Mac, Tier>()
  /** Of images, by their version. */
  const kubernetes = new Map<string, string>()
  /** What was forgotten, in order. */
  const removed: string[] = []
  const identityOf = (mac: Mac): Identity => ({
    ...{ mac, macs: [mac], tier: tiers.get(mac) ?? 'paired', keySha256: keyOf(mac), sinceMs: 0 },
    ...{ by: 'control socket', certificateUntilMs: 0 },
  })
  const identityOfKey = (key: string) => {
    const mac = Object.keys(roles)
      .map((number) => macOf(Number(number)))
      .find((each) => keyOf(each) === key)
    return mac && identityOf(mac)
  }
  const roster = {
    known: (mac: Mac) => machines.get(mac),
    has: (mac: Mac) => machines.has(mac),
    async forget(mac: Mac) {
      removed.push(`machine ${mac}`)
      machines.delete(mac)
    },
  } as unknown as Roster
  const imageOf = (version: string) => ({
    ...{ version, arch: 'amd64', files: new Map(), epoch: 1, sizeBytes: 1, importedMs: 1 },
    ...(kubernetes.has(version) && { kubernetes: kubernetes.get(version) ?? '' }),
  })
  const identities = {
    find: (mac: Mac) => (machines.has(mac) ? identityOf(mac) : undefined),
    async forget(mac: Mac) {
      removed.push(`identity ${mac}`)
    },
  }
  const identityDesk = { identityOfKey, primaryOf: (mac: Mac) => mac }
  const parts = { roster, identities, identityDesk, images: { find: imageOf } }
  return { machines, tiers, kubernetes, removed, parts }
}

function profilesOf(roles: Roles): Profiles {
  const numbers = () => Object.keys(roles).map(Number)
  return {
    profileFor: (mac) => mergeProfile(mac, layersOf(roles)),
    ...{ explain: () => [], problems: () => [], roles: () => ['worker', 'control-plane'] },
    machines: () => numbers().map(macOf),
    async assignRole(mac, role) {
      for (const number of numbers()) if (macOf(number) === mac) roles[number] = { ...roles[number], role }
    },
    async unassignRole(mac) {
      for (const number of numbers()) if (macOf(number) === mac) delete roles[number]?.['role']
    },
  }
}

export type ClusterFixture = Awaited<ReturnType<typeof startCluster>>

/** The cluster is up: machine 1 made it. */
export async function foundCluster(fixture: ClusterFixture): Promise<void> {
  await fixture.boot(1, 'founding')
  await fixture.ask(1, 'founding')
  fixture.cluster.isReachable = true
  await fixture.tell(1, { boot: 'founding', state: 'done', action: 'init' })
  while ((await fixture.clusters.view()).state !== 'up') await new Promise(setImmediate)
  fixture.cluster.members = [memberOf(1)]
  fixture.cluster.change([...fixture.cluster.live, nodeOf(1, true)])
  await settled(fixture, 1)
}

/** Resolves when no grant of the machine is open any more. */
export async function settled(fixture: ClusterFixture, number: number): Promise<void> {
  for (;;) {
    const grants = await fixture.store.clusters.grants()
    if (grants.every(({ mac, state }) => mac !== macOf(number) || state === 'closed')) return
    await new Promise(setImmediate)
  }
}

export const nameOf = (number: number) => `kit-${macToPath(macOf(number)).slice(9)}`

export const machineIdOf = (number: number) => `${number}`.repeat(32)

export function nodeOf(number: number, isControlPlane = false, version = VERSION): ClusterNode {
  return {
    ...{ name: nameOf(number), uid: `u${number}`, machineId: machineIdOf(number) },
    ...{ isReady: true, isCordoned: false, isControlPlane, version, labels: {} },
    address: parseIpv4(`10.0.0.${number}`),
  }
}

export function memberOf(number: number, isHealthy = true): EtcdMember {
  return { id: `e${number}`, name: nameOf(number), peerUrls: [], isHealthy, isLeader: number === 1 }
}

function layersOf(roles: Roles) {
  const layers = Object.entries(roles).map(([number, settings]) => {
    const name = `machines/${macToPath(macOf(Number(number)))}`
    const values = Object.entries(settings).map(
      ([key, value]) => [key, { value, layer: name, file: `${name}/${key}` }] as const,
    )
    return [name, { name, directory: name, settings: new Map(values) }] as const
  })
  const empty = ['roles/worker', 'roles/control-plane'].map(
    (name) => [name, { name, directory: name, settings: new Map() }] as const,
  )
  return new Map([...layers, ...empty])
}
