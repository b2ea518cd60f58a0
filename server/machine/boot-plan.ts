// What a machine that netboots shall do: decided from its profile, what is known of it, and what the server has to give.

import type { Mac } from '#lib/mac.ts'
import { macToPath } from '#lib/mac.ts'

import type { ImageChoice } from './image-choice.ts'
import type { Machine } from './machine.ts'
import type { BootWish, Bundle, Image } from './ports.ts'
import { findPowerwash } from './powerwash.ts'
import type { Profile } from './profile.ts'

interface ImagePlanOf<Kind extends string> {
  readonly kind: Kind
  readonly image: Image
  readonly bundle: Bundle
  readonly profile: Profile
}

/** A boot into an image of ours. */
export type ImagePlan =
  | ImagePlanOf<'live'>
  | ImagePlanOf<'install'>
  | ImagePlanOf<'powerwash'>
  | ImagePlanOf<'powerwash-all'>

/** `reason` is one line for the machine's console. */
export type BootPlan =
  | ImagePlan
  /** `menu`: it is installed, and whoever sits at the console may choose a powerwash instead. */
  | { readonly kind: 'local-disk'; readonly reason: string; readonly menu?: true }
  | { readonly kind: 'hold'; readonly reason: string }

export type BootPlanKind = BootPlan['kind']

/** `reason` is one line, safe to show. */
export type BundleOutcome =
  | { readonly kind: 'made'; readonly bundle: Bundle }
  | { readonly kind: 'refused'; readonly reason: string }

export interface BootFacts {
  readonly profile: Profile
  /** Undefined for one that was never seen. */
  readonly machine: Machine | undefined
  readonly image: ImageChoice
  readonly bundle: BundleOutcome
  readonly wish?: BootWish
}

type Intent = ImagePlan['kind'] | Extract<BootPlan, { kind: 'local-disk' | 'hold' }>

export function decideBootPlan(facts: BootFacts): BootPlan {
  const { profile, image, bundle } = facts
  const intent = decideIntent(facts)
  if (typeof intent !== 'string') return intent
  if (image.kind === 'none') return hold(image.reason)
  if (intent !== 'live' && image.image.rootHash === undefined) {
    return hold(`image ${image.image.version} has no root hash, so it cannot be installed, only booted live`)
  }
  if (bundle.kind === 'refused') return hold(bundle.reason)
  return { kind: intent, image: image.image, bundle: bundle.bundle, profile }
}

/**
 * A machine without a role always goes on to its own disk: nothing is ever written to it. One that is installed and finds
 * nothing there to start is installed anew, which keeps persistence and any slot that is good or on trial.
 */
function decideIntent(facts: BootFacts): Intent {
  const intent = decideByFacts(facts)
  if (facts.wish !== 'recover' || typeof intent === 'string' || intent.kind !== 'local-disk') return intent
  // It comes from its disk: back there it would go round for ever, or stand in a loader's menu.
  return intent.menu === true ? 'install' : hold(`it comes from its own disk, and ${intent.reason}`)
}

function decideByFacts({ profile, machine, wish }: BootFacts): Intent {
  if (profile.role === undefined) {
    return { kind: 'local-disk', reason: 'this machine has no role yet: kateskit assign <mac> <role>' }
  }
  if (profile.broken !== undefined) return hold(profile.broken)
  const wanted = profile.settings.get('boot')?.value
  if (wanted === 'hold') return hold('the setting boot is hold')
  const powerwash = findPowerwash({ profile, machine, wish })
  if (powerwash !== undefined) return powerwash
  if (wanted === 'live') return 'live'
  // What has begun to be made new has nothing else to start from.
  if (machine?.isInstalled === false) return 'install'
  if (wanted === 'local-disk') return { kind: 'local-disk', reason: 'the setting boot is local-disk' }
  if (machine?.isInstalled !== true || !maySlotStart(machine)) return 'install'
  return { kind: 'local-disk', reason: 'this machine is installed', menu: true }
}

/** A machine that has said that both slots are of no use comes back here from its disk again and again. */
function maySlotStart({ slots }: Machine): boolean {
  if (slots === undefined) return true
  return [slots.a, slots.b].some(({ state }) => state === 'ready' || state === 'trying' || state === 'good')
}

function hold(reason: string): Extract<BootPlan, { kind: 'hold' }> {
  return { kind: 'hold', reason }
}

export function isImagePlan(plan: BootPlan): plan is ImagePlan {
  return plan.kind !== 'local-disk' && plan.kind !== 'hold'
}

/** `kit-34-56-78` for a machine that was given no name. */
export function hostnameOf(mac: Mac, profile: Profile): string {
  return profile.settings.get('hostname')?.value ?? `kit-${macToPath(mac).slice(9)}`
}

/** What machines are told of the server; no URL ends with a slash. */
export interface ServerWords {
  readonly baseUrl: string
  /** The same by HTTPS. */
  readonly tlsUrl: string
  /** sha256 of the CA's certificate, DER, hex. */
  readonly caFingerprint: string
}

export interface BootWords extends ServerWords {
  readonly id: string
  readonly nowMs: number
}

/** The kernel command line of a netboot (docs/ports-and-endpoints.md). Public by nature. */
export function kernelArguments(plan: ImagePlan, boot: BootWords): string {
  const { image, bundle, profile } = plan
  const root = image.files.get('root.squashfs')
  return [
    `kit.plan=${plan.kind}`,
    `kit.boot=${boot.id}`,
    `kit.image=${image.version}`,
    ...(plan.kind === 'live' ? [`kit.root-sha256=${root?.sha256}`, `kit.root-size=${root?.sizeBytes}`] : []),
    `kit.bundle=${bundle.digest}`,
    `kit.time=${Math.floor(boot.nowMs / 1000)}`,
    'panic=10',
    diskArguments(profile, boot),
  ].join(' ')
}

/** What a slot's kernel command line has beside what the machine knows itself (docs/disk.md, "Starting from the disk"). */
export function diskArguments(profile: Profile, { baseUrl, tlsUrl, caFingerprint }: ServerWords): string {
  const consoles = profile.settings.get('console')?.value.split(' ') ?? []
  const extra = profile.settings.get('kernel-arguments')?.value
  return [
    `kit.url=${baseUrl}`,
    `kit.tls=${tlsUrl}`,
    `kit.ca=${caFingerprint}`,
    `kit.mac=${macToPath(profile.mac)}`,
    `systemd.hostname=${hostnameOf(profile.mac, profile)}`,
    ...consoles.map((name) => `console=${name}`),
    ...(extra === undefined ? [] : [extra]),
  ].join(' ')
}
