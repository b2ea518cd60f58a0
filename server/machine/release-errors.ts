// What people are told when a channel cannot go where they want it.

import { KitError } from '#lib/errors.ts'

export function withoutImage(channel: string): KitError {
  return new KitError('not-found', `Cannot find a rollout of ${channel}: the channel points at no image`, {
    fix: `kateskit channel promote <version> ${channel}`,
  })
}

/** From one Kubernetes to another. */
export function wrongStep(what: string, problem: string): KitError {
  return new KitError('conflict', `Cannot ${what}: ${problem}`, {
    fix: 'promote an image with the next minor of Kubernetes first',
  })
}
