// What a change of the profile tree is called in the history.

import { findMac, type Mac } from '#lib/mac.ts'
import type { NewEvent } from '#machine/event.ts'
import type { ProfileProblem } from '#machine/ports.ts'
import type { LayerName } from '#machine/profile.ts'
import { type Layers, mergeProfile } from '#machine/profile-merge.ts'

import type { TreeState } from './last-good.ts'

export function compareTrees(before: TreeState, after: TreeState): readonly NewEvent[] {
  return [
    ...brokenAndMended(before.problems, after.problems),
    ...changedLayers(before.layers, after.layers),
    ...assignedRoles(before.layers, after.layers),
  ]
}

/** Files beneath `root/` or `secret/`, or the attributes of one. */
export function overlayChanged(layer: LayerName): NewEvent {
  return layerEvent('profile-changed', layer, `${layer}: files of the overlay or secrets changed`)
}

/** The MACs that have a layer of their own. */
export function macsOf(layers: Layers): readonly Mac[] {
  return [...layers.values()].flatMap(({ name, isGone }) => (isGone ? [] : (macOf(name) ?? []))).sort()
}

function macOf(layer: LayerName): Mac | undefined {
  const [kind, name = ''] = layer.split('/')
  return kind === 'machines' ? findMac(name) : undefined
}

function layerEvent(kind: NewEvent['kind'], layer: LayerName, message: string): NewEvent {
  const mac = macOf(layer)
  return { kind, ...(mac && { mac }), message, data: { layer } }
}

/** Once per layer, and again when something else is wrong with it. */
function brokenAndMended(
  before: readonly ProfileProblem[],
  after: readonly ProfileProblem[],
): readonly NewEvent[] {
  const old = problemsByLayer(before)
  const now = problemsByLayer(after)
  const broken = [...now].filter(([layer, text]) => old.get(layer) !== text)
  const mended = [...old.keys()].filter((layer) => !now.has(layer))
  return [
    ...broken.map(([layer, text]) => layerEvent('profile-broken', layer, text)),
    ...mended.map((layer) =>
      layerEvent('profile-mended', layer, `${layer || 'the profile tree'} can be read again`),
    ),
  ]
}

function problemsByLayer(problems: readonly ProfileProblem[]): ReadonlyMap<LayerName, string> {
  const texts = new Map<LayerName, string>()
  for (const { layer, file, message } of problems) {
    const text = `${file}: ${message}`
    const earlier = texts.get(layer)
    texts.set(layer, earlier === undefined ? text : `${earlier}; ${text}`)
  }
  return texts
}

function changedLayers(before: Layers, after: Layers): readonly NewEvent[] {
  return [...new Set([...before.keys(), ...after.keys()])].flatMap((name) => {
    const [old, now] = [before.get(name), after.get(name)]
    if (now === undefined) return [layerEvent('profile-changed', name, `${name} was removed`)]
    if (old === undefined) return [layerEvent('profile-changed', name, `${name} was added`)]
    const keys = new Set([...old.settings.keys(), ...now.settings.keys()])
    const changed = [...keys].filter((key) => old.settings.get(key)?.value !== now.settings.get(key)?.value)
    if (changed.length === 0) return []
    return [layerEvent('profile-changed', name, `${name}: ${changed.sort().join(', ')} changed`)]
  })
}

function assignedRoles(before: Layers, after: Layers): readonly NewEvent[] {
  return macsOf(after).flatMap((mac) => {
    const { role } = mergeProfile(mac, after)
    if (role === undefined || role === mergeProfile(mac, before).role) return []
    return [{ kind: 'role-assigned', mac, message: `role ${role}`, data: { role } } as const]
  })
}
