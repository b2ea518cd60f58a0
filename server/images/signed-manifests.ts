// The manifests that machines believe: their text, and for how long it is signed.

import type { Clock } from '#lib/clock.ts'
import type { Log } from '#lib/log.ts'
import type { SignedManifest, StoredImage } from '#machine/ports.ts'

import type { SigningKey } from './signing-key.ts'

const DAY_SECONDS = 86_400
const VALID_SECONDS = 90 * DAY_SECONDS
/** A machine that was switched off for a while still has this long to be updated with what it fetched last. */
const RENEW_BEFORE_SECONDS = 30 * DAY_SECONDS
/** Clocks that are set right by a little are no news. */
const CLOCK_TOLERANCE_SECONDS = 60

interface Validity {
  /** Seconds since 1970. */
  readonly signed: number
  readonly expires: number
}

/** docs/ports-and-endpoints.md, "The manifest". */
function manifestText(image: StoredImage, { signed, expires }: Validity): string {
  const lines = [
    'kateskit-image 1',
    `version ${image.version}`,
    `arch ${image.arch}`,
    `epoch ${image.epoch}`,
    `signed ${signed}`,
    `expires ${expires}`,
    ...(image.rootHash === undefined ? [] : [`root-hash ${image.rootHash}`]),
    ...(image.kubernetes === undefined ? [] : [`kubernetes ${image.kubernetes}`]),
    ...[...image.files.values()].map(({ name, sizeBytes, sha256 }) => `file ${name} ${sizeBytes} ${sha256}`),
  ]
  return lines.map((line) => `${line}\n`).join('')
}

export interface SignerOptions {
  readonly key: SigningKey
  readonly clock: Clock
  readonly log: Log
  /** When images were signed last, by an earlier run too; seconds since 1970. Zero: never. */
  readonly lastSigned: number
  /** They are signed anew from now on: to be kept for the next run. */
  readonly onSigned: (seconds: number) => void
}

/**
 * All images are signed with the same time, anew when too little of it is left: in between, after a restart too, a
 * manifest stays the same to the byte, and so fits a signature that was fetched earlier.
 */
export function createManifestSigner(options: SignerOptions): (image: StoredImage) => SignedManifest {
  const { key, clock, log, onSigned } = options
  const known = new WeakMap<StoredImage, { readonly signed: number; readonly manifest: SignedManifest }>()
  let signed = options.lastSigned
  let isBehind = false

  /** The time never goes back: what a clock that does would sign had expired elsewhere already. */
  const renew = () => {
    const now = Math.floor(clock.nowMs() / 1000)
    const wasBehind = isBehind
    isBehind = now < signed - CLOCK_TOLERANCE_SECONDS
    if (isBehind && !wasBehind) {
      const fix = 'set the clock of this machine right'
      log.warn({ fix, behindSeconds: signed - now }, 'the clock is behind the last signature of images')
    }
    if (signed !== 0 && signed + VALID_SECONDS - now >= RENEW_BEFORE_SECONDS) return
    signed = Math.max(now, signed)
    onSigned(signed)
  }
  return (image) => {
    renew()
    const found = known.get(image)
    if (found?.signed === signed) return found.manifest
    const text = manifestText(image, { signed, expires: signed + VALID_SECONDS })
    const manifest = { text, signature: key.sign(text) }
    known.set(image, { signed, manifest })
    return manifest
  }
}
