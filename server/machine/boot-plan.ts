// What a machine that netboots shall do: decided from its profile and what the server has to give.

import type { Mac } from '#lib/mac.ts'
import { macToPath } from '#lib/mac.ts'

import type { Bundle, Image, Target } from './ports.ts'
import type { Profile } from './profile.ts'

/** `reason` is one line for the machine's console. */
export type BootPlan =
  | { readonly kind: 'live'; readonly image: Image; readonly bundle: Bundle; readonly profile: Profile }
  | { readonly kind: 'local-disk'; readonly reason: string }
  | { readonly kind: 'hold'; readonly reason: string }

export type BootPlanKind = BootPlan['kind']

/** `reason` is one line, safe to show. */
export type BundleOutcome =
  | { readonly kind: 'made'; readonly bundle: Bundle }
  | { readonly kind: 'refused'; readonly reason: string }

/** A machine without a role always goes on to its own disk: nothing is ever written to it. */
export function decideBootPlan(profile: Profile, image: Image | undefined, outcome: BundleOutcome): BootPlan {
  if (profile.role === undefined) {
    return { kind: 'local-disk', reason: 'this machine has no role yet: kateskit assign <mac> <role>' }
  }
  if (profile.broken !== undefined) return { kind: 'hold', reason: profile.broken }
  const wanted = profile.settings.get('boot')?.value
  if (wanted === 'local-disk') return { kind: 'local-disk', reason: 'the setting boot is local-disk' }
  if (wanted === 'hold') return { kind: 'hold', reason: 'the setting boot is hold' }
  if (image === undefined) return { kind: 'hold', reason: 'the server has no image yet' }
  if (outcome.kind === 'refused') return { kind: 'hold', reason: outcome.reason }
  return { kind: 'live', image, bundle: outcome.bundle, profile }
}

/** What a running machine should have. The setting `boot` speaks of the next netboot only, so it changes nothing here. */
export function decideTarget(
  profile: Profile,
  image: Image | undefined,
  outcome: BundleOutcome,
): Target | undefined {
  if (profile.role === undefined || profile.broken !== undefined) return undefined
  if (image === undefined || outcome.kind === 'refused') return undefined
  return {
    imageVersion: image.version,
    bundleDigest: outcome.bundle.digest,
    mayStage: false,
    mayReboot: false,
    isGood: true,
    powerwash: false,
    rateKiBps: 0,
    arguments: '',
  }
}

/** `kit-34-56-78` for a machine that was given no name. */
export function hostnameOf(mac: Mac, profile: Profile): string {
  return profile.settings.get('hostname')?.value ?? `kit-${macToPath(mac).slice(9)}`
}

/** The kernel command line of a live boot (docs/ports-and-endpoints.md). Public by nature. */
export function liveKernelArguments(
  plan: Extract<BootPlan, { kind: 'live' }>,
  boot: { readonly id: string; readonly baseUrl: string },
): string {
  const { image, bundle, profile } = plan
  const root = image.files.get('root.squashfs')
  const consoles = profile.settings.get('console')?.value.split(' ') ?? []
  const extra = profile.settings.get('kernel-arguments')?.value
  return [
    ...consoles.map((name) => `console=${name}`),
    `kit.url=${boot.baseUrl}`,
    `kit.mac=${macToPath(profile.mac)}`,
    `kit.boot=${boot.id}`,
    `kit.image=${image.version}`,
    `kit.root-sha256=${root?.sha256}`,
    `kit.root-size=${root?.sizeBytes}`,
    `kit.bundle=${bundle.digest}`,
    `systemd.hostname=${hostnameOf(profile.mac, profile)}`,
    ...(extra === undefined ? [] : [extra]),
  ].join(' ')
}
