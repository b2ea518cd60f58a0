// Which snapshots go: those beyond the count, and those that are too old. Pure.

import type { SnapshotName } from './snapshot-name.ts'

export interface PruneRules {
  /** Of each cluster. */
  readonly keep: number
  readonly days: number
}

/**
 * So many of each cluster, the newest, never go for their age: a clock that is years ahead, and snapshots that were taken
 * while it was, make all others look old at once.
 */
const AGELESS = 3

const DAY_MS = 24 * 3600 * 1000

/** In any order; `except` is a sha256. The newest one of a cluster never goes. */
export function superfluous<Kept extends SnapshotName>(
  snapshots: readonly Kept[],
  { keep, days }: PruneRules,
  { nowMs, except }: { readonly nowMs: number; readonly except?: string },
): readonly Kept[] {
  const clusters = Map.groupBy(snapshots, ({ clusterId }) => clusterId)
  return [...clusters.values()].flatMap((ofOne) =>
    ofOne
      .toSorted((left, right) => right.number - left.number)
      .filter((snapshot, rank) => {
        if (rank === 0 || snapshot.sha256 === except) return false
        return rank >= keep || (rank >= AGELESS && nowMs - snapshot.takenMs > days * DAY_MS)
      }),
  )
}
