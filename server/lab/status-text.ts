// How the lab's machines look to people and to programs: pure text.

import { formatTable } from '#lib/text-table.ts'

import { BOOT_PHASES, type MachinePhase, phaseSeconds } from './phases.ts'
import { hasArrived, isReady, type MachineStatus } from './watch.ts'

const PHASE_TEXT: Readonly<Record<MachinePhase, string>> = {
  firmware: 'firmware looks for a network',
  loader: 'boot loader',
  kernel: 'kernel starts',
  pairing: 'proves who it is',
  disk: 'looks at its disk',
  image: 'fetches its image',
  system: 'system starts',
  running: 'running',
  failed: 'FAILED',
  elsewhere: 'sent on to its own disk',
}

/** The longest text comes last, where a narrow terminal cuts it off. */
const HEADER = ['MACHINE', 'ROLE', 'ADDRESS', 'SECONDS', 'WHERE IT IS'] as const

/** The table that people watch; one string a line. The seconds are those since power-on, until it runs. */
export function statusTable(statuses: readonly MachineStatus[], nowMs: number): string[] {
  return formatTable(
    HEADER,
    statuses.map((status) => {
      const { machine, progress, view } = status
      const seconds = phaseSeconds(progress).total ?? (nowMs - progress.poweredOnMs) / 1000
      return [
        machine.name,
        view?.role ?? '-',
        progress.address ?? view?.address ?? '-',
        Math.floor(seconds).toString(),
        whereItIs(status),
      ]
    }),
  )
}

/** What a log gets when a machine has moved on. */
export function statusLine(status: MachineStatus): string {
  const total = phaseSeconds(status.progress).total
  const seconds = total === undefined ? '' : ` after ${total} s`
  const where = whereItIs(status)
  const text = where.startsWith('running')
    ? `running${seconds}${where.slice('running'.length)}`
    : `${where}${seconds}`
  return `${status.machine.name}: ${text}`
}

function whereItIs(status: MachineStatus): string {
  const { phase, step, reason, lastEvent } = status.progress
  const text = PHASE_TEXT[phase]
  if (phase === 'running') return hasArrived(status) ? runningText(status) : 'running, takes over its bundle'
  if (phase === 'failed' || phase === 'elsewhere') return reason === undefined ? text : `${text}: ${reason}`
  if (phase === 'pairing' && lastEvent?.kind === 'identity-conflict') return `${text}: ${lastEvent.message}`
  return phase === 'image' && step !== undefined ? `${text} (${step})` : text
}

function runningText(status: MachineStatus): string {
  const node = status.view?.node
  if (node?.state === 'ready') return `running, node Ready (${node.role})`
  return isReady(status) ? PHASE_TEXT.running : `running, ${nodeText(status)}`
}

function nodeText({ view }: MachineStatus): string {
  const { state = 'not in the cluster yet', reason } = view?.node ?? {}
  return `node ${state}${reason === undefined ? '' : `: ${reason}`}`
}

/** Why a machine is not ready, for `--until ready`; undefined when it is. */
export function notReadyReason(status: MachineStatus): string | undefined {
  if (isReady(status)) return undefined
  const { progress, view } = status
  if (progress.phase === 'running') {
    if (view?.isInstalled === false) return 'it runs, but from no slot of its disk'
    if (hasArrived(status)) return `it runs: ${nodeText(status)}`
    return view?.wantedBundle === undefined
      ? 'it runs, but no bundle is wanted for it'
      : `it runs with bundle ${view.bundleDigest ?? 'none'} instead of ${view.wantedBundle}`
  }
  if (progress.phase === 'failed')
    return `step ${progress.step ?? 'unknown'} failed: ${progress.reason ?? 'no reason given'}`
  if (progress.phase === 'elsewhere') return progress.reason ?? PHASE_TEXT.elsewhere
  const last = progress.lastEvent
  const heard =
    last === undefined ? 'nothing was heard of it' : `the last event was ${last.kind}: ${last.message}`
  return `it is still in phase ${progress.phase}; ${heard}`
}

/** One machine of `--json`; a phase that has not ended has no seconds. */
export function statusJson(status: MachineStatus): Readonly<Record<string, unknown>> {
  const { machine, progress, view } = status
  const reason = notReadyReason(status)
  return {
    kind: 'machine',
    mac: machine.mac,
    name: machine.name,
    firmware: machine.firmware,
    ready: reason === undefined,
    state: view?.state ?? 'unseen',
    phase: progress.phase,
    role: view?.role,
    hostname: view?.hostname,
    address: progress.address ?? view?.address,
    image: view?.imageVersion,
    slot: view?.slot,
    bundle: view?.bundleDigest,
    node: view?.node?.state,
    seconds: phaseSeconds(progress),
    ...(reason === undefined ? {} : { reason }),
    ...(progress.failureLog === undefined ? {} : { log: progress.failureLog }),
  }
}

/** The phases in words, for the line that is printed when one ends. */
export function phasesText(status: MachineStatus): string {
  const seconds = phaseSeconds(status.progress)
  return BOOT_PHASES.filter((phase) => seconds[phase] !== undefined)
    .map((phase) => `${phase} ${seconds[phase]} s`)
    .join(', ')
}
