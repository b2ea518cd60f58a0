// What a cut in the middle of one write leaves on kit-esp: FAT has no journal, and a rename there is two writes.

import type { State } from './state.ts'

const sectorBytes = 512

/** States between two that follow each other. */
export function tornBetween(before: State, after: State): State[] {
  const changed = [...after.esp].filter(([path, content]) => before.esp.get(path)?.equals(content) !== true)
  return changed.flatMap(([path, content]) => {
    if (path.endsWith('/')) return []
    const old = before.esp.get(path)
    // Written in place: one sector, which a disk writes whole or not at all (docs/disk.md). As if it did not: its first bytes
    // new, the rest old.
    if (path.endsWith('/grubenv') && old !== undefined) return tornSectors(before, path, old, content)
    // Both names are there: vfat adds the new one, empty at first, before it takes the old one away (fs/fat/namei_vfat.c).
    const both = withFile(before, path, content)
    const empty = old === undefined ? [withFile(before, path, Buffer.alloc(0))] : []
    const half =
      path.includes('/entries/') && path.endsWith('.conf')
        ? []
        : [withFile(before, path, content.subarray(0, content.length / 2))]
    return [both, ...empty, ...(isRename(before, after) ? [] : half)]
  })
}

/** Something is gone: what is new has come by rename. */
function isRename(before: State, after: State): boolean {
  return [...before.esp.keys()].some((path) => !after.esp.has(path))
}

function tornSectors(before: State, path: string, old: Buffer, content: Buffer): State[] {
  const states: State[] = []
  for (let place = 0; place < sectorBytes; place++) {
    if (old[place] === content[place]) continue
    states.push(withFile(before, path, Buffer.concat([content.subarray(0, place), old.subarray(place)])))
  }
  return states
}

function withFile(state: State, path: string, content: Buffer): State {
  return { ...state, esp: new Map([...state.esp, [path, content]]) }
}
