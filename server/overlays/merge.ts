// Laying layers over each other: for each path the highest layer's entry, and what it hides.

import type { ProfileProblem } from '#machine/ports.ts'
import type { LayerName } from '#machine/profile.ts'

import { comparePaths, type Entry, parentsOf } from './entries.ts'
import { type OverlayLayer, sortedEntries } from './read-layer.ts'

export interface MergedEntry {
  readonly entry: Entry
  /** Layers whose version of the path is not used, lowest first. */
  readonly hides: readonly LayerName[]
}

export interface MergedOverlay {
  /** In the order of the archive: by the bytes of the paths. */
  readonly entries: readonly MergedEntry[]
  readonly problems: readonly ProfileProblem[]
}

/** Pure: the same layers in the same order always give the same result. Lowest layer first. */
export function mergeLayers(layers: readonly OverlayLayer[]): MergedOverlay {
  const merged = new Map<string, MergedEntry>()
  const problems: ProfileProblem[] = []
  for (const layer of layers) {
    for (const entry of sortedEntries(layer.entries)) {
      const message = layEntry(merged, entry, layer.part.name)
      if (message !== undefined) {
        problems.push({
          layer: layer.layer,
          file: `${layer.directory}/${layer.part.name}.attributes`,
          message,
        })
      }
    }
  }
  const entries = [...merged.values()].sort((a, b) => comparePaths(a.entry.path, b.entry.path))
  return { entries, problems }
}

function layEntry(merged: Map<string, MergedEntry>, entry: Entry, folder: string): string | undefined {
  const below = merged.get(entry.path)
  if (entry.kind === 'directory' && below) {
    // A lower layer's word on mode and owner stands until a higher layer has one of its own.
    if (below.entry.kind === 'directory' && entry.from !== 'attributes') return undefined
    if (below.entry.kind !== 'directory' && entry.from === 'implied') return blockedBy(below.entry, folder)
  }
  // A parent can be anything but a directory only where the layer's own directory has just been refused.
  if (parentsOf(entry.path).some((parent) => merged.get(parent)?.entry.kind !== 'directory')) return undefined
  if (entry.kind !== 'directory' && below?.entry.kind === 'directory') removeBeneath(merged, entry.path)
  const hides = below ? [...below.hides, below.entry.layer] : []
  merged.set(entry.path, { entry, hides })
  return undefined
}

/** Something put beneath a link would land wherever the link leads; beneath a deletion it would undo it in passing. */
function blockedBy({ kind, path, layer }: Entry, folder: string): string {
  const what = kind === 'delete' ? `deleted by ${layer}` : `a ${kind} of ${layer}`
  return `Cannot put anything into /${path}: it is ${what}; make it a folder in ${folder}/ to replace that`
}

/** What lies in a directory goes with it when a file, a link or a deletion takes its place. */
function removeBeneath(merged: Map<string, MergedEntry>, path: string): void {
  for (const other of merged.keys()) {
    if (other.startsWith(`${path}/`)) merged.delete(other)
  }
}
