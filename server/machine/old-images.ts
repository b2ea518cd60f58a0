// Which images nobody needs any more. Pure: releases.ts knows who uses one, and removes them.

import type { StoredImage } from './ports.ts'

export interface OldImageFacts {
  /** Newest first. */
  readonly images: readonly Pick<StoredImage, 'version' | 'importedMs'>[]
  readonly isUsed: (version: string) => boolean
  /** How many of those that nobody uses are kept: setting images/keep. */
  readonly keep: number
  readonly nowMs: number
  /** The one that came just now: somebody has plans for it, however old it is. */
  readonly imported: string | undefined
}

/** Whoever brought an image in has so long to make use of it. */
const YOUNG_MS = 24 * 3_600_000

/** Versions, the newest first. */
export function findOldImages({ images, isUsed, keep, nowMs, imported }: OldImageFacts): readonly string[] {
  return images
    .filter(({ version }) => !isUsed(version))
    .slice(keep)
    .filter(({ version, importedMs }) => version !== imported && nowMs - importedMs >= YOUNG_MS)
    .map(({ version }) => version)
}
