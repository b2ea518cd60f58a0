// Which of two images is newer.

export interface Dated {
  readonly version: string
  /** Milliseconds since 1970: tells builds of one release apart. */
  readonly importedMs: number
}

/** For sorting, newest first: by release number, and builds of one release by when they came. */
export function compareImages(left: Dated, right: Dated): number {
  return (
    compareReleases(releaseOf(right.version), releaseOf(left.version)) || right.importedMs - left.importedMs
  )
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
