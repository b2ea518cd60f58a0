// Whether a check-in is believed, and what it makes of the machine. The only way a machine changes its state.

import type { ErrorCode } from '#lib/errors.ts'

import type { NewEvent } from './event.ts'
import { nextState } from './lifecycle.ts'
import type { Boot, Machine } from './machine.ts'
import type { CheckIn } from './ports.ts'

export interface CheckInFacts {
  readonly machine: Machine
  /** The boot the check-in names; undefined when it was never minted for this machine. */
  readonly named: Boot | undefined
  /** The boot that checked in last; undefined when none ever did. */
  readonly current: Boot | undefined
  readonly nowMs: number
}

export type CheckInOutcome =
  | { readonly kind: 'accepted'; readonly machine: Machine; readonly events: readonly NewEvent[] }
  | { readonly kind: 'refused'; readonly code: ErrorCode; readonly reason: string }

/**
 * A boot is believed until a later one has checked in. Minting alone ends nothing: anybody on the wire can ask for a
 * boot script, and must not silence a running machine by it.
 */
export function decideCheckIn(checkIn: CheckIn, facts: CheckInFacts): CheckInOutcome {
  const { machine, named, current } = facts
  if (named === undefined || named.mac !== machine.mac) {
    return {
      kind: 'refused',
      code: 'not-found',
      reason: `boot ${checkIn.boot} was never offered to this machine`,
    }
  }
  if (current !== undefined && named.id !== current.id && named.mintedMs < current.mintedMs) {
    return {
      kind: 'refused',
      code: 'stale-boot',
      reason: `boot ${checkIn.boot} is older than ${current.id}, which has checked in`,
    }
  }
  if (named.id === current?.id && machine.state === 'running' && checkIn.phase !== 'running') {
    return {
      kind: 'refused',
      code: 'stale-boot',
      reason: `boot ${checkIn.boot} is running: its initrd is long over`,
    }
  }
  return { kind: 'accepted', ...advance(checkIn, facts, named) }
}

function advance(
  checkIn: CheckIn,
  { machine, nowMs }: CheckInFacts,
  boot: Boot,
): { machine: Machine; events: NewEvent[] } {
  const state = nextState(machine.state, checkIn.phase)
  const isNewBoot = machine.bootId !== boot.id
  const { imageVersion: _image, bundleDigest: _bundle, ...kept } = machine
  const known = isNewBoot ? kept : machine
  const next: Machine = {
    ...known,
    state,
    stateSinceMs: state === machine.state && !isNewBoot ? machine.stateSinceMs : nowMs,
    bootId: boot.id,
    lastSeenMs: nowMs,
    lastCheckInMs: nowMs,
    rebootReasons: checkIn.rebootReasons ?? (isNewBoot ? [] : machine.rebootReasons),
    ...(checkIn.image === undefined ? {} : { imageVersion: checkIn.image }),
    ...(checkIn.bundle === undefined ? {} : { bundleDigest: checkIn.bundle }),
    ...(checkIn.address === undefined ? {} : { address: checkIn.address }),
  }
  return { machine: next, events: eventsOf(machine, next, boot) }
}

function eventsOf(before: Machine, after: Machine, boot: Boot): NewEvent[] {
  const mac = after.mac
  const events: NewEvent[] = []
  if (before.state !== after.state || before.bootId !== after.bootId) {
    events.push({
      kind: 'checked-in',
      mac,
      message: `${before.state} → ${after.state}`,
      data: { from: before.state, to: after.state, boot: boot.id },
    })
  }
  const isTakeOver = before.state === 'running' && after.state === 'running' && before.bootId === after.bootId
  if (isTakeOver && after.bundleDigest !== undefined && before.bundleDigest !== after.bundleDigest) {
    const reasons = after.rebootReasons.join('; ')
    events.push({
      kind: 'bundle-applied',
      mac,
      message:
        reasons === ''
          ? 'new overlay bundle applied, no reboot needed'
          : `new overlay bundle applied, reboot needed: ${reasons}`,
      data: { bundle: after.bundleDigest, reboot: reasons },
    })
  }
  return events
}
