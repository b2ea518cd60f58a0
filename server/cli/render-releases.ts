// Channels, rollouts and what a powerwash does, as people read them: pure text.

import { formatTable } from '#lib/text-table.ts'
import type { PowerwashRequest } from '#machine/machine.ts'
import type { MachineView } from '#machine/ports.ts'
import type { ChannelView, QuarantineView, RolloutView, UpdateLock } from '#machine/release-ports.ts'

import { ago } from './time-words.ts'

export function renderChannels(channels: readonly ChannelView[], nowMs: number): string[] {
  if (channels.length === 0) {
    return ['No channel points at an image yet. kateskit channel promote <version> <channel> makes one.']
  }
  return formatTable(
    ['CHANNEL', 'IMAGE', 'STATE', 'MACHINES', 'CHANGED', 'BEFORE'],
    channels.map((channel) => [
      channel.name,
      channel.version ?? '-',
      channel.isPaused ? 'paused' : '-',
      `${channel.machines.length}`,
      ago(nowMs - channel.changedMs),
      channel.previous.slice(0, 3).join(', ') || '-',
    ]),
  )
}

export function renderRollouts(rollouts: readonly RolloutView[]): string[] {
  if (rollouts.length === 0) return ['No channel points at an image yet, so nothing rolls out.']
  const header = [
    'CHANNEL',
    'IMAGE',
    'STATE',
    'DONE',
    'UPDATING',
    'WAITING',
    'FAILED',
    'AT ONCE',
    'HALTS AFTER',
  ]
  const counts = (rollout: RolloutView) =>
    [rollout.done, rollout.updating, rollout.waiting, rollout.failed].map((macs) => `${macs.length}`)
  const [head = '', ...rows] = formatTable(
    header,
    rollouts.map((rollout) => [
      ...[rollout.channel, rollout.version, rollout.state],
      ...counts(rollout),
      ...[`${rollout.atOnce}`, plural(rollout.haltAfter, 'failure')],
    ]),
  )
  return [head, ...rows.flatMap((row, index) => [row, ...rolloutNotes(rollouts[index])])]
}

/** One rollout with its machines by name. */
export function renderRollout(rollout: RolloutView, machines: readonly MachineView[]): string[] {
  const names = new Map(machines.map(({ mac, hostname }) => [mac, `${mac}  ${hostname}`]))
  const states = ['updating', 'failed', 'waiting', 'done'] as const
  const rows = states.flatMap((state) => rollout[state].map((mac) => [state, names.get(mac) ?? mac]))
  const table =
    rows.length === 0 ? ['No machine is on this channel.'] : formatTable(['STATE', 'MACHINE'], rows)
  return [...renderRollouts([rollout]), '', ...table]
}

/** Those that no channel points at: the others are seen in their rollouts. */
export function renderQuarantines(quarantines: readonly QuarantineView[], nowMs: number): string[] {
  const apart = quarantines.filter(({ channels }) => channels.length === 0)
  if (apart.length === 0) return []
  const table = formatTable(
    ['IN QUARANTINE', 'SINCE', 'FAILED ON', 'REASON'],
    apart.map(({ version, mac, reason, sinceMs }) => [version, ago(nowMs - sinceMs), mac, reason]),
  )
  return ['', ...table, '    kateskit rollout lift <version> lets one be used again']
}

/** Those of other tools: a machine with the lock is seen in its rollout. */
export function renderLocks(locks: readonly UpdateLock[], nowMs: number): string[] {
  const foreign = locks.filter(({ version }) => version === undefined)
  if (foreign.length === 0) return []
  const table = formatTable(
    ['LOCK OF', 'HELD BY', 'SINCE'],
    foreign.map(({ channel, holder, sinceMs }) => [channel, holder, ago(nowMs - sinceMs)]),
  )
  const note =
    'kateskit rollout unlock <channel> <holder> takes it from one that is gone; after a day it counts no more'
  return ['', ...table, `    ${note}`]
}

function rolloutNotes(rollout: RolloutView | undefined): string[] {
  if (rollout === undefined) return []
  const { state, reason, channel, held = [] } = rollout
  const help: Partial<Record<RolloutView['state'], string>> = {
    paused: `kateskit rollout resume ${channel} goes on`,
    halted: `kateskit rollout retry ${channel} tries again, once the reason is gone`,
    quarantined: `kateskit rollout retry ${channel} lifts the quarantine; promoting another version leaves it behind`,
  }
  const waits = held.map((each) => `${each.mac} may not restart yet: ${each.reason}`)
  return [reason, help[state], ...waits].filter((note) => note !== undefined).map((note) => `    ${note}`)
}

/** What a powerwash takes and what it leaves (docs/disk.md, "Kept and lost"). */
export function renderPowerwash(
  machine: MachineView,
  persistence: PowerwashRequest['persistence'],
): string[] {
  const system = 'both slots, the container images, and what was written into the running system'
  const persistent = 'persistence (etcd, volumes, machine id, ssh host keys, named paths)'
  const server = 'role, channel, pin and history, which are on the server'
  const isKept = persistence === 'keep'
  return [
    `A powerwash makes ${machine.mac} (${machine.hostname}) new at its next netboot; if it runs, it restarts for it now.`,
    `  lost: ${system}${isKept ? '' : `; and ${persistent}`}`,
    `  kept: ${isKept ? `${persistent}; ` : ''}${server}`,
  ]
}

export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}
