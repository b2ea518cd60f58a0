// How the machines of one channel are updated: its settings, which all of them share.

import type { Profile } from './profile.ts'
import { findSettingRule } from './settings.ts'

export interface UpdatePolicy {
  /** How many of so many machines may restart at a time; at least one. */
  readonly atOnce: (machines: number) => number
  readonly haltAfter: number
}

/** By the profile of any machine of the channel; undefined when there is none: then the built-in values. */
export function updatePolicy(profile: Profile | undefined): UpdatePolicy {
  const text = (key: string) => profile?.settings.get(key)?.value ?? findSettingRule(key)?.fallback ?? '1'
  const atOnce = text('update-at-once')
  const share = Number.parseInt(atOnce, 10)
  return {
    atOnce: (machines) => Math.max(1, atOnce.endsWith('%') ? Math.floor((machines * share) / 100) : share),
    haltAfter: Number(text('update-halt-after')),
  }
}
