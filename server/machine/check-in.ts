// Whether a check-in is believed, and what it makes of the machine. The only way a machine changes its state.

import type { ErrorCode } from '#lib/errors.ts'

import type { NewEvent } from './event.ts'
import { nextState } from './lifecycle.ts'
import type { Boot, Machine } from './machine.ts'
import type { CheckIn } from './ports.ts'
import { memoryAfterBegin } from './powerwash.ts'
import type { UpdateLock } from './release-ports.ts'
import { findSlotNews, type ImageFailure } from './slot-news.ts'

export interface CheckInFacts {
  readonly machine: Machine
  /** The boot the check-in names; undefined when it was never minted for this machine. */
  readonly named: Boot | undefined
  /** The boot that checked in last; undefined when none ever did. */
  readonly current: Boot | undefined
  /** The update this machine is allowed to carry out. */
  readonly lock?: UpdateLock | undefined
  /** What the setting `powerwash` of the machine says. */
  readonly powerwashWord?: string | undefined
  readonly nowMs: number
}

export type CheckInOutcome =
  | {
      readonly kind: 'accepted'
      readonly machine: Machine
      readonly events: readonly NewEvent[]
      readonly failures: readonly ImageFailure[]
      /** Why it must not go on although its words are believed. */
      readonly turnedBack?: string
    }
  | { readonly kind: 'refused'; readonly code: ErrorCode; readonly reason: string }

export function decideCheckIn(checkIn: CheckIn, facts: CheckInFacts): CheckInOutcome {
  const { machine, current } = facts
  const doubt = findDoubt(checkIn.boot, facts)
  if (doubt !== undefined) return doubt
  // Without a doubt there is such a boot.
  const named = facts.named as Boot
  if (named.id === current?.id && machine.state === 'running' && checkIn.phase !== 'running') {
    return refuse('stale-boot', `boot ${checkIn.boot} is running: its initrd is long over`)
  }
  const wrong = checkIn.phase === 'installing' ? findWrongBegin(named) : undefined
  return wrong ?? accept(checkIn, facts, named)
}

/**
 * A boot is believed until a later one has checked in. Minting alone ends nothing: anybody on the wire can ask for a
 * boot script, and must not silence a running machine by it.
 */
export function findDoubt(
  bootId: string,
  { machine, named, current }: Pick<CheckInFacts, 'machine' | 'named' | 'current'>,
): Extract<CheckInOutcome, { kind: 'refused' }> | undefined {
  if (named === undefined || named.mac !== machine.mac) {
    return refuse('not-found', `boot ${bootId} was never offered to this machine`)
  }
  if (current !== undefined && named.id !== current.id && named.mintedMs < current.mintedMs) {
    return refuse('stale-boot', `boot ${bootId} is older than ${current.id}, which has checked in`)
  }
  return undefined
}

function refuse(code: ErrorCode, reason: string): Extract<CheckInOutcome, { kind: 'refused' }> {
  return { kind: 'refused', code, reason }
}

const MAKES_NEW: readonly Boot['plan'][] = ['install', 'powerwash', 'powerwash-all']

/** The last moment to keep a machine from making its disk new: it waits for the answer. */
function findWrongBegin({ id, plan }: Boot) {
  if (MAKES_NEW.includes(plan)) return undefined
  return refuse('conflict', `boot ${id} has the plan ${plan}, which makes no disk new`)
}

function accept(checkIn: CheckIn, facts: CheckInFacts, boot: Boot): CheckInOutcome {
  const before = facts.machine
  const said = afterWords(checkIn, facts, boot)
  // Before its slots are forgotten because they are made new.
  const { failures, events: slotEvents } = findSlotNews({ before, after: said, boot, lock: facts.lock })
  if (checkIn.phase === 'installing' && failures.some(({ version }) => version === checkIn.image)) {
    return turnBack(checkIn, facts, boot)
  }
  const machine = afterPhase(checkIn, { ...facts, machine: said }, boot)
  const events = [...lifeEvents(before, machine, boot), ...slotEvents, ...bundleEvents(before, machine)]
  return { kind: 'accepted', machine, events, failures }
}

/**
 * What it is about to write has just turned out to have failed there: it would fail again and again. Its slots are known
 * from now on, so that the same image is written when a person lets it (`rollout retry`).
 */
function turnBack(checkIn: CheckIn, facts: CheckInFacts, boot: Boot): CheckInOutcome {
  const outcome = accept({ ...checkIn, phase: 'failed' }, facts, boot)
  if (outcome.kind === 'refused') return outcome
  const turnedBack = `image ${checkIn.image} has failed on this machine: its next netboot is offered what else there is`
  return { ...outcome, turnedBack }
}

/** What it says of itself. A new boot takes back what the one before said of what it ran, and not what lies on the disk. */
function afterWords(checkIn: CheckIn, { machine, nowMs }: CheckInFacts, boot: Boot): Machine {
  const state = nextState(machine.state, checkIn.phase)
  const isNewBoot = machine.bootId !== boot.id
  const {
    imageVersion: _image,
    bundleDigest: _bundle,
    slot: _slot,
    checks: _checks,
    reason: _reason,
    drift: _drift,
    ...kept
  } = machine
  const { boot: _boot, phase: _phase, image, bundle, rebootReasons, ...said } = checkIn
  return {
    ...(isNewBoot ? kept : machine),
    ...said,
    state,
    stateSinceMs: state === machine.state && !isNewBoot ? machine.stateSinceMs : nowMs,
    bootId: boot.id,
    lastSeenMs: nowMs,
    lastCheckInMs: nowMs,
    rebootReasons: rebootReasons ?? (isNewBoot ? [] : machine.rebootReasons),
    ...(image !== undefined && { imageVersion: image }),
    ...(bundle !== undefined && { bundleDigest: bundle }),
  }
}

/** What follows for its disk. A live boot says nothing of that. */
function afterPhase(checkIn: CheckIn, { machine, powerwashWord }: CheckInFacts, boot: Boot): Machine {
  if (checkIn.phase === 'installing') {
    const { powerwash: _request, slots: _slots, ...kept } = machine
    const powerwashes = memoryAfterBegin(machine, { plan: boot.plan, word: powerwashWord })
    return { ...kept, isInstalled: false, powerwashes }
  }
  const hasStarted = boot.plan === 'disk' || (checkIn.phase === 'running' && checkIn.slot !== undefined)
  const { isWiping, ...memory } = machine.powerwashes ?? {}
  const settled = hasStarted && isWiping ? { ...machine, powerwashes: memory } : machine
  return checkIn.phase === 'running' && checkIn.slot !== undefined
    ? { ...settled, isInstalled: true }
    : settled
}

function lifeEvents(before: Machine, after: Machine, boot: Boot): NewEvent[] {
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
  if (before.isInstalled === true && after.isInstalled === false) {
    const message = boot.plan === 'install' ? 'it is installed anew' : `${boot.plan}: its disk is made new`
    events.push({ kind: 'powerwash-begun', mac, message, data: { plan: boot.plan, boot: boot.id } })
  }
  if (before.isInstalled !== true && after.isInstalled === true) {
    const aside = before.isInstalled === undefined ? '; this server did not install it' : ''
    const image = after.imageVersion ?? 'unknown'
    const message = `it runs image ${image} from slot ${after.slot}${aside}`
    events.push({ kind: 'installed', mac, message, data: { image, slot: after.slot ?? '' } })
  }
  return events
}

function bundleEvents(before: Machine, after: Machine): NewEvent[] {
  const isTakeOver = before.state === 'running' && after.state === 'running' && before.bootId === after.bootId
  if (!isTakeOver || after.bundleDigest === undefined || before.bundleDigest === after.bundleDigest) return []
  const reasons = after.rebootReasons.join('; ')
  const needed = reasons === '' ? 'no reboot needed' : `reboot needed: ${reasons}`
  return [
    {
      kind: 'bundle-applied',
      mac: after.mac,
      message: `new overlay bundle applied, ${needed}`,
      data: { bundle: after.bundleDigest, reboot: reasons },
    },
  ]
}
