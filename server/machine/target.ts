// What a running machine should have, and what it may do about it now: docs/ports-and-endpoints.md, "The target".

import { findBytes } from './amounts.ts'
import { type BundleOutcome, diskArguments, type ServerWords } from './boot-plan.ts'
import type { ImageChoice } from './image-choice.ts'
import type { Machine } from './machine.ts'
import { isMirrored, nodeRoleOf, snapshotSecondsOf } from './node-settings.ts'
import type { Target } from './ports.ts'
import type { Profile } from './profile.ts'
import type { SecretsKept } from './secret-ports.ts'

/** What the rollout of its channel lets a machine do. */
export interface Permit {
  readonly mayStage: boolean
  readonly mayReboot: boolean
}

export interface TargetFacts {
  readonly profile: Profile
  readonly machine: Machine
  readonly image: ImageChoice
  readonly bundle: BundleOutcome
  readonly permit: Permit
  /** Its next netboot would be one, and it may go there now. */
  readonly isPowerwash: boolean
  /** The boot that asks. */
  readonly bootId: string | undefined
  /** Nothing is known against the image: it may become good although it is not wanted any more, or not here any more. */
  readonly isSound: (version: string) => boolean
  /** sha256 (hex) of its secret files; undefined when it has none. */
  readonly secretsDigest: string | undefined
  readonly server: ServerWords
}

/** The setting `boot` speaks of the next netboot only, so it changes nothing here. */
export function decideTarget(facts: TargetFacts): Target | undefined {
  const { profile, machine, bundle, permit } = facts
  if (profile.role === undefined || profile.broken !== undefined) return undefined
  const imageVersion = wantedVersion(facts)
  if (imageVersion === undefined || bundle.kind === 'refused') return undefined
  return {
    imageVersion,
    bundleDigest: bundle.bundle.digest,
    mayStage: permit.mayStage,
    mayReboot: permit.mayReboot,
    isGood: isConfirmed(facts, imageVersion, bundle.bundle.digest),
    powerwash: facts.isPowerwash && machine.state === 'running' && machine.isInstalled === true,
    rateKiBps: rateOf(profile),
    arguments: diskArguments(profile, facts.server),
    ...(facts.secretsDigest !== undefined && { secretsDigest: facts.secretsDigest }),
    secretsKept: keptOf(profile),
    kubernetes: nodeRoleOf(profile),
    snapshotSeconds: snapshotSecondsOf(profile),
    isMirrored: isMirrored(profile),
  }
}

/** Without anything to give, a running machine stays what it is: it still gets bundles, and its word on its boot. */
function wantedVersion({ image, machine }: TargetFacts): string | undefined {
  if (image.kind === 'chosen') return image.image.version
  return machine.state === 'running' ? machine.imageVersion : undefined
}

/** The boot that asks has checked in with what it should run, and nothing speaks against it. */
function isConfirmed({ machine, bootId, isSound }: TargetFacts, version: string, digest: string): boolean {
  if (bootId === undefined || machine.bootId !== bootId) return false
  if (machine.state !== 'running' || machine.checks === 'failed') return false
  const runs = machine.imageVersion
  return runs !== undefined && (runs === version || isSound(runs)) && machine.bundleDigest === digest
}

/** What is said is checked where it is read. */
function keptOf(profile: Profile): SecretsKept {
  return profile.settings.get('secrets-kept')?.value === 'memory' ? 'memory' : 'persist'
}

/** Never 0 for a limit, which would be none. */
function rateOf(profile: Profile): number {
  const bytes = findBytes(profile.settings.get('update-rate')?.value ?? '0') ?? 0
  return bytes === 0 ? 0 : Math.max(1, Math.floor(bytes / 1024))
}
