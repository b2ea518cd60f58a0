// From layers to the profile of one machine: the same layers always give the same profile.

import { type Mac, macToPath } from '#lib/mac.ts'

import { hostnameOf } from './boot-plan.ts'
import type { ExplainedValue } from './ports.ts'
import type { LayerName, Profile, SettingValue } from './profile.ts'
import { channelFolder, findSettingRule, SETTINGS } from './settings.ts'

/** One folder of the profile tree, as it counts now. */
export interface Layer {
  readonly name: LayerName
  readonly directory: string
  /** An empty value takes back what lower layers say. */
  readonly settings: ReadonlyMap<string, SettingValue>
  /** Why `settings` may be incomplete: the folder is in error and was never seen without one. */
  readonly broken?: string
  /** The folder is gone; this is what it last said. */
  readonly isGone?: true
}

export type Layers = ReadonlyMap<LayerName, Layer>

const BUILT_IN = { layer: 'built-in', file: 'default' }

export function machineLayer(mac: Mac): LayerName {
  return `machines/${macToPath(mac)}`
}

export function roleLayer(role: string): LayerName {
  return `roles/${role}`
}

export function mergeProfile(mac: Mac, layers: Layers): Profile {
  const { role, channel, applied } = chooseLayers(mac, layers)
  const settings = new Map<string, SettingValue>()
  for (const { key, fallback } of SETTINGS) {
    const value = findValue(applied, key)
    if (value?.value) settings.set(key, value)
    else if (fallback !== undefined) settings.set(key, { value: fallback, ...BUILT_IN })
  }
  const roleIsMissing = role !== undefined && !layers.has(roleLayer(role))
  const broken = roleIsMissing
    ? `there is no folder ${roleLayer(role)}`
    : applied.find((layer) => layer.broken !== undefined)?.broken
  return {
    mac,
    ...(role !== undefined && { role }),
    channel,
    layers: applied.map(({ name }) => name),
    settings,
    ...(broken !== undefined && { broken }),
  }
}

/** Every setting, also those without a value, in the order of the table; `source` is the file that decided. */
export function explainProfile(mac: Mac, layers: Layers): readonly ExplainedValue[] {
  const { applied } = chooseLayers(mac, layers)
  const profile = mergeProfile(mac, layers)
  return SETTINGS.map(({ key }) => {
    const value = profile.settings.get(key)?.value
    const shown = value ?? (key === 'hostname' ? hostnameOf(mac, profile) : '')
    return { key, value: shown, source: findValue(applied, key)?.file ?? BUILT_IN.file }
  })
}

/** The role decides which layers apply, and the channel may come from the role: so these two come first. */
function chooseLayers(mac: Mac, layers: Layers) {
  const own = layers.get(machineLayer(mac))
  const defaults = layers.get('defaults')
  const role = findValue([defaults, own], 'role')?.value || undefined
  const ofRole = role === undefined ? undefined : layers.get(roleLayer(role))
  const channel =
    findValue([defaults, ofRole, own], 'channel')?.value || (findSettingRule('channel')?.fallback ?? '')
  const ofChannel = layers.get(`channels/${channelFolder(channel)}`)
  const applied = [defaults, ofChannel, ofRole, own].filter((layer) => layer !== undefined)
  return { role, channel, applied }
}

/** The highest layer's word on the key, which may be empty. */
function findValue(lowestFirst: readonly (Layer | undefined)[], key: string): SettingValue | undefined {
  return lowestFirst.findLast((layer) => layer?.settings.has(key))?.settings.get(key)
}
