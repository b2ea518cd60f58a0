// The domain put together: the registry, releases and powerwashes over one store.

import type { Clock } from '#lib/clock.ts'
import { createKeyedQueue } from '#lib/keyed-queue.ts'
import type { Log } from '#lib/log.ts'
import type { Mac } from '#lib/mac.ts'
import type { Service } from '#lib/service.ts'
import type { ServerWords } from '#machine/boot-plan.ts'
import { Consultant } from '#machine/consultant.ts'
import { Desk } from '#machine/desk.ts'
import { Fleet } from '#machine/fleet.ts'
import type { Authority, TpmVerifier } from '#machine/identity-ports.ts'
import { MachineAudit } from '#machine/machine-audit.ts'
import type { Bundles, ImageStore, Powerwashes, Profiles } from '#machine/ports.ts'
import { PowerwashDesk } from '#machine/powerwash-desk.ts'
import { ReleaseBook } from '#machine/release-book.ts'
import type { Releases } from '#machine/release-ports.ts'
import { ReleaseDesk } from '#machine/releases.ts'
import { Rollouts } from '#machine/rollouts.ts'
import { Roster } from '#machine/roster.ts'
import type { Secrets, SecretsDesk } from '#machine/secret-ports.ts'
import { createSecretsDesk } from '#machine/secrets-desk.ts'
import type { Store } from '#store/store.ts'

import { type ClusterDomain, type ClusterParts, createClusterDomain } from './cluster-domain.ts'
import { createIdentityBooks, createIdentityDomain, type IdentityDomain } from './identity-domain.ts'

export interface DomainParts extends ClusterParts {
  readonly store: Pick<Store, 'machines' | 'events' | 'releases' | 'identities' | 'audit' | 'clusters'>
  readonly tree: Profiles
  readonly overlays: Bundles
  readonly secrets: Secrets
  readonly images: Pick<ImageStore, 'list' | 'find' | 'remove' | 'named' | 'onChange'>
  /** Setting images/keep. */
  readonly keepImages: number
  readonly clock: Clock
  readonly log: Log
  readonly server: ServerWords
  /** Signs the machines' certificates. */
  readonly authority: Authority
  readonly tpm: TpmVerifier
  readonly mostMachines?: number
}

export interface Domain
  extends IdentityDomain,
    Pick<ClusterDomain, 'nodeDesk' | 'clusters' | 'clusterServices'> {
  readonly roster: Roster
  readonly desk: Desk
  readonly secretsDesk: SecretsDesk
  readonly releases: Releases
  readonly powerwashes: Powerwashes
  readonly rollouts: Rollouts
  /** Sees images come and go; starts after the images and before those who are asked from outside. */
  readonly releaseFollower: Service
  /** Settings and bundles are others than before: decides anew who may do what, and wakes those who wait. */
  profilesChanged(): Promise<void>
  /** Reads what the store knows. Called once, before anything else. */
  loadDomain(): Promise<void>
}

export function createDomain(parts: DomainParts): Domain {
  const { store, tree: profiles, overlays: bundles, secrets, images, clock, log, server } = parts
  const { machines, events } = store
  const audit = new MachineAudit(store.audit, clock)
  const queue = createKeyedQueue<Mac>()
  const book = new ReleaseBook(store.releases)
  // The machines come from the roster, which asks the fleet for what they should run.
  const fleet = new Fleet({ book, profiles, images, clock, machines: () => roster.all() })
  const known = createIdentityBooks({ store: store.identities, clock })
  const roster = new Roster({
    ...{ machines, events, profiles, bundles, queue, clock, identities: known.shown },
    ...(parts.mostMachines !== undefined && { mostMachines: parts.mostMachines }),
    releases: {
      wantedImage: (profile, machine) => fleet.wantedVersion(profile, machine),
      pinOf: (mac) => book.pinOf(mac),
    },
    nodeOf: (mac) => clusterDomain.clusters.nodeOf(mac),
  })
  const consultant = new Consultant({ profiles, bundles, log })
  const onChange = () => desk.announceTargetChange()
  const identityDomain = createIdentityDomain({
    ...{ book: known.book, attempts: known.attempts, roster, profiles, events, audit, clock, onChange },
    ...{ authority: parts.authority, tpm: parts.tpm },
  })
  const { guard, loadCluster, clusterProfilesChanged, ...clusterDomain } = createClusterDomain({
    ...parts,
    ...{ machines, roster, profiles, images, events, clock, log, store: store.clusters, audit: store.audit },
    ...identityDomain,
    onGuardChange: () => rollouts.settleSoon(),
    forgetMachine: (mac) => book.forget(mac),
  })
  const rollouts = new Rollouts({ fleet, guard, book, events, clock, log, onChange })
  const isSound = (version: string) => book.quarantineOf(version) === undefined
  const desk = new Desk({
    ...{ roster, machines, events, consultant, fleet, secrets, rollouts, isSound, queue, clock, server },
    audit,
    primaryOf: (mac) => known.book.primaryOf(mac),
  })
  const all = () => roster.all()
  const releases = new ReleaseDesk({
    ...{ book, fleet, rollouts, guard, machines: all, images, events, clock, onChange },
    keepImages: parts.keepImages,
  })
  const powerwashes = new PowerwashDesk({
    ...{ roster, profiles, consultant, fleet, events, queue, clock, server, onChange },
  })
  const secretsDesk = createSecretsDesk({
    ...{ machines, roster, profiles, secrets, events, audit: store.audit },
    identityOfKey: (key) => identityDomain.identityDesk.identityOfKey(key),
  })
  return {
    ...clusterDomain,
    ...{ roster, desk, secretsDesk, releases, powerwashes, rollouts, ...identityDomain },
    releaseFollower: createReleaseFollower({ images, releases, log }),
    async profilesChanged() {
      await rollouts.settle()
      clusterProfilesChanged()
      desk.announceTargetChange()
    },
    async loadDomain() {
      await known.book.load()
      await roster.load()
      await book.load()
      await loadCluster()
    },
  }
}

interface FollowerParts {
  readonly images: Pick<ImageStore, 'onChange'>
  readonly releases: Pick<ReleaseDesk, 'imagesChanged'>
  readonly log: Log
}

function createReleaseFollower({ images, releases, log }: FollowerParts): Service {
  let unsubscribe = () => {}
  let latest: Promise<void> = Promise.resolve()
  const follow = (imported?: string) => {
    latest = releases.imagesChanged(imported).catch((error: unknown) => {
      log.error({ err: error }, 'Cannot go on after a change of the images')
    })
  }
  return {
    name: 'release follower',
    async start() {
      unsubscribe = images.onChange(follow)
      follow()
      await latest
    },
    async stop() {
      unsubscribe()
      await latest
    },
  }
}
