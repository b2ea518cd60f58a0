// The rollout of one channel, decided from what is known of its machines: who may write the image into its other slot,
// who may restart into it, who has to give the lock back, and what state that is. Pure: releases.ts carries it out.

import type { Mac } from '#lib/mac.ts'

import type { Machine, Slot } from './machine.ts'
import type { Channel, Quarantine, RolloutState, UpdateFailure, UpdateLock } from './release-ports.ts'
import type { Permit } from './target.ts'
import type { UpdatePolicy } from './update-policy.ts'

/** One installed machine of the channel. */
export interface RolloutMachine {
  readonly machine: Machine
  /** By pin, channel and quarantine; absent when there is nothing to give. */
  readonly wanted?: string
  readonly isPinned: boolean
  readonly isCanary: boolean
  readonly isControlPlane: boolean
  readonly isWindowOpen: boolean
  /** How long nothing was heard of it while the server could hear. */
  readonly silentMs: number
}

export interface RolloutFacts {
  readonly channel: Channel
  readonly machines: readonly RolloutMachine[]
  readonly policy: UpdatePolicy
  /** Of the channel, also those of other tools. */
  readonly locks: readonly UpdateLock[]
  /** Of the channel's version, on machines of the channel: those elsewhere say nothing of a rollout here. */
  readonly failures: readonly UpdateFailure[]
  /** Of the channel's version. */
  readonly quarantine: Quarantine | undefined
  /** Machines of other channels that hold a lock and are control planes. */
  readonly otherControlPlanes: number
  /** The machine whose check-in is the occasion. */
  readonly checkedIn?: Mac | undefined
}

export interface RolloutDecision {
  readonly state: RolloutState
  readonly reason?: string
  readonly atOnce: number
  readonly done: readonly Mac[]
  readonly updating: readonly Mac[]
  readonly waiting: readonly Mac[]
  readonly failed: readonly Mac[]
  readonly permits: ReadonlyMap<Mac, Permit>
  /** Locks to be taken, by machines that may restart from now on. */
  readonly grants: readonly { readonly mac: Mac; readonly version: string }[]
  /** Holders whose lock is over. */
  readonly released: readonly string[]
  /** Holders that count as failed. */
  readonly lost: readonly { readonly mac: Mac; readonly version: string; readonly reason: string }[]
}

/** A machine that holds the lock and says nothing for so long has failed. */
const LOST_AFTER_MS = 3_600_000
/** The lock is for machines that are there: the agent checks in every five minutes. */
const PRESENT_MS = 15 * 60_000

export function decideRollout(facts: RolloutFacts): RolloutDecision {
  const groups = groupMachines(facts)
  const verdict = judge(facts, groups)
  const isStopped = verdict.state === 'halted' || verdict.state === 'quarantined'
  const may = (member: RolloutMachine) => isPermitted(member, facts, isStopped)
  const byMac = new Map(facts.machines.map((member) => [member.machine.mac as string, member]))
  const lost = facts.locks.flatMap((lock) => findLost(lock, byMac.get(lock.holder)))
  const released = facts.locks
    .filter((lock) => isOver(lock, byMac.get(lock.holder), { may, checkedIn: facts.checkedIn }))
    .map(({ holder }) => holder)
  const gone = new Set<string>([...released, ...lost.map(({ mac }) => mac)])
  const kept = facts.locks.filter(({ holder }) => !gone.has(holder))
  const atOnce = facts.policy.atOnce(facts.machines.length)
  const grants = lost.length > 0 ? [] : grant(facts, { kept, atOnce, may, byMac })
  const holding = new Map([
    ...kept.map(({ holder, version }) => [holder, version] as const),
    ...grants.map(({ mac, version }) => [mac as string, version] as const),
  ])
  const permits = new Map(
    facts.machines.map((member) => [member.machine.mac, permitOf(member, { may, holding })]),
  )
  return { ...verdict, atOnce, ...groups, permits, grants, released, lost }
}

/** Its version is in quarantine and the rollout goes on all the same: docs/decisions/quarantine.md. */
export function isTolerated({ failures, policy }: Pick<RolloutFacts, 'failures' | 'policy'>): boolean {
  return failures.length > 0 && failures.length < policy.haltAfter
}

interface Groups {
  readonly done: readonly Mac[]
  readonly updating: readonly Mac[]
  readonly waiting: readonly Mac[]
  readonly failed: readonly Mac[]
}

/** Machines that are pinned elsewhere are not of the rollout. */
function groupMachines(facts: RolloutFacts): Groups {
  const version = facts.channel.version
  const failed = facts.failures.map(({ mac }) => mac)
  const holders = new Set(facts.locks.filter((lock) => lock.version === version).map(({ holder }) => holder))
  const groups = { done: [] as Mac[], updating: [] as Mac[], waiting: [] as Mac[], failed }
  for (const { machine, isPinned, wanted } of facts.machines) {
    if (failed.includes(machine.mac) || (isPinned && wanted !== version)) continue
    if (isSettledOn(machine, version)) groups.done.push(machine.mac)
    else if (holders.has(machine.mac) || machine.imageVersion === version) groups.updating.push(machine.mac)
    else groups.waiting.push(machine.mac)
  }
  return groups
}

/** It runs the version, from a slot that is good. */
function isSettledOn({ imageVersion, slot, slots }: Machine, version: string | undefined): boolean {
  if (version === undefined || imageVersion !== version || slot === undefined) return false
  const own = slots?.[slot]
  return own?.state === 'good' && (own.image === undefined || own.image === version)
}

function judge(
  facts: RolloutFacts,
  groups: Groups,
): { readonly state: RolloutState; readonly reason?: string } {
  const { channel, quarantine, policy } = facts
  const isUnderWay = groups.waiting.length + groups.updating.length > 0
  if (quarantine !== undefined && (!isTolerated(facts) || isStuckAtCanary(facts, groups))) {
    const what = `image ${quarantine.version} failed on ${quarantine.mac}: ${quarantine.reason}`
    const own = groups.failed.length
    if (own === 0 || !isUnderWay) return { state: 'quarantined', reason: what }
    const count = own === 1 ? '1 machine' : `${own} machines`
    const why =
      own >= policy.haltAfter ? `update-halt-after is ${policy.haltAfter}` : 'a canary is among them'
    return { state: 'halted', reason: `failed on ${count} (${groups.failed.join(', ')}), ${why}; ${what}` }
  }
  if (!isUnderWay) return { state: 'done' }
  if (channel.isPaused) return { state: 'paused', reason: `channel ${channel.name} is paused` }
  const reason = describeWait(facts, groups)
  return { state: 'running', ...(reason !== undefined && { reason }) }
}

/** What the rollout waits for, when it waits for something else than machines at work. */
function describeWait(facts: RolloutFacts, groups: Groups): string | undefined {
  const canaries = waitingCanaries(facts)
  if (canaries.length > 0) return `the canaries come first: ${canaries.join(', ')}`
  const waiting = facts.machines.filter(({ machine }) => groups.waiting.includes(machine.mac))
  const away = waiting.filter(({ silentMs }) => silentMs > PRESENT_MS).map(({ machine }) => machine.mac)
  if (groups.updating.length > 0 || waiting.length === 0) return undefined
  if (away.length === waiting.length) return `not heard of lately: ${away.join(', ')}`
  if (waiting.every(({ isWindowOpen }) => !isWindowOpen)) return 'no update window is open'
  const others = facts.locks.filter(({ version }) => version === undefined)
  return others.length > 0
    ? `the lock is held by ${others.map(({ holder }) => holder).join(', ')}`
    : undefined
}

/** The others wait for a canary that has failed, and no canary is left to try. */
function isStuckAtCanary(facts: RolloutFacts, { failed, waiting, updating }: Groups): boolean {
  const waitedFor = waitingCanaries(facts)
  return (
    waiting.length + updating.length > 0 &&
    waitedFor.some((mac) => failed.includes(mac)) &&
    waitedFor.every((mac) => failed.includes(mac))
  )
}

function waitingCanaries({ machines, channel }: RolloutFacts): readonly Mac[] {
  return machines
    .filter(
      ({ isCanary, isPinned, machine }) => isCanary && !isPinned && !isSettledOn(machine, channel.version),
    )
    .map(({ machine }) => machine.mac)
}

/** Whether the machine may go on to what it should run, as far as the channel is concerned. A pin is a person's own word. */
function isPermitted(member: RolloutMachine, facts: RolloutFacts, isStopped: boolean): boolean {
  const { wanted, isPinned, isCanary, machine } = member
  if (wanted === undefined || machine.imageVersion === wanted) return false
  if (machine.state !== 'running' || machine.slot === undefined) return false
  if (isPinned) return true
  if (facts.channel.isPaused) return false
  if (wanted !== facts.channel.version) return true // back to what was before the one in quarantine
  return !isStopped && (isCanary || waitingCanaries(facts).length === 0)
}

function permitOf(
  member: RolloutMachine,
  {
    may,
    holding,
  }: { may: (member: RolloutMachine) => boolean; holding: ReadonlyMap<string, string | undefined> },
): Permit {
  const mayStage = may(member)
  const isHolder = member.wanted !== undefined && holding.get(member.machine.mac) === member.wanted
  return { mayStage, mayReboot: mayStage && isHolder && member.isWindowOpen }
}

/** Of a machine that took the lock and was not heard of since. Other tools give theirs back themselves. */
function findLost(
  { version, holder }: UpdateLock,
  member: RolloutMachine | undefined,
): RolloutDecision['lost'] {
  if (version === undefined || member === undefined || member.silentMs < LOST_AFTER_MS) return []
  if (isSettledOn(member.machine, version)) return []
  const minutes = Math.floor(member.silentMs / 60_000)
  const reason = `it was allowed to restart and has not been heard of for ${minutes} minutes`
  return [{ mac: holder as Mac, version, reason }]
}

/**
 * Good on the new version, or not on its way any more. That it may no longer go takes the lock from it only when it has
 * just checked in on the old version and has not offered the new one to its loader, which any restart would take.
 */
function isOver(
  { version }: UpdateLock,
  member: RolloutMachine | undefined,
  { may, checkedIn }: { may: (member: RolloutMachine) => boolean; checkedIn: Mac | undefined },
): boolean {
  if (version === undefined) return false
  if (member === undefined || isSettledOn(member.machine, version)) return true
  const { machine, wanted, isWindowOpen } = member
  if (machine.mac !== checkedIn || machine.state !== 'running' || machine.imageVersion === version)
    return false
  if (machine.slot === undefined || otherSlot(machine)?.state === 'trying') return false
  return wanted !== version || !isWindowOpen || !may(member)
}

function grant(
  { machines, otherControlPlanes }: RolloutFacts,
  state: {
    readonly kept: readonly UpdateLock[]
    readonly atOnce: number
    readonly may: (member: RolloutMachine) => boolean
    readonly byMac: ReadonlyMap<string, RolloutMachine>
  },
): RolloutDecision['grants'] {
  const { kept, atOnce, may, byMac } = state
  const held = new Set(kept.map(({ holder }) => holder))
  let controlPlanes =
    otherControlPlanes + kept.filter(({ holder }) => byMac.get(holder)?.isControlPlane).length
  let free = atOnce - kept.length
  const grants: { mac: Mac; version: string }[] = []
  const inOrder = machines.toSorted(
    (one, other) =>
      Number(other.isCanary) - Number(one.isCanary) || (one.machine.mac < other.machine.mac ? -1 : 1),
  )
  for (const member of inOrder) {
    const { machine, wanted, isControlPlane } = member
    if (free <= 0) break
    if (wanted === undefined || held.has(machine.mac) || !isReadyFor(member, wanted) || !may(member)) continue
    if (isControlPlane && controlPlanes > 0) continue
    grants.push({ mac: machine.mac, version: wanted })
    free -= 1
    controlPlanes += Number(isControlPlane)
  }
  return grants
}

/** The image lies in its other slot, and it is there to restart now. */
function isReadyFor({ machine, isWindowOpen, silentMs }: RolloutMachine, wanted: string): boolean {
  if (!isWindowOpen || silentMs > PRESENT_MS || machine.slot === undefined) return false
  const other = otherSlot(machine)
  return other?.image === wanted && (other.state === 'ready' || other.state === 'trying')
}

function otherSlot({ slot, slots }: Machine): Slot | undefined {
  return slots?.[slot === 'a' ? 'b' : 'a']
}
