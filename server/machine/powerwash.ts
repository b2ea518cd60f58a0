// Whether the next netboot of a machine makes it new, and what a check-in makes of that.
//
// A loop is impossible by construction. A powerwash is asked for by a flag, by a new word of the setting `powerwash`,
// by the console's menu, or, with `netboot-means` set so, by the netboot itself. The machine's check-in `installing`
// takes the flag and the word away and makes it "not installed", which only a check-in from a running slot ends. The
// netboot itself counts only for an installed machine, and never when this server had told the machine to boot from
// the network. So between two powerwashes lies either a new request of a person or a system that ran.

import type { Boot, Machine, PowerwashMemory } from './machine.ts'
import type { BootWish } from './ports.ts'
import type { Profile } from './profile.ts'

export interface PowerwashFacts {
  readonly profile: Profile
  readonly machine: Machine | undefined
  readonly wish?: BootWish | undefined
}

export type PowerwashKind = 'powerwash' | 'powerwash-all'

/** Undefined when nobody asked for one. The machine has a role. */
export function findPowerwash(facts: PowerwashFacts): PowerwashKind | undefined {
  const { profile, machine, wish } = facts
  const isInstalled = machine?.isInstalled === true
  const boot = profile.settings.get('boot')?.value
  // It has nothing on a disk that a powerwash could make new, and shall not have.
  if (boot === 'live' && !isInstalled) return undefined
  const asked = findRequest(profile, machine)
  if (asked !== undefined) return asked
  // One that wipes persistence was cut short: an installation would keep what somebody wanted gone.
  if (machine?.isInstalled === false && machine.powerwashes?.isWiping) return 'powerwash-all'
  if (wish === 'powerwash' && (isInstalled || boot === 'install')) return 'powerwash'
  // It came by its disk, and nobody chose that.
  if (wish === 'recover') return undefined
  const netbootMeans = profile.settings.get('netboot-means')?.value
  if (netbootMeans === 'powerwash' && boot === 'install' && isInstalled && !wasTold(machine))
    return 'powerwash'
  return undefined
}

/** Asked for by a person: by the command, the API, or a word in the machine's folder that was not carried out yet. */
export function findRequest(profile: Profile, machine: Machine | undefined): PowerwashKind | undefined {
  if (machine?.powerwash !== undefined) {
    return machine.powerwash.persistence === 'wipe' ? 'powerwash-all' : 'powerwash'
  }
  const word = powerwashWord(profile)
  return word !== undefined && word !== machine?.powerwashes?.word ? 'powerwash' : undefined
}

export function powerwashWord(profile: Profile): string | undefined {
  return profile.settings.get('powerwash')?.value
}

/** The boot that runs there was sent to the network by us. */
function wasTold(machine: Machine): boolean {
  return machine.bootId !== undefined && machine.powerwashes?.toldBoot === machine.bootId
}

/**
 * The boot was to be a powerwash that was taken back since its script was handed out. Asked before the machine is given
 * its disk: from then on it prepares, and what was begun is best ended.
 */
export function isTakenBack({ plan, mintedMs }: Boot, machine: Machine): boolean {
  const isPowerwash = plan === 'powerwash' || plan === 'powerwash-all'
  return isPowerwash && mintedMs <= (machine.powerwashes?.cancelledMs ?? -1)
}

/** Of a machine whose disk begins to be made new by a boot of this plan: every request has been taken. */
export function memoryAfterBegin(
  machine: Machine,
  { plan, word }: { plan: string; word: string | undefined },
): PowerwashMemory {
  const { word: last, isWiping: _wiping } = machine.powerwashes ?? {}
  const kept = word ?? last
  return {
    ...(kept !== undefined && { word: kept }),
    ...(plan === 'powerwash-all' && { isWiping: true }),
  }
}
