// Which of two images is newer.

import type { FoundImage } from './manifest.ts'

/** For sorting, newest first: by release number, and builds of one release by when they were built. */
export function compareImages(left: FoundImage, right: FoundImage): number {
  return compareReleases(releaseOf(right.version), releaseOf(left.version)) || right.builtMs - left.builtMs
}

/** The numbers before the first dash: `0.10.0-1a2b3c4d` is 0, 10, 0. What follows names a build and has no order. */
function releaseOf(version: string): readonly number[] {
  const [release = ''] = version.split('-', 1)
  return release.split('.').map((part) => Number.parseInt(part, 10) || 0)
}

function compareReleases(left: readonly number[], right: readonly number[]): number {
  for (let index = 0; index < Math.max(left.length, right.length); index++) {
    const difference = (left[index] ?? 0) - (right[index] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}
