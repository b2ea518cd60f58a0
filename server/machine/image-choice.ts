// Which image a machine gets: by its pin, its channel, and what has failed.

import type { Mac } from '#lib/mac.ts'

import type { Machine } from './machine.ts'
import type { StoredImage } from './ports.ts'
import type { Channel, Quarantine, UpdateFailure } from './release-ports.ts'

export type ImageChoice =
  | { readonly kind: 'chosen'; readonly image: StoredImage }
  /** One line, safe to show. */
  | { readonly kind: 'none'; readonly reason: string }

export interface ChoiceFacts {
  readonly mac: Mac
  readonly channel: string
  /** Undefined when the channel was never promoted. */
  readonly pointer: Channel | undefined
  readonly pin: string | undefined
  readonly find: (version: string) => StoredImage | undefined
  readonly isEmpty: boolean
  readonly quarantineOf: (version: string) => Quarantine | undefined
  readonly failures: readonly UpdateFailure[]
  /** The channel's rollout goes on although its version is in quarantine: it has failures left (docs/decisions/quarantine.md). */
  readonly isTolerated: boolean
}

/** For a machine whose disk is made new, or that boots live: nothing that is in quarantine. */
export function chooseForNew(facts: ChoiceFacts): ImageChoice {
  return choose(facts, (version) => facts.quarantineOf(version) === undefined)
}

/**
 * For a machine that runs: it stays on what it runs while that is what it should run, in quarantine or not, and the
 * rollout under way goes on while that has failures left. A version that failed on this machine is never given to it.
 */
export function chooseForRunning(facts: ChoiceFacts, running: Pick<Machine, 'imageVersion'>): ImageChoice {
  const { pointer, isTolerated } = facts
  return choose(
    facts,
    (version) =>
      facts.quarantineOf(version) === undefined ||
      running.imageVersion === version ||
      (isTolerated && version === pointer?.version),
  )
}

function choose(facts: ChoiceFacts, isAllowed: (version: string) => boolean): ImageChoice {
  const { pin, pointer, channel, find } = facts
  const failed = new Set(facts.failures.filter(({ mac }) => mac === facts.mac).map(({ version }) => version))
  const usable = (version: string) => (isAllowed(version) && !failed.has(version) ? find(version) : undefined)
  if (pin !== undefined) {
    // A pin means this version and no other.
    const image = usable(pin)
    return image ? { kind: 'chosen', image } : none(`it is pinned to ${pin}, ${whyNot(facts, pin)}`)
  }
  if (facts.isEmpty) return none('the server has no image yet')
  if (pointer?.version === undefined) {
    return none(`channel ${channel} has no image: kateskit channel promote <version> ${channel}`)
  }
  for (const version of [pointer.version, ...pointer.previous]) {
    const image = usable(version)
    if (image) return { kind: 'chosen', image }
  }
  const why = whyNot(facts, pointer.version)
  return none(`channel ${channel} points at ${pointer.version}, ${why}, and nothing before it can be used`)
}

function whyNot({ find, quarantineOf }: ChoiceFacts, version: string): string {
  const quarantine = quarantineOf(version)
  if (quarantine) return `which is in quarantine (it failed on ${quarantine.mac}: ${quarantine.reason})`
  return find(version) ? 'which failed on this machine' : 'which this server does not have'
}

function none(reason: string): ImageChoice {
  return { kind: 'none', reason }
}
