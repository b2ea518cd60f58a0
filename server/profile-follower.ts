// Passes changes of the profile tree on: reservations, bundles, and the machines that wait for one.

import { describeError } from '#lib/errors.ts'
import type { Log } from '#lib/log.ts'
import type { Mac } from '#lib/mac.ts'
import type { Service } from '#lib/service.ts'
import type { Profiles } from '#machine/ports.ts'
import { createJoinedWork } from '#overlays/joined-work.ts'
import type { Overlays } from '#overlays/overlays.ts'
import type { SecretFiles } from '#overlays/secrets.ts'

import type { KnownMachines } from './known-machines.ts'
import type { Reservations } from './reservations.ts'

export interface FollowerParts {
  readonly tree: Pick<Profiles, 'profileFor' | 'machines'> & { onChange(listener: () => void): () => void }
  readonly overlays: Pick<Overlays, 'refresh'>
  readonly secrets: Pick<SecretFiles, 'refresh'>
  readonly roster: { macs(): readonly Mac[] }
  /** The machines have their new bundles and secrets. */
  readonly onFollowed: () => Promise<void>
  readonly reservations: Pick<Reservations, 'refresh'>
  readonly known: Pick<KnownMachines, 'refresh'>
  readonly log: Log
}

/** Starts before the tree and stops after it, so that no change is missed and none comes too late. */
export function createProfileFollower(parts: FollowerParts): Service {
  const { tree, overlays, secrets, roster, onFollowed, reservations, known, log } = parts
  let unsubscribe = () => {}
  let latest: Promise<void> = Promise.resolve()
  /** However many changes come while one is followed, they share the one run after it. */
  const follow = createJoinedWork<void, void>(
    () => 'all',
    async () => {
      reservations.refresh()
      known.refresh()
      // Machines that were never seen too: what is wrong with their overlay is told before they boot by it.
      const macs = new Set([...roster.macs(), ...tree.machines()])
      const withRole = [...macs].filter((mac) => tree.profileFor(mac).role !== undefined)
      await Promise.all([overlays.refresh(withRole), secrets.refresh(withRole)])
      await onFollowed()
    },
  )
  return {
    name: 'profile follower',
    async start() {
      unsubscribe = tree.onChange(() => {
        latest = follow().catch((error: unknown) =>
          log.error({ err: error }, `Cannot follow a change of the profiles: ${describeError(error)}`),
        )
      })
    },
    async stop() {
      unsubscribe()
      await latest
    },
  }
}
