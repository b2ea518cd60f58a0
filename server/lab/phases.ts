// Where a lab machine is on its way from power-on to a running system, as told by the server's events alone.

import { findIpv4, type Ipv4 } from '#lib/ipv4.ts'
import type { Event } from '#machine/event.ts'

/**
 * The parts of a boot in their order, each named after what the machine is busy with. What ends it:
 * - `firmware`: the first DHCP packet of the firmware was answered
 * - `loader`: the boot script was handed out
 * - `kernel`: the initrd reported for the first time
 * - `pairing`: it has proved who it is, or the initrd has gone on without; it may wait for a person here
 * - `disk`: the step that fetches the image began; what lies between are the checks and, in an installation, the partitions
 * - `image`: the initrd's last step, the hand-over, began
 * - `system`: the agent of the running system checked in
 */
export const BOOT_PHASES = ['firmware', 'loader', 'kernel', 'pairing', 'disk', 'image', 'system'] as const
export type BootPhase = (typeof BOOT_PHASES)[number]

/** `elsewhere`: the server sent it on to its own disk or told it to wait. An installed machine arrives from there all the same. */
export type MachinePhase = BootPhase | 'running' | 'failed' | 'elsewhere'

export interface BootProgress {
  readonly phase: MachinePhase
  /** When the machine was switched on, or, for a boot nobody here started, when it was first heard of. */
  readonly poweredOnMs: number
  /** When each phase ended; a phase that nobody reported ended when the next one did. */
  readonly endedMs: Readonly<Partial<Record<BootPhase, number>>>
  readonly address?: Ipv4
  /** The step of the initrd it is in, or that failed. */
  readonly step?: string
  /** Why it is `failed` or `elsewhere`; one line. */
  readonly reason?: string
  /** The last lines of the log of a failed step. */
  readonly failureLog?: string
  readonly lastEvent?: Event
}

/** The step of the initrd in which it proves who it is; their names are in the order of their numbers. */
const IDENTITY_STEP = '25-identity'

/** The steps of the initrd (boot/initrd/steps) that fetch the image: into memory, or into a slot of the disk. */
const IMAGE_STEPS = ['40-image', '43-slot']

/** Its last one: from here on systemd has the machine. */
const HANDOVER_STEP = '70-handover'

export function powerOn(atMs: number): BootProgress {
  return { phase: 'firmware', poweredOnMs: atMs, endedMs: {} }
}

/** Takes one event of this machine into account. Events come in order of their id. */
export function advance(before: BootProgress, event: Event): BootProgress {
  const progress = { ...beginAgain(before, event), lastEvent: event }
  const address = findIpv4(String(event.data['address'] ?? event.data['ip'] ?? ''))
  return { ...step(progress, event), ...(address === undefined ? {} : { address }) }
}

/** A machine that netboots again after it had its kernel is measured anew. */
function beginAgain(progress: BootProgress, event: Event): BootProgress {
  const netboots = event.kind === 'dhcp-offered' || event.kind === 'boot-script-sent'
  const hadKernel = progress.endedMs.kernel !== undefined || progress.phase === 'elsewhere'
  return netboots && hadKernel ? powerOn(event.atMs) : progress
}

function step(progress: BootProgress, event: Event): BootProgress {
  switch (event.kind) {
    case 'machine-discovered':
    case 'dhcp-offered':
    case 'loader-sent':
      return endPhase(progress, 'firmware', event)
    case 'boot-script-sent':
      return BOOTS_HERE.includes(String(event.data['plan']))
        ? endPhase(progress, 'loader', event)
        : { ...endPhase(progress, 'loader', event), phase: 'elsewhere', reason: event.message }
    case 'step-started':
    case 'step-done':
      return initrdStep(progress, event)
    case 'step-failed':
      return {
        ...initrdStep(progress, event),
        phase: 'failed',
        reason: event.message,
        ...(event.data['log'] === undefined ? {} : { failureLog: String(event.data['log']) }),
      }
    case 'identity-issued':
    case 'certificate-renewed':
      // An installed machine renews its certificate at any time.
      return progress.phase === 'pairing' ? endPhase(progress, 'pairing', event) : progress
    case 'checked-in':
      return checkedIn(progress, event)
    default:
      return progress
  }
}

/** Boot plans with which our kernel starts. */
const BOOTS_HERE = ['live', 'install', 'powerwash', 'powerwash-all']

function initrdStep(progress: BootProgress, event: Event): BootProgress {
  const name = String(event.data['step'] ?? '')
  const isOver = event.kind === 'step-done' && name === IDENTITY_STEP
  return { ...endPhase(recover(progress), isOver ? 'pairing' : endedBy(name), event), step: name }
}

/** The phase that is over when a step of the initrd says anything. */
function endedBy(step: string): BootPhase {
  if (step === HANDOVER_STEP) return 'image'
  if (IMAGE_STEPS.includes(step)) return 'disk'
  return step <= IDENTITY_STEP ? 'kernel' : 'pairing'
}

function checkedIn(progress: BootProgress, event: Event): BootProgress {
  switch (event.data['to']) {
    case 'starting':
    case 'installing':
      return endPhase(recover(progress), 'pairing', event) // only a machine that is known may
    case 'running':
      return endPhase(recover(progress), 'system', event)
    case 'failed':
      return { ...progress, phase: 'failed', reason: progress.reason ?? event.message }
    default:
      return progress
  }
}

/** Word from a machine that had failed, or had been sent on to its own disk, means that it is on its way again. */
function recover(progress: BootProgress): BootProgress {
  if (progress.phase !== 'failed' && progress.phase !== 'elsewhere') return progress
  const { reason: _, failureLog: __, ...rest } = progress
  return { ...rest, phase: phaseAfter(rest.endedMs) }
}

function endPhase(progress: BootProgress, phase: BootPhase, event: Event): BootProgress {
  const passed = BOOT_PHASES.slice(0, BOOT_PHASES.indexOf(phase) + 1)
  const endedMs = { ...progress.endedMs }
  for (const name of passed) endedMs[name] ??= event.atMs
  return { ...progress, endedMs, phase: phaseAfter(endedMs) }
}

function phaseAfter(endedMs: BootProgress['endedMs']): MachinePhase {
  return BOOT_PHASES.find((phase) => endedMs[phase] === undefined) ?? 'running'
}

export type PhaseSeconds = Readonly<Partial<Record<BootPhase | 'total', number>>>

/** How long each finished phase took, to a tenth of a second; `total` once all are. */
export function phaseSeconds(progress: BootProgress): PhaseSeconds {
  const seconds: Partial<Record<BootPhase | 'total', number>> = {}
  let sinceMs = progress.poweredOnMs
  for (const phase of BOOT_PHASES) {
    const endMs = progress.endedMs[phase]
    if (endMs === undefined) return seconds
    seconds[phase] = tenths(endMs - sinceMs)
    sinceMs = endMs
  }
  return { ...seconds, total: tenths(sinceMs - progress.poweredOnMs) }
}

function tenths(milliseconds: number): number {
  return Math.max(0, Math.round(milliseconds / 100) / 10)
}
