// What counts when the tree is not as it should be: each layer's last good value, for as long as somebody needs it.

import type { ProfileProblem } from '#machine/ports.ts'
import type { LayerName } from '#machine/profile.ts'
import { type Layer, type Layers, roleLayer } from '#machine/profile-merge.ts'

import type { LayerReading } from './read-layer.ts'
import type { TreeReading } from './read-tree.ts'

export interface TreeState {
  readonly layers: Layers
  readonly problems: readonly ProfileProblem[]
  /** The tree itself is not there: everything is as it was, and nothing may be written. */
  readonly isAbsent: boolean
}

export const EMPTY_TREE: TreeState = { layers: new Map(), problems: [], isAbsent: false }

/** What is in force after a reading, given what was in force before it. */
export function settleTree(before: TreeState, reading: TreeReading, directory: string): TreeState {
  if (reading.isEmpty && before.layers.size > 0) {
    const message = 'Cannot use the profile tree: it is empty; is its file system not mounted?'
    return { layers: before.layers, problems: [{ layer: '', file: directory, message }], isAbsent: true }
  }
  const layers = new Map<LayerName, Layer>()
  const problems = [...reading.problems]
  for (const [name, layer] of before.layers) {
    if (reading.unknown.some((prefix) => name.startsWith(prefix))) layers.set(name, layer)
  }
  for (const [name, layer] of reading.layers) {
    const found = layer.problems.length > 0 ? layer.problems : missingRole(layer, reading, layers)
    layers.set(name, found.length === 0 ? asLayer(layer) : keepGood(before, layer, found))
    problems.push(...found)
  }
  for (const role of namedRoles(layers)) {
    const kept = before.layers.get(roleLayer(role))
    if (!layers.has(roleLayer(role)) && kept) layers.set(roleLayer(role), { ...kept, isGone: true })
  }
  return {
    layers,
    problems: [...problems, ...findClashes(layers)],
    isAbsent: reading.unknown.includes(''),
  }
}

const asLayer = ({ name, directory, settings }: LayerReading): Layer => ({ name, directory, settings })

/** The last good value; without one what could be read, marked so that no machine boots by it. */
function keepGood(before: TreeState, reading: LayerReading, problems: readonly ProfileProblem[]): Layer {
  const last = before.layers.get(reading.name)
  if (last && last.broken === undefined) return last
  return { ...asLayer(reading), broken: `${reading.name} is in error: ${problems[0]?.message}` }
}

/** A role without a folder would silently be a machine without its files. */
function missingRole(
  { name, settings }: LayerReading,
  reading: TreeReading,
  kept: Layers,
): readonly ProfileProblem[] {
  const role = settings.get('role')
  if (!role?.value) return []
  const wanted = roleLayer(role.value)
  if (reading.layers.has(wanted) || kept.has(wanted)) return []
  return [
    {
      layer: name,
      file: role.file,
      message: `Cannot use the role ${role.value}: there is no folder ${wanted}`,
    },
  ]
}

function namedRoles(layers: Layers): ReadonlySet<string> {
  return new Set([...layers.values()].flatMap(({ settings }) => settings.get('role')?.value || []))
}

/** What no two machines may share. Nobody is held for it: which of the two is wrong cannot be known. */
function findClashes(layers: Layers): readonly ProfileProblem[] {
  const problems: ProfileProblem[] = []
  for (const key of ['ip', 'hostname']) {
    const first = new Map<string, string>()
    for (const { name, settings } of layers.values()) {
      const setting = settings.get(key)
      if (!setting?.value) continue
      const other = first.get(setting.value)
      if (other === undefined) first.set(setting.value, setting.file)
      else {
        const message = `Cannot use ${key} ${setting.value} twice: ${other} has it too`
        problems.push({ layer: name, file: setting.file, message })
      }
    }
  }
  return problems
}
