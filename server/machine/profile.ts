// What a machine should be: the merge of its layers of flat files, lowest first.

import type { Mac } from '#lib/mac.ts'

/** `defaults`, `channels/stable`, `roles/worker` or `machines/52-54-00-12-34-56`. */
export type LayerName = string

export interface SettingValue {
  readonly value: string
  readonly layer: LayerName
  /** The file the value was read from, as people would open it. */
  readonly file: string
}

export interface Profile {
  readonly mac: Mac
  /** Absent: nobody gave this machine a role, so nothing may be written to it. */
  readonly role?: string
  readonly channel: string
  /** Lowest first; only layers whose folder exists. */
  readonly layers: readonly LayerName[]
  /** With the fallbacks of the settings' table as layer `built-in`. */
  readonly settings: ReadonlyMap<string, SettingValue>
  /** Why this is not the whole profile: a layer is in error and no good value of it is known. Nobody may boot by it. */
  readonly broken?: string
}
