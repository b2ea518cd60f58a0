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

export interface Validity {
  /** Seconds since 1970. */
  readonly signed: number
  readonly expires: number
}

/** docs/ports-and-endpoints.md, "The manifest". */
export function manifestText(image: StoredImage, { signed, expires }: Validity): string {
  const lines = [
    'kateskit-image 1',
    `version ${image.version}`,
    `arch ${image.arch}`,
    `epoch ${image.epoch}`,
    `signed ${signed}`,
    `expires ${expires}`,
    ...(image.rootHash === undefined ? [] : [`root-hash ${image.rootHash}`]),
    ...[...image.files.values()].map(({ name, sizeBytes, sha256 }) => `file ${name} ${sizeBytes} ${sha256}`),
  ]
  return lines.map((line) => `${line}\n`).join('')
}

export interface SignerOptions {
  readonly key: SigningKey
  readonly clock: Clock
  readonly log: Log
  /** When something was signed last, by an earlier run too; seconds since 1970. */
  readonly lastSigned: number
  /** A later time was signed with: to be kept for the next run. */
  readonly onSigned: (seconds: number) => void
}

export interface ManifestSigner {
  /** The same text and signature until too little of its time is left. */
  manifestOf(image: StoredImage): SignedManifest
  /** Its files have changed, or it is gone. */
  forget(version: string): void
}

export function createManifestSigner({
  key,
  clock,
  log,
  lastSigned,
  onSigned,
}: SignerOptions): ManifestSigner {
  const known = new Map<string, { readonly manifest: SignedManifest; readonly expires: number }>()
  let last = lastSigned
  let isBehind = false

  /** Never earlier than before: a clock that has gone back would make manifests that have expired already elsewhere. */
  const now = () => {
    const seconds = Math.floor(clock.nowMs() / 1000)
    const wasBehind = isBehind
    isBehind = seconds < last - CLOCK_TOLERANCE_SECONDS
    if (isBehind && !wasBehind) {
      const fix = 'set the clock of this machine right'
      log.warn({ fix, behindSeconds: last - seconds }, 'the clock is behind the last signature of an image')
    }
    return Math.max(seconds, last)
  }
  return {
    manifestOf(image) {
      const signed = now()
      const found = known.get(image.version)
      if (found !== undefined && found.expires - signed >= RENEW_BEFORE_SECONDS) return found.manifest
      const expires = signed + VALID_SECONDS
      const text = manifestText(image, { signed, expires })
      const manifest = { text, signature: key.sign(text) }
      known.set(image.version, { manifest, expires })
      if (signed > last) onSigned(signed)
      last = signed
      return manifest
    },
    forget: (version) => void known.delete(version),
  }
}
