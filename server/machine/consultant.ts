// The profile of a machine and the bundle that belongs to it, of one moment.

import { describeError, KitError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import type { Mac } from '#lib/mac.ts'

import type { BundleOutcome } from './boot-plan.ts'
import type { Bundles, Profiles } from './ports.ts'
import type { Profile } from './profile.ts'

export interface ConsultantOptions {
  readonly profiles: Pick<Profiles, 'profileFor'>
  readonly bundles: Pick<Bundles, 'bundleFor'>
  readonly log: Log
}

export interface Consultation {
  readonly profile: Profile
  readonly bundle: BundleOutcome
}

const NO_ROLE: BundleOutcome = { kind: 'refused', reason: 'without a role there is no bundle' }

export class Consultant {
  readonly #options: ConsultantOptions

  constructor(options: ConsultantOptions) {
    this.#options = options
  }

  profileFor(mac: Mac): Profile {
    return this.#options.profiles.profileFor(mac)
  }

  /** The files may change while the bundle is made. */
  async consult(mac: Mac): Promise<Consultation> {
    for (;;) {
      const before = this.profileFor(mac)
      if (before.role === undefined) return { profile: before, bundle: NO_ROLE }
      const bundle = await this.#makeBundle(mac)
      const profile = this.profileFor(mac)
      if (profile.role === before.role && profile.layers.join() === before.layers.join()) {
        return { profile, bundle }
      }
    }
  }

  /** What is wrong with an overlay is told in the history by whoever makes the bundles. */
  async #makeBundle(mac: Mac): Promise<BundleOutcome> {
    try {
      return { kind: 'made', bundle: await this.#options.bundles.bundleFor(mac) }
    } catch (error) {
      if (error instanceof KitError) return { kind: 'refused', reason: inOneLine(error.message) }
      this.#options.log.error({ err: error, mac }, `no overlay bundle: ${describeError(error)}`)
      return { kind: 'refused', reason: "the server cannot make this machine's overlay bundle" }
    }
  }
}

/** A list of problems, one a line, by its first: a machine's console has little room. */
function inOneLine(message: string): string {
  const [title = '', first, ...more] = message.split('\n').map((line) => line.trim())
  const rest = more.length === 0 ? '' : ` (and ${more.length} more)`
  return first === undefined ? title : `${title} ${first}${rest}`
}
